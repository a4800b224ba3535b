"""Who is in which state since when, and which drift is open. In memory, and right whenever it is asked.

An instance is judged anew (`storage.decisions.drift`) where something of it changed: a receipt, its enrolment, what its
service should run, or a broker that holds that. And when time makes a difference: `pending` becomes `late`, and a state
that lasts becomes drift. A change of one service looks at its instances alone, and time only at those that wait.

Waiting is measured on Trio's clock, so a wall clock that jumps makes nobody late. What is shown is wall time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import trio

from config_manager.actors.drift_log import DriftEvent, DriftLog
from config_manager.actors.receipt_reading import InstanceStatus
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.views import BrokerView, CommittedView, Confirmations
from config_manager.config.names import Mark
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import WallClock, parse_rfc3339
from config_manager.storage.decisions.devices import DEVICE, enrolled
from config_manager.storage.decisions.drift import (
    DRIFTS,
    LASTING_S,
    LATE_S,
    Judgement,
    Target,
    judge,
    never_heard,
)
from config_manager.storage.decisions.forgotten import FORGOTTEN, newly_forgotten
from config_manager.storage.drifts import Drift, Key, State
from config_manager.storage.state import Committed, ServiceState

_DIGESTS_KEPT = 64
"""Of what a service was before, in memory."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An instance and its state. since: when it came into it (Unix seconds), as far as we know. status: None if it
    enrolled and was never heard."""

    service: str
    instance: str
    state: State
    why: str
    since: float
    status: InstanceStatus | None


@dataclass(slots=True)
class _Wanted:
    """What a service's instances should run. since: on Trio's clock, from when on they are waited for."""

    state: ServiceState | None
    since: float
    is_confirmed: bool
    is_from_before: bool
    digests: dict[Mark, str] = field(default_factory=dict[Mark, str])

    def target(self, now: float) -> Target:
        return Target(self.state, now - self.since, self.is_confirmed, self.digests)


@dataclass(slots=True)
class _Case:
    """drifts_since: on Trio's clock. deadline: when time makes a difference; timer: of its earliest entry in the heap."""

    judged: Judged
    drifts_since: float | None = None
    drift: Drift | None = None
    deadline: float | None = None
    timer: float | None = None


class _Timer(NamedTuple):
    at: float
    key: Key


class DriftBoard:
    """Every instance that was heard or enrolled, judged."""

    def __init__(
        self,
        view: CommittedView,
        statuses: StatusBoard,
        confirmations: Confirmations,
        clock: WallClock,
        monotonic: Callable[[], float] = trio.current_time,
    ) -> None:
        self._view = view
        self._statuses = statuses
        self._confirmations = confirmations
        self._clock = clock
        self._monotonic = monotonic
        self._committed: Committed | None = None
        self._wanted: dict[str, _Wanted] = {}
        self._cases: dict[Key, _Case] = {}
        self._order: list[Key] = []
        self._counts = Counter[State]()
        self._log = DriftLog(clock)
        self.told = self._log.told
        """how often, since the start"""
        self._restored: dict[Key, Drift] = {}
        self.on_forgotten: list[Callable[[Key], None]] = []
        self._dirty: dict[Key, None] = {}
        self._timers: list[_Timer] = []
        self._is_changed = False
        self._changed = trio.Event()
        self._news = trio.Event()
        statuses.on_change.append(self._heard)
        confirmations.on_confirmed.append(self._confirmed)

    # ── what is asked ──────────────────────────────────────────────────────────────────────────

    def judged(self, service: str | None = None) -> list[Judged]:
        """All of them, or one service's, by service and instance."""
        return list(self.after(None, service))

    def after(self, place: Key | None, service: str | None = None) -> Iterator[Judged]:
        """The same, from behind this (service, instance) on. The board must not change meanwhile."""
        self.catch_up()
        start = 0 if service is None else bisect_left(self._order, (service, ""))
        if place is not None:
            start = max(start, bisect_right(self._order, place))
        for index in range(start, len(self._order)):
            key = self._order[index]
            if service not in (None, key[0]):
                return
            yield self._cases[key].judged

    def one(self, service: str, instance: str) -> Judged | None:
        """Looks at this instance alone."""
        key, now = (service, instance), self._monotonic()
        self._look_at_committed(now)
        self._look_at_timers(now)
        if key in self._dirty:
            del self._dirty[key]
            self._rejudge(key, now)
        case = self._cases.get(key)
        return None if case is None else case.judged

    def open(self, service: str | None = None) -> list[Drift]:
        """The drift that is there now, in the order in which it began."""
        self.catch_up()
        return self._log.open(service)

    @property
    def counts(self) -> Counter[State]:
        """How many instances are in each state."""
        self.catch_up()
        return self._counts

    @property
    def drifting_services(self) -> int:
        """How many services have open drift."""
        self.catch_up()
        return self._log.drifting_services

    def events_after(self, seq: int) -> tuple[DriftEvent, ...]:
        """What began and ended since, the oldest first; of the newest 1,024."""
        self.catch_up()
        return self._log.events_after(seq)

    @property
    def last_seq(self) -> int:
        """Of the newest event."""
        return self._log.last_seq

    async def changed(self) -> None:
        """Until an instance's state or why changes, or drift begins or ends, after this call."""
        await self._changed.wait()

    # ── for its actor ──────────────────────────────────────────────────────────────────────────

    def restore(self, drifts: Iterable[Drift], last_seq: int) -> None:
        """The drift that was open when the server ended. It goes on, or ends, once its instance is judged."""
        self._restored = {(one.service, one.instance): one for one in drifts}
        self._log.last_seq = max(self._log.last_seq, last_seq)
        self._dirty |= dict.fromkeys(self._restored)
        self._news.set()

    async def wait(self) -> None:
        """Until something may have changed, or time makes a difference."""
        deadline = self._timers[0].at if self._timers else math.inf
        with trio.move_on_at(deadline):
            await self._news.wait()
        self._news = trio.Event()

    def tell(self) -> None:
        """Something may have changed."""
        self._news.set()

    def unsaved(self) -> Sequence[Drift]:
        """Drift that began or ended, and is not in the database yet."""
        return self._log.unsaved()

    def saved(self, drifts: Sequence[Drift]) -> None:
        """They are in the database now."""
        self._log.saved(drifts)

    def catch_up(self, most: int | None = None) -> bool:
        """Judge what may have changed. most: so many instances; whether all are judged."""
        now = self._monotonic()
        self._look_at_committed(now)
        self._look_at_timers(now)
        while self._dirty and (most is None or most > 0):
            key, _ = self._dirty.popitem()
            self._rejudge(key, now)
            most = None if most is None else most - 1
        if self._is_changed:
            self._is_changed = False
            self._changed.set()
            self._changed = trio.Event()
        return not self._dirty

    # ── what changed ───────────────────────────────────────────────────────────────────────────

    def _heard(self, service: str, instance: str) -> None:
        self._dirty[service, instance] = None
        self._news.set()

    def _confirmed(self, _broker: BrokerView, service: str, revision: int) -> None:
        now = self._monotonic()
        self._look_at_committed(now)
        wanted = self._wanted.get(service)
        if wanted is None or wanted.state is None or wanted.is_confirmed:
            return
        if revision >= wanted.state.revision:
            wanted.is_confirmed = True
            if not wanted.is_from_before:
                wanted.since = now
            self._all_of(service)

    def _look_at_committed(self, now: float) -> None:
        committed, before = self._view.committed, self._committed
        if committed is before:
            return
        self._committed = committed
        old: Mapping[str, ServiceState] = {} if before is None else before.services
        if committed.services is not old:
            for service, state in committed.services.items():
                if state is not old.get(service):
                    self._wants(service, state, now, is_from_before=before is None)
            for service in old.keys() - committed.services.keys():
                self._wants(service, None, now, is_from_before=False)
        self._look_at_rows(committed, before)

    def _wants(
        self, service: str, state: ServiceState | None, now: float, *, is_from_before: bool
    ) -> None:
        before = self._wanted.get(service)
        old = None if before is None else before.state
        if before is not None and _are_the_same(old, state):
            before.state = state
            return
        digests = {} if before is None else before.digests
        if old is not None:
            digests[old.mark] = old.digest
            if len(digests) > _DIGESTS_KEPT:
                del digests[next(iter(digests))]
        since = now
        if is_from_before and state is not None:  # a broker was first seen to hold it soon after
            since -= max(0.0, self._clock.now() - parse_rfc3339(state.updated_at))
        is_confirmed = state is not None and self._confirmations.confirmed(service, state.revision)
        self._wanted[service] = _Wanted(state, since, is_confirmed, is_from_before, digests)
        self._all_of(service)

    def _look_at_rows(self, committed: Committed, before: Committed | None) -> None:
        devices = committed.registered(DEVICE)
        known: Mapping[str, JsonObject] = {} if before is None else before.registered(DEVICE)
        if devices is not known:
            for name in {**devices, **known}:
                if devices.get(name) is not known.get(name):
                    service, _, instance = name.partition("/")
                    self._dirty[service, instance] = None
        gone = committed.registered(FORGOTTEN)
        were: Mapping[str, JsonObject] = {} if before is None else before.registered(FORGOTTEN)
        if gone is not were:
            for key in newly_forgotten(gone, were):
                self._statuses.drop_forgotten(*key)
                if before is not None:
                    for tell in self.on_forgotten:
                        tell(key)

    def _all_of(self, service: str) -> None:
        start = bisect_left(self._order, (service, ""))
        for index in range(start, len(self._order)):
            key = self._order[index]
            if key[0] != service:
                break
            self._dirty[key] = None
        self._news.set()

    def _look_at_timers(self, now: float) -> None:
        while self._timers and self._timers[0].at <= now:
            at, key = heappop(self._timers)
            case = self._cases.get(key)
            if case is not None and case.timer == at:
                case.timer = None
                if case.deadline is not None and case.deadline <= now:
                    self._dirty[key] = None
                else:
                    self._set_timer(key, case)

    def _set_timer(self, key: Key, case: _Case) -> None:
        """An instance has one entry, or a late one behind it: each entry that is due looks at the deadline of then."""
        if case.deadline is not None and (case.timer is None or case.timer > case.deadline):
            case.timer = case.deadline
            heappush(self._timers, _Timer(case.deadline, key))

    # ── one instance ───────────────────────────────────────────────────────────────────────────

    def _rejudge(self, key: Key, now: float) -> None:
        status, case = self._statuses.status(*key), self._cases.get(key)
        wanted = self._wanted.get(key[0]) or _Wanted(None, now, False, False)
        judged = self._judged(key, status, wanted.target(now), case)
        if judged is None:
            self._let_go(key)
            return
        if case is None:
            case = self._cases[key] = _Case(judged)
            insort(self._order, key)
            self._counts[judged.state] += 1
            self._is_changed = True
        elif (judged.state, judged.why) != (case.judged.state, case.judged.why):
            self._counts[case.judged.state] -= 1
            self._counts[judged.state] += 1
            self._is_changed = True
        case.judged = judged
        case.deadline = wanted.since + LATE_S if judged.state == "pending" else None
        self._look_at_drift(key, case, wanted.state, now)
        self._set_timer(key, case)

    def _judged(
        self, key: Key, status: InstanceStatus | None, target: Target, case: _Case | None
    ) -> Judged | None:
        """None if it is neither heard nor enrolled."""
        now = self._clock.now()
        if status is not None:
            found = judge(status.receipt, target, gone=status.gone, verified=status.verified)
            first = status.since if found.state in ("silent", "in-line", "overridden") else now
        else:
            device = None if self._committed is None else enrolled(self._committed, *key)
            if device is None:
                return None
            found = never_heard(device.enrolled_at)
            first = parse_rfc3339(device.enrolled_at)
        return Judged(*key, *found, self._since(key, found, min(first, now), case), status)

    def _since(self, key: Key, found: Judgement, first: float, case: _Case | None) -> float:
        """first: as far as it is known if nothing is known of it yet."""
        if case is None:
            restored = self._restored.get(key)
            return restored.since if restored and restored.state == found.state else first
        return case.judged.since if case.judged.state == found.state else self._clock.now()

    def _let_go(self, key: Key) -> None:
        restored = self._restored.pop(key, None)
        if restored is not None:
            self._log.end(restored)
            self._is_changed = True
        case = self._cases.pop(key, None)
        if case is not None:
            del self._order[bisect_left(self._order, key)]
            self._counts[case.judged.state] -= 1
            self._end_of(case)
            self._is_changed = True

    # ── drift ──────────────────────────────────────────────────────────────────────────────────

    def _look_at_drift(
        self, key: Key, case: _Case, wanted: ServiceState | None, now: float
    ) -> None:
        judged, restored = case.judged, self._restored.pop(key, None)
        if restored is not None and case.drift is not None:
            self._log.end(restored)
            self._is_changed = True
        elif restored is not None:
            case.drift, case.drifts_since = restored, now - LASTING_S
            self._log.note_open(restored)
        if judged.state not in DRIFTS:
            case.drifts_since = None
            self._end_of(case)
            return
        if case.drifts_since is None:
            case.drifts_since = now
        if now < case.drifts_since + LASTING_S:
            case.deadline = case.drifts_since + LASTING_S
            return
        if case.drift is not None and case.drift.state != judged.state:
            self._end_of(case)
        if case.drift is None:
            case.drift = self._log.begin(*key, judged.state, judged.why, judged.since, wanted)
            self._is_changed = True
        elif case.drift.why != judged.why:
            case.drift = case.drift._replace(why=judged.why)
            self._log.note_open(case.drift)

    def _end_of(self, case: _Case) -> None:
        if case.drift is not None:
            self._log.end(case.drift)
            self._is_changed = True
            case.drift = None


def _are_the_same(one: ServiceState | None, other: ServiceState | None) -> bool:
    """Also where the database was read anew meanwhile."""
    if one is None or other is None:
        return one is other
    return (one.mark, one.digest) == (other.mark, other.digest)
