"""What an instance runs, beside what it should run: one state each, and why. Pure.

The state is the first that fits: `silent`, `claimed`, `foreign`; of one that runs what is wanted `stale`, `overridden`
or `in-line`; else, by what became of what is wanted, `refused`, `waiting`, `late` or `pending`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.names import Mark
from config_manager.storage.drifts import State
from config_manager.storage.state import ServiceState

STATES: tuple[State, ...] = get_args(State)
"""The worst first."""
RANK: Mapping[State, int] = {state: rank for rank, state in enumerate(STATES)}
DRIFTS = frozenset[State]({"foreign", "refused", "late", "stale"})
"""They are drift once they have lasted."""

LATE_S = 30.0
"""An instance has so long to answer a change."""
LASTING_S = 10.0
"""So long an instance is in these states before it counts as drift."""

_STALE: Mapping[str, str] = {
    "no-beacon": "it hears no beacon of the publisher",
    "withheld": "something newer is kept from it",
    "expired": "what it runs has expired",
    "root-withheld": "a newer trust root is kept from it",
    "signer-revoked": "the key that signed what it runs was revoked",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a service's instances should run.

    state: as of the newest revision, deleted or not; None if nobody wrote it. waited_s: seconds since a broker was first
    seen to hold it, or since it was committed if none was. is_confirmed: whether one was. digests: of revisions before,
    as far as they are known.
    """

    state: ServiceState | None
    waited_s: float = 0.0
    is_confirmed: bool = False
    digests: Mapping[Mark, str] = field(default_factory=dict[Mark, str])


class Judgement(NamedTuple):
    """why: in words, for who asks."""

    state: State
    why: str


def judge(receipt: Receipt, target: Target, *, gone: bool, verified: bool) -> Judgement:
    """An instance, by its newest receipt. gone: its broker, or it itself, says that it is not there any more. verified:
    it is enrolled, and signed the receipt."""
    if gone:
        return Judgement("silent", "it stopped, or lost its connection")
    if not verified:
        return Judgement("claimed", "it is not enrolled: nothing proves what it says")
    wanted = None if target.state is None or target.state.deleted else target.state
    if (why := _foreign(receipt.running, target)) is not None:
        return Judgement("foreign", why)
    if is_in_sync(wanted, receipt.running, gone=False):
        return _in_sync(receipt)
    assert target.state is not None  # else what it runs is foreign
    return _not_there(receipt.last_attempt, target.state, target)


def never_heard(since: str) -> Judgement:
    """An instance that enrolled then (RFC 3339) and has said nothing since."""
    return Judgement("silent", f"it enrolled at {since} and was never heard since")


def is_in_sync(wanted: ServiceState | None, running: Running | None, *, gone: bool) -> bool:
    """Whether an instance is there and runs exactly what is wanted: nothing if nothing is wanted.

    wanted: the service's state; None if nobody wrote it or it is deleted. running: None if the instance runs
    on its defaults. gone: its broker says that it is not there any more.
    """
    if gone:
        return False
    if wanted is None or running is None:
        return wanted is None and running is None
    return (_mark(running), running.digest) == (wanted.mark, wanted.digest)


def _foreign(running: Running | None, target: Target) -> str | None:
    """Why it can't have what it runs from this server; None if it can."""
    if running is None:
        return None
    state, mark = target.state, _mark(running)
    if state is None or mark > state.mark:
        return f"it runs revision {running.revision}, which was never published here"
    known = state.digest if mark == state.mark else target.digests.get(mark)
    if known is not None and known != running.digest:
        return f"it runs other content under revision {running.revision} than was published here"
    return None


def _in_sync(receipt: Receipt) -> Judgement:
    if receipt.freshness.startswith("stale"):
        reason = receipt.freshness.removeprefix("stale").strip(" ()")
        return Judgement("stale", _with_words(reason))
    if receipt.overrides:
        return Judgement(
            "overridden", f"its own environment decides {', '.join(receipt.overrides)}"
        )
    return Judgement("in-line", "it runs what is wanted")


def _with_words(reason: str) -> str:
    said = _STALE.get(reason, "it can't know that what it runs is the newest")
    return f"{said} ({reason})" if reason else said


def _not_there(attempt: Attempt | None, wanted: ServiceState, target: Target) -> Judgement:
    revision = wanted.revision
    if attempt is None or attempt.revision != revision:
        attempt = None
    elif attempt.stage in ("refused", "poisoned"):
        return Judgement("refused", attempt.why or f"{attempt.stage} revision {revision}")
    elif attempt.stage == "restart-required":
        return Judgement("waiting", f"it takes revision {revision} at its next start")
    elif attempt.stage == "deferred":
        return Judgement("waiting", attempt.why or f"it takes revision {revision} later")
    is_late = target.waited_s >= LATE_S
    if not target.is_confirmed:
        why = f"no broker is known to hold revision {revision}"
    elif wanted.deleted:
        why = f"it still runs what revision {revision} deleted"
    elif attempt is not None:
        why = f"it has revision {revision} ({attempt.stage}) and does not run it yet"
    elif is_late:
        why = f"it has not answered revision {revision}"
    else:
        why = f"revision {revision} is on its way"
    return Judgement("late" if is_late else "pending", why)


def _mark(running: Running) -> Mark:
    return Mark(running.epoch_seq, running.revision)
