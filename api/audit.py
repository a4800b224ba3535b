"""The audit over REST: read, checked from the first row to the last, and sealed for an export."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import trio

from config_manager.actors.actor import Context
from config_manager.actors.messages import ReadAudit, Sign
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.limits import MOST_BYTES_OF_A_PAGE, VERIFY_WITHIN_S
from config_manager.config import wire
from config_manager.config.audit import ChainCheck, Head
from config_manager.config.documents import AuditExport
from config_manager.config.errors import MalformedRequest
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.world import rfc3339
from config_manager.storage.state import AuditEntry

_PAGE = 100
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
    """Every row, against the head that this server holds in memory: the one that its beacons sign."""
    request.allow_query("contains")
    contains = request.query.get("contains")
    if contains is not None and not _HASH.fullmatch(contains):
        raise MalformedRequest("contains: expected a hash of 64 hex digits")
    committed = api.system.view.committed
    end = Head(committed.audit_seq, committed.audit_head, "the running server")
    check = ChainCheck(end, contains=contains)
    async for row in _rows(request, api, end.seq):
        check.take(row.seq, row.revision, row.body, row.hash)
    verdict = check.finish()
    return json_response(
        {
            "ok": verdict.ok,
            "rows": verdict.rows,
            "head": verdict.head,
            "problem": verdict.problem and asdict(verdict.problem),
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


async def _rows(request: ApiRequest, api: Api, last: int) -> AsyncIterator[AuditEntry]:
    """Every row up to this one, a page at a time; other readers get their turn between two pages."""
    context = Context(request.correlation_id, trio.current_time() + VERIFY_WITHIN_S)
    after = 0
    while after < last:
        limit = min(_MAX_PAGE, last - after)
        page = await api.system.pages.ask(
            ReadAudit(after, limit=limit, most_bytes=MOST_BYTES_OF_A_PAGE), context
        )
        if not page:
            return
        for row in page:
            yield row
        after = page[-1].seq


def _entry(row: AuditEntry) -> dict[str, Any]:
    """body: the row's bytes as they are hashed, as text."""
    return {
        "seq": row.seq,
        "revision": row.revision,
        "hash": row.hash,
        "body": row.body.decode("utf-8", errors="replace"),
    }
