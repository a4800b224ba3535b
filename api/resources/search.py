"""Search over REST."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from config_manager.api.rest.models import Answer, Name, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Query, number, one_of
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.config.errors import MalformedRequest
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.searching import (
    NOW,
    Cursor,
    HistoryFrom,
    NowAfter,
    Place,
    Search,
)

_PAGE = 50
_MOST = 500
_LONGEST = 200
_PLACES: tuple[Place, ...] = (*NOW, "history")


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class MatchAnswer(Answer):
    """A place where the text stands."""

    service: Name
    key: Annotated[str | None, about("null: it stands in the reason of a change")]
    place: Annotated[
        Literal["keys", "values", "descriptions", "history"],
        Field(
            alias="in",  # a word of Python's own
            description="what it stands in: the key's name, its value, its description, or a change",
        ),
    ]
    value: Annotated[
        Any, about("what is effective; of a change, what stood there; a secret is `********`")
    ]
    level: Annotated[str | None, about("`simple` or `advanced`, if the schema says so")]
    revision: Annotated[
        int, about("the service's newest one, or that of the change; 0: nobody has written it")
    ]


class SearchAnswer(Answer):
    """A page of matches: as of now by service and key, then those in the history, newest first."""

    matches: list[MatchAnswer]
    next_after: Annotated[str | None, about("`after` of the next page; null: this is the last")]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_ANY = "|".join(_PLACES)
_NAME = "[a-z0-9][a-z0-9-]{0,62}"
_NOW_AFTER = re.compile(rf"n\.({_NAME})\.([a-z][a-z0-9_]{{0,62}})\.([0-2])")
_HISTORY_FROM = re.compile(rf"h\.([0-9]{{1,15}})\.({_NAME} ?)\.([0-9]{{1,6}})")


def _parse_text(text: str) -> str:
    if not 1 <= len(text) <= _LONGEST:
        raise ValueError(f"expected 1 to {_LONGEST} characters")
    return text


def _parse_places(text: str) -> frozenset[Place]:
    given = text.split(",")
    places: frozenset[Place] = frozenset(one for one in _PLACES if one in given)
    if len(places) != len(set(given)):
        raise ValueError(f"expected some of {', '.join(_PLACES)}, with commas between")
    return places


def _parse_after(text: str) -> Cursor:
    if found := _NOW_AFTER.fullmatch(text):
        return NowAfter(found[1], found[2], int(found[3]))
    if found := _HISTORY_FROM.fullmatch(text):
        return HistoryFrom(int(found[1]), found[2], int(found[3]))
    raise ValueError("expected `next_after` of the page before")


def _to_text(cursor: Cursor | None) -> str | None:
    if cursor is None:
        return None
    return ".".join(("n" if isinstance(cursor, NowAfter) else "h", *map(str, cursor)))


_Q = Query(
    "q",
    "the text, in upper or lower case",
    {"type": "string", "minLength": 1, "maxLength": _LONGEST, "pattern": "^[^\\u0000]*$"},
    _parse_text,
    required=True,
)
_IN = Query(
    "in",
    "where to look, with commas between: keys, values, descriptions, history; the first three",
    {"type": "string", "pattern": f"^({_ANY})(,({_ANY}))*$"},
    _parse_places,
)
_LEVEL = one_of(
    "level",
    "simple: no advanced keys, unless the text is the whole name of one; all",
    "all",
    "simple",
)
_LIMIT = number("limit", f"matches; {_PAGE}", least=1, most=_MOST)
_AFTER = Query(
    "after",
    "`next_after` of the page before",
    {
        "type": "string",
        "anyOf": [{"pattern": f"^{one.pattern}$"} for one in (_NOW_AFTER, _HISTORY_FROM)],
    },
    _parse_after,
)


@operation(
    "Search keys, values, descriptions and the history",
    answers={200: SearchAnswer},
    problems=(503, 504),
    takes=(_Q, _IN, _LEVEL, _LIMIT, _AFTER),
    description="Of the services that the token is for. Values of secrets are never searched and never answered. A "
    "page may have fewer matches than `limit`: `next_after` says whether there may be more.",
)
async def search_configs(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    text = _Q.of(request)
    if text is None:
        raise MalformedRequest("q: give the text to search")
    search = Search(
        text=text,
        places=_IN.of(request) or frozenset(NOW),
        covers=request.grant.covers,
        limit=_LIMIT.of(request) or _PAGE,
        simple=_LEVEL.of(request) == "simple",
        after=_AFTER.of(request),
    )
    committed, shapes = api.system.view.committed, api.system.shapes
    found = await api.system.reading.past(
        lambda kept: search.run(kept, committed, shapes), request.context
    )
    matches: list[JsonObject] = []
    for match in found.matches:
        shown = match._asdict()
        matches.append({("in" if name == "place" else name): shown[name] for name in shown})
    return json_response(
        {"matches": matches, "next_after": _to_text(found.after)}, headers=NO_STORE
    )
