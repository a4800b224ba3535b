"""Changes of all services, and the trace of one, on a running system without a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config_manager.actors.views import BrokerView
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.trace import BROKER_STEPS
from tests.kit import documents as d
from tests.kit.asgi import Answer, Caller, running

CHANGES = "/api/v1/changes"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BROKER = "mqtt://broker.test:1883"


class Rest(Caller):
    async def put(self, service: str, request_id: str, **headers: str) -> None:
        answer = await self.ask(
            "PUT", f"/api/v1/config/{service}?reason=why", {"x": 1},
            headers={"x-request-id": request_id, **headers},
        )  # fmt: skip
        assert answer.status in (200, 201)

    async def changes(self, query: str = "", **how: Any) -> list[Any]:
        answer = await self.ask("GET", CHANGES + query, **how)
        assert answer.status == 200, answer.body
        return list(answer.json["changes"])

    async def trace(self, name: str | int, **how: Any) -> Any:
        answer = await self.ask("GET", f"{CHANGES}/{name}", **how)
        assert answer.status == 200, answer.body
        return answer.json

    async def narrowed(self, *services: str) -> str:
        body = {"name": "narrow", "role": "read", "services": list(services)}
        made: str = (await self.ask("POST", "/api/v1/tokens", body)).json["token"]
        return made

    def says(self, service: str, stage: Any, revision: int, *, at: float, seq: int) -> None:
        """An instance's receipt, heard now."""
        attempt = Attempt(revision, stage, at=rfc3339(at), took_ms=seq)
        receipt = replace(
            d.RECEIPT, service=service, instance="one", seq=seq, running=None, last_attempt=attempt
        )
        envelope = Envelope(wire.RECEIPT, receipt.to_bytes(), (Signature("a" * 64, bytes(64)),))
        topic = wire.status_topic(service, "one")
        now = self.system.world.clock.now()
        self.system.statuses.take("A", topic, envelope.to_bytes(), retained=False, now=now)


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with running(tmp_path) as system:
        yield Rest(system)


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["type"]


async def test_changes_of_all_services_come_newest_first_and_page_on(rest: Rest) -> None:
    for n, service in enumerate(("a", "b", "a"), 1):
        await rest.put(service, f"id-{n}")
    body = {"services": {"b": {"x": 2}, "c": {}}, "reason": "spring"}
    assert (await rest.ask("POST", "/api/v1/config/epoch", body)).status in (200, 201)
    newest, *older = await rest.changes()
    assert (newest["action"], newest["services"], newest["reason"]) == (
        "epoch",
        ["b", "c"],
        "spring",
    )
    assert newest["epoch_seq"] == 2
    assert [one["revision"] for one in older] == [3, 2, 1]
    assert older[-1] == {
        "revision": 1, "correlation_id": "id-1", "epoch_seq": 1, "at": older[-1]["at"], "by": "bootstrap",
        "action": "put", "reason": "why", "services": ["a"], "state": "settled",
    }  # fmt: skip
    first = (await rest.ask("GET", CHANGES + "?limit=3")).json
    assert ([one["revision"] for one in first["changes"]], first["next_before"]) == ([4, 3, 2], 2)
    rest_of_it = (await rest.ask("GET", CHANGES + "?limit=3&before=2")).json
    assert ([one["revision"] for one in rest_of_it["changes"]], rest_of_it["next_before"]) == (
        [1],
        None,
    )
    assert [one["revision"] for one in await rest.changes("?service=b")] == [4, 2]
    assert [one["revision"] for one in await rest.changes("?by=nobody")] == []
    assert [one["revision"] for one in await rest.changes("?by=bootstrap&limit=1")] == [4]
    at = older[-1]["at"]
    assert 1 in [one["revision"] for one in await rest.changes(f"?since={at}&until={at}")]
    assert await rest.changes("?until=2020-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=501", "?before=x", "?by=", "?since=now", "?service=Epoch", "?after=1"],
)
async def test_what_is_no_such_parameter_is_refused(rest: Rest, query: str) -> None:
    assert (await rest.ask("GET", CHANGES + query)).status == 400


async def test_a_narrowed_token_sees_its_services_alone_also_of_an_epoch(rest: Rest) -> None:
    await rest.put("a", "shared")
    body: dict[str, Any] = {"services": {"a": {}, "b": {}}}
    await rest.ask("POST", "/api/v1/config/epoch", body, headers={"x-request-id": "shared"})
    await rest.put("b", "hidden")
    token = await rest.narrowed("a")
    assert [(one["revision"], one["services"]) for one in await rest.changes(token=token)] == [
        (2, ["a"]),
        (1, ["a"]),
    ]
    told = await rest.trace("shared", token=token)
    assert (told["revision"], told["services"], told["others"]) == (2, ["a"], [1])
    for name in ("hidden", "3"):
        answer = await rest.ask("GET", f"{CHANGES}/{name}", token=token)
        assert problem(answer) == (404, "/problems/not-found")
    answer = await rest.ask("GET", CHANGES + "?service=b", token=token)
    assert problem(answer) == (403, "/problems/forbidden")


async def test_a_change_is_found_by_its_revision_and_by_its_id_of_which_the_newest_counts(
    rest: Rest,
) -> None:
    for service in ("a", "b"):
        await rest.put(service, "twice")
    await rest.put("c", "7")
    assert (await rest.trace("twice"))["revision"] == 2
    assert (await rest.trace("twice"))["others"] == [1]
    assert (await rest.trace(1))["others"] == [2]
    assert (await rest.trace("7"))["revision"] == 3, (
        "an id in digits, of which there is no revision"
    )
    for name in ("nothing", "99", "%00", "x" * 65, "9" * 40):
        answer = await rest.ask("GET", f"{CHANGES}/{name}")
        assert problem(answer) == (404, "/problems/not-found"), name


async def test_a_trace_begins_when_it_was_asked_and_names_the_callers_trace(rest: Rest) -> None:
    before = rest.system.world.clock.now()
    await rest.put("a", "mine", traceparent=TRACE)
    told = await rest.trace("mine")
    assert told["traceparent"] == TRACE
    asked, committed = told["steps"]
    assert (asked["step"], asked["broker"], asked["after_ms"]) == ("asked", None, 0)
    assert committed["step"] == "committed"
    assert committed["after_ms"] > 0
    assert parse_rfc3339(asked["at"]) >= before - 0.001
    made = await rest.ask("PUT", "/api/v1/config/a", {}, headers={"x-request-id": "other"})
    assert (await rest.trace("other"))["traceparent"] == made.headers["traceparent"]


async def test_what_brokers_and_instances_did_is_told_from_when_it_was_asked(rest: Rest) -> None:
    await rest.put("a", "mine")
    state = rest.system.view.committed.services["a"]
    for step in BROKER_STEPS:
        rest.system.tracing.done(step, state, BROKER)
    skewed = rest.system.world.clock.now() - 3600
    rest.says("a", "received", 1, at=skewed, seq=1)
    rest.says("a", "applied", 1, at=skewed + 1, seq=2)
    told = await rest.trace(1)
    at_broker = [one["step"] for one in told["steps"] if one["broker"] == BROKER]
    assert at_broker == list(BROKER_STEPS)
    (instance,) = told["instances"]
    assert (instance["service"], instance["instance"], instance["state"]) == ("a", "one", "claimed")
    received, applied = instance["steps"]
    assert (received["stage"], applied["stage"]) == ("received", "applied")
    assert applied["at"] == rfc3339(skewed + 1)
    assert applied["took_ms"] == 2
    confirmed = told["steps"][-1]
    assert applied["after_ms"] >= received["after_ms"] >= confirmed["after_ms"] > 0


async def test_a_change_that_was_written_over_is_settled_whatever_happens_to_the_newer_one(
    rest: Rest,
) -> None:
    for n in (1, 2):
        await rest.put("a", f"id-{n}")
    rest.system.confirmations.brokers.append(BrokerView(BROKER))  # and it holds nothing
    assert [one["state"] for one in await rest.changes()] == ["pending", "settled"]
    rest.system.confirmations.note(rest.system.confirmations.brokers[0], "a", 2)
    assert [one["state"] for one in await rest.changes()] == ["settled", "settled"]
