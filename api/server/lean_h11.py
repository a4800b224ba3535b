"""HTTP/1.1 on one connection and nothing else: Hypercorn's protocol, lean and stricter.

- An `Upgrade` is ignored, which RFC 9110 (7.8) allows: a WebSocket upgrade with one extra byte ends an
  unguarded process (pgjones/hypercorn#225), and h2c upgrades open a second protocol.
- Head and body leave in one send.
- What two readers may take for different requests is refused: see `_refuse_doubtful`.
- A stream of events leaves piece by piece instead. It ends if its caller sends another request behind it: else nobody
  would read on from there, and nobody would notice when the caller leaves.
- Chunks that arrived together are passed on together. One by one, a byte each, they cost 60 µs a byte.
- The request id's header is spelled `X-Request-ID` on the wire, because people grep for it.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, NoReturn, cast

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

from config_manager.api.rest.limits import MOST_HEADERS
from config_manager.api.rest.streams import EVENT_STREAM

_JOINED_BYTES = 2**16
"""Head and body up to this size leave together; a larger body is sent as it lies in memory."""
_EVENTS_A_TURN = 8
"""Parts of one body that are read before others get their turn."""
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_SPELLED = {b"x-request-id": b"X-Request-ID"}
_SAY_WITHIN_S = 1.0
_STREAMED = (b"content-type", EVENT_STREAM)
_TOO_MANY = 431
_OF_OURS = {400, _TOO_MANY}


class StreamBegins(Event):
    """The answer that is being sent goes on for as long as its caller listens."""


class LeanH11(H11Protocol):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held = b""
        self._is_stream = False
        self._others_wait = False

    @property
    def request_is_whole(self) -> bool:
        return self.connection.their_state in (h11.DONE, h11.MUST_CLOSE)

    async def _handle_events(self) -> None:
        while True:
            if self.connection.they_are_waiting_for_100_continue:
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                event, data = await self._next_event()
                if isinstance(event, h11.Request):
                    _refuse_doubtful(event)
            except h11.RemoteProtocolError as error:
                await self._end(error)
                return
            if data and self.stream is not None:
                await self.stream.handle(Body(stream_id=STREAM_ID, data=data))
            if isinstance(event, h11.Request):
                await self.send(Updated(idle=False))
                await self._create_stream(event)
            elif event is h11.PAUSED:
                self._others_wait = True
                self._end_stream_if_others_wait()
                await self.can_read.clear()
                await self.can_read.wait()
                self._others_wait = False
            elif isinstance(event, h11.EndOfMessage) and self.stream is not None:
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            else:
                return

    async def _end(self, error: h11.RemoteProtocolError) -> None:
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            status = error.error_status_hint
            await self._send_error_response(status if status in _OF_OURS else 400)
        await self.send(Closed())

    async def _next_event(self) -> tuple[Any, bytes]:
        """The parts of a body that are here, together, and what follows them. After many parts
        others get their turn. Raises RemoteProtocolError."""
        if self.connection.their_state is h11.IDLE:
            _refuse_many_lines(self.connection.trailing_data[0])
        data = bytearray()
        while True:
            for _ in range(_EVENTS_A_TURN):
                event = self.connection.next_event()
                if not isinstance(event, h11.Data):
                    return event, bytes(data)
                data += event.data
            await trio.lowlevel.checkpoint()

    async def _create_stream(self, request: h11.Request) -> None:
        """As upstream, without its WebSocket branch."""
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def stream_send(self, event: StreamEvent) -> None:
        match event:
            case Response(status_code=status, headers=given) if status >= 200:  # noqa: PLR2004
                headers = [
                    (_SPELLED.get(name, name), value)
                    for name, value in chain(given, self.config.response_headers("h11"))
                ]
                self._held = self._bytes_of(h11.Response(headers=headers, status_code=status))
                self._is_stream = _STREAMED in given
                if self._is_stream:
                    await self.send(StreamBegins())
                    self._end_stream_if_others_wait()
                    await self._let_go()
            case Body(data=data) if len(data) > _JOINED_BYTES // 2:
                # not joined to its head: one document may be on its way to a thousand callers
                await self._let_go()
                await self.send(RawData(data=self._bytes_of(h11.Data(data=data))))
            case Body(data=data):
                self._held += self._bytes_of(h11.Data(data=data))
                if self._is_stream or len(self._held) > _JOINED_BYTES:
                    await self._let_go()
            case EndBody():
                self._is_stream = False
                self._held += self._bytes_of(h11.EndOfMessage())
                await self._let_go()
            case _:
                await super().stream_send(event)

    def _end_stream_if_others_wait(self) -> None:
        if self._is_stream and self._others_wait and self.stream is not None:
            cast("Any", self.task_group).spawn(_say_that_its_caller_left, self.stream)

    def _bytes_of(self, event: Any) -> bytes:
        try:
            return cast("bytes | None", self.connection.send(event)) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return b""

    async def _let_go(self) -> None:
        held, self._held = self._held, b""
        if held:
            await self.send(RawData(data=held))


async def _say_that_its_caller_left(stream: Any) -> None:
    """In a task of its own, because there may be no room now beside what the caller sent as a body."""
    with trio.move_on_after(_SAY_WITHIN_S):
        await stream.app_put({"type": "http.disconnect"})


def _refuse_doubtful(request: h11.Request) -> None:
    """Raises RemoteProtocolError for a request that a proxy in front of us may have read in another way. Then
    the two would disagree where the next request on the connection begins (request smuggling).

    RFC 9112, 6.1: Content-Length beside Transfer-Encoding, and Transfer-Encoding in HTTP/1.0. A version
    that is none of ours is no HTTP/1 message. h11 itself refuses lengths that differ, codings other
    than `chunked`, spaces before a colon, and a CR or NUL within a header.
    """
    if request.http_version not in (b"1.0", b"1.1"):
        _refuse("not HTTP/1.0 or HTTP/1.1")
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version == b"1.0"
    ):
        _refuse("Transfer-Encoding beside Content-Length, or in HTTP/1.0")


def _refuse_many_lines(received: bytes) -> None:
    """Raises RemoteProtocolError before h11 reads what takes it 30 ms: 6,000 headers in 32 KiB."""
    end = _END_OF_HEAD.search(received)
    if received.count(b"\n", 0, end.start() if end else len(received)) > MOST_HEADERS:
        _refuse("too many headers", _TOO_MANY)


def _refuse(why: str, status: int = 400) -> NoReturn:
    raise h11.RemoteProtocolError(why, error_status_hint=status)
