"""A request as ASGI brings it, as the pipeline wants it."""

from __future__ import annotations

from typing import Any

from config_manager.api.rest.request import ApiRequest

QUART_METHODS = ("GET", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE")
"""What Quart's router knows; it refuses others by itself."""


def asked_of(scope: Any) -> ApiRequest:
    """The request without its body."""
    client = scope["client"]
    return ApiRequest(
        scope["method"],
        _origin_form(scope["raw_path"]),
        scope["query_string"],
        scope["headers"],
        client[0] if client else None,
    )


def _origin_form(path: bytes) -> bytes:
    """`http://host/path` is `/path` (RFC 9112, 3.2.2)."""
    if path.startswith(b"/"):
        return path
    _, absolute, rest = path.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if absolute else path
