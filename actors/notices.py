"""What there is to tell others, whichever way: a change, drift, a refusal; and what one of them has yet to be told. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from config_manager.actors.drift_log import DriftEvent
from config_manager.config import strict_json
from config_manager.config.documents.receipt import Receipt
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.decisions.notifications import EventKind, Notification, Place
from config_manager.storage.drifts import Drift
from config_manager.storage.trace import Change

MOST_WAITING = 1_000
GIVE_UP_S = 24 * 3600.0

_REFUSED = frozenset({"refused", "poisoned"})
"""Stages of an attempt that mean: the instance does not run it, and will not."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event. number: in its stream, where they rise. id: the same whenever and to whomever it is told, in this
    server. at: when it happened, Unix seconds. data: for the receiver, beside `type`."""

    stream: Literal["revision", "drift", "refusal"]
    number: int
    id: str
    kind: EventKind
    at: float
    services: tuple[str, ...]
    data: JsonObject

    def concerns(self, target: Notification) -> bool:
        return self.kind in target.events and any(map(target.covers, self.services))

    def body(self, target: Notification) -> bytes:
        """JSON; of several services only those that the target is told about."""
        data = self.data
        if self.stream == "revision":
            data = {**data, "services": [s for s in self.services if target.covers(s)]}
        return strict_json.dumps({"type": self.kind, **data})

    def is_after(self, place: Place) -> bool:
        reached: int = getattr(place, self.stream)
        return self.number > reached

    def reached(self, before: Place) -> Place:
        """The place once it was told."""
        return before._replace(**{self.stream: self.number})


def of_change(change: Change) -> Notice:
    data: JsonObject = {
        "revision": change.revision,
        "config_epoch": change.config_epoch,
        "epoch_seq": change.epoch_seq,
        "at": change.at,
        "by": change.by,
        "action": change.action,
        "reason": change.reason,
        "correlation_id": change.correlation_id,
        "services": list(change.services),
    }
    return Notice(
        "revision",
        change.revision,
        f"{change.epoch_seq}-{change.revision}",
        "rollback" if change.action == "rollback" else "revision",
        parse_rfc3339(change.at),
        change.services,
        data,
    )


def of_drift(event: DriftEvent) -> Notice:
    data: JsonObject = {
        "event": event.event,
        "service": event.service,
        "instance": event.instance,
        "state": event.state,
        "why": event.why,
        "since": rfc3339(event.since),
        "at": rfc3339(event.at),
        "revision": event.revision,
        "correlation_id": event.correlation_id,
    }
    return Notice(
        "drift", event.seq, f"drift-{event.seq}", "drift", event.at, (event.service,), data
    )


def events_of(drift: Drift) -> Iterator[DriftEvent]:
    """Its beginning, and its end if it is over, as they were told."""
    about = (drift.service, drift.instance, drift.state, drift.why, drift.since)
    wanted = (drift.revision, drift.correlation_id)
    yield DriftEvent(drift.seq, "began", *about, drift.began, *wanted)
    if drift.ended is not None and drift.ended_seq is not None:
        yield DriftEvent(drift.ended_seq, "ended", *about, drift.ended, *wanted)


def refused_revision(receipt: Receipt) -> int | None:
    """The revision that the instance refused with its last attempt, if it did."""
    attempt = receipt.last_attempt
    return attempt.revision if attempt is not None and attempt.stage in _REFUSED else None


def of_refusal(receipt: Receipt, number: int, at: float) -> Notice:
    """at: when it was heard, Unix seconds."""
    attempt = receipt.last_attempt
    assert attempt is not None
    data: JsonObject = {
        "service": receipt.service,
        "instance": receipt.instance,
        "revision": attempt.revision,
        "stage": attempt.stage,
        "why": attempt.why,
        "at": rfc3339(at),
        "correlation_id": receipt.correlation_id,
    }
    return kept_refusal(number, data)


def kept_refusal(number: int, data: JsonObject) -> Notice:
    """From what is kept of it until everybody is told."""
    where = f"{data['service']}-{data['instance']}-{data['revision']}"
    at = parse_rfc3339(data["at"])
    return Notice(
        "refusal", number, f"refused-{where}-{number}", "refused", at, (data["service"],), data
    )


def before(notices: Iterable[Notice], told: Place) -> Place:
    """The place at which none of these was told, and of the other streams everything up to `told`."""
    place, met = told, set[str]()
    for notice in notices:
        if notice.stream not in met:
            met.add(notice.stream)
            place = place._replace(**{notice.stream: notice.number - 1})
    return place


class Queue:
    """What one target has yet to be told: in order, and not more than 1,000, of which the oldest give way."""

    def __init__(self) -> None:
        self._waiting: deque[Notice] = deque()
        self.given_up = 0
        """that it was never told, since the start"""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Notice]:
        return iter(self._waiting)

    @property
    def first(self) -> Notice | None:
        return self._waiting[0] if self._waiting else None

    def put(self, notice: Notice) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._give_up()
        self._waiting.append(notice)

    def done(self, notice: Notice) -> None:
        """It was told. It may have given way meanwhile."""
        if self.first is notice:
            self._waiting.popleft()

    def give_up_old(self, now: float) -> bool:
        """Whether the first has waited for 24 hours in vain. Whatever has, is given up; but the newest stays, with which
        the target goes on being tried. now: Unix seconds."""
        is_over = bool(self._waiting) and self._waiting[0].at + GIVE_UP_S <= now
        while len(self._waiting) > 1 and self._waiting[0].at + GIVE_UP_S <= now:
            self._give_up()
        return is_over

    def place(self, told: Place) -> Place:
        """How far the target has come, if everything up to `told` was put here that concerns it."""
        return before(self._waiting, told)

    def _give_up(self) -> None:
        self._waiting.popleft()
        self.given_up += 1
