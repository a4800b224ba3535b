"""Answers that go on: who listens, how many at once, and how each of them ends.

A stream is asked for its next piece whenever the last one is sent. So a slow reader costs what its stream remembers, and
no queue.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import trio

from config_manager.api.rest.limits import BEAT_S, MOST_STREAMS, MOST_STREAMS_OF_ONE
from config_manager.config.errors import Busy, TooManyStreams

EVENT_STREAM = b"text/event-stream"


class Streams:
    """Every open stream, by whose it is."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._open: dict[str, set[Stream]] = {}
        self._is_over = False

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def enter(self, stream: Stream) -> None:
        """Raises TooManyStreams, or Busy if we are about to stop."""
        if self._is_over:
            raise Busy("the server is stopping; nothing is streamed any more")
        if len(self) >= self._most:
            raise TooManyStreams(f"{self._most} streams are open, which is the limit here")
        of_one = self._open.get(stream.who, ())
        if len(of_one) >= MOST_STREAMS_OF_ONE:
            raise TooManyStreams(
                f"{len(of_one)} streams of this token are open, which is the limit; end one"
            )
        self._open.setdefault(stream.who, set()).add(stream)

    def leave(self, stream: Stream) -> None:
        of_one = self._open.get(stream.who, set())
        of_one.discard(stream)
        if not of_one:
            self._open.pop(stream.who, None)

    def end_all(self) -> None:
        """We are about to stop: every stream ends while there is time to say so, and no other begins."""
        self._is_over = True
        for of_one in list(self._open.values()):
            for stream in list(of_one):
                stream.end()


class Stream(ABC):
    """One answer that goes on. It counts from here to its `end`, whoever calls that first: who sends it, because the
    caller has left; the stream itself; or the server, which stops.

    who: its token, or whatever else has a share of its own. on_end: called once.
    """

    def __init__(self, streams: Streams, who: str) -> None:
        """Raises TooManyStreams, Busy."""
        self.who = who
        self.on_end: Callable[[], None] = lambda: None
        self._streams = streams
        self._is_over = False
        self._woken = trio.Event()
        self._beat_at = trio.current_time() + BEAT_S
        streams.enter(self)

    @abstractmethod
    async def news(self) -> bytes:
        """What there is to say now; empty if there is nothing. May call `end`."""

    def beat(self) -> bytes:
        """What is said if there was nothing to say for long: a comment."""
        return b":\n\n"

    @property
    def until(self) -> float:
        """When to look for news again even if nobody wakes it, on Trio's clock."""
        return math.inf

    def wake(self) -> None:
        """There may be news."""
        self._woken.set()

    def end(self) -> None:
        """May be called at any time, and twice."""
        if not self._is_over:
            self._is_over = True
            self._streams.leave(self)
            self.wake()
            self.on_end()

    async def next_piece(self) -> bytes | None:
        """Waits for it; None once it is over."""
        while not self._is_over:
            self._woken = trio.Event()  # before the look: what happens during it wakes us again
            piece = await self.news()
            if not piece and not self._is_over:
                await self._wait()
                if self._is_over or trio.current_time() < self._beat_at:
                    continue
                piece = self.beat()
            if piece:
                self._beat_at = trio.current_time() + BEAT_S
                return piece
        return None

    async def _wait(self) -> None:
        with trio.CancelScope(deadline=min(self._beat_at, self.until)):
            await self._woken.wait()
