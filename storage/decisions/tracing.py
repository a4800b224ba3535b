"""The trace of a change: found by its revision or its correlation id, and put together from what was noted of it.

Its steps are counted from when it was asked, by our clock. An instance's own clock is told beside it and counts for
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, Protocol

from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt
from config_manager.storage.drifts import KeptReceipt, Key, State
from config_manager.storage.trace import (
    BROKER_STEPS,
    BrokerStep,
    BrokerTimes,
    Change,
    ChangesQuery,
    ChangeTimes,
    StageTime,
    reach,
    stage_of,
)

ChangeState = Literal["settled", "pending", "drifting"]

_REVISION = re.compile(r"[0-9]{1,15}")
_MOST_OTHERS = 500
_ON_THE_WAY: frozenset[State] = frozenset(
    {"foreign", "refused", "late", "stale", "waiting", "pending"}
)


class Kept(Protocol):
    """What is read of a store."""

    def changes(self, query: ChangesQuery) -> Sequence[Change]: ...

    def change_times(self, revision: int) -> ChangeTimes | None: ...

    def attempts(self, service: str, revision: int) -> Sequence[KeptReceipt]: ...


class Found(NamedTuple):
    """A change and what is kept of it. others: further revisions with its correlation id, the newest first."""

    change: Change
    others: tuple[int, ...]
    times: ChangeTimes | None
    instances: Mapping[Key, Sequence[StageTime]]


class Step(NamedTuple):
    """broker: None for what is done once. at: Unix seconds."""

    step: Literal["asked", "committed"] | BrokerStep
    broker: str | None
    at: float


# ── finding ────────────────────────────────────────────────────────────────────────────────────


def find(
    kept: Kept,
    name: str,
    visible: Sequence[str] | None,
    reads_receipts: Callable[[int], bool] = lambda _revision: True,
) -> Found | None:
    """name: a revision in digits, or a correlation id, of which the newest change is found. visible: see
    `ChangesQuery`. reads_receipts: whether what instances said of this revision is not known already."""
    changes: Sequence[Change] = ()
    if _REVISION.fullmatch(name):
        number = int(name)
        query = ChangesQuery(after=number - 1, before=number + 1, limit=1, visible=visible)
        changes = kept.changes(query)
    by_id = changes[0].correlation_id if changes else name
    query = ChangesQuery(correlation_id=by_id, limit=_MOST_OTHERS, visible=visible)
    same_id = kept.changes(query)
    change = next(iter(changes or same_id), None)
    if change is None:
        return None
    others = tuple(one.revision for one in same_id if one.revision != change.revision)
    times = kept.change_times(change.revision)
    if not reads_receipts(change.revision):
        return Found(change, others, times, {})
    return Found(change, others, times, _instances(kept, change))


def _instances(kept: Kept, change: Change) -> Mapping[Key, Sequence[StageTime]]:
    found: dict[Key, list[StageTime]] = {}
    for service in change.services:
        for row in kept.attempts(service, change.revision):
            with suppress(
                ValueError
            ):  # it was read before it was kept; whoever edited it proves nothing
                receipt = Receipt.parse(wire.parse_envelope(row.envelope).payload)
                told = stage_of(receipt, row.received_at)
                if told is not None:
                    reach(found.setdefault((service, row.instance), []), told[1])
    return found


def joined(
    kept: Mapping[Key, Sequence[StageTime]], heard: Mapping[Key, Sequence[StageTime]]
) -> Mapping[Key, Sequence[StageTime]]:
    """What is kept, and what this process heard, of which part may be the same."""
    pairs: dict[Key, list[StageTime]] = {}
    for pair in sorted({*kept, *heard}):
        stages: list[StageTime] = []
        together = {*kept.get(pair, ()), *heard.get(pair, ())}
        for stage in sorted(together, key=lambda one: one.received_at):
            reach(stages, stage)
        pairs[pair] = stages
    return pairs


# ── putting together ───────────────────────────────────────────────────────────────────────────


def steps(times: ChangeTimes, services: Sequence[str], newest: Mapping[str, int]) -> Sequence[Step]:
    """What was done, in the order of time. A step at a broker is done once it is for each of these services; one that
    was written again meanwhile (newest: its revision) is not waited for."""
    found = [Step("committed", None, times.committed)]
    if times.asked is not None:
        found.append(Step("asked", None, times.asked))
    by_broker: dict[str, dict[str, BrokerTimes]] = {}
    for one in times.brokers:
        if one.service in services:
            by_broker.setdefault(one.broker, {})[one.service] = one
    for broker, of_services in by_broker.items():
        for step in BROKER_STEPS:
            done = {
                service: at
                for service, one in of_services.items()
                if (at := getattr(one, step)) is not None
            }
            waited_for = [name for name in services if newest.get(name) == times.revision]
            if done and all(name in done for name in waited_for):
                found.append(Step(step, broker, max(done.values())))
    order = ("asked", "committed", *BROKER_STEPS)
    return sorted(found, key=lambda one: (one.at, order.index(one.step), one.broker or ""))


def state_of(*, is_drifting: bool, is_confirmed: bool, states: frozenset[State]) -> ChangeState:
    """How a change stands, by those of its services that were not written again since.

    is_drifting: one of them has open drift. is_confirmed: some broker holds each of them. states: of their instances.
    """
    if is_drifting:
        return "drifting"
    return "settled" if is_confirmed and not states & _ON_THE_WAY else "pending"
