"""The ASGI application: Quart serves REST, and the hottest calls go around it.

A GET or PUT of one service through Quart costs 300 µs of framework that answers nothing: without
it 1.6 times as many are answered. The fast path calls the very same pipeline;
tests/api/server/test_two_ways.py compares both. Streams never go through Quart, which cuts an answer after 60 s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from config_manager.actors.system import System
from config_manager.api.rest.forwarded import ReverseProxies
from config_manager.api.rest.limits import DRAIN_BYTES, MOST_STREAMS
from config_manager.api.rest.request import Api, ApiRequest, writes_limited_to
from config_manager.api.rest.streams import Stream, Streams
from config_manager.api.server.arriving import ArrivingBody, Room
from config_manager.api.server.asgi_request import QUART_METHODS, asked_of
from config_manager.api.server.file_limits import most_connections
from config_manager.api.server.pipeline import HttpAnswer, admit, answer
from config_manager.api.server.routes import ROUTES

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOT_PREFIX = b"/api/v1/config/"
_HOT_PATHS = frozenset({b"/health", b"/metrics", b"/openapi.json", b"/docs", b"/api/v1/trust/root"})
"""What is asked every few seconds, or by anybody: a flood of requests for them must cost little."""
_LONG = b"/history"
"""Calls that may wait for others, and take a while."""
_STREAMED = frozenset(route.path for route in ROUTES if route.operation.events)
_QUART_AFTER_S = 5.0


class RestApp:
    """The application over a running system.

    fast_path: False sends everything through Quart. writes_per_minute: each token's limit, None for
    none. proxies: in front of it; with `dev` there are none.
    """

    def __init__(
        self,
        system: System,
        *,
        dev: bool,
        fast_path: bool = True,
        writes_per_minute: int | None = None,
        proxies: ReverseProxies | None = None,
    ) -> None:
        writes = writes_limited_to(writes_per_minute) if writes_per_minute else None
        behind = ReverseProxies() if dev or proxies is None else proxies
        # half of the room at most: a stream is never closed to make room for others
        self.streams = Streams(min(MOST_STREAMS, most_connections() // 2))
        self._api = Api(
            system, dev, writes=writes, proxies=behind, routes=ROUTES, streams=self.streams
        )
        self.room = Room()
        """for the bodies of all requests"""
        self._fast_path = fast_path
        self._quart: AsgiApp | None = None
        self._making_quart = trio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ((self._fast_path and _is_hot(scope)) or _is_stream(scope)):
            await _answer_directly(self._api, self.room, scope, receive, send)
        else:
            quart = self._quart or await self._make_quart()
            try:
                await quart(scope, receive, send)
            except Exception:
                # none is known; Hypercorn answers a bare 500, and would not log it
                structlog.get_logger().exception("request failed in the framework", actor="rest")
                raise

    def stop(self) -> None:
        """We are about to stop: whoever waits for something is answered while there is time to."""
        self.streams.end_all()
        self._api.system.confirmations.give_up()

    async def make_quart_soon(self) -> None:
        """Once the start is over, so that hardly any request ever waits for it."""
        await trio.sleep(_QUART_AFTER_S)
        await self._make_quart()

    async def _make_quart(self) -> AsgiApp:
        async with self._making_quart:
            if self._quart is None:
                self._quart = await trio.to_thread.run_sync(_quart_around, self._api, self.room)
            return self._quart


def _quart_around(api: Api, room: Room) -> AsgiApp:
    from config_manager.api.server.quart_app import make_quart  # a third of the time of a start

    app: Any = make_quart(api, room)  # its types are another ASGI's
    return app  # type: ignore[no-any-return]


def _is_stream(scope: Scope) -> bool:
    """By the decoded path: if that is none of ours after all, the answer is a refusal, here as in Quart."""
    return scope["method"] == "GET" and scope["path"] in _STREAMED


def _is_hot(scope: Scope) -> bool:
    path: bytes = scope["raw_path"]
    if not path.startswith(b"/"):  # `http://host/path`, `*`: Quart fails on some of these
        return True
    if scope["method"] not in QUART_METHODS:  # Quart would answer before it has read the body
        return True
    if scope["method"] == "GET":
        return path.startswith(_HOT_PREFIX) or path in _HOT_PATHS
    return scope["method"] == "PUT" and path.startswith(_HOT_PREFIX)


async def _answer_directly(
    api: Api, room: Room, scope: Scope, receive: Receive, send: Send
) -> None:
    asked = asked_of(scope, api)
    if scope["method"] == "GET":
        if asked.raw_path.endswith(_LONG):
            await _answer_unless_left(api, asked, receive, send)
            return
        given = await answer(asked, api)
        if given.stream is None:
            await _send(send, given)
        else:
            await _stream(given, given.stream, receive, send)
        return
    with ArrivingBody(*admit(asked, api), room) as body:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the caller left before the request was whole: nothing was asked
            body.take(message.get("body", b""))
            if body.size > DRAIN_BYTES or not message.get("more_body", False):
                break
        asked.body = bytes(body.data)
        given = await answer(asked, api, unkept=body.refusal)
    await _send(send, given)


async def _answer_unless_left(api: Api, asked: ApiRequest, receive: Receive, send: Send) -> None:
    """Stop answering when the caller leaves: nobody would read it."""
    answered: list[HttpAnswer] = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            while (await receive())["type"] == "http.request":
                """A body, which a GET has no use for."""
            nursery.cancel_scope.cancel()

        nursery.start_soon(look)
        answered.append(await answer(asked, api))
        nursery.cancel_scope.cancel()
    for given in answered:
        await _send(send, given)


async def _send(send: Send, given: HttpAnswer) -> None:
    await send(_start(given))
    await send({"type": "http.response.body", "body": given.body})


async def _stream(given: HttpAnswer, stream: Stream, receive: Receive, send: Send) -> None:
    """Until the stream ends, which it does when the caller leaves. Its end is an ordinary one: a caller that only
    closed its own half reads it."""
    try:
        async with trio.open_nursery() as nursery:

            async def look() -> None:
                while (await receive())["type"] == "http.request":
                    """A body, which a GET has no use for."""
                stream.end()

            nursery.start_soon(look)
            await send(_start(given))
            while (piece := await stream.next_piece()) is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel()
    except Exception:  # noqa: BLE001  logged here, because Hypercorn would not; the caller connects again
        structlog.get_logger().exception("stream failed", actor="rest")
    finally:
        stream.end()
    await send({"type": "http.response.body", "body": b""})


def _start(given: HttpAnswer) -> dict[str, Any]:
    return {"type": "http.response.start", "status": given.status, "headers": given.headers}
