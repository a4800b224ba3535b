"""Changes of all services in the order of their revisions, and the times of their steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from config_manager.storage.sql.database import SqlConnection
from config_manager.storage.trace import (
    BrokerTimes,
    Change,
    ChangesQuery,
    ChangeTimes,
)

_CHANGE = "revision, correlation_id, epoch_seq, epoch_id, at, by, action, reason, service"


def read_changes(connection: SqlConnection, query: ChangesQuery) -> Sequence[Change]:
    """See `Store.changes`."""
    where, values = _filters(query)
    order = "DESC" if query.after is None else "ASC"
    visible = "" if query.visible is None else " AND service IN (SELECT value FROM json_each(?))"
    rows = connection.execute(
        f"SELECT {_CHANGE} FROM history WHERE revision IN"  # noqa: S608  no caller's text in it
        f" (SELECT DISTINCT revision FROM history WHERE {where} ORDER BY revision {order} LIMIT ?)"
        f"{visible} ORDER BY revision {order}, service",
        (*values, query.limit, *([json.dumps(query.visible)] if visible else [])),
    ).fetchall()
    by_revision = [list(of_one) for _, of_one in groupby(rows, key=itemgetter(0))]
    return [
        Change._make((*of_one[0][:-1], tuple(row[-1] for row in of_one))) for of_one in by_revision
    ]


def _filters(query: ChangesQuery) -> tuple[str, list[object]]:
    where, values = ["true"], list[object]()
    for clause, value in (
        ("revision > ?", query.after),
        ("revision < ?", query.before),
        ("service = ?", query.service),
        ("by = ?", query.by),
        ("at >= ?", query.since),
        ("at <= ?", query.until),
        ("correlation_id = ?", query.correlation_id),
        (
            "service IN (SELECT value FROM json_each(?))",
            None if query.visible is None else json.dumps(query.visible),
        ),
    ):
        if value is not None:
            where.append(clause)
            values.append(value)
    return " AND ".join(where), values


def keep_times(writer: SqlConnection, times: Sequence[ChangeTimes]) -> None:
    """See `Store.mark_confirmed`."""
    writer.executemany(
        "INSERT OR IGNORE INTO change_times VALUES (?, ?, ?, ?, ?)", [one[:-1] for one in times]
    )
    writer.executemany(
        "INSERT INTO broker_times VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " signed = coalesce(signed, excluded.signed),"
        " published = coalesce(published, excluded.published),"
        " acknowledged = coalesce(acknowledged, excluded.acknowledged),"
        " confirmed = coalesce(confirmed, excluded.confirmed)",
        [(one.revision, *at) for one in times for at in one.brokers],
    )


def prune_times(writer: SqlConnection, before: float, limit: int) -> int:
    """See `Store.prune_observed`."""
    past = writer.execute(
        "SELECT revision FROM"
        " (SELECT revision, committed FROM change_times ORDER BY revision LIMIT ?)"
        " WHERE committed < ?",
        (limit, before),
    ).fetchall()
    for table in ("change_times", "broker_times"):
        writer.executemany(f"DELETE FROM {table} WHERE revision = ?", past)  # noqa: S608  a constant
    return len(past)


def read_times(connection: SqlConnection, revision: int) -> ChangeTimes | None:
    """See `Store.change_times`."""
    row = connection.execute(
        "SELECT * FROM change_times WHERE revision = ?", (revision,)
    ).fetchone()
    if row is None:
        return None
    brokers = connection.execute(
        "SELECT service, broker, signed, published, acknowledged, confirmed FROM broker_times"
        " WHERE revision = ? ORDER BY service, broker",
        (revision,),
    ).fetchall()
    return ChangeTimes._make((*row, tuple(map(BrokerTimes._make, brokers))))
