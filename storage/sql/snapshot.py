"""Everything that a database keeps, read at one moment; also of one that an earlier version wrote last, and of
one that somebody edited."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from config_manager.config.audit import Head
from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.storage.sql import database
from config_manager.storage.sql.database import SqlConnection, translated
from config_manager.storage.sql.rows import (
    ENTRY,
    audit_rows,
    json_object,
    service_state,
    taken_back,
)
from config_manager.storage.state import (
    AuditEntry,
    Committed,
    SchemaActivation,
    ServiceState,
    TakenBack,
)
from config_manager.storage.store import KeptEntry, KeptSchema, KeptState, Odd


@contextmanager
def opened_snapshot(path: Path, key: bytes, *, is_alone: bool = True) -> Generator[SqlSnapshot]:
    """Nothing is changed, and if nobody else uses it nothing is left beside it. Raises DatabaseUnopenable,
    DatabaseUnavailable."""
    if not path.exists() or path.stat().st_size == 0:  # any key would open an empty one
        raise DatabaseUnopenable(f"there is no database in {path.parent}")
    with (
        translated(path),
        closing(database.connect(path, key, read_only=True, is_alone=is_alone)) as connection,
    ):
        connection.text_factory = _text
        connection.execute("BEGIN")
        try:
            yield SqlSnapshot(connection)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise database.nonsense(path, error) from error


class SqlSnapshot:
    """The `StoreSnapshot` of a connection in a transaction."""

    def __init__(self, connection: SqlConnection) -> None:
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

    def kept(self) -> KeptState:
        """Row by row: one that somebody edited says nothing about the others."""
        odd: list[Odd] = []
        services: dict[str, ServiceState] = {}
        for row in self._connection.execute(
            "SELECT c.*, o.payload FROM configurations c JOIN outbox o USING (service)"
        ):
            try:
                services[row[0]] = service_state(row)
            except (ValueError, TypeError, LookupError, AttributeError):
                odd.append(Odd("", row[0]))
        registry: dict[str, dict[str, JsonObject]] = {}
        for kind, key, value in self._connection.execute("SELECT kind, key, value FROM registry"):
            try:
                registry.setdefault(kind, {})[key] = json_object(value)
            except (ValueError, TypeError):
                odd.append(Odd("registry", f"{kind}/{key}"))
        odd += (Odd("schema", name) for _, name in strangers(self._connection))
        revision, epoch_seq, epoch_id, audit_seq, audit_head = self._connection.execute(
            "SELECT revision, epoch_seq, epoch_id, audit_seq, audit_head FROM counters"
        ).fetchone()
        epoch = Epoch(epoch_seq, epoch_id)
        committed = Committed(epoch, revision, audit_seq, audit_head, services, registry)
        return KeptState(committed, tuple(odd))

    def audit(self) -> Generator[AuditEntry]:
        return audit_rows(self._connection, -sys.maxsize)

    def history(self) -> Generator[KeptEntry]:
        with closing(
            self._connection.execute(
                f"SELECT service, {ENTRY} FROM history ORDER BY service, revision"  # noqa: S608  a constant
            )
        ) as cursor:
            for *about, changes in cursor:
                yield KeptEntry._make((*about, changes.encode()))

    def schemas(self) -> Generator[KeptSchema]:
        if not self._connection.execute(
            "SELECT 1 FROM pragma_table_info('schemas') WHERE name = 'source'"  # migration 0006
        ).fetchone():
            return
        with closing(
            self._connection.execute("SELECT service, version, digest, source, schema FROM schemas")
        ) as cursor:
            yield from map(KeptSchema._make, cursor)

    def activations(self) -> Generator[SchemaActivation]:
        yield from map(SchemaActivation._make, self._rows("schema_activations"))

    def taken_back(self) -> Generator[TakenBack]:
        for row in self._rows("taken_back"):
            try:
                yield taken_back(row)
            except (ValueError, TypeError):
                service, revision, after, upto, *_ = row
                yield TakenBack(service, revision, after, upto, ("",))  # what no rollback took back

    def _rows(self, table: str) -> Generator[tuple[Any, ...]]:
        """Nothing of a table that a later version made."""
        if self._connection.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)
        ).fetchone():
            with closing(self._connection.execute(f"SELECT * FROM {table}")) as cursor:  # noqa: S608  a constant
                yield from cursor


def strangers(connection: SqlConnection) -> list[tuple[str, str]]:
    """(kind, name) of what no migration makes: a view or trigger could say otherwise each time."""
    return connection.execute(
        "SELECT type, name FROM sqlite_schema WHERE type IN ('view', 'trigger') ORDER BY name"
    ).fetchall()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
