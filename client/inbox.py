"""What a client has received and not judged yet, bounded, under asyncio and Trio: the newest wins.

aiomqtt reads its socket whether anybody is done with the message before or not, so a broker, or
whoever writes to it, could fill this process's memory while a disk or a loop is slow. Of one topic
only the newest matter, for a configuration replaces the one before and a beacon rises; a few of them
are kept, so that one message of junk does not push out the genuine one before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any, Protocol

PER_TOPIC = 64
MOST_BYTES = 16 * 1024 * 1024
"""Four snapshots of the largest size that is read, or 64 of the largest configurations."""

_OVERHEAD_BYTES = 1024
"""Of a message in memory, generously: many empty ones must not cost nothing."""


class _Topic(Protocol):
    value: str


class _Message(Protocol):
    """What we look at of aiomqtt's."""

    topic: _Topic
    payload: Any


class Inbox(asyncio.Queue[Any]):
    """aiomqtt's queue; what no longer fits is forgotten, the oldest first."""

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio's own signature
        self._queue: deque[_Message] = deque()
        self._of_topic: Counter[str] = Counter()
        self._bytes = 0

    def _put(self, item: _Message) -> None:
        self._queue.append(item)
        self._count(item, 1)
        topic = item.topic.value
        if self._of_topic[topic] > PER_TOPIC:
            self._forget(next(one for one in self._queue if one.topic.value == topic))
        while self._bytes > MOST_BYTES and len(self._queue) > 1:
            self._forget(self._queue[0])

    def _get(self) -> _Message:
        oldest = self._queue.popleft()
        self._count(oldest, -1)
        return oldest

    def _forget(self, message: _Message) -> None:
        self._queue.remove(message)
        self._count(message, -1)

    def _count(self, message: _Message, sign: int) -> None:
        topic, payload = message.topic.value, message.payload
        self._of_topic[topic] += sign
        if not self._of_topic[topic]:
            del self._of_topic[topic]
        size = len(payload) if isinstance(payload, bytes) else 0
        self._bytes += sign * (size + len(topic) + _OVERHEAD_BYTES)
