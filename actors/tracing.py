"""When each step of a change was done: noted while it happens, and kept with what a broker confirms.

Noted on the hot path, so it only keeps numbers: nothing is logged for it, nobody waits for it, and nothing is
committed for it. `Store.mark_confirmed` commits anyway, and takes the times along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from config_manager.actors.actor import Context
from config_manager.config.world import parse_rfc3339
from config_manager.storage.state import Commit, ServiceState
from config_manager.storage.trace import BROKER_STEPS, BrokerStep, BrokerTimes, ChangeTimes

_MOST = 4096
"""Of pairs of a service and a broker, over all changes; 300 bytes each."""
_STEP = {step: number for number, step in enumerate(BROKER_STEPS)}

_Steps = list[float | None]


class Tracing:
    """The times of the newest changes. Those that this process did not commit, and did not find unconfirmed at its
    start, are not noted: a broker confirms everything again when it is read."""

    def __init__(self, now: Callable[[], float] = time.time, *, most: int = _MOST) -> None:
        """now: Unix seconds. most: see `_MOST`."""
        self._now = now
        self._most = most
        self._changes: dict[int, ChangeTimes] = {}
        self._steps: dict[int, dict[tuple[str, str], _Steps]] = {}
        self._pairs = 0
        self._unkept: dict[int, None] = {}

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def expect(self, states: Iterable[ServiceState]) -> None:
        """States that no broker was seen to hold when this process began. When they were committed is not known; it
        was right after they were decided."""
        for state in sorted(states, key=lambda one: one.revision):
            times = ChangeTimes(state.revision, None, parse_rfc3339(state.updated_at))
            self._add(times)

    def committed(self, change: Commit, context: Context, writes: int) -> None:
        """It is on the disk, with so many writes."""
        if change.history:
            revision = change.history[0].entry.revision
            self._add(
                ChangeTimes(revision, context.asked, self._now(), writes, context.traceparent)
            )

    def done(self, step: BrokerStep, state: ServiceState, broker: str) -> None:
        """The broker, or we for it, did this step. The first time counts."""
        steps = self._steps.get(state.revision)
        if steps is None:
            return
        times = steps.get((state.service, broker))
        if times is None:
            times = steps[state.service, broker] = [None] * len(BROKER_STEPS)
            self._pairs += 1
            self._forget_the_oldest()
        number = _STEP[step]
        if times[number] is None:
            times[number] = self._now()
            self._unkept[state.revision] = None

    def _add(self, times: ChangeTimes) -> None:
        self._changes[times.revision] = times
        self._steps[times.revision] = {}
        self._unkept[times.revision] = None
        self._pairs += 1
        self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        while self._pairs > self._most and len(self._changes) > 1:
            oldest = next(iter(self._changes))
            del self._changes[oldest]
            self._pairs -= 1 + len(self._steps.pop(oldest))
            self._unkept.pop(oldest, None)

    # ── what can be asked ──────────────────────────────────────────────────────────────────────

    def of(self, revision: int) -> ChangeTimes | None:
        """What is known of this change, if it is one of the newest."""
        times = self._changes.get(revision)
        if times is None:
            return None
        steps = self._steps[revision]
        return times._replace(brokers=tuple(BrokerTimes(*pair, *steps[pair]) for pair in steps))

    # ── what is to be kept ─────────────────────────────────────────────────────────────────────

    def take_unkept(self) -> Sequence[ChangeTimes]:
        """What was noted since the last call."""
        unkept, self._unkept = self._unkept, {}
        return [times for revision in unkept if (times := self.of(revision)) is not None]

    def not_kept(self, times: Sequence[ChangeTimes]) -> None:
        """The disk did not take these: they are taken again."""
        self._unkept |= {one.revision: None for one in times if one.revision in self._changes}
