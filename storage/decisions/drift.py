"""Whether an instance runs what it should. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from config_manager.config.documents.receipt import Receipt, Running
from config_manager.storage.state import ServiceState

State = Literal[
    "silent", "claimed", "stale", "overridden", "in-line", "refused", "waiting", "pending"
]
"""silent: it is gone. claimed: it is not enrolled, and proves nothing. stale: it runs what is wanted, and can't
know whether that is the newest. overridden: so that its environment decides some keys. in-line: exactly so.
refused, waiting: what became of what is wanted. pending: not yet known."""

_BY_STAGE: Mapping[str, State] = {
    "refused": "refused",
    "poisoned": "refused",
    "deferred": "waiting",
    "restart-required": "waiting",
}


def is_in_sync(wanted: ServiceState | None, running: Running | None, *, gone: bool) -> bool:
    """Whether an instance is there and runs exactly what is wanted: nothing if nothing is wanted.

    wanted: the service's state; None if nobody wrote it or it is deleted. running: None if the instance runs
    on its defaults. gone: its broker says that it is not there any more.
    """
    if gone:
        return False
    if wanted is None or running is None:
        return wanted is None and running is None
    runs = (running.epoch_seq, running.revision, running.digest)
    return runs == (*wanted.mark, wanted.digest)


def state_of(receipt: Receipt, wanted: ServiceState | None, *, gone: bool, verified: bool) -> State:
    """The first of these that fits. verified: the instance is enrolled, and signed the receipt."""
    if gone:
        return "silent"
    if not verified:
        return "claimed"
    if is_in_sync(wanted, receipt.running, gone=False):
        if receipt.freshness.startswith("stale"):
            return "stale"
        return "overridden" if receipt.overrides else "in-line"
    attempt = receipt.last_attempt
    if attempt is None or wanted is None or attempt.revision != wanted.revision:
        return "pending"
    return _BY_STAGE.get(attempt.stage, "pending")
