"""A body is kept only if its caller may send it, and only while there is room for all of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from config_manager.actors.system import System
from config_manager.api.server.app import RestApp
from config_manager.api.server.arriving import ArrivingBody, Room
from config_manager.config.errors import Busy, TooLarge
from tests.kit.asgi import TOKEN, Caller, running

CHUNK = b'{"x": "' + b"x" * 10_000


class Slow:
    """A request whose body has begun to arrive, over the application's own interface."""

    def __init__(self, app: RestApp, method: str, path: str, token: str | None) -> None:
        self._app = app
        given = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"x"), (b"content-type", b"application/json"), *given],
            "client": ("192.0.2.1", 1),
            "server": ("127.0.0.1", 1),
            "extensions": {},
        }
        self._send, self._received = trio.open_memory_channel[dict[str, Any]](0)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.done = trio.Event()

    async def run(self) -> None:
        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                self.status, self.headers = message["status"], dict(message["headers"])

        await self._app(self._scope, self._received.receive, send)
        self.done.set()

    async def part(self, body: bytes, *, more: bool = True) -> None:
        """Taken, and looked at, when this returns."""
        await self._send.send({"type": "http.request", "body": body, "more_body": more})
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def begun(app: RestApp, method: str, path: str, token: str | None) -> AsyncIterator[Slow]:
    slow = Slow(app, method, path, token)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            await slow.part(CHUNK)
            yield slow
            if not slow.done.is_set():
                await slow.part(b'"}', more=False)
                await slow.done.wait()
            nursery.cancel_scope.cancel()


async def token(system: System, role: str, services: list[str]) -> str:
    body = {"name": f"{role}-one", "role": role, "services": services}
    made: str = (await Caller(system).ask("POST", "/api/v1/tokens", body)).json["token"]
    return made


@pytest.mark.parametrize("fast_path", [True, False])
async def test_nothing_is_kept_of_a_body_whose_answer_is_a_refusal_anyway(
    tmp_path: Path, fast_path: bool
) -> None:
    async with running(tmp_path) as system:
        app = RestApp(system, dev=False, fast_path=fast_path)
        room = app.room
        reads, other = await token(system, "read", ["*"]), await token(system, "write", ["other-*"])
        for method, path, who, status in (
            ("PUT", "/api/v1/config/door", None, 401),
            ("PUT", "/api/v1/config/door", "unknown", 401),
            ("PUT", "/api/v1/config/door", reads, 403),
            ("PUT", "/api/v1/config/door", other, 403),
            ("PATCH", "/api/v1/config/door", reads, 403),
            ("POST", "/api/v1/secrets", other, 403),
            ("POST", "/api/v1/tokens", other, 403),
            ("PUT", "/nothing/here", TOKEN, 404),
            ("PUT", "/health", TOKEN, 405),
        ):
            async with begun(app, method, path, who) as slow:
                assert room.taken == 0, (method, path)
            assert slow.status == status, (method, path)
        async with begun(app, "PUT", "/api/v1/config/door", TOKEN) as slow:
            assert room.taken == len(CHUNK)
        assert (slow.status, room.taken) == (201, 0)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_past_the_room_for_all_bodies_a_caller_is_told_to_come_back(
    tmp_path: Path, fast_path: bool
) -> None:
    async with running(tmp_path) as system:
        app = RestApp(system, dev=False, fast_path=fast_path)
        app.room.most = 5 * len(CHUNK)
        ci = await token(system, "write", ["*"])
        path = "/api/v1/config/door"
        async with begun(app, "PUT", path, ci) as first, begun(app, "PUT", path, ci) as second:
            async with begun(app, "PUT", path, ci) as third:
                """Half of the room is this token's already."""
            assert (third.status, third.headers[b"retry-after"]) == (503, b"1")
            async with begun(app, "PUT", path, TOKEN) as another:
                """The other half is for others."""
            assert another.status in (200, 201)
        assert {first.status, second.status} <= {200, 201}
        assert app.room.taken == 0


@pytest.mark.parametrize("fast_path", [True, False])
async def test_of_who_has_no_token_only_little_is_kept(tmp_path: Path, fast_path: bool) -> None:
    async with running(tmp_path) as system:
        caller = Caller(system, fast_path=fast_path)
        enrol, body = "/api/v1/devices/enroll", b"{}".ljust(16 * 1024)
        assert (await caller.ask("POST", enrol, body + b" ", token=None)).status == 413
        told = await caller.ask("POST", enrol, body, token=None)
        assert told.status == 422, "it was read"


async def test_who_leaves_in_the_middle_gives_his_room_back(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        app = RestApp(system, dev=False)
        async with begun(app, "PUT", "/api/v1/config/door", TOKEN) as slow:
            assert app.room.taken == len(CHUNK)
            await slow._send.send({"type": "http.disconnect"})
            await slow.done.wait()
            assert app.room.taken == 0


def test_a_body_over_its_limit_is_dropped_at_once_and_only_counted() -> None:
    room = Room(1_000)
    with ArrivingBody(100, "ada", room) as body:
        body.take(b"x" * 100)
        assert (room.taken, body.refusal) == (100, None)
        body.take(b"x")
        assert isinstance(body.refusal, TooLarge)
        body.take(b"x" * 1_000)
        assert (room.taken, bytes(body.data), body.size) == (0, b"", 1_101)


def test_one_caller_has_half_of_the_room_and_all_together_the_whole() -> None:
    room = Room(1_000)
    with ArrivingBody(900, "ada", room) as ada, ArrivingBody(900, "bob", room) as bob:
        ada.take(b"x" * 500)
        with ArrivingBody(900, "ada", room) as second:
            second.take(b"x")
            assert isinstance(second.refusal, Busy)
        bob.take(b"x" * 500)
        assert (room.taken, ada.refusal, bob.refusal) == (1_000, None, None)
        with ArrivingBody(900, "eve", room) as third:
            third.take(b"x")
            assert isinstance(third.refusal, Busy)
    assert room.taken == 0
    assert json.dumps(dict(room._by_caller)) == "{}"
