"""What is kept of instances over time: the receipts of those that enrolled, and when each drifted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal[
    "foreign",
    "refused",
    "late",
    "stale",
    "waiting",
    "pending",
    "overridden",
    "silent",
    "claimed",
    "in-line",
]
"""What an instance runs, beside what it should run (`storage.decisions.drift`). The worst first."""


Key = tuple[str, str]
"""Of an instance: (service, instance)."""


class KeptReceipt(NamedTuple):
    """A receipt as it came, of an instance that is enrolled.

    boot_seq, seq, at: as it says; at and received_at: Unix seconds. revision: what it runs, None for nothing; stage: of
    its last attempt, None if there was none. state: as what it was judged then. gone: a will or a farewell. envelope: the
    exact bytes that came. attempted: the revision of its last attempt.
    """

    service: str
    instance: str
    boot_seq: int
    seq: int
    at: float
    received_at: float
    revision: int | None
    stage: str | None
    state: State
    gone: bool
    envelope: bytes
    attempted: int | None = None


class Drift(NamedTuple):
    """A time in which an instance did not run what it should.

    seq: of its beginning, ended_seq: of its end; all of them rise. since: when it came into this state. began: when that
    had lasted, and counted as drift; ended: None while it is open. All in Unix seconds. revision, correlation_id: of what
    was wanted; None if nobody had written the service.
    """

    seq: int
    service: str
    instance: str
    state: State
    why: str
    since: float
    began: float
    revision: int | None
    correlation_id: str | None
    ended: float | None = None
    ended_seq: int | None = None


@dataclass(frozen=True, slots=True)
class ReceiptsQuery:
    """Receipts in the order in which they came. since, until: by when they were received, in Unix seconds, inclusive."""

    service: str
    instance: str
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class DriftQuery:
    """Drift, the newest first. before: below this `seq`. covers: only of services of which this is true; None: of all.
    since, until: it was open at some moment between them (Unix seconds, inclusive)."""

    limit: int = 50
    before: int | None = None
    service: str | None = None
    covers: Callable[[str], bool] | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, one: Drift) -> bool:
        return (
            (self.before is None or one.seq < self.before)
            and self.service in (None, one.service)
            and (self.covers is None or self.covers(one.service))
            and (self.since is None or one.ended is None or one.ended >= self.since)
            and (self.until is None or one.began <= self.until)
        )

    def with_unsaved(
        self, found: Sequence[Drift], before: Iterable[Drift], now: Iterable[Drift]
    ) -> Sequence[Drift]:
        """What was found in the database, and what it did not have before that, and does not have now."""
        rows = {one.seq: one for one in before if self.matches(one)}
        rows |= {one.seq: one for one in found}
        rows |= {one.seq: one for one in now if self.matches(one)}
        return sorted(rows.values(), key=lambda one: -one.seq)[: self.limit]


@dataclass(frozen=True, slots=True)
class Observed:
    """What to keep, together. drifts: also in the place of one that is open. forgotten: (service, instance) of which
    every receipt that is kept so far goes."""

    receipts: Sequence[KeptReceipt] = ()
    drifts: Sequence[Drift] = ()
    forgotten: Sequence[tuple[str, str]] = ()
