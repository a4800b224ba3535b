"""Who the caller is: bearer tokens, and what --dev allows a developer's own machine without one.

`config.access` decides what a caller may do; `api.server.pipeline` asks it for every route.
"""

from __future__ import annotations

import math
import re

import trio

from config_manager.api.rest.rate_limits import address_key
from config_manager.api.rest.request import Api, ApiRequest
from config_manager.config.access import ANYBODY, Grant
from config_manager.config.errors import (
    Forbidden,
    NotAuthenticated,
    Refusal,
    TooManyRequests,
)
from config_manager.config.this_machine import is_loopback
from config_manager.storage.decisions.tokens import hash_of

_LOOPBACK_HOST = re.compile(
    r"(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(?::(?P<port>\d{1,5}))?", re.IGNORECASE
)

_OF_PROXIES = frozenset(
    {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip",
     b"cf-connecting-ip", b"x-original-host", b"x-original-url"}
)  # fmt: skip
"""Headers that proxies add. A proxy may leave them out: this catches mistakes, not attackers."""
_FROM_HERE = (b"same-origin", b"none")
"""Sec-Fetch-Site of our own pages, and of an address that was typed."""

_UNKNOWN = "this token is not known here"
DEV = Grant("dev", "admin")
"""The caller without a token in --dev."""


class UnknownToken(NotAuthenticated):
    """A token that this server did not make; `login_failed` counts it and chooses the answer."""


def authenticate(request: ApiRequest, api: Api) -> None:
    """Find out who asks, and what they may do; raises NotAuthenticated."""
    given = request.header(b"authorization")
    if given is None:
        host = request.header(b"host") or ""
        if api.dev and is_loopback(request.client_host or "") and _LOOPBACK_HOST.fullmatch(host):
            request.grant = DEV
            return
        raise NotAuthenticated(
            "send Authorization: Bearer <token>; the first start wrote one to keys/admin.token"
        )
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer":
        raise UnknownToken(_UNKNOWN)
    token_hash = hash_of(token.strip().encode("latin-1"))
    request.grant = _grant_of(api, token_hash)
    request.token_hash = token_hash
    api.system.measures.logins.inc("accepted")


def confirm(request: ApiRequest, api: Api) -> None:
    """Look the token up again once the request is whole, up to 15 s after it was admitted."""
    if request.token_hash is not None and request.refusal is None:
        try:
            request.grant = _grant_of(api, request.token_hash)
        except NotAuthenticated as refusal:
            request.refusal, request.grant = refusal, ANYBODY


def expires_at(request: ApiRequest, api: Api) -> float:
    """When the caller's token ends, in Unix seconds; infinite if never."""
    if request.token_hash is None:
        return math.inf
    found = api.tokens.find(api.system.view.committed, request.token_hash)
    return math.inf if found is None else found.expires_at


def _grant_of(api: Api, token_hash: str) -> Grant:
    found = api.tokens.find(api.system.view.committed, token_hash)
    if found is None:
        raise UnknownToken(_UNKNOWN)
    if found.expires_at != math.inf and found.expires_at <= api.system.world.clock.now():
        api.system.measures.logins.inc("expired")
        raise NotAuthenticated(
            f"the token {found.token.name!r} expired at {found.token.expires_at}; ask for a new one"
        )
    api.system.callers.used(found.token.hash, api.system.world.clock.now())
    return found.grant


def login_failed(request: ApiRequest, api: Api, why: str) -> Refusal:
    """The refusal of an unknown token. Past the limit of their address, callers are told to wait; a caller
    with a valid token never gets here."""
    standing = api.failed_logins.take(address_key(request.client_host), trio.current_time())
    request.standing = standing
    api.system.measures.logins.inc("limited" if standing.exceeded else "unknown")
    if standing.exceeded:
        return TooManyRequests(
            "too many unknown tokens came from this address; a valid one is never refused",
            standing.reset_s,
        )
    return NotAuthenticated(why)


def guard_dev(request: ApiRequest) -> None:
    """In --dev, refuse what a browser elsewhere or a proxy sends; raises Forbidden."""
    for name, value in request.headers:
        if name in _OF_PROXIES or name.startswith(b"x-forwarded"):
            raise Forbidden("--dev takes no forwarded requests; leave --dev out behind a proxy")
        if name == b"sec-fetch-site" and value.strip().lower() not in _FROM_HERE:
            raise Forbidden("--dev takes no requests from other sites' pages")
        if name == b"origin" and not _is_own_origin(value.decode("latin-1"), request):
            raise Forbidden("--dev takes no requests from other origins")


def _is_own_origin(origin: str, request: ApiRequest) -> bool:
    """A page of ours: on loopback, at the very port that is asked. Another port is another program."""
    scheme, separator, host = origin.partition("://")
    theirs, ours = (
        _LOOPBACK_HOST.fullmatch(host),
        _LOOPBACK_HOST.fullmatch(request.header(b"host") or ""),
    )
    if not separator or scheme not in ("http", "https") or theirs is None or ours is None:
        return False
    return theirs["port"] == ours["port"]
