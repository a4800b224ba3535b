"""The single writer: writes that wait together are decided in order and committed together.

Deciding is pure (`storage.decisions.changes`); committing runs in one worker thread. The reply follows the
commit, and a caller who left does not stop either: this is the actor's task, not the request's.

When the database can't be read or written, the mode becomes read-only: reads go on from what is in
memory (or from the last-known-good cache, where the start found it damaged), writes are refused,
and a fresh open is tried until one succeeds.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import PurePath
from typing import Any, assert_never

import orjson
import structlog
import trio
from nacl.exceptions import CryptoError
from outcome import Error, Outcome, Value

from config_manager.actors.actor import BatchHandler, BatchLife, Context
from config_manager.actors.messages import (
    Administer,
    Confirmed,
    CountSecrets,
    DeleteConfig,
    DeleteSecret,
    Deliver,
    EpochWritten,
    NewEpoch,
    NotDoneYet,
    PatchConfig,
    PutConfig,
    ReadAudit,
    ReadHistory,
    ReadSecrets,
    Resealed,
    ResealSecrets,
    Revealed,
    RevealSecret,
    SetSecret,
    Witnessed,
    Write,
    Written,
)
from config_manager.actors.storing.witnesses import Witnesses
from config_manager.actors.views import CommittedView
from config_manager.config import wire
from config_manager.config.audit import AuditFault, Head
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents import Sealed, SealedValue
from config_manager.config.errors import (
    Conflict,
    DatabaseUnopenable,
    IdempotencyMismatch,
    NotFound,
    OutcomeUnknown,
    ReadOnly,
    Refusal,
    SecretUnreadable,
    StartError,
    StorageFull,
    TooLarge,
)
from config_manager.config.names import Mark
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from config_manager.config.world import World, rfc3339
from config_manager.storage import state_codec
from config_manager.storage.decisions import changes
from config_manager.storage.decisions.administration import (
    Administered,
    Administration,
    Administrator,
    administrate,
)
from config_manager.storage.decisions.changes import Decision
from config_manager.storage.decisions.devices import Delivery, Device, KeepDelivery
from config_manager.storage.decisions.terms import Idempotency
from config_manager.storage.decisions.vouching import Judgement, Vouching, without
from config_manager.storage.keys.secret_box import SecretBox, SecretBoxes
from config_manager.storage.state import Commit, Committed, IdempotencyRecord, SealedSecret
from config_manager.storage.store import (
    IDEMPOTENCY_KEPT_S,
    CommitUnsure,
    DatabaseUnavailable,
    DiskFull,
    Store,
)

_NOT_KEPT = b""
"""Kept instead of an answer that may be given only once."""
_DONE = (
    "this was done when the Idempotency-Key came first; what was answered then is not kept (a token "
    "is shown once); look at what there is before you ask again under another key"
)
_FULL = "disk-full"
_MOST_NAMED = 8
_FOREIGN = (
    "the database holds what this server did not write: nothing of it is signed; see `config-manager "
    "audit verify`, then stop the server and `config-manager restore --accept`, or restore a backup"
)
_PROBE_INTERVAL_S = 2.0
_REOPEN_INTERVAL_S = 1.0
_REFUSALS = 5
"""Doublings of that, up to half a minute, while the database is refused."""
_PROGRESS_S = 5.0

_log = structlog.get_logger()

WHAT_TO_DO = (
    "the database can't be written now: reads and the published configuration go on, "
    "writes are refused; see `reasons` in GET /health, free or repair the disk, and try again"
)


class Storage:
    """What the storing actor works on across its lives: the way to open a store, and the view."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        view: CommittedView,
        *,
        catalogue: Catalogue,
        secret_boxes: SecretBoxes,
        fingerprint_key: bytes,
        vouching: Vouching,
        begin_above: Callable[[int], int] = lambda boot_seq: boot_seq,
        world: World,
    ) -> None:
        """vouching: what makes a row ours. begin_above: told of a start that somebody else knows of;
        answers the one that this counts as from then on.
        fingerprint_key: 32 bytes. A request may hold a secret; what is kept of it to recognise
        its repetition must not let anybody try guesses."""
        self.view = view
        self._open_store = open_store
        self._catalogue = catalogue
        self._secret_boxes = secret_boxes
        self._fingerprint_key = fingerprint_key
        self._vouching = vouching
        self._begin_above = begin_above
        self._world = world
        self._store: Store | None = None
        self._suspended: list[Store] = []
        self.starts_noted = 0
        """as the database has them; 0 if it was never read, or never noted any"""
        self._start_to_note = 0
        """the number of this start, until the database has it"""
        self._vouched_for: Committed | None = None
        self._unfit: Store | None = None
        """opened, and not gone on with: its audit alone is read"""
        self._is_foreign = False
        self._refused_openings = 0
        self._is_silent = False
        self._cached: Committed | None = None
        """at a start; what is in memory says more, later"""
        self._witnesses = Witnesses(view.committed)
        self._started = False
        self._failure: Exception | None = None
        self._turn = trio.Lock()  # the port promises its store one call at a time

    # ── first start ────────────────────────────────────────────────────────────────────────────

    async def start(
        self, witnessed: Mark, audited: Head, kept: Callable[[], Committed | None]
    ) -> None:
        """Open the database before anything runs, or go on read-only from what was kept.

        witnessed: how far this instance has come; audited: a row of its audit. A database that is
        behind the one, or has not the other, was rolled back or rewritten. Raises
        DatabaseUnopenable (exit 3) where nothing that verifies is left to go on from, or what the disk
        said, where that is all.
        """
        committed = self._cached = await trio.to_thread.run_sync(kept)
        self._witnesses.at_start(witnessed, audited, committed)
        await self._try_open()
        self._started = True
        if self._store is not None:
            return
        if committed is None and self._vouched_for is not None:
            committed = self._vouched_for
        if committed is None:
            nothing_to_restore = witnessed == Mark(0, 0) or isinstance(self._failure, DiskFull)
            if isinstance(self._failure, DatabaseUnavailable) and nothing_to_restore:
                raise self._failure  # of the disk alone
            what_helps = (
                "see `config-manager audit verify --data-dir`, then accept what is here (config-manager "
                "restore --accept) or restore a backup"
                if self._is_foreign
                else "mend that, or restore the database from a backup"
            )
            reasons = "; ".join(self.view.reasons).removesuffix(f"; {_FOREIGN}")
            raise DatabaseUnopenable(
                f"{reasons}, and no last-known-good cache verifies; {what_helps}"
            )
        self.view.publishable = False
        self.view.replace(committed)

    async def _begin_to_vouch(self, store: Store) -> None:
        """For what an earlier version wrote, which named no digests; the cache has said that it is what we
        knew. Callers hold the turn."""
        now = rfc3339(self._world.clock.now())
        who = Administrator("config-manager", None, now, self._world.randomness.uuid())
        assert self._cached is not None
        change = self._vouching.begin(self.view.committed, self._cached, who)
        try:
            await trio.to_thread.run_sync(store.commit, [change])
        except DiskFull as error:
            _log.error("not vouched", error=str(error))  # the next start begins again
            return
        except DatabaseUnavailable as error:
            await self._go_read_only(error)
            return
        _log.info("vouched", services=len(change.after.services), audit_seq=change.after.audit_seq)
        self.view.replace(change.after)

    async def note_boot(self, boot_seq: int) -> None:
        """Note a start in the database, too, where it can be: instance.json may be lost one day."""
        async with self._turn:
            await self._note_boot(boot_seq)

    async def _count_late(self) -> None:
        """This start was counted while the database could not be read: perhaps too low, if instance.json
        was lost. Callers hold the turn."""
        if self._start_to_note <= self.starts_noted:
            self._start_to_note = self._begin_above(self.starts_noted)
        await self._note_boot(self._start_to_note)
        self.view.wake()  # beacons count as this start

    async def _note_boot(self, boot_seq: int) -> None:
        self._start_to_note = boot_seq
        if self._store is not None:
            try:
                await trio.to_thread.run_sync(self._store.note_boot, boot_seq)
                self._start_to_note = 0
            except DiskFull:
                self._note_full()
            except DatabaseUnavailable as error:
                await self._go_read_only(error)

    async def administer_at_start(self, what: Administration[Any], correlation_id: str) -> bool:
        """Before anybody can ask: what the settings say about who may enter. False while read-only:
        then nothing was done.

        Raises DatabaseUnopenable where the database can't be written.
        """
        async with self._turn:
            if self._store is None:
                return False
            committed = self.view.committed
            now = self._world.clock.now()
            who = Administrator("settings", None, rfc3339(now), correlation_id)
            change = administrate(committed, what.decide(committed, now), who)
            try:
                await trio.to_thread.run_sync(self._store.commit, [change])
            except DatabaseUnavailable as error:
                raise DatabaseUnopenable(f"the database can't be written: {error}") from error
            self.view.replace(change.after)
            return True

    # ── lives ──────────────────────────────────────────────────────────────────────────────────

    def life(self) -> BatchLife:
        @asynccontextmanager
        async def life() -> AsyncIterator[BatchHandler]:
            if self._store is None and not self._is_foreign:
                await self._try_open()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                try:
                    yield self._handle
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await self._close()

        return life

    async def _watch(self) -> None:
        """Probe an open store, reopen a closed one; the disk has no other way to tell us."""
        structlog.contextvars.bind_contextvars(actor="storing")
        while True:
            if self._is_foreign:  # nobody mends that while we hold the data directory
                await trio.sleep_forever()
            elif self._store is None:
                # a database that contradicts what is known is read as a whole each time
                await trio.sleep(_REOPEN_INTERVAL_S * 2 ** min(self._refused_openings, _REFUSALS))
                await self._try_open()
            else:
                await trio.sleep(_PROBE_INTERVAL_S)
                async with self._turn:
                    store = self._store
                    if store is not None:
                        try:
                            await trio.to_thread.run_sync(store.probe)
                        except DatabaseUnavailable as error:
                            await self._go_read_only(error)

    async def _try_open(self) -> None:
        """Open and load; a store that is behind what we know stays shut (it was rolled back)."""
        async with self._turn:
            try:
                store, judgement = await trio.to_thread.run_sync(self._open_and_judge)
            except StartError as error:  # a wrong key, or a key file that others can read
                if not self._started:
                    raise
                await self._go_read_only(error)
                return
            except DatabaseUnavailable as error:
                await self._go_read_only(error)
                return
            if not await self._is_fit(store, judgement):
                return
            committed = judgement.committed
            self._store = store
            self._refused_openings = 0
            await self._let_unfit_go()
            await self._close_suspended()
            if self.view.mode == "read-only":
                _log.info("database available again", revision=committed.revision)
            self.view.mode = "normal"
            self.view.reasons = ()
            self.view.publishable = True
            self.view.replace(committed)
            if self._is_silent:
                await self._begin_to_vouch(store)
            if self._start_to_note:
                await self._count_late()

    async def _is_fit(self, store: Store, judgement: Judgement) -> bool:
        """Whether it says what we know, takes writes, and was written by us; else it is not gone on with, and
        why is said."""
        if self._started:
            self._witnesses.remember(self.view.committed)
        self._witnesses.accepted_epoch = judgement.replay.accepted_epoch
        foreign = judgement.not_audited
        try:
            contradiction = await trio.to_thread.run_sync(
                self._witnesses.contradiction, store, judgement.committed
            )
            if contradiction is None and not foreign:
                await trio.to_thread.run_sync(store.try_writing)
                self._is_silent = judgement.is_silent
                return True
        except DatabaseUnavailable as error:
            await trio.to_thread.run_sync(store.abandon)
            await self._go_read_only(error)
            return False
        await self._let_unfit_go()
        self._unfit = store
        self._refused_openings += 1
        if foreign:
            self._refuse_foreign(judgement, contradiction)
        else:
            assert contradiction is not None
            await self._suspect_rollback(contradiction)
        return False

    async def _let_unfit_go(self) -> None:
        unfit, self._unfit = self._unfit, None
        if unfit is not None:
            await trio.to_thread.run_sync(unfit.abandon)

    def _refuse_foreign(self, judgement: Judgement, contradiction: str | None) -> None:
        """Something was written past us. Nothing is published any more; what is left of it is shown where
        there is no cache. Callers hold the turn."""
        self._is_foreign, foreign = True, judgement.not_audited
        if judgement.is_whole:  # else nothing vouches for anything
            self._vouched_for = without(judgement.committed, foreign)
        self.view.publishable = False
        names = [one.reason for one in foreign]
        for one in foreign[:_MOST_NAMED]:
            _log.error("not audited", what=one.reason, why=one.why, audit_seq=one.row)
        more = [f"not-audited: {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
        if contradiction is not None:
            more.append(f"rollback-suspected: {contradiction}")
        self.view.mode = "read-only"
        self.view.reasons = (*names[:_MOST_NAMED], *more, _FOREIGN)
        self.view.wake()

    def _open_and_judge(self) -> tuple[Store, Judgement]:
        """Blocks; raises DatabaseUnavailable, StartError. Ends if nobody waits any more."""
        try:
            store = self._open_store()
        except OSError as error:
            raise DatabaseUnavailable(_without_path(error)) from error
        try:
            if self._started:  # it became unavailable, or was changed, under our hands
                store.try_writing()
                store.verify()
            with store.snapshot() as snapshot:
                self.starts_noted = self._vouching.starts_in(snapshot)
                cached = self.view.committed if self._started else self._cached
                look_up = _progress(snapshot.head.seq)
                return store, self._vouching.judge(snapshot, cached=cached, look_up=look_up)
        except BaseException:
            store.abandon()
            raise

    async def _go_read_only(self, error: Exception) -> None:
        """Callers hold the turn."""
        self._failure = error
        reason = f"database: {error}"
        # what it began with says more than what a later attempt to open it finds
        reasons = tuple(dict.fromkeys((*self.view.reasons[:1], reason)))
        if reasons != self.view.reasons:
            _log.error("database unavailable", error=str(error))
        self.view.mode = "read-only"
        self.view.reasons = reasons
        self.view.wake()
        if self._store is not None:
            # not closed: it holds what is known of the files, until they can be read again
            self._suspended.append(self._store)
            self._store = None

    async def _suspect_rollback(self, why: str) -> None:
        """Against a witness: rolled back, or a twin wrote on. Callers hold the turn."""
        self.view.publishable = False
        await self._go_read_only(
            DatabaseUnavailable(
                f"rollback-suspected: {why}; restore the newest backup, or stop the server and accept "
                "what is here: config-manager restore --accept"
            )
        )

    async def _weigh(self, witnessed: Witnessed) -> None:
        """A broker's retained documents are a witness, as instance.json is."""
        self._witnesses.hear(witnessed)
        if self._is_foreign:
            return
        if witnessed.boot_seq is not None:
            await self._note_boot(self._begin_above(witnessed.boot_seq))
        committed, store = self.view.committed, self._store
        contradiction = None
        if store is not None:
            try:
                contradiction = await trio.to_thread.run_sync(
                    self._witnesses.contradiction, store, committed
                )
            except DatabaseUnavailable as error:
                await self._go_read_only(error)
        else:
            contradiction = self._witnesses.behind(committed)
        if contradiction is not None:
            await self._suspect_rollback(contradiction)
        elif self.view.mode == "normal":
            self.view.publishable = True
            self.view.wake()

    async def _note_confirmed(self, confirmed: Confirmed) -> None:
        """For who looks into the outbox after a crash; what a broker holds is read from the broker."""
        if self._store is not None:
            try:
                await trio.to_thread.run_sync(self._store.mark_confirmed, confirmed.revisions)
            except DiskFull:
                self._note_full()  # the next read-back says it again
            except DatabaseUnavailable as error:
                await self._go_read_only(error)

    async def _keep_house(self, request: Witnessed | Confirmed | ResealSecrets) -> Outcome[Any]:
        """What changes nothing that anybody decides on."""
        match request:
            case Witnessed():
                await self._weigh(request)
            case Confirmed():
                await self._note_confirmed(request)
            case ResealSecrets():
                return await self._reseal(request)
        return Value(None)

    async def _reseal(self, request: ResealSecrets) -> Outcome[Resealed | None]:
        """Under the key that is committed to be the one: what this batch decides comes later."""
        if self._store is None:
            return Error(self._read_only())
        box = self._secret_boxes.sealing(self.view.committed)
        try:
            resealed = await trio.to_thread.run_sync(
                _reseal, self._store, self._secret_boxes, box, request
            )
        except DiskFull:
            self._note_full()
            return Error(StorageFull("the disk is full: free some space"))
        except DatabaseUnavailable as error:
            await self._go_read_only(error)
            return Error(self._read_only())
        return Value(resealed)

    def _note_full(self) -> None:
        """Until a commit succeeds: reads and small writes may go on, so the mode stays normal."""
        self.view.notices[_FULL] = (
            "the disk is full: the last write was refused; free some space (a write that succeeds ends "
            "this notice)"
        )

    async def _close(self) -> None:
        async with self._turn:
            await self._close_suspended()
            store, self._store = self._store, None
            if store is not None:
                await trio.to_thread.run_sync(store.close)
            await self._let_unfit_go()

    async def _close_suspended(self) -> None:
        suspended, self._suspended = self._suspended, []
        for store in suspended:
            await trio.to_thread.run_sync(store.abandon)

    # ── one batch ──────────────────────────────────────────────────────────────────────────────

    async def _handle(self, jobs: Sequence[tuple[Any, Context]]) -> Sequence[Outcome[Any]]:
        with trio.CancelScope(shield=True):  # what is decided is committed and answered
            async with self._turn:
                return await self._decide_and_commit(jobs)
        raise AssertionError("a shielded scope is never cancelled")

    async def _decide_and_commit(
        self, jobs: Sequence[tuple[Any, Context]]
    ) -> Sequence[Outcome[Any]]:
        outcomes: list[Outcome[Any]] = []
        accepted: list[tuple[int, Commit, Write[Any]]] = []
        batch = _Batch()
        kept: dict[int, Outcome[Any]] = {}
        for index, (request, _) in enumerate(jobs):
            if isinstance(request, Witnessed | Confirmed | ResealSecrets):
                kept[index] = await self._keep_house(request)
        committed = self.view.committed
        for index, (request, context) in enumerate(jobs):
            if index in kept:
                outcomes.append(kept[index])
                continue
            try:
                if isinstance(request, ReadSecrets | CountSecrets):
                    answer, change = await self._read(request), None
                else:
                    answer, change = self._decide(committed, request, context, batch)
            except Refusal as refusal:
                outcomes.append(Error(refusal))
                continue
            except DatabaseUnavailable as error:
                await self._go_read_only(error)
                outcomes.append(Error(self._read_only()))
                continue
            outcomes.append(Value(answer))
            if change is not None:
                accepted.append((index, change, request))
                committed = change.after
                batch.note(change)
        if accepted:
            await self._commit(accepted, jobs, outcomes)
        return outcomes

    async def read_page(self, request: ReadHistory | ReadAudit) -> object:
        """Beside the writer, not in its turn: 500 large changes took half a second. Raises ReadOnly."""
        store = self._store
        if store is None and isinstance(request, ReadAudit):
            store = self._unfit
        if store is None:
            raise ReadOnly("the history can't be read while the database is unavailable")
        try:
            return await trio.to_thread.run_sync(_read_page, store, request)
        except DatabaseUnavailable as error:
            with trio.CancelScope(shield=True):
                async with self._turn:
                    if self._store is store:
                        await self._go_read_only(error)
            raise self._read_only() from None

    async def judge_audit(self, contains: str | None, look_up: Callable[[], None]) -> Judgement:
        """Every row of the audit, against the end that this server holds in memory and against all that is
        kept; on a connection of its own. look_up: see `Vouching.judge`. Raises ReadOnly."""
        store = self._store or self._unfit
        if store is None:
            raise ReadOnly("the audit can't be read while the database is unavailable")
        before = self.view.committed
        known = (Head(before.audit_seq, before.audit_head, "the running server"),)

        def judge() -> Judgement:
            with store.snapshot() as snapshot:
                return self._vouching.judge(
                    snapshot, known, cached=before, contains=contains, look_up=look_up
                )

        try:
            judgement = await trio.to_thread.run_sync(judge)
        except DatabaseUnavailable as error:
            raise ReadOnly(f"the audit can't be read now: {error}") from error
        async with self._turn:  # what is committed is in the view by then
            newest = self.view.committed.audit_seq
        end = judgement.committed.audit_seq
        if judgement.verdict.problem is None and end > newest and store is self._store:
            detail = f"row {newest + 1} stands behind the last one that the running server knows"
            verdict = replace(judgement.verdict, problem=AuditFault(newest + 1, "head", detail))
            return replace(judgement, verdict=verdict)
        return judgement

    def _read_only(self) -> ReadOnly:
        """What a refused write is told: of a disk, or of a database that is not gone on with."""
        if self._unfit is None:
            return ReadOnly(WHAT_TO_DO)
        return ReadOnly(f"nothing is written: {self.view.reasons[0]}; see `reasons` in GET /health")

    async def _read(self, request: ReadSecrets | CountSecrets) -> object:
        """In a thread. Raises ReadOnly, DatabaseUnavailable."""
        if self._store is None:
            raise self._read_only()
        return await trio.to_thread.run_sync(_read, self._store, request)

    def _decide(
        self,
        committed: Committed,
        request: Any,
        context: Context,
        batch: _Batch,
    ) -> tuple[Any, Commit | None]:
        """An answer, and what has to be committed before it may be given."""
        store = self._store
        if store is None:
            raise self._read_only()
        now = self._world.clock.now()
        if isinstance(request, NotDoneYet):
            self._refuse_repetition(store, request.idempotency, now)
            return None, None
        assert isinstance(request, Write)
        if request.idempotency is not None:
            record = batch.records.get(request.idempotency.key) or store.idempotency(
                request.idempotency.key, since=now - IDEMPOTENCY_KEPT_S
            )
            if record is not None:
                return self._replay(record, request, request.idempotency), None
        if isinstance(request, Administer | RevealSecret | Deliver):
            return self._decide_administration(store, committed, request, context, now, batch)
        return self._decide_write(committed, request, context, now, batch)

    def _decide_administration(
        self,
        store: Store,
        committed: Committed,
        request: Administer[Any] | RevealSecret | Deliver,
        context: Context,
        now: float,
        batch: _Batch,
    ) -> tuple[Any, Commit | None]:
        """now: Unix seconds."""
        done: Administered[Any]
        if isinstance(request, RevealSecret):
            done = self._reveal(request, committed, batch.sealed(store, request))
        elif isinstance(request, Deliver):
            done = self._seal_for(request.device, committed, store).decide(committed, now)
        else:
            done = request.what.decide(committed, now)
        who = Administrator(request.by, request.reason, rfc3339(now), context.correlation_id)
        change = administrate(committed, done, who)
        if request.dry_run:
            return done.answer, None
        kept = orjson.dumps(done.answer) if done.repeatable else _NOT_KEPT
        return done.answer, self._with_record(change, request, kept, batch.records)

    def _decide_write(
        self,
        committed: Committed,
        request: Write[Any],
        context: Context,
        now: float,
        batch: _Batch,
    ) -> tuple[Written | EpochWritten, Commit | None]:
        """now: Unix seconds."""
        assert isinstance(
            request,
            PutConfig | PatchConfig | DeleteConfig | SetSecret | DeleteSecret | NewEpoch,
        )
        decision = changes.decide(
            committed,
            request,
            by=request.by,
            reason=request.reason,
            catalogue=self._catalogue,
            at=rfc3339(now),
            correlation_id=context.correlation_id,
            epoch_id=self._world.randomness.uuid() if isinstance(request, NewEpoch) else "",
            seal=self._secret_boxes.sealing(committed).seal,
        )
        answer = _answer(request, decision, context)
        if request.dry_run:
            return answer, None
        kept = b"" if request.idempotency is None else _encode_answer(answer)
        return answer, self._with_record(decision.change, request, kept, batch.records)

    def _seal_for(self, device: Device, committed: Committed, store: Store) -> KeepDelivery:
        """A service's secrets for one of its devices. Raises TooLarge where they fit no message, and
        Conflict where one is about to change: then this is asked again."""
        state = committed.live(device.service)
        wanted = dict(state.secrets) if state is not None else {}
        mark = state.mark if state is not None else committed.mark
        empty = Sealed(device.service, device.instance, mark.epoch_seq, mark.revision, {})
        values: dict[str, SealedValue] = {}
        for row in store.secrets(device.service):
            if wanted.get(row.name) == row.version:
                values[row.name] = seal(
                    self._open(row),
                    sealed=empty,
                    name=row.name,
                    version=row.version,
                    public=device.seal_public,
                )
        if values.keys() != wanted.keys():  # written in this very batch, not in the store yet
            raise Conflict("the secrets are being changed")
        payload = replace(empty, secrets=values).to_bytes()
        size = wire.envelope_size(len(payload), "")
        if size > wire.MAX_ENVELOPE_BYTES:
            raise TooLarge(
                f"the secrets of {device.service} would be a message of {size} bytes; "
                f"services take at most {wire.MAX_ENVELOPE_BYTES}"
            )
        made = Delivery(payload, wanted, device.sign_keyid)
        mac = self._vouching.delivery_mac(f"{device.service}/{device.instance}", made)
        return KeepDelivery(device, replace(made, mac=mac))

    def _open(self, sealed: SealedSecret) -> Secret:
        """Raises SecretUnreadable."""
        try:
            return self._secret_boxes.open(sealed)
        except CryptoError:
            raise SecretUnreadable(
                f"version {sealed.version} of {sealed.service}'s {sealed.name} does not open: it was "
                "altered, or the key that sealed it is gone; put keys/secrets.key back from where "
                "you keep it, or set the secret anew"
            ) from None

    def _reveal(
        self, request: RevealSecret, committed: Committed, kept: Sequence[SealedSecret]
    ) -> Administered[Revealed]:
        """The value, with the audit row that is committed before it is answered."""
        known = committed.services.get(request.service)
        if known is None or request.name not in known.secrets:
            raise NotFound(f"{request.service} has no secret of this name")
        version = request.version or known.secrets[request.name]
        sealed = next((s for s in kept if s.version == version), None)
        if sealed is None:
            raise NotFound(f"{request.service} has no version {version} of this secret")
        value = self._open(sealed)
        details = {"service": request.service, "name": request.name, "version": version}
        revealed = Revealed(version, sealed.updated_at, value)
        return Administered("secret.reveal", details, (), revealed, repeatable=False)

    def _with_record(
        self,
        change: Commit,
        request: Write[Any],
        answer: bytes,
        records: dict[str, IdempotencyRecord],
    ) -> Commit:
        if request.idempotency is None:
            return change
        record = IdempotencyRecord(
            request.idempotency.key,
            self._keyed(request.idempotency),
            answer,
            self._world.clock.now(),
        )
        records[record.key] = record
        return replace(change, idempotency=record)

    def _keyed(self, idempotency: Idempotency) -> bytes:
        return hmac.digest(self._fingerprint_key, idempotency.fingerprint, "sha256")

    def _check_repeats(self, record: IdempotencyRecord, asked: Idempotency) -> None:
        """Raises IdempotencyMismatch where the key was used for another request."""
        if not hmac.compare_digest(record.fingerprint, self._keyed(asked)):
            raise IdempotencyMismatch(
                "this Idempotency-Key was used within the last 24 hours for another request; "
                "use a new key for a new request"
            )

    def _replay(self, record: IdempotencyRecord, request: Write[Any], asked: Idempotency) -> Any:
        """What was answered to this very request before."""
        self._check_repeats(record, asked)
        if not isinstance(request, Administer):
            return _decode_answer(record.answer)
        if record.answer == _NOT_KEPT:
            raise Conflict(_DONE)
        return orjson.loads(record.answer)

    def _refuse_repetition(self, store: Store, asked: Idempotency, now: float) -> None:
        record = store.idempotency(asked.key, since=now - IDEMPOTENCY_KEPT_S)
        if record is not None:
            self._check_repeats(record, asked)
            raise Conflict(_DONE)

    async def _commit(
        self,
        accepted: Sequence[tuple[int, Commit, Write[Any]]],
        jobs: Sequence[tuple[Any, Context]],
        outcomes: list[Outcome[Any]],
    ) -> None:
        refusal: Refusal
        try:
            if self._store is None:  # a read in this very batch found it gone
                raise DatabaseUnavailable("the database became unavailable")
            finish = self._store.begin([change for _, change, _ in accepted])
            await trio.to_thread.run_sync(finish)
        except DiskFull as error:
            _log.error("disk full", actor="storing", writes=len(accepted), error=str(error))
            self._note_full()
            refusal = StorageFull(
                "the disk is full: nothing was written; free some space and retry"
            )
        except CommitUnsure as error:
            await self._go_read_only(error)
            refusal = OutcomeUnknown(
                "the disk failed while this was committed: it may have been written all the same. "
                "Read before you repeat it; an Idempotency-Key makes repeating safe"
            )
        except DatabaseUnavailable as error:
            if self._store is not None:
                await self._go_read_only(error)
            refusal = self._read_only()
        else:
            self.view.notices.pop(_FULL, None)
            self.view.replace(accepted[-1][1].after)
            for index, change, request in accepted:
                _log_committed(change, request, jobs[index][1])
            return
        for index, outcome in enumerate(outcomes):
            # a replay of a write of this very batch goes down with it
            if isinstance(outcome, Value) and isinstance(jobs[index][0], Write):
                outcomes[index] = Error(refusal)


class _Batch:
    """What the requests of one batch have come to that the store does not hold yet."""

    def __init__(self) -> None:
        self.records: dict[str, IdempotencyRecord] = {}
        self._secrets: list[SealedSecret] = []
        self._forgotten: set[tuple[str, str]] = set()

    def note(self, change: Commit) -> None:
        if change.forgotten is not None:
            self._forgotten.add(change.forgotten)
            self._secrets = [s for s in self._secrets if (s.service, s.name) != change.forgotten]
        if change.secret is not None:
            self._secrets.append(change.secret)

    def sealed(self, store: Store, request: RevealSecret) -> Sequence[SealedSecret]:
        """The versions of the secret that is asked for, those of this very batch included."""
        place = request.service, request.name
        kept = () if place in self._forgotten else store.secret_versions(*place)
        return [*kept, *(s for s in self._secrets if (s.service, s.name) == place)]


def _without_path(error: OSError) -> str:
    """`reasons` are for everybody: no place on this machine is in them."""
    name = PurePath(str(error.filename)).name if error.filename is not None else "a file"
    return f"{name}: {error.strerror or error}"


def _progress(rows: int) -> Callable[[], None]:
    """A long audit takes 20 µs a row: who waits for a start is told, and who wants it to stop is heard."""
    next_line = time.monotonic() + _PROGRESS_S

    def look_up() -> None:
        nonlocal next_line
        trio.from_thread.check_cancelled()
        if time.monotonic() > next_line:
            next_line = time.monotonic() + _PROGRESS_S
            _log.info("comparing what is kept with the audit", rows=rows)

    return look_up


def _read_page(store: Store, request: ReadHistory | ReadAudit) -> object:
    match request:
        case ReadHistory(query):
            return store.history(query)
        case ReadAudit(after, limit, most_bytes):
            return store.audit(after=after, limit=limit, most_bytes=most_bytes)
        case _ as unreachable:
            assert_never(unreachable)


def _read(store: Store, request: ReadSecrets | CountSecrets) -> object:
    match request:
        case ReadSecrets(service, name):
            return store.secret_versions(service, name)
        case CountSecrets(key_id):
            return store.count_secrets(key_id)
        case _ as unreachable:
            assert_never(unreachable)


def _reseal(
    store: Store, boxes: SecretBoxes, box: SecretBox, request: ResealSecrets
) -> Resealed | None:
    """A page of what is not under this key. What doesn't open stays as it is."""
    page = store.secrets_under_other_keys(box.key_id, after=request.after, limit=request.limit)
    if not page:
        return None
    done: list[SealedSecret] = []
    for row in page:
        with suppress(CryptoError):
            value = boxes.open(row)
            done.append(box.seal(row.service, row.name, row.version, value, row.updated_at))
    if done:
        store.reseal(done)
    last = page[-1]
    return Resealed(len(done), len(page) - len(done), (last.service, last.name, last.version))


def _answer(request: Write[Any], decision: Decision, context: Context) -> Written | EpochWritten:
    change = decision.change
    if isinstance(request, NewEpoch):
        return EpochWritten(
            config_epoch=change.after.epoch.id,
            epoch_seq=change.after.epoch.seq,
            revision=change.after.revision,
            services=change.services,
            correlation_id=context.correlation_id,
        )
    return Written(change.services[0], decision.first, decision.changes)


def _log_committed(change: Commit, request: Write[Any], context: Context) -> None:
    if not change.services and change.audit is not None:
        _log.info(
            "administered",
            actor="storing",
            request_id=context.correlation_id,
            correlation_id=context.correlation_id,
            audit_seq=change.audit.seq,
            action=orjson.loads(change.audit.body)["action"],
            by=request.by,
        )
    for state in change.services:
        _log.info(
            "committed",
            actor="storing",
            request_id=state.correlation_id,
            correlation_id=state.correlation_id,
            service=state.service,
            action=change.history[0].entry.action,
            config_epoch=state.epoch.id,
            epoch_seq=state.epoch.seq,
            revision=state.revision,
            by=request.by,
        )


def _encode_answer(answer: Written | EpochWritten) -> bytes:
    """The answer without payload bytes, as the idempotency row keeps it."""
    match answer:
        case Written(state, first, _):
            states, epoch = (state,), None
        case EpochWritten(epoch_id, epoch_seq, revision, states, correlation_id):
            first = False
            epoch = [epoch_id, epoch_seq, revision, correlation_id]
    return orjson.dumps(
        {
            "states": [state_codec.encode_service(replace(s, payload=b"")) for s in states],
            "first": first,
            "epoch": epoch,
        }
    )


def _decode_answer(data: bytes) -> Written | EpochWritten:
    value = orjson.loads(data)
    states = tuple(state_codec.decode_service(item) for item in value["states"])
    if value["epoch"] is not None:
        epoch_id, epoch_seq, revision, correlation_id = value["epoch"]
        return EpochWritten(epoch_id, epoch_seq, revision, states, correlation_id, replayed=True)
    return Written(states[0], value["first"], (), replayed=True)
