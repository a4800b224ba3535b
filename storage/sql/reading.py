"""The half of the SQL store that reads.

One connection reads for the writer. Another is for pages of history and audit, which may be large and are
read beside the writer (WAL). Each sees what was committed when it began.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.names import Epoch
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.drifts import Drift, DriftQuery, KeptReceipt, ReceiptsQuery
from config_manager.storage.sql.changes import read_changes, read_times
from config_manager.storage.sql.database import SqlConnection, nonsense, translated
from config_manager.storage.sql.drifts import (
    read_attempts,
    read_drifts,
    read_newest_receipts,
    read_open_drifts,
    read_receipts,
)
from config_manager.storage.sql.rows import (
    CHECKPOINT,
    ENTRY,
    PLAN,
    SCHEMA,
    SEALED,
    audit_rows,
    checkpoint,
    history_entry,
    plan,
    taken_back,
)
from config_manager.storage.sql.snapshot import SqlSnapshot, opened_snapshot
from config_manager.storage.state import (
    AuditEntry,
    Checkpoint,
    HistoryPage,
    HistoryQuery,
    HistoryRow,
    HistorySearch,
    IdempotencyRecord,
    KeptPlan,
    SchemaActivation,
    SchemaVersion,
    SealedSecret,
    TakenBack,
    up_to_bytes,
)
from config_manager.storage.store import DatabaseUnavailable
from config_manager.storage.trace import Change, ChangesQuery, ChangeTimes

_WILD = re.compile(r"[%_\\]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_NEWEST_SCHEMAS = (
    f"SELECT {SCHEMA} FROM schemas WHERE (service, version) IN"  # noqa: S608  a constant
    " (SELECT service, max(version) FROM schemas WHERE ?1 IS NULL OR service = ?1"
    "  GROUP BY service, source)"
    " ORDER BY service, version"
)
_PLAN = f"SELECT {PLAN}, seal FROM plans WHERE id = ?"  # noqa: S608  a constant
_PLANS = (
    f"SELECT {PLAN}, seal FROM plans WHERE ?1 IS NULL OR seq < ?1 ORDER BY seq DESC"  # noqa: S608  a constant
).replace("result, shown", "'', ''")


class SqlReads:
    """What the `Store` port reads, on two connections that write nothing."""

    def __init__(
        self,
        path: Path,
        key: bytes,
        *,
        vouching: Vouching,
        reader: SqlConnection,
        pages: SqlConnection,
    ) -> None:
        self._path = path
        self._key = key
        self._vouching = vouching
        self._reader = reader
        self._pages: SqlConnection | None = pages
        self._reading_page = threading.Lock()

    # ── beside the writer ──────────────────────────────────────────────────────────────────────

    def history(self, query: HistoryQuery) -> HistoryPage:
        # the first table is read in its order; left to itself, SQLite looks through the whole history for a key
        rows_in, first = "history h", "h"
        if query.key is not None:
            rows_in, first = "history_keys k CROSS JOIN history h USING (service, revision)", "k"
        where = [f"{first}.service = ?"]
        values: list[str | int] = [query.service]
        for clause, value in (
            (f"{first}.key = ?", query.key),
            (f"{first}.revision < ?", query.before),
            ("h.at >= ?", query.since),
            ("h.at <= ?", query.until),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        sql = (
            f"SELECT {ENTRY} FROM {rows_in} WHERE {' AND '.join(where)}"  # noqa: S608  no caller's text in it
            f" ORDER BY {first}.revision DESC LIMIT ?"
        )
        with (
            self._translated(),
            self._page() as pages,
            closing(pages.execute(sql, (*values, query.limit + 1))) as cursor,
        ):
            rows = list(up_to_bytes(cursor, lambda row: len(row[-1].encode()), query.most_bytes))
            more = len(rows) > query.limit or cursor.fetchone() is not None
        try:
            entries = tuple(history_entry(row) for row in rows[: query.limit])
        except (ValueError, TypeError, LookupError) as error:
            raise nonsense(self._path, error) from error
        return HistoryPage(query.service, entries, entries[-1].revision if more else None)

    def checkpoints(
        self, service: str, revision: int
    ) -> tuple[Checkpoint | None, Checkpoint | None]:
        below = self._checkpoint("revision <= ? ORDER BY revision DESC", service, revision)
        return below, self._checkpoint("revision > ? ORDER BY revision", service, revision)

    def _checkpoint(self, which: str, service: str, revision: int) -> Checkpoint | None:
        """The first of these that this server sealed."""
        with (
            self._sensible(),
            self._page() as pages,
            closing(
                pages.execute(
                    f"SELECT {CHECKPOINT}, seal FROM checkpoints WHERE service = ? AND {which}",  # noqa: S608  constants
                    (service, revision),
                )
            ) as cursor,
        ):
            for *row, seal in cursor:
                one = checkpoint(row)
                if self._vouching.has_sealed(one, seal):
                    return one
        return None

    def taken_back(self, service: str) -> Sequence[TakenBack]:
        with self._sensible(), self._page() as pages:
            rows = pages.execute(
                "SELECT service, revision, after, upto, keys FROM taken_back"
                " WHERE service = ? ORDER BY revision DESC",
                (service,),
            ).fetchall()
            return list(map(taken_back, rows))

    def plan_beside(self, plan_id: str) -> KeptPlan | None:
        with self._sensible(), self._page() as pages:
            row = pages.execute(_PLAN, (plan_id,)).fetchone()
            return self._plan(row)

    def plans(self, *, before: int | None = None) -> Sequence[KeptPlan]:
        with self._sensible(), self._page() as pages:
            rows = pages.execute(_PLANS, (before,)).fetchall()
            found = [(plan(row), seal) for *row, seal in rows]
            return [one for one, seal in found if self._vouching.has_sealed_plan(one, seal)]

    def _plan(self, row: Sequence[Any] | None) -> KeptPlan | None:
        """If this server sealed it, and it is as it was."""
        if row is None:
            return None
        *about, seal = row
        one = plan(about)
        return one if self._vouching.has_sealed_plan(one, seal) and one.is_whole else None

    def epoch_as_of(self, revision: int) -> Epoch:
        with self._sensible(), self._page() as pages:
            row = pages.execute(
                "SELECT seq, id FROM epochs WHERE seq = 1 OR revision <= ? ORDER BY seq DESC LIMIT 1",
                (revision,),
            ).fetchone()
            return Epoch(*row)

    def find_in_history(self, query: HistorySearch) -> tuple[Sequence[HistoryRow], bool]:
        patterns = {_like(query.text), _like(json.dumps(query.text, ensure_ascii=False)[1:-1])}
        changes = " OR ".join("changes LIKE ? ESCAPE '\\'" for _ in patterns)
        where = [f"({changes} OR reason LIKE ? ESCAPE '\\')"]
        values: list[object] = [*patterns, _like(query.text)]
        if query.services is not None:
            where.append("service IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(query.services))
        if query.start is not None:
            where.append("(revision < ? OR (revision = ? AND service >= ?))")
            values += [query.start[0], *query.start]
        sql = (
            f"SELECT service, {ENTRY} FROM history WHERE {' AND '.join(where)}"  # noqa: S608  no caller's text in it
            " ORDER BY revision DESC, service LIMIT ?"
        )
        with (
            self._sensible(),
            self._page() as pages,
            closing(pages.execute(sql, (*values, query.limit))) as cursor,
        ):
            rows = list(up_to_bytes(cursor, lambda row: len(row[-1].encode()), query.most_bytes))
            more = len(rows) == query.limit or cursor.fetchone() is not None
            return [HistoryRow(row[0], history_entry(row[1:])) for row in rows], more

    def changes(self, query: ChangesQuery) -> Sequence[Change]:
        with self._sensible(), self._page() as pages:
            return read_changes(pages, query)

    def change_times(self, revision: int) -> ChangeTimes | None:
        with self._sensible(), self._page() as pages:
            return read_times(pages, revision)

    def attempts(self, service: str, revision: int) -> Sequence[KeptReceipt]:
        with self._sensible(), self._page() as pages:
            return read_attempts(pages, service, revision)

    def receipts(self, query: ReceiptsQuery) -> Sequence[KeptReceipt]:
        with self._sensible(), self._page() as pages:
            return read_receipts(pages, query)

    def newest_receipts(self) -> Sequence[KeptReceipt]:
        with self._sensible(), self._page() as pages:
            return read_newest_receipts(pages)

    def drifts(self, query: DriftQuery) -> Sequence[Drift]:
        with self._sensible(), self._page() as pages:
            return read_drifts(pages, query)

    def open_drifts(self) -> tuple[Sequence[Drift], int]:
        with self._sensible(), self._page() as pages:
            return read_open_drifts(pages)

    def audit(
        self, *, after: int = 0, limit: int | None = None, most_bytes: int | None = None
    ) -> Sequence[AuditEntry]:
        with (
            self._translated(),
            self._page() as pages,
            closing(audit_rows(pages, after, limit)) as rows,
        ):
            return list(up_to_bytes(rows, lambda row: len(row.body), most_bytes))

    def secret_versions(
        self, service: str | None = None, name: str | None = None
    ) -> Sequence[SealedSecret]:
        with self._translated(), self._page() as pages:
            rows = pages.execute(
                f"SELECT {SEALED} FROM secrets"  # noqa: S608  a constant
                " WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR name = ?2)"
                " ORDER BY service, name, version",
                (service, name),
            ).fetchall()
        return list(map(SealedSecret._make, rows))

    def count_secrets(self, key_id: str) -> tuple[int, int]:
        with self._translated(), self._page() as pages:
            under, every = pages.execute(
                "SELECT count(*) FILTER (WHERE key_id = ?), count(*) FROM secrets", (key_id,)
            ).fetchone()
        return under, every

    def newest_schemas(self, service: str | None = None) -> Sequence[SchemaVersion]:
        with self._translated(), self._page() as pages:
            return list(map(SchemaVersion._make, pages.execute(_NEWEST_SCHEMAS, (service,))))

    def schema_versions(
        self, service: str, *, before: int | None = None, limit: int, most_bytes: int | None = None
    ) -> Sequence[SchemaVersion]:
        with (
            self._translated(),
            self._page() as pages,
            closing(
                pages.execute(
                    f"SELECT {SCHEMA} FROM schemas"  # noqa: S608  a constant
                    " WHERE service = ?1 AND (?2 IS NULL OR version < ?2)"
                    " ORDER BY version DESC LIMIT ?3",
                    (service, before, limit),
                )
            ) as cursor,
        ):
            found = map(SchemaVersion._make, cursor)
            return list(up_to_bytes(found, lambda one: len(one.schema), most_bytes))

    def schema_version(self, service: str, which: int | str) -> SchemaVersion | None:
        column = "version" if isinstance(which, int) else "digest"
        return self._schema(f"WHERE service = ? AND {column} = ?", (service, which))

    def schema_as_of(self, service: str, revision: int) -> SchemaVersion | None:
        return self._schema(
            "JOIN (SELECT version FROM schema_activations WHERE service = ?1 AND revision <= ?2"
            "      ORDER BY revision DESC LIMIT 1) USING (version) WHERE service = ?1",
            (service, revision),
        )

    def _schema(self, where: str, values: Sequence[object]) -> SchemaVersion | None:
        """The newest one of those."""
        with self._translated(), self._page() as pages:
            row = pages.execute(
                f"SELECT {SCHEMA} FROM schemas {where} ORDER BY version DESC LIMIT 1",  # noqa: S608  constants
                values,
            ).fetchone()
        return None if row is None else SchemaVersion._make(row)

    @contextmanager
    def snapshot(self) -> Generator[SqlSnapshot]:
        """On a connection of its own, so that nobody waits for a caller that reads everything."""
        with (
            self._translated(),
            opened_snapshot(self._path, self._key, is_alone=False) as snapshot,
        ):
            yield snapshot

    # ── for the writer ─────────────────────────────────────────────────────────────────────────

    def idempotency(self, key: str, *, since: float) -> IdempotencyRecord | None:
        found = self._rows(
            "SELECT key, fingerprint, answer, at FROM idempotency WHERE key = ? AND at >= ?",
            (key, since),
        )
        return IdempotencyRecord._make(found[0]) if found else None

    def secret(self, service: str, name: str, version: int) -> SealedSecret | None:
        found = self._rows(
            f"SELECT {SEALED} FROM secrets WHERE (service, name, version) = (?, ?, ?)",  # noqa: S608  a constant
            (service, name, version),
        )
        return SealedSecret._make(found[0]) if found else None

    def secrets(self, service: str) -> Sequence[SealedSecret]:
        rows = self._rows(
            "SELECT service, name, max(version), key_id, nonce, ciphertext, updated_at"
            " FROM secrets WHERE service = ? GROUP BY name ORDER BY name",
            (service,),
        )
        return list(map(SealedSecret._make, rows))

    def secrets_under_other_keys(
        self, key_id: str, *, after: tuple[str, str, int] = ("", "", 0), limit: int
    ) -> Sequence[SealedSecret]:
        rows = self._rows(
            f"SELECT {SEALED} FROM secrets"  # noqa: S608  a constant
            " WHERE (service, name, version) > (?, ?, ?) AND key_id <> ?"
            " ORDER BY service, name, version LIMIT ?",
            (*after, key_id, limit),
        )
        return list(map(SealedSecret._make, rows))

    def schemas(self, service: str) -> Sequence[SchemaVersion]:
        return list(map(SchemaVersion._make, self._rows(_NEWEST_SCHEMAS, (service,))))

    def plan(self, plan_id: str) -> KeptPlan | None:
        with self._sensible():
            found = self._rows(_PLAN, (plan_id,))
            return self._plan(found[0] if found else None)

    def activations(self) -> Sequence[SchemaActivation]:
        rows = self._rows(
            "SELECT service, max(revision), version FROM schema_activations"
            " GROUP BY service ORDER BY service"
        )
        return list(map(SchemaActivation._make, rows))

    @property
    def revision(self) -> int:
        """The newest one."""
        return int(self._rows("SELECT revision FROM counters")[0][0])

    def has_audit_row(self, row_hash: str) -> bool:
        return bool(self._rows("SELECT 1 FROM audit WHERE hash = ?", (row_hash,)))

    def pending(self) -> Sequence[tuple[str, int]]:
        return self._rows(
            "SELECT service, revision FROM outbox WHERE confirmed_revision < revision"
        )

    def verify(self) -> None:
        """Raises DatabaseUnavailable if a page does not belong to the others."""
        ((found,),) = self._rows("PRAGMA integrity_check(1)")
        if found != "ok":
            raise DatabaseUnavailable(f"{self._path.name} contradicts itself: {found[:120]}")

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._reader.execute(sql, values).fetchall()

    @contextmanager
    def _translated(self) -> Generator[None]:
        """What opened with this key before and now does not read as a database was damaged since."""
        try:
            with translated(self._path):
                yield
        except DatabaseUnopenable as error:
            raise DatabaseUnavailable(error.detail) from error

    @contextmanager
    def _sensible(self) -> Generator[None]:
        """As `_translated`; and a row that does not parse was damaged, too."""
        try:
            with self._translated():
                yield
        except (ValueError, TypeError, LookupError) as error:
            raise nonsense(self._path, error) from error

    @contextmanager
    def _page(self) -> Generator[SqlConnection]:
        """The connection for pages, in one thread at a time; closing the store waits for it."""
        with self._reading_page:
            if self._pages is None:
                raise DatabaseUnavailable(f"{self._path.name} was closed meanwhile")
            yield self._pages

    def _close_reading(self) -> None:
        with self._reading_page:
            pages, self._pages = self._pages, None
        if pages is not None:
            pages.close()
        self._reader.close()


def _like(text: str) -> str:
    """The pattern of what holds this text. LIKE knows upper and lower case of ASCII alone, so any one character
    stands for every other."""
    return f"%{_NOT_ASCII.sub('_', _WILD.sub(lambda found: chr(92) + found[0], text))}%"
