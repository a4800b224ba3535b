"""Hypercorn's Trio worker inside our own `trio.run`, lean and guarded.

What is changed, and why (each measured or reported upstream):

- A WebSocket upgrade with one extra byte ends an unguarded process (pgjones/hypercorn#225), and h2c
  upgrades open a second protocol: an `Upgrade` is ignored here, which RFC 9110 (7.8) allows.
- Head and body leave in one send, and idle time is one movable deadline on the reading task instead
  of a task per request: together a fifth more requests per second.
- A request that takes over 15 s to arrive is cut; Hypercorn by itself waits for ever.
- The request id's header is spelled `X-Request-ID` on the wire, because people grep for it.
"""

from __future__ import annotations

import errno
import math
import resource
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Any

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from config_manager.api.app import AsgiApp
from config_manager.api.limits import (
    ARRIVE_WITHIN_S,
    FIRST_BYTE_WITHIN_S,
    IDLE_S,
    MAX_HEAD_BYTES,
    MOST_CONNECTIONS,
    SEND_WITHIN_S,
    STOP_WITHIN_S,
)
from config_manager.api.rate_limits import address_key
from config_manager.api.tls import Certificate
from config_manager.config.errors import PortTaken, SettingsInvalid

_RECEIVE_BYTES = 2**16
_DESCRIPTORS_LEFT = 128
_CLOSE_WITHIN_S = 1.0
_SPELLED = {b"x-request-id": b"X-Request-ID"}


async def serve(
    app: AsgiApp,
    host: str,
    port: int,
    *,
    on_stop: Callable[[], None] = lambda: None,
    certificate: Certificate | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then give requests in hand 2 s. Starts with the port it listens on.

    on_stop: called before those 2 s begin, so that what waits for something may answer in them.
    certificate: HTTPS with it; None is plain HTTP.

    Raises PortTaken, or SettingsInvalid where the host is not ours to bind.
    """
    listeners = await _listen(host, port)
    server = _Server(app, certificate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, listeners)
        task_status.started(listeners[0].socket.getsockname()[1])
        try:
            await trio.sleep_forever()
        finally:
            on_stop()
            server.stopping.set()


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return list(await trio.open_tcp_listeners(port, host=host))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"{host}:{port} is taken by another program; stop it, "
                "or choose another with --bind HOST:PORT (port 0 takes a free one)"
            ) from None
        raise SettingsInvalid(
            f"CONFIG_MANAGER_BIND: can't listen on {host}:{port}: {error}"
        ) from None


def _most_connections() -> int:
    """Descriptors are shared with the database, the cache and the broker: some are left to them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(MOST_CONNECTIONS, soft - _DESCRIPTORS_LEFT))


def _is_the_peers_doing(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return all(_is_the_peers_doing(one) for one in error.exceptions)
    return isinstance(error, OSError | trio.BrokenResourceError | trio.ClosedResourceError)


class _Server:
    def __init__(self, app: AsgiApp, certificate: Certificate | None) -> None:
        self.certificate = certificate
        self.app = ASGIWrapper(app)  # type: ignore[arg-type]
        self.config = Config()
        self.config.include_server_header = False
        self.config.accesslog = None
        self.config.errorlog = None
        self.config.keep_alive_max_requests = 10**12
        self.config.h11_max_incomplete_size = MAX_HEAD_BYTES
        self.context = WorkerContext(None)
        self.connections: set[_Connection] = set()
        self._most_connections = _most_connections()
        self.stopping = trio.Event()

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        # shielded: when our caller is cancelled we first let go of what is in hand, in bounded time
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as handlers:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, handlers)
                    await self.stopping.wait()
                    accepting.cancel_scope.cancel()
                await self.context.terminated.set()
                handlers.cancel_scope.deadline = trio.current_time() + STOP_WITHIN_S
                for connection in self.connections:
                    connection.stop_when_idle()
                    connection.send_within(STOP_WITHIN_S)

    async def _accept(self, listener: trio.SocketListener, handlers: trio.Nursery) -> None:
        await trio.serve_listeners(self._handle, [listener], handler_nursery=handlers)

    async def _handle(self, stream: trio.SocketStream) -> None:
        """One connection. It is the unit of failure: what goes wrong in it ends it, and only it."""
        if len(self.connections) >= self._most_connections and not self._make_room():
            await trio.aclose_forcefully(stream)
            return
        connection = _Connection(self, stream)
        self.connections.add(connection)
        try:
            await connection.run()
        except Exception as error:  # noqa: BLE001  said, and nobody else suffers
            if not _is_the_peers_doing(error):
                structlog.get_logger().error("connection failed", actor="rest", exc_info=error)
            await trio.aclose_forcefully(stream)
        finally:
            self.connections.discard(connection)

    def _make_room(self) -> bool:
        """Close a connection that has nothing to answer: of the address with the most of them, an idle
        one before one whose request is still arriving, the longest so. Whether there was one.

        So who opens many, whatever he sends on them, is in his own way first; who shares his address
        gets in with a request that arrives at once.
        """
        waiting = [one for one in self.connections if one.is_waiting]
        if not waiting:
            return False
        crowds = Counter(one.address for one in waiting)
        going = min(waiting, key=lambda one: (-crowds[one.address], not one.is_idle, one.since))
        self.connections.discard(going)
        going.give_way()
        return True


class _Connection:
    """One connection; reading and sending each have one movable deadline."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._socket = stream.socket
        self._is_tls = server.certificate is not None
        self._stream: trio.abc.Stream = stream
        if (
            server.certificate is not None
        ):  # the handshake is part of the first read, and of its time
            context = server.certificate.context()
            self._stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        self._send_lock = trio.Lock()
        self._reading = trio.CancelScope()
        self._sending: trio.CancelScope | None = None
        self._arriving = False
        self._idle = True
        self._gives_way = False
        self.since = trio.current_time()
        """When it became idle, or when the request that is arriving began to."""
        self.address = ""
        self.protocol: _LeanH11

    async def run(self) -> None:
        socket = self._socket
        try:
            peer, here = socket.getpeername(), socket.getsockname()
        except OSError:  # it left before we looked
            await trio.aclose_forcefully(self._stream)
            return
        self.address = address_key(peer[0])
        try:
            async with TaskGroup() as task_group:
                self.protocol = _LeanH11(
                    self._server.app,
                    self._server.config,
                    self._server.context,
                    task_group,
                    ConnectionState({}),
                    self._is_tls,
                    parse_socket_addr(socket.family, peer),
                    parse_socket_addr(socket.family, here),
                    self._send,
                )
                await self._read()
        finally:
            await self._close()

    @property
    def is_idle(self) -> bool:
        return self._idle and not self._arriving

    @property
    def is_waiting(self) -> bool:
        """For a request, or for the rest of one."""
        return self._idle or self._arriving

    def give_way(self) -> None:
        """To another connection; what arrives from now on comes too late."""
        self._gives_way = True
        self._reading.deadline = -math.inf

    def send_within(self, seconds: float) -> None:
        """What is being sent right now has this long."""
        if self._sending is not None:
            until = trio.current_time() + seconds
            self._sending.deadline = min(self._sending.deadline, until)

    def stop_when_idle(self) -> None:
        if self._idle:
            self._reading.deadline = -math.inf

    async def _read(self) -> None:
        self._be_idle()
        self._reading.deadline = min(
            self._reading.deadline, trio.current_time() + FIRST_BYTE_WITHIN_S
        )
        while True:
            try:
                with self._reading:
                    data = await self._stream.receive_some(_RECEIVE_BYTES)
                if self._reading.cancelled_caught:
                    if self._idle or not self.protocol.request_is_whole:
                        break  # idle for too long, or too slow
                    self._reading = trio.CancelScope()  # pipelined, and whole: it is being answered
                    continue
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            self._reading = trio.CancelScope(deadline=self._reading.deadline)
            if data and self._idle and not self._arriving:
                self._begin_to_arrive()
            await self.protocol.handle(RawData(bytes(data)))
            if self.protocol.request_is_whole:
                self._arriving = False
                self._reading.deadline = math.inf
            if not data:
                break
        await self.protocol.handle(Closed())

    def _be_idle(self) -> None:
        self._idle = True
        self._arriving = False
        now = self.since = trio.current_time()
        leaves = self._gives_way or self._server.stopping.is_set()
        self._reading.deadline = now if leaves else now + IDLE_S

    def _begin_to_arrive(self) -> None:
        self._arriving = True
        self.since = trio.current_time()
        self._reading.deadline = -math.inf if self._gives_way else self.since + ARRIVE_WITHIN_S

    async def _send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if not await self._send_all(event.data):
                await trio.aclose_forcefully(self._stream)
                await self.protocol.handle(Closed())
        elif isinstance(event, Closed):
            await self._close()
            await self.protocol.handle(Closed())
        elif isinstance(event, Updated) and event.idle:
            self._be_idle()
        elif isinstance(event, Updated) and self._idle:
            # also a pipelined one, whose bytes were read with those of the one before
            self._idle = False
            if not self._arriving:
                self._begin_to_arrive()

    async def _send_all(self, data: bytes) -> bool:
        """Whether the peer took all of it in time: who never reads must not hold us for ever."""
        async with self._send_lock:
            # shielded, because half an answer is worse than none
            until = trio.current_time() + SEND_WITHIN_S
            with trio.CancelScope(shield=True, deadline=until) as self._sending:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
            return not self._sending.cancelled_caught

    async def _close(self) -> None:
        # shielded, because after an answer that came before its request was whole Quart cancels the
        # very task that is closing here: the connection stayed open, and nobody read it any more
        with trio.CancelScope(shield=True):
            async with self._send_lock:  # the reader may find the end while an answer leaves
                # they may be gone already
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    if isinstance(self._stream, trio.SocketStream):
                        await self._stream.send_eof()
            with trio.move_on_after(_CLOSE_WITHIN_S):  # TLS says goodbye; who does not read is left
                await self._stream.aclose()


class _LeanH11(H11Protocol):
    """HTTP/1.1 and nothing else; the answer leaves in one piece."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held = b""

    @property
    def request_is_whole(self) -> bool:
        return self.connection.their_state in (h11.DONE, h11.MUST_CLOSE)

    async def _check_protocol(self, event: h11.Request) -> None:
        """No h2c, no prior knowledge of HTTP/2."""

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
            case Body(data=data):
                self._held += self._bytes_of(h11.Data(data=data))
                if len(self._held) > _RECEIVE_BYTES:
                    await self._let_go()
            case EndBody():
                self._held += self._bytes_of(h11.EndOfMessage())
                await self._let_go()
            case _:
                await super().stream_send(event)

    def _bytes_of(self, event: Any) -> bytes:
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return b""

    async def _let_go(self) -> None:
        held, self._held = self._held, b""
        if held:
            await self.send(RawData(data=held))
