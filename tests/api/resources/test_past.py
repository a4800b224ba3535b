"""The past over REST: what was answered then, what differs, where a value comes from, and where a text stands."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.asgi import Answer, Caller, on_disk

CONFIG = "/api/v1/config"
LAMP = f"{CONFIG}/lamp"
SERVICES = ("lamp", "door", "stt-worker", "llm-worker")
MASK = "********"


class Rest(Caller):
    async def did(self, method: str, target: str, body: Any = None, **how: Any) -> Any:
        """The JSON of an answer that has to be a good one."""
        answer = await self.ask(method, target, body, **how)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def patch(self, service: str, values: dict[str, Any]) -> Answer:
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self.ask("PATCH", f"{CONFIG}/{service}", values, headers=headers)

    async def problem(self, target: str, **how: Any) -> tuple[int, str]:
        answer = await self.ask("GET", target, **how)
        return answer.status, answer.json["type"].removeprefix("/problems/")


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with on_disk(tmp_path) as system:
        yield Rest(system)


# ── as of then ─────────────────────────────────────────────────────────────────────────────────


class Chance:
    """A person who does one thing after the other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def write(self, rest: Rest) -> Answer:
        chance = self.random
        service = chance.choice(SERVICES)
        kind = chance.choice(["put"] * 4 + ["patch"] * 6 + ["delete", "epoch", "secret", "schema"])
        by_service: dict[str, dict[str, Any]] = {
            "stt-worker": {"vad_threshold": round(chance.random(), 2)},
            "llm-worker": {"llm_timeout_sec": chance.randint(1, 60)},
        }
        free = {f"k{chance.randint(0, 5)}": chance.choice([None, 1, 1.0, True, "x", [1]])}
        values = by_service.get(service, free)
        if kind == "patch":
            return await rest.patch(service, values)
        if kind == "delete":
            return await rest.ask("DELETE", f"{CONFIG}/{service}")
        if kind == "epoch":
            return await rest.ask("POST", f"{CONFIG}/epoch", {"services": {service: values}})
        if kind == "secret":
            secret = {"service": "llm-worker", "name": "openai_api_key", "value": "sk-marked"}
            return await rest.ask("POST", "/api/v1/secrets", secret)
        if kind == "schema":
            keys = {f"k{n}": {"default": n * chance.randint(1, 3)} for n in range(2)}
            schema = {"type": "object", "properties": keys}
            query = "?allow_breaking=true&reason=other+defaults"
            return await rest.ask("PUT", f"/api/v1/schemas/lamp{query}", schema)
        return await rest.ask("PUT", f"{CONFIG}/{service}", values)


def in_order(answer: Answer) -> Any:
    """The keys that nobody had set come in the order of the schema, and that of an earlier one is not kept."""
    return {**answer.json, "defaulted": sorted(answer.json["defaulted"])}


async def test_what_get_answered_then_is_answered_for_every_revision_and_time(rest: Rest) -> None:
    """A13. A schema that comes without a revision counts from the next one on: what was answered last is what
    counts of a revision, and what an earlier schema made of it until then is not asked for."""
    chance, answers = Chance(13), list[tuple[int, str, dict[str, Answer]]]()
    newest: dict[str, Answer] = {}
    while len(answers) < 1_000:
        before = rest.system.view.committed.revision
        written = await chance.write(rest)
        assert written.status < 500
        for service in SERVICES:
            newest[service] = await rest.ask("GET", f"{CONFIG}/{service}")
        committed = rest.system.view.committed
        if committed.revision == before and answers:  # a schema alone, or nothing was there
            answers.pop()
        at = (
            max(state.updated_at for state in committed.services.values())
            if committed.services
            else ""
        )
        answers.append((committed.revision, at, dict(newest)))
    for revision, at, then in chance.random.sample(answers[1:], 100):
        service = chance.random.choice(SERVICES)
        same_time = [answer for _, other, answer in answers if other == at]
        for query, wanted in (
            (f"revision={revision}", then[service]),
            (f"at={at}", same_time[-1][service]),
        ):
            told = await rest.ask("GET", f"{CONFIG}/{service}?{query}")
            if wanted.status == 404:
                assert told.json["type"] == "/problems/not-there-then", (query, told.body)
            else:
                assert in_order(told) == in_order(wanted), (service, query)
                assert told.headers["etag"] == wanted.headers["etag"]
            assert b"sk-marked" not in told.body


async def test_there_is_no_service_before_it_was_written_and_after_it_was_deleted(
    rest: Rest,
) -> None:
    await rest.did("PUT", f"{CONFIG}/door", {})
    await rest.did("PUT", LAMP, {"level": 1})
    await rest.did("DELETE", LAMP)
    assert await rest.problem(f"{LAMP}?revision=1") == (404, "not-there-then")
    assert (await rest.did("GET", f"{LAMP}?revision=2&view=stored"))["config"] == {"level": 1}
    assert await rest.problem(f"{LAMP}?revision=3") == (404, "not-there-then")
    assert await rest.problem(f"{LAMP}?revision=4") == (404, "not-there-then")  # still to come
    assert await rest.problem(f"{LAMP}?at=2001-01-01T00:00:00Z") == (404, "not-there-then")
    assert await rest.problem(f"{LAMP}?revision=2&at=2001-01-01T00:00:00Z") == (
        422, "invalid-values",
    )  # fmt: skip
    for wrong in ("revision=-1", "revision=x", "at=yesterday"):
        assert (await rest.ask("GET", f"{LAMP}?{wrong}")).status == 400


async def test_a_value_whose_key_is_a_secret_by_now_is_masked_in_the_past_too(rest: Rest) -> None:
    await rest.did("PUT", LAMP, {"pin": "sk-marked", "level": 1})
    await rest.did("PUT", LAMP, {"level": 1})
    await rest.did("POST", "/api/v1/secrets", {"service": "lamp", "name": "pin", "value": "1234"})
    told = await rest.ask("GET", f"{LAMP}?revision=1")
    assert (told.json["config"], b"sk-marked" in told.body) == ({"level": 1, "pin": MASK}, False)
    for path in ("/diff?from=1&to=2", "/explain"):
        assert b"sk-marked" not in (await rest.ask("GET", LAMP + path)).body
    found = await rest.ask(
        "GET", f"{CONFIG}/search?q=sk-marked&in=keys,values,descriptions,history"
    )
    assert (found.json["matches"], found.json["next_after"]) == ([], None)


# ── what differs ───────────────────────────────────────────────────────────────────────────────


async def test_any_two_of_revision_time_now_service_and_schema_are_compared(rest: Rest) -> None:
    keys = {"level": {"type": "number", "default": 0.5}, "colour": {"type": "string"}}
    await rest.did("PUT", "/api/v1/schemas/lamp", {"type": "object", "properties": keys})
    await rest.did("PUT", LAMP, {"level": 0.7})
    first = (await rest.did("PUT", LAMP, {"level": 0.7, "colour": "red"}))["updated_at"]
    await rest.did("PUT", f"{CONFIG}/porch", {"level": 0.7, "watt": 4})
    await rest.did("PUT", LAMP, {"colour": "blue"})

    async def changes(query: str) -> dict[str, tuple[Any, Any]]:
        answer = await rest.did("GET", f"{LAMP}/diff?{query}")
        return {one["key"]: (one["old"], one["new"]) for one in answer["changes"]}

    newest = {"level": (0.7, 0.5), "colour": ("red", "blue")}
    assert await changes("") == newest
    assert await changes("from=2&to=4") == await changes("from=3") == newest
    assert await changes(f"from={first}&to=now") == newest
    assert await changes("from=4&to=2") == {k: (new, old) for k, (old, new) in newest.items()}
    assert await changes("from=2&to=4&view=stored") == {**newest, "level": (0.7, None)}
    assert await changes("from=schema:1&to=1") == {"level": (0.5, 0.7)}
    assert await changes("from=1&to=service:porch") == {"watt": (None, 4)}
    whole = await rest.did("GET", f"{LAMP}/diff?from=3&to=service:porch")
    assert (whole["from"], whole["to"]) == (2, 3)
    for wrong in (
        "from=profile:night",
        "to=scenario:demo",
        "from=schema:0",
        "from=service:BAD",
        "a=1",
    ):
        assert (await rest.ask("GET", f"{LAMP}/diff?{wrong}")).status == 400, wrong
    assert await rest.problem(f"{LAMP}/diff?from=schema:9") == (404, "not-found")
    assert await rest.problem(f"{LAMP}/diff?from=service:nobody") == (404, "not-found")
    assert await rest.problem(f"{CONFIG}/porch/diff?from=0") == (404, "not-there-then")


async def test_another_service_is_compared_only_for_who_may_see_it(rest: Rest) -> None:
    await rest.did("PUT", LAMP, {})
    await rest.did("PUT", f"{CONFIG}/door", {"code": 4711})
    made = await rest.did(
        "POST", "/api/v1/tokens", {"name": "lamps", "role": "read", "services": ["lamp"]}
    )
    told = await rest.ask("GET", f"{LAMP}/diff?to=service:door", token=made["token"])
    assert (told.status, b"4711" in told.body) == (403, False)
    found = await rest.did("GET", f"{CONFIG}/search?q=code&in=keys,history", token=made["token"])
    assert found["matches"] == []


# ── where a value comes from ───────────────────────────────────────────────────────────────────


async def test_each_value_says_where_it_comes_from_and_what_it_hides(rest: Rest) -> None:
    keys = {"level": {"type": "number", "default": 0.5}, "colour": {"default": "white"}}
    schema = {"type": "object", "properties": {**keys, "pin": {"type": "string", "x-secret": True}}}
    await rest.did("PUT", "/api/v1/schemas/lamp", schema)
    await rest.did("PUT", f"{LAMP}?reason=too+dark", {"level": 0.9})
    await rest.did("PUT", LAMP, {"level": 0.9, "colour": "red"})
    await rest.did("PUT", LAMP, {"level": 0.9})
    await rest.did("POST", "/api/v1/secrets", {"service": "lamp", "name": "pin", "value": "1234"})
    keyed = {one["key"]: one for one in (await rest.did("GET", f"{LAMP}/explain"))["keys"]}
    level, colour, pin = keyed["level"], keyed["colour"], keyed["pin"]
    assert (level["origin"], level["value"], level["revision"]) == ("base", 0.9, 1)
    assert (level["reason"], level["by"]) == ("too dark", "bootstrap")
    assert level["shadows"] == [{"origin": "default", "value": 0.5}]
    assert (colour["origin"], colour["value"], colour["revision"]) == ("default", "white", 3)
    assert (pin["origin"], pin["value"], pin["revision"]) == ("secret", MASK, 4)
    assert [one["instances"] for one in keyed.values()] == [[], [], []]
    (only,) = (await rest.did("GET", f"{LAMP}/explain?key=level"))["keys"]
    assert only == level
    assert await rest.problem(f"{LAMP}/explain?key=nothing") == (404, "not-found")
    assert await rest.problem(f"{CONFIG}/nobody/explain") == (404, "not-found")


# ── where a text stands ────────────────────────────────────────────────────────────────────────


async def test_a_text_is_found_in_keys_values_descriptions_and_what_was_there(rest: Rest) -> None:
    keys = {
        "level": {"type": "number", "description": "How bright."},
        "gamma": {
            "type": "number",
            "description": "How bright, in between.",
            "x-level": "advanced",
        },
    }
    await rest.did("PUT", "/api/v1/schemas/lamp", {"type": "object", "properties": keys})
    await rest.did(
        "PUT", f"{CONFIG}/porch", {"host": "Bright.example", "list": ["x", {"y": "BRIGHT"}]}
    )
    await rest.did("PUT", f"{CONFIG}/porch?reason=not+so+bright", {"host": "dim"})

    async def found(query: str) -> list[tuple[str, str | None, str]]:
        answer = await rest.did("GET", f"{CONFIG}/search?{query}")
        return [(one["service"], one["key"], one["in"]) for one in answer["matches"]]

    described = [("lamp", "gamma", "descriptions"), ("lamp", "level", "descriptions")]
    assert await found("q=bright") == described
    assert await found("q=bright&level=simple") == described[1:]
    assert await found("q=gamma&level=simple") == [("lamp", "gamma", "keys")]
    assert await found("q=gam&level=simple") == []
    assert await found("q=DIM&in=values") == [("porch", "host", "values")]
    gone = [("porch", key, "history") for key in ("host", "list", None, "host", "list")]
    assert await found("q=bright&in=history") == gone
    whole = await rest.did("GET", f"{CONFIG}/search?q=bright&in=descriptions,history")
    paged: list[Any] = []
    after = ""
    while True:
        page = await rest.did(
            "GET", f"{CONFIG}/search?q=bright&in=descriptions,history&limit=2{after}"
        )
        paged += page["matches"]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
    assert paged == whole["matches"]
    assert len(paged) == 7
    for wrong in (
        "",
        "q=",
        f"q={'x' * 201}",
        "q=a&in=profiles",
        "q=a&level=advanced",
        "q=a&limit=0",
    ):
        assert (await rest.ask("GET", f"{CONFIG}/search?{wrong}")).status == 400, wrong


async def test_a_page_of_matches_ends_at_four_mebibytes_of_values_and_the_next_goes_on(
    rest: Rest,
) -> None:
    long = "find" * 40_000
    for number in range(32):
        await rest.did("PUT", f"{CONFIG}/s{number}", {"a": f"{long}{number}"})
    for place in ("history", "values"):
        sizes: list[int] = []
        after = ""
        while not sizes or after:
            page = await rest.did("GET", f"{CONFIG}/search?q=find&in={place}&limit=500{after}")
            sizes.append(len(page["matches"]))
            after = f"&after={page['next_after']}" if page["next_after"] else ""
        assert sizes == [27, 5]
