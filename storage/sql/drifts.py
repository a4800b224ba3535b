"""How receipts and drift lie in the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from config_manager.storage.drifts import (
    Drift,
    DriftQuery,
    KeptReceipt,
    Observed,
    ReceiptsQuery,
)
from config_manager.storage.sql.changes import prune_times
from config_manager.storage.sql.database import SqlConnection

_RECEIPT = ", ".join(KeptReceipt._fields)
_DRIFT = ", ".join(Drift._fields)

_NEWEST = f"""
WITH of_each AS (
    SELECT service, instance, max(id) FILTER (WHERE gone = 0) AS there, max(id) AS newest
    FROM receipts GROUP BY service, instance
)
SELECT {_RECEIPT} FROM receipts WHERE id IN (
    SELECT there FROM of_each UNION SELECT newest FROM of_each
) ORDER BY service, instance, id
"""  # noqa: S608  constants
_INSIDE_A_SEGMENT = """
SELECT id FROM (
    SELECT id,
        (revision IS lag(revision) OVER w AND state IS lag(state) OVER w) AS as_before,
        (revision IS lead(revision) OVER w AND state IS lead(state) OVER w) AS as_after
    FROM receipts
    WHERE id < coalesce(
        (SELECT id FROM receipts WHERE received_at >= ?1 ORDER BY id LIMIT 1), 9223372036854775807
    )
    WINDOW w AS (PARTITION BY service, instance ORDER BY id)
) WHERE as_before AND as_after LIMIT ?2
"""


# ── writing ────────────────────────────────────────────────────────────────────────────────────


def keep_observed(writer: SqlConnection, observed: Observed) -> None:
    """See `Store.keep_observed`."""
    writer.executemany(
        "DELETE FROM receipts WHERE service = ? AND instance = ?", observed.forgotten
    )
    writer.executemany(
        f"INSERT INTO receipts ({_RECEIPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  a constant
        observed.receipts,
    )
    writer.executemany(
        f"INSERT OR REPLACE INTO drift_events ({_DRIFT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  a constant
        observed.drifts,
    )


def prune_observed(writer: SqlConnection, before: float, limit: int) -> int:
    """See `Store.prune_observed`."""
    inside = writer.execute(_INSIDE_A_SEGMENT, (before, limit)).fetchall()
    writer.executemany("DELETE FROM receipts WHERE id = ?", inside)
    ended = writer.execute(
        "DELETE FROM drift_events WHERE seq IN"
        " (SELECT seq FROM drift_events WHERE ended < ? ORDER BY seq LIMIT ?)",
        (before, limit),
    )
    return max(len(inside), ended.rowcount, prune_times(writer, before, limit))


# ── reading ────────────────────────────────────────────────────────────────────────────────────


def read_receipts(connection: SqlConnection, query: ReceiptsQuery) -> Sequence[KeptReceipt]:
    rows = connection.execute(
        f"SELECT {_RECEIPT} FROM receipts WHERE service = ?1 AND instance = ?2"  # noqa: S608  a constant
        " AND (?3 IS NULL OR received_at >= ?3) AND (?4 IS NULL OR received_at <= ?4)"
        " ORDER BY id",
        (query.service, query.instance, query.since, query.until),
    ).fetchall()
    return list(map(_receipt, rows))


def read_attempts(connection: SqlConnection, service: str, revision: int) -> Sequence[KeptReceipt]:
    rows = connection.execute(
        f"SELECT {_RECEIPT} FROM receipts WHERE service = ? AND attempted = ? ORDER BY id",  # noqa: S608  a constant
        (service, revision),
    ).fetchall()
    return list(map(_receipt, rows))


def read_newest_receipts(connection: SqlConnection) -> Sequence[KeptReceipt]:
    return list(map(_receipt, connection.execute(_NEWEST).fetchall()))


def read_drifts(connection: SqlConnection, query: DriftQuery) -> Sequence[Drift]:
    visible = None
    if query.covers is not None:
        services = connection.execute("SELECT DISTINCT service FROM drift_events").fetchall()
        visible = json.dumps([name for (name,) in services if query.covers(name)])
    rows = connection.execute(
        f"SELECT {_DRIFT} FROM drift_events"  # noqa: S608  a constant
        " WHERE (?1 IS NULL OR seq < ?1) AND (?2 IS NULL OR service = ?2)"
        " AND (?3 IS NULL OR service IN (SELECT value FROM json_each(?3)))"
        " AND (?4 IS NULL OR ended IS NULL OR ended >= ?4) AND (?5 IS NULL OR began <= ?5)"
        " ORDER BY seq DESC LIMIT ?6",
        (query.before, query.service, visible, query.since, query.until, query.limit),
    ).fetchall()
    return list(map(Drift._make, rows))


def read_open_drifts(connection: SqlConnection) -> tuple[Sequence[Drift], int]:
    rows = connection.execute(
        f"SELECT {_DRIFT} FROM drift_events WHERE ended IS NULL ORDER BY seq"  # noqa: S608  a constant
    ).fetchall()
    ((last,),) = connection.execute(
        "SELECT max(max(seq), coalesce(max(ended_seq), 0)) FROM drift_events"
    ).fetchall()
    return list(map(Drift._make, rows)), last or 0


def _receipt(row: Sequence[Any]) -> KeptReceipt:
    one = KeptReceipt._make(row)
    return one._replace(gone=bool(one.gone), envelope=bytes(one.envelope))
