"""Taking back over REST: a key, a service, an epoch, one change in the middle, everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kit.asgi import Answer, Caller, on_disk

CONFIG = "/api/v1/config"
LAMP = f"{CONFIG}/lamp"
EPOCH = f"{CONFIG}/epoch/rollback"


class Rest(Caller):
    async def did(self, method: str, target: str, body: Any = None, **how: Any) -> Any:
        """The JSON of an answer that has to be a good one."""
        answer = await self.ask(method, target, body, **how)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def put(self, service: str, **values: Any) -> int:
        revision: int = (await self.did("PUT", f"{CONFIG}/{service}", values))["revision"]
        return revision

    async def stored(self, service: str) -> Any:
        return (await self.did("GET", f"{CONFIG}/{service}?view=stored"))["config"]

    async def schema(self, service: str, **properties: Any) -> None:
        query = "?allow_breaking=true&reason=as+it+has+to+be"
        body = {"type": "object", "properties": properties}
        await self.did("PUT", f"/api/v1/schemas/{service}{query}", body)

    async def take_back(self, *, preview: bool = False, **order: Any) -> Any:
        return await self.did("POST", EPOCH + ("?dry_run=true" if preview else ""), order)

    async def refused(self, target: str, **order: Any) -> tuple[str, Any]:
        """(the problem's name, the problem)."""
        answer = await self.ask("POST", target, order)
        assert answer.status == (422 if answer.json["type"].endswith("-values") else 409), (
            answer.body
        )
        return answer.json["type"].removeprefix("/problems/"), answer.json

    @property
    def revision(self) -> int:
        return self.system.view.committed.revision


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with on_disk(tmp_path) as system:
        yield Rest(system)


# ── a service ──────────────────────────────────────────────────────────────────────────────────


async def test_a_service_or_some_of_its_keys_goes_back_as_a_new_revision(rest: Rest) -> None:
    first = await rest.put("lamp", level=1, colour="red")
    await rest.put("lamp", level=2, watt=4)
    back = await rest.did("POST", f"{LAMP}/rollback", {"to_revision": first, "keys": ["level"]})
    assert (back["config"], back["revision"]) == ({"level": 1, "watt": 4}, 3)
    back = await rest.did("POST", f"{LAMP}/rollback", {"to_revision": first, "reason": "enough"})
    assert back["config"] == {"level": 1, "colour": "red"}
    entries = (await rest.did("GET", f"{LAMP}/history"))["entries"]
    assert [(one["action"], one["reason"]) for one in entries[:2]] == [
        ("rollback", "enough"),
        ("rollback", "rollback to revision 1"),
    ]
    rows = (await rest.did("GET", "/api/v1/audit"))["entries"]
    taken = [json.loads(one["body"]).get("taken_back") for one in rows]
    assert {"lamp": {"after": 1, "upto": 2, "keys": ["level"]}} in taken
    name, problem = await rest.refused(f"{LAMP}/rollback", to_revision=1, keys=["no_such"])
    assert (name, problem["errors"][0]["pointer"]) == ("invalid-values", "/keys/0")
    for wrong in (
        {},
        {"to_revision": -1},
        {"to_revision": 1, "keys": []},
        {"to_revision": 1, "steps": 3},
    ):
        assert (await rest.refused(f"{LAMP}/rollback", **wrong))[0] == "invalid-values"
    told = await rest.ask("POST", f"{LAMP}/rollback", {"to_revision": 0})
    assert (told.status, told.json["type"]) == (404, "/problems/not-there-then")
    stale = {"If-Match": '"1"'}
    answer = await rest.ask("POST", f"{LAMP}/rollback", {"to_revision": 1}, headers=stale)
    assert answer.status == 412


async def test_a_preview_shows_what_becomes_effective_and_changes_nothing(rest: Rest) -> None:
    await rest.schema("lamp", level={"type": "number", "default": 0.5})
    await rest.put("lamp")
    await rest.put("lamp", level=0.9)
    told = await rest.did("POST", f"{LAMP}/rollback?dry_run=true", {"to_revision": 1})
    assert told["changes"] == [{"key": "level", "old": 0.9, "new": 0.5}]
    assert (told["errors"], told["instances"], rest.revision) == ([], [], 2)


async def test_what_todays_schema_does_not_take_is_said_before_anything_is_written(
    rest: Rest,
) -> None:
    """A15."""
    await rest.schema("lamp", level={"type": "number"}, colour={"type": "string"})
    await rest.put("lamp", level=0.9, colour="red")
    await rest.put("lamp", level=0.3)
    await rest.schema("lamp", level={"type": "number", "maximum": 0.5}, colour={"type": "string"})
    told = await rest.did("POST", f"{LAMP}/rollback?dry_run=true", {"to_revision": 1})
    assert [one["pointer"] for one in told["errors"]] == ["/level"]
    name, problem = await rest.refused(f"{LAMP}/rollback", to_revision=1)
    assert (name, problem["errors"][0]["pointer"]) == ("rollback-refused", "/level")
    name, problem = await rest.refused(EPOCH, to_revision=1)
    assert (name, problem["errors"][0]["pointer"]) == ("rollback-refused", "/services/lamp/level")
    told = await rest.take_back(to_revision=1, preview=True)
    assert [one["pointer"] for one in told["errors"]] == ["/services/lamp/level"]
    assert (rest.revision, await rest.stored("lamp")) == (2, {"level": 0.3})
    await rest.did("POST", f"{LAMP}/rollback", {"to_revision": 1, "keys": ["colour"]})
    assert await rest.stored("lamp") == {"level": 0.3, "colour": "red"}


async def test_values_of_an_older_schema_move_as_it_says(rest: Rest) -> None:
    """A15, with `x-was`: two versions on."""
    await rest.schema("lamp", wait_ms={"type": "integer", "x-unit": "ms"})
    await rest.put("lamp", wait_ms=300)
    await rest.put("lamp", wait_ms=2000)
    seconds = {"type": "number", "x-unit": "s", "x-was": {"key": "wait_ms", "multiply": [1, 1000]}}
    await rest.schema("lamp", wait=seconds)
    assert await rest.stored("lamp") == {"wait": 2}
    await rest.schema("lamp", pause={**seconds, "x-was": {"key": "wait"}})
    assert await rest.stored("lamp") == {"pause": 2}
    await rest.take_back(last=True)
    assert await rest.stored("lamp") == {"pause": 0.3}
    await rest.did("POST", f"{LAMP}/rollback", {"to_revision": 2})
    assert await rest.stored("lamp") == {"pause": 2}


async def test_values_from_before_the_first_schema_move_as_the_later_ones_say(rest: Rest) -> None:
    """Also if an earlier schema was taken out of use before they were written."""
    await rest.schema("lamp", wait={"type": "number"}, level={"type": "number"})
    await rest.did("DELETE", "/api/v1/schemas/lamp")
    await rest.put("lamp", wait=300)
    await rest.put("lamp", wait=2000)
    await rest.schema("lamp", wait={"type": "number"})
    await rest.schema("lamp", pause={"type": "number", "x-was": {"key": "wait"}})
    assert await rest.stored("lamp") == {"pause": 2000}
    await rest.take_back(last=True)
    assert await rest.stored("lamp") == {"pause": 300}
    await rest.did("POST", f"{LAMP}/rollback", {"to_revision": 2})
    assert await rest.stored("lamp") == {"pause": 2000}


async def test_secrets_stay_and_a_key_that_became_one_is_not_written_in_plain(rest: Rest) -> None:
    await rest.put("lamp", pin="sk-marked", level=1)
    await rest.put("lamp", level=2)
    await rest.did("POST", "/api/v1/secrets", {"service": "lamp", "name": "pin", "value": "1234"})
    told = await rest.ask("POST", f"{LAMP}/rollback", {"to_revision": 1})
    assert (told.status, told.json["config"]) == (200, {"level": 1, "pin": "********"})
    assert b"sk-marked" not in told.body
    assert await rest.stored("lamp") == {"level": 1}


# ── an epoch, the newest change ────────────────────────────────────────────────────────────────


async def test_the_newest_change_is_taken_back_and_twice_goes_further(rest: Rest) -> None:
    """A14."""
    for service in ("a", "b", "c"):
        await rest.put(service, level=1)
    await rest.put("a", level=2)
    bad = {name: {"level": 9} for name in ("a", "b", "c")}
    await rest.did("POST", f"{CONFIG}/epoch", {"services": bad})
    told = await rest.take_back(last=True, preview=True)
    assert (told["undone"], told["services"], told["kept"]) == (5, ["a", "b", "c"], [])
    assert [(one["service"], one["old"], one["new"]) for one in told["changes"]] == [
        ("a", 9, 2), ("b", 9, 1), ("c", 9, 1),
    ]  # fmt: skip
    assert rest.revision == 5
    back = await rest.take_back(last=True)
    assert (back["undone"], back["revision"], back["epoch_seq"]) == (5, 6, 3)
    assert [await rest.stored(name) for name in "abc"] == [{"level": 2}, {"level": 1}, {"level": 1}]
    assert (await rest.take_back(last=True))["undone"] == 4
    assert await rest.stored("a") == {"level": 1}
    name, problem = await rest.refused(EPOCH, last=True)
    assert name == "nothing-to-take-back"
    assert "a, b, c" in problem["detail"]  # nothing was there before: they are kept


async def test_a_new_change_is_the_newest_again_and_rolled_back_to_counts_as_taken_back(
    rest: Rest,
) -> None:
    for level in range(1, 6):
        await rest.put("lamp", level=level)
    await rest.did("POST", f"{LAMP}/rollback", {"to_revision": 3})
    assert (await rest.take_back(last=True))["undone"] == 3
    await rest.put("lamp", level=7)
    assert (await rest.take_back(last=True))["undone"] == 8
    assert await rest.stored("lamp") == {"level": 2}
    assert (await rest.take_back(last=True))["undone"] == 2
    assert await rest.stored("lamp") == {"level": 1}


async def test_a_deletion_is_a_change_that_can_be_taken_back(rest: Rest) -> None:
    await rest.put("lamp", level=1)
    await rest.did("DELETE", LAMP)
    assert (await rest.take_back(last=True))["undone"] == 2
    assert await rest.stored("lamp") == {"level": 1}


async def test_a_repetition_is_answered_as_before_and_takes_nothing_more_back(rest: Rest) -> None:
    for level in (1, 2):
        await rest.put("lamp", level=level)
    once = {"Idempotency-Key": "once"}
    first = await rest.ask("POST", EPOCH, {"last": True}, headers=once)
    again = await rest.ask("POST", EPOCH, {"last": True}, headers=once)
    assert (first.status, first.json) == (again.status, again.json)
    assert (rest.revision, await rest.stored("lamp")) == (3, {"level": 1})
    other = await rest.ask("POST", EPOCH, {"undo": 1}, headers=once)
    assert (other.status, other.json["type"]) == (422, "/problems/idempotency-mismatch")


# ── one change in the middle ───────────────────────────────────────────────────────────────────


async def test_one_change_in_the_middle_goes_and_the_others_stay(rest: Rest) -> None:
    await rest.put("lamp", level=1, colour="red")
    await rest.did(
        "POST",
        f"{CONFIG}/epoch",
        {"services": {"lamp": {"level": 2, "colour": "red"}, "door": {"a": 1}}},
    )
    await rest.put("lamp", level=2, colour="blue")
    back = await rest.take_back(undo=2)
    assert (back["services"], back["kept"], back["undone"]) == (["lamp"], ["door"], 2)
    assert (await rest.stored("lamp"), await rest.stored("door")) == (
        {"level": 1, "colour": "blue"}, {"a": 1},
    )  # fmt: skip
    assert (await rest.refused(EPOCH, undo=2))[0] == "nothing-to-take-back"


async def test_a_key_that_was_written_since_is_named_and_goes_back_only_if_listed(
    rest: Rest,
) -> None:
    await rest.put("lamp", level=1, colour="red")
    await rest.put("lamp", level=2, colour="blue")
    await rest.put("lamp", level=3, colour="blue")
    name, problem = await rest.refused(EPOCH, undo=2)
    assert name == "undo-conflict"
    assert problem["moved"] == [{"service": "lamp", "key": "level", "revision": 3}]
    assert rest.revision == 3
    await rest.take_back(undo=2, keys=["level"])
    assert await rest.stored("lamp") == {"level": 1, "colour": "red"}


async def test_what_was_written_since_to_a_listed_key_is_taken_back_with_it(rest: Rest) -> None:
    for level in (1, 2, 3):
        await rest.put("lamp", level=level)
    await rest.put("lamp", level=4, colour="red")
    await rest.take_back(undo=3, keys=["level"])
    assert await rest.stored("lamp") == {"level": 2, "colour": "red"}
    assert (await rest.take_back(last=True))["undone"] == 4
    assert await rest.stored("lamp") == {"level": 2}
    assert (await rest.take_back(last=True))["undone"] == 2
    assert (await rest.refused(EPOCH, last=True))[0] == "nothing-to-take-back"


# ── everything ─────────────────────────────────────────────────────────────────────────────────


async def test_a_service_that_was_not_there_then_is_kept_and_named(rest: Rest) -> None:
    """A16."""
    await rest.put("a", level=1)
    for level in (2, 3):
        await rest.put("a", level=level)
    await rest.put("b", level=1)
    told = await rest.take_back(to_revision=1, preview=True)
    assert (told["kept"], told["services"], rest.revision) == (["b"], ["a"], 4)
    back = await rest.take_back(to_revision=1)
    assert (back["kept"], back["services"], back["undone"]) == (["b"], ["a"], None)
    assert (await rest.stored("a"), await rest.stored("b")) == ({"level": 1}, {"level": 1})
    assert (await rest.refused(EPOCH, to_revision=1))[0] == "nothing-to-take-back"
    told = await rest.ask("POST", EPOCH, {"to_revision": 99})
    assert (told.status, told.json["type"]) == (404, "/problems/not-there-then")


async def test_an_order_says_one_of_three(rest: Rest) -> None:
    for wrong in (
        {}, {"last": True, "undo": 1}, {"last": False}, {"last": 1}, {"undo": "1"}, {"undo": True},
        {"to_revision": 1, "keys": ["a"]}, {"last": True, "keys": ["a"]}, {"undo": 1, "keys": ["A"]},
        {"last": True, "rollout": {}}, {"last": True, "steps": [10]},
    ):  # fmt: skip
        assert (await rest.refused(EPOCH, **wrong))[0] == "invalid-values", wrong


async def test_a_narrowed_token_takes_back_what_is_its_own_alone(rest: Rest) -> None:
    for service in ("a", "b", "a", "b"):
        await rest.put(service, level=rest.revision)
    body = {"name": "of-a", "role": "write", "services": ["a"]}
    token = (await rest.did("POST", "/api/v1/tokens", body))["token"]

    async def ask(**order: Any) -> Answer:
        return await rest.ask("POST", EPOCH, order, token=token)

    for order in ({"last": True}, {"to_revision": 1}, {"undo": 4}):
        assert (await ask(**order)).status == 403
    assert rest.revision == 4
    assert (await ask(undo=3)).json["services"] == ["a"]


async def test_a_narrowed_token_is_told_nothing_of_other_services(rest: Rest) -> None:
    await rest.put("a", level=1)
    for level in (1, 2, 3):
        await rest.put("hidden", level=level)
    await rest.put("a", level=2)
    plan = await rest.did("POST", "/api/v1/plans", {"rollback": {"to_revision": 1}})
    assert plan["kept"] == ["hidden"]
    await rest.put("hidden", level=4)
    body = {"name": "of-a", "role": "write", "services": ["a"]}
    token = (await rest.did("POST", "/api/v1/tokens", body))["token"]
    for order in ({"undo": 3}, {"undo": 4}, {"last": True}):
        for path, asked in ((EPOCH, order), ("/api/v1/plans", {"rollback": order})):
            answer = await rest.ask("POST", path, asked, token=token)
            assert (answer.status, b"hidden" in answer.body) == (403, False), answer.body
    seen = await rest.ask("GET", f"/api/v1/plans/{plan['id']}", token=token)
    assert (seen.status, seen.json["kept"]) == (200, [])
    while (await rest.ask("POST", EPOCH, {"last": True})).status == 200:
        pass
    left = await rest.ask("POST", EPOCH, {"last": True}, token=token)
    assert (left.status, b"hidden" in left.body) == (409, False)


async def test_whatever_is_written_meanwhile_nothing_else_is_taken_back(rest: Rest) -> None:
    """Each writer's own change is the newest of its service: one `last` after the other takes back one each."""
    for service in ("a", "b", "c"):
        await rest.put(service, level=0)
    for number in range(3):
        await rest.put("abc"[number], level=1)
    answers: list[Answer] = []

    async def take_back() -> None:
        answers.append(await rest.ask("POST", EPOCH, {"last": True}))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take_back)
    assert sorted(one.json["undone"] for one in answers) == [4, 5, 6]
    assert [await rest.stored(name) for name in "abc"] == [{"level": 0}] * 3
