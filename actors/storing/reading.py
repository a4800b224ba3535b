"""What is read from the database beside the writer: no read waits for a write, or holds one up.

The store reads them on a connection of their own. Pages are read one at a time, in the order in which they
were asked; a caller that no longer waits has left the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import trio

from config_manager.actors.actor import Context
from config_manager.actors.storing.opening import Opening
from config_manager.config.audit import AuditFault, Head
from config_manager.config.errors import ReadOnly
from config_manager.storage.decisions.vouching import Judgement, Vouching
from config_manager.storage.drifts import Drift, DriftQuery, KeptReceipt, ReceiptsQuery
from config_manager.storage.state import (
    AuditEntry,
    HistoryPage,
    HistoryQuery,
    SchemaVersion,
    SealedSecret,
)
from config_manager.storage.store import DatabaseUnavailable, Store
from config_manager.storage.trace import Change, ChangesQuery

R = TypeVar("R")


@dataclass
class _Judged:
    """One reading of the whole audit. number: of all that began; answer: kept for those that wait for it."""

    number: int
    contains: str | None
    answer: Judgement | None = None


class Reading:
    """Every method raises Refusal, and TooSlowError at the context's deadline."""

    def __init__(self, opening: Opening, vouching: Vouching) -> None:
        self._opening = opening
        self._vouching = vouching
        self._turn = trio.Lock()
        self._judging = trio.Lock()
        self._judged = _Judged(0, None)

    async def history(self, query: HistoryQuery, context: Context) -> HistoryPage:
        return await self._page(self._store_with_history, lambda s: s.history(query), context)

    async def changes(self, query: ChangesQuery, context: Context) -> Sequence[Change]:
        """See `Store.changes`."""
        return await self._page(self._store_with_history, lambda s: s.changes(query), context)

    async def receipts(self, query: ReceiptsQuery, context: Context) -> Sequence[KeptReceipt]:
        """See `Store.receipts`."""
        return await self._page(self._store_with_history, lambda s: s.receipts(query), context)

    async def drifts(self, query: DriftQuery, context: Context) -> Sequence[Drift]:
        """See `Store.drifts`."""
        return await self._page(self._store_with_history, lambda s: s.drifts(query), context)

    async def past(self, read: Callable[[Store], R], context: Context) -> R:
        """What this pure function makes of what is kept (`storage.decisions.past`), in a thread."""
        return await self._page(self._store_with_history, read, context)

    async def newest_schemas(
        self, context: Context, service: str | None = None
    ) -> Sequence[SchemaVersion]:
        """The newest version from each source, of one service's schema or of every service's."""
        return await self._page(
            self._store_with_history, lambda s: s.newest_schemas(service), context
        )

    async def schema_versions(
        self, service: str, context: Context, *, before: int | None, limit: int, most_bytes: int
    ) -> Sequence[SchemaVersion]:
        """See `Store.schema_versions`."""

        def read(store: Store) -> Sequence[SchemaVersion]:
            return store.schema_versions(service, before=before, limit=limit, most_bytes=most_bytes)

        return await self._page(self._store_with_history, read, context)

    async def schema_version(
        self, service: str, which: int | str, context: Context
    ) -> SchemaVersion | None:
        """One version of a service's schema, by number or digest."""
        return await self._page(
            self._store_with_history, lambda s: s.schema_version(service, which), context
        )

    async def audit(
        self, context: Context, *, after: int, limit: int, most_bytes: int
    ) -> Sequence[AuditEntry]:
        """Rows of the audit in order, from the one after this number; see `Store.audit`. Also of a database that
        is refused."""
        return await self._page(
            lambda: self._opening.unfit or self._store_with_history(),
            lambda s: s.audit(after=after, limit=limit, most_bytes=most_bytes),
            context,
        )

    async def secrets(
        self, context: Context, service: str | None = None, name: str | None = None
    ) -> Sequence[SealedSecret]:
        """Every version that is kept, sealed; of one service, of one name, or of all."""
        return await self._page(
            self._opening.demand_store, lambda s: s.secret_versions(service, name), context
        )

    async def count_secrets(self, key_id: str, context: Context) -> tuple[int, int]:
        """(versions sealed under this key, all versions)."""
        return await self._page(
            self._opening.demand_store, lambda s: s.count_secrets(key_id), context
        )

    def _store_with_history(self) -> Store:
        store = self._opening.store
        if store is None:
            raise ReadOnly("the history can't be read while the database is unavailable")
        return store

    async def _page(
        self, store_now: Callable[[], Store], read: Callable[[Store], R], context: Context
    ) -> R:
        with trio.fail_at(context.deadline):
            async with self._turn:
                store = store_now()
                try:
                    return await trio.to_thread.run_sync(read, store)
                except DatabaseUnavailable as error:
                    with trio.CancelScope(shield=True):
                        await self._opening.give_up(store, error)
                    raise self._opening.refusal() from None

    async def judge(self, contains: str | None, context: Context) -> Judgement:
        """Compares every row of the audit with the end that this server holds in memory, and everything kept with the
        rows. contains: see `Vouching.judge`. One at a time, because each takes a core, and beside the pages; callers
        that waited while it began share the answer."""
        begun_before = self._judged.number
        with trio.fail_at(context.deadline):
            async with self._judging:
                shared = self._judged
                if shared.number > begun_before and shared.contains == contains and shared.answer:
                    return shared.answer
                self._judged = mine = _Judged(shared.number + 1, contains)
                answer = await self._judge(contains)
                if self._judging.statistics().tasks_waiting:
                    mine.answer = answer
                return answer

    async def _judge(self, contains: str | None) -> Judgement:
        opening, view = self._opening, self._opening.view
        store = opening.store or opening.unfit
        if store is None:
            raise ReadOnly("the audit can't be read while the database is unavailable")
        before = view.committed
        known = (Head(before.audit_seq, before.audit_head, "the running server"),)

        def judge() -> Judgement:
            with store.snapshot() as snapshot:
                return self._vouching.judge(
                    snapshot,
                    known,
                    cached=before,
                    contains=contains,
                    look_up=trio.from_thread.check_cancelled,
                )

        try:
            judgement = await trio.to_thread.run_sync(judge)
        except DatabaseUnavailable as error:
            raise ReadOnly(f"the audit can't be read now: {error}") from error
        async with opening.turn:  # what is committed is in the view by then
            newest = view.committed.audit_seq
        end = judgement.committed.audit_seq
        if judgement.verdict.problem is None and end > newest and store is opening.store:
            detail = f"row {newest + 1} stands behind the last one that the running server knows"
            verdict = replace(judgement.verdict, problem=AuditFault(newest + 1, "head", detail))
            return replace(judgement, verdict=verdict)
        return judgement
