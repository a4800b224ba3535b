"""What a client has received and not judged yet, bounded, under asyncio and Trio: the newest wins.

aiomqtt reads its socket however many messages wait. So a broker, or a client that publishes to it, could
fill this process's memory while a disk or a loop is slow. Of one topic only the newest messages matter: a
configuration replaces the one before, and a beacon rises. A few of them are kept, so that one message of
junk does not push out the genuine one before it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, Protocol

from config_manager.actors.mqtt.packet_limit import weight

PER_TOPIC = 64
MOST_BYTES = 16 * 1024 * 1024
"""Four snapshots of the largest size that is read, or 64 of the largest configurations."""


class _Topic(Protocol):
    value: str


class _Message(Protocol):
    """What we look at of aiomqtt's."""

    topic: _Topic
    payload: Any


class Inbox(asyncio.Queue[Any]):
    """aiomqtt's queue; what no longer fits is forgotten, the oldest first.

    Each step takes the same time however much waits: forgetting a flood must not take longer than sending it.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio's own signature
        self._queue: OrderedDict[int, _Message] = OrderedDict()  # by the order in which they came
        self._of_topic: dict[str, deque[int]] = {}
        self._came = 0
        self._bytes = 0

    def _put(self, item: _Message) -> None:
        self._came += 1
        self._queue[self._came] = item
        of_topic = self._of_topic.setdefault(item.topic.value, deque())
        of_topic.append(self._came)
        self._bytes += weight(item)
        if len(of_topic) > PER_TOPIC:
            self._take(of_topic[0])
        while self._bytes > MOST_BYTES and len(self._queue) > 1:
            self._take(next(iter(self._queue)))

    def _get(self) -> _Message:
        return self._take(next(iter(self._queue)))

    def _take(self, number: int) -> _Message:
        """The oldest of its topic."""
        message = self._queue.pop(number)
        of_topic = self._of_topic[message.topic.value]
        of_topic.popleft()
        if not of_topic:
            del self._of_topic[message.topic.value]
        self._bytes -= weight(message)
        return message
