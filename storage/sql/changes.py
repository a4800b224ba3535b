"""Changes of all services, read in the order of their revisions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from config_manager.storage.sql.database import SqlConnection
from config_manager.storage.trace import Change, ChangesQuery

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
