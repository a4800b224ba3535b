"""Plans over REST: what a change would do, kept, and applied as it was shown, once or never."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
import trio

from config_manager.actors.actor import Context
from config_manager.actors.messages import Write
from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.catalogue import schema_digest
from config_manager.config.documents.receipt import Receipt
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.administration import noted
from config_manager.storage.decisions.changes import Decided
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.shapes import INSTANCE_SCHEMA
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import Committed, RegistryRow
from tests.kit.asgi import TOKEN, Answer, Caller, on_disk, running

PLANS, LAMP, STT = "/api/v1/plans", "/api/v1/config/lamp", "/api/v1/config/stt-worker"
NOW = 1_800_000_000.0
LEVEL = {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
PORT = {"type": "integer", "default": 80, "x-restart-required": True}
COLOUR = {"enum": ["white", "red"], "default": "white"}


def schema(**properties: Any) -> dict[str, Any]:
    """As a model with extra="forbid" says it."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


class KeepInstanceSchema:
    """What is noted of an instance that said what it was built with."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._schema = known

    def decide(self, before: Committed, on: Equipped) -> Decided[None]:
        seen = {"schema": self._schema, "first_seen": on.at, "last_seen": on.at}
        key = f"lamp/{schema_digest(self._schema)}"
        return noted(before, on, (RegistryRow(INSTANCE_SCHEMA, key, seen),))


class Rest(Caller):
    async def did(self, method: str, target: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be a good one."""
        answer = await self.ask(method, target, body)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def plan(self, **body: Any) -> Any:
        made = await self.ask("POST", PLANS, body)
        assert made.status == 201, made.body
        is_what_openapi_says("Plan", made.json)
        return made.json

    async def apply(self, plan: Any, **how: Any) -> Answer:
        return await self.ask("POST", f"{PLANS}/{plan['id']}/apply", **how)

    async def refused(self, status: int, name: str, **body: Any) -> Any:
        """The problem of a plan that is not made."""
        answer = await self.ask("POST", PLANS, body)
        assert (answer.status, answer.json["type"]) == (status, f"/problems/{name}"), answer.body
        return answer.json

    async def token(self, role: str, *services: str) -> str:
        body = {"name": f"{role}-{len(services)}", "role": role, "services": list(services)}
        made: str = (await self.did("POST", "/api/v1/tokens", body))["token"]
        return made

    async def runs(
        self, instance: str, built_with: dict[str, Any], *, overrides: tuple[str, ...] = ()
    ) -> None:
        """A live instance that said what it was built with."""
        context = Context("a-test", trio.current_time() + 5)
        known = Write(KeepInstanceSchema(built_with), Terms("config-manager"))
        await self.system.storing.ask(known, context)
        receipt = Receipt(
            service="lamp",
            instance=instance,
            boot_seq=1,
            seq=1,
            running=None,
            last_attempt=None,
            source="defaults",
            freshness="fresh",
            overrides=overrides,
            schema=schema_digest(built_with),
            library="0.3",
            correlation_id=None,
            gone=False,
            at=rfc3339(NOW),
        )
        envelope = Envelope(wire.RECEIPT, receipt.to_bytes(), (Signature("a" * 64, bytes(64)),))
        topic = wire.status_topic("lamp", instance)
        self.system.statuses.take("A", topic, envelope.to_bytes(), retained=False, now=NOW)


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with running(tmp_path) as system:
        yield Rest(system)


def is_what_openapi_says(name: str, body: Any) -> None:
    components = openapi(ROUTES)["components"]
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": components}
    ).validate(body)


# ── what it says ───────────────────────────────────────────────────────────────────────────────


async def test_a_plan_says_per_key_what_changes_and_what_stays_and_changes_nothing(
    rest: Rest,
) -> None:
    await rest.did("PUT", STT, {"vad_threshold": 0.4, "whisper_model": "base.en"})
    before = rest.system.view.committed.revision
    plan = await rest.plan(
        patch={"stt-worker": {"vad_threshold": 0.3}}, reason="too many false starts"
    )
    assert (plan["state"], plan["reason"], plan["approvals"]) == (
        "ready",
        "too many false starts",
        [],
    )
    [service] = plan["services"]
    changed = {"key": "vad_threshold", "old": 0.4, "new": 0.3}
    assert service["service"] == "stt-worker"
    assert service["changes"] == service["effective"] == [changed]
    assert "whisper_model" in service["unchanged"]
    assert "vad_threshold" not in service["unchanged"]
    assert 500 < service["bytes"] < wire.MAX_ENVELOPE_BYTES
    assert plan["base"]["revisions"] == {"stt-worker": before}
    shape = rest.system.shapes.catalogue.shape("stt-worker")
    assert shape is not None
    assert plan["base"]["schemas"] == {"stt-worker": shape.digest}
    assert rest.system.view.committed.revision == before
    assert await rest.did("GET", f"{PLANS}/{plan['id']}") == plan
    listed = await rest.did("GET", PLANS)
    is_what_openapi_says("PlanList", listed)
    assert [(one["id"], one["services"]) for one in listed["plans"]] == [
        (plan["id"], ["stt-worker"])
    ]


async def test_what_is_written_back_to_its_default_changes_nothing_for_instances(
    rest: Rest,
) -> None:
    await rest.did("PUT", STT, {"vad_threshold": 0.5})
    plan = await rest.plan(services={"stt-worker": {}})
    [service] = plan["services"]
    assert service["changes"] == [{"key": "vad_threshold", "old": 0.5, "new": None}]
    assert service["effective"] == []


async def test_each_instance_has_a_forecast_by_its_own_schema_and_environment(rest: Rest) -> None:
    now = schema(level=LEVEL, port=PORT, colour=COLOUR)
    await rest.did("PUT", "/api/v1/schemas/lamp", now)
    await rest.did("PUT", LAMP, {"level": 0.5})
    older = schema(level={**LEVEL, "maximum": 0.6}, port=PORT)
    await rest.runs("attic", older)
    await rest.runs("kitchen", now, overrides=("level",))
    await rest.runs("lab-1", now)
    plan = await rest.plan(patch={"lamp": {"level": 0.9}})
    told = {one["instance"]: (one["verdict"], one["overrides"]) for one in plan["instances"]}
    assert told == {
        "attic": ("refuses", []),
        "kitchen": ("same", ["level"]),
        "lab-1": ("hot", []),
    }
    why = {one["instance"]: one["why"] for one in plan["instances"]}
    assert "/level" in why["attic"]
    assert "environment decides level" in why["kitchen"]
    assert {one["library"] for one in plan["instances"]} == {"0.3"}
    restart = await rest.plan(patch={"lamp": {"port": 8080}})
    assert {one["instance"]: one["verdict"] for one in restart["instances"]} == dict.fromkeys(
        ("attic", "kitchen", "lab-1"), "restart"
    )
    # code that does not know a key is sent a variant without it
    unknown = await rest.plan(patch={"lamp": {"colour": "red"}})
    assert {one["instance"]: one["verdict"] for one in unknown["instances"]} == {
        "attic": "same",
        "kitchen": "hot",
        "lab-1": "hot",
    }


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", f"{LAMP}?dry_run=true", {"level": 0.9}),
        ("PATCH", f"{LAMP}?dry_run=true", {"level": 0.9}),
        ("POST", "/api/v1/config/epoch?dry_run=true", {"services": {"lamp": {"level": 0.9}}}),
    ],
)
async def test_a_dry_run_answers_the_same_as_a_plan(
    rest: Rest, method: str, target: str, body: Any
) -> None:
    now = schema(level=LEVEL)
    await rest.did("PUT", "/api/v1/schemas/lamp", now)
    await rest.did("PUT", LAMP, {"level": 0.5})
    await rest.runs("lab-1", now)
    plan = await rest.plan(services={"lamp": {"level": 0.9}})
    media = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
    dry = (await rest.ask(method, target, body, headers=media)).json
    [service] = plan["services"]
    named = {"service": "lamp"} if method == "POST" else {}
    assert dry["changes"] == [{**named, **one} for one in service["changes"]]
    assert dry["effective"] == [{**named, **one} for one in service["effective"]]
    assert dry["instances"] == plan["instances"] != []


async def test_a_dry_run_of_a_schema_says_what_moves_and_for_whom(rest: Rest) -> None:
    await rest.did("PUT", "/api/v1/schemas/lamp", schema(level=LEVEL))
    await rest.did("PUT", LAMP, {"level": 0.9})
    await rest.runs("lab-1", schema(level=LEVEL))
    renamed = schema(brightness={**LEVEL, "x-was": {"key": "level"}})
    dry = await rest.did("PUT", "/api/v1/schemas/lamp?dry_run=true", renamed)
    assert [one["key"] for one in dry["changes"]] == ["level", "brightness"]
    assert [one["verdict"] for one in dry["instances"]] == ["same"]  # as a variant
    is_what_openapi_says("SchemaPut", dry)


# ── applied ────────────────────────────────────────────────────────────────────────────────────


async def test_a_plan_is_applied_as_it_was_shown_and_history_and_audit_say_so(rest: Rest) -> None:
    await rest.did("PUT", STT, {"vad_threshold": 0.4})
    plan = await rest.plan(patch={"stt-worker": {"vad_threshold": 0.3}}, reason="quieter")
    applied = await rest.apply(plan)
    assert applied.status == 200, applied.body
    is_what_openapi_says("AppliedPlan", applied.json)
    assert (applied.json["services"], applied.json["propagation"]) == (["stt-worker"], "pending")
    got = await rest.did("GET", STT)
    assert (got["config"]["vad_threshold"], got["revision"]) == (0.3, applied.json["revision"])
    assert got["epoch_seq"] == plan["base"].get("epoch_seq", 1)
    entry = (await rest.did("GET", f"{STT}/history"))["entries"][0]
    assert (entry["action"], entry["reason"]) == ("put", "quieter")
    audit = (await rest.did("GET", "/api/v1/audit"))["entries"]
    rows = [json.loads(one["body"]) for one in audit[-2:]]
    assert [one["details"]["plan"] for one in rows] == [plan["id"]] * 2
    assert [one["action"] for one in rows] == ["plan.create", "put"]
    after = await rest.did("GET", f"{PLANS}/{plan['id']}")
    assert (after["state"], after["applied"]["revision"]) == ("applied", got["revision"])
    assert after["services"] == plan["services"]


async def test_several_services_are_one_epoch_and_what_does_not_change_is_not_written(
    rest: Rest,
) -> None:
    await rest.did("PUT", "/api/v1/config/a", {"x": 1})
    await rest.did("PUT", "/api/v1/config/b", {"x": 1})
    plan = await rest.plan(services={"a": {"x": 2}, "b": {"x": 1}, "c": {"x": 3}})
    assert [one["changes"] for one in plan["services"]][1] == []
    assert plan["services"][1]["unchanged"] == ["x"]
    applied = (await rest.apply(plan)).json
    assert (applied["services"], applied["epoch_seq"], applied["revision"]) == (["a", "c"], 2, 3)
    assert (await rest.did("GET", "/api/v1/config/b"))["revision"] == 2


async def test_a_plan_of_what_is_there_is_used_up_and_makes_no_revision(rest: Rest) -> None:
    await rest.did("PUT", "/api/v1/config/a", {"x": 1})
    plan = await rest.plan(services={"a": {"x": 1}})
    applied = await rest.apply(plan)
    assert (applied.status, applied.json["services"], applied.json["revision"]) == (200, [], 1)
    assert (await rest.apply(plan)).status == 409


async def test_a_plan_whose_base_moved_names_who_and_what_and_nothing_is_written(
    rest: Rest,
) -> None:
    """A9"""
    for name in "ab":
        await rest.did("PUT", f"/api/v1/config/{name}", {"x": 1})
    plan = await rest.plan(services={"a": {"x": 2}, "b": {"x": 2}})
    other = await rest.plan(services={"a": {"x": 3}})
    bob = await rest.token("write", "b")
    assert (await rest.ask("PUT", "/api/v1/config/b", {"x": 9}, token=bob)).status == 200
    before = rest.system.view.committed.revision
    stale = await rest.apply(plan)
    assert (stale.status, stale.json["type"]) == (409, "/problems/plan-stale")
    moved = {"service": "b", "what": "revision", "was": 2, "is": before, "by": "write-1"}
    assert stale.json["moved"] == [moved]
    assert rest.system.view.committed.revision == before
    failed = await rest.did("GET", f"{PLANS}/{plan['id']}")
    is_what_openapi_says("Plan", failed)
    assert (failed["state"], failed["moved"]) == ("failed", [moved])
    assert (await rest.apply(other)).status == 200  # anything else may move


async def test_another_schema_makes_a_plan_stale(rest: Rest) -> None:
    await rest.did("PUT", LAMP, {"level": 0.5})
    plan = await rest.plan(patch={"lamp": {"level": 0.9}})
    await rest.did("PUT", "/api/v1/schemas/lamp", schema(level={**LEVEL, "maximum": 0.6}))
    stale = await rest.apply(plan)
    assert stale.json["type"] == "/problems/plan-stale"
    [moved] = stale.json["moved"]
    assert (moved["what"], moved["was"], moved["by"]) == ("schema", None, "bootstrap")


async def test_applied_twice_at_the_same_moment_one_is_done_and_one_refused(rest: Rest) -> None:
    """A10"""
    plan = await rest.plan(services={"a": {"x": 1}})
    answers: list[Answer] = []

    async def apply() -> None:
        answers.append(await rest.apply(plan))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(apply)
    assert sorted(one.status for one in answers) == [200, 409, 409, 409]
    done = next(one.json for one in answers if one.status == 200)
    for one in answers:
        if one.status == 409:  # noqa: PLR2004
            assert one.json["type"] == "/problems/plan-used"
            assert one.json["applied"]["revision"] == done["revision"]
    assert rest.system.view.committed.revision == 1


async def test_a_repetition_with_its_idempotency_key_is_answered_again(rest: Rest) -> None:
    key = {"Idempotency-Key": "one"}
    made = [await rest.ask("POST", PLANS, {"services": {"a": {}}}, headers=key) for _ in "12"]
    assert made[0].json == made[1].json
    done = [await rest.apply(made[0].json, headers={"Idempotency-Key": "two"}) for _ in "12"]
    assert [one.status for one in done] == [200, 200]
    assert done[0].json == done[1].json
    again = await rest.ask("POST", PLANS, {"services": {"a": {}}}, headers=key)
    assert again.json == made[0].json


async def test_a_repetition_is_answered_again_though_it_would_be_refused_by_now(rest: Rest) -> None:
    for level in (1, 2):
        await rest.did("PUT", LAMP, {"level": level})
    calls: list[tuple[str, str, Any]] = [("POST", PLANS, {"rollback": {"undo": 2}})]
    made = [await rest.ask(*calls[0], headers={"Idempotency-Key": "0"})]
    path = f"{PLANS}/{made[0].json['id']}"
    schema_of_lamp = "/api/v1/schemas/lamp?allow_breaking=true&reason=r&drop=level"
    calls += [
        ("POST", f"{path}/apply", None), ("DELETE", path, None), ("PUT", schema_of_lamp, schema()),
    ]  # fmt: skip
    for number, call in enumerate(calls[1:], 1):
        made.append(await rest.ask(*call, headers={"Idempotency-Key": str(number)}))
    assert [one.status for one in made] == [201, 200, 200, 201], [one.body for one in made]
    await rest.did("DELETE", LAMP)  # nothing of it would be done now
    for number, call in enumerate(calls):
        again = await rest.ask(*call, headers={"Idempotency-Key": str(number)})
        about = {"correlation_id": again.json.get("correlation_id")}  # a schema's is the request's
        assert again.json == {**made[number].json, **(about if number == 3 else {})}
        other = await rest.ask(*call, headers={"Idempotency-Key": "another"})
        assert other.status >= 400


async def test_a_plan_can_be_let_go(rest: Rest) -> None:
    plan = await rest.plan(services={"a": {"x": 1}})
    assert await rest.did("DELETE", f"{PLANS}/{plan['id']}") == {"id": plan["id"], "deleted": True}
    assert (await rest.apply(plan)).status == 404
    assert (await rest.did("GET", PLANS))["plans"] == []


async def test_a_plan_outlives_a_restart_and_is_used_once_over_it(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        await rest.did("PUT", STT, {"vad_threshold": 0.4})
        plan = await rest.plan(patch={"stt-worker": {"vad_threshold": 0.3}})
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        assert await rest.did("GET", f"{PLANS}/{plan['id']}") == plan
        assert (await rest.apply(plan)).status == 200
        assert (await rest.did("GET", STT))["config"]["vad_threshold"] == 0.3
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        assert (await rest.apply(plan)).json["type"] == "/problems/plan-used"
        assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"] is True


# ── schemas and rollbacks ──────────────────────────────────────────────────────────────────────


async def test_a_schema_and_the_values_that_fit_it_come_together(rest: Rest) -> None:
    await rest.did("PUT", "/api/v1/schemas/lamp", schema(level=LEVEL))
    await rest.did("PUT", LAMP, {"level": 0.9})
    new = schema(brightness={**LEVEL, "x-was": {"key": "level"}}, colour=COLOUR)
    plan = await rest.plan(schemas={"lamp": new}, patch={"lamp": {"colour": "red"}})
    assert [one["key"] for one in plan["services"][0]["changes"]] == [
        "level",
        "brightness",
        "colour",
    ]
    assert plan["schemas"][0]["digest"] == schema_digest(new)
    applied = (await rest.apply(plan)).json
    assert applied["schemas"] == [{"service": "lamp", "version": 2, "digest": schema_digest(new)}]
    got = await rest.did("GET", f"{LAMP}?view=stored")
    assert got["config"] == {"brightness": 0.9, "colour": "red"}
    assert (await rest.did("GET", "/api/v1/schemas/lamp"))["version"] == 2
    assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"] is True


async def test_a_breaking_schema_is_planned_only_where_it_is_asked_for(rest: Rest) -> None:
    await rest.did("PUT", "/api/v1/schemas/lamp", schema(level=LEVEL))
    await rest.did("PUT", LAMP, {"level": 0.9})
    narrow = schema(level={**LEVEL, "maximum": 0.6})
    problem = await rest.refused(409, "schema-breaking", schemas={"lamp": narrow})
    assert problem["breaks"]["stored"][0]["key"] == "level"
    asked = f"{PLANS}?allow_breaking=true&reason=the+lamps+get+hot"
    made = await rest.ask("POST", asked, {"schemas": {"lamp": narrow}})
    assert made.status == 201, made.body
    assert "/schemas/lamp/level" in [one["pointer"] for one in made.json["warnings"]]
    applied = (await rest.apply(made.json)).json
    assert (applied["services"], applied["schemas"][0]["version"]) == ([], 2)


async def test_a_rollback_is_planned_and_taking_back_again_goes_further_back(rest: Rest) -> None:
    for number in (1, 2, 3):
        await rest.did("PUT", "/api/v1/config/a", {"x": number})
    plan = await rest.plan(rollback={"last": True})
    assert plan["services"][0]["changes"] == [{"key": "x", "old": 3, "new": 2}]
    assert plan["undone"] == 3
    assert (await rest.apply(plan)).status == 200
    assert (await rest.did("GET", "/api/v1/config/a"))["config"] == {"x": 2}
    assert (await rest.did("GET", "/api/v1/config/a/history"))["entries"][0]["action"] == "rollback"
    further = await rest.plan(rollback={"last": True})
    assert further["services"][0]["changes"] == [{"key": "x", "old": 2, "new": 1}]
    everything = await rest.plan(rollback={"to_revision": 1})
    assert everything["base"]["revisions"] == {"a": 4}


# ── who may ────────────────────────────────────────────────────────────────────────────────────


async def test_a_narrowed_token_plans_sees_and_applies_its_own_services_alone(rest: Rest) -> None:
    both = await rest.plan(services={"a": {"x": 1}, "b": {"x": 1}})
    own = await rest.plan(services={"a": {"x": 1}})
    token = await rest.token("write", "a")
    listed = await rest.ask("GET", PLANS, token=token)
    assert [one["id"] for one in listed.json["plans"]] == [own["id"]]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/apply")):
        answer = await rest.ask(method, f"{PLANS}/{both['id']}{path}", token=token)
        assert answer.status == 404
    more: dict[str, Any] = {"services": {"a": {}}, "patch": {"b": {}}}
    assert (await rest.ask("POST", PLANS, more, token=token)).status == 403
    everything = {"rollback": {"to_revision": 0}}
    assert (await rest.ask("POST", PLANS, everything, token=token)).status == 403
    assert (await rest.apply(own, token=token)).status == 200
    reader = await rest.token("read", "a", "b")
    assert (await rest.ask("GET", f"{PLANS}/{both['id']}", token=reader)).status == 200
    assert (await rest.apply(both, token=reader)).status == 403


async def test_a_list_is_paged_from_the_newest(rest: Rest) -> None:
    made = [(await rest.plan(services={"a": {"x": n}}))["id"] for n in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = await rest.did("GET", f"{PLANS}?limit=2{after}")
        seen += [one["id"] for one in page["plans"]]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
    assert seen == made[::-1]


# ── what is refused ────────────────────────────────────────────────────────────────────────────


REFUSED: list[tuple[Any, str]] = [
    ({}, ""),
    ({"services": {}}, ""),
    ({"services": []}, "/services"),
    ({"services": {"a": 1}}, "/services/a"),
    ({"services": {"a": {}}, "patch": {"a": {}}}, "/patch/a"),
    ({"services": {"a": {}}, "rollback": {"last": True}}, "/rollback"),
    ({"rollback": {}}, "/rollback"),
    ({"rollback": {"last": True, "undo": 3}}, "/rollback/last"),
    ({"rollback": {"last": True, "force": True}}, "/rollback/force"),
    ({"services": {"a": {"Not a key": 1}}}, "/services/a/Not a key"),
    ({"services": {"stt-worker": {"vad_threshold": 7}}}, "/services/stt-worker/vad_threshold"),
    ({"patch": {"stt-worker": {"vad_threshold": 7}}}, "/patch/stt-worker/vad_threshold"),
    ({"schemas": {"lamp": {"type": "array"}}}, "/schemas/lamp/type"),
    (
        {"schemas": {"lamp": schema(a=LEVEL)}, "services": {"lamp": {"a": 7}}},
        "/services/lamp/a",
    ),
    # capabilities that are not there yet
    ({"services": {"a": {}}, "overlays": {}}, "/overlays"),
    ({"services": {"a": {}}, "rollout": {}}, "/rollout"),
    ({"services": {"a": {}}, "ask": False}, "/ask"),
]


async def test_what_can_not_be_planned_is_refused_with_its_place(rest: Rest) -> None:
    for body, at in REFUSED:
        answer = await rest.ask("POST", PLANS, body)
        assert answer.status == 422, (body, answer.body)
        assert at in [one["pointer"] for one in answer.json["errors"]], body
    assert (await rest.did("GET", PLANS))["plans"] == []


async def test_other_refusals_are_those_of_the_writes(rest: Rest) -> None:
    await rest.refused(404, "not-found", patch={"nobody": {"x": 1}})
    await rest.refused(400, "invalid-name", services={"No": {}})
    await rest.refused(409, "nothing-to-take-back", rollback={"last": True})
    await rest.refused(404, "not-there-then", rollback={"to_revision": 7})
    await rest.refused(413, "too-large", services={"a": {"x": "y" * 250_000}})
    secret = {"service": "lamp", "name": "pin", "value": "1234"}
    await rest.did("POST", "/api/v1/secrets", secret)
    problem = await rest.refused(422, "use-secrets", services={"lamp": {"pin": "4321"}})
    assert problem["errors"][0]["pointer"] == "/services/lamp/pin"
    plan = await rest.plan(services={"lamp": {"pin": "********", "x": 1}})
    assert [one["key"] for one in plan["services"][0]["changes"]] == ["x"]


async def test_an_order_to_apply_takes_a_reason_and_no_later_word(rest: Rest) -> None:
    plan = await rest.plan(services={"a": {"x": 1}})
    for body in ({"at": "2027-01-01T00:00:00Z"}, {"steps": [10, 100]}):
        assert (await rest.apply(plan, body=body)).status == 422
    path = f"{PLANS}/{plan['id']}"
    assert (await rest.ask("POST", f"{path}/apply?steps=10")).status == 400
    assert (await rest.ask("POST", f"{path}/approve")).status == 404
    assert (await rest.ask("GET", f"{PLANS}/p-000000000000")).status == 404
    dry = await rest.ask("POST", f"{path}/apply?dry_run=true")
    assert (dry.status, dry.json["dry_run"]) == (200, True)
    assert (await rest.apply(plan, body={"reason": "now"})).status == 200
    entry = (await rest.did("GET", "/api/v1/config/a/history"))["entries"][0]
    assert entry["reason"] == "now"


async def test_the_newest_hundred_are_kept(rest: Rest) -> None:
    made = [(await rest.plan(services={"a": {"x": n}}))["id"] for n in range(102)]
    listed = await rest.did("GET", f"{PLANS}?limit=500")
    assert [one["id"] for one in listed["plans"]] == made[:1:-1]
    gone = await rest.ask("GET", f"{PLANS}/{made[0]}")
    assert (gone.status, TOKEN in str(gone.body)) == (404, False)
