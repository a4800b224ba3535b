"""What the rows of the audit say over time: what each service should run, and which key speaks for which instance. Pure.

The rows need not begin with the first one. What stands before them is unknown, and nothing is said of it.

Times are those of the rows, by the server's clock. If a clock went back, or ran ahead of the moment at which the report
was made, it can't be said what was there when: nothing is said of that time either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from config_manager.config.names import Mark
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions.replay import ACCEPT, BEGIN


class Row(NamedTuple):
    """A row of the audit. body: what its bytes say."""

    seq: int
    body: JsonObject


class Period(NamedTuple):
    """Unix seconds. Its end belongs to what follows."""

    begin: float
    end: float

    def meets(self, other: Period) -> bool:
        return self.begin <= other.end and (self.end > other.begin or self.begin >= other.begin)

    def within(self, other: Period) -> Period:
        return Period(max(self.begin, other.begin), min(self.end, other.end))


class Times:
    """When things were, of which the order is known. None: not known."""

    def __init__(self, at: Sequence[float | None]) -> None:
        self.at = at
        self._latest: list[float] = []
        """of this one and all before it"""
        self._earliest: list[float] = []
        """of this one and all behind it"""
        latest, earliest = -math.inf, math.inf
        for one in at:
            latest = latest if one is None else max(latest, one)
            self._latest.append(latest)
        for one in reversed(at):
            earliest = earliest if one is None else min(earliest, one)
            self._earliest.append(earliest)
        self._earliest.reverse()

    def between(self, this: int, after: int | None) -> Period | None:
        """When `this` was surely there, and `after` surely not yet. None: at no time by this clock."""
        if self.at[this] is None:
            return None
        begin = self._latest[this]
        if after is None:
            return Period(begin, math.inf)
        if self.at[after] is None:
            return Period(begin, begin)
        end = self._earliest[after]
        return Period(begin, end) if begin <= end else None

    def before(self, this: int) -> float:
        """Until when `this` was surely not there yet."""
        return -math.inf if self.at[this] is None else self._earliest[this]

    @property
    def went_back(self) -> Iterable[tuple[int, float]]:
        """(which, by how many seconds) of those that claim to be earlier than one before them."""
        for index, one in enumerate(self.at):
            if one is not None and one < self._latest[index]:
                yield index, self._latest[index] - one


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a service should run from a row on. index: of the row among those that are known. digest: None if no row
    names it."""

    index: int
    revision: int
    epoch_seq: int
    digest: str | None
    deleted: bool
    at: str
    by: str
    reason: str | None
    correlation_id: str | None

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch_seq, self.revision)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A key that speaks for an instance from a row on. ended: index of the row with which that ended."""

    index: int
    seq: int
    keyid: str
    ended: int | None = None


class Ledger:
    """Takes the rows in order. Rows that no server of ours wrote are skipped. known_until: Unix seconds; no row can be
    later."""

    def __init__(self, rows: Sequence[Row], known_until: float) -> None:
        self.first_seq = rows[0].seq if rows else 0
        self.first_revision = 0
        self.last_mark = Mark(0, 0)
        self.wanted: dict[str, list[Wanted]] = {}
        self.enrolments: dict[tuple[str, str], list[Enrolment]] = {}
        self.times = Times([time_of(row.body.get("at"), known_until) for row in rows])
        self.known_until = known_until
        self._marks: dict[str, Mapping[Mark, str | None]] = {}
        for index, row in enumerate(rows):
            try:
                self._take(index, row)
            except (LookupError, TypeError, ValueError, AttributeError):
                continue

    def marks(self, service: str) -> Mapping[Mark, str | None]:
        """Every revision of the service that these rows know, and its digest."""
        if service not in self._marks:
            known = self.wanted.get(service, ())
            self._marks[service] = {one.mark: one.digest for one in known}
        return self._marks[service]

    def knows(self, mark: Mark) -> bool:
        """Whether a row of this revision would be among these."""
        return self.first_seq == 1 or mark.revision > self.first_revision

    def _take(self, index: int, row: Row) -> None:
        body = row.body
        mark = Mark(int(body["epoch_seq"]), int(body["revision"]))
        self.first_revision = self.first_revision or mark.revision
        self.last_mark = max(self.last_mark, mark)
        digests = body.get("digests", {})
        for service in body.get("services", {}):
            one = Wanted(
                index,
                mark.revision,
                mark.epoch_seq,
                digests.get(service),
                body["action"] == "delete" or service in body.get("deleted", ()),
                str(body["at"]),
                str(body["by"]),
                body["reason"],
                body["correlation_id"],
            )
            self.wanted.setdefault(service, []).append(one)
        if body["action"] == BEGIN:
            self._vouch(digests)
        if body["action"] in (BEGIN, ACCEPT):
            self._keep_only(index, body.get("registry", {}).get("device", {}))
        if body["action"] in ("device.enrol", "device.revoke"):
            self._take_device(index, row.seq, body["action"], body["details"])

    def _vouch(self, digests: Mapping[str, str]) -> None:
        """The row names what an earlier version wrote without a digest."""
        for service, digest in digests.items():
            known = self.wanted.get(service, [])
            if known and known[-1].digest is None:
                known[-1] = replace(known[-1], digest=digest)

    def _keep_only(self, index: int, devices: Mapping[str, object]) -> None:
        for (service, instance), all_of_it in self.enrolments.items():
            if f"{service}/{instance}" not in devices:
                self._end(all_of_it, index)

    def _take_device(self, index: int, seq: int, action: str, details: JsonObject) -> None:
        name = (str(details["service"]), str(details["instance"]))
        all_of_it = self.enrolments.setdefault(name, [])
        if action == "device.revoke":
            self._end(all_of_it, index)
            return
        keyid = str(details["sign_keyid"])
        if all_of_it and all_of_it[-1].ended is None and all_of_it[-1].keyid == keyid:
            return  # once more with the same key
        self._end(all_of_it, index)
        all_of_it.append(Enrolment(index, seq, keyid))

    @staticmethod
    def _end(all_of_it: list[Enrolment], index: int) -> None:
        if all_of_it and all_of_it[-1].ended is None:
            all_of_it[-1] = replace(all_of_it[-1], ended=index)


def time_of(text: object, known_until: float) -> float | None:
    """Unix seconds; None if it is no time, or one that had not come yet."""
    try:
        at = parse_rfc3339(text) if isinstance(text, str) else math.inf
    except (ValueError, OverflowError):
        return None
    return at if at <= known_until else None
