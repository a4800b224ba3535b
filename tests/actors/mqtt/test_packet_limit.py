"""A broker that sends what nobody of ours would: it is neither kept, nor computed, nor waited for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
import trio
import trustme

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.arrivals import Unread
from config_manager.actors.mqtt.packet_limit import weight
from config_manager.actors.mqtt.packet_rules import MAX_MESSAGE_BYTES, MAX_PACKET_BYTES
from config_manager.client.drivers import asyncio_connection
from config_manager.config.brokers import BrokerAddress
from tests.kit.client_drivers import run_asyncio
from tests.kit.hostile_broker import (
    CONNACK_5,
    CONNACK_311,
    NO_PROTOCOL_5,
    Listen,
    by_everyone,
    hostile,
    packet,
    properties,
    publish,
    varint,
)

MAXIMUM_PACKET_SIZE = b"\x27" + MAX_PACKET_BYTES.to_bytes(4, "big")
HUGE = b"\x30" + varint(200_000_000) + b"x" * 1000
"""A PUBLISH, and its beginning."""


@by_everyone
@pytest.mark.parametrize(
    "answers",
    [[CONNACK_5 + HUGE], [NO_PROTOCOL_5, CONNACK_311 + HUGE]],
    ids=["protocol 5", "protocol 3.1.1"],
)
def test_a_packet_of_200_mb_is_not_waited_for(listen: Listen, answers: list[bytes]) -> None:
    with hostile(*answers) as (address, came):
        _, why = listen(address)
    assert "announced a packet of 200000000 bytes" in why
    assert MAXIMUM_PACKET_SIZE in came.get(timeout=10)


@by_everyone
def test_properties_by_the_hundred_thousand_cost_no_more_than_their_bytes(listen: Listen) -> None:
    """paho alone needs minutes for them, and nobody else has a turn meanwhile."""
    message = publish(b"system/config/a", b"payload", listed=properties(500_000))
    with hostile(CONNACK_5 + message) as (address, _):
        assert listen(address) == ([("system/config/a", b"payload")], "")


@by_everyone
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (publish(b"t", b"x" * 1000, qos=2), "QoS 2"),
        (packet(0x62, b"\0\1"), "type 6, for which nothing asked"),
        (packet(0x50, b"\0\1"), "type 5, for which nothing asked"),
        (packet(0xC0, b""), "type 12, for which nothing asked"),
        (packet(0xF0, b"\x18" + properties(100_000)), "type 15, for which nothing asked"),
        (CONNACK_5, "a second CONNACK"),
        (packet(0x90, b"\0\1\0" + bytes(4_000_000)), "a SUBACK of 4000003 bytes"),
        (packet(0x40, b"\0\1\0" + properties(100_000)), "a PUBACK of 700006 bytes"),
        (packet(0xE0, b"\x8e" + properties(100_000)), "a DISCONNECT of 700004 bytes"),
        (publish(b"t", b"", listed=b"\xff\xff\xff\x7f"), "end beyond their packet"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_a_broker_may_not_send_ends_the_connection(
    listen: Listen, sent: bytes, why: str
) -> None:
    with hostile(CONNACK_5 + sent) as (address, _):
        heard, broke = listen(address)
    assert not heard
    assert why in broke


@by_everyone
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (packet(0x20, b"\0\0" + properties(100_000)), "a CONNACK of 700005 bytes"),
        (publish(b"t", b"before"), "before its CONNACK"),
        (packet(0xF0, b""), "type 15"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_comes_first_is_a_small_connack(listen: Listen, sent: bytes, why: str) -> None:
    with hostile(sent) as (address, came):
        _, broke = listen(address)
    assert why in broke
    assert came.qsize() == 1  # whoever sends that knows protocol 5


@by_everyone
def test_a_length_of_five_bytes_ends_the_connection(listen: Listen) -> None:
    with hostile(CONNACK_5 + b"\x30\xff\xff\xff\xff\x01") as (address, _):
        heard, broke = listen(address)
    assert not heard
    assert broke


@by_everyone
def test_messages_that_are_none_of_ours_are_passed_over(listen: Listen) -> None:
    """Whoever may write to an honest broker sends them; the connection goes on."""
    sent = [
        publish(b"system/config/" + b"a" * 60_000, b"x", qos=1),
        publish(b"system/config/a", b"x" * (MAX_MESSAGE_BYTES + 1)),
        publish(b"system/config/a", b"ours"),
    ]
    with hostile(CONNACK_5 + b"".join(sent)) as (address, _):
        assert listen(address) == ([("system/config/a", b"ours")], "")


@by_everyone
def test_who_sends_and_never_reads_the_answers_is_left(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = paho.Client._sock_send

    def send_unless_full(self: Any, data: bytes) -> int:
        if data[0] == 0x40:
            self._call_socket_register_write()
            raise BlockingIOError
        return send(self, data)

    monkeypatch.setattr(paho.Client, "_sock_send", send_unless_full)
    with hostile(CONNACK_5 + 6000 * publish(b"system/config/a", b"", qos=1)) as (address, _):
        _, broke = listen(address, 6000)
    assert broke == "the broker sends, and reads no answer"


# ── everybody's turn ───────────────────────────────────────────────────────────────────────────

MANY = 1000
ONE_RECORD = CONNACK_5 + b"".join(publish(b"%d" % number, b"") for number in range(MANY))
"""What TLS decodes in one piece."""


@contextmanager
def hostile_over_tls(sent: bytes, directory: Path) -> Iterator[BrokerAddress]:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    with hostile(sent, tls=context) as (address, _):
        yield BrokerAddress(address.host, address.port, tls=True, ca=directory / "ca.pem")


async def _most_between_two_turns_under_trio(address: BrokerAddress) -> int:
    async with AiomqttTransport().connect(address, client_id="one") as connection:
        unread = connection._arrivals._unread  # type: ignore[attr-defined]
        now = most = before = 0
        while (now := int(unread.qsize())) < MANY:
            most, before = max(most, now - before), now
            await trio.lowlevel.checkpoint()
    return max(most, now - before)


async def _most_between_two_turns_under_asyncio(address: BrokerAddress) -> int:
    will = asyncio_connection.Will("system/config-status/a/b", b"{}")
    async with asyncio_connection.connect_with_aiomqtt(address, "one", will) as connection:
        unread = connection._client._queue  # type: ignore[attr-defined]
        now = most = before = 0
        while (now := int(unread.qsize())) < MANY:
            most, before = max(most, now - before), now
            await asyncio.sleep(0)
    return max(most, now - before)


def test_others_have_their_turn_between_the_packets_of_one_tls_record(tmp_path: Path) -> None:
    with hostile_over_tls(ONE_RECORD, tmp_path) as address:
        assert run_asyncio(_most_between_two_turns_under_asyncio(address)) < 100
    with hostile_over_tls(ONE_RECORD, tmp_path) as address:
        assert trio.run(_most_between_two_turns_under_trio, address) < 100


# ── what waits to be read ──────────────────────────────────────────────────────────────────────


async def _what_waits(address: BrokerAddress) -> Any:
    will = asyncio_connection.Will("system/config-status/a/b", b"{}")
    async with asyncio_connection.connect_with_aiomqtt(address, "one", will) as connection:
        return await connection._client._queue.get()  # type: ignore[attr-defined]


def test_what_waits_has_nothing_beside_it_that_nobody_counts() -> None:
    """paho's properties are an object of 6 kB, and a tuple and two texts for each seven bytes of a packet."""
    with hostile(CONNACK_5 + publish(b"t", b"x", listed=properties(500))) as (address, _):
        waits = run_asyncio(_what_waits(address))
    assert (waits.payload, waits.properties) == (b"x", None)


def message(topic: str, payload: bytes) -> aiomqtt.Message:
    return aiomqtt.Message(topic, payload, qos=0, retain=False, mid=1, properties=None)


@pytest.mark.parametrize(
    ("topic", "size"), [("t" * 200, 0), ("t" * 60_000, 1000), ("t", 4_000_000)]
)
def test_what_waits_for_the_server_is_counted_with_all_it_costs(topic: str, size: int) -> None:
    unread, one = Unread(), message(topic, b"x" * size)
    unread.put_nowait(message("the first", b""))
    for _ in range(70_000):
        unread.put_nowait(one)
    assert unread.qsize() * weight(one) < 64 * 1024 * 1024 + 2 * weight(one)
    assert unread.get_nowait().topic.value == "the first"
    while not unread.empty():
        unread.get_nowait()
    assert unread._waiting_bytes == 0
