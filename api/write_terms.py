"""What a caller may say about any write: why, and under which key it may be repeated."""

from __future__ import annotations

import hashlib
from typing import Any

from config_manager.actors.messages import Idempotency
from config_manager.api.endpoint import ApiRequest
from config_manager.config.errors import MalformedRequest

MAX_REASON = 500
_MAX_KEY = 255


def reason_of(request: ApiRequest) -> str | None:
    """The query's `reason`: why, in the operator's words; raises MalformedRequest."""
    reason = request.query.get("reason")
    if reason is not None and len(reason) > MAX_REASON:
        raise MalformedRequest(f"reason: at most {MAX_REASON} characters")
    return reason


def preconditions(request: ApiRequest) -> dict[str, Any]:
    """`if_match` and `if_none_match` of a write (RFC 9110, 13.1)."""
    return {
        "if_match": request.header(b"if-match"),
        "if_none_match": request.header(b"if-none-match"),
    }


def idempotency_of(request: ApiRequest) -> Idempotency | None:
    """The Idempotency-Key, which is the caller's own: another's same key is another one. Raises
    MalformedRequest."""
    key = request.header(b"idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise MalformedRequest(f"Idempotency-Key: 1 to {_MAX_KEY} printable ASCII characters")
    told_apart = (
        request.method,
        request.raw_path.decode("ascii"),
        request.header(b"content-type") or "",
        *(given or "" for given in preconditions(request).values()),
        request.query.get("dry_run", ""),
    )
    fingerprint = hashlib.sha256("\n".join(told_apart).encode() + b"\n" + request.body).digest()
    return Idempotency(f"{request.by} {key}", fingerprint)
