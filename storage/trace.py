"""What is known of a change as a whole: which services it touched, and when each of its steps was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from config_manager.storage.state import Action


class Change(NamedTuple):
    """One revision of all that it touched. services: by name; several if they changed as one."""

    revision: int
    correlation_id: str
    epoch_seq: int
    config_epoch: str
    at: str
    by: str
    action: Action
    reason: str | None
    services: tuple[str, ...]


BrokerStep = Literal["signed", "published", "acknowledged", "confirmed"]
BROKER_STEPS: tuple[BrokerStep, ...] = get_args(BrokerStep)
"""In the order in which they usually are done; a broker may acknowledge after it gave the message back."""


class BrokerTimes(NamedTuple):
    """When each step of one service's part of a change was done at one broker, the first time (Unix seconds, our
    clock). broker: its URL without userinfo. acknowledged: its PUBACK came. confirmed: it gave the message back."""

    service: str
    broker: str
    signed: float | None = None
    published: float | None = None
    acknowledged: float | None = None
    confirmed: float | None = None


class ChangeTimes(NamedTuple):
    """When a change came and went, in Unix seconds by our clock. asked: its request began to be answered; None if
    nobody asked, or it is not known. committed: it was on the disk. writes: how many were committed with it, itself
    included. traceparent: of its request (W3C Trace Context)."""

    revision: int
    asked: float | None
    committed: float
    writes: int = 1
    traceparent: str | None = None
    brokers: tuple[BrokerTimes, ...] = ()

    @property
    def began(self) -> float:
        """Where its times are counted from."""
        return self.committed if self.asked is None else self.asked


@dataclass(frozen=True, slots=True)
class ChangesQuery:
    """Which changes. after: revisions above it, in rising order. before: revisions below it. Without `after` the newest
    come first. limit: of changes.

    service: which touched it. visible: which touched one of these, and nothing is told of other services; None: of all.
    since, until: RFC 3339 in UTC, inclusive.
    """

    limit: int = 50
    after: int | None = None
    before: int | None = None
    service: str | None = None
    visible: Sequence[str] | None = None
    by: str | None = None
    since: str | None = None
    until: str | None = None
    correlation_id: str | None = None


def earliest(one: ChangeTimes, other: ChangeTimes) -> ChangeTimes:
    """What is known of one change from two places: of each step the time in `one`, else in `other`."""
    steps = {(at.service, at.broker): at for at in other.brokers}
    for at in one.brokers:
        also = steps.get((at.service, at.broker), at)
        steps[at.service, at.broker] = BrokerTimes._make(
            there if here is None else here for here, there in zip(at, also, strict=True)
        )
    return one._replace(brokers=tuple(steps[key] for key in sorted(steps)))
