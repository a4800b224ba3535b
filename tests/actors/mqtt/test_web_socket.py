"""MQTT inside a WebSocket: whatever the broker makes of its frames, and however slowly it reads."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from config_manager.actors.mqtt import web_socket
from config_manager.actors.mqtt.web_socket import BrokenWebSocket, WebSocket
from config_manager.config.brokers import BrokerAddress
from tests.kit.hostile_broker import CONNACK_5, Listen, by_everyone, packet, publish

CONT, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9
HELLO = publish(b"t", b"hello")
ADDRESS = BrokerAddress("broker.test", 80, path="/mqtt")


def frame(data: bytes, opcode: int = BINARY, *, last: bool = True, announced: int = 0) -> bytes:
    """As a server sends it; announced: another length than it has."""
    length = announced or len(data)
    first = bytes([opcode | (0x80 if last else 0)])
    if length < 126:
        return first + bytes([length]) + data
    if length < 65_536:
        return first + b"\x7e" + struct.pack("!H", length) + data
    return first + b"\x7f" + struct.pack("!Q", length) + data


def shakes_hands(connection: socket.socket) -> ServerProtocol:
    """The broker's half."""
    server = ServerProtocol()
    server.receive_data(connection.recv(65_536))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    assert (request.path, request.headers["Sec-WebSocket-Protocol"]) == ("/mqtt", "mqtt")
    response = server.accept(request)
    response.headers["Sec-WebSocket-Protocol"] = "mqtt"
    server.send_response(response)
    connection.sendall(b"".join(server.data_to_send()))
    server.events_received()
    return server


@contextmanager
def serving(talk: Callable[[socket.socket], None], times: int = 1) -> Iterator[BrokerAddress]:
    def serve() -> None:
        for _ in range(times):
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.settimeout(10)
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        yield BrokerAddress("127.0.0.1", listener.getsockname()[1], path="/mqtt")
        thread.join(15)
        assert not thread.is_alive()


def sending(*frames: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        shakes_hands(connection)
        connection.recv(65_536)
        connection.sendall(b"".join(frames))
        while connection.recv(65_536):
            pass

    return talk


@by_everyone
@pytest.mark.parametrize(
    "frames",
    [
        [frame(CONNACK_5), frame(HELLO)],
        [frame(CONNACK_5 + HELLO)],
        [frame(bytes([byte])) for byte in CONNACK_5 + HELLO],
        [frame(CONNACK_5), frame(HELLO[:3], last=False), frame(HELLO[3:], CONT)],
        [frame(CONNACK_5), frame(b"are you there?", PING), frame(b""), frame(HELLO)],
    ],
)
def test_packets_are_found_however_they_lie_in_frames(listen: Listen, frames: list[bytes]) -> None:
    with serving(sending(*frames)) as address:
        assert listen(address) == ([("t", b"hello")], "")


REFUSED = {
    "WebSocket: frame": frame(b"", announced=2**62),
    "WebSocket: frame with": frame(b"x", last=False) + frame(b"", CONT, announced=2**62),
    "sent text": frame(b"hello", TEXT),
    "invalid opcode": frame(b"", 7),
    "reads no answer": frame(b"x" * 100, PING) * 1_000,
    "1001": frame(b"\x03\xe9", CLOSE),
}


@by_everyone
@pytest.mark.parametrize("words", REFUSED)
def test_a_broker_that_breaks_the_rules_is_left(
    listen: Listen, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_socket, "_MAX_ANSWERS_BYTES", 1_000)
    with serving(sending(frame(CONNACK_5), REFUSED[words])) as address:
        heard, why = listen(address)
    assert heard == []
    assert words in why


@by_everyone
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nno", "HTTP 404"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "onnection"),
        (b"\x20\x03\x00\x00\x00\n", "did not receive a valid HTTP response"),
        (b"", "hung up"),
    ],
)
def test_who_answers_without_a_handshake_is_no_broker(
    listen: Listen, answer: bytes, words: str
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with serving(talk) as address:
        heard, why = listen(address)
    assert heard == []
    assert words in why


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@by_everyone
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (UPGRADE + b"Sec-WebSocket-Accept: \x9b31m\r\n\r\n", r"Accept header: \udc9b31m"),
        (UPGRADE + b"Sec-WebSocket-Accept: " + b"x" * 8_000 + b"\r\n\r\n", "Accept header: xxx"),
        (None, r"1008 (policy violation) \x1b[31m\nlevel=error"),
    ],
)
def test_what_a_broker_says_is_printable_and_short(
    listen: Listen, answer: bytes | None, words: str
) -> None:
    """It goes into /health, a message and logs: a lone surrogate ended the server."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer or b"")

    closes = sending(frame(CONNACK_5), frame(b"\x03\xf0\x1b[31m\nlevel=error", CLOSE))
    with serving(talk if answer else closes) as address:
        _, why = listen(address)
    assert words in why
    assert why.isprintable()
    assert len(why) <= 600
    why.encode()


@by_everyone
def test_a_handshake_that_drips_ends_in_time(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_socket, "_HANDSHAKE_S", 0.15)
    left = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        while not left.wait(0.05):
            connection.sendall(b"X: y\r\n")

    with serving(talk) as address:
        heard, why = listen(address)
        left.set()
    assert heard == []
    assert "handshake" in why or "timed out" in why


@by_everyone
def test_a_broker_that_closes_at_mqtt_5_is_asked_in_3_1_1(listen: Listen) -> None:
    def talk(connection: socket.socket) -> None:
        server = shakes_hands(connection)
        server.receive_data(connection.recv(65_536))
        (asked,) = (one for one in server.events_received() if isinstance(one, Frame))
        if b"MQTT\x05" in asked.data:
            connection.sendall(frame(b"\x03\xea", CLOSE))
            return
        connection.sendall(frame(b"\x20\x02\x00\x00") + frame(packet(0x30, b"\0\1thello")))
        while connection.recv(65_536):
            pass

    with serving(talk, times=2) as address:
        heard, why = listen(address)
    assert (heard, why) == ([("t", b"hello")], "")


@contextmanager
def joined() -> Iterator[tuple[WebSocket, socket.socket]]:
    """Two ends, of which ours does not block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=shakes_hands, args=(theirs,))
        thread.start()
        web = WebSocket(ours, ADDRESS)
        thread.join()
        web.setblocking(False)
        yield web, theirs


def test_a_packet_that_the_socket_takes_in_parts_is_sent_once_and_whole() -> None:
    """Also if its last part goes with a PONG."""
    large, small = packet(0x30, bytes(range(256)) * 8_000), packet(0x30, b"small")
    server = ServerProtocol(state=State.OPEN, max_size=None)
    with joined() as (ours, theirs):
        left, got, parts = [large, small, large], b"", 0
        while left or len(got) < 2 * len(large) + len(small):
            with suppress(BlockingIOError):
                while left:
                    assert ours.send(left[0]) == len(left[0])
                    left.pop(0)
            if len(got) < 2 * len(large) + len(small):
                server.receive_data(theirs.recv(1_000_000))
            theirs.sendall(frame(b"?", PING))
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            frames = [one for one in server.events_received() if isinstance(one, Frame)]
            got += b"".join(one.data for one in frames if one.opcode == BINARY)
            parts += 1
    assert got == large + small + large
    assert parts > 10


@pytest.mark.parametrize("hangs_up", [False, True])
def test_what_came_before_the_brokers_end_is_read_whatever_is_sent_meanwhile(
    *, hangs_up: bool
) -> None:
    with joined() as (ours, theirs):
        theirs.sendall(frame(HELLO) + frame(b"\x03\xe9", CLOSE))
        if hangs_up:
            theirs.close()
        assert ours.recv(2) == HELLO[:2]
        assert ours.send(b"an answer") == 9
        assert ours.recv(100) == HELLO[2:]
        assert ours.pending()
        with pytest.raises(BrokenWebSocket, match="1001"):
            ours.recv(1)
