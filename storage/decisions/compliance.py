"""Who ran what, when, and how far that is proved: worked out from rows of the audit and receipts alone. Pure.

The server works a report out with this, and whoever verifies it does so again from the same evidence.

An instance's times are those of its own clock, in its receipts. `proof` of what ran in a segment:

    between    a receipt before and the next one say that the same ran, and none between them is missing
    last-said  a receipt before says so; the next one is missing, says something else, or there is none
    none       no receipt says anything of this time

`state` is what the receipt before comes to, beside what was wanted.

What one receipt says counts until the next. A will says what ran when it was signed, as any receipt does; that the
instance went is told at a time that nobody signed. So from the last receipt of a start with a will on nothing is known.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from config_manager.config.documents.receipt import Receipt, Running
from config_manager.config.names import Epoch, Mark
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.drift import LATE_S, Target, judge
from config_manager.storage.decisions.ledger import (
    Enrolment,
    Ledger,
    Period,
    Times,
    Wanted,
    time_of,
)
from config_manager.storage.drifts import State
from config_manager.storage.state import ServiceState

Proof = Literal["between", "last-said", "none"]
_ALWAYS = Period(-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Said:
    """A receipt that the key of this id signed. digest: of its payload."""

    receipt: Receipt
    keyid: str
    digest: str


class _Due(NamedTuple):
    """What is wanted in a period. state: None if nothing is. waited: it has been for so long that who does not run
    it is late."""

    period: Period
    state: Wanted | None
    waited: bool


class _Piece(NamedTuple):
    period: Period
    revision: int | None
    digest: str | None
    state: State | None
    proof: Proof

    def to_object(self) -> JsonObject:
        return {
            "revision": self.revision,
            "digest": self.digest,
            "state": self.state,
            "from": rfc3339(self.period.begin),
            "to": rfc3339(self.period.end),
            "proof": self.proof,
        }


class Compliance:
    """What a report says of these services, or of every one. span: within `ledger.known_until`."""

    def __init__(
        self,
        ledger: Ledger,
        said: Iterable[Said],
        span: Period,
        services: Collection[str] | None = None,
    ) -> None:
        self._ledger, self._span, self._services = ledger, span, services
        receipts: dict[tuple[str, str], list[Said]] = {}
        for one in said:
            receipts.setdefault((one.receipt.service, one.receipt.instance), []).append(one)
        dues: dict[str, list[_Due]] = {}
        self.timelines: dict[tuple[str, str], Timeline] = {}
        for name, enrolments in sorted(ledger.enrolments.items()):
            enrolment = _last_within(ledger, enrolments, span)
            if enrolment is None or (services is not None and name[0] not in services):
                continue
            if name[0] not in dues:
                dues[name[0]] = _dues(ledger, name[0])
            self.timelines[name] = Timeline(
                ledger, enrolment, receipts.get(name, ()), dues[name[0]], name[0]
            )

    def claims(self) -> JsonObject:
        instances: dict[str, JsonObject] = {}
        for (service, instance), told in self.timelines.items():
            instances.setdefault(service, {})[instance] = told.to_object(self._span)
        names = {*self._ledger.wanted, *instances} if self._services is None else self._services
        found = {
            name: {
                "wanted": list(_wanted(self._ledger, name, self._span)),
                "instances": instances.get(name, {}),
            }
            for name in sorted(names)
        }
        return {
            name: one
            for name, one in found.items()
            if self._services is not None or one["wanted"] or one["instances"]
        }


def _last_within(ledger: Ledger, enrolments: Sequence[Enrolment], span: Period) -> Enrolment | None:
    return next(
        (one for one in reversed(enrolments) if _enrolled(ledger, one).meets(span)),
        None,
    )


def _enrolled(ledger: Ledger, one: Enrolment) -> Period:
    """No time at all if the clock can't tell."""
    return ledger.times.between(one.index, one.ended) or Period(math.inf, -math.inf)


# ── what is wanted ─────────────────────────────────────────────────────────────────────────────


def _wanted(ledger: Ledger, service: str, span: Period) -> Iterator[JsonObject]:
    known = ledger.wanted.get(service, [])
    for one, after in zip(known, (*known[1:], None), strict=False):
        period = ledger.times.between(one.index, after.index if after else None)
        at = ledger.times.at[one.index]
        if period is None and at is not None:
            period = Period(at, at)
        if period is None or not period.meets(span):
            continue
        yield {
            "revision": one.revision,
            "digest": one.digest,
            "from": one.at,
            "to": after.at if after else None,
            "by": one.by,
            "reason": one.reason,
            "approved_by": None,
            "correlation_id": one.correlation_id,
        }


def _dues(ledger: Ledger, service: str) -> list[_Due]:
    """In order. Where there is none, it is not known what was wanted."""
    known = ledger.wanted.get(service, [])
    dues: list[_Due] = []
    if ledger.first_seq == 1:
        until = ledger.times.before(known[0].index) if known else math.inf
        dues.append(_Due(Period(-math.inf, until), None, False))
    for one, after in zip(known, (*known[1:], None), strict=False):
        period = ledger.times.between(one.index, after.index if after else None)
        if period is None:
            continue
        late = min(period.end, period.begin + LATE_S)
        dues.append(_Due(Period(period.begin, late), one, False))
        if late < period.end:
            dues.append(_Due(Period(late, period.end), one, True))
    return dues


# ── what an instance ran ───────────────────────────────────────────────────────────────────────


class Timeline:
    """One instance, by the receipts of the key that it enrolled."""

    def __init__(
        self,
        ledger: Ledger,
        enrolment: Enrolment,
        said: Iterable[Said],
        dues: Sequence[_Due],
        service: str,
    ) -> None:
        """dues: of the service, in order."""
        self._ledger = ledger
        self._enrolment = enrolment
        self._marks = ledger.marks(service)
        self._dues = dues
        known = {one.digest: one for one in said if one.keyid == enrolment.keyid}.values()
        self.said = sorted((one.receipt for one in known), key=lambda one: one.order)
        self._gone = {one.boot_seq: one.seq for one in self.said if one.gone}
        counted = Counter(one.order for one in self.said)
        self.times = Times(
            [
                # two of one number: a key that was copied, and nobody can say which came first
                time_of(one.at, ledger.known_until) if counted[one.order] == 1 else None
                for one in self.said
            ]
        )

    def to_object(self, span: Period) -> JsonObject:
        return {
            "keyid": self._enrolment.keyid,
            "enrolled_seq": self._enrolment.seq,
            "segments": [one.to_object() for one in self._segments(span)],
            "missing_seq": sum(missing for _, _, missing in self.holes(span)),
        }

    def holes(self, span: Period) -> list[tuple[tuple[int, int], tuple[int, int], int]]:
        """(the receipt before, the one behind, how many numbers are missing between) of those that meet the span. A
        start of which there is no receipt counts as one."""
        found: list[tuple[tuple[int, int], tuple[int, int], int]] = []
        for index, (one, after) in enumerate(zip(self.said, self.said[1:], strict=False)):
            begin, end = self.times.at[index], self.times.at[index + 1]
            if (begin is not None and begin > span.end) or (end is not None and end < span.begin):
                continue
            same_start = one.boot_seq == after.boot_seq
            missing = after.seq - one.seq if same_start else after.boot_seq - one.boot_seq
            if missing > 1:
                found.append((one.order, after.order, missing - 1))
        return found

    def _segments(self, span: Period) -> list[_Piece]:
        about = span.within(_enrolled(self._ledger, self._enrolment))
        if span.begin == span.end:
            there = [one for one in self._pieces() if one.period.meets(span)]
            last = there[-1] if there and about == span else _nothing(span)
            return [last._replace(period=span)]
        found: list[_Piece] = []
        reached = span.begin
        for one in self._pieces():
            period = one.period.within(about)
            if period.begin >= period.end:
                continue
            if period.begin > reached:
                found.append(_nothing(Period(reached, period.begin)))
            found.append(one._replace(period=period))
            reached = period.end
        if reached < span.end:
            found.append(_nothing(Period(reached, span.end)))
        return list(_joined(found))

    def _pieces(self) -> Iterator[_Piece]:
        """In order, each within one receipt's time and one due."""
        for index, one in enumerate(self.said):
            after = self.said[index + 1] if index + 1 < len(self.said) else None
            period = self.times.between(index, None if after is None else index + 1)
            if period is None:
                continue
            ends_start = after is None or after.boot_seq != one.boot_seq
            if ends_start and one.boot_seq in self._gone:
                if after is None and self._is_gone_for_good(one):
                    yield _Piece(period, None, None, "silent", "none")
                continue
            yield from self._within(period, one, after)

    def _is_gone_for_good(self, last: Receipt) -> bool:
        """Whether it went after this, its last one, and not on an earlier connection of the same start: a connection
        takes a number for its will."""
        gone = self._gone[last.boot_seq]
        whole = {one.seq for one in self.said if one.boot_seq == last.boot_seq}
        return all(seq in whole for seq in range(gone + 1, last.seq))

    def _within(self, period: Period, one: Receipt, after: Receipt | None) -> Iterator[_Piece]:
        reached = period.begin
        first = bisect_left(self._dues, period.begin, key=lambda due: due.period.end)
        for index in range(first, len(self._dues)):
            due = self._dues[index]
            part = due.period.within(period)
            if part.begin > part.end:
                break
            if part.begin == part.end and period.begin < period.end:
                continue
            if part.begin > reached:
                yield self._piece(Period(reached, part.begin), one, after, None)
            yield self._piece(part, one, after, due)
            reached = part.end
        if reached < period.end or (reached == period.begin == period.end and not self._dues):
            yield self._piece(Period(reached, period.end), one, after, None)

    def _piece(
        self, period: Period, one: Receipt, after: Receipt | None, due: _Due | None
    ) -> _Piece:
        same = (
            after is not None
            and (after.boot_seq, after.seq) == (one.boot_seq, one.seq + 1)
            and after.running == one.running
        )
        running = one.running
        return _Piece(
            period,
            None if running is None else running.revision,
            None if running is None else running.digest,
            self._state(one, due),
            "between" if same else "last-said",
        )

    def _state(self, one: Receipt, due: _Due | None) -> State | None:
        """None if it is not known what was wanted then."""
        running = one.running
        if running is not None:
            mark = Mark(running.epoch_seq, running.revision)
            if mark not in self._marks and (
                self._ledger.knows(mark) or mark > self._ledger.last_mark
            ):
                return "foreign"
            if self._marks.get(mark) not in (None, running.digest):
                return "foreign"
            if due is not None and (due.state is None or mark > due.state.mark):
                return None  # its clock is behind the server's
        if due is None:
            return None
        target = Target(
            None if due.state is None else _as_state(one.service, due.state, running),
            waited_s=LATE_S if due.waited else 0.0,
            is_confirmed=True,
        )
        return judge(one, target, gone=False, verified=True).state


def _as_state(service: str, wanted: Wanted, running: Running | None) -> ServiceState:
    """As far as it is judged by. If no row names its digest, whatever runs under its number counts as it."""
    digest = wanted.digest or (running.digest if running is not None else "")
    return ServiceState(
        service=service,
        revision=wanted.revision,
        version=0,
        epoch=Epoch(wanted.epoch_seq, ""),
        stored={},
        effective={},
        defaulted=(),
        secrets={},
        deleted=wanted.deleted,
        updated_at=wanted.at,
        updated_by=wanted.by,
        correlation_id="",
        payload=b"",
        digest=digest,
    )


def _nothing(period: Period) -> _Piece:
    return _Piece(period, None, None, None, "none")


def _joined(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """Neighbours that say the same as one."""
    last: _Piece | None = None
    for one in pieces:
        if last is not None and last[1:] == one[1:]:
            last = last._replace(period=Period(last.period.begin, one.period.end))
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
