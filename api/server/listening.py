"""Hypercorn's Trio worker inside our own `trio.run`, lean and guarded.

What is changed, and why (each measured or reported upstream; the protocol's part: api/server/lean_h11.py):

- Idle time is one movable deadline on the reading task instead of a task per request: with head and
  body in one send, a fifth more requests per second.
- A request that takes over 15 s to arrive is cut; Hypercorn by itself waits for ever.
- A connection counts until its descriptor is closed, whatever its peer does with it. If there is
  no room for another, one that waits for its peer is closed there and then (api/server/crowd.py).
- What is being sent has a limit over all connections, too.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from contextlib import suppress

import structlog
import trio

from config_manager.api.rest.limits import MOST_TURNED_AWAY, STOP_WITHIN_S, TURN_AWAY_WITHIN_S
from config_manager.api.rest.problems import PROBLEM_JSON, problem
from config_manager.api.server import file_limits
from config_manager.api.server.app import AsgiApp
from config_manager.api.server.connection import RECEIVE_BYTES, HttpConnection, Shared
from config_manager.api.server.tls import Certificate
from config_manager.config.errors import Busy, PortTaken, SettingsInvalid

_OF_PEERS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""Errors that are the peer's doing."""


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

    Raises PortTaken, or SettingsInvalid if the host is not ours to bind.
    """
    file_limits.raise_limit()
    listeners = await _listen(host, port)
    shared = Shared(app, certificate, file_limits.most_connections())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_Server(shared).run, listeners)
        task_status.started(listeners[0].socket.getsockname()[1])
        try:
            await trio.sleep_forever()
        finally:
            on_stop()
            shared.stopping.set()


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
    _, others = ExceptionGroup("", [error]).split(_OF_PEERS)
    return others is None


class _Server:
    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._turned_away = 0

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        # shielded: when our caller is cancelled we first let go of what is in hand, in bounded time
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as handlers:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, handlers)
                    await self.shared.stopping.wait()
                    accepting.cancel_scope.cancel()
                await self.shared.context.terminated.set()
                handlers.cancel_scope.deadline = trio.current_time() + STOP_WITHIN_S
                for connection in self.shared.connections:
                    connection.stop_when_idle()
                    connection.send_within(STOP_WITHIN_S)

    async def _accept(self, listener: trio.SocketListener, handlers: trio.Nursery) -> None:
        await trio.serve_listeners(self._handle, [listener], handler_nursery=handlers)

    async def _handle(self, stream: trio.SocketStream) -> None:
        """One connection. It is the unit of failure: what goes wrong in it ends it, and only it."""
        if self.shared.connections.is_full and not self.shared.make_room():
            await self._turn_away(stream)
            return
        connection = HttpConnection(self.shared, stream)
        self.shared.connections.add(connection)
        try:
            await connection.run()
        except Exception as error:  # noqa: BLE001  logged, and no other connection suffers
            if not _is_the_peers_doing(error):
                structlog.get_logger().error("connection failed", actor="rest", exc_info=error)
            await trio.aclose_forcefully(stream)
        finally:
            self.shared.connections.discard(connection)

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        """Tell a caller that there is no room, if that takes no handshake."""
        most = min(MOST_TURNED_AWAY, self.shared.connections.most)
        if self.shared.certificate is not None or self._turned_away >= most:
            await trio.aclose_forcefully(stream)
            return
        self._turned_away += 1
        try:
            with trio.move_on_after(TURN_AWAY_WITHIN_S), suppress(trio.BrokenResourceError):
                await stream.send_all(_no_room())
                await stream.send_eof()
                while await stream.receive_some(RECEIVE_BYTES):
                    """Anything left unread when a socket closes makes its peer lose the answer."""
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
