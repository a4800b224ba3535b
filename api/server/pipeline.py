"""The rules around every call, whichever way a request came: route, caller, id, errors, access line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import trio

from config_manager.actors.callers import RefusedCall
from config_manager.api.rest.auth import (
    UnknownToken,
    authenticate,
    confirm,
    guard_dev,
    login_failed,
)
from config_manager.api.rest.limits import ANSWER_WITHIN_S, MAX_BODY_BYTES, MAX_PUBLIC_BODY_BYTES
from config_manager.api.rest.problems import as_error, problem
from config_manager.api.rest.rate_limits import Limiter, address_key
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse
from config_manager.api.rest.streams import Stream
from config_manager.api.server.paths import Found, find
from config_manager.config.access import ANYBODY
from config_manager.config.errors import (
    ConfigManagerError,
    Forbidden,
    MethodNotAllowed,
    NotAuthenticated,
    Refusal,
    TooManyRequests,
)
from config_manager.config.logging import log_request
from config_manager.config.names import accept_correlation_id
from config_manager.config.traceparent import own_traceparent, parse_traceparent

_NOT_MODIFIED = 304
_NO_BODY = 0, ""


class HttpAnswer(NamedTuple):
    """What goes out: status, every header, and either a body or a stream, which whoever sends it has to end."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stream: Stream | None = None


def admit(request: ApiRequest, api: Api) -> tuple[int, str]:
    """Find what is asked and who asks, once, before any of the body is read. What stands against the
    request is kept with it, for `answer` to raise.

    Returns how many bytes of the body to keep, and whose room they take: none if the answer will be a
    refusal whatever they are, few if the call needs no token.
    """
    request.admitted = True
    try:
        return _admit(request, api)
    except Exception as error:  # noqa: BLE001  `answer` turns every error into a problem document
        request.refusal = error
        return _NO_BODY


def _admit(request: ApiRequest, api: Api) -> tuple[int, str]:
    method = "GET" if request.method == "HEAD" else request.method
    try:
        found = find(request.raw_path)
        request.route = found.routes.get(method)
    finally:  # --dev refuses what comes from elsewhere, whatever its path
        if api.dev:
            guard_dev(request)
    request.params = found.params
    route = request.route
    if route is None or route.needs is not None:
        authenticate(request, api)
    if route is None:
        raise _not_allowed(request, found)
    if route.needs is not None:
        request.grant.require(route.needs, request.params.get("service"))
    if route.method == "GET":
        return _NO_BODY
    if route.needs is None:
        return MAX_PUBLIC_BODY_BYTES, address_key(request.client_host)
    return MAX_BODY_BYTES, request.by


def _not_allowed(request: ApiRequest, found: Found) -> Refusal:
    """Raises what every method answers at a path that names nothing: InvalidName, MalformedRequest."""
    any_route = next(iter(found.routes.values()))
    for one in any_route.in_path:
        one.of(request)
    works = {method for method, route in found.routes.items() if not route.operation.only_refuses}
    allowed = sorted(works | ({"HEAD"} if "GET" in works else set[str]()))
    rest = f"; {', '.join(allowed)} can be used" if allowed else ""
    return MethodNotAllowed(f"{request.method[:32]} is not for this{rest}", allowed)


async def answer(request: ApiRequest, api: Api, *, unkept: Refusal | None = None) -> HttpAnswer:
    """Answer a request, which is admitted first if it was not yet. unkept: why its body was not kept.
    Never raises but Cancelled."""
    started = trio.current_time()
    world = api.system.world
    request.correlation_id = (
        accept_correlation_id(request.header(b"x-request-id")) or world.randomness.uuid()
    )
    request.deadline = started + ANSWER_WITHIN_S
    request.asked = world.clock.now()
    request.traceparent = _traceparent(request)
    told: dict[str, Any] = {}
    if request.admitted:
        confirm(request, api)
    else:
        admit(request, api)
    try:
        response = await _respond(request, api, unkept)
    except Exception as error:  # noqa: BLE001  the edge: every error becomes a problem document
        shown = as_error(error)
        response = problem(shown, request.correlation_id)
        told["error"] = shown.description.name
        api.system.measures.refused(request.method, shown.description.name)
        if isinstance(shown, NotAuthenticated | Forbidden | TooManyRequests):
            _note_refusal(request, api, shown)
    took_s = trio.current_time() - started
    route = None if request.route is None else request.route.path
    api.system.measures.answered(request.method, route, response.status, took_s)
    content = [(b"content-type", response.content_type)]
    line = request, request.by, response.status, started, told
    if (stream := response.stream) is None:
        content.append((b"content-length", b"%d" % len(response.body)))
        _access_line(*line)
    else:  # its line comes at its end, so that its duration is true
        stream.on_end = partial(_access_line, *line)
        if request.method == "HEAD":
            stream.end()
    headers = [
        *(content if response.status != _NOT_MODIFIED else ()),
        (b"x-request-id", request.correlation_id.encode()),
        (b"traceparent", request.traceparent.encode()),
        (b"x-content-type-options", b"nosniff"),
        *(request.standing.headers if request.standing else ()),
        *response.headers,
    ]
    if request.method == "HEAD":
        return HttpAnswer(response.status, headers, b"")
    return HttpAnswer(response.status, headers, response.body, stream)


def _access_line(
    request: ApiRequest, by: str, status: int, started: float, told: Mapping[str, Any]
) -> None:
    log_request(
        actor="rest",
        request_id=request.correlation_id,
        correlation_id=request.correlation_id,
        method=request.method,
        path=request.raw_path.decode("latin-1")[:256],
        status=status,
        duration_ms=round((trio.current_time() - started) * 1000, 3),
        by=by,
        client=request.client_host,
        **told,
    )


async def _respond(request: ApiRequest, api: Api, unkept: Refusal | None) -> ApiResponse:
    if isinstance(request.refusal, UnknownToken):
        raise login_failed(request, api, request.refusal.detail)
    if request.refusal is not None:
        raise request.refusal
    route = request.route
    assert route is not None
    if route.needs is not None and route.method != "GET" and api.writes is not None:
        _count_write(request, api.writes)
    if unkept is not None:
        raise unkept
    return await route.operation.handle(request, api)


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
    """Note it for the audit. A caller that sent no token, neither in the header nor in the body, has not tried to
    get in: that is only logged. (A token in a body has set `standing`.)"""
    known = request.grant is not ANYBODY
    if not known and request.header(b"authorization") is None and request.standing is None:
        return
    refusal = RefusedCall(
        by=request.by,
        client=request.client_host if known else address_key(request.client_host),
        call=_call(request),
        service=request.params.get("service", "")[:64] or None,
        error=error.description.name,
    )
    api.system.callers.refused(refusal, request.correlation_id)


def _call(request: ApiRequest) -> str:
    """Method and route. The path itself is not told: the caller chose it, and it may be anything."""
    route = request.route
    return "unknown" if route is None else f"{route.method} {route.path}"


def _traceparent(request: ApiRequest) -> str:
    """The caller's, or one of our own, made of the request's id."""
    for name, value in request.headers:
        if name == b"traceparent" and parse_traceparent(text := value.decode("latin-1")):
            return text
    return own_traceparent(request.correlation_id)
