"""The wire of the testing kit: between a fake publisher and the client, in place of a broker.

One `OpenInstance` for each configuration that is open, one line for each connection that it makes. A line
may be pushed to from any thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from config_manager.config import wire
from config_manager.config.documents import Attempt

_SEALED_TOPICS = wire.SEALED_FILTER.partition("+")[0]


class WireMessage(NamedTuple):
    """A message as both drivers' connections give it."""

    topic: str
    payload: bytes
    retained: bool = True


class Wire:
    """What is retained, and every connection to it. Messages arrive at once and in order, until `cut`.

    take_receipt: called with what an instance publishes.
    """

    def __init__(self, take_receipt: Callable[[OpenInstance, bytes], None]) -> None:
        self.take_receipt = take_receipt
        self.is_reachable = True
        self._retained: dict[str, bytes] = {}
        self._lines: list[Line] = []
        self._lock = threading.RLock()

    def retain(self, topic: str, payload: bytes) -> None:
        with self._lock:
            self._retained[topic] = payload
            self.push(WireMessage(topic, payload))

    def push(self, message: WireMessage) -> None:
        with self._lock:
            for line in self._lines:
                if line.takes(message.topic):
                    line.push(message)

    def cut(self) -> None:
        self.is_reachable = False
        with self._lock:
            for line in self._lines:
                line.cut()

    @contextmanager
    def attached(self, line: L, error: type[Exception]) -> Generator[L]:
        """A connection, while it lasts. Raises this error while the wire is cut."""
        if not self.is_reachable:
            raise error("the fake publisher is disconnected")
        with self._lock:
            self._lines.append(line)
            self._send_retained(line, "")
        try:
            yield line
        finally:
            with self._lock:
                self._lines.remove(line)

    def subscribed(self, line: Line, filters: tuple[str, ...]) -> None:
        """From now on it is known whose secrets the line may be given."""
        line.filters = filters
        with self._lock:
            self._send_retained(line, _SEALED_TOPICS)

    def _send_retained(self, line: Line, beginning: str) -> None:
        for topic, payload in self._retained.items():
            if topic.startswith(beginning) and line.takes(topic):
                line.push(WireMessage(topic, payload))


@dataclass(eq=False)
class OpenInstance:
    """One open configuration. Not its name: two that share a state directory have the same.

    thread: the one whose event loop it runs in; None where that is its own. attempt: as in the newest
    receipt.
    """

    wire: Wire
    instance: str
    thread: int | None
    attempt: Attempt | None = None

    def how_far(self, revision: int) -> str:
        """It came with a revision, in words."""
        if self.attempt is None:
            return "nothing heard"
        if self.attempt.revision == revision:
            return self.attempt.stage
        return f"revision {self.attempt.revision}: {self.attempt.stage}"

    @asynccontextmanager
    async def connect(self, *_: object) -> AsyncGenerator[AsyncioLine]:
        """In the place of the asyncio driver's `connect`."""
        from config_manager.actors.mqtt.port import BrokerUnavailable

        with self.wire.attached(AsyncioLine(self), BrokerUnavailable) as line:
            yield line


class TrioTransport:
    """In the place of the Trio driver's `transport`."""

    def __init__(self, opened: OpenInstance) -> None:
        self._opened = opened

    @asynccontextmanager
    async def connect(self, *_: object, **__: object) -> AsyncGenerator[Any]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        with self._opened.wire.attached(TrioLine(self._opened), BrokerUnavailable) as line:
            yield line


class Line:
    """One instance's connection to the publisher. push may be called from any thread."""

    def __init__(self, opened: OpenInstance) -> None:
        self.filters: tuple[str, ...] = ()
        self._opened = opened
        self._wire = opened.wire

    def takes(self, topic: str) -> bool:
        """Whatever comes, as from a hostile broker, but for what is sealed to another."""
        return not topic.startswith(_SEALED_TOPICS) or topic in self.filters

    def push(self, message: WireMessage) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        raise NotImplementedError


L = TypeVar("L", bound=Line)


class AsyncioLine(Line):
    def __init__(self, opened: OpenInstance) -> None:
        super().__init__(opened)
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[WireMessage | None] = asyncio.Queue()

    def push(self, message: WireMessage | None) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, message)

    def cut(self) -> None:
        self.push(None)

    async def subscribe(self, *filters: str) -> None:
        self._wire.subscribed(self, filters)
        await asyncio.sleep(0)

    async def publish(self, topic: str, payload: bytes) -> None:  # noqa: ARG002
        await asyncio.sleep(0)
        self._wire.take_receipt(self._opened, payload)

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        while (message := await self._inbox.get()) is not None:
            yield message.topic, message.payload
        raise BrokerUnavailable("the fake publisher disconnected")


class TrioLine(Line):
    def __init__(self, opened: OpenInstance) -> None:
        import trio

        super().__init__(opened)
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._inbox, self._messages = trio.open_memory_channel[WireMessage](math.inf)

    def push(self, message: WireMessage) -> None:
        self._do(partial(self._send, message))

    def cut(self) -> None:
        self._do(self._inbox.close)

    def _send(self, message: WireMessage) -> None:
        import trio

        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):  # it was cut
            self._inbox.send_nowait(message)

    def _do(self, step: Callable[[], None]) -> None:
        import trio

        if threading.get_ident() == self._thread:
            step()
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(step)

    async def subscribe(self, *filters: str, **_: object) -> None:
        import trio

        self._wire.subscribed(self, filters)
        await trio.lowlevel.checkpoint()

    async def publish(self, topic: str, payload: bytes, **_: object) -> None:  # noqa: ARG002
        import trio

        await trio.lowlevel.checkpoint()
        self._wire.take_receipt(self._opened, payload)

    async def messages(self) -> AsyncIterator[WireMessage]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        async for message in self._messages:
            yield message
        raise BrokerUnavailable("the fake publisher disconnected")
