"""Which receipts are kept in the database. No I/O.

Those of instances that are enrolled, where they say something else than the last one that was kept: what runs, what
became of the last attempt, the overrides, whether it is fresh, or that it is gone. Of one instance at most ten a
minute; then the newest of those that came, once the minute is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from config_manager.actors.statuses import HeardReceipt
from config_manager.config.documents.receipt import Receipt
from config_manager.storage.drifts import KeptReceipt, Key, State

A_MINUTE = 10
_MINUTE_S = 60.0
_MOST_WAIT = 20_000
_MOST_BYTES_WAIT = 32 * 1024 * 1024
"""While the database takes nothing; beyond that only the newest of each instance stays."""


class ReceiptsToKeep:
    """What was heard and is to be kept."""

    def __init__(self, state: Callable[[str, str], State], monotonic: Callable[[], float]) -> None:
        """state: that an instance is in now. monotonic: Trio's clock."""
        self._state = state
        self._monotonic = monotonic
        self._last: dict[Key, object] = {}
        self._minutes: dict[Key, tuple[float, int]] = {}
        self._ready: list[KeptReceipt] = []
        self._ready_bytes = 0
        self._held: dict[Key, KeptReceipt] = {}
        self._swept_at = 0.0

    def was_kept(self, receipt: Receipt) -> None:
        """Before the start, as the last one of its instance."""
        self._last[receipt.service, receipt.instance] = _says(receipt)

    def hear(self, heard: HeardReceipt) -> None:
        receipt, key = heard.receipt, (heard.receipt.service, heard.receipt.instance)
        says = _says(receipt)
        if not heard.status.verified or self._last.get(key) == says:
            return
        self._last[key] = says
        attempt = receipt.last_attempt
        row = KeptReceipt(
            *key,
            *receipt.order,
            heard.at,
            heard.status.received_at,
            None if receipt.running is None else receipt.running.revision,
            None if attempt is None else attempt.stage,
            self._state(*key),
            receipt.gone,
            heard.envelope,
            None if attempt is None else attempt.revision,
        )
        now = self._monotonic()
        self._release(key, now)
        if self._has_room(key, now):
            self._add(row)
        else:
            self._held[key] = row

    def take(self, most: int) -> Sequence[KeptReceipt]:
        """Those that are to be kept now, in the order in which they came."""
        now = self._monotonic()
        for key in list(self._held):
            self._release(key, now)
        if now - self._swept_at >= _MINUTE_S:
            self._swept_at = now
            self._minutes = {
                key: one for key, one in self._minutes.items() if now - one[0] < _MINUTE_S
            }
        taken, ready = self._ready[:most], self._ready[most:]
        self._wait_with(ready)
        return taken

    def not_kept(self, rows: Sequence[KeptReceipt]) -> None:
        """To be taken again."""
        self._wait_with([*rows, *self._ready])
        self._shrink()

    def forget(self, key: Key) -> None:
        self._last.pop(key, None)
        self._held.pop(key, None)
        self._wait_with([one for one in self._ready if one[:2] != key])

    def _wait_with(self, ready: list[KeptReceipt]) -> None:
        self._ready = ready
        self._ready_bytes = sum(len(one.envelope) for one in ready)

    def _shrink(self) -> None:
        if len(self._ready) > _MOST_WAIT or self._ready_bytes > _MOST_BYTES_WAIT:
            self._wait_with(list({one[:2]: one for one in self._ready}.values()))

    def _add(self, row: KeptReceipt) -> None:
        self._ready.append(row)
        self._ready_bytes += len(row.envelope)
        self._shrink()

    def _release(self, key: Key, now: float) -> None:
        """What is held of the instance, once there is room: before anything that it said later."""
        if key in self._held and self._has_room(key, now):
            self._add(self._held.pop(key))

    def _has_room(self, key: Key, now: float) -> bool:
        """Takes one of the instance's places in this minute, if there is one."""
        began, used = self._minutes.get(key, (now, 0))
        if now - began >= _MINUTE_S:
            began, used = now, 0
        if used >= A_MINUTE:
            return False
        self._minutes[key] = (began, used + 1)
        return True


def _says(receipt: Receipt) -> object:
    attempt = receipt.last_attempt
    tried = attempt and (attempt.revision, attempt.stage, attempt.reason, attempt.deaths)
    freshness = receipt.freshness.partition(" ")[0]
    return (receipt.running, tried, receipt.overrides, freshness, receipt.gone)
