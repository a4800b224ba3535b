"""A broker that announces a packet nobody of ours would send: it is not waited for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Queue

import pytest
import trio

from config_manager.actors import mqtt
from config_manager.actors.mqtt import AiomqttTransport
from config_manager.actors.packet_limit import MAX_PACKET_BYTES
from config_manager.client import aio_connection
from config_manager.config.brokers import BrokerAddress

CONNACK_5, CONNACK_311 = b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00"
NO_PROTOCOL_5 = b"\x20\x03\x00\x84\x00"
HUGE = (
    b"\x30" + b"\x80\x84\xaf\x5f" + b"x" * 1000
)  # PUBLISH of 200,000,000 bytes, and their beginning
MAXIMUM_PACKET_SIZE = b"\x27" + MAX_PACKET_BYTES.to_bytes(4, "big")


@contextmanager
def hostile(*answers: bytes) -> Iterator[tuple[BrokerAddress, Queue[bytes]]]:
    """Sends each after a CONNECT, and waits for the other side to hang up. Beside it: what came first."""
    came: Queue[bytes] = Queue()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                came.put(connection.recv(65_536))
                connection.sendall(answer)
                with suppress(ConnectionResetError):
                    while connection.recv(65_536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield BrokerAddress("127.0.0.1", listener.getsockname()[1]), came
        thread.join(10)
        assert not thread.is_alive()


async def _as_the_server(address: BrokerAddress) -> str:
    with pytest.raises(mqtt.BrokerUnavailable) as caught, trio.fail_after(10):
        async with AiomqttTransport().connect(address, client_id="one") as connection:
            await connection.subscribe("#")
            async for _ in connection.messages():
                pass
    return str(caught.value)


async def _as_an_asyncio_service(address: BrokerAddress) -> str:
    with pytest.raises(aio_connection.BrokerUnavailable) as caught:
        async with asyncio.timeout(10):
            will = aio_connection.Will("system/config-status/a/b", b"{}")
            async with aio_connection.connect_with_aiomqtt(address, "one", will) as connection:
                await connection.subscribe("#")
                async for _ in connection.messages():
                    pass
    return str(caught.value)


def as_the_server(address: BrokerAddress) -> str:
    return trio.run(_as_the_server, address)


def as_an_asyncio_service(address: BrokerAddress) -> str:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_as_an_asyncio_service(address))


@pytest.mark.parametrize("connect", [as_the_server, as_an_asyncio_service])
@pytest.mark.parametrize(
    "answers",
    [[CONNACK_5 + HUGE], [NO_PROTOCOL_5, CONNACK_311 + HUGE]],
    ids=["protocol 5", "protocol 3.1.1"],
)
def test_a_packet_of_200_mb_is_not_waited_for(
    connect: Callable[[BrokerAddress], str], answers: list[bytes]
) -> None:
    with hostile(*answers) as (address, came):
        error = connect(address)
    assert "announced a packet of 200000000 bytes" in error
    assert MAXIMUM_PACKET_SIZE in came.get(timeout=10)
