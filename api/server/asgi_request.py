"""A request as ASGI brings it, as the pipeline wants it."""

from __future__ import annotations

from typing import Any

import structlog

from config_manager.api.rest.forwarded import caller_of
from config_manager.api.rest.request import Api, ApiRequest

QUART_METHODS = ("GET", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE")
"""What Quart's router knows; it refuses others by itself."""


def asked_of(scope: Any, api: Api) -> ApiRequest:
    """The request without its body."""
    client, headers, proxies = scope["client"], scope["headers"], api.proxies
    peer = client[0] if client else None
    if peer is not None and not api.dev and proxies.is_news(peer, headers):
        structlog.get_logger().warning(
            "X-Forwarded-For ignored",
            actor="rest",
            client=peer,
            detail="it is no trusted proxy; if it is yours, name it in CONFIG_MANAGER_TRUSTED_PROXIES",
        )
    return ApiRequest(
        scope["method"],
        _origin_form(scope["raw_path"]),
        scope["query_string"],
        headers,
        caller_of(peer, headers, proxies.trusted),
        peer=peer,
        scheme=scope.get("scheme", "http"),
    )


def _origin_form(path: bytes) -> bytes:
    """`http://host/path` is `/path` (RFC 9112, 3.2.2)."""
    if path.startswith(b"/"):
        return path
    _, absolute, rest = path.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if absolute else path
