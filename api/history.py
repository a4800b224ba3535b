"""A service's history over REST."""

from __future__ import annotations

from config_manager.actors.messages import ReadHistory
from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.limits import MOST_BYTES_OF_A_PAGE
from config_manager.config.errors import MalformedRequest, NotFound
from config_manager.config.names import is_key, parse_service
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.changes import MASK, secret_keys_of
from config_manager.storage.state import HistoryEntry, HistoryQuery, KeyChange

_MAX_PAGE = 500
_PAGE = 50
_OF_SECRETS = ("secret", "secret-delete")


async def get_history(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    request.allow_query("limit", "before", "key", "since", "until")
    key = request.query.get("key")
    if key is not None and not is_key(key):
        raise MalformedRequest("key: not a key's name")
    query = HistoryQuery(
        service=service,
        limit=request.number("limit", least=1, most=_MAX_PAGE) or _PAGE,
        before=request.number("before", least=0, most=MAX_INTEGER - 1),
        key=key,
        since=_time(request, "since"),
        until=_time(request, "until"),
        most_bytes=MOST_BYTES_OF_A_PAGE,
    )
    if service not in api.system.view.committed.services and service not in api.system.catalogue:
        raise NotFound(f"{service} is not in the catalogue and nobody has written it")
    page = await api.system.pages.ask(ReadHistory(query), request.context)
    # as of now: what was plain when it was written may have become a secret since
    secrets = secret_keys_of(api.system.view.committed, service, api.system.catalogue)
    return json_response(
        {
            "service": service,
            "entries": [_entry(entry, secrets) for entry in page.entries],
            "next_before": page.next_before,
        }
    )


def _time(request: ApiRequest, name: str) -> str | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return rfc3339(parse_rfc3339(text.replace(" ", "+")))  # an unescaped + reads as a space
    except (ValueError, OverflowError, OSError):
        raise MalformedRequest(f"{name}: expected a time such as 2026-01-31T12:00:00Z") from None


def _entry(entry: HistoryEntry, secrets: frozenset[str]) -> dict[str, object]:
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


def _change(change: KeyChange, *, is_secret: bool) -> dict[str, object]:
    """masked: only beside a mask, because a plain value may be the same text."""
    if is_secret:
        shown: dict[str, object] = {
            "key": change.key,
            "old": _masked(change.old),
            "new": _masked(change.new),
        }
    else:
        shown = {**change.to_object()}
    if MASK in (shown["old"], shown["new"]):
        shown["masked"] = is_secret
    return shown


def _masked(value: object) -> object:
    return None if value is None else MASK
