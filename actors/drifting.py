"""Judges every instance, and keeps over time what was seen of them: receipts, and when each drifted.

`actors.drift_board` judges; this actor wakes it, and has storing keep what is new, at most once a second. So a broker
or a server that restarts forgets nobody: at the start the board is filled from what was kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio
import trio.lowlevel

from config_manager.actors.actor import Actor, Context, Full, Gone, Life, follower
from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.messages import Keep, Prune
from config_manager.actors.receipts_kept import ReceiptsToKeep
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.storing.reading import Reading
from config_manager.actors.views import CommittedView
from config_manager.config.errors import Refusal
from config_manager.config.world import World
from config_manager.storage.decisions.forgotten import forgotten
from config_manager.storage.drifts import KeptReceipt, Key, Observed, State

_GATHER_S = 0.02
_KEEP_EVERY_S = 1.0
_MOST_AT_ONCE = 1_000
"""Rows that a write may have to wait for: some 20 ms."""
_JUDGED_AT_ONCE = 250
"""Instances, before others may run: some milliseconds."""
_RESTORED_AT_ONCE = 50
_PRUNE_EVERY_S = 3_600.0
_RESTORE_WITHIN_S = 30.0
_CONTEXT = Context("observed")


class Drifting:
    """Across its lives."""

    def __init__(
        self,
        board: DriftBoard,
        statuses: StatusBoard,
        view: CommittedView,
        storing: Actor,
        reading: Reading,
        world: World,
        *,
        keep_s: float,
    ) -> None:
        """keep_s: how long every receipt is kept; then the first and the last of each segment."""
        self._board = board
        self._statuses = statuses
        self._view = view
        self._storing = storing
        self._reading = reading
        self._clock = world.clock
        self._keep_s = keep_s
        self._receipts = ReceiptsToKeep(self._state_of, trio.current_time)
        self._to_forget: dict[Key, None] = {}
        self._has_restored = False
        statuses.on_receipt.append(self._receipts.hear)
        board.on_forgotten.append(self._forget)

    async def restore(self) -> None:
        """What was known when the server ended. While the database can't be read, the brokers' word has to do."""
        context = Context(_CONTEXT.correlation_id, trio.current_time() + _RESTORE_WITHIN_S)
        try:
            rows = await self._reading.past(lambda store: store.newest_receipts(), context)
            await self._restore_drifts()
        except (Refusal, trio.TooSlowError) as error:
            structlog.get_logger().warning("instances not restored", error=str(error))
            return
        for number, row in enumerate(rows):
            if number % _RESTORED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            self._restore(row)

    def _restore(self, row: KeptReceipt) -> None:
        key = (row.service, row.instance)
        receipt = self._statuses.restore(*key, row.envelope, row.received_at)
        if receipt is not None:
            self._receipts.was_kept(receipt)
            return
        what = forgotten(self._view.committed, *key)
        if what is not None and row.received_at <= what.until:
            self._forget(
                key
            )  # it was forgotten, and the server ended before its receipts were gone

    async def _restore_drifts(self) -> None:
        context = Context(_CONTEXT.correlation_id, trio.current_time() + _RESTORE_WITHIN_S)
        self._board.restore(*await self._reading.past(lambda store: store.open_drifts(), context))
        self._has_restored = True

    async def work(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_the_view)
            nursery.start_soon(self._keep_what_is_new)
            nursery.start_soon(self._prune)
            while True:
                while not self._board.catch_up(_JUDGED_AT_ONCE):
                    await trio.lowlevel.checkpoint()
                await self._board.wait()
                await trio.sleep(_GATHER_S)

    async def _follow_the_view(self) -> None:
        seen = None
        while True:
            if self._view.committed is seen:
                await self._view.changed()
            seen = self._view.committed
            self._board.tell()
            await trio.sleep(_GATHER_S)  # a flood of writes wakes nobody for each

    async def _keep_what_is_new(self) -> None:
        while True:
            await trio.sleep(_KEEP_EVERY_S)
            if self._view.mode == "normal":
                await self.keep()

    async def keep(self) -> None:
        """What is new, in the database."""
        if not self._has_restored:
            try:
                await self._restore_drifts()
            except (Refusal, trio.TooSlowError):
                return
        receipts, drifts = self._receipts.take(_MOST_AT_ONCE), self._board.unsaved()
        gone, self._to_forget = self._to_forget, {}
        if not (receipts or drifts or gone):
            return
        is_kept = False
        try:
            observed = Observed(receipts, drifts, tuple(gone))
            is_kept = await self._storing.ask(Keep(observed), _CONTEXT)
        except (Gone, Full):
            pass
        finally:
            if is_kept:
                self._board.saved(drifts)
            else:
                self._not_kept(receipts, gone)

    def _not_kept(self, receipts: Sequence[KeptReceipt], gone: dict[Key, None]) -> None:
        again = [one for one in receipts if one[:2] not in self._to_forget]
        self._receipts.not_kept(again)
        self._to_forget = gone | self._to_forget

    async def _prune(self) -> None:
        while True:
            before = self._clock.now() - self._keep_s
            while True:
                await trio.sleep(_KEEP_EVERY_S)
                try:
                    gone = await self._storing.ask(Prune(before, _MOST_AT_ONCE), _CONTEXT)
                except (Gone, Full):
                    break
                if gone < _MOST_AT_ONCE:
                    break
            await trio.sleep(_PRUNE_EVERY_S)

    def _forget(self, key: Key) -> None:
        self._receipts.forget(key)
        self._to_forget[key] = None

    def _state_of(self, service: str, instance: str) -> State:
        judged = self._board.one(service, instance)
        return "silent" if judged is None else judged.state


def drifting(work: Drifting) -> Life:
    return follower(work.work, at_end=work.keep)
