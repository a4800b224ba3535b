"""Streams on real sockets: they come at once, and end when their caller leaves, does not read, or we stop."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from config_manager.actors.system import System
from config_manager.api.rest.limits import BEAT_S, SEND_WITHIN_S
from config_manager.api.rest.streams import Stream, Streams
from config_manager.api.server import connection
from config_manager.api.server.app import RestApp
from config_manager.api.server.listening import serve
from config_manager.config.errors import Busy
from tests.kit.asgi import TOKEN, Caller, running

PATH = b"/api/v1/watch"
WHO = b"Host: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
WATCH = b"GET " + PATH + b" HTTP/1.1\r\n" + WHO + b"\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
STATUS = b"GET /api/v1/status HTTP/1.1\r\n" + WHO + b"\r\n"
SO_ATTACH_FILTER = 26
LAST_CHUNK = b"0\r\n\r\n"


class Site:
    """A server with the whole application behind it."""

    def __init__(self, system: System, app: RestApp, port: int, stop: trio.Event) -> None:
        self.system = system
        self.app = app
        self.port = port
        self.stop = stop

    async def asks(self, stack: AsyncExitStack, request: bytes) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stack.enter_async_context(stream)
        await stream.send_all(request)
        return stream

    async def nobody_listens(self) -> None:
        while len(self.app.streams):
            await trio.sleep(0.001)


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    async with running(directory) as system:
        app = RestApp(system, dev=False)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                stop = trio.Event()

                async def serves(task_status: trio.TaskStatus[int]) -> None:
                    async with trio.open_nursery() as http:
                        port = await http.start(
                            lambda task_status: serve(
                                app, "127.0.0.1", 0, on_stop=app.stop, task_status=task_status
                            )
                        )
                        task_status.started(port)
                        await stop.wait()
                        http.cancel_scope.cancel()

                port: int = await nursery.start(serves)
                yield Site(system, app, port, stop)
                stop.set()


async def until(stream: trio.SocketStream, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        chunk = await stream.receive_some(65_536)
        assert chunk, data
        data += chunk
    return data


async def all_of(stream: trio.SocketStream) -> bytes:
    data = b""
    while chunk := await stream.receive_some(65_536):
        data += chunk
    return data


async def test_it_comes_at_once_and_its_end_is_an_ordinary_one(tmp_path: Path) -> None:
    """Also for who closes only the half that it writes on, sends another request, or speaks HTTP/1.0."""
    async with site(tmp_path) as here, AsyncExitStack() as stack:
        seen = await here.asks(stack, WATCH)
        said = await until(seen, b"event: health")
        assert b"Transfer-Encoding: chunked" in said
        await Caller(here.system).ask("PUT", "/api/v1/config/door", {"open": True})
        await until(seen, b"event: revision")
        assert len(here.app.streams) == 1
        await seen.send_eof()
        assert (await all_of(seen)).endswith(LAST_CHUNK)
        await here.nobody_listens()

        at_once = await here.asks(stack, WATCH)
        await at_once.send_eof()
        assert (await all_of(at_once)).endswith(LAST_CHUNK)

        for body in (b"", b"Content-Length: 3\r\n\r\nabc"):
            request = WATCH if not body else WATCH[:-2] + body
            # the third goes through Quart, which would end with its caller
            together = await here.asks(stack, request + request + STATUS + HEALTH)
            said = await all_of(together)
            assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 4
            assert said.count(LAST_CHUNK) == 2
            assert said.endswith(b"}")
        later = await here.asks(stack, WATCH)
        await until(later, b"event: health")
        await later.send_all(HEALTH)
        assert b'"ok":true' in await all_of(later)

        old = await here.asks(stack, WATCH.replace(b"HTTP/1.1", b"HTTP/1.0"))
        said = await until(old, b"event: health")
        assert b"chunked" not in said.lower()
        await old.aclose()
        await here.nobody_listens()


async def test_who_leaves_is_gone_at_once_and_its_line_says_how_long_it_listened(
    tmp_path: Path,
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with site(tmp_path) as here, AsyncExitStack() as stack:
            for abort in (False, True):
                everyone = [await here.asks(stack, WATCH) for _ in range(4)]
                for one in everyone:
                    await until(one, b"event: health")
                assert len(here.app.streams) == 4
                fifth = await here.asks(stack, WATCH)
                refused = await until(fifth, b"too-many-streams")
                assert b"retry-after: 5" in refused.lower()
                began = trio.current_time()
                for one in everyone:
                    if abort:
                        await trio.aclose_forcefully(one)
                    await one.aclose()
                await here.nobody_listens()
                assert trio.current_time() - began < BEAT_S / 2, "not first at the next beat"
    told = [line for line in lines if line.get("path") == PATH.decode()]
    assert [line["status"] for line in told].count(200) == 8
    assert all(line["duration_ms"] > 0 for line in told)
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_who_vanishes_without_a_word_is_noticed_and_gives_up_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "GONE_WITHIN_S", 0.2)
    async with site(tmp_path) as here, AsyncExitStack() as stack:
        vanished, other = [await here.asks(stack, WATCH) for _ in range(2)]
        for one in (vanished, other):
            await until(one, b"event: health")
        nothing_gets_in = (ctypes.c_uint16 * 4)(0x06, 0, 0, 0)  # a filter that drops each packet
        program = struct.pack("HP", 1, ctypes.addressof(nothing_gets_in))
        vanished.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        await Caller(here.system).ask("PUT", "/api/v1/config/door", {"open": True})
        await until(other, b"event: revision")
        while len(here.app.streams) == 2:
            await trio.sleep(0.01)
        assert len(here.app.streams) == 1


async def test_when_we_stop_each_of_fifty_streams_ends_in_order(tmp_path: Path) -> None:
    async with site(tmp_path) as here, AsyncExitStack() as stack:
        rest = Caller(here.system)
        everyone: list[trio.SocketStream] = []
        for n in range(13):
            made = await rest.ask("POST", "/api/v1/tokens", {"name": f"t-{n}", "role": "read"})
            request = WATCH.replace(TOKEN.encode(), made.json["token"].encode())
            everyone += [await here.asks(stack, request) for _ in range(4)]
        for one in everyone:
            await until(one, b"event: health")
        assert len(here.app.streams) == 52
        kept_alive = await here.asks(stack, HEALTH.replace(b"Connection: close\r\n", b""))
        await until(kept_alive, b"}")
        here.stop.set()
        for one in everyone:
            assert (await all_of(one)).endswith(LAST_CHUNK)
        assert len(here.app.streams) == 0


async def test_who_connects_does_not_push_out_who_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("app", "file_limits"):
        name = f"config_manager.api.server.{module}.most_connections"
        monkeypatch.setattr(name, lambda: 4)
    async with site(tmp_path) as here, AsyncExitStack() as stack:
        everyone = [await here.asks(stack, WATCH) for _ in range(2)]
        for one in everyone:
            await until(one, b"event: health")
        third = await here.asks(stack, WATCH)
        await until(third, b"too-many-streams")  # half of the room is for others
        for _ in range(6):
            other = await here.asks(stack, HEALTH.replace(b"Connection: close\r\n", b""))
            await until(other, b"}")
        await Caller(here.system).ask("PUT", "/api/v1/config/door", {"open": True})
        for one in everyone:
            await until(one, b"event: revision")


# ── time is virtual ────────────────────────────────────────────────────────────────────────────


class Flood(Stream):
    """Has more to say whenever it is asked."""

    said = 0

    async def news(self) -> bytes:
        self.said += 1
        return b"data: " + b"x" * 10_000 + b"\n\n"


class Quiet(Stream):
    looks = 0

    async def news(self) -> bytes:
        self.looks += 1
        return b""


def streaming(stream: Stream) -> Any:
    """An application that answers with this stream."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def look() -> None:
            while (await receive())["type"] == "http.request":
                pass
            stream.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            while (piece := await stream.next_piece()) is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})

    return app


async def test_who_does_not_read_is_cut_and_nothing_is_kept_for_it(
    autojump_clock: MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.02
    streams = Streams()
    flood = Flood(streams, "me")
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(serve, streaming(flood), "127.0.0.1", 0)
        async with await trio.open_tcp_stream("127.0.0.1", port) as never_reads:
            await never_reads.send_all(WATCH)
            await trio.sleep(SEND_WITHIN_S / 2)
            assert len(streams) == 1
            filled = flood.said
            await trio.sleep(SEND_WITHIN_S)
            assert len(streams) == 0
            # what the sockets took, and at most what was made while it was cut
            assert filled <= flood.said <= filled + 2
        nursery.cancel_scope.cancel()


async def test_its_head_comes_before_there_is_anything_to_say(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.02
    async with trio.open_nursery() as nursery:
        quiet = Quiet(Streams(), "me")
        port: int = await nursery.start(serve, streaming(quiet), "127.0.0.1", 0)
        async with await trio.open_tcp_stream("127.0.0.1", port) as one:
            await one.send_all(WATCH)
            began = trio.current_time()
            await until(one, b"\r\n\r\n")
            assert trio.current_time() - began < BEAT_S / 2
            await until(one, b":\n\n")
        nursery.cancel_scope.cancel()


async def test_a_comment_comes_every_15_s_also_to_who_is_woken_for_nothing(
    autojump_clock: MockClock,
) -> None:
    streams = Streams()
    quiet = Quiet(streams, "me")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def wakes() -> None:
            while True:
                await trio.sleep(4)
                quiet.wake()

        nursery.start_soon(wakes)
        for n in range(1, 4):
            assert await quiet.next_piece() == b":\n\n"
            assert trio.current_time() - began == pytest.approx(n * BEAT_S)
        assert quiet.looks == 3 + 3 * BEAT_S // 4, "once each time that it is woken"
        nursery.cancel_scope.cancel()
    quiet.end()
    quiet.end()
    assert await quiet.next_piece() is None
    assert len(streams) == 0
    streams.end_all()
    with pytest.raises(Busy):
        Quiet(streams, "me")
