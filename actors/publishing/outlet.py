"""What one broker should have beside configurations: the latest of each retained document, and messages that pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

import trio

from config_manager.actors.mqtt.port import Message
from config_manager.actors.publishing.company import Company
from config_manager.actors.views import CommittedView
from config_manager.config import wire

_READ_LATE = 16
"""Documents of one topic that may still be on their way back when a newer one is wanted."""

_MOST_PASSING = 256
"""Messages that pass, and wait because the broker takes them slowly."""


class Outlet:
    """The documents for one broker: other actors write them here, and its publisher reads them."""

    def __init__(
        self,
        view: CommittedView,
        also_reads: Mapping[str, Callable[[Outlet, bytes], None] | None] = MappingProxyType({}),
    ) -> None:
        """view: says whether anything but health may be sent now; call `wake` when that changes. also_reads: further
        topics that a session subscribes to. Each has the function that is given a message; None: a document of ours is
        there."""
        self._view = view
        self.also_reads = also_reads
        self.retained: dict[str, bytes] = {}
        self.connected = False
        self.company = Company()
        self._dirty: dict[str, None] = {}
        self._on_the_way: dict[str, bytes] = {}
        self._held: set[str] = set()
        self._passing: dict[object, tuple[str, bytes]] = {}
        self._earlier: dict[str, deque[str]] = {}
        self._changed = trio.Event()

    def set_retained(self, topic: str, payload: bytes) -> None:
        """From now on the broker should hold this under the topic."""
        if (before := self.retained.get(topic)) is not None:
            self._earlier.setdefault(topic, deque(maxlen=_READ_LATE)).append(wire.digest(before))
        self.retained[topic] = payload
        self._held.discard(topic)
        self.mark(topic)

    def was_wanted(self, topic: str, payload: bytes) -> bool:
        """Whether this payload was wanted until just now, so that it may be read back late."""
        return wire.digest(payload) in self._earlier.get(topic, ())

    def withdraw(self, topic: str) -> None:
        """From now on what the broker holds under the topic is left alone."""
        self.retained.pop(topic, None)
        self._dirty.pop(topic, None)
        self.wake()

    def send(self, topic: str, payload: bytes, *, each: bool = False) -> None:
        """QoS 0, not retained, dropped while there is no connection. each: of this topic every message, not only the
        newest; the oldest give way to many."""
        if topic == wire.KEEPALIVE_TOPIC:
            self.company.sends(payload)
        if self.connected:
            self._passing[object() if each else topic] = (topic, payload)
            if len(self._passing) > _MOST_PASSING:
                del self._passing[next(iter(self._passing))]
            self.wake()

    def heard(self, message: Message) -> bool:
        """Take a message from the broker, unless it is a document."""
        if message.topic == wire.KEEPALIVE_TOPIC:
            self.company.keepalive(message.payload)
            return True
        tell = self.also_reads.get(message.topic)
        if tell is None:
            return False
        tell(self, message.payload)
        return True

    def mark(self, *topics: str) -> None:
        """Send these documents again, as far as there are such: the broker does not hold them as it should."""
        self._dirty.update(dict.fromkeys(topic for topic in topics if topic in self.retained))
        self.wake()

    def begin(self) -> None:
        """A connection begins. The broker may have lost everything, so everything is sent again."""
        self._on_the_way.clear()
        self.mark(*self.retained)

    def end(self) -> None:
        """The connection is over."""
        self._on_the_way.clear()
        self.connected = False
        self.wake()

    async def take(self, has_room: Callable[[], bool]) -> tuple[str, bytes, bool]:
        """The next to send: (topic, payload, retained). has_room: whether a retained one may be sent now."""
        while True:
            await trio.lowlevel.checkpoint()
            topic = self._next_retained() if has_room() else None
            if topic is not None:
                del self._dirty[topic]
                return topic, self.retained[topic], True
            if self._passing:
                topic, payload = self._passing.pop(next(iter(self._passing)))
                if self.leaves_health:
                    continue
                return topic, payload, False
            await self._changed.wait()

    @property
    def has_more(self) -> bool:
        """Whether there are documents to send."""
        return self._next_retained() is not None

    @property
    def leaves_health(self) -> bool:
        """Whether we leave the health to another config-manager, also while it is too early to tell."""
        return not self._view.publishable and self.company.may_be_there

    def may_send(self, topic: str) -> bool:
        """Whether a document of this topic may be sent now."""
        if self._view.publishable:
            return True
        return topic == wire.HEALTH_TOPIC and not self.leaves_health

    def handed(self, topic: str, payload: bytes) -> None:
        """Note that it was sent."""
        self._on_the_way[topic] = payload

    def answered(self, topic: str) -> None:
        """Note that the broker acknowledged or refused it."""
        self._on_the_way.pop(topic, None)
        self.wake()

    def note_held(self, topic: str) -> None:
        """Note that it was read back as it should be."""
        self._held.add(topic)
        self.wake()

    async def until_connected(self) -> None:
        while not self.connected:
            await self._changed.wait()

    async def until_held(self, topic: str) -> None:
        """Until the broker gave the document back, or there is no connection."""
        while topic not in self._held and self.connected:
            await self._changed.wait()

    async def flush(self) -> None:
        """Until every document that may be sent was acknowledged, or there is no connection. A document that
        the broker does not take is not waited for."""
        while self.connected and (self.has_more or self._on_the_way):
            await self._changed.wait()

    def wake(self) -> None:
        """What may be sent has changed."""
        self._changed.set()
        self._changed = trio.Event()

    def _next_retained(self) -> str | None:
        """The topic of the next document to send. Of one topic only one is on its way at a time."""
        topics = self._dirty if self._view.publishable else (wire.HEALTH_TOPIC,)
        return next(
            (
                topic
                for topic in topics
                if topic in self._dirty and topic not in self._on_the_way and self.may_send(topic)
            ),
            None,
        )
