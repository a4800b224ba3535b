"""One connection: what it waits for, how long, and how it ends."""

from __future__ import annotations

import math
import socket
import struct
from contextlib import suppress

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from config_manager.api.rest.limits import (
    ARRIVE_WITHIN_S,
    FIRST_BYTE_WITHIN_S,
    GONE_WITHIN_S,
    IDLE_S,
    MAX_HEAD_BYTES,
    MOST_BYTES_SENDING,
    SEND_WITHIN_S,
)
from config_manager.api.rest.rate_limits import address_key
from config_manager.api.server.app import AsgiApp
from config_manager.api.server.crowd import Crowd, Wait
from config_manager.api.server.lean_h11 import LeanH11, StreamBegins
from config_manager.api.server.tls import Certificate

RECEIVE_BYTES = 2**16
_CLOSE_WITHIN_S = 1.0
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: what the peer has not read is dropped, also from the kernel's buffer."""


class Shared:
    """What all connections of a server have in common."""

    def __init__(self, app: AsgiApp, certificate: Certificate | None, most: int) -> None:
        self.certificate = certificate
        self.app = ASGIWrapper(app)  # type: ignore[arg-type]
        self.config = Config()
        self.config.include_server_header = False
        self.config.accesslog = None
        self.config.errorlog = None
        self.config.keep_alive_max_requests = 10**12
        self.config.h11_max_incomplete_size = MAX_HEAD_BYTES
        self.context = WorkerContext(None)
        self.connections = Crowd[HttpConnection](most)
        self.bytes_sending = 0
        self.stopping = trio.Event()

    def make_room(self, *, of_slow_readers: bool = False) -> bool:
        """Close connections, so that others get in (`Crowd.in_the_way`). Returns whether there was one to close."""
        only = "read" if of_slow_readers else None
        going = self.connections.in_the_way(trio.current_time(), only=only)
        for connection in going:
            connection.end_now()
        return bool(going)


class HttpConnection:
    """One connection; reading and sending each have one movable deadline."""

    def __init__(self, shared: Shared, stream: trio.SocketStream) -> None:
        self._shared = shared
        self._socket = stream.socket
        self._is_tls = shared.certificate is not None
        self._stream: trio.abc.Stream = stream
        if shared.certificate is not None:
            # the handshake is part of the first read, and of its time
            context = shared.certificate.context()
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
        self._ends: tuple[tuple[str, int], tuple[str, int]] | None = None
        """The peer's address and port, and ours."""
        with suppress(OSError):  # the peer has left already
            peer, here = self._socket.getpeername(), self._socket.getsockname()
            self._ends = peer[:2], here[:2]
        self.address = address_key(self._ends[0][0] if self._ends else None)
        self.protocol: LeanH11

    async def run(self) -> None:
        if self._ends is None:
            await trio.aclose_forcefully(self._stream)
            return
        try:
            async with TaskGroup() as task_group:
                self.protocol = LeanH11(
                    self._shared.app,
                    self._shared.config,
                    self._shared.context,
                    task_group,
                    ConnectionState({}),
                    self._is_tls,
                    *self._ends,
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
        """To make room: the descriptor is free when this returns, and every task that waits on it wakes."""
        self._shared.connections.discard(self)
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
        first_byte_until = trio.current_time() + FIRST_BYTE_WITHIN_S
        self._reading.deadline = min(self._reading.deadline, first_byte_until)
        while True:
            try:
                data = await self._receive()
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            if data is None:
                if self._idle or not self.protocol.request_is_whole:
                    break  # idle for too long, or too slow
                self._reading = trio.CancelScope()  # pipelined, and whole: it is being answered
                continue
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

    async def _receive(self) -> bytes | bytearray | None:
        """What the peer sent, empty at its end; None if the deadline has passed."""
        with self._reading:
            return await self._stream.receive_some(RECEIVE_BYTES)
        return None

    def _be_idle(self) -> None:
        self._idle = True
        self._arriving = False
        now = self._since = trio.current_time()
        self._reading.deadline = now if self._shared.stopping.is_set() else now + IDLE_S

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
        elif isinstance(event, StreamBegins):
            with suppress(OSError):  # the peer has left already
                level, option = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
                self._socket.setsockopt(level, option, round(GONE_WITHIN_S * 1000))
        elif isinstance(event, Updated) and event.idle:
            self._be_idle()
        elif isinstance(event, Updated) and self._idle:
            # also a pipelined one, whose bytes were read with those of the one before
            self._idle = False
            if not self._arriving:
                self._begin_to_arrive()

    async def _send_all(self, data: bytes) -> bool:
        """Whether the peer took all of it in time: one that never reads must not hold us for ever."""
        async with self._send_lock:
            self._count_sending(len(data))
            while self._shared.bytes_sending > MOST_BYTES_SENDING:
                if not self._shared.make_room(of_slow_readers=True):
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
        self._shared.bytes_sending += size - self._sending_bytes
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
            # TLS says goodbye, unless the peer does not read
            with trio.move_on_after(_CLOSE_WITHIN_S):
                await self._stream.aclose()
