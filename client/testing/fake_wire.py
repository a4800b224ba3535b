"""The wire of the testing kit: between a fake publisher and the client, in place of a broker.

One `Opened` for each configuration that is open, one line for each connection that it makes. A line
may be pushed to from any thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt

if TYPE_CHECKING:
    from config_manager.client.testing import FakePublisher

SEALED_TOPICS = wire.SEALED_FILTER.partition("+")[0]


class Sent(NamedTuple):
    """A message as both drivers' connections give it."""

    topic: str
    payload: bytes
    retained: bool = True


@dataclass(eq=False)
class Opened:
    """One open configuration. Not its name: two that share a state directory have the same.

    thread: the one whose event loop it runs in; None where that is its own. attempt: as in the newest
    receipt.
    """

    publisher: FakePublisher
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
    async def connect(self, *_: object) -> AsyncIterator[AsyncioLine]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        line = AsyncioLine(self)
        try:
            self.publisher.attach(line)
        except ConnectionError as error:
            raise BrokerUnavailable(str(error)) from None
        try:
            yield line
        finally:
            self.publisher.detach(line)


class Line:
    """One instance's connection to the publisher. push may be called from any thread."""

    def __init__(self) -> None:
        self._filters: tuple[str, ...] = ()

    def subscribed(self, filters: tuple[str, ...]) -> None:
        self._filters = filters

    def takes(self, topic: str) -> bool:
        """Whatever comes, as from a hostile broker, but for what is sealed to another."""
        return not topic.startswith(SEALED_TOPICS) or topic in self._filters

    def push(self, message: Sent) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        raise NotImplementedError


class AsyncioLine(Line):
    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Sent | None] = asyncio.Queue()

    def push(self, message: Sent | None) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, message)

    def cut(self) -> None:
        self.push(None)

    async def subscribe(self, *filters: str) -> None:
        self.subscribed(filters)
        self._opened.publisher.send_sealed(self)
        await asyncio.sleep(0)

    async def publish(self, topic: str, payload: bytes) -> None:  # noqa: ARG002
        await asyncio.sleep(0)
        self._opened.publisher.take_receipt(self._opened, payload)

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        while (message := await self._inbox.get()) is not None:
            yield message.topic, message.payload
        raise BrokerUnavailable("the fake publisher disconnected")


class TrioTransport:
    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @asynccontextmanager
    async def connect(self, *_: object, **__: object) -> AsyncIterator[Any]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        line = TrioLine(self._opened)
        try:
            self._opened.publisher.attach(line)
        except ConnectionError as error:
            raise BrokerUnavailable(str(error)) from None
        try:
            yield line
        finally:
            self._opened.publisher.detach(line)


class TrioLine(Line):
    def __init__(self, opened: Opened) -> None:
        import trio

        super().__init__()
        self._opened = opened
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._inbox, self._messages = trio.open_memory_channel[Sent](math.inf)

    def push(self, message: Sent) -> None:
        self._do(partial(self._send, message))

    def cut(self) -> None:
        self._do(self._inbox.close)

    def _send(self, message: Sent) -> None:
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

    async def subscribe(self, *filters: str, qos: int = 1) -> None:  # noqa: ARG002
        import trio

        self.subscribed(filters)
        self._opened.publisher.send_sealed(self)
        await trio.lowlevel.checkpoint()

    async def publish(
        self,
        topic: str,  # noqa: ARG002
        payload: bytes,
        *,
        qos: int = 1,  # noqa: ARG002
        retain: bool = False,  # noqa: ARG002
    ) -> None:
        import trio

        await trio.lowlevel.checkpoint()
        self._opened.publisher.take_receipt(self._opened, payload)

    async def messages(self) -> AsyncIterator[Sent]:
        from config_manager.actors.mqtt.port import BrokerUnavailable

        async for message in self._messages:
            yield message
        raise BrokerUnavailable("the fake publisher disconnected")
