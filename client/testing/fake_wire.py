"""The wire of the testing kit: between a fake publisher and the client, in place of a broker.

One `OpenInstance` for each configuration that is open, one line for each connection that it makes. A line
may be pushed to from any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from config_manager.actors.mqtt.port import BrokerUnavailable
from config_manager.client.drivers.loops import Wakeup, call_soon_here, checkpoint, event_class
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt

_SEALED_TOPICS = wire.SEALED_FILTER.partition("+")[0]


class WireMessage(NamedTuple):
    """A message as both drivers' connections give it."""

    topic: str
    payload: bytes


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
                line.push(None)

    @contextmanager
    def attached(self, line: Line) -> Generator[Line]:
        """A connection, while it lasts. Raises BrokerUnavailable while the wire is cut."""
        if not self.is_reachable:
            raise BrokerUnavailable("the fake publisher is disconnected")
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
        line.filters = (*line.filters, *filters)
        with self._lock:
            self._send_retained(line, _SEALED_TOPICS)

    def _send_retained(self, line: Line, beginning: str) -> None:
        for topic, payload in self._retained.items():
            if topic.startswith(beginning) and line.takes(topic):
                line.push(WireMessage(topic, payload))


@dataclass(eq=False)
class OpenInstance:
    """One open configuration. Not its name: two that share a state directory have the same.

    thread: the one whose event loop it runs in; None if that is its own. attempt: as in the newest
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
    async def connect(self, *_: object, **__: object) -> AsyncGenerator[Any]:
        """In the place of a broker's connection, for either driver. Raises BrokerUnavailable."""
        with self.wire.attached(Line(self)) as line:
            yield line


class Line:
    """One instance's connection to the publisher, as either driver takes it. push may be called from any
    thread."""

    def __init__(self, opened: OpenInstance) -> None:
        self.filters: tuple[str, ...] = ()
        self._opened = opened
        self._call_soon = call_soon_here()
        self._unread: deque[WireMessage | None] = deque()
        self._news = Wakeup(event_class())

    def takes(self, topic: str) -> bool:
        """Whatever comes, as from a hostile broker, but for what is sealed to another."""
        return not topic.startswith(_SEALED_TOPICS) or topic in self.filters

    def push(self, message: WireMessage | None) -> None:
        """None: the connection is cut."""
        self._call_soon(partial(self._take, message))

    def _take(self, message: WireMessage | None) -> None:
        self._unread.append(message)
        self._news.wake()

    async def subscribe(self, *filters: str, **_: object) -> None:
        self._opened.wire.subscribed(self, filters)
        await checkpoint()

    async def publish(self, topic: str, payload: bytes, **_: object) -> None:
        await checkpoint()
        if topic.startswith(wire.STATUS_PREFIX):  # not its schema, which is for a server
            self._opened.wire.take_receipt(self._opened, payload)

    async def messages(self) -> AsyncIterator[WireMessage]:
        while True:
            while not self._unread:
                await self._news.wait()
            if (message := self._unread.popleft()) is None:
                raise BrokerUnavailable("the fake publisher disconnected")
            yield message
