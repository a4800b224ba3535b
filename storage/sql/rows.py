"""How a change, a service and an entry of history lie in the tables."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, cast

import orjson

from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import digest
from config_manager.storage.sql.database import SqlConnection
from config_manager.storage.state import (
    AuditEntry,
    Checkpoint,
    Commit,
    HistoryEntry,
    HistoryRow,
    IdempotencyRecord,
    KeptPlan,
    KeyChange,
    RegistryRow,
    SchemaActivation,
    SchemaVersion,
    SealedSecret,
    ServiceState,
    TakenBack,
)
from config_manager.storage.store import IDEMPOTENCY_KEPT_S, PLANS_KEPT

ENTRY = "revision, version, epoch_id, epoch_seq, at, by, action, reason, correlation_id, changes"
"""The columns of `history` beside the service, in the order of `HistoryEntry`."""
CHECKPOINT = "service, revision, version, deleted, stored, secrets"
"""The columns of `checkpoints` beside its seal, in the order of `Checkpoint`."""
PLAN = "id, seq, at, expires_at, by, reason, services, digest, base, result, shown, outcome"
"""The columns of `plans` beside its seal, in the order of `KeptPlan`."""
_SERVICES = KeptPlan._fields.index("services")
SEALED = "service, name, version, key_id, nonce, ciphertext, updated_at"
"""The columns of `secrets`, in the order of `SealedSecret`."""
SCHEMA = "service, version, digest, schema, at, source, by, reason, correlation_id, differences, revision"
"""The columns of `schemas`, in the order of `SchemaVersion`."""


# ── writing ────────────────────────────────────────────────────────────────────────────────────


def insert_change(writer: SqlConnection, change: Commit) -> None:
    """Every row of one change, but the counters."""
    for state in change.services:
        _put_service(writer, change.before.services.get(state.service), state)
    for row in change.history:
        insert_history(writer, row)
    if (audit := change.audit) is not None:
        writer.execute(
            "INSERT INTO audit VALUES (?, ?, ?, ?)",
            (audit.seq, audit.revision, audit.body, audit.hash),
        )
    for item in change.registry:
        _put_registry(writer, item)
    if (epoch := change.after.epoch) != change.before.epoch:
        writer.execute(
            "INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?, ?)",
            (epoch.seq, epoch.id, change.after.revision, change.at, change.reason),
        )
    if change.forgotten is not None or change.secret is not None:
        _put_secret(writer, change.forgotten, change.secret)
    if change.taken_back:
        insert_taken_back(writer, change.taken_back)
    if change.idempotency is not None:
        _put_idempotency(writer, change.idempotency)
    if change.schemas or change.activations:
        insert_schemas(writer, change.schemas, change.activations)


def insert_schemas(
    writer: SqlConnection,
    versions: Sequence[SchemaVersion],
    activations: Sequence[SchemaActivation],
) -> None:
    writer.executemany(
        f"INSERT INTO schemas ({SCHEMA}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  a constant
        versions,
    )
    writer.executemany(
        "INSERT OR REPLACE INTO schema_activations VALUES (?, ?, ?)",
        activations,
    )


def insert_history(writer: SqlConnection, row: HistoryRow) -> None:
    *about, _ = row.entry
    changes = row.entry.changes
    kept = _json([change.to_list() for change in changes])
    writer.execute(
        f"INSERT INTO history (service, {ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  a constant
        (row.service, *about, kept),
    )
    writer.executemany(
        "INSERT OR REPLACE INTO history_keys VALUES (?, ?, ?)",
        [(row.service, change.key, row.entry.revision) for change in changes],
    )


def insert_taken_back(writer: SqlConnection, rows: Iterable[TakenBack]) -> None:
    writer.executemany(
        "INSERT INTO taken_back VALUES (?, ?, ?, ?, ?)",
        [(*about, None if keys is None else _json(keys)) for *about, keys in rows],
    )


def insert_checkpoint(writer: SqlConnection, one: Checkpoint, seal: str) -> None:
    writer.execute(
        "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            one.service,
            one.revision,
            one.version,
            int(one.deleted),
            _json(one.stored),
            _json(one.secrets),
            seal,
        ),
    )


def keep_plans(writer: SqlConnection, change: Commit, seal: Callable[[KeptPlan], str]) -> None:
    """The plans of a change. Of one that is there only the outcome changes. The table keeps itself small."""
    writer.executemany("DELETE FROM plans WHERE id = ?", [(one,) for one in change.plans_gone])
    writer.executemany(
        f"INSERT INTO plans ({PLAN}, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  a constant
        " ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, seal = excluded.seal",
        [
            (*one[:_SERVICES], _json(one.services), *one[_SERVICES + 1 :], seal(one))
            for one in change.plans
        ],
    )
    writer.execute(
        "DELETE FROM plans WHERE seq <= (SELECT seq FROM plans ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (PLANS_KEPT,),
    )


@contextmanager
def overwritten(writer: SqlConnection) -> Generator[None]:
    """What is deleted in here is zeroed in the file too; for every write it would cost too much."""
    writer.execute("PRAGMA secure_delete = ON").fetchone()
    try:
        yield
    finally:
        writer.execute("PRAGMA secure_delete = OFF").fetchone()


def _put_service(writer: SqlConnection, before: ServiceState | None, state: ServiceState) -> None:
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


def _put_secret(
    writer: SqlConnection, forgotten: tuple[str, str] | None, secret: SealedSecret | None
) -> None:
    if forgotten is not None:
        with overwritten(writer):
            writer.execute("DELETE FROM secrets WHERE service = ? AND name = ?", forgotten)
    if secret is not None:
        writer.execute(
            f"INSERT INTO secrets ({SEALED}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  a constant
            secret,
        )


def _put_registry(writer: SqlConnection, row: RegistryRow) -> None:
    if row.value is None:
        writer.execute("DELETE FROM registry WHERE kind = ? AND key = ?", (row.kind, row.key))
    else:
        writer.execute(
            "INSERT OR REPLACE INTO registry VALUES (?, ?, ?)",
            (row.kind, row.key, _json(row.value)),
        )


def _put_idempotency(writer: SqlConnection, record: IdempotencyRecord) -> None:
    """The table keeps itself small: each record takes those with it that are past their time."""
    writer.execute("DELETE FROM idempotency WHERE at < ?", (record.at - IDEMPOTENCY_KEPT_S,))
    writer.execute("INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)", record)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


# ── reading ────────────────────────────────────────────────────────────────────────────────────


def audit_rows(
    connection: SqlConnection, after: int = 0, limit: int | None = None
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


def history_entry(row: Sequence[Any]) -> HistoryEntry:
    """Of the columns ENTRY. Raises ValueError, TypeError, LookupError."""
    *about, changes = row
    return HistoryEntry._make((*about, tuple(map(KeyChange.from_list, orjson.loads(changes)))))


def checkpoint(row: Sequence[Any]) -> Checkpoint:
    """Of the columns CHECKPOINT. Raises ValueError, TypeError."""
    service, revision, version, deleted, stored, secrets = row
    return Checkpoint(
        service,
        revision,
        version,
        bool(deleted),
        json_object(stored),
        tuple(orjson.loads(secrets)),
    )


def plan(row: Sequence[Any]) -> KeptPlan:
    """Of the columns PLAN. Raises ValueError, TypeError."""
    one = KeptPlan._make(row)
    return one._replace(services=tuple(orjson.loads(row[_SERVICES])))


def taken_back(row: Sequence[Any]) -> TakenBack:
    """Of a row of `taken_back`. Raises ValueError, TypeError."""
    service, revision, after, upto, keys = row
    known = None if keys is None else tuple(orjson.loads(keys))
    return TakenBack(service, revision, after, upto, known)


def service_state(row: Sequence[Any]) -> ServiceState:
    """Of a row of `configurations` and its payload. Raises ValueError, TypeError, LookupError,
    AttributeError."""
    payload = bytes(row[13])
    return ServiceState(
        service=row[0],
        revision=row[1],
        version=row[2],
        epoch=Epoch(row[3], row[4]),
        stored=json_object(row[5]),
        effective=json_object(row[6]),
        defaulted=tuple(orjson.loads(row[7])),
        secrets=json_object(row[8]),
        deleted=bool(row[9]),
        updated_at=row[10],
        updated_by=row[11],
        correlation_id=row[12],
        payload=payload,
        digest=digest(payload),
    )


def json_object(text: str) -> JsonObject:
    """Raises ValueError, TypeError."""
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return cast("JsonObject", value)
