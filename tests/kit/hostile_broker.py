"""A broker that answers with the bytes it is told to, and each kind of ours that connects to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Queue

import pytest
import trio

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.port import BrokerUnavailable
from config_manager.client.drivers import asyncio_connection
from config_manager.client.drivers.trio_driver import _default_transport
from config_manager.config.brokers import BrokerAddress
from tests.kit.client_drivers import run_asyncio

CONNACK_5, CONNACK_311 = b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00"
NO_PROTOCOL_5 = b"\x20\x03\x00\x84\x00"
PROPERTY = b"\x26\x00\x01k\x00\x01v"


def varint(number: int) -> bytes:
    digits = bytearray([number & 0x7F])
    while number := number >> 7:
        digits[-1] |= 0x80
        digits.append(number & 0x7F)
    return bytes(digits)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def properties(count: int) -> bytes:
    return varint(count * len(PROPERTY)) + count * PROPERTY


def publish(topic: bytes, payload: bytes, *, qos: int = 0, listed: bytes = b"\0") -> bytes:
    """As MQTT 5 has it; listed: its properties."""
    named = len(topic).to_bytes(2) + topic + (b"\0\1" if qos else b"")
    return packet(0x30 | qos << 1, named + listed + payload)


@contextmanager
def hostile(
    *answers: bytes | None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[BrokerAddress, Queue[bytes]]]:
    """Sends each after a CONNECT, and waits for the other side to hang up; None: hangs up itself. Beside it:
    what came first."""
    came: Queue[bytes] = Queue()

    def serve() -> None:
        for answer in answers:
            accepted, _ = listener.accept()
            with tls.wrap_socket(accepted, server_side=True) if tls else accepted as connection:
                connection.settimeout(10)
                came.put(connection.recv(65_536))
                if answer is None:
                    continue
                with suppress(ConnectionError):
                    connection.sendall(answer)
                    while connection.recv(65_536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield BrokerAddress("127.0.0.1", listener.getsockname()[1]), came
        thread.join(10)
        assert not thread.is_alive()


Heard = tuple[list[tuple[str, bytes]], str]
"""What was received, and why the connection broke."""


async def _listen_under_trio(
    transport: AiomqttTransport, address: BrokerAddress, most: int
) -> Heard:
    heard: list[tuple[str, bytes]] = []
    why = ""
    try:
        with trio.fail_after(20), trio.CancelScope() as enough:
            async with transport.connect(address, client_id="one") as connection:
                async for message in connection.messages():
                    heard.append((message.topic, message.payload))
                    if len(heard) == most:
                        enough.cancel()
    except BrokerUnavailable as error:
        why = str(error)
    return heard, why


async def _listen_under_asyncio(address: BrokerAddress, most: int) -> Heard:
    heard: list[tuple[str, bytes]] = []
    will = asyncio_connection.Will("system/config-status/a/b", b"{}")
    try:
        async with (
            asyncio.timeout(20),
            asyncio_connection.connect_with_aiomqtt(address, "one", will) as connection,
        ):
            async for message in connection.messages():
                heard.append(message)
                if len(heard) == most:
                    return heard, ""
    except BrokerUnavailable as error:
        return heard, str(error)
    raise AssertionError


def as_the_server(
    address: BrokerAddress, most: int = 1, transport: AiomqttTransport | None = None
) -> Heard:
    return trio.run(_listen_under_trio, transport or AiomqttTransport(), address, most)


def as_a_trio_service(address: BrokerAddress, most: int = 1) -> Heard:
    transport = _default_transport()
    assert isinstance(transport, AiomqttTransport)
    return trio.run(_listen_under_trio, transport, address, most)


def as_an_asyncio_service(address: BrokerAddress, most: int = 1) -> Heard:
    return run_asyncio(_listen_under_asyncio(address, most))


Listen = Callable[..., Heard]
by_everyone = pytest.mark.parametrize(
    "listen", [as_the_server, as_a_trio_service, as_an_asyncio_service]
)
