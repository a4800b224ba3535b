"""The audit over REST: read, checked from the first row to the last, and sealed for an export."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import trio

from config_manager.actors.actor import Context
from config_manager.actors.messages import ReadAudit, Sign
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.limits import MOST_BYTES_OF_A_PAGE, VERIFY_WITHIN_S
from config_manager.config import wire
from config_manager.config.documents import AuditExport
from config_manager.config.errors import MalformedRequest
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.world import rfc3339
from config_manager.storage.state import AuditEntry

_PAGE = 100
_MOST_NAMED = 500
_MAX_PAGE = 1000
_HASH = re.compile(r"[0-9a-f]{64}")


async def get_audit(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query("after", "limit")
    after = request.number("after", least=0, most=MAX_INTEGER - 1) or 0
    limit = request.number("limit", least=1, most=_MAX_PAGE) or _PAGE
    rows = await api.system.pages.ask(
        ReadAudit(after, limit=limit, most_bytes=MOST_BYTES_OF_A_PAGE), request.context
    )
    committed = api.system.view.committed
    more = bool(rows) and rows[-1].seq < committed.audit_seq
    return json_response(
        {
            "entries": [_entry(row) for row in rows],
            "rows": committed.audit_seq,
            "head": committed.audit_head,
            "next_after": rows[-1].seq if more else None,
        },
        headers=NO_STORE,
    )


async def verify_audit(request: ApiRequest, api: Api) -> ApiResponse:
    """Every row, against the head that this server holds in memory, the one that its beacons sign; and all
    that is kept, against the rows."""
    request.allow_query("contains")
    contains = request.query.get("contains")
    if contains is not None and not _HASH.fullmatch(contains):
        raise MalformedRequest("contains: expected a hash of 64 hex digits")
    context = Context(request.correlation_id, trio.current_time() + VERIFY_WITHIN_S)
    judgement = await api.system.pages.judge(contains, context)
    problem = judgement.problem
    return json_response(
        {
            "ok": problem is None,
            "rows": judgement.verdict.rows,
            "head": judgement.verdict.head,
            "problem": problem and asdict(problem),
            "not_audited": [one.to_object() for one in judgement.foreign[:_MOST_NAMED]],
        },
        headers=NO_STORE,
    )


async def export_audit(request: ApiRequest, api: Api) -> ApiResponse:
    """The signed head of an export; its rows are those of `GET /api/v1/audit` up to that one."""
    request.allow_query()
    committed = api.system.view.committed
    export = AuditExport(
        rows=committed.audit_seq,
        head=committed.audit_head,
        config_epoch=committed.epoch.id,
        epoch_seq=committed.epoch.seq,
        revision=committed.revision,
        exported_at=rfc3339(api.system.world.clock.now()),
        exported_by=request.by,
    )
    message = Sign("config", wire.AUDIT_EXPORT, export.to_bytes(), request.correlation_id)
    envelope = await api.system.signing.ask(message, request.context)
    return json_response(envelope.to_object(), headers=NO_STORE)


def _entry(row: AuditEntry) -> dict[str, Any]:
    """body: the row's bytes as they are hashed, as text."""
    return {
        "seq": row.seq,
        "revision": row.revision,
        "hash": row.hash,
        "body": row.body.decode("utf-8", errors="replace"),
    }
