"""A service's history over REST."""

from __future__ import annotations

from typing import Annotated

from config_manager.api.rest.limits import MOST_BYTES_OF_A_PAGE
from config_manager.api.rest.models import (
    Answer,
    By,
    CorrelationId,
    EpochId,
    EpochSeq,
    Name,
    Revision,
    Time,
    Version,
    about,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE, key, number, time
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import KeyChangeAnswer
from config_manager.config.secret import MASK
from config_manager.config.strict_json import JsonObject
from config_manager.storage import state
from config_manager.storage.decisions.shapes import unknown
from config_manager.storage.state import HistoryEntry, HistoryQuery

_PAGE = 50
_OF_SECRETS = ("secret", "secret-delete")


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class EntryAnswer(Answer):
    """One revision of a service."""

    revision: Revision
    version: Version
    config_epoch: EpochId
    epoch_seq: EpochSeq
    at: Time
    by: By
    action: Annotated[state.Action, about("what was asked for")]
    reason: Annotated[str | None, about("why, if somebody said so")]
    correlation_id: CorrelationId
    changes: Annotated[list[KeyChangeAnswer], about("by key; secrets are masked")]


class HistoryAnswer(Answer):
    """A page of a service's history."""

    service: Name
    entries: Annotated[list[EntryAnswer], about("newest first")]
    next_before: Annotated[int | None, about("`before` of the next page; null: this is the last")]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


_LIMIT = number("limit", f"entries; {_PAGE}", least=1, most=500)
_BEFORE = number("before", "revisions below this one")
_KEY = key("only revisions that changed this key")
_SINCE = time("since", "not older than this")
_UNTIL = time("until", "not newer than this")


@operation(
    "Who changed what, when and why; newest first, at most 4 MiB at once",
    answers={200: HistoryAnswer},
    problems=(404, 503, 504),
    takes=(_LIMIT, _BEFORE, _KEY, _SINCE, _UNTIL),
    description="Page on with `before=` the answer's `next_before`, until it is null. The history of a deleted "
    "service stays.",
)
async def get_history(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    query = HistoryQuery(
        service=service,
        limit=_LIMIT.of(request) or _PAGE,
        before=_BEFORE.of(request),
        key=_KEY.of(request),
        since=_SINCE.of(request),
        until=_UNTIL.of(request),
        most_bytes=MOST_BYTES_OF_A_PAGE,
    )
    committed, shapes = api.system.view.committed, api.system.shapes
    if service not in committed.services and shapes.of(committed, service) is None:
        raise unknown(service)
    page = await api.system.reading.history(query, request.context)
    # as of now: what was plain when it was written may have become a secret since
    secrets = shapes.secret_keys(api.system.view.committed, service)
    entries = [_entry(entry, secrets) for entry in page.entries]
    return json_response(
        {"service": page.service, "entries": entries, "next_before": page.next_before}
    )


# A `HistoryAnswer` is made of dictionaries: a page may hold 100,000 changes, and as models these would
# keep every other call waiting for half a second. tests/api/rest/test_models.py holds it to the model.


def _entry(entry: HistoryEntry, secrets: frozenset[str]) -> JsonObject:
    is_of_secret = entry.action in _OF_SECRETS
    changes = [
        _change(change, is_secret=is_of_secret or change.key in secrets) for change in entry.changes
    ]
    return {**entry._asdict(), "changes": changes}


def _change(change: state.KeyChange, *, is_secret: bool) -> JsonObject:
    """The answer has `masked` if a value is the mask, because a plain value may be the same text."""
    shown = change.to_object()
    if is_secret:
        shown = {"key": change.key, "old": _masked(change.old), "new": _masked(change.new)}
    if MASK in (shown["old"], shown["new"]):
        shown["masked"] = is_secret
    return shown


def _masked(value: object) -> object:
    return None if value is None else MASK
