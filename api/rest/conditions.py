"""The grammar of If-Match and If-None-Match (RFC 9110, 13); nothing behind `api/` knows it.

A reader's headers are compared with the ETag of what is there. A writer's become preconditions, which
the storing actor compares with revisions.
"""

from __future__ import annotations

import re

from config_manager.api.rest.models import TEXT
from config_manager.api.rest.parameters import Header
from config_manager.api.rest.request import ApiRequest
from config_manager.storage.decisions.terms import ABSENT, Precondition

_TAG = re.compile(r'(?P<weak>W/)?(?P<tag>"[\x21\x23-\x7e\x80-\xff]*")')
_REVISION = re.compile(r'(?P<quote>"?)(?P<revision>0|[1-9][0-9]{0,15})(?P=quote)')
"""An ETag of ours, with its quotes or without."""
_LONGEST_QUOTED = 64
"""Characters of a header that a refusal repeats."""


def _if_match(description: str) -> Header:
    return Header("If-Match", description, {"type": "string", "pattern": '^("[0-9]{1,15}"|[*])$'})


PRECONDITIONS = (
    _if_match("the revision you read, as its ETag; 412 if it is no longer that"),
    Header(
        "If-None-Match",
        "only if nobody has written it yet, else 412",
        {"type": "string", "pattern": "^[*]$"},
    ),
)
"""A write's."""
CONDITIONS = (
    _if_match("only this revision, as its ETag; 412 if it is another by now"),
    Header(
        "If-None-Match",
        "the ETag of what you have, or several; 304 if one is what is there",
        TEXT,
    ),
)
"""A reader's."""


# ── a writer ───────────────────────────────────────────────────────────────────────────────────


def preconditions_of(request: ApiRequest) -> tuple[Precondition, ...]:
    """A write's If-Match and If-None-Match. Each has to hold, in this order (13.2.2)."""
    match, none_match = request.header(b"if-match"), request.header(b"if-none-match")
    if match is None and none_match is None:
        return ()
    found = [] if match is None else [at_one_of(match)]
    return tuple(found) if none_match is None else (*found, absent(none_match))


def at_one_of(if_match: str) -> Precondition:
    """One of these tags must be the current ETag (13.1.1). A tag that this server never made matches nothing, so
    the write is refused."""
    tags = [tag.strip() for tag in if_match.split(",")]
    revisions = frozenset(
        int(found["revision"]) for tag in tags if (found := _REVISION.fullmatch(tag))
    )
    return Precondition(revisions, "*" in tags, if_match[:_LONGEST_QUOTED])


def absent(if_none_match: str) -> Precondition:
    """A writer's If-None-Match: `*` holds if nobody has written the service yet (13.1.2); any tag never holds."""
    return ABSENT if if_none_match == "*" else Precondition()


# ── a reader ───────────────────────────────────────────────────────────────────────────────────


def is_known(request: ApiRequest, tag: str) -> bool:
    """Whether If-None-Match names the current ETag; W/ makes no difference to a reader (13.1.2)."""
    return _names(request, b"if-none-match", tag, weakly=True)


def is_other(request: ApiRequest, tag: str) -> str | None:
    """The request's If-Match, as a refusal repeats it, if it does not name the current ETag; else None (13.1.1)."""
    given = _every(request, b"if-match")
    if given is None or _names(request, b"if-match", tag, weakly=False):
        return None
    return given[:_LONGEST_QUOTED]


def _names(request: ApiRequest, header: bytes, tag: str, *, weakly: bool) -> bool:
    given = _every(request, header)
    if given is None:
        return False
    return given == "*" or any(
        found["tag"] == tag and (weakly or not found["weak"]) for found in _TAG.finditer(given)
    )


def _every(request: ApiRequest, header: bytes) -> str | None:
    """A header's value, its lines joined to one list; None if the header is absent."""
    lines = [value.decode("latin-1") for name, value in request.headers if name == header]
    return ", ".join(lines).strip() if lines else None
