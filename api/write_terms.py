"""What a caller may say about any write: why, under which key it may be repeated, whether to wait."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, TypeVar

import trio

from config_manager.actors.messages import Administer
from config_manager.api.endpoint import Api, ApiRequest
from config_manager.config.errors import MalformedRequest
from config_manager.storage.administration import Administration
from config_manager.storage.state import ServiceState
from config_manager.storage.terms import Idempotency, Terms

A = TypeVar("A")

MAX_REASON = 500
_MAX_KEY = 255
_WRITE_QUERY = ("dry_run", "wait", "timeout", "reason")
_MAX_WAIT_S = 60
_DEFAULT_WAIT_S = 5


def terms_of(request: ApiRequest) -> Terms:
    """Who asks, why and under which key; raises MalformedRequest."""
    return Terms(request.by, _reason(request), _idempotency(request))


async def administer(request: ApiRequest, api: Api, what: Administration[A]) -> A:
    """Have it done on the terms of the request.

    Raises MalformedRequest and what the administration refuses; IdempotencyMismatch if the key
    stands for another request, Conflict if it stands for this one and its answer isn't kept.
    """
    request.allow_query("reason")
    message = Administer(what=what, terms=terms_of(request))
    answer: A = await api.system.storing.ask(message, request.context)
    return answer


# ── revisions ──────────────────────────────────────────────────────────────────────────────────


class WriteTerms(NamedTuple):
    """The terms of a write that makes a revision. wait_s: how long to wait until a broker holds it, in
    seconds; None: not at all."""

    terms: Terms
    wait_s: float | None


def write_terms_of(request: ApiRequest) -> WriteTerms:
    """Raises MalformedRequest."""
    request.allow_query(*_WRITE_QUERY)
    wait_s = _wait_s(request)
    reason, idempotency = _reason(request), _idempotency(request)
    return WriteTerms(Terms(request.by, reason, idempotency, request.flag("dry_run")), wait_s)


async def propagation_of(api: Api, states: list[ServiceState], wait_s: float | None) -> str:
    """`confirmed` if the caller waits for it and a broker holds all of it in time, else `pending`."""
    if wait_s is None:
        return "pending"
    with trio.move_on_after(wait_s):
        for state in states:
            if not await api.system.confirmations.wait(state.service, state.revision):
                return "pending"
        return "confirmed"
    return "pending"


# ── one by one ─────────────────────────────────────────────────────────────────────────────────


def _reason(request: ApiRequest) -> str | None:
    reason = request.query.get("reason")
    if reason is not None and len(reason) > MAX_REASON:
        raise MalformedRequest(f"reason: at most {MAX_REASON} characters")
    return reason


def _idempotency(request: ApiRequest) -> Idempotency | None:
    """The Idempotency-Key belongs to its caller: the same key of another caller is another one."""
    key = request.header(b"idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise MalformedRequest(f"Idempotency-Key: 1 to {_MAX_KEY} printable ASCII characters")
    told_apart = (
        request.method,
        request.raw_path.decode("ascii"),
        request.header(b"content-type") or "",
        request.header(b"if-match") or "",
        request.header(b"if-none-match") or "",
        request.query.get("dry_run", ""),
    )
    fingerprint = hashlib.sha256("\n".join(told_apart).encode() + b"\n" + request.body).digest()
    return Idempotency(f"{request.by} {key}", fingerprint)


def _wait_s(request: ApiRequest) -> float | None:
    wait, timeout = request.query.get("wait"), request.query.get("timeout")
    if wait not in (None, "confirmed"):
        raise MalformedRequest("wait: expected confirmed")
    seconds: float = _DEFAULT_WAIT_S
    if timeout is not None:
        try:
            seconds = float(timeout)
        except ValueError:
            seconds = -1
        if not 0 <= seconds <= _MAX_WAIT_S:
            raise MalformedRequest(f"timeout: expected seconds from 0 to {_MAX_WAIT_S}")
    return seconds if wait else None
