"""Hypercorn's Trio worker inside our own `trio.run`, lean and guarded.

What is changed, and why (each measured or reported upstream; the protocol's part: api/server/lean_h11.py):

- Idle time is one movable deadline on the reading task instead of a task per request: with head and
  body in one send, a fifth more requests per second.
- A request that takes over 15 s to arrive is cut; Hypercorn by itself waits for ever.
- A connection counts until its descriptor is closed, whatever its peer does with it. Where there is
  no room for another, one that waits for its peer is closed there and then (api/server/crowd.py).
- What is being sent has a limit over all connections, too.
"""

from __future__ import annotations

import errno
import math
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from config_manager.api.rest.limits import (
    ARRIVE_WITHIN_S,
    FIRST_BYTE_WITHIN_S,
    IDLE_S,
    MAX_HEAD_BYTES,
    MOST_BYTES_SENDING,
    SEND_WITHIN_S,
    STOP_WITHIN_S,
    TURN_AWAY_WITHIN_S,
)
from config_manager.api.rest.problems import PROBLEM_JSON, problem
from config_manager.api.rest.rate_limits import address_key
from config_manager.api.server import descriptors
from config_manager.api.server.app import AsgiApp
from config_manager.api.server.crowd import Crowd, Wait
from config_manager.api.server.lean_h11 import LeanH11
from config_manager.api.server.tls import Certificate
from config_manager.config.errors import Busy, PortTaken, SettingsInvalid

_RECEIVE_BYTES = 2**16
_CLOSE_WITHIN_S = 1.0
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: what the peer has not read is dropped, also from the kernel's buffer."""


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
    descriptors.raise_limit()
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
        self.connections = Crowd[_Connection](descriptors.most_connections())
        self.bytes_sending = 0
        self._turned_away = 0
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
        if self.connections.is_full and not self.make_room():
            await self._turn_away(stream)
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

    def make_room(self, *, of_who_reads_not: bool = False) -> bool:
        """Close who is in the way of others. Whether there was one."""
        only = "read" if of_who_reads_not else None
        going = self.connections.in_the_way(trio.current_time(), only=only)
        for connection in going:
            connection.end_now()
        return bool(going)

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        """A caller for whom there is no room is told so, where that takes no handshake."""
        if self.certificate is not None or self._turned_away >= descriptors.most_turned_away(
            self.connections.most
        ):
            await trio.aclose_forcefully(stream)
            return
        self._turned_away += 1
        try:
            with trio.move_on_after(TURN_AWAY_WITHIN_S), suppress(trio.BrokenResourceError):
                await stream.send_all(_no_room())
                await stream.send_eof()
                while await stream.receive_some(_RECEIVE_BYTES):
                    """What is left unread when a socket closes makes its peer lose the answer."""
        finally:
            self._turned_away -= 1
            await trio.aclose_forcefully(stream)


def _no_room() -> bytes:
    request_id = secrets.token_hex(16)
    told = problem(Busy("too many connections are open; try again"), request_id)
    headers = (
        *((b"content-type", PROBLEM_JSON), (b"content-length", b"%d" % len(told.body))),
        *((b"X-Request-ID", request_id.encode()), (b"connection", b"close")),
        *told.headers,
    )
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d \r\n%b\r\n%b" % (told.status, lines, told.body)


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
        self._sending_since: float | None = None
        self._sending_bytes = 0
        self._arriving = False
        self._idle = True
        self._closing = False
        self._since = trio.current_time()
        """When it became idle, or began to close, or when the request that is arriving began to."""
        try:
            self._peer = self._socket.getpeername()
        except OSError:  # it left before we looked
            self._peer = None
        self.address = address_key(self._peer[0] if self._peer else None)
        self.protocol: LeanH11

    async def run(self) -> None:
        socket, peer = self._socket, self._peer
        try:
            here = socket.getsockname()
        except OSError:
            peer = None
        if peer is None:
            await trio.aclose_forcefully(self._stream)
            return
        try:
            async with TaskGroup() as task_group:
                self.protocol = LeanH11(
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
    def wait(self) -> Wait | None:
        if self._sending_since is not None:
            return Wait("read", self._sending_since)
        if self._idle or self._closing:
            return Wait("arrive" if self._arriving else "ask", self._since)
        return Wait("arrive", self._since) if self._arriving else None

    def end_now(self) -> None:
        """To make room: the descriptor is free when this returns, and whoever waits on it wakes."""
        self._server.connections.discard(self)
        self._count_sending(0)
        with suppress(OSError):
            if self._sending_since is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._socket.close()

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
        now = self._since = trio.current_time()
        self._reading.deadline = now if self._server.stopping.is_set() else now + IDLE_S

    def _begin_to_arrive(self) -> None:
        self._arriving = True
        self._since = trio.current_time()
        self._reading.deadline = self._since + ARRIVE_WITHIN_S

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
            self._count_sending(len(data))
            while self._server.bytes_sending > MOST_BYTES_SENDING:
                if not self._server.make_room(of_who_reads_not=True):
                    break
            # shielded, because half an answer is worse than none
            self._sending_since = trio.current_time()
            until = self._sending_since + SEND_WITHIN_S
            try:
                with trio.CancelScope(shield=True, deadline=until) as self._sending:
                    await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            finally:
                self._sending_since = None
                self._count_sending(0)
            return not self._sending.cancelled_caught

    def _count_sending(self, size: int) -> None:
        self._server.bytes_sending += size - self._sending_bytes
        self._sending_bytes = size

    async def _close(self) -> None:
        # shielded, because after an answer that came before its request was whole Quart cancels the
        # very task that is closing here: the connection stayed open, and nobody read it any more
        if not self._closing:
            self._closing, self._since = True, trio.current_time()
        with trio.CancelScope(shield=True):
            async with self._send_lock:  # the reader may find the end while an answer leaves
                # they may be gone already
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    if isinstance(self._stream, trio.SocketStream):
                        await self._stream.send_eof()
            with trio.move_on_after(_CLOSE_WITHIN_S):  # TLS says goodbye; who does not read is left
                await self._stream.aclose()
