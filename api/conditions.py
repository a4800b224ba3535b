"""A reader's preconditions (RFC 9110, 13): whether it has what is there already, or wants just that."""

from __future__ import annotations

import re

from config_manager.api.endpoint import ApiRequest

_TAG = re.compile(r'(?P<weak>W/)?(?P<tag>"[\x21\x23-\x7e\x80-\xff]*")')


def is_known(request: ApiRequest, tag: str) -> bool:
    """Whether If-None-Match names what is there; W/ makes no difference to a reader (13.1.2)."""
    return _names(request, b"if-none-match", tag, weakly=True)


def is_other(request: ApiRequest, tag: str) -> str | None:
    """The If-Match that does not name what is there, if there is one (13.1.1)."""
    given = _every(request, b"if-match")
    if given is None or _names(request, b"if-match", tag, weakly=False):
        return None
    return given


def _names(request: ApiRequest, header: bytes, tag: str, *, weakly: bool) -> bool:
    given = _every(request, header)
    if given is None:
        return False
    return given == "*" or any(
        found["tag"] == tag and (weakly or not found["weak"]) for found in _TAG.finditer(given)
    )


def _every(request: ApiRequest, header: bytes) -> str | None:
    """Lines of one name are one list."""
    lines = [value.decode("latin-1") for name, value in request.headers if name == header]
    return ", ".join(lines).strip() if lines else None
