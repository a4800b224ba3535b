"""A report over REST: who ran what, when, beside the evidence, to be verified without this server."""

from __future__ import annotations

from typing import Annotated, Any

import trio
from pydantic import WithJsonSchema

from config_manager.actors.actor import Context
from config_manager.actors.reporting import Asked
from config_manager.api.resources.trust import EnvelopeAnswer
from config_manager.api.rest.limits import MOST_BYTES_OF_EVIDENCE, VERIFY_WITHIN_S
from config_manager.api.rest.models import Answer, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import service_in_query, time
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse
from config_manager.config.errors import InvalidValues
from config_manager.config.world import rfc3339
from config_manager.storage.decisions import shapes
from config_manager.storage.decisions.devices import DEVICE

_ROW = {
    "type": "array",
    "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "minItems": 3,
    "maxItems": 3,
}


class AuditEvidence(Answer):
    """Rows of the audit without gaps, and the beacons that signed how they end."""

    rows: Annotated[
        list[Any],
        WithJsonSchema({"type": "array", "items": _ROW}),
        about("`[seq, body, hash]` of each, in order; as `GET /api/v1/audit` has them"),
    ]
    heads: Annotated[list[EnvelopeAnswer], about("beacons; the newest one signed the last hash")]


class EvidenceAnswer(Answer):
    """What a report is worked out from."""

    roots: Annotated[list[EnvelopeAnswer], about("every version of the trust root")]
    updates: Annotated[
        list[EnvelopeAnswer],
        about("the newest configuration of each service, if it is in the report"),
    ]
    receipts: Annotated[
        list[EnvelopeAnswer], about("what instances said, each signed by its own key")
    ]
    keys: Annotated[dict[str, str], about("these keys by id, raw, in base64")]
    audit: AuditEvidence


class ReportAnswer(Answer):
    """A report and its evidence. Keep the bytes as they are: `config-manager report verify` reads them."""

    report: Annotated[EnvelopeAnswer, about("docs/wire.md has the fields of its payload")]
    evidence: EvidenceAnswer


_AT = time("at", "a moment: what was wanted and what ran then")
_FROM = time("from", "the span's beginning; with `to`")
_TO = time("to", "its end, now or before")
_SERVICE = service_in_query("only this service; the rows of the audit stay whole")


@operation(
    "Who ran what in a span, signed, with the evidence for it",
    answers={200: ReportAnswer},
    problems=(404, 422, 503, 504),
    takes=(_AT, _FROM, _TO, _SERVICE),
    description="Give `at`, or `from` and `to`. Anybody who has the trust root verifies it anywhere, with "
    "`config-manager report verify`. It holds rows of the audit of every service. 422 `report-too-large` if it would "
    "need over 32 MiB of evidence.",
)
async def get_report(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    begin, end = _span(request, api)
    service = _SERVICE.of(request)
    if service is not None and not _is_known(api, service):
        raise shapes.unknown(service)
    context = Context(request.correlation_id, trio.current_time() + VERIFY_WITHIN_S)
    asked = Asked(begin, end, service, request.by, MOST_BYTES_OF_EVIDENCE)
    return ApiResponse(200, await api.system.reports.make(asked, context), NO_STORE)


def _span(request: ApiRequest, api: Api) -> tuple[str, str]:
    """Raises InvalidValues."""
    at, begin, end = _AT.of(request), _FROM.of(request), _TO.of(request)
    if (at is None) == (begin is None and end is None) or (begin is None) != (end is None):
        raise InvalidValues("give at, or from and to: a moment or a span")
    begin, end = at or begin, at or end
    assert begin is not None
    assert end is not None
    if begin > end:
        raise InvalidValues("from: expected a time before `to`")
    if end > rfc3339(api.system.world.clock.now()):
        raise InvalidValues(f"{'to' if at is None else 'at'}: expected a time that has passed")
    return begin, end


def _is_known(api: Api, service: str) -> bool:
    committed = api.system.view.committed
    return (
        service in committed.services
        or api.system.shapes.of(committed, service) is not None
        or any(key.startswith(f"{service}/") for key in committed.registered(DEVICE))
    )
