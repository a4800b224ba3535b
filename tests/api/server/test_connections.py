"""More connections than there is room for, on real sockets: who gets in, and what the others are told."""

from __future__ import annotations

import json
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from config_manager.api.server import connection, file_limits
from config_manager.api.server.listening import serve
from config_manager.api.server.tls import Certificate

ROOM = 16
QUICK = b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /8000000 HTTP/1.1\r\nHost: x\r\n\r\n"
"""More than the sockets take."""


class App:
    """Answers with as many bytes as the path says; `/wait` once it may."""

    def __init__(self) -> None:
        self.may_go = trio.Event()
        self.waiting = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            self.waiting += 1
            await self.may_go.wait()
        size = int(scope["path"].strip("/")) if scope["path"] != "/wait" else 2
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_limits, "most_connections", lambda: ROOM)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve, app, "127.0.0.1", 0)
            nursery.cancel_scope.cancel()


async def asks(stack: AsyncExitStack, port: int, request: bytes) -> trio.SocketStream:
    stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
    await stream.send_all(request)
    return stream


async def all_of(stream: trio.SocketStream) -> bytes:
    """To the end; a reset is one."""
    data = b""
    try:
        while chunk := await stream.receive_some(65_536):
            data += chunk
    except trio.BrokenResourceError:
        pass
    return data


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_who_never_reads_makes_room_and_never_more_are_open_than_may_be() -> None:
    began = open_files()
    async with serving(App()) as port, AsyncExitStack() as stack:
        for number in range(3 * ROOM):
            await asks(stack, port, LARGE)
            quick = await asks(
                stack, port, QUICK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            assert (await all_of(quick)).startswith(b"HTTP/1.1 200")
            # both ends are in this process: one of ours each, and at most ROOM of the server's
            ours = 2 * (number + 1)
            assert open_files() - began - ours <= ROOM + 4


async def test_where_everybody_is_being_answered_a_caller_is_told_to_come_back() -> None:
    app = App()
    async with serving(app) as port, AsyncExitStack() as stack:
        waiting = [await asks(stack, port, QUICK.replace(b"/2", b"/wait")) for _ in range(ROOM)]
        while app.waiting < ROOM:
            await trio.lowlevel.checkpoint()
        for _ in range(3):
            told = await all_of(await asks(stack, port, QUICK))
            head, _, body = told.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in head.lower()
            assert b"connection: close" in head.lower()
            assert json.loads(body)["type"] == "/problems/busy"
            assert json.loads(body)["request_id"].encode() in head
        app.may_go.set()
        for stream in waiting:
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
        assert (await (await asks(stack, port, QUICK)).receive_some(1000)).startswith(
            b"HTTP/1.1 200"
        )


async def test_answers_that_nobody_reads_have_a_limit_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES_SENDING", 20_000_000)
    async with serving(App()) as port, AsyncExitStack() as stack:
        once = LARGE.replace(b"Host", b"Connection: close\r\nHost")
        streams = [await asks(stack, port, once) for _ in range(6)]
        assert len(await all_of(streams[-1])) > 8_000_000
        cut = [stream for stream in streams[:-1] if len(await all_of(stream)) < 8_000_000]
        assert len(cut) >= 3, "8 MB each, and 20 MB together"


async def test_over_tls_who_never_reads_or_never_shakes_hands_makes_room_too(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    file = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))
    file.chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def open_tls(stack: AsyncExitStack, port: int, request: bytes) -> trio.SSLStream[Any]:
        stream = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port),
            context,
            server_hostname="127.0.0.1",
            https_compatible=True,
        )
        stack.push_async_callback(trio.aclose_forcefully, stream)
        await stream.send_all(request)
        return stream

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            start = partial(serve, certificate=Certificate(file, None))
            port: int = await nursery.start(start, App(), "127.0.0.1", 0)
            began = open_files()
            for number in range(2 * ROOM):
                await open_tls(stack, port, LARGE)
                await asks(stack, port, b"")
                quick = await open_tls(stack, port, QUICK)
                assert (await quick.receive_some(1000)).startswith(b"HTTP/1.1 200")
                assert open_files() - began - 3 * (number + 1) <= ROOM + 2
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("soft", "room"), [(1_024, 896), (300, 172), (64, 16), (20_000, 2_000)])
def test_some_descriptors_are_left_to_the_database(
    monkeypatch: pytest.MonkeyPatch, soft: int, room: int
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 20_000))
    assert file_limits.most_connections() == room


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((1_024, 524_288), (3_024, 524_288)),
        ((1_024, 2_048), (2_048, 2_048)),
        ((1_024, resource.RLIM_INFINITY), (3_024, resource.RLIM_INFINITY)),
        ((300, 300), None),
        ((65_536, 524_288), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_helps(
    monkeypatch: pytest.MonkeyPatch, given: tuple[int, int], wanted: tuple[int, int] | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: given)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    file_limits.raise_limit()
    assert asked == ([] if wanted is None else [wanted])
