"""The store: opened, judged, probed, given up, and opened again.

A database that can't be read or written, or that contradicts what is known, is given up. The mode becomes
read-only: reads go on from memory (or from the last-known-good cache, if the start found the database damaged),
writes are refused, and a fresh open is tried until one succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import PurePath

import structlog
import trio

from config_manager.actors.messages import Witnessed
from config_manager.actors.storing.witnesses import Witnesses
from config_manager.actors.views import CommittedView
from config_manager.config.audit import Head
from config_manager.config.errors import DatabaseUnopenable, ReadOnly, StartError
from config_manager.config.names import Mark
from config_manager.config.world import World
from config_manager.storage.decisions.changes import Occasion
from config_manager.storage.decisions.vouching import Judgement, Vouching, without
from config_manager.storage.state import Committed, SchemaVersion
from config_manager.storage.store import DatabaseUnavailable, DiskFull, Store

DISK_FULL = "disk-full"
"""The notice that ends with the next commit."""
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
_VERSIONS = 32
"""Of a service's schema: values go that many versions down for older code."""

_log = structlog.get_logger()

WHAT_TO_DO = (
    "the database can't be written now: reads and the published configuration go on, "
    "writes are refused; see `reasons` in GET /health, free or repair the disk, and try again"
)


class Opening:
    """What the storing actor and the reading beside it share, across lives.

    Callers of `go_read_only`, `weigh` and `best_effort` hold the turn.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        view: CommittedView,
        *,
        vouching: Vouching,
        begin_above: Callable[[int], int],
        world: World,
    ) -> None:
        """vouching: tells which rows this server wrote. begin_above: given the number of a start that others know of, it
        answers the number that this start has from then on."""
        self.view = view
        self.store: Store | None = None
        self.unfit: Store | None = None
        """opened and refused: only its audit is read"""
        self.turn = trio.Lock()
        """the port promises its store one call at a time"""
        self.starts_noted = 0
        """as the database has them; 0 if it was never read, or never noted any"""
        self._open_store = open_store
        self._vouching = vouching
        self._begin_above = begin_above
        self._world = world
        self._start_to_note = 0
        """the number of this start, until the database has it"""
        self._suspended: list[Store] = []
        self._witnesses = Witnesses(view.committed)
        self._cached: Committed | None = None
        """what the cache held at the start; later what is in memory says more"""
        self._started = False
        self._failure: Exception | None = None
        self._vouched_for: Committed | None = None
        self._is_foreign = False
        self._refused_openings = 0

    # ── for others ─────────────────────────────────────────────────────────────────────────────

    def demand_store(self) -> Store:
        """Raises ReadOnly."""
        if self.store is None:
            raise self.refusal()
        return self.store

    def schema_versions(self, service: str) -> Sequence[SchemaVersion]:
        """The newest versions of a service's schema, newest first; none while there is no store. Raises
        DatabaseUnavailable."""
        store = self.store
        return () if store is None else store.schema_versions(service, limit=_VERSIONS)

    def refusal(self) -> ReadOnly:
        """The refusal of a write, which tells about the disk, or about the database that was refused."""
        if self.unfit is None:
            return ReadOnly(WHAT_TO_DO)
        return ReadOnly(f"nothing is written: {self.view.reasons[0]}; see `reasons` in GET /health")

    def note_full(self) -> None:
        """Note that the disk is full, until a commit succeeds. Reads and small writes may go on, so the mode stays normal."""
        self.view.notices[DISK_FULL] = (
            "the disk is full: the last write was refused; free some space (a write that succeeds ends "
            "this notice)"
        )

    def go_read_only(self, error: Exception) -> None:
        self._failure = error
        reason = f"database: {error}"
        # the first reason says more than what a later attempt to open it finds
        reasons = tuple(dict.fromkeys((*self.view.reasons[:1], reason)))
        if reasons != self.view.reasons:
            _log.error("database unavailable", error=str(error))
        self.view.mode = "read-only"
        self.view.reasons = reasons
        self.view.wake()
        if self.store is not None:
            # not closed: it knows how the files should be, until they can be read again
            self._suspended.append(self.store)
            self.store = None

    async def give_up(self, store: Store, error: Exception) -> None:
        """Go read-only, unless another store was opened meanwhile."""
        async with self.turn:
            if self.store is store:
                self.go_read_only(error)

    # ── opening ────────────────────────────────────────────────────────────────────────────────

    async def start(
        self, witnessed: Mark, audited: Head, kept: Callable[[], Committed | None]
    ) -> None:
        """Open the database before anything runs, or go on read-only from what was kept.

        witnessed: how far this instance has come; audited: a row of its audit. A database that is behind
        the first, or lacks the second, was rolled back or rewritten. Raises DatabaseUnopenable (exit 3) if
        nothing that verifies is left to go on from; or the DatabaseUnavailable, if only the disk is at fault.
        """
        committed = self._cached = await trio.to_thread.run_sync(kept)
        self._witnesses.at_start(witnessed, audited, committed)
        await self._try_open()
        self._started = True
        if self.store is not None:
            return
        committed = committed or self._vouched_for
        if committed is None:
            nothing_to_restore = witnessed == Mark(0, 0) or isinstance(self._failure, DiskFull)
            if isinstance(self._failure, DatabaseUnavailable) and nothing_to_restore:
                raise self._failure  # only the disk is at fault
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

    async def begin_life(self) -> None:
        """Open the store again if a life before this one crashed and closed it."""
        if self.store is None and not self._is_foreign:
            await self._try_open()

    async def _try_open(self) -> None:
        """Open and load; a store that is behind what we know stays shut (it was rolled back)."""
        async with self.turn:
            try:
                store, judgement = await trio.to_thread.run_sync(self._open_and_judge)
            except (StartError, DatabaseUnavailable) as error:
                if isinstance(error, StartError) and not self._started:
                    raise  # a wrong key, or a key file that others can read
                self.go_read_only(error)
                return
            if not await self._is_fit(store, judgement):
                return
            self.store = store
            self._refused_openings = 0
            await self._let_go()
            committed = judgement.committed
            if self.view.mode == "read-only":
                _log.info("database available again", revision=committed.revision)
            self.view.mode = "normal"
            self.view.reasons = ()
            self.view.publishable = True
            self.view.replace(committed)
            if judgement.is_silent:
                await self._begin_to_vouch(store)
            if self._start_to_note:
                await self._count_late()

    def _open_and_judge(self) -> tuple[Store, Judgement]:
        """Blocks; raises DatabaseUnavailable, StartError. Ends if nobody waits any more."""
        try:
            store = self._open_store()
        except OSError as error:
            # `reasons` are for everybody: no place on this machine is in them
            name = PurePath(str(error.filename)).name if error.filename is not None else "a file"
            raise DatabaseUnavailable(f"{name}: {error.strerror or error}") from error
        try:
            if self._started:  # it became unavailable, or changed, while we had it open
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

    async def _is_fit(self, store: Store, judgement: Judgement) -> bool:
        """Whether it agrees with what we know, takes writes, and was written by us. If not, it is refused, and the
        reasons say why."""
        if self._started:
            self._witnesses.remember(self.view.committed)
        self._witnesses.accepted_epoch = judgement.replay.accepted_epoch
        try:
            contradiction = await trio.to_thread.run_sync(
                self._witnesses.contradiction, store, judgement.committed
            )
            if contradiction is None and not judgement.not_audited:
                await trio.to_thread.run_sync(store.try_writing)
                return True
        except DatabaseUnavailable as error:
            await _abandon(store)
            self.go_read_only(error)
            return False
        refused, self.unfit = self.unfit, store
        await _abandon(refused)
        self._refused_openings += 1
        if judgement.not_audited:
            self._refuse_foreign(judgement, contradiction)
        else:
            assert contradiction is not None
            self._suspect_rollback(contradiction)
        return False

    def _refuse_foreign(self, judgement: Judgement, contradiction: str | None) -> None:
        """Somebody else wrote to it. Nothing is published any more. If there is no cache, readers get what this server
        wrote of it."""
        self._is_foreign, foreign = True, judgement.not_audited
        if judgement.is_whole:  # else nothing in it is proved to be ours
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

    def _suspect_rollback(self, why: str) -> None:
        """A witness says otherwise: the database was rolled back, or a twin wrote on."""
        self.view.publishable = False
        self.go_read_only(
            DatabaseUnavailable(
                f"rollback-suspected: {why}; restore the newest backup, or stop the server and accept "
                "what is here: config-manager restore --accept"
            )
        )

    async def _begin_to_vouch(self, store: Store) -> None:
        """Vouch for what an earlier version wrote, whose audit rows name no digests. It was compared with the cache."""
        assert self._cached is not None
        now, correlation_id = self._world.clock.now(), self._world.randomness.uuid()
        on = Occasion("config-manager", None, now, correlation_id)
        change = self._vouching.begin(self.view.committed, self._cached, on)
        try:
            await trio.to_thread.run_sync(store.commit, [change])
        except DiskFull as error:
            _log.error("not vouched", error=str(error))  # the next start begins again
            return
        except DatabaseUnavailable as error:
            self.go_read_only(error)
            return
        _log.info("vouched", services=len(change.after.services), audit_seq=change.after.audit_seq)
        self.view.replace(change.after)

    # ── while it is open ───────────────────────────────────────────────────────────────────────

    async def watch(self) -> None:
        """Probe an open store, reopen a closed one; the disk has no other way to tell us."""
        structlog.contextvars.bind_contextvars(actor="storing")
        while True:
            if self._is_foreign:  # nobody can mend that while we hold the data directory
                await trio.sleep_forever()
            elif self.store is None:
                # each attempt reads all of a database that is refused
                await trio.sleep(_REOPEN_INTERVAL_S * 2 ** min(self._refused_openings, _REFUSALS))
                await self._try_open()
            else:
                await trio.sleep(_PROBE_INTERVAL_S)
                await self._probe()

    async def _probe(self) -> None:
        async with self.turn:
            store = self.store
            if store is not None:
                try:
                    await trio.to_thread.run_sync(store.probe)
                except DatabaseUnavailable as error:
                    self.go_read_only(error)

    async def weigh(self, witnessed: Witnessed) -> None:
        """A broker's retained documents are a witness, as instance.json is."""
        self._witnesses.hear(witnessed)
        if self._is_foreign:
            return
        if witnessed.boot_seq is not None:
            await self._note_boot(self._begin_above(witnessed.boot_seq))
        committed, contradiction = self.view.committed, None
        if self.store is None:
            contradiction = self._witnesses.behind(committed)
        else:
            try:
                contradiction = await trio.to_thread.run_sync(
                    self._witnesses.contradiction, self.store, committed
                )
            except DatabaseUnavailable as error:
                self.go_read_only(error)
        if contradiction is not None:
            self._suspect_rollback(contradiction)
        elif self.view.mode == "normal":
            self.view.publishable = True
            self.view.wake()

    async def note_boot(self, boot_seq: int) -> None:
        """Note a start in the database, too, if it can be: instance.json may be lost one day."""
        async with self.turn:
            await self._note_boot(boot_seq)

    async def _count_late(self) -> None:
        """Count this start again: its number was chosen while the database could not be read. If instance.json was
        lost, it may be too low."""
        if self._start_to_note <= self.starts_noted:
            self._start_to_note = self._begin_above(self.starts_noted)
        await self._note_boot(self._start_to_note)
        self.view.wake()  # beacons count as this start

    async def _note_boot(self, boot_seq: int) -> None:
        self._start_to_note = boot_seq
        if await self.best_effort(lambda store: store.note_boot(boot_seq)):
            self._start_to_note = 0

    async def best_effort(self, work: Callable[[Store], None]) -> bool:
        """Do some work on the store that no caller waits for. Returns whether it was done."""
        if self.store is None:
            return False
        try:
            await trio.to_thread.run_sync(work, self.store)
        except DiskFull:
            self.note_full()
            return False
        except DatabaseUnavailable as error:
            self.go_read_only(error)
            return False
        return True

    # ── closing ────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        async with self.turn:
            await self._let_go()
            store, self.store = self.store, None
            if store is not None:
                await trio.to_thread.run_sync(store.close)

    async def _let_go(self) -> None:
        """Release every store that was given up or refused."""
        stores = (*self._suspended, self.unfit)
        self._suspended, self.unfit = [], None
        await _abandon(*stores)


async def _abandon(*stores: Store | None) -> None:
    for store in stores:
        if store is not None:
            await trio.to_thread.run_sync(store.abandon)


def _progress(rows: int) -> Callable[[], None]:
    """Called while an audit is read, which takes 20 µs a row: logs that it goes on, and ends it if the start is
    cancelled."""
    next_line = time.monotonic() + _PROGRESS_S

    def look_up() -> None:
        nonlocal next_line
        trio.from_thread.check_cancelled()
        if time.monotonic() > next_line:
            next_line = time.monotonic() + _PROGRESS_S
            _log.info("comparing what is kept with the audit", rows=rows)

    return look_up
