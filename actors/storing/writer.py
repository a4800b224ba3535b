"""The single writer: writes that wait together are decided in order and committed together.

Deciding is pure (`storage.decisions.decider`); committing runs in one worker thread. The reply follows the
commit. A caller that has left stops neither: this is the actor's task, not the request's.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import orjson
import structlog
import trio
from nacl.exceptions import CryptoError
from outcome import Error, Outcome, Value

from config_manager.actors.actor import BatchHandler, BatchLife, Context
from config_manager.actors.measuring import Measures
from config_manager.actors.messages import (
    Confirmed,
    Keep,
    NotDoneYet,
    Prune,
    Resealed,
    ResealSecrets,
    Witnessed,
    Write,
)
from config_manager.actors.storing.opening import DISK_FULL, Opening
from config_manager.actors.tracing import Tracing
from config_manager.config.errors import (
    DatabaseUnopenable,
    OutcomeUnknown,
    Refusal,
    SecretUnreadable,
    StorageFull,
)
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from config_manager.config.world import World
from config_manager.storage.decisions.decider import Decider
from config_manager.storage.decisions.equipment import Decidable, Tools
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.secret_box import SecretBox, SecretBoxes
from config_manager.storage.state import Commit, SealedSecret
from config_manager.storage.store import (
    CommitUnsure,
    DatabaseUnavailable,
    DiskFull,
    Store,
)

A = TypeVar("A")

_log = structlog.get_logger()


def tools_of(
    shapes: Shapes,
    boxes: SecretBoxes,
    vouching: Vouching,
    fingerprint_key: bytes,
    world: World,
) -> Tools:
    """fingerprint_key: 32 bytes."""

    def opened(sealed: SealedSecret) -> Secret:
        try:
            return boxes.open(sealed)
        except CryptoError:
            raise SecretUnreadable(
                f"version {sealed.version} of {sealed.service}'s {sealed.name} does not open: it was "
                "altered, or the key that sealed it is gone; put keys/secrets.key back from where "
                "you keep it, or set the secret anew"
            ) from None

    return Tools(
        shapes,
        new_id=world.randomness.uuid,
        seal=lambda committed: boxes.sealing(committed).seal,
        open=opened,
        seal_for_device=seal,
        delivery_mac=vouching.delivery_mac,
        keyed=lambda fingerprint: hmac.digest(fingerprint_key, fingerprint, "sha256"),
    )


class Writer:
    """What the storing actor works on across its lives."""

    def __init__(
        self,
        opening: Opening,
        tools: Tools,
        boxes: SecretBoxes,
        world: World,
        measures: Measures,
        tracing: Tracing,
    ) -> None:
        self._opening = opening
        self._view = opening.view
        self._tools = tools
        self._boxes = boxes
        self._world = world
        self._measures = measures
        self._tracing = tracing

    async def administer_at_start(self, what: Decidable[Any], correlation_id: str) -> bool:
        """Write what the settings say about access, before any request. False if the mode is read-only: then nothing
        was done. Raises DatabaseUnopenable if the database can't be written."""
        async with self._opening.turn:
            store = self._opening.store
            if store is None:
                return False
            decider = Decider(self._tools, self._view.committed, store)
            now = self._world.clock.now()
            _, change = decider.decide(
                what, Terms("settings"), now=now, correlation_id=correlation_id
            )
            assert change is not None
            try:
                await trio.to_thread.run_sync(store.commit, [change])
            except DatabaseUnavailable as error:
                raise DatabaseUnopenable(f"the database can't be written: {error}") from error
            self._view.replace(change.after)
            return True

    def life(self) -> BatchLife:
        @asynccontextmanager
        async def life() -> AsyncGenerator[BatchHandler]:
            await self._opening.begin_life()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._opening.watch)
                try:
                    yield self._handle
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await self._opening.close()

        return life

    # ── one batch ──────────────────────────────────────────────────────────────────────────────

    async def _handle(self, jobs: Sequence[tuple[Any, Context]]) -> Sequence[Outcome[Any]]:
        with trio.CancelScope(shield=True):  # what is decided is committed and answered
            async with self._opening.turn:
                return await self._decide_and_commit(jobs)
        raise AssertionError("a shielded scope is never cancelled")

    async def _decide_and_commit(
        self, jobs: Sequence[tuple[Any, Context]]
    ) -> Sequence[Outcome[Any]]:
        kept: dict[int, Outcome[Any]] = {}
        # these first: they may change what the writes are decided on
        for index, (request, _) in enumerate(jobs):
            if isinstance(request, Witnessed | Confirmed | Keep | Prune | ResealSecrets):
                kept[index] = await self._keep_house(request)
        store = self._opening.store
        decider = None if store is None else Decider(self._tools, self._view.committed, store)
        outcomes: list[Outcome[Any]] = []
        accepted: list[tuple[int, Commit]] = []
        for index, (request, context) in enumerate(jobs):
            if index in kept:
                outcomes.append(kept[index])
                continue
            try:
                answer, change = self._decide(decider, request, context)
            except Refusal as refusal:
                outcomes.append(Error(refusal))
                continue
            except DatabaseUnavailable as error:
                self._opening.go_read_only(error)
                outcomes.append(Error(self._opening.refusal()))
                continue
            outcomes.append(Value(answer))
            if change is not None:
                accepted.append((index, change))
        if accepted:
            await self._commit(accepted, jobs, outcomes)
        return outcomes

    def _decide(
        self, decider: Decider | None, request: Write[A] | NotDoneYet, context: Context
    ) -> tuple[A | None, Commit | None]:
        """See `Decider.decide`."""
        if decider is None or self._opening.store is None:
            raise self._opening.refusal()
        now = self._world.clock.now()
        if isinstance(request, NotDoneYet):
            decider.refuse_repetition(request.idempotency, now=now)
            return None, None
        return decider.decide(
            request.what, request.terms, now=now, correlation_id=context.correlation_id
        )

    async def _commit(
        self,
        accepted: Sequence[tuple[int, Commit]],
        jobs: Sequence[tuple[Any, Context]],
        outcomes: list[Outcome[Any]],
    ) -> None:
        refusal: Refusal
        try:
            if self._opening.store is None:  # a read in this very batch found it gone
                raise DatabaseUnavailable("the database became unavailable")
            began = trio.current_time()
            changes = [change for _, change in accepted]
            await trio.to_thread.run_sync(self._opening.store.begin(changes))
        except DiskFull as error:
            _log.error("disk full", actor="storing", writes=len(accepted), error=str(error))
            self._opening.note_full()
            refusal = StorageFull(
                "the disk is full: nothing was written; free some space and retry"
            )
        except CommitUnsure as error:
            self._opening.go_read_only(error)
            refusal = OutcomeUnknown(
                "the disk failed while this was committed: it may have been written all the same. "
                "Read before you repeat it; an Idempotency-Key makes repeating safe"
            )
        except DatabaseUnavailable as error:
            if self._opening.store is not None:
                self._opening.go_read_only(error)
            refusal = self._opening.refusal()
        else:
            self._measures.committed(changes, trio.current_time() - began)
            self._view.notices.pop(DISK_FULL, None)
            self._view.replace(accepted[-1][1].after)
            for index, change in accepted:
                request, context = jobs[index]
                self._tracing.committed(change, context, len(changes))
                _log_committed(change, request.terms.by, context)
            return
        for index, outcome in enumerate(outcomes):
            # also the repetition of a write in this batch, which was answered from it
            if isinstance(outcome, Value) and isinstance(jobs[index][0], Write):
                outcomes[index] = Error(refusal)

    # ── what nobody decides ────────────────────────────────────────────────────────────────────

    async def _keep_house(
        self, request: Witnessed | Confirmed | Keep | Prune | ResealSecrets
    ) -> Outcome[Any]:
        match request:
            case Witnessed():
                await self._opening.weigh(request)
            case Confirmed(revisions):
                # for an operator who looks into the outbox after a crash; the next read-back says it again
                await self._mark_confirmed(revisions)
            case Keep(observed):
                kept = await self._opening.best_effort(lambda store: store.keep_observed(observed))
                return Value(kept)
            case Prune(before, limit):
                return Value(await self._prune(before, limit))
            case ResealSecrets():
                return await self._reseal(request)
        return Value(None)

    async def _mark_confirmed(self, revisions: Sequence[tuple[str, int]]) -> None:
        times = self._tracing.take_unkept()
        if not await self._opening.best_effort(
            lambda store: store.mark_confirmed(revisions, times)
        ):
            self._tracing.not_kept(times)

    async def _prune(self, before: float, limit: int) -> int:
        gone = 0

        def prune(store: Store) -> None:
            nonlocal gone
            gone = store.prune_observed(before, limit)

        await self._opening.best_effort(prune)
        return gone

    async def _reseal(self, request: ResealSecrets) -> Outcome[Resealed | None]:
        """Seal under the key that is committed now: the writes of this batch are decided later."""
        store = self._opening.store
        if store is None:
            return Error(self._opening.refusal())
        box = self._boxes.sealing(self._view.committed)
        try:
            resealed = await trio.to_thread.run_sync(_reseal, store, self._boxes, box, request)
        except DiskFull:
            self._opening.note_full()
            return Error(StorageFull("the disk is full: free some space"))
        except DatabaseUnavailable as error:
            self._opening.go_read_only(error)
            return Error(self._opening.refusal())
        return Value(resealed)


def _reseal(
    store: Store, boxes: SecretBoxes, box: SecretBox, request: ResealSecrets
) -> Resealed | None:
    """Seal a page of versions that lie under other keys. A version that doesn't open stays as it is."""
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


def _log_committed(change: Commit, by: str, context: Context) -> None:
    if not change.services and change.audit is not None:
        _log.info(
            "administered",
            actor="storing",
            request_id=context.correlation_id,
            correlation_id=context.correlation_id,
            audit_seq=change.audit.seq,
            action=orjson.loads(change.audit.body)["action"],
            by=by,
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
            by=by,
        )
