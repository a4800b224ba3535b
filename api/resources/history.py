"""A service's history over REST."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict, cast

from config_manager.api.rest.limits import MOST_BYTES_OF_A_PAGE
from config_manager.api.rest.models import KEY, Name, Time, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE, Query, number
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.config.errors import NotFound
from config_manager.config.names import is_key
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage import state
from config_manager.storage.decisions.changes import MASK, secret_keys_of
from config_manager.storage.state import HistoryEntry, HistoryQuery

_PAGE = 50
_OF_SECRETS = ("secret", "secret-delete")


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class _Change(TypedDict):
    key: str
    old: Annotated[Any, about("null: it was not there, unless `nulls` says otherwise")]
    new: Annotated[Any, about("null: it is not there, unless `nulls` says otherwise")]


class KeyChange(_Change, total=False):
    nulls: Annotated[list[Literal["old", "new"]], about("which of the two is a value that is null")]
    masked: Annotated[
        bool, about("beside a mask: whether it stands for a secret, or is the value itself")
    ]


class Entry(TypedDict):
    revision: int
    version: int
    config_epoch: str
    epoch_seq: int
    at: Time
    by: str
    action: state.Action
    reason: str | None
    correlation_id: str
    changes: list[KeyChange]


class History(TypedDict):
    service: Name
    entries: list[Entry]
    next_before: int | None


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


def _parse_key(text: str) -> str:
    if not is_key(text):
        raise ValueError("not a key's name")
    return text


def _parse_time(text: str) -> str:
    try:
        return rfc3339(parse_rfc3339(text.replace(" ", "+")))  # an unescaped + reads as a space
    except (ValueError, OverflowError, OSError):
        raise ValueError("expected a time such as 2026-01-31T12:00:00Z") from None


_TIME = {"type": "string", "format": "date-time"}
_LIMIT = number("limit", f"entries; {_PAGE}", least=1, most=500)
_BEFORE = number("before", "revisions below this one")
_KEY = Query("key", "only revisions that changed this key", KEY, _parse_key)
_SINCE = Query("since", "not older than this", _TIME, _parse_time)
_UNTIL = Query("until", "not newer than this", _TIME, _parse_time)


@operation(
    "Who changed what, when and why; newest first, at most 4 MiB at once",
    answers={200: History},
    problems=(404, 503, 504),
    takes=(_LIMIT, _BEFORE, _KEY, _SINCE, _UNTIL),
)
async def get_history(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    key = _KEY.of(request)
    query = HistoryQuery(
        service=service,
        limit=_LIMIT.of(request) or _PAGE,
        before=_BEFORE.of(request),
        key=key,
        since=_SINCE.of(request),
        until=_UNTIL.of(request),
        most_bytes=MOST_BYTES_OF_A_PAGE,
    )
    if service not in api.system.view.committed.services and service not in api.system.catalogue:
        raise NotFound(f"{service} is not in the catalogue and nobody has written it")
    page = await api.system.reading.history(query, request.context)
    # as of now: what was plain when it was written may have become a secret since
    secrets = secret_keys_of(api.system.view.committed, service, api.system.catalogue)
    answer: History = {
        "service": service,
        "entries": [_entry(entry, secrets) for entry in page.entries],
        "next_before": page.next_before,
    }
    return json_response(answer)


def _entry(entry: HistoryEntry, secrets: frozenset[str]) -> Entry:
    return {
        "revision": entry.revision,
        "version": entry.version,
        "config_epoch": entry.config_epoch,
        "epoch_seq": entry.epoch_seq,
        "at": entry.at,
        "by": entry.by,
        "action": entry.action,
        "reason": entry.reason,
        "correlation_id": entry.correlation_id,
        "changes": [
            _change(change, is_secret=change.key in secrets or entry.action in _OF_SECRETS)
            for change in entry.changes
        ],
    }


def _change(change: state.KeyChange, *, is_secret: bool) -> KeyChange:
    """masked: only beside a mask, because a plain value may be the same text."""
    shown: KeyChange
    if is_secret:
        shown = {"key": change.key, "old": _masked(change.old), "new": _masked(change.new)}
    else:
        shown = key_change(change)
    if MASK in (shown["old"], shown["new"]):
        shown["masked"] = is_secret
    return shown


def _masked(value: object) -> object:
    return None if value is None else MASK


def key_change(change: state.KeyChange) -> KeyChange:
    return cast("KeyChange", change.to_object())
