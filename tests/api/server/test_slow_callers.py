"""A caller that sends or reads slowly is cut in bounded time, and costs nobody else anything. Time is virtual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from config_manager.api.rest.limits import (
    ARRIVE_WITHIN_S,
    FIRST_BYTE_WITHIN_S,
    IDLE_S,
    SEND_WITHIN_S,
)
from config_manager.api.server.listening import serve

HEAD = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n"
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def mock_clock() -> MockClock:
    """It jumps once nothing has happened for a moment: what is on its way in a socket comes first."""
    return MockClock(autojump_threshold=0.02)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads all, answers; a path is the number of bytes that it answers with."""
    while (message := await receive()).get("more_body", False):
        pass
    if message["type"] == "http.disconnect":
        return
    size = int(scope["path"].strip("/") or 2)
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * size})


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, app, "127.0.0.1", 0)
        nursery.cancel_scope.cancel()


async def trickle(stream: trio.SocketStream, data: bytes) -> float:
    """A byte each second, until the server has had enough; how long that took."""
    began = trio.current_time()
    for at in range(len(data)):
        with trio.move_on_after(1) as waiting:
            assert await stream.receive_some(1) == b""
        if not waiting.cancelled_caught:
            return trio.current_time() - began
        try:
            await stream.send_all(data[at : at + 1])
        except trio.BrokenResourceError:
            return trio.current_time() - began
    raise AssertionError("it took all of it")


async def quick(port: int) -> None:
    began = trio.current_time()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(WHOLE)
        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
    assert trio.current_time() - began < 1


@pytest.mark.parametrize(
    ("before", "slowly"),
    [
        (b"", WHOLE),
        (HEAD, b"x" * 60),
        (WHOLE, WHOLE),
        (WHOLE + WHOLE[:1], WHOLE[1:]),
    ],
    ids=["a head", "a body", "a second request", "a pipelined one"],
)
async def test_who_sends_slowly_is_cut_and_a_hundred_of_them_hold_up_nobody(
    before: bytes, slowly: bytes, mock_clock: MockClock
) -> None:
    async with serving() as port, trio.open_nursery() as nursery:

        async def slow() -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                if before:
                    await stream.send_all(before)
                for _ in range(before.count(WHOLE)):
                    answer = b""
                    while not answer.endswith(b"xx"):
                        answer += await stream.receive_some(1000)
                assert await trickle(stream, slowly) < ARRIVE_WITHIN_S + 3

        for _ in range(100):
            nursery.start_soon(slow)
        for _ in range(20):
            await trio.sleep(0.9)
            await quick(port)


async def test_who_says_nothing_is_cut(mock_clock: MockClock) -> None:
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        began = trio.current_time()
        assert await stream.receive_some(1) == b""
        assert FIRST_BYTE_WITHIN_S - 1 < trio.current_time() - began < FIRST_BYTE_WITHIN_S + 1


async def test_who_is_idle_between_two_requests_may_be_so_for_a_while(
    mock_clock: MockClock,
) -> None:
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for pause in (0, IDLE_S - 5, IDLE_S - 5):
            await trio.sleep(pause)
            await stream.send_all(WHOLE)
            assert (await stream.receive_some(1000)).endswith(b"xx")
        began = trio.current_time()
        assert await stream.receive_some(1) == b""
        assert IDLE_S - 1 < trio.current_time() - began < IDLE_S + 1


async def test_who_does_not_read_his_answer_is_cut(mock_clock: MockClock) -> None:
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        size = 64_000_000  # more than the sockets take
        await stream.send_all(WHOLE.replace(b" / ", b" /%d " % size))
        await trio.sleep(SEND_WITHIN_S + 1)
        read = 0
        try:
            while chunk := await stream.receive_some(1_000_000):
                read += len(chunk)
        except trio.BrokenResourceError:
            pass
        assert read < size
