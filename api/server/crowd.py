"""All open connections by address, and which of them is closed when another one needs room. No I/O.

A connection counts until its descriptor is closed. A client with many connections loses its own first, whether
it says nothing on them, sends slowly, or does not read what it asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

FRESH_S = 1.0
"""A wait no longer than this goes last: a request that is on its way gets through."""
_AT_ONCE = 100
"""One in so many makes room at once, so that a flood does not look at every connection each time."""


class Wait(NamedTuple):
    """What a connection waits for its peer to do. since: on the clock of `Crowd.in_the_way`."""

    what: Literal["ask", "arrive", "read"]
    since: float


_ORDER = {"ask": 0, "arrive": 1, "read": 2}


class Waiting(Protocol):
    """wait: None while the server is at work."""

    @property
    def address(self) -> str: ...
    @property
    def wait(self) -> Wait | None: ...


M = TypeVar("M", bound=Waiting)


class Crowd(Generic[M]):
    def __init__(self, most: int) -> None:
        self.most = most
        self._size = 0
        self._by_address: dict[str, set[M]] = {}

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[M]:
        for members in self._by_address.values():
            yield from members

    @property
    def is_full(self) -> bool:
        return self._size >= self.most

    def add(self, member: M) -> None:
        members = self._by_address.setdefault(member.address, set())
        self._size += member not in members
        members.add(member)

    def discard(self, member: M) -> None:
        members = self._by_address.get(member.address, set())
        if member in members:
            members.remove(member)
            self._size -= 1
            if not members:
                del self._by_address[member.address]

    def in_the_way(self, now: float, *, only: str | None = None) -> list[M]:
        """The connections to close: of the address with the most, the one that has waited longest, and a
        few more of its kind. An idle one goes before one whose request is arriving, and that before one
        that does not read; fresh ones go last. Empty if all of them are being answered.

        only: consider only those that wait for this.
        """
        for members in sorted(self._by_address.values(), key=len, reverse=True):
            waiting = [
                (now - wait.since < FRESH_S, _ORDER[wait.what], wait.since, id(member), member)
                for member in members
                if (wait := member.wait) is not None and only in (None, wait.what)
            ]
            if not waiting:
                continue
            waiting.sort()
            stale = [member for fresh, *_, member in waiting if not fresh]
            return stale[: max(1, self.most // _AT_ONCE)] or [
                min(waiting, key=lambda one: one[2])[-1]
            ]
        return []
