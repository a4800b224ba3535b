"""Bodies as they arrive: kept only if the caller may send them, and together never more than there is
room for."""

from __future__ import annotations

from collections import Counter
from typing import Self

from config_manager.api.rest.limits import MOST_BYTES_ARRIVING
from config_manager.config.errors import Busy, Refusal, TooLarge


class Room:
    """Memory for all bodies that are arriving, or whose request is being answered.

    One caller gets at most half of it, so a slow sender leaves the other half to others.
    """

    def __init__(self, most: int = MOST_BYTES_ARRIVING) -> None:
        self.most = most
        self.taken = 0
        self._by_caller: Counter[str] = Counter()

    def take(self, caller: str, size: int) -> bool:
        """Whether there was room for so many bytes more."""
        if self.taken + size > self.most or self._by_caller[caller] + size > self.most // 2:
            return False
        self.taken += size
        self._by_caller[caller] += size
        return True

    def give_back(self, caller: str, size: int) -> None:
        self.taken -= size
        self._by_caller[caller] -= size
        if not self._by_caller[caller]:
            del self._by_caller[caller]


class ArrivingBody:
    """One body, kept up to a limit (0: nothing of it), then only counted. Its room is given back at
    the end of the block."""

    def __init__(self, limit: int, caller: str, room: Room) -> None:
        self.data = bytearray()
        self.size = 0
        self.refusal: Refusal | None = None
        """Why it was not kept, if its caller was to send one."""
        self._limit = limit
        self._caller = caller
        self._room = room

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._limit == 0 or self.refusal is not None:
            return
        if self.size > self._limit:
            self.refusal = TooLarge(f"the body is over {self._limit} bytes")
            self._drop()
        elif self._room.take(self._caller, len(chunk)):
            self.data += chunk
        else:
            self.refusal = Busy("too many bodies are arriving; nothing was done, try again")
            self._drop()

    def _drop(self) -> None:
        self._room.give_back(self._caller, len(self.data))
        self.data = bytearray()
