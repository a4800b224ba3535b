"""Who asks: bearer tokens, and what --dev lets a developer's own machine do without one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

from config_manager.api.endpoint import Api, ApiRequest
from config_manager.config.errors import Forbidden, NotAuthenticated

DEV = "dev"
"""Who writes in --dev without a token."""


def authenticate(request: ApiRequest, api: Api) -> str:
    """The name of who asks; raises NotAuthenticated."""
    given = request.header(b"authorization")
    if given is None:
        if api.dev and is_loopback(request.client_host) and _loopback_host(request):
            return DEV
        raise NotAuthenticated(
            "send Authorization: Bearer <token>; the first start wrote one to keys/admin.token"
        )
    scheme, _, token = given.partition(" ")
    found: str | None = None
    if scheme.lower() == "bearer":
        token_hash = hashlib.sha256(token.strip().encode("latin-1")).hexdigest()
        for name, known in api.system.view.committed.token_hashes.items():
            if hmac.compare_digest(token_hash, known):  # every hash is compared, found or not
                found = name
    if found is None:
        raise NotAuthenticated("this token is not known here")
    return found


def guard_dev(request: ApiRequest) -> None:
    """In --dev, refuse what a browser elsewhere or a proxy sends; raises Forbidden."""
    for name, value in request.headers:
        if name == b"forwarded" or name.startswith(b"x-forwarded-"):
            raise Forbidden("--dev takes no forwarded requests; leave --dev out behind a proxy")
        if name == b"sec-fetch-site" and value == b"cross-site":
            raise Forbidden("--dev takes no requests from other sites' pages")
        if name == b"origin" and not _is_own_origin(value.decode("latin-1")):
            raise Forbidden("--dev takes no requests from other origins")


def is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _loopback_host(request: ApiRequest) -> bool:
    return is_loopback(_hostname(request.header(b"host") or ""))


def _is_own_origin(origin: str) -> bool:
    scheme, separator, host = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and is_loopback(_hostname(host))


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
