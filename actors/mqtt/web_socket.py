"""MQTT inside a WebSocket (RFC 6455; OASIS MQTT 5, 6): what paho takes for its socket.

paho has a wrapper of its own. It loses a packet that the socket does not take at once, keeps a frame of any
length, and reads a handshake for as long as a broker likes. So the frames are those of `websockets`, without
its I/O; the broker's are bounded.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from config_manager.actors.mqtt.packet_rules import MAX_PACKET_BYTES
from config_manager.config.brokers import BrokerAddress

_HANDSHAKE_S = 5.0
_READ_BYTES = 16 * 1024
"""At once: as empty frames they take 50 ms."""
_MAX_FRAME_BYTES = 4 * MAX_PACKET_BYTES
"""Of one message of the broker's: it may hold several packets."""
_MAX_ANSWERS_BYTES = 64 * 1024
"""PONGs that a broker may leave unread while it goes on sending PINGs."""
_SILENT = logging.getLogger("config_manager.mqtt.web_socket")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL + 1)


def speak_through_web_socket(client: Any, address: BrokerAddress) -> None:
    """An aiomqtt client that has yet to connect."""
    paho = client._client  # noqa: SLF001  aiomqtt passes on paho's own wrapper alone
    connect = paho._create_socket  # noqa: SLF001

    def create() -> WebSocket:
        sock = connect()
        try:
            return WebSocket(sock, address)
        except BaseException:
            sock.close()
            raise

    paho._create_socket = create  # noqa: SLF001


class BrokenWebSocket(ConnectionAbortedError):
    """The broker breaks a rule, or closes the WebSocket; the message says which."""


class ClosedWebSocket(BrokenWebSocket):
    """The broker closes it: what hanging up is without a WebSocket."""


class WebSocket:
    """The methods of a socket that paho, aiomqtt and the event loops call."""

    def __init__(self, sock: socket.socket, address: BrokerAddress) -> None:
        """Shakes hands, blocking, for at most 5 s. sock: connected, and in TLS if that is wanted. Raises OSError."""
        from websockets.client import ClientProtocol
        from websockets.typing import Subprotocol
        from websockets.uri import parse_uri

        self._sock = sock
        self._protocol = ClientProtocol(
            parse_uri(str(address)),
            subprotocols=[Subprotocol("mqtt")],
            max_size=_MAX_FRAME_BYTES,
            logger=_SILENT,
        )
        self._unread = bytearray()
        self._unsent = bytearray()
        self._broken: BrokenWebSocket | None = None
        self._packet_bytes = 0  # of the packet whose frame is not sent to its end
        self.fileno = sock.fileno
        self.setblocking = sock.setblocking
        self.setsockopt = sock.setsockopt
        self.close = sock.close
        self._shake_hands()

    def _shake_hands(self) -> None:
        from websockets.protocol import OPEN

        ends_at = time.monotonic() + _HANDSHAKE_S
        self._protocol.send_request(self._protocol.connect())
        self._sock.settimeout(_HANDSHAKE_S)
        self._sock.sendall(b"".join(self._protocol.data_to_send()))
        while self._protocol.state is not OPEN:
            left = ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer to the WebSocket's handshake")
            self._sock.settimeout(left)
            if not (data := self._sock.recv(_READ_BYTES)):
                raise self._hung_up()
            self._take(data)
            if self._broken is not None:
                raise self._broken

    def _hung_up(self) -> BrokenWebSocket:
        """The end of the stream is the end of an answer without a length (RFC 9112, 6.3)."""
        from websockets.exceptions import InvalidStatus

        self._protocol.receive_eof()
        refused = self._protocol.handshake_exc
        if isinstance(refused, InvalidStatus):
            return BrokenWebSocket(f"WebSocket: {refused}")
        return BrokenWebSocket("the broker hung up instead of opening a WebSocket")

    def recv(self, size: int) -> bytes:
        """Of what the broker's frames hold. Raises BlockingIOError if nothing is there, and BrokenWebSocket once
        all was given that came before; b"" is the end."""
        if not self._unread and self._broken is None:
            data = self._sock.recv(_READ_BYTES)
            if not data:
                return b""
            self._take(data)
        if not self._unread:
            raise self._broken or BlockingIOError
        given = bytes(self._unread[:size])
        del self._unread[:size]
        return given

    def pending(self) -> int:
        """Bytes, or an end, that are there though the socket shows none."""
        decoded = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._unread) + (self._broken is not None) + decoded

    def send(self, packet: bytes) -> int:
        """All of it, as one message. Raises BlockingIOError if the socket does not take all: paho gives the same
        packet again, of which only the rest is sent then. Once the broker has closed, it is dropped; `recv` says why."""
        if self._broken is not None:
            return len(packet)
        if not self._packet_bytes:
            self._protocol.send_binary(bytes(packet))
            self._packet_bytes = len(packet)
            self._unsent += b"".join(self._protocol.data_to_send())
        self._flush()
        if self._unsent:
            raise BlockingIOError
        sent, self._packet_bytes = self._packet_bytes, 0
        return sent

    def _flush(self) -> None:
        while self._unsent:
            del self._unsent[: self._sock.send(self._unsent)]

    def _take(self, data: bytes) -> None:
        """What came from the socket."""
        from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_TEXT, Frame

        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if not isinstance(event, Frame):
                continue  # the handshake's answer
            if event.opcode in (OP_BINARY, OP_CONT):
                self._unread += event.data
            elif event.opcode is OP_TEXT:
                self._broken = BrokenWebSocket("the broker sent text in its WebSocket")
            elif event.opcode is OP_CLOSE:
                self._broken = ClosedWebSocket(
                    f"the broker closed the WebSocket: {protocol.close_rcvd}"
                )
        self._unsent += b"".join(protocol.data_to_send())
        if (wrong := protocol.handshake_exc or protocol.parser_exc) is not None:
            self._broken = BrokenWebSocket(f"WebSocket: {wrong}")
        elif len(self._unsent) - self._packet_bytes > _MAX_ANSWERS_BYTES:
            self._broken = BrokenWebSocket("the broker sends PINGs, and reads no answer")
        # the next recv says that the connection is lost, after what came before
        with suppress(OSError):
            self._flush()
