"""The store in SQLCipher: SQL and nothing decided. `storage.sql.reading` is the half of it that reads."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from config_manager.config.audit import GENESIS
from config_manager.config.errors import DatabaseUnopenable
from config_manager.storage.decisions.accepting import Repair
from config_manager.storage.decisions.replay import history_in
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.drifts import Observed
from config_manager.storage.sql import database
from config_manager.storage.sql.changes import keep_times
from config_manager.storage.sql.database import SqlConnection, translated
from config_manager.storage.sql.database_file import DatabaseFile, files_of
from config_manager.storage.sql.drifts import keep_observed, prune_observed
from config_manager.storage.sql.reading import SqlReads
from config_manager.storage.sql.rows import (
    audit_rows,
    insert_change,
    insert_checkpoint,
    insert_history,
    insert_schemas,
    insert_taken_back,
    keep_plans,
    overwritten,
)
from config_manager.storage.sql.snapshot import strangers
from config_manager.storage.state import (
    Commit,
    Committed,
    SchemaActivation,
    SchemaVersion,
    SealedSecret,
)
from config_manager.storage.store import CommitUnsure, DatabaseUnavailable, DiskFull, Finish, Store
from config_manager.storage.trace import ChangeTimes

_CANT_OPEN = "SQLITE_CANTOPEN"
_STAGED_AT_ONCE = 64
"""Services in changes that are staged without leaving the event loop: 60 µs each."""
_OF_A_SERVICE = ("configurations", "outbox")
"""Where its newest state lies."""
_OF_ITS_PAST = ("items", "history", "history_keys", "checkpoints", "taken_back")


class _Busy(DatabaseUnavailable):
    """Another process holds the write lock. Nothing was staged; waiting may help."""


class SqlStore(SqlReads, Store):
    """The `Store` port on a SQLCipher file."""

    def __init__(
        self,
        path: Path,
        file: DatabaseFile,
        key: bytes,
        *,
        vouching: Vouching,
        writer: SqlConnection,
        reader: SqlConnection,
        pages: SqlConnection,
    ) -> None:
        super().__init__(path, key, vouching=vouching, reader=reader, pages=pages)
        self._file = file
        self._writer = writer
        database.waits_for_locks(writer, False)

    @classmethod
    def open(
        cls, path: Path, key: bytes, *, vouching: Vouching, epoch_id: str, at: str, fresh: bool
    ) -> SqlStore:
        """Open the file; make it if there is none and `fresh` says that none is expected.

        vouching: seals the end of the audit. epoch_id, at: for the first epoch of a new database. Raises
        DatabaseUnopenable, DatabaseUnavailable.
        """
        if not path.exists() or path.stat().st_size == 0:
            if not fresh:
                raise DatabaseUnopenable(
                    f"{path.name} is missing or empty, but instance.json says there was one; "
                    "restore it from a backup (a new one is never made in its place)"
                )
            _make(path, key)
        with ExitStack() as undo, translated(path):
            file = DatabaseFile(path)
            undo.callback(file.release)
            file.keep_log()
            writer = undo.enter_context(closing(database.connect(path, key)))
            database.migrate(writer, path)
            _begin_first_epoch(writer, epoch_id, at)
            reader, pages = (
                undo.enter_context(closing(database.connect(path, key))) for _ in range(2)
            )
            for connection in (reader, pages):
                connection.execute("PRAGMA query_only = ON")
            file.note()
            undo.pop_all()
        return cls(path, file, key, vouching=vouching, writer=writer, reader=reader, pages=pages)

    # ── a change ───────────────────────────────────────────────────────────────────────────────

    def begin(self, changes: Sequence[Commit]) -> Finish:
        """A few rows are staged at once, so that only the disk is waited for in a thread. There each of
        their statements would give up the interpreter and queue for it again: at 16 connections that cost
        two thirds of the PUTs per second (bench/)."""
        if sum(len(change.services) for change in changes) <= _STAGED_AT_ONCE:
            with suppress(_Busy):
                self._stage(changes, wait=False)
                return self._commit_staged
        return lambda: self._stage_and_commit(changes)

    def _stage_and_commit(self, changes: Sequence[Commit]) -> None:
        self._stage(changes, wait=True)
        self._commit_staged()

    def _stage(self, changes: Sequence[Commit], *, wait: bool) -> None:
        """Everything into one open transaction. Raises _Busy if it is not to wait and would have to."""
        self._file.check()
        with self._undone_on_failure():
            self._begin(wait=wait)
            self._move_counters(changes[0].before, changes[-1].after)
            for change in changes:
                insert_change(self._writer, change)
                for one in change.checkpoints:
                    insert_checkpoint(self._writer, one, self._vouching.seal_of(one))
                if change.plans or change.plans_gone:
                    keep_plans(self._writer, change, self._vouching.seal_of_plan)

    def _commit_staged(self) -> None:
        try:
            with self._undone_on_failure():
                self._writer.execute("COMMIT")
            self._file.note()
        except DiskFull:
            raise
        except DatabaseUnavailable as error:
            raise CommitUnsure(str(error)) from error

    def _move_counters(self, before: Committed, after: Committed) -> None:
        ((boot_seq,),) = self._writer.execute("SELECT boot_seq FROM counters")
        moved = self._writer.execute(
            "UPDATE counters"
            " SET revision = ?, epoch_seq = ?, epoch_id = ?, audit_seq = ?, audit_head = ?,"
            " audit_seal = ?"
            " WHERE revision = ? AND audit_head = ?",
            (
                after.revision,
                after.epoch.seq,
                after.epoch.id,
                after.audit_seq,
                after.audit_head,
                self._vouching.seal(after.audit_seq, after.audit_head, boot_seq),
                before.revision,
                before.audit_head,
            ),
        )
        if moved.rowcount != 1:
            raise RuntimeError(
                f"the database is not at revision {before.revision}: somebody else wrote to it"
            )

    # ── other writes ───────────────────────────────────────────────────────────────────────────

    def reseal(self, sealed: Sequence[SealedSecret]) -> None:
        with self._transaction() as writer, overwritten(writer):
            writer.executemany(
                "UPDATE secrets SET key_id = ?, nonce = ?, ciphertext = ?"
                " WHERE service = ? AND name = ? AND version = ?",
                [(s.key_id, s.nonce, s.ciphertext, s.service, s.name, s.version) for s in sealed],
            )

    def keep_schemas(
        self, versions: Sequence[SchemaVersion], activations: Sequence[SchemaActivation] = ()
    ) -> None:
        with self._transaction() as writer:
            insert_schemas(writer, versions, activations)

    def mark_confirmed(
        self,
        revisions: Sequence[tuple[str, int]],
        times: Sequence[ChangeTimes] = (),
    ) -> None:
        with self._transaction() as writer:
            writer.executemany(
                "UPDATE outbox SET confirmed_revision = max(confirmed_revision, ?)"
                " WHERE service = ?",
                [(revision, service) for service, revision in revisions],
            )
            keep_times(writer, times)

    def keep_observed(self, observed: Observed) -> None:
        with self._transaction() as writer:
            keep_observed(writer, observed)

    def prune_observed(self, before: float, limit: int) -> int:
        with self._transaction() as writer:
            return prune_observed(writer, before, limit)
        raise AssertionError("a transaction swallows nothing")

    def note_boot(self, boot_seq: int) -> None:
        with self._transaction() as writer:
            ((seq, head, noted),) = writer.execute(
                "SELECT audit_seq, audit_head, boot_seq FROM counters"
            )
            boot_seq = max(noted, boot_seq)
            seal = self._vouching.seal(seq, head, boot_seq)
            writer.execute("UPDATE counters SET boot_seq = ?, audit_seal = ?", (boot_seq, seal))

    def repair(self, repair: Repair) -> None:
        """Before it is accepted: all or none. Raises DatabaseUnavailable, DiskFull."""
        with self._transaction() as writer:
            for kind, name in strangers(writer):
                writer.execute(f"DROP {kind} {_quoted(name)}")
            self._let_go(repair.strangers, (*_OF_ITS_PAST, *_OF_A_SERVICE))
            self._let_go(repair.odd, _OF_A_SERVICE)
            writer.executemany("DELETE FROM registry WHERE kind = ? AND key = ?", repair.rows)
            writer.executemany(
                "DELETE FROM schemas WHERE service = ? AND version = ?", repair.schemas
            )
            for table, rows in (
                ("schema_activations", repair.activations),
                ("taken_back", repair.taken_back),
            ):
                writer.executemany(
                    f"DELETE FROM {table} WHERE service = ? AND revision = ?",  # noqa: S608  a constant
                    rows,
                )
            insert_schemas(writer, (), [one for one in repair.activations.values() if one])
            insert_taken_back(writer, [one for one in repair.taken_back.values() if one])
            writer.executemany(
                "DELETE FROM history WHERE service = ? AND version > ?", repair.history.items()
            )
            writer.execute(
                "UPDATE counters SET revision = ?, epoch_seq = ?, audit_seq = ?, audit_head = ?",
                (*reversed(repair.mark), *repair.end),
            )
            writer.execute("DELETE FROM epochs WHERE seq > ?", (repair.mark.epoch_seq,))
            if repair.history:
                epochs = dict(writer.execute("SELECT seq, id FROM epochs").fetchall())
                for row in history_in(audit_rows(writer), repair.history, epochs):
                    insert_history(writer, row)

    def _let_go(self, services: Iterable[str], tables: Sequence[str]) -> None:
        for service in services:
            for table in tables:
                self._writer.execute(f"DELETE FROM {table} WHERE service = ?", (service,))  # noqa: S608  a constant

    # ── transactions ───────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _transaction(self) -> Generator[SqlConnection]:
        """Everything that is written in it becomes durable, or nothing does."""
        self._file.check()
        with self._undone_on_failure():
            self._begin()
            yield self._writer
            self._writer.execute("COMMIT")
        self._file.note()

    def _begin(self, *, wait: bool = True) -> None:
        """In WAL mode a transaction waits for another process only here. So the writer waits nowhere else,
        and what must not wait costs nothing (14 µs of 106, switched each time)."""
        if wait:
            database.waits_for_locks(self._writer, True)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except database.Error as error:
            if database.is_busy(error):
                raise _Busy(str(error)) from error
            raise
        finally:
            if wait:
                database.waits_for_locks(self._writer, False)

    @contextmanager
    def _undone_on_failure(self) -> Generator[None]:
        with self._translated():
            try:
                yield
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                    with suppress(DatabaseUnavailable):  # the first error says more
                        # a large one may have left pages in the log, which nobody reads
                        self._file.note()
                raise

    # ── whether it still can ───────────────────────────────────────────────────────────────────

    def probe(self) -> None:
        """By a fresh connection: an open one answers from its page cache, and writes into a file that could not be
        opened any more. If the process has no descriptor left for that, which is not the database's fault, an open
        connection is asked without its cache."""
        self._file.check()
        try:
            self._look_afresh()
        except DatabaseUnavailable as error:
            if _CANT_OPEN not in str(error):
                raise
            with self._translated(), self._page() as pages:
                pages.execute("PRAGMA shrink_memory").fetchone()
                _look(pages)
            if _may_open_files():
                self._look_afresh()

    def _look_afresh(self) -> None:
        with self._translated(), closing(database.connect(self._path, self._key)) as connection:
            database.waits_for_locks(connection, False)
            database.try_writing(connection, self._path)
            connection.execute("PRAGMA query_only = ON")
            _look(connection)

    def try_writing(self) -> None:
        with self._translated():
            database.try_writing(self._writer, self._path)

    def close(self) -> None:
        try:
            self.probe()
        except DatabaseUnavailable:
            self.abandon()
            return
        self._file.let_log_go()
        self._close()

    def abandon(self) -> None:
        self._file.keep_log()
        self._close()

    def _close(self) -> None:
        self._close_reading()
        self._writer.close()
        self._file.release()


def _make(path: Path, key: bytes) -> None:
    _remove(path)
    try:
        database.create(path, key)
    except BaseException:
        with suppress(OSError):  # half a database is none
            _remove(path)
        raise


def _begin_first_epoch(writer: SqlConnection, epoch_id: str, at: str) -> None:
    if writer.execute("SELECT 1 FROM counters").fetchone() is None:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO epochs VALUES (1, ?, 0, ?, 'first start')", (epoch_id, at))
        writer.execute(
            "INSERT INTO counters (one, revision, epoch_seq, epoch_id, audit_head)"
            " VALUES (1, 0, 1, ?, ?)",
            (epoch_id, GENESIS),
        )
        writer.execute("COMMIT")


def _look(connection: SqlConnection) -> None:
    connection.execute("SELECT revision FROM counters").fetchone()
    connection.execute("SELECT count(*), sum(length(payload)) FROM outbox").fetchone()
    connection.execute(
        "SELECT count(*), sum(length(stored) + length(effective)) FROM configurations"
    ).fetchone()
    connection.execute("SELECT max(seq), hash FROM audit").fetchone()


def _may_open_files() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)
    return True


def _remove(path: Path) -> None:
    for file in files_of(path):
        file.unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
