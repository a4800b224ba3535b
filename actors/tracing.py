"""When each step of a change was done: noted while it happens, and kept with what a broker confirms.

Noted on the hot path, so it only keeps numbers: nothing is logged for it, nobody waits for it, and nothing is
committed for it. `Store.mark_confirmed` commits anyway, and takes the times along. What instances reached is kept in
their receipts (`actors.drifting`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from config_manager.actors.actor import Context
from config_manager.actors.statuses import HeardReceipt
from config_manager.config.world import parse_rfc3339
from config_manager.storage.state import Commit, ServiceState
from config_manager.storage.trace import (
    BROKER_STEPS,
    BrokerStep,
    BrokerTimes,
    ChangeTimes,
    StageTime,
    reach,
    stage_of,
)

_MOST = 16_384
"""Of pairs of a service and a broker or an instance, over all changes; some 300 bytes each."""
_MOST_STRANGERS = 256
"""Instances of a change; beyond that those that enrolled alone are noted, of which there can't be any number."""
_STEP = {step: number for number, step in enumerate(BROKER_STEPS)}

Pair = tuple[str, str]
"""(service, broker) or (service, instance)"""


@dataclass(slots=True)
class Noted:
    """One change. by, action: empty if an earlier process committed it. is_whole: this one did, so that nothing of it was
    missed. brokers: the times of `BROKER_STEPS`. instances: what each said that it reached."""

    times: ChangeTimes
    services: frozenset[str]
    correlation_id: str
    by: str = ""
    action: str = ""
    is_whole: bool = False
    brokers: dict[Pair, list[float | None]] = field(default_factory=dict[Pair, list[float | None]])
    instances: dict[Pair, list[StageTime]] = field(default_factory=dict[Pair, list[StageTime]])

    @property
    def pairs(self) -> int:
        return 1 + len(self.brokers) + len(self.instances)

    @property
    def all_times(self) -> ChangeTimes:
        brokers = (BrokerTimes(*pair, *steps) for pair, steps in sorted(self.brokers.items()))
        return self.times._replace(brokers=tuple(brokers))


class Tracing:
    """The times of the newest changes. Those that this process did not commit, and did not find unconfirmed at its
    start, are not noted: a broker confirms everything again when it is read."""

    def __init__(self, now: Callable[[], float] = time.time, *, most: int = _MOST) -> None:
        """now: Unix seconds. most: see `_MOST`."""
        self._now = now
        self._most = most
        self._changes: dict[int, Noted] = {}
        self._pairs = 0
        self._unkept: dict[int, None] = {}
        self._news: dict[int, None] | None = None

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def expect(self, states: Iterable[ServiceState]) -> None:
        """States that no broker was seen to hold when this process began. When they were committed is not known; it
        was right after they were decided."""
        services: dict[int, list[ServiceState]] = {}
        for state in states:
            services.setdefault(state.revision, []).append(state)
        for revision, those in sorted(services.items()):
            times = ChangeTimes(revision, None, parse_rfc3339(those[0].updated_at))
            names = frozenset(one.service for one in those)
            self._add(Noted(times, names, those[0].correlation_id))

    def committed(self, change: Commit, context: Context, writes: int) -> None:
        """It is on the disk, with so many writes."""
        if change.history:
            entry = change.history[0].entry
            times = ChangeTimes(
                entry.revision, context.asked, self._now(), writes, context.traceparent
            )
            services = frozenset(row.service for row in change.history)
            noted = Noted(
                times, services, entry.correlation_id, entry.by, entry.action, is_whole=True
            )
            self._add(noted)

    def done(self, step: BrokerStep, state: ServiceState, broker: str) -> None:
        """The broker, or we for it, did this step. The first time counts."""
        change = self._changes.get(state.revision)
        if change is None:
            return
        steps = change.brokers.get((state.service, broker))
        if steps is None:
            steps = change.brokers[state.service, broker] = [None] * len(BROKER_STEPS)
            self._count_pair()
        number = _STEP[step]
        if steps[number] is None:
            steps[number] = self._now()
            self._unkept[state.revision] = None
            self._tell(state.revision)

    def heard(self, heard: HeardReceipt) -> None:
        """An instance said how far it got with a change."""
        receipt = heard.receipt
        found = stage_of(receipt, heard.status.received_at)  # the board has checked its times
        change = None if found is None else self._changes.get(found[0])
        if found is None or change is None or receipt.service not in change.services:
            return
        pair = (receipt.service, receipt.instance)
        stages = change.instances.get(pair)
        if stages is None:
            if not heard.status.verified and len(change.instances) >= _MOST_STRANGERS:
                return  # anybody can claim to be any number of instances
            stages = change.instances[pair] = []
            self._count_pair()
        if reach(stages, found[1]):
            self._tell(found[0])

    def _add(self, noted: Noted) -> None:
        revision = noted.times.revision
        self._changes[revision] = noted
        self._unkept[revision] = None
        self._tell(revision)
        self._count_pair()

    def _count_pair(self) -> None:
        self._pairs += 1
        while self._pairs > self._most and len(self._changes) > 1:
            oldest = next(iter(self._changes))
            self._pairs -= self._changes.pop(oldest).pairs
            self._unkept.pop(oldest, None)
            if self._news is not None:
                self._news.pop(oldest, None)

    def _tell(self, revision: int) -> None:
        if self._news is not None:
            self._news[revision] = None

    # ── what can be asked ──────────────────────────────────────────────────────────────────────

    def of(self, revision: int) -> Noted | None:
        """What is known of this change, if it is one of the newest."""
        return self._changes.get(revision)

    def is_not_whole(self, revision: int) -> bool:
        """Whether more may be kept of this change than `of` tells."""
        change = self._changes.get(revision)
        return change is None or not change.is_whole

    def follow(self) -> None:
        """From now on `take_news` tells what is new. One follower can do so."""
        self._news = {}

    def take_news(self) -> Mapping[int, Noted]:
        """The changes of which something is new since the last call."""
        news, self._news = self._news or {}, {}
        return {one: self._changes[one] for one in news if one in self._changes}

    # ── what is to be kept ─────────────────────────────────────────────────────────────────────

    def take_unkept(self) -> Sequence[ChangeTimes]:
        """What was noted of brokers since the last call."""
        unkept, self._unkept = self._unkept, {}
        return [self._changes[one].all_times for one in unkept if one in self._changes]

    def not_kept(self, times: Sequence[ChangeTimes]) -> None:
        """The disk did not take these: they are taken again."""
        self._unkept |= {one.revision: None for one in times if one.revision in self._changes}
