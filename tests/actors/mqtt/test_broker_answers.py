"""What a broker announces, answers and leaves with, as the publisher gets to know it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.port import BrokerUnavailable, Connection
from config_manager.config.brokers import BrokerAddress
from tests.kit.processes import MOSQUITTO, Processes, answers, eventually, free_port

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
TOPIC = "system/doctor/answers"


@contextmanager
def mosquitto(directory: Path, *lines: str) -> Iterator[BrokerAddress]:
    assert MOSQUITTO is not None
    port = free_port()
    conf = directory / "mosquitto.conf"
    conf.write_text(
        "\n".join((f"listener {port} 127.0.0.1", "allow_anonymous true", *lines)) + "\n"
    )
    with Processes() as processes:
        processes.start([MOSQUITTO, "-c", str(conf)])
        eventually(lambda: answers(port), within=5, what="mosquitto listens")
        yield BrokerAddress("127.0.0.1", port)


async def the_answer(connection: Connection, payload: bytes) -> int:
    send, receive = trio.open_memory_channel[int](1)
    connection.hand_over(TOPIC, payload, send.send_nowait)
    with trio.fail_after(5):
        return await receive.receive()


@needs_mosquitto
async def test_limits_are_known_once_we_are_connected(tmp_path: Path) -> None:
    lines = ("max_packet_size 20000", "max_inflight_messages 5")
    with mosquitto(tmp_path, *lines) as address:
        async with AiomqttTransport().connect(address, client_id="one") as connection:
            assert connection.maximum_packet_bytes == 20_000
            assert connection.receive_maximum == 5
    with mosquitto(tmp_path) as address:
        async with AiomqttTransport().connect(address, client_id="one") as connection:
            assert connection.maximum_packet_bytes is None


@needs_mosquitto
async def test_a_code_that_paho_does_not_know_is_passed_on_and_the_connection_holds(
    tmp_path: Path,
) -> None:
    with mosquitto(tmp_path, "message_size_limit 100") as address:
        async with AiomqttTransport().connect(address, client_id="one") as connection:
            assert await the_answer(connection, b"x" * 101) == 149
            assert await the_answer(connection, b"x") < 128
            await connection.publish(TOPIC, b"y" * 101, retain=True)  # refused, not waited for
            assert await the_answer(connection, b"") < 128


CONNACK = b"\x20\x03\x00\x00\x00"
TAKEN_OVER = b"\xe0\x02\x8e\x00"


async def test_who_is_pushed_off_by_another_with_its_client_id_is_told_so() -> None:
    """By hand: this Mosquitto closes without a word."""

    async def broker(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(CONNACK + TAKEN_OVER)
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, broker, 0, host="127.0.0.1"))
        address = BrokerAddress(*listeners[0].socket.getsockname())
        with trio.fail_after(10), pytest.raises(BrokerUnavailable) as why:
            async with AiomqttTransport().connect(address, client_id="one") as connection:
                async for _ in connection.messages():
                    pass
        nursery.cancel_scope.cancel()
    assert (str(why.value), why.value.code) == (
        "the broker hung up: Session taken over (142)",
        142,
    )
