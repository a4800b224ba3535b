"""Drift over REST: on a running system whose clock the test turns, with instances that enrolled and sign."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import trio
from trio.testing import MockClock

from config_manager.actors.system import System
from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Running
from config_manager.config.wire import Envelope, Signature, keyid, signed_bytes
from config_manager.config.world import rfc3339
from tests.api.resources.test_enrolling import Device
from tests.kit.asgi import TOKEN, Caller, on_disk, running
from tests.kit.documents import make_receipt


class Fleet(Caller):
    """Instances of `door`, by name."""

    devices: dict[str, Device]
    seq = 0

    async def enrol(self, *names: str) -> None:
        self.devices = {}
        for seed, name in enumerate(names, 1):
            given = await self.ask("POST", "/api/v1/devices/tokens", {"service": "door"})
            device = self.devices[name] = Device(self, seed)
            answer = await device.enrols(given.json["token"], name, opens=seed)
            assert answer.status == 201

    def hear(self, name: str, running: Running | None, **fields: Any) -> None:
        self.seq += 1
        said = {"service": "door", "instance": name, "seq": self.seq, "at": rfc3339(time.time())}
        payload = make_receipt(running, **{**said, **fields}).to_bytes()
        key = self.devices[name].signs
        signed = key.sign(signed_bytes(wire.RECEIPT, payload)).signature
        signatures = (Signature(keyid(key.verify_key.encode()), signed),)
        envelope = Envelope(wire.RECEIPT, payload, signatures).to_bytes()
        topic = wire.status_topic("door", name)
        self.system.statuses.take("A", topic, envelope, retained=False, now=time.time())

    async def put(self, **values: Any) -> Running:
        """What an instance that runs it reports."""
        answer = await self.ask("PUT", "/api/v1/config/door", values)
        assert answer.status in (200, 201)
        state = self.system.view.committed.services["door"]
        return Running(state.epoch.seq, state.revision, state.digest)

    async def shown(self, target: str, *, token: str = TOKEN) -> dict[str, Any]:
        answer = await self.ask("GET", target, token=token)
        assert answer.status == 200, answer.json
        document = openapi(ROUTES)
        described = document["paths"][target.partition("?")[0]]["get"]["responses"]["200"]
        schema = {
            **described["content"]["application/json"]["schema"],
            "components": document["components"],
        }
        jsonschema.Draft202012Validator(schema).validate(answer.json)
        shown: dict[str, Any] = answer.json
        return shown


async def saved(system: System, clock: MockClock) -> None:
    """Seconds pass until all drift is in the database, whose thread has a clock of its own."""
    for _ in range(500):
        if not system.drift.unsaved():
            return
        clock.jump(1.1)
        await trio.to_thread.run_sync(time.sleep, 0.01)
    raise AssertionError("it is not saved")


async def test_drift_now_and_before_and_who_may_see_it(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as system:
        fleet = Fleet(system)
        assert (await fleet.shown("/api/v1/drift"))["drift"] == []
        await fleet.enrol("hall", "attic", "never")
        first = await fleet.put(volume=1)
        for name in ("hall", "attic"):
            fleet.hear(name, first)
        second = await fleet.put(volume=2)
        fleet.hear("hall", first, last_attempt=Attempt(second.revision, "refused", "model: no"))
        fleet.hear("attic", Running(1, 99, "f" * 64))
        assert (await fleet.shown("/api/v1/drift"))["drift"] == []
        mock_clock.jump(10.0)
        now = (await fleet.shown("/api/v1/drift"))["drift"]
        assert [(one["instance"], one["state"], one["revision"]) for one in now] == [
            ("attic", "foreign", 2),
            ("hall", "refused", 2),
        ]
        assert now[1]["why"] == "model: no"
        assert now[1]["correlation_id"] == system.view.committed.services["door"].correlation_id
        assert (await fleet.shown("/api/v1/drift?service=door"))["drift"] == now

        fleet.hear("hall", second)
        assert [one["instance"] for one in (await fleet.shown("/api/v1/drift"))["drift"]] == [
            "attic"
        ]
        at_once = (await fleet.shown("/api/v1/drift/events"))["drift"]
        assert [one["instance"] for one in at_once if one["ended"]] == ["hall"]
        await saved(system, mock_clock)
        page = await fleet.shown("/api/v1/drift/events?limit=1")
        rest = await fleet.shown(f"/api/v1/drift/events?limit=1&before={page['next_before']}")
        assert rest["next_before"] is None
        (ended,) = [one for one in page["drift"] + rest["drift"] if one["ended"]]
        assert (ended["instance"], ended["state"]) == ("hall", "refused")
        assert ended["since"] <= ended["began"] <= ended["ended"]
        later = rfc3339(time.time() + 60)
        still = (await fleet.shown(f"/api/v1/drift/events?since={later}"))["drift"]
        assert [one["instance"] for one in still] == ["attic"]
        assert (await fleet.shown("/api/v1/drift/events?until=2020-01-01T00:00:00Z"))["drift"] == []

        made = {"name": "others", "role": "read", "services": ["bell-*"]}
        token = (await fleet.ask("POST", "/api/v1/tokens", made)).json["token"]
        for target in ("/api/v1/drift", "/api/v1/drift/events"):
            assert (await fleet.shown(target, token=token))["drift"] == []
            refused = await fleet.ask("GET", f"{target}?service=door", token=token)
            assert refused.status == 403
        assert (await fleet.shown("/api/v1/status?limit=9", token=token))["instances"] == []

        system.view.mode = "read-only"  # so nothing else is saved
        begun = system.drift._log.begin("door", "never", "late", "it waits", time.time(), None)

        async def read_just_before_it_is_saved(*_: Any) -> list[Any]:
            system.drift.saved([begun])
            return []

        monkeypatch.setattr(system.reading, "drifts", read_just_before_it_is_saved)
        (told,) = (await fleet.shown("/api/v1/drift/events"))["drift"]
        assert told["instance"] == "never"


async def test_the_status_in_pages_by_state_and_with_who_was_never_heard(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with running(tmp_path) as system:
        fleet = Fleet(system)
        await fleet.enrol("a", "b", "c", "never")
        first = await fleet.put(volume=1)
        for name in "abc":
            fleet.hear(name, first)
        fleet.hear("b", first, gone=True)
        whole = await fleet.shown("/api/v1/status")
        assert "next_after" not in whole, "as in 0.1.0"
        assert [one["instance"] for one in whole["instances"]] == ["a", "b", "c"]
        assert [one["state"] for one in whole["instances"]] == ["in-line", "silent", "in-line"]

        page = await fleet.shown("/api/v1/status?limit=2")
        assert [one["instance"] for one in page["instances"]] == ["a", "b"]
        assert page["next_after"] == "door/b"
        rest = await fleet.shown("/api/v1/status?limit=2&after=door/b")
        assert [one["instance"] for one in rest["instances"]] == ["c", "never"]
        assert rest["next_after"] is None
        never = rest["instances"][1]
        assert (never["enrolled"], never["received_at"], never["state"]) == (True, None, "silent")
        assert "was never heard since" in never["why"]

        silent = await fleet.shown("/api/v1/status?limit=9&state=silent")
        assert [one["instance"] for one in silent["instances"]] == ["b", "never"]
        one = await fleet.shown("/api/v1/status?limit=1&state=silent&service=door")
        assert (one["instances"][0]["instance"], one["next_after"]) == ("b", "door/b")
        assert (await fleet.shown("/api/v1/status?service=bell&limit=9"))["instances"] == []
        for query in (
            "state=lost",
            "limit=0",
            "limit=501",
            "after=door",
            "after=door/X",
            "after=/",
        ):
            refused = await fleet.ask("GET", f"/api/v1/status?{query}")
            assert refused.status == 400, query


async def test_a_change_shows_at_once_who_is_on_the_way(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        fleet = Fleet(system)
        await fleet.enrol("hall")
        fleet.hear("hall", await fleet.put(volume=1))
        assert (await fleet.shown("/api/v1/status"))["instances"][0]["state"] == "in-line"
        await fleet.put(volume=2)
        shown = (await fleet.shown("/api/v1/status"))["instances"][0]
        assert (shown["state"], shown["in_sync"]) == ("pending", False)


async def test_after_a_restart_on_disk_the_status_is_as_before_and_what_was_forgotten_stays_away(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        fleet = Fleet(system)
        await fleet.enrol("hall", "attic", "cellar")
        first = await fleet.put(volume=1)
        fleet.hear("hall", first)
        for name in ("attic", "cellar"):
            fleet.hear(name, first)
            fleet.hear(name, first, gone=True)
        before = (await fleet.shown("/api/v1/status?limit=9"))["instances"]
        answer = await fleet.ask("DELETE", "/api/v1/status/door/cellar")
        assert answer.status == 200
    async with on_disk(tmp_path) as system:
        after = (await Fleet(system).shown("/api/v1/status?limit=9"))["instances"]
    assert [(one["instance"], one["state"]) for one in after] == [
        ("attic", "silent"),
        ("cellar", "silent"),
        ("hall", "in-line"),
    ]
    for told, one in zip(before, after, strict=True):
        if one["instance"] == "cellar":
            assert (told["gone"], one["received_at"]) == (True, None)
        else:
            as_far_as_is_known = {name: one[name] for name in ("since", "state_since")}
            assert one == {**told, "from_before": True, **as_far_as_is_known}
