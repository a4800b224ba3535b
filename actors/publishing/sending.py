"""What is on its way to a broker on one connection: how much at once, in which order, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from config_manager.actors.mqtt.port import BrokerUnavailable, Connection
from config_manager.actors.publishing.desk import Desk
from config_manager.actors.publishing.refusals import packet_bytes
from config_manager.config.documents.root import Root
from config_manager.storage.state import ServiceState

_WINDOW = 16
"""Publishes without their PUBACK: with more a broker on loopback gets no faster (bench/), and with more
than 20 an MQTT 5 broker may hang up."""
_ACKNOWLEDGED_WITHIN_S = 10.0
_READ_BACK_S = 5.0
TRIES = 5
_EVERY_S = 5.0
"""A suspect has its turn that often, even if there is always something else to send."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Something to send. content: its digest. state, root: of a configuration, and what it was signed under."""

    topic: str
    payload: bytes
    content: str
    state: ServiceState | None = None
    root: Root | None = None


@dataclass(slots=True)
class Awaited:
    """A publish that should be read back by `deadline` (Trio's clock)."""

    content: str
    deadline: float
    tries: int


class Sending:
    """awaited: by topic, what has not been read back. in_flight: topic → since when its PUBACK is awaited."""

    def __init__(
        self,
        desk: Desk,
        connection: Connection,
        *,
        others_wait: Callable[[], bool],
        published: Callable[[ServiceState], None],
    ) -> None:
        """others_wait: whether there are configurations to send. published: told of each that was."""
        self.awaited: dict[str, Awaited] = {}
        self.in_flight: dict[str, float] = {}
        self._desk = desk
        self._connection = connection
        self._others_wait = others_wait
        self._published = published
        self._window = min(_WINDOW, connection.receive_maximum)
        self._suspects: dict[str, Offer] = {}  # sent alone and last
        self._alone = False  # one of them has its turn
        self._last_turn = 0.0
        self._work = trio.Event()

    def has_room(self) -> bool:
        return not self._alone and len(self.in_flight) < self._window

    def wake(self) -> None:
        """Look again: there may be something to send."""
        self._work.set()
        self._work = trio.Event()

    async def news(self) -> None:
        """Until the next `wake`."""
        await self._work.wait()

    def offer(self, offer: Offer) -> None:
        """Send it, add it to the suspects, or leave it aside."""
        size = packet_bytes(offer.topic, offer.payload)
        verdict = self._desk.refusals.judge(offer.topic, offer.content, size)
        if verdict == "free":
            self._hand_over(offer)
        elif verdict == "alone":
            self._suspects[offer.topic] = offer
            self.wake()

    async def send_suspects(self) -> None:
        """What was on its way when a connection broke goes after everything else and alone: so it is known
        what breaks the next one."""
        self._last_turn = trio.current_time()
        while True:
            while self._next_suspect() is None:
                await self.news()
            self._alone = True
            while self.in_flight:
                await self.news()
            if (offer := self._next_suspect()) is not None:
                del self._suspects[offer.topic]
                self._last_turn = trio.current_time()
                self._hand_over(offer)
            while self.in_flight:
                await self.news()
            self._alone = False
            self.wake()
            self._desk.outlet.wake()

    def look_for_acknowledgements(self) -> None:
        """Raises BrokerUnavailable if one is overdue."""
        if not self.in_flight:
            return
        if trio.current_time() - min(self.in_flight.values()) > _ACKNOWLEDGED_WITHIN_S:
            raise BrokerUnavailable(f"no PUBACK within {_ACKNOWLEDGED_WITHIN_S:g} s")

    def overdue(self) -> list[tuple[str, Awaited]]:
        """What was acknowledged and has not been read back in time."""
        now = trio.current_time()
        return [
            (topic, sent)
            for topic, sent in self.awaited.items()
            if now >= sent.deadline and topic not in self.in_flight
        ]

    def _next_suspect(self) -> Offer | None:
        """The one that broke the fewest connections, if suspects have their turn. Drops what is out of date."""
        for offer in [one for one in self._suspects.values() if not self._is_wanted(one)]:
            del self._suspects[offer.topic]
        offers = [one for one in self._suspects.values() if self._may_send(one)]
        if not offers:
            return None
        waits = not self._alone and (self._others_wait() or self._desk.outlet.has_more)
        if waits and trio.current_time() < self._last_turn + _EVERY_S:
            return None
        return min(offers, key=lambda one: self._desk.refusals.breaks(one.topic))

    def _is_wanted(self, offer: Offer) -> bool:
        """Whether it is still wanted. If not, something newer will be offered."""
        desk = self._desk
        if offer.state is None:
            return desk.outlet.retained.get(offer.topic) is offer.payload
        state = desk.view.committed.services.get(offer.state.service)
        return state is offer.state and desk.believed.current is offer.root

    def _may_send(self, offer: Offer) -> bool:
        if offer.state is None:
            return self._desk.outlet.may_send(offer.topic)
        return self._desk.may_publish

    def _hand_over(self, offer: Offer) -> None:
        desk, topic, now = self._desk, offer.topic, trio.current_time()
        tries = self._tries_before(offer)
        if offer.payload:  # not every broker gives an empty message back
            self.awaited[topic] = Awaited(offer.content, now + _READ_BACK_S * 2**tries, tries + 1)
        self.in_flight[topic] = now
        if offer.state is None:
            desk.outlet.handed(topic, offer.payload)
        desk.echoes.sent(topic, offer.payload)
        desk.refusals.handed(topic, offer.content, packet_bytes(topic, offer.payload))
        self._connection.hand_over(topic, offer.payload, partial(self._on_answered, offer))
        if offer.state is not None:
            self._published(offer.state)

    def _tries_before(self, offer: Offer) -> int:
        """How often in a row it was acknowledged and not given back. For a document, everything sent under its topic
        counts: a snapshot changes faster than a missing one is noticed."""
        before = self.awaited.get(offer.topic)
        if before is None or (offer.state is not None and before.content != offer.content):
            return 0
        if offer.state is None and before.tries >= TRIES:
            self._desk.refusals.never_given_back(offer.topic, before.tries)
            return 0
        return before.tries

    def _on_answered(self, offer: Offer, code: int) -> None:
        del self.in_flight[offer.topic]
        if not self._desk.refusals.answered(offer.topic, code):
            self.awaited.pop(offer.topic, None)
        elif offer.state is not None:
            self._desk.done("acknowledged", offer.state)
        if offer.state is None:
            self._desk.outlet.answered(offer.topic)
        elif self._desk.outlet.has_more:
            self._desk.outlet.wake()
        if self._suspects or self._alone or self._others_wait():
            self.wake()
