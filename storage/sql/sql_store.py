"""The store in SQLCipher: SQL and nothing decided.

Three connections: the writer's, one that reads for it, and one for pages of history and audit, which
may be large and are read beside the writer (WAL): each sees what was committed when it began.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from config_manager.config.audit import GENESIS, Head
from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import digest
from config_manager.storage.decisions.accepting import Repair
from config_manager.storage.decisions.replay import history_in
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.sql import database
from config_manager.storage.sql.database import Connection, translated
from config_manager.storage.sql.database_file import DatabaseFile, files_of
from config_manager.storage.state import (
    AuditEntry,
    Commit,
    Committed,
    HistoryEntry,
    HistoryPage,
    HistoryQuery,
    HistoryRow,
    IdempotencyRecord,
    KeyChange,
    RegistryRow,
    SchemaVersion,
    SealedSecret,
    ServiceState,
    up_to_bytes,
)
from config_manager.storage.store import (
    IDEMPOTENCY_KEPT_S,
    CommitUnsure,
    DatabaseUnavailable,
    DiskFull,
    Finish,
    Kept,
    KeptEntry,
    Odd,
    Store,
)

_CANT_OPEN = "SQLITE_CANTOPEN"
_STAGED_AT_ONCE = 64
"""Services in changes that are staged without leaving the event loop: 60 µs each."""
_ENTRY = (
    "h.revision, h.version, h.epoch_id, h.epoch_seq, h.at, h.by, h.action, h.reason,"
    " h.correlation_id, h.changes"
)
_OF_A_SERVICE = ("configurations", "outbox")
"""Where its newest state lies."""
_SEALED = "service, name, version, key_id, nonce, ciphertext, updated_at"


class _Busy(DatabaseUnavailable):
    """Another process holds the write lock. Nothing was staged; waiting may help."""


class SqlStore(Store):
    """The `Store` port on a SQLCipher file."""

    def __init__(
        self,
        path: Path,
        file: DatabaseFile,
        key: bytes,
        *,
        vouching: Vouching,
        writer: Connection,
        reader: Connection,
        pages: Connection,
    ) -> None:
        self._vouching = vouching
        self._path = path
        self._file = file
        self._key = key
        self._writer = writer
        self._reader = reader
        self._pages: Connection | None = pages
        self._reading_page = threading.Lock()
        database.waits_for_locks(writer, False)

    @classmethod
    def open(
        cls,
        path: Path,
        key: bytes,
        *,
        vouching: Vouching,
        epoch_id: str,
        at: str,
        fresh: bool,
    ) -> SqlStore:
        """Open the file; make it where there is none and `fresh` says that is as it should be.

        vouching: seals the end of the audit. epoch_id, at: for the first epoch of a new database. Raises
        DatabaseUnopenable, DatabaseUnavailable.
        """
        size = path.stat().st_size if path.exists() else 0
        if size == 0:
            if not fresh:
                raise DatabaseUnopenable(
                    f"{path.name} is missing or empty, but instance.json says there was one; "
                    "restore it from a backup (a new one is never made in its place)"
                )
            _remove(path)
            try:
                database.create(path, key)
            except BaseException:
                with suppress(OSError):  # half a database is none
                    _remove(path)
                raise
        with translated(path):
            file = DatabaseFile(path)
        try:
            file.keep_log()
            writer = database.connect(path, key)
            try:
                database.migrate(writer, path)
                with translated(path):
                    _begin_first_epoch(writer, epoch_id, at)
                    reader, pages = (_reading(path, key) for _ in range(2))
                file.note()
            except BaseException:
                writer.close()
                raise
        except BaseException:
            file.release()
            raise
        return cls(path, file, key, vouching=vouching, writer=writer, reader=reader, pages=pages)

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def history(self, query: HistoryQuery) -> HistoryPage:
        where = ["h.service = ?"]
        values: list[str | int] = [query.service]
        joined = ""
        for clause, value in (
            ("h.revision < ?", query.before),
            ("h.at >= ?", query.since),
            ("h.at <= ?", query.until),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        if query.key is not None:
            joined = "JOIN history_keys k ON k.service = h.service AND k.revision = h.revision"
            where.append("k.key = ?")
            values.append(query.key)
        sql = (
            f"SELECT {_ENTRY} FROM history h {joined} WHERE {' AND '.join(where)}"  # noqa: S608  no caller's text in it
            " ORDER BY h.revision DESC LIMIT ?"
        )
        with (
            self._translated(),
            self._as_we_wrote_it(),
            self._page() as pages,
            closing(pages.execute(sql, (*values, query.limit + 1))) as cursor,
        ):
            rows = list(up_to_bytes(cursor, lambda row: len(row[-1].encode()), query.most_bytes))
            more = len(rows) > query.limit or cursor.fetchone() is not None
            entries = tuple(_history_entry(row) for row in rows[: query.limit])
        return HistoryPage(query.service, entries, entries[-1].revision if more else None)

    def idempotency(self, key: str, *, since: float) -> IdempotencyRecord | None:
        with self._translated():
            row = self._reader.execute(
                "SELECT key, fingerprint, answer, at FROM idempotency WHERE key = ? AND at >= ?",
                (key, since),
            ).fetchone()
        return None if row is None else IdempotencyRecord(*row)

    def secrets(self, service: str) -> Sequence[SealedSecret]:
        with self._translated():
            rows = self._reader.execute(
                "SELECT service, name, max(version), key_id, nonce, ciphertext, updated_at"
                " FROM secrets WHERE service = ? GROUP BY name ORDER BY name",
                (service,),
            ).fetchall()
        return [SealedSecret(*row) for row in rows]

    def secret_versions(
        self, service: str | None = None, name: str | None = None
    ) -> Sequence[SealedSecret]:
        with translated(self._path):
            rows = self._reader.execute(
                f"SELECT {_SEALED} FROM secrets"  # noqa: S608  a constant
                " WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR name = ?2)"
                " ORDER BY service, name, version",
                (service, name),
            ).fetchall()
        return [SealedSecret(*row) for row in rows]

    def secrets_under_other_keys(
        self, key_id: str, *, after: tuple[str, str, int] = ("", "", 0), limit: int
    ) -> Sequence[SealedSecret]:
        with translated(self._path):
            rows = self._reader.execute(
                f"SELECT {_SEALED} FROM secrets"  # noqa: S608  a constant
                " WHERE (service, name, version) > (?, ?, ?) AND key_id <> ?"
                " ORDER BY service, name, version LIMIT ?",
                (*after, key_id, limit),
            ).fetchall()
        return [SealedSecret(*row) for row in rows]

    def count_secrets(self, key_id: str) -> tuple[int, int]:
        with translated(self._path):
            under, every = self._reader.execute(
                "SELECT count(*) FILTER (WHERE key_id = ?), count(*) FROM secrets", (key_id,)
            ).fetchone()
        return under, every

    def schemas(self) -> Sequence[SchemaVersion]:
        with self._translated():
            rows = self._reader.execute(
                "SELECT service, max(version), digest, schema, at FROM schemas"
                " GROUP BY service ORDER BY service"
            ).fetchall()
        return [SchemaVersion(*row) for row in rows]

    def audit(
        self, *, after: int = 0, limit: int | None = None, most_bytes: int | None = None
    ) -> Sequence[AuditEntry]:
        with (
            self._translated(),
            self._page() as pages,
            closing(audit_rows(pages, after, limit)) as rows,
        ):
            return list(up_to_bytes(rows, lambda row: len(row.body), most_bytes))

    def has_audit_row(self, row_hash: str) -> bool:
        with self._translated():
            found = self._reader.execute("SELECT 1 FROM audit WHERE hash = ?", (row_hash,))
            return found.fetchone() is not None

    @contextmanager
    def snapshot(self) -> Iterator[SqlSnapshot]:
        """On a connection of its own: nobody waits for who reads everything."""
        with (
            self._translated(),
            opened_snapshot(self._path, self._key, is_alone=False) as snapshot,
        ):
            yield snapshot

    def pending(self) -> Sequence[tuple[str, int]]:
        with self._translated():
            return [
                (row[0], row[1])
                for row in self._reader.execute(
                    "SELECT service, revision FROM outbox WHERE confirmed_revision < revision"
                )
            ]

    def probe(self) -> None:
        """A fresh connection, because an open one answers from its page cache, and writes into a file
        that could not be opened for it any more. That needs descriptors; where the process has none left,
        an open one without its cache must do: the database is not to blame for it."""
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

    # ── writing ────────────────────────────────────────────────────────────────────────────────

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
        with self._translated(), self._undone_on_failure():
            self._begin(wait=wait)
            self._move_counters(changes[0].before, changes[-1].after)
            for change in changes:
                self._insert(change)

    def _commit_staged(self) -> None:
        try:
            with self._translated(), self._undone_on_failure() as writer:
                writer.execute("COMMIT")
            self._file.note()
        except DiskFull:
            raise
        except DatabaseUnavailable as error:
            raise CommitUnsure(str(error)) from error

    def _begin(self, *, wait: bool = True) -> None:
        """In WAL mode it is only here that a transaction waits for another process, so the writer
        does not wait elsewhere: what must not wait costs nothing (14 µs of 106, switched each time).
        """
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
    def _translated(self) -> Iterator[None]:
        """What opened with this key before and now does not read as a database was damaged since."""
        try:
            with translated(self._path):
                yield
        except DatabaseUnopenable as error:
            raise DatabaseUnavailable(error.detail) from error

    @contextmanager
    def _page(self) -> Iterator[Connection]:
        """The connection for pages, in one thread at a time; who closes the store waits for it."""
        with self._reading_page:
            if self._pages is None:
                raise DatabaseUnavailable(f"{self._path.name} was closed meanwhile")
            yield self._pages

    @contextmanager
    def _as_we_wrote_it(self) -> Iterator[None]:
        """Pages of two states, put together by somebody, pass every check and hold nonsense."""
        try:
            yield
        except (ValueError, TypeError, LookupError) as error:
            raise DatabaseUnavailable(
                f"{self._path.name} holds what was never written to it: {error}"
            ) from error

    @contextmanager
    def _undone_on_failure(self) -> Iterator[Connection]:
        try:
            yield self._writer
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
                with suppress(DatabaseUnavailable):  # what failed says more
                    # a large one may have left pages in the log, which nobody reads
                    self._file.note()
            raise

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

    def _insert(self, change: Commit) -> None:
        writer = self._writer
        for state in change.services:
            self._put_service(change.before.services.get(state.service), state)
        for row in change.history:
            self._insert_history(row)
        if (audit := change.audit) is not None:
            writer.execute(
                "INSERT INTO audit VALUES (?, ?, ?, ?)",
                (audit.seq, audit.revision, audit.body, audit.hash),
            )
        for item in change.registry:
            self._put_registry(item)
        if change.after.epoch != change.before.epoch:
            epoch = change.after.epoch
            writer.execute(
                "INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?, ?)",
                (epoch.seq, epoch.id, change.after.revision, change.at, change.reason),
            )
        if change.forgotten is not None:
            with _overwritten(self._writer):
                self._writer.execute(
                    "DELETE FROM secrets WHERE service = ? AND name = ?", change.forgotten
                )
        if change.secret is not None:
            self._insert_secret(change.secret)
        if change.idempotency is not None:
            self._put_idempotency(change.idempotency)

    def _insert_history(self, row: HistoryRow) -> None:
        entry = row.entry
        self._writer.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.service,
                entry.revision,
                entry.version,
                entry.epoch_seq,
                entry.config_epoch,
                entry.at,
                entry.by,
                entry.action,
                entry.reason,
                entry.correlation_id,
                _json([change.to_list() for change in entry.changes]),
            ),
        )
        self._writer.executemany(
            "INSERT OR REPLACE INTO history_keys VALUES (?, ?, ?)",
            [(row.service, c.key, entry.revision) for c in entry.changes],
        )

    def _put_registry(self, row: RegistryRow) -> None:
        if row.value is None:
            self._writer.execute(
                "DELETE FROM registry WHERE kind = ? AND key = ?", (row.kind, row.key)
            )
        else:
            self._writer.execute(
                "INSERT OR REPLACE INTO registry VALUES (?, ?, ?)",
                (row.kind, row.key, _json(row.value)),
            )

    def _insert_secret(self, secret: SealedSecret) -> None:
        self._writer.execute(
            "INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                secret.service,
                secret.name,
                secret.version,
                secret.key_id,
                secret.nonce,
                secret.ciphertext,
                secret.updated_at,
            ),
        )

    def _put_idempotency(self, record: IdempotencyRecord) -> None:
        """The table keeps itself small: each record takes those with it that are past their time."""
        self._writer.execute(
            "DELETE FROM idempotency WHERE at < ?", (record.at - IDEMPOTENCY_KEPT_S,)
        )
        self._writer.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)",
            (record.key, record.fingerprint, record.answer, record.at),
        )

    def _put_service(self, before: ServiceState | None, state: ServiceState) -> None:
        writer = self._writer
        writer.execute(
            "INSERT OR REPLACE INTO configurations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                state.service,
                state.revision,
                state.version,
                state.epoch.seq,
                state.epoch.id,
                _json(state.stored),
                _json(state.effective),
                _json(state.defaulted),
                _json(dict(state.secrets)),
                int(state.deleted),
                state.updated_at,
                state.updated_by,
                state.correlation_id,
            ),
        )
        writer.execute(
            "INSERT INTO outbox (service, revision, payload) VALUES (?, ?, ?) ON CONFLICT (service)"
            " DO UPDATE SET revision = excluded.revision, payload = excluded.payload",
            (state.service, state.revision, state.payload),
        )
        old = before.stored if before else {}
        writer.executemany(
            "DELETE FROM items WHERE service = ? AND key = ?",
            [(state.service, key) for key in old if key not in state.stored],
        )
        writer.executemany(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)",
            [
                (state.service, key, _json(value), state.revision)
                for key, value in state.stored.items()
                if key not in old or _json(old[key]) != _json(value)
            ],
        )

    def reseal(self, sealed: Sequence[SealedSecret]) -> None:
        self._file.check()
        with translated(self._path), self._undone_on_failure() as writer:
            self._begin()
            with _overwritten(writer):
                writer.executemany(
                    "UPDATE secrets SET key_id = ?, nonce = ?, ciphertext = ?"
                    " WHERE service = ? AND name = ? AND version = ?",
                    [
                        (s.key_id, s.nonce, s.ciphertext, s.service, s.name, s.version)
                        for s in sealed
                    ],
                )
            writer.execute("COMMIT")
        self._file.note()

    def keep_schemas(self, versions: Sequence[SchemaVersion]) -> None:
        self._file.check()
        with self._translated(), self._undone_on_failure() as writer:
            self._begin()
            writer.executemany("INSERT INTO schemas VALUES (?, ?, ?, ?, ?)", versions)
            writer.execute("COMMIT")
        self._file.note()

    def mark_confirmed(self, revisions: Sequence[tuple[str, int]]) -> None:
        self._file.check()
        with self._translated(), self._undone_on_failure() as writer:
            self._begin()
            writer.executemany(
                "UPDATE outbox SET confirmed_revision = max(confirmed_revision, ?)"
                " WHERE service = ?",
                [(revision, service) for service, revision in revisions],
            )
            writer.execute("COMMIT")
        self._file.note()

    def repair(self, repair: Repair) -> None:
        """Before it is accepted: all or none. Raises DatabaseUnavailable, DiskFull."""
        self._file.check()
        with self._translated(), self._undone_on_failure() as writer:
            self._begin()
            for kind, name in _strangers(writer):
                writer.execute(f"DROP {kind} {_quoted(name)}")
            self._let_go(repair.strangers, ("items", "history", "history_keys", *_OF_A_SERVICE))
            self._let_go(repair.odd, _OF_A_SERVICE)
            for kind, key in repair.rows:
                writer.execute("DELETE FROM registry WHERE kind = ? AND key = ?", (kind, key))
            for service, version in repair.history.items():
                writer.execute(
                    "DELETE FROM history WHERE service = ? AND version > ?", (service, version)
                )
            writer.execute(
                "UPDATE counters SET revision = ?, epoch_seq = ?, audit_seq = ?, audit_head = ?",
                (*reversed(repair.mark), *repair.end),
            )
            writer.execute("DELETE FROM epochs WHERE seq > ?", (repair.mark.epoch_seq,))
            if repair.history:
                epochs = dict(writer.execute("SELECT seq, id FROM epochs").fetchall())
                for row in history_in(audit_rows(writer), repair.history, epochs):
                    self._insert_history(row)
            writer.execute("COMMIT")
        self._file.note()

    def _let_go(self, services: Iterable[str], tables: Sequence[str]) -> None:
        for service in services:
            for table in tables:
                self._writer.execute(f"DELETE FROM {table} WHERE service = ?", (service,))  # noqa: S608  a constant

    def note_boot(self, boot_seq: int) -> None:
        self._file.check()
        with self._translated(), self._undone_on_failure() as writer:
            self._begin()
            ((seq, head, noted),) = writer.execute(
                "SELECT audit_seq, audit_head, boot_seq FROM counters"
            )
            boot_seq = max(noted, boot_seq)
            seal = self._vouching.seal(seq, head, boot_seq)
            writer.execute("UPDATE counters SET boot_seq = ?, audit_seal = ?", (boot_seq, seal))
            writer.execute("COMMIT")
        self._file.note()

    def verify(self) -> None:
        """Raises DatabaseUnavailable if a page does not belong to the others."""
        with self._translated():
            (found,) = self._reader.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise DatabaseUnavailable(f"{self._path.name} contradicts itself: {found[:120]}")

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
        with self._reading_page:
            pages, self._pages = self._pages, None
        for connection in (pages, self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._file.release()


@contextmanager
def opened_snapshot(path: Path, key: bytes, *, is_alone: bool = True) -> Iterator[SqlSnapshot]:
    """Nothing is changed, and if nobody else uses it nothing is left beside it. Raises DatabaseUnopenable,
    DatabaseUnavailable."""
    if not path.exists() or path.stat().st_size == 0:  # any key would open an empty one
        raise DatabaseUnopenable(f"there is no database in {path.parent}")
    with (
        translated(path),
        closing(database.connect(path, key, read_only=True, is_alone=is_alone)) as connection,
    ):
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.execute("BEGIN")
        try:
            yield SqlSnapshot(connection)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DatabaseUnavailable(
                f"{path.name} holds what was never written to it: {error}"
            ) from error


class SqlSnapshot:
    """The `Snapshot` of a connection in a transaction; also of a database that an earlier version wrote
    last, and of one that somebody edited."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        columns = {row[1] for row in connection.execute("PRAGMA table_info(counters)")}
        newer = "audit_seal, boot_seq" if "audit_seal" in columns else "NULL, 0"  # migration 0005
        counters = connection.execute(
            f"SELECT audit_seq, audit_head, {newer} FROM counters"  # noqa: S608  one of two constants
        ).fetchone()
        if counters is None:
            raise DatabaseUnopenable(
                "the database has no counters any more; restore it from a backup"
            )
        seq, row_hash, seal, boot_seq = counters
        self.head = Head(seq, row_hash, "the database's counter")
        self.seal: str | None = seal
        self.boot_seq: int = boot_seq

    def kept(self) -> Kept:
        committed, odd = _committed(self._connection)
        strangers = [Odd("schema", name) for _, name in _strangers(self._connection)]
        return Kept(committed, (*odd, *strangers))

    def audit(self) -> Generator[AuditEntry]:
        return audit_rows(self._connection, -sys.maxsize)

    def history(self) -> Generator[KeptEntry]:
        with closing(
            self._connection.execute(
                f"SELECT h.service, {_ENTRY} FROM history h ORDER BY h.service, h.revision"  # noqa: S608  a constant
            )
        ) as cursor:
            for row in cursor:
                service, *entry, changes = row
                yield KeptEntry(*(service, *entry, changes.encode()))


def _strangers(connection: Connection) -> list[tuple[str, str]]:
    """(kind, name) of what no migration makes: a view or trigger could say otherwise each time."""
    return [
        (kind, name)
        for kind, name in connection.execute(
            "SELECT type, name FROM sqlite_schema WHERE type IN ('view', 'trigger') ORDER BY name"
        )
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _committed(connection: Connection) -> tuple[Committed, list[Odd]]:
    """Row by row: one that somebody edited says nothing about the others."""
    (counters,) = connection.execute(
        "SELECT revision, epoch_seq, epoch_id, audit_seq, audit_head FROM counters"
    )
    odd: list[Odd] = []
    services: dict[str, ServiceState] = {}
    for row in connection.execute(
        "SELECT c.*, o.payload FROM configurations c JOIN outbox o USING (service)"
    ):
        try:
            services[row[0]] = _service(row)
        except (ValueError, TypeError, LookupError, AttributeError):
            odd.append(Odd("", row[0]))
    registry: dict[str, dict[str, JsonObject]] = {}
    for kind, key, value in connection.execute("SELECT kind, key, value FROM registry"):
        try:
            registry.setdefault(kind, {})[key] = _object(value)
        except (ValueError, TypeError):
            odd.append(Odd("registry", f"{kind}/{key}"))
    revision, epoch_seq, epoch_id, audit_seq, audit_head = counters
    committed = Committed(
        epoch=Epoch(epoch_seq, epoch_id),
        revision=revision,
        audit_seq=audit_seq,
        audit_head=audit_head,
        services=services,
        registry=registry,
    )
    return committed, odd


def _object(text: str) -> JsonObject:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _look(connection: Connection) -> None:
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


def _reading(path: Path, key: bytes) -> Connection:
    connection = database.connect(path, key)
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def _overwritten(writer: Connection) -> Iterator[None]:
    """What is deleted in here is zeroed in the file too; for every write it would cost too much."""
    writer.execute("PRAGMA secure_delete = ON").fetchone()
    try:
        yield
    finally:
        writer.execute("PRAGMA secure_delete = OFF").fetchone()


def audit_rows(
    connection: Connection, after: int = 0, limit: int | None = None
) -> Generator[AuditEntry]:
    """Rows of the audit as they lie in the table, read as they are asked for."""
    cursor = connection.execute(
        "SELECT seq, revision, body, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, -1 if limit is None else limit),
    )
    try:
        for row in cursor:
            yield AuditEntry(*row)
    finally:
        cursor.close()  # one that is left half read holds back the checkpoint of the log


def _remove(path: Path) -> None:
    for file in files_of(path):
        file.unlink(missing_ok=True)


def _begin_first_epoch(writer: Connection, epoch_id: str, at: str) -> None:
    if writer.execute("SELECT 1 FROM counters").fetchone() is None:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO epochs VALUES (1, ?, 0, ?, 'first start')", (epoch_id, at))
        writer.execute(
            "INSERT INTO counters (one, revision, epoch_seq, epoch_id, audit_head)"
            " VALUES (1, 0, 1, ?, ?)",
            (epoch_id, GENESIS),
        )
        writer.execute("COMMIT")


def _service(row: Sequence[Any]) -> ServiceState:
    payload = bytes(row[13])
    return ServiceState(
        service=row[0],
        revision=row[1],
        version=row[2],
        epoch=Epoch(row[3], row[4]),
        stored=_object(row[5]),
        effective=_object(row[6]),
        defaulted=tuple(orjson.loads(row[7])),
        secrets=_object(row[8]),
        deleted=bool(row[9]),
        updated_at=row[10],
        updated_by=row[11],
        correlation_id=row[12],
        payload=payload,
        digest=digest(payload),
    )


def _history_entry(row: Sequence[Any]) -> HistoryEntry:
    *fields, changes_json = row
    fields.append(tuple(map(KeyChange.from_list, orjson.loads(changes_json))))
    return HistoryEntry(*fields)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
