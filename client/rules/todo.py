"""What an instance tells its driver to do, how it takes changes, and what a change is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias

from config_manager.client.model.guarded import attempt
from config_manager.client.model.precedence import Merged
from config_manager.client.model.values import M
from config_manager.client.model.words import leaves_of
from config_manager.client.rules.events import Event, Source
from config_manager.client.rules.kept import Kept
from config_manager.client.rules.root_chain import Link
from config_manager.config.documents.receipt import Receipt

BAKE_S = 10.0
"""How long a service must live with a configuration before it is taken for good."""

OnStale = Literal["report", "warn", "stop"]


@dataclass(frozen=True, slots=True)
class TrialPolicy:
    """How an instance takes changes. Times in seconds.

    bake_s: how long it must live with a change before that counts as proved; 0 proves at once.
    restart_required: keys that only a restart changes. max_stale_s, on_stale: what to do after nothing
    has proved for so long that what runs is what the publisher wants.
    """

    bake_s: float = BAKE_S
    restart_required: frozenset[str] = frozenset()
    max_stale_s: float | None = None
    on_stale: OnStale = "report"


class NotNow(Exception):
    """Raised by a callback: keep what runs, and ask again after `seconds`."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(f"asked again in {seconds:g} s")
        self.seconds = seconds


def asked_again_after(error: BaseException) -> float | None:
    """The seconds that a NotNow names, in whatever group it comes; None: it is a refusal."""
    pauses = [_seconds_of(one) for one in leaves_of(error) if isinstance(one, NotNow)]
    return max(pauses) if pauses else None


def _seconds_of(later: NotNow) -> float:
    seconds = attempt(lambda: float(later.seconds), 1.0)  # a caller's subclass may hold anything
    return max(0.0, seconds) if not math.isnan(seconds) else 1.0


@dataclass(frozen=True, slots=True)
class Change(Generic[M]):
    """From one configuration to the next; `keys` are those whose value differs. revision,
    correlation_id: of the one that was delivered."""

    old: M
    new: M
    keys: frozenset[str]
    revision: int | None
    correlation_id: str | None
    source: Source


def change_between(runs: Merged[M], new: Merged[M]) -> Change[M]:
    """What the broker brought."""
    update = new.update
    assert update is not None
    keys, revision = new.changed_since(runs), update.revision
    return Change(runs.values, new.values, keys, revision, update.correlation_id, "broker")


@dataclass(frozen=True, slots=True)
class Keep:
    """Make this durable before going on."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class KeepRoot:
    """Make this durable before going on: what follows is believed because of it."""

    link: Link


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """Ask the service's callback, off to the side; tell `called` what it said."""

    change: Change[M]


@dataclass(frozen=True, slots=True)
class Swap(Generic[M]):
    """`current` is this from now on."""

    effective: Merged[M]
    change: Change[M] | None


@dataclass(frozen=True, slots=True)
class PublishReceipt:
    """Publish this receipt, retained; only the newest counts."""

    topic: str
    payload: bytes
    document: Receipt


@dataclass(frozen=True, slots=True)
class Tell:
    """News for log and listeners."""

    event: Event


@dataclass(frozen=True, slots=True)
class TooStale:
    """What runs has been stale for longer than the policy allows."""

    reason: str
    policy: OnStale


class KeepOutcome(NamedTuple):
    """What came of a Keep. was_delayed: a receipt has said so, and each later one has to be made anew."""

    is_done: bool
    was_delayed: bool


Do: TypeAlias = Keep | KeepRoot | Call[M] | Swap[M] | PublishReceipt | Tell | TooStale
