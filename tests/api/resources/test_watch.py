"""`GET /api/v1/watch`: who is told what, from where on, and until when."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from config_manager.actors import drift_board
from config_manager.api.resources import watch
from config_manager.api.rest import streams
from config_manager.api.rest.limits import BEAT_S
from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.documents.receipt import Running
from config_manager.config.errors import ReadOnly
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.devices import DEVICE
from tests.kit.asgi import Caller, Listening, running
from tests.kit.documents import RECEIPT

WATCH = "/api/v1/watch"
NOW = 1_800_000_000.0


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Caller]:
    async with running(tmp_path) as system:
        yield Caller(system)


async def put(rest: Caller, service: str, count: int = 1, reason: str = "") -> int:
    """Write it so often; the last revision."""
    for n in range(count):
        why = f"?reason={reason}" if reason else ""
        answer = await rest.ask("PUT", f"/api/v1/config/{service}{why}", {"n": n})
        assert answer.status in (200, 201), answer.body
    revision: int = answer.json["revision"]
    return revision


async def invite(rest: Caller, name: str, *services: str, **more: Any) -> str:
    body = {"name": name, "role": "read", "services": list(services) or ["*"], **more}
    token: str = (await rest.ask("POST", "/api/v1/tokens", body)).json["token"]
    return token


def after(revision: int | str) -> dict[str, str]:
    return {"Last-Event-ID": str(revision)}


async def test_each_change_is_one_event_that_names_what_it_touched(rest: Caller) -> None:
    schemas = openapi(ROUTES)["components"]["schemas"]
    async with rest.listen() as seen:
        assert seen.status == 200
        assert seen.headers["content-type"] == "text/event-stream"
        assert seen.headers["cache-control"] == "no-store"
        assert seen.headers["x-accel-buffering"] == "no"
        assert "content-length" not in seen.headers
        health = await seen.event()
        assert health.kind == "health"
        assert health.data == {"ok": True, "mode": "normal", "reasons": []}
        assert (seen.reader.retry_ms, seen.reader.last_id) == (1000, "0")

        answer = await rest.ask("PUT", "/api/v1/config/door?reason=night", {"open": False})
        told = await seen.event("revision")
        written = answer.json
        assert told.id == str(written["revision"])
        assert told.data == {
            **{name: written[name] for name in ("revision", "config_epoch", "correlation_id")},
            "epoch_seq": 1,
            "at": written["updated_at"],
            "by": "bootstrap",
            "action": "put",
            "reason": "night",
            "services": ["door"],
        }
        assert set(told.data) == set(schemas["RevisionEvent"]["properties"])

        both = {"services": {"gate": {"x": 1}, "door": {"x": 1}}}
        assert (await rest.ask("POST", "/api/v1/config/epoch", both)).status == 200
        [epoch] = await seen.revisions(1)
        assert (epoch["action"], epoch["services"], epoch["epoch_seq"]) == (
            "epoch",
            ["door", "gate"],
            2,
        )


async def test_who_comes_back_is_told_what_was_missed_and_nothing_twice(rest: Caller) -> None:
    async with rest.listen() as seen:
        await put(rest, "door", 2)
        await seen.revisions(2)
        first = seen.reader.last_id
    newest = await put(rest, "door", 250)
    async with rest.listen(headers=after(first)) as back, rest.listen() as other:
        newest = await put(rest, "gate")
        missed = await back.revisions(251)
        assert [one["revision"] for one in missed] == list(range(int(first) + 1, newest + 1))
        assert await other.revisions(1) == missed[-1:]
        # what is still in memory is told like what is read
        async with rest.listen(headers=after(newest - 1)) as third:
            assert await third.revisions(1) == missed[-1:]
        async with rest.listen(headers=after("")) as from_now:
            newest = await put(rest, "gate")
            assert [one["revision"] for one in await from_now.revisions(1)] == [newest]


async def test_who_missed_more_than_a_thousand_is_told_so_and_then_what_happens(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_REPLAYED", 5)
    await put(rest, "door", 6)
    async with rest.listen(headers=after(1)) as seen:  # five is not more than five
        assert len(await seen.revisions(5)) == 5
    async with rest.listen(headers=after(0)) as seen:
        behind = await seen.event()
        assert (behind.kind, behind.id, behind.data) == ("behind", "6", {"from": 0, "to": 6})
        newest = await put(rest, "door")
        assert [one["revision"] for one in await seen.revisions(1)] == [newest]
    # of one service: its own five alone count
    await put(rest, "gate", 2)
    async with rest.listen(f"{WATCH}?service=gate", headers=after(0)) as seen:
        assert [one["services"] for one in await seen.revisions(2)] == [["gate"], ["gate"]]


async def test_a_number_of_another_server_is_told_to_read_anew(rest: Caller) -> None:
    await put(rest, "door")
    async with rest.listen(headers=after(500)) as seen:
        behind = await seen.event()
        assert (behind.kind, behind.id, behind.data) == ("behind", "1", {"from": 500, "to": 1})
        await put(rest, "door")
        assert [one["revision"] for one in await seen.revisions(1)] == [2]


async def test_what_does_not_parse_is_400_and_takes_no_room(rest: Caller) -> None:
    for given in ("-1", "1.5", "abc", "1" * 17, "0x1", "1,2", "\xb2"):
        answer = await rest.ask("GET", WATCH, headers=after(given))
        assert (answer.status, answer.json["type"]) == (400, "/problems/malformed-request")
        assert "Last-Event-ID" in answer.json["detail"]
    for query in ("service=NO", "service=epoch", "service=", "what=1", "service=a&service=b"):
        assert (await rest.ask("GET", f"{WATCH}?{query}")).status == 400
    assert len(rest.streams) == 0


async def test_a_narrowed_token_is_told_of_its_own_services_alone(rest: Caller) -> None:
    token = await invite(rest, "doors", "door-*")
    assert (await rest.ask("GET", f"{WATCH}?service=gate", token=token)).status == 403
    async with rest.listen(token=token) as seen, rest.listen(f"{WATCH}?service=gate") as gate:
        await put(rest, "gate")
        mixed = {"services": {"gate": {"x": 1}, "door-1": {"x": 1}, "secret-project": {"x": 1}}}
        await rest.ask("POST", "/api/v1/config/epoch", mixed)
        await put(rest, "secret-project")
        await put(rest, "door-2")
        told = await seen.revisions(2)
        assert [(one["revision"], one["services"]) for one in told] == [
            (2, ["door-1"]),
            (4, ["door-2"]),
        ]
        assert b"gate" not in seen.said
        assert b"secret-project" not in seen.said
        assert [one["revision"] for one in await gate.revisions(2)] == [1, 2]
    async with rest.listen(token=token, headers=after(0)) as back:
        assert await back.revisions(2) == told
        assert b"secret-project" not in back.said


async def test_a_stream_ends_with_its_token(rest: Caller) -> None:
    revoked, expiring = await invite(rest, "lost"), await invite(rest, "short", expires="1s")
    async with (
        rest.listen(token=revoked) as seen,
        rest.listen(token=expiring) as short,
        rest.listen() as other,
    ):
        assert (await rest.ask("DELETE", "/api/v1/tokens/lost")).status == 200
        await put(rest, "door", reason="nobody-else-s")
        assert b"nobody-else-s" not in seen.said
        assert [one.kind for one in await seen.end()] == ["health"]
        with trio.fail_after(BEAT_S / 2):  # not first at the next beat
            assert [one.kind for one in await short.end()] == ["health", "revision"]
        assert len(await other.revisions(1)) == 1
        assert len(rest.streams) == 1
        assert (await rest.ask("GET", WATCH, token=expiring)).status == 401


async def test_there_is_room_for_so_many_in_all_and_of_one_token(rest: Caller) -> None:
    tokens = [await invite(rest, f"t-{n}") for n in range(17)]
    async with AsyncExitStack() as stack:

        async def listen(token: str) -> Listening:
            return await stack.enter_async_context(rest.listen(token=token))

        for token in tokens[:16]:
            for _ in range(4):
                assert (await listen(token)).status == 200
            fifth = await rest.ask("GET", WATCH, token=token)
            assert (fifth.status, fifth.json["type"]) == (503, "/problems/too-many-streams")
        others = await rest.ask("GET", WATCH, token=tokens[16])
        assert (others.status, others.json["type"]) == (503, "/problems/too-many-streams")
        assert int(others.headers["retry-after"]) > 0
        assert "64" in others.json["detail"]
    assert len(rest.streams) == 0
    assert (await rest.ask("GET", WATCH, token=tokens[16])).status == 200


async def test_a_head_says_what_a_get_would_and_takes_no_room(rest: Caller) -> None:
    head = await rest.ask("HEAD", WATCH)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == "text/event-stream"
    assert len(rest.streams) == 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await rest.ask(method, WATCH, {} if method[0] == "P" else None)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_however_its_path_is_spelled_it_is_streamed(rest: Caller) -> None:
    for path in ("/api/v1/w%61tch", "/api/v1/%77atch?service=door"):
        async with rest.listen(path) as seen:
            assert seen.headers["content-type"] == "text/event-stream"
            assert (await seen.event()).kind == "health"
    assert (await rest.ask("GET", "/api/v1%2Fwatch")).status == 404


async def test_who_reads_slowly_is_told_all_the_same_and_remembers_for_nobody(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rest.listen() as slow, rest.listen() as quick:
        await slow.event("health")
        await put(rest, "door", 300)
        assert len(await quick.revisions(300)) == 300
        assert [one["revision"] for one in await slow.revisions(300)] == list(range(1, 301))
    monkeypatch.setattr("config_manager.actors.watching.CHANGES_HELD", 10)
    monkeypatch.setattr("config_manager.actors.watching._GATHER_S", 0.001)
    async with rest.listen() as slow, rest.listen() as quick:
        await slow.event("health")
        for _ in range(30):
            await put(rest, "door")
            await quick.revisions(1)
        told = await slow.revisions(30)
        assert [one["revision"] for one in told] == list(range(301, 331)), "read where it is kept"


async def test_what_was_missed_and_cannot_be_read_now_is_a_503(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(rest, "door", 3)

    async def away(*_: Any) -> Any:
        raise ReadOnly("the disk is gone")

    monkeypatch.setattr(rest.system.reading, "changes", away)
    answer = await rest.ask("GET", WATCH, headers=after(1))
    assert (answer.status, answer.json["type"]) == (503, "/problems/read-only")
    assert len(rest.streams) == 0


async def test_the_health_is_told_when_it_changes(rest: Caller) -> None:
    async with rest.listen() as seen:
        assert (await seen.event("health")).data["ok"] is True
        rest.system.view.mode = "read-only"
        rest.system.view.reasons = ("the disk is full",)
        told = await seen.event("health")
        assert (told.id, told.data) == (
            "0",
            {"ok": False, "mode": "read-only", "reasons": ["the disk is full"]},
        )


async def test_the_comment_names_what_was_passed_over_so_that_nobody_looks_at_it_again(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.2)
    async with rest.listen(f"{WATCH}?service=gate") as seen:
        await put(rest, "door", 3)
        while seen.reader.last_id != "3":
            await seen.piece()
        began = seen.reader.comments
        while seen.reader.comments < began + 2:
            await seen.piece()
        assert seen.said.count(b"id: ") == 2, "at first, and once"
        assert seen.said.endswith(b"\n\n:\n\n")
        await put(rest, "gate")
        assert [one["revision"] for one in await seen.revisions(1)] == [4]


async def test_drift_is_told_when_it_begins_and_when_it_ends(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_board, "LASTING_S", 0.0)
    schemas = openapi(ROUTES)["components"]["schemas"]
    key = SigningKey(bytes(range(32)))
    view, public = rest.system.view, base64.b64encode(key.verify_key.encode()).decode()
    row = {"sign_public": public, "seal_public": public, "enrolled_at": rfc3339(NOW)}
    devices = {"door/front": {**row, "enrolled_by": "ada"}}
    view.replace(replace(view.committed, registry={**view.committed.registry, DEVICE: devices}))

    def hear(seq: int, running: Running) -> None:
        receipt = replace(
            RECEIPT,
            service="door",
            instance="front",
            seq=seq,
            running=running,
            last_attempt=None,
            overrides=(),
            at=rfc3339(NOW),
        )
        payload = receipt.to_bytes()
        signed = key.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
        signature = Signature(wire.keyid(key.verify_key.encode()), signed)
        envelope = Envelope(wire.RECEIPT, payload, (signature,)).to_bytes()
        topic = wire.status_topic("door", "front")
        rest.system.statuses.take("A", topic, envelope, retained=False, now=NOW)

    narrowed = await invite(rest, "gates", "gate")
    async with (
        rest.listen() as seen,
        rest.listen(f"{WATCH}?service=door") as door,
        rest.listen(f"{WATCH}?service=gate") as gate,
        rest.listen(token=narrowed) as other,
    ):
        await put(rest, "door")
        wanted = rest.system.view.committed.services["door"]
        hear(1, Running(1, 99, "ab" * 32))
        began = await seen.event("drift")
        assert (began.id, set(began.data)) == ("1", set(schemas["DriftEvent"]["properties"]))
        since = began.data.pop("since")
        assert since.endswith("Z")
        assert began.data == {
            "event": "began",
            "service": "door",
            "instance": "front",
            "state": "foreign",
            "revision": wanted.revision,
            "correlation_id": wanted.correlation_id,
        }
        hear(2, Running(1, wanted.revision, wanted.digest))
        ended = await seen.event("drift")
        assert (ended.data["event"], ended.data["state"]) == ("ended", "foreign")
        assert [(await door.event("drift")).data["event"] for _ in range(2)] == ["began", "ended"]
        await put(rest, "gate")
        await gate.revisions(1)
        await other.revisions(1)
        assert b"front" not in gate.said + other.said


async def test_drift_of_the_time_in_which_nobody_watched_is_no_news(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rest.listen() as seen:
        await put(rest, "door", 2)
        await seen.revisions(2)
    board, read = rest.system.drift, rest.system.reading.changes

    def begins(instance: str) -> None:
        board._log.begin("door", instance, "late", "it waits", NOW, None)
        board._is_changed = True
        board.catch_up()

    async def slowly(*given: Any) -> Any:
        begins("meanwhile")
        while rest.system.watching.drift_seq < board.last_seq:  # until the hub has looked
            await trio.sleep(0.01)
        return await read(*given)

    begins("before")

    monkeypatch.setattr(rest.system.reading, "changes", slowly)
    async with rest.listen(headers=after(1)) as back:
        assert (await back.event("drift")).data["instance"] == "meanwhile"


async def test_a_crash_of_the_part_that_reads_costs_a_moment_and_no_event(rest: Caller) -> None:
    async with rest.listen() as seen:
        await put(rest, "door")
        await seen.revisions(1)
        watching = next(one for one in rest.system.states.actors if one.name == "watching")
        watching.crash(RuntimeError("drill"))
        await put(rest, "door", 2)
        assert [one["revision"] for one in await seen.revisions(2)] == [2, 3]


async def test_while_nobody_watches_nothing_is_read(
    rest: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    read = rest.system.watching.read

    async def counted(*given: Any) -> Any:
        reads.append(given)
        return await read(*given)

    monkeypatch.setattr(rest.system.watching, "read", counted)
    await put(rest, "door", 5)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert reads == []
    async with AsyncExitStack() as stack:
        all_of_them = [await stack.enter_async_context(rest.listen()) for _ in range(4)]
        await put(rest, "door")
        for one in all_of_them:
            await one.revisions(1)
        assert len(reads) == 1
    await put(rest, "door", 5)
    await trio.sleep(0.1)  # as long as it would gather
    assert len(reads) == 1
