"""The audit over REST: read, checked from the first row to the last, and sealed for an export."""

from __future__ import annotations

import re
from typing import Annotated

import trio

from config_manager.actors.actor import Context
from config_manager.actors.messages import Sign
from config_manager.api.resources.trust import EnvelopeAnswer
from config_manager.api.rest.limits import MOST_BYTES_OF_A_PAGE, VERIFY_WITHIN_S
from config_manager.api.rest.models import Answer, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Query, number
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.config import wire
from config_manager.config.audit import Kind
from config_manager.config.documents.audit_export import AuditExport
from config_manager.config.world import rfc3339
from config_manager.storage.state import AuditEntry

_PAGE = 100
_MOST_NAMED = 500
_HASH = re.compile(r"[0-9a-f]{64}")


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


_Rows = Annotated[int, about("how many rows there are")]
_Head = Annotated[str, about("the newest row's hash, which beacons sign")]


class RowAnswer(Answer):
    """One row of the audit."""

    seq: Annotated[int, about("1 is the first row")]
    revision: Annotated[int, about("as of which it was written")]
    hash: Annotated[str, about("SHA-256 of the hash before (hex) and the body")]
    body: Annotated[
        str,
        about("JSON, exactly as it was hashed; `client` in it: the address that it was asked from"),
    ]


class AuditAnswer(Answer):
    """A page of the audit."""

    entries: Annotated[list[RowAnswer], about("oldest first")]
    rows: _Rows
    head: _Head
    next_after: Annotated[int | None, about("`after` of the next page; null: this is the last")]


class FindingAnswer(Answer):
    """The first thing that does not verify."""

    seq: Annotated[int, about("the row that it is about; 0: none")]
    kind: Annotated[Kind, about("what happened")]
    detail: Annotated[str, about("for people")]


class NotAudited(Answer):
    """Something that is kept, or is missing, and no row vouches for."""

    reason: Annotated[str, about("as in /health: `not-audited: …`")]
    why: Annotated[str, about("for people")]
    seq: Annotated[int, about("the newest row that names it; 0: none does")]


class AuditVerdict(Answer):
    """Whether the audit is whole, and whether it vouches for everything that is kept."""

    ok: Annotated[
        bool, about("whether every row is as it was written and the rows vouch for what is kept")
    ]
    rows: _Rows
    head: _Head
    problem: Annotated[FindingAnswer | None, about("null if everything verifies")]
    not_audited: Annotated[
        list[NotAudited],
        about("what is kept, or is missing, and no row vouches for; as in /health"),
    ]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


def _parse_hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError("expected a hash of 64 hex digits")
    return text


_AFTER = number("after", "rows after this number; 0")
_LIMIT = number("limit", f"rows at most; {_PAGE}", least=1, most=1000)
_CONTAINS = Query(
    "contains",
    "a hash that you kept: the chain must hold it",
    {"type": "string", "pattern": f"^{_HASH.pattern}$"},
    _parse_hash,
)


@operation(
    "Who did what, when and why, in order, each row chained to the one before",
    answers={200: AuditAnswer},
    problems=(503, 504),
    takes=(_AFTER, _LIMIT),
    description="Oldest first. Page on with `after=` the answer's `next_after`, until it is null.",
)
async def get_audit(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    after = _AFTER.of(request) or 0
    limit = _LIMIT.of(request) or _PAGE
    rows = await api.system.reading.audit(
        request.context, after=after, limit=limit, most_bytes=MOST_BYTES_OF_A_PAGE
    )
    committed = api.system.view.committed
    more = bool(rows) and rows[-1].seq < committed.audit_seq
    answer = AuditAnswer(
        entries=[_entry(row) for row in rows],
        rows=committed.audit_seq,
        head=committed.audit_head,
        next_after=rows[-1].seq if more else None,
    )
    return json_response(answer, headers=NO_STORE)


@operation(
    "Check the whole chain against the head that the beacons sign",
    answers={200: AuditVerdict},
    problems=(503, 504),
    takes=(_CONTAINS,),
    description="Reads every row, and compares what is kept with them; it may take a minute. `contains` says "
    "whether a hash that you kept, such as an earlier head, is still part of the chain.",
)
async def verify_audit(request: ApiRequest, api: Api) -> ApiResponse:
    """Compares every row with the head that this server holds in memory and its beacons sign. Then compares
    everything that is kept with the rows."""
    request.allow_query()
    contains = _CONTAINS.of(request)
    context = Context(request.correlation_id, trio.current_time() + VERIFY_WITHIN_S)
    judgement = await api.system.reading.judge(contains, context)
    answer = AuditVerdict.of(
        judgement.verdict,
        ok=judgement.problem is None,
        problem=judgement.problem,
        not_audited=[NotAudited.of(one, seq=one.row) for one in judgement.foreign[:_MOST_NAMED]],
    )
    return json_response(answer, headers=NO_STORE)


@operation(
    "The signed end of the chain: with it, the rows up to there are an export",
    answers={200: EnvelopeAnswer},
    problems=(503, 504),
    description="Keep it with the rows of `GET /api/v1/audit` up to its head: `config-manager audit verify --file` "
    "checks both anywhere.",
)
async def export_audit(request: ApiRequest, api: Api) -> ApiResponse:
    """The rows of the export are those of `GET /api/v1/audit` up to the signed head."""
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


def _entry(row: AuditEntry) -> RowAnswer:
    return RowAnswer.of(row, body=row.body.decode("utf-8", errors="replace"))
