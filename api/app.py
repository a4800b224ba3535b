"""The ASGI application: Quart serves REST, and the two hottest calls go around it.

A GET or PUT of one service through Quart costs 300 µs of framework that answers nothing: without
it 1.6 times as many are answered. The fast path calls the very same pipeline;
tests/api/test_two_ways.py compares both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from quart import Response, request
from quart_trio import QuartTrio

from config_manager.actors.system import System
from config_manager.api.endpoint import Api, ApiRequest, writes_limited_to
from config_manager.api.limits import DRAIN_BYTES
from config_manager.api.pipeline import Answer, answer, body_limit

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOT_PREFIX = b"/api/v1/config/"
_METHODS = ("GET", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE")


def make_app(
    system: System, *, dev: bool, fast_path: bool = True, writes_per_minute: int | None = None
) -> AsgiApp:
    """The application over a running system. fast_path: False sends everything through Quart.
    writes_per_minute: each token's limit, None for none."""
    writes = writes_limited_to(writes_per_minute) if writes_per_minute else None
    api = Api(system, dev, writes=writes)
    quart: Any = make_quart(api)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and fast_path and _is_hot(scope):
            await _answer_directly(api, scope, receive, send)
        else:
            await quart(scope, receive, send)

    return app


def _is_hot(scope: Scope) -> bool:
    path: bytes = scope["raw_path"]
    if not path.startswith(
        b"/"
    ):  # `http://host/path` (RFC 9112, 3.2.2), `*`: Quart trips over some
        _, absolute, rest = path.partition(b"://")
        scope["raw_path"] = b"/" + rest.partition(b"/")[2] if absolute else path
        return True
    if scope["method"] not in _METHODS:  # Quart would answer before it has read the body
        return True
    return path.startswith(_HOT_PREFIX) and scope["method"] in ("GET", "PUT")


async def _answer_directly(api: Api, scope: Scope, receive: Receive, send: Send) -> None:
    asked = _asked(scope)
    too_large = False
    if scope["method"] != "GET":
        body = _Body(body_limit(asked, api))
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the caller left before the request was whole: nothing was asked
            body.take(message.get("body", b""))
            if body.size > DRAIN_BYTES or not message.get("more_body", False):
                break
        asked.body, too_large = bytes(body.data), body.too_large
    status, headers, content = await answer(asked, api, too_large=too_large)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _asked(scope: Any) -> ApiRequest:
    client = scope["client"]
    return ApiRequest(
        scope["method"],
        scope["raw_path"],
        scope["query_string"],
        scope["headers"],
        client[0] if client else None,
    )


class _Body:
    """A body as it arrives: kept up to a limit (0: nothing of it), then only counted."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.size = 0
        self._limit = limit

    @property
    def too_large(self) -> bool:
        return self.size > self._limit > 0

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            self.data.clear()
        else:
            self.data += chunk


def make_quart(api: Api) -> QuartTrio:
    """Quart around the pipeline: one catch-all view, because the route table is the pipeline's."""
    here = str(
        Path(__file__).parent
    )  # given, because Flask can't find a namespace package's folder
    quart = QuartTrio(__name__, static_folder=None, root_path=here, instance_path=here)
    quart.config["MAX_CONTENT_LENGTH"] = None  # counted while it is read
    quart.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    quart.config["BODY_TIMEOUT"] = None  # the server cuts slow requests (api/server.py)

    async def view(path: str = "") -> Response:  # noqa: ARG001
        asked = _asked(request.scope)
        body = _Body(body_limit(asked, api))
        async for chunk in request.body:
            body.take(chunk)
            if body.size > DRAIN_BYTES:
                break
        asked.body = b"" if body.too_large else bytes(body.data)
        return _as_quart(await answer(asked, api, too_large=body.too_large))

    for rule in ("/", "/<path:path>"):
        quart.add_url_rule(rule, "api", view, methods=_METHODS, merge_slashes=False)
    quart.url_map.merge_slashes = False
    quart.register_error_handler(Exception, _not_from_a_route(api))
    return quart


def _not_from_a_route(api: Api) -> Callable[[Exception], Awaitable[Response]]:
    """Quart's own refusals (a method it does not know, a path it can't read) as our problems."""

    async def handle(error: Exception) -> Response:  # noqa: ARG001
        asked = _asked(request.scope)
        return _as_quart(await answer(asked, api))

    return handle


def _as_quart(result: Answer) -> Response:
    response = Response(result.body, status=result.status)
    response.headers.clear()
    for name, value in result.headers:
        response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    return response
