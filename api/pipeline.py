"""The rules around every route, whichever way a request came: id, guard, token, errors, access line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import trio

from config_manager.actors.callers import Refusal
from config_manager.api.auth import authenticate, guard_dev
from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, Route
from config_manager.api.limits import ANSWER_WITHIN_S, MAX_BODY_BYTES, MAX_PUBLIC_BODY_BYTES
from config_manager.api.problems import as_error, problem
from config_manager.api.rate_limits import Limiter, address_key
from config_manager.api.routes import ROUTES
from config_manager.config.access import ANYBODY
from config_manager.config.errors import (
    ConfigManagerError,
    Forbidden,
    MalformedRequest,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    Refused,
    TooManyRequests,
)
from config_manager.config.logging import log_request
from config_manager.config.names import accept_correlation_id

_PATHS_KEPT = 1024
_LONGEST_KEPT = 128
_NOT_MODIFIED = 304

_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class _Node:
    """One path segment of the route table."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.any: tuple[str, _Node] | None = None
        self.routes: dict[str, Route] = {}


def _tree() -> _Node:
    root = _Node()
    for route in ROUTES:
        node = root
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                node.any = node.any or (segment.strip("{}"), _Node())
                node = node.any[1]
            else:
                node = node.fixed.setdefault(segment, _Node())
        node.routes[route.method] = route
    return root


_ROOT = _tree()


class Answer(NamedTuple):
    """What goes out: status, every header, body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def answer(request: ApiRequest, api: Api, *, unkept: Refused | None = None) -> Answer:
    """Answer a request; never raises but Cancelled. unkept: why its body was not kept."""
    started = trio.current_time()
    world = api.system.world
    request.correlation_id = (
        accept_correlation_id(request.header(b"x-request-id")) or world.randomness.uuid()
    )
    request.deadline = started + ANSWER_WITHIN_S
    told: dict[str, Any] = {}
    try:
        response = await _respond(request, api, unkept)
    except Exception as error:  # noqa: BLE001  the edge: every error becomes a problem document
        shown = as_error(error)
        response = problem(shown, request.correlation_id)
        told["error"] = shown.description.name
        if isinstance(shown, NotAuthenticated | Forbidden | TooManyRequests):
            told["client"] = request.client_host
            _note_refusal(request, api, shown)
    log_request(
        actor="rest",
        request_id=request.correlation_id,
        correlation_id=request.correlation_id,
        method=request.method,
        path=request.raw_path.decode("latin-1")[:256],
        status=response.status,
        duration_ms=round((trio.current_time() - started) * 1000, 3),
        by=request.by,
        **told,
    )
    content = [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
    ]
    headers = [
        *(content if response.status != _NOT_MODIFIED else ()),
        (b"x-request-id", request.correlation_id.encode()),
        (b"traceparent", _traceparent(request)),
        (b"x-content-type-options", b"nosniff"),
        *(request.standing.headers if request.standing else ()),
        *response.headers,
    ]
    return Answer(response.status, headers, b"" if request.method == "HEAD" else response.body)


def body_limit(request: ApiRequest, api: Api) -> tuple[int, str]:
    """How many bytes of the body to keep, and of whom: none where the answer will be a refusal
    whatever they are, few where the call needs no token. It is asked again once the body is whole:
    that may take 15 s."""
    nothing = 0, ""
    try:
        if api.dev:
            guard_dev(request)
        node, params = _find(request.raw_path)
        route = node.routes.get(request.method)
        if route is None or route.method == "GET":
            return nothing
        if route.needs is None:
            return MAX_PUBLIC_BODY_BYTES, address_key(request.client_host)
        grant = authenticate(request, api, refusing=False)
        grant.require(route.needs, params.get("service"))
    except Refused:
        return nothing
    return MAX_BODY_BYTES, grant.name


async def _respond(request: ApiRequest, api: Api, unkept: Refused | None) -> ApiResponse:
    if api.dev:
        guard_dev(request)
    node, request.params = _find(request.raw_path)
    method = "GET" if request.method == "HEAD" else request.method
    route = node.routes.get(method)
    if route is None or route.needs is not None:
        request.grant = authenticate(request, api)
    if route is None:
        allowed = sorted({*node.routes, *(["HEAD"] if "GET" in node.routes else [])})
        raise MethodNotAllowed(
            f"{request.method[:32]} is not for this; {', '.join(allowed)} are", allowed
        )
    if route.needs is not None:
        request.grant.require(route.needs, request.params.get("service"))
        if method != "GET" and api.writes is not None:
            _count_write(request, api.writes)
    if unkept is not None:
        raise unkept
    return await route.endpoint(request, api)


def _count_write(request: ApiRequest, writes: Limiter) -> None:
    """Raises TooManyRequests."""
    standing = request.standing = writes.take(request.by, trio.current_time())
    if standing.exceeded:
        quota = standing.policy.quota
        raise TooManyRequests(
            f"{request.by!r} has written {quota} times within a minute, which is the limit here",
            standing.reset_s,
        )


def _note_refusal(request: ApiRequest, api: Api, error: ConfigManagerError) -> None:
    """For the audit. Without a token (in the header, or counted where a body has one) nothing was
    tried; that is only logged."""
    known = request.grant is not ANYBODY
    if not known and request.header(b"authorization") is None and request.standing is None:
        return
    refusal = Refusal(
        by=request.by,
        client=None if known else address_key(request.client_host),
        call=_call(request),
        service=request.params.get("service", "")[:64] or None,
        error=error.description.name,
    )
    api.system.callers.refused(refusal, request.correlation_id)


def _call(request: ApiRequest) -> str:
    """The method and the route's own words: a path is the caller's, and may be anything."""
    try:
        node, _ = _find(request.raw_path)
    except Refused:
        return "unknown"
    method = "GET" if request.method == "HEAD" else request.method
    route = node.routes.get(method)
    return "unknown" if route is None else f"{method} {route.path}"


def _find(raw_path: bytes) -> tuple[_Node, Mapping[str, str]]:
    """Short paths are remembered; anybody may send long ones."""
    return _kept_find(raw_path) if len(raw_path) <= _LONGEST_KEPT else _walk(raw_path)


def _walk(raw_path: bytes) -> tuple[_Node, Mapping[str, str]]:
    """The routes of a path. Segments are split before they are decoded, so %2F stays inside one."""
    node, params = _ROOT, dict[str, str]()
    nothing = NotFound("there is nothing at this path; GET /docs shows what there is")
    for raw in raw_path.removeprefix(b"/").split(b"/"):
        try:
            segment = unquote_to_bytes(raw).decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedRequest("the path is not UTF-8") from None
        if (fixed := node.fixed.get(segment)) is not None:
            node = fixed
        elif node.any is not None:
            params[node.any[0]] = segment
            node = node.any[1]
        else:
            raise nothing
    if not node.routes:
        raise nothing
    return node, MappingProxyType(params)  # kept for the next who asks: nobody may change it


_kept_find = lru_cache(_PATHS_KEPT)(_walk)


def _traceparent(request: ApiRequest) -> bytes:
    """W3C Trace Context: the caller's, or one of our own, made of the request's id."""
    for name, value in request.headers:
        if name == b"traceparent" and _TRACEPARENT.fullmatch(value):
            return value
    digits = hashlib.sha256(request.correlation_id.encode()).hexdigest().encode()
    return b"00-%b-%b-01" % (digits[:32], digits[32:48])
