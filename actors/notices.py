"""What there is to tell others, whichever way: a change, a refusal, a drift. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from config_manager.config import strict_json
from config_manager.config.documents.receipt import Receipt
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions.notifications import EventKind, Notification, Place
from config_manager.storage.trace import Change

MOST_WAITING = 1_000
GIVE_UP_S = 24 * 3600.0

REFUSALS = frozenset({"refused", "poisoned"})
"""Stages of an attempt (`config.documents.receipt`) that mean: the instance does not run it, and will not."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event. id: the same whenever and to whomever it is told. at: when it happened, Unix seconds. revision: of a
    change; number: of anything else; the other is 0. data: for the receiver, beside `type`."""

    id: str
    kind: EventKind
    at: float
    services: tuple[str, ...]
    data: JsonObject
    revision: int = 0
    number: int = 0

    def concerns(self, target: Notification) -> bool:
        return self.kind in target.events and any(map(target.covers, self.services))

    def body(self, target: Notification) -> bytes:
        """JSON; of several services only those that the target is told about."""
        data = self.data
        if "services" in data:
            data = {**data, "services": [s for s in self.services if target.covers(s)]}
        return strict_json.dumps({"type": self.kind, **data})

    def to_row(self) -> JsonObject:
        """As it is kept while somebody has yet to be told."""
        return {
            "id": self.id,
            "kind": self.kind,
            "at": self.at,
            "services": list(self.services),
            "data": self.data,
        }

    @classmethod
    def of_row(cls, number: int, row: JsonObject) -> Notice:
        services, kind = tuple(row["services"]), cast("EventKind", row["kind"])
        return cls(row["id"], kind, row["at"], services, row["data"], number=number)


def of_change(change: Change, instance_id: str) -> Notice:
    """instance_id: of this server, because a receiver may hear several."""
    kind: EventKind = "rollback" if change.action == "rollback" else "revision"
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
    notice_id = f"{instance_id}-{change.epoch_seq}-{change.revision}"
    at = parse_rfc3339(change.at)
    return Notice(notice_id, kind, at, change.services, data, revision=change.revision)


def refusal_in(receipt: Receipt) -> JsonObject | None:
    """What an instance says that it refused, if it did with its last attempt."""
    attempt = receipt.last_attempt
    if attempt is None or attempt.stage not in REFUSALS:
        return None
    return {
        "service": receipt.service,
        "instance": receipt.instance,
        "revision": attempt.revision,
        "stage": attempt.stage,
        "why": attempt.reason,
        "at": receipt.at,
        "correlation_id": receipt.correlation_id,
    }


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
            self._waiting.popleft()
            self.given_up += 1
        self._waiting.append(notice)

    def done(self, notice: Notice) -> None:
        """It was told. It may have given way meanwhile."""
        if self._waiting and self._waiting[0] is notice:
            self._waiting.popleft()

    def give_up_old(self, now: float) -> bool:
        """Whether the first has waited for 24 hours in vain. Whatever has, is given up; but the newest stays, with which
        the target goes on being tried. now: Unix seconds."""
        is_over = bool(self._waiting) and self._waiting[0].at + GIVE_UP_S <= now
        while len(self._waiting) > 1 and self._waiting[0].at + GIVE_UP_S <= now:
            self._waiting.popleft()
            self.given_up += 1
        return is_over

    def place(self, told: Place) -> Place:
        """How far the target has come, if everything up to `told` was put here that concerns it."""
        revision = next((one.revision for one in self if one.revision), told.revision + 1)
        number = next((one.number for one in self if one.number), told.notice + 1)
        return Place(revision - 1, number - 1)
