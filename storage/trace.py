"""What is known of a change as a whole: which services it touched, and when each of its steps was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from config_manager.config.documents.receipt import Receipt
from config_manager.config.world import parse_rfc3339
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


# ── times ──────────────────────────────────────────────────────────────────────────────────────

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


def earliest(one: ChangeTimes, other: ChangeTimes) -> ChangeTimes:
    """What is known of one change from two places: of each step the time in `one`, else in `other`."""
    steps = {(at.service, at.broker): at for at in other.brokers}
    for at in one.brokers:
        also = steps.get((at.service, at.broker), at)
        steps[at.service, at.broker] = BrokerTimes._make(
            there if here is None else here for here, there in zip(at, also, strict=True)
        )
    return one._replace(brokers=tuple(steps[key] for key in sorted(steps)))


# ── instances ──────────────────────────────────────────────────────────────────────────────────

_MOST_STAGES = 32
"""Of one instance and change: a client may defer without end."""


class StageTime(NamedTuple):
    """An instance reached a stage. at: by its own clock; received_at: when its receipt came, by ours (Unix seconds).
    took_ms: since the instance received the configuration; None if it does not say."""

    stage: str
    at: float
    received_at: float
    reason: str | None = None
    took_ms: int | None = None


def stage_of(receipt: Receipt, received_at: float) -> tuple[int, StageTime] | None:
    """The revision, and the stage that this receipt tells of; None if it tells of none. Raises ValueError."""
    attempt = receipt.last_attempt
    if attempt is None:
        return None
    at = parse_rfc3339(attempt.at or receipt.at)
    stage = StageTime(attempt.stage, at, received_at, attempt.why, attempt.took_ms)
    return attempt.revision, stage


def reach(stages: list[StageTime], stage: StageTime) -> bool:
    """Add it, unless it repeats the last one: an instance says its last attempt again in every receipt."""
    is_repeated = bool(stages) and (stages[-1].stage, stages[-1].reason) == (
        stage.stage,
        stage.reason,
    )
    if is_repeated or len(stages) >= _MOST_STAGES:
        return False
    stages.append(stage)
    return True
