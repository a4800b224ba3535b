"""Somebody who receives webhooks: a real socket, and any manners."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio


@dataclass(frozen=True)
class Received:
    """One POST. headers: names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


Manners = Callable[[trio.abc.Stream, Received], Awaitable[None]]
"""What is answered to a POST; the connection is closed afterwards."""


def says(status: int, *headers: str, body: bytes = b"") -> Manners:
    async def answer(stream: trio.abc.Stream, _received: Received) -> None:
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
        await stream.send_all("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    return answer


def says_raw(data: bytes) -> Manners:
    async def answer(stream: trio.abc.Stream, _received: Received) -> None:
        await stream.send_all(data)

    return answer


async def hangs(_stream: trio.abc.Stream, _received: Received) -> None:
    await trio.sleep_forever()


async def hangs_up(_stream: trio.abc.Stream, _received: Received) -> None:
    pass


@dataclass
class Receiver:
    """received: in order. manners: of the next answers, may be changed at any time."""

    port: int
    manners: Manners
    received: list[Received] = field(default_factory=list[Received])
    at_once: int = 0
    most_at_once: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    async def until(self, count: int) -> list[Received]:
        while len(self.received) < count:
            await self._news.wait()
        return self.received

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            async with stream:
                if (received := await read_post(stream)) is not None:
                    self.received.append(received)
                    self._news.set()
                    self._news = trio.Event()
                    await self.manners(stream, received)
        except trio.BrokenResourceError:
            pass  # who asked has hung up
        finally:
            self.at_once -= 1


async def read_post(stream: trio.abc.Stream) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := await stream.receive_some()):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(headers["content-length"]):
        if not (more := await stream.receive_some()):
            return None
        body += more
    return Received(first.split(" ")[1], headers, bytes(body))


@asynccontextmanager
async def receiving(
    manners: Manners | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Receiver]:
    """A receiver on a port of its own of 127.0.0.1."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    receiver = Receiver(listener.socket.getsockname()[1], manners or says(204))
    secured = listener if tls is None else trio.SSLListener(listener, tls, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, receiver.serve, [secured]))
        yield receiver
        nursery.cancel_scope.cancel()
