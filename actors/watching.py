"""What happens, for everyone who watches: each revision is read once, whoever is told of it.

A view, not a queue: the newest revisions, the health, and who is to be woken. Each watcher remembers how far it has come.
While nobody watches nothing is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import structlog
import trio

from config_manager.actors.actor import Context
from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.drift_log import DriftEvent
from config_manager.actors.views import CommittedView, HealthReport, Mode
from config_manager.config.errors import Refusal
from config_manager.storage.trace import Change, ChangesQuery

CHANGES_HELD = 1_000
"""In memory; who is further behind reads what is kept."""
_GATHER_S = 0.1
"""What happens within this time is told together. The first of it is told at once."""
_TOGETHER = 8
"""Watchers that are woken before others get their turn."""
_LOOK_EVERY_S = 1.0
"""At the health, which tells nobody that it changed."""
_READ_WITHIN_S = 10.0


class HealthNow(NamedTuple):
    """How we are. See `HealthReport`."""

    ok: bool
    mode: Mode
    reasons: tuple[str, ...]


class Watcher(Protocol):
    def wake(self) -> None:
        """There may be news."""
        ...


class Watching:
    """What watchers look at. newest: the revision up to which `after` knows all. drift_seq: of the newest event that
    `drifts_after` knows."""

    def __init__(
        self,
        view: CommittedView,
        read: Callable[[ChangesQuery, Context], Awaitable[Sequence[Change]]],
        health: Callable[[], HealthReport],
        drift: DriftBoard,
    ) -> None:
        """read: `Reading.changes`."""
        self._view = view
        self.read = read
        self._report = health
        self._board = drift
        self._watchers = dict[Watcher, None]()
        self._begun = trio.Event()
        self._news = trio.Event()
        self._changes: list[Change] = []
        self._after = self.newest = view.committed.revision
        self._drifts: Sequence[DriftEvent] = ()
        self.drift_seq: int = drift.last_seq
        self.text: tuple[tuple[int, int], bytes] = (0, 0), b""
        """what a watcher of everything made of the changes from one revision to another, for the others"""
        self._told = view.committed
        self._looked_at = 0.0
        self.health = HealthNow(True, view.mode, ())

    def join(self, watcher: Watcher) -> None:
        """From now on it is woken."""
        if not self._watchers:
            self._changes = []
            self._after = self.newest = self._view.committed.revision
            self.drift_seq = self._board.last_seq
            self._look_at_health(trio.current_time())
        self._watchers[watcher] = None
        self._begun.set()

    def leave(self, watcher: Watcher) -> None:
        """It may have left before."""
        self._watchers.pop(watcher, None)

    def after(self, revision: int, most: int) -> Sequence[Change] | None:
        """The changes above this revision up to `newest`, at most so many; None if not all of them are in memory."""
        if revision < self._after:
            return None
        start = bisect_right(self._changes, revision, key=lambda change: change.revision)
        return self._changes[start : start + most]

    def drifts_after(self, seq: int) -> Sequence[DriftEvent]:
        """What began and ended since; of the newest 1,024."""
        return self._drifts[bisect_right(self._drifts, seq, key=lambda event: event.seq) :]

    async def follow(self) -> None:
        """Read what happens, and wake the watchers; the work of an actor."""
        while True:
            await self._begun.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._note_news, self._view.changed)
                nursery.start_soon(self._note_news, self._board.changed)
                while self._watchers:
                    self._news = (
                        trio.Event()
                    )  # before the look: what happens during it is looked at next
                    if await self._look():
                        await self._wake()
                    await trio.sleep(_GATHER_S)
                    with trio.move_on_after(_LOOK_EVERY_S):
                        await self._news.wait()
                nursery.cancel_scope.cancel()
            if not self._watchers:
                self._begun = trio.Event()

    async def _note_news(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed()
            self._news.set()

    async def _look(self) -> bool:
        """Whether there may be news for somebody. A token that is gone is news, too."""
        now, committed = trio.current_time(), self._view.committed
        before = self._told, self.health, self.drift_seq
        if now >= self._looked_at + _LOOK_EVERY_S:
            self._look_at_health(now)
        await self._read_changes()
        if self._board.last_seq != self.drift_seq:
            self._drifts = self._board.events_after(0)
            self.drift_seq = self._board.last_seq
        self._told = committed
        return before != (self._told, self.health, self.drift_seq)

    async def _read_changes(self) -> None:
        """Up to what is committed now. What can't be read is tried again at the next look."""
        while (wanted := self._view.committed.revision) > self.newest:
            query = ChangesQuery(after=self.newest, limit=CHANGES_HELD)
            context = Context("watching", trio.current_time() + _READ_WITHIN_S)
            try:
                changes = await self.read(query, context)
            except (Refusal, trio.TooSlowError) as error:
                structlog.get_logger().warning("changes not read", error=str(error))
                return
            self._changes += changes
            is_all = len(changes) < CHANGES_HELD
            read = (one.revision for one in changes[-1:])
            self.newest = max(self.newest, wanted if is_all else 0, *read)
            if (too_many := len(self._changes) - CHANGES_HELD) > 0:
                self._after = max(self._after, self._changes[too_many - 1].revision)
                del self._changes[:too_many]

    def _look_at_health(self, now: float) -> None:
        report = self._report()
        self.health = HealthNow(report.ok, report.mode, report.reasons)
        self._looked_at = now

    async def _wake(self) -> None:
        for index, watcher in enumerate(list(self._watchers), 1):
            watcher.wake()
            if index % _TOGETHER == 0:
                await trio.lowlevel.checkpoint()
