"""`DELETE /api/v1/status/{service}/{instance}` on a running system: receipts are handed to its board."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from config_manager.actors.actor import Context
from config_manager.actors.messages import Write
from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.enrolment import Enrolment
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.devices import AllowEnrolment, Enrol, enrolled
from config_manager.storage.decisions.forgotten import forgotten
from config_manager.storage.decisions.terms import Terms
from tests.actors.test_statuses import make, seal
from tests.kit.asgi import Answer, Caller, on_disk, running
from tests.kit.documents import STRANGER

KITCHEN = "/api/v1/status/stt-worker/kitchen"


class Desk(Caller):
    """A running system, and instances that report to it."""

    def says(self, seq: int, *, retained: bool = False, **fields: Any) -> None:
        receipt = make(seq, **{"at": rfc3339(time.time()), **fields})
        topic = wire.status_topic(receipt.service, receipt.instance)
        payload = seal(receipt.to_bytes())
        self.system.statuses.take("A", topic, payload, retained=retained, now=time.time())

    def goes(self, **fields: Any) -> None:
        self.says(4, **fields)
        self.says(3, gone=True, **fields)

    async def shown(self) -> list[str]:
        answer = await self.ask("GET", "/api/v1/status")
        return [one["instance"] for one in answer.json["instances"]]

    async def audited(self) -> list[dict[str, Any]]:
        rows = (await self.ask("GET", "/api/v1/audit?limit=1000")).json["entries"]
        told = [json.loads(row["body"]) for row in rows]
        return [row for row in told if row["action"] == "instance.forget"]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with running(tmp_path) as system:
        yield Desk(system)


def is_a(problem: Answer, status: int, name: str) -> bool:
    said = problem.json
    return (problem.status, said["type"], said["status"]) == (status, f"/problems/{name}", status)


async def test_what_has_gone_is_forgotten_and_the_audit_says_who_why_and_what(desk: Desk) -> None:
    desk.goes()
    desk.says(1, instance="hall")
    answer = await desk.ask("DELETE", f"{KITCHEN}?reason=its+card+is+broken")
    assert answer.status == 200
    assert answer.json == {
        "service": "stt-worker", "instance": "kitchen", "forgotten": True, "away": [],
    }  # fmt: skip
    schema = {
        "$ref": "#/components/schemas/ForgottenInstance",
        "components": openapi(ROUTES)["components"],
    }
    jsonschema.Draft202012Validator(schema).validate(answer.json)
    assert await desk.shown() == ["hall"]
    [row] = await desk.audited()
    assert (row["by"], row["reason"]) == ("bootstrap", "its card is broken")
    details = row["details"]
    assert (details["service"], details["instance"]) == ("stt-worker", "kitchen")
    assert (details["boot_seq"], details["seq"], details["gone"]) == (1, 4, True)
    assert is_a(await desk.ask("DELETE", KITCHEN), 404, "not-found")
    desk.says(1, boot_seq=2)
    assert await desk.shown() == ["hall", "kitchen"]


async def test_what_is_heard_is_still_there_and_its_problem_says_what_to_do(desk: Desk) -> None:
    desk.says(1)
    refused = await desk.ask("DELETE", KITCHEN)
    assert is_a(refused, 409, "still-there")
    assert "Stop it" in refused.json["detail"]
    assert await desk.shown() == ["kitchen"]
    assert await desk.audited() == []
    explained = await desk.ask("GET", "/problems/still-there", token=None)
    assert (explained.status, explained.json["status"]) == (200, 409)
    assert "Stop it" in explained.json["meaning"]


@pytest.mark.parametrize(
    "path", ["epoch/kitchen", "stt-worker/epoch", "STT/kitchen", "stt-worker/-", "a/" + "b" * 64]
)
async def test_a_name_that_is_none_is_400(desk: Desk, path: str) -> None:
    assert is_a(await desk.ask("DELETE", f"/api/v1/status/{path}"), 400, "invalid-name")


async def test_what_nobody_heard_of_is_404_and_other_questions_are_400_and_405(desk: Desk) -> None:
    desk.goes(instance="hall")
    assert is_a(await desk.ask("DELETE", KITCHEN), 404, "not-found")
    assert is_a(await desk.ask("DELETE", f"{KITCHEN}?force=true"), 400, "malformed-request")
    assert (await desk.ask("GET", KITCHEN)).status == 405
    assert await desk.shown() == ["hall"]


async def test_an_idempotency_key_answers_again_and_forgets_nothing_that_came_back(
    desk: Desk,
) -> None:
    desk.goes()
    key = {"Idempotency-Key": "once"}
    first = await desk.ask("DELETE", KITCHEN, headers=key)
    assert first.status == 200
    desk.goes(boot_seq=2)
    again = await desk.ask("DELETE", KITCHEN, headers=key)
    assert (again.status, again.body) == (200, first.body)
    assert await desk.shown() == ["kitchen"]
    assert len(await desk.audited()) == 1
    desk.goes(instance="hall")
    other = await desk.ask("DELETE", "/api/v1/status/stt-worker/hall", headers=key)
    assert is_a(other, 422, "idempotency-mismatch")


async def test_an_enrolled_instance_stays_enrolled(desk: Desk) -> None:
    storing, view = desk.system.storing, desk.system.view
    await storing.ask(
        Write(
            AllowEnrolment("ab" * 32, "stt-worker", None, "2100-01-01T00:00:00Z"),
            Terms("ada"),
        ),
        Context("allow"),
    )
    keys = STRANGER.verify_key.encode(), bytes(STRANGER.to_curve25519_private_key().public_key)
    enrolment = Enrolment("ab" * 32, "stt-worker", "kitchen", *keys)
    what = Enrol(enrolment, enrolment.prove(bytes(STRANGER)))
    device = await storing.ask(Write(what, Terms("kitchen")), Context("enrol"))
    receipt = make(2, gone=True)
    signed = wire.signed_bytes(wire.RECEIPT, receipt.to_bytes())
    signature = wire.Signature(wire.keyid(keys[0]), STRANGER.sign(signed).signature)
    payload = wire.Envelope(wire.RECEIPT, receipt.to_bytes(), (signature,)).to_bytes()
    topic = wire.status_topic("stt-worker", "kitchen")
    desk.system.statuses.take("A", topic, payload, retained=True, now=time.time())
    assert (await desk.ask("DELETE", KITCHEN)).status == 200
    assert await desk.shown() == []
    assert enrolled(view.committed, "stt-worker", "kitchen") == device


async def test_what_was_forgotten_stays_away_after_a_restart(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        desk = Desk(system)
        desk.goes()
        assert (await desk.ask("DELETE", KITCHEN)).status == 200
    async with on_disk(tmp_path) as system:
        desk = Desk(system)
        assert forgotten(system.view.committed, "stt-worker", "kitchen") is not None
        desk.says(4, at=rfc3339(time.time() - 3600), retained=True)
        assert await desk.shown() == []
        desk.says(1, boot_seq=2)
        assert await desk.shown() == ["kitchen"]
