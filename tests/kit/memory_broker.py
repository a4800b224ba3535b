"""The one broker in memory: it retains, and tells each session what that has subscribed to.

`desk` puts a Trio transport before it, `client_drivers` one for each driver. A test that needs an
odd broker overrides what is odd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self


class Event(Protocol):
    def set(self) -> Any: ...
    def is_set(self) -> bool: ...
    async def wait(self) -> Any: ...


class Session:
    """One client's connection. put: takes (topic, payload, whether it was retained), and None once
    the connection broke."""

    def __init__(
        self,
        broker: MemoryBroker,
        will: tuple[str, bytes] | None,
        put: Callable[[tuple[str, bytes, bool] | None], None],
        lost: Event,
    ) -> None:
        self.broker = broker
        self.will = will
        self.put = put
        self.lost = lost
        self.filters: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.broker.sessions.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.leaves()

    def subscribe(self, filters: Sequence[str]) -> None:
        """Gives what is retained, in the order of the filters, as Mosquitto does."""
        self.filters = (*self.filters, *filters)
        for topic, payload in self.broker.retained_under(filters):
            self.put((topic, payload, True))

    def hears(self, topic: str, payload: bytes) -> None:
        if any(_matches(one, topic) for one in self.filters):
            self.put((topic, payload, False))

    def breaks(self) -> None:
        """Without a word: the broker publishes the will."""
        self.leaves()
        if self.will is not None:
            self.broker.takes(*self.will)
        self.lost.set()
        self.put(None)

    def leaves(self) -> None:
        if self in self.broker.sessions:
            self.broker.sessions.remove(self)


class MemoryBroker:
    """`cleared`: topics that were emptied. `away`: it refuses connections. `gives_to_wildcards`: retained
    messages; RabbitMQ gives them by name alone."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.cleared: list[str] = []
        self.sessions: list[Session] = []
        self.client_ids: list[str] = []
        self.away = False
        self.gives_to_wildcards = True

    def takes(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.cleared.append(topic)
            self.retained.pop(topic, None)
        self.tells(topic, payload)

    def tells(self, topic: str, payload: bytes) -> None:
        """Every session that subscribed to this topic."""
        for session in list(self.sessions):
            session.hears(topic, payload)

    def retained_under(self, filters: Sequence[str]) -> list[tuple[str, bytes]]:
        given = [one for one in filters if self.gives_to_wildcards or "+" not in one]
        return [item for one in given for item in self.retained.items() if _matches(one, item[0])]


def _matches(topic_filter: str, topic: str) -> bool:
    """Filters of ours end in one `+` for each level, or have none."""
    levels, given = topic_filter.split("/"), topic.split("/")
    return len(levels) == len(given) and all(
        level in ("+", name) for level, name in zip(levels, given, strict=True)
    )
