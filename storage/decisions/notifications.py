"""Targets of notifications, and how far each has come. Pure.

notification   by name: what an administrator decided. Its secret lies among the secrets, as one of `config-manager`'s
notified       by name, bookkeeping: the place that a target has reached
notice         by number, bookkeeping: a refusal that some target has yet to be told. Changes and drift are kept
               elsewhere anyway
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

from config_manager.config.access import EVERY_SERVICE, Grant
from config_manager.config.errors import Conflict, NotFound
from config_manager.config.http_target import parse_http_target
from config_manager.config.names import OUR_ID
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.administration import administered, noted
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.state import Committed, RegistryRow

TARGET = "notification"
PLACE = "notified"
NOTICE = "notice"

MOST_TARGETS = 16
_DIGITS = 16
"""Of a refusal's number, so that keys sort as numbers do."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

EventKind = Literal["revision", "rollback", "refused", "drift"]


@dataclass(frozen=True, slots=True)
class Notification:
    """A target. services: patterns, in which `*` stands for any text. plain: HTTP without TLS is meant. secret: the
    version under which it is kept."""

    name: str
    url: str
    plain: bool
    events: tuple[EventKind, ...]
    services: tuple[str, ...]
    created_at: str
    created_by: str
    secret: int

    def covers(self, service: str) -> bool:
        """Whether it is told about this service."""
        return Grant(self.name, "read", self.services).covers(service)

    @property
    def covers_all(self) -> bool:
        return self.services == EVERY_SERVICE

    def to_row(self) -> RegistryRow:
        value = {k: v for k, v in asdict(self).items() if k != "name"}
        lists = {"events": list(self.events), "services": list(self.services)}
        return RegistryRow(TARGET, self.name, {**value, **lists})

    @classmethod
    def of(cls, name: str, value: JsonObject) -> Notification:
        return cls(
            name=name,
            url=value["url"],
            plain=value["plain"],
            events=tuple(cast("list[EventKind]", value["events"])),
            services=tuple(value["services"]),
            created_at=value["created_at"],
            created_by=value["created_by"],
            secret=value["secret"],
        )


def is_notification_name(text: str) -> bool:
    """Whether a target may be called so."""
    return _NAME.fullmatch(text) is not None


class Place(NamedTuple):
    """How far a target has come. Of each stream it was told everything up to this number, or it did not concern it, or
    it was given up. drift: the `seq` of an event of `actors.drift_board`."""

    revision: int
    drift: int
    refusal: int

    def at_least(self, other: Place) -> Place:
        return Place(*map(max, self, other))


def notifications(committed: Committed) -> Mapping[str, Notification]:
    """Every target, by name."""
    rows = committed.registered(TARGET)
    return {name: Notification.of(name, row) for name, row in rows.items()}


def place_of(committed: Committed, name: str) -> Place | None:
    """Where a target goes on; None if no place of it is kept."""
    kept = committed.registered(PLACE).get(name)
    return None if kept is None else Place(**kept)


def kept_refusals(committed: Committed) -> list[tuple[int, JsonObject]]:
    """Every refusal that is kept, in order of their numbers."""
    return sorted((int(key), row) for key, row in committed.registered(NOTICE).items())


def last_refusal(committed: Committed) -> int:
    """The highest number of a refusal, as far as it is kept."""
    places = (int(row["refusal"]) for row in committed.registered(PLACE).values())
    return max([0, *places, *map(int, committed.registered(NOTICE))])


@dataclass(frozen=True, slots=True)
class AddNotification:
    """Tell somebody from now on. secret: sealed here, as secrets are.

    Refused with Conflict if the name is taken, or there are 16 targets.
    """

    name: str
    url: str
    plain: bool
    events: tuple[EventKind, ...]
    services: tuple[str, ...]
    secret: Secret

    def decide(self, before: Committed, on: Equipped) -> Decided[Notification]:
        known = before.registered(TARGET)
        if self.name in known:
            raise Conflict(
                f"there is a notification {self.name!r} already; remove it first, or choose another name"
            )
        if len(known) >= MOST_TARGETS:
            raise Conflict(f"there are {MOST_TARGETS} notifications; remove one first")
        version = before.audit_seq + 1  # no secret of that name ever had it
        target = Notification(
            self.name, self.url, self.plain, self.events, self.services, on.at, on.by, version
        )
        seal = on.tools.seal(before)
        sealed = seal(OUR_ID, self.name, version, self.secret, on.at)
        # events of drift are numbered by the clock, in milliseconds
        here = Place(before.revision, int(on.now * 1_000), last_refusal(before))
        rows = (target.to_row(), _place_row(self.name, here))
        decided = administered(before, on, "notification.add", _told(target), rows, target)
        return replace(decided, change=replace(decided.change, secret=sealed))


@dataclass(frozen=True, slots=True)
class RemoveNotification:
    """Tell nobody there any more, and forget the secret. Refused with NotFound."""

    name: str

    def decide(self, before: Committed, on: Occasion) -> Decided[JsonObject]:
        target = _known(before, self.name)
        rows = (RegistryRow(TARGET, self.name, None), RegistryRow(PLACE, self.name, None))
        answer: JsonObject = {"name": self.name}
        decided = administered(
            before, on, "notification.remove", _told(target), rows, answer, repeatable=True
        )
        return replace(decided, change=replace(decided.change, forgotten=(OUR_ID, self.name)))


@dataclass(frozen=True, slots=True)
class NoteTest:
    """The audit row of a test that was sent. Refused with NotFound."""

    name: str
    delivered: bool
    why: str | None

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        _known(before, self.name)
        details: JsonObject = {"name": self.name, "delivered": self.delivered, "why": self.why}
        return administered(before, on, "notification.test", details, (), None)


@dataclass(frozen=True, slots=True)
class NotePlaces:
    """Bookkeeping: how far targets have come, and which refusals wait. places: by target. added: number → refusal.
    done: refusals up to this number are over."""

    places: Mapping[Notification, Place]
    added: Mapping[int, JsonObject]
    done: int

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        known = notifications(before)
        over = [key for key in before.registered(NOTICE) if int(key) <= self.done]
        rows = (
            *(
                _place_row(target.name, place)
                for target, place in self.places.items()
                if known.get(target.name) == target  # one that was removed meanwhile stays so
            ),
            *(RegistryRow(NOTICE, key, None) for key in over),
            *(
                RegistryRow(NOTICE, f"{number:0{_DIGITS}}", row)
                for number, row in self.added.items()
                if number > self.done
            ),
        )
        return noted(before, on, rows)


def _known(before: Committed, name: str) -> Notification:
    target = notifications(before).get(name)
    if target is None:
        raise NotFound(f"there is no notification {name!r}")
    return target


def _place_row(name: str, place: Place) -> RegistryRow:
    return RegistryRow(PLACE, name, place._asdict())


def _told(target: Notification) -> dict[str, Any]:
    """What the audit says of it: no path and no query, which with many receivers are the password."""
    return {
        "name": target.name,
        "to": str(parse_http_target(target.url, plain=True)),
        "events": list(target.events),
        "services": list(target.services),
    }
