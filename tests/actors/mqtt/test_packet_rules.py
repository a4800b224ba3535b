"""What a broker may send: each packet by its first bytes, and what is left of one when paho unpacks it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.client import MQTTv5

from config_manager.actors.mqtt.packet_rules import (
    MAX_ANSWER_BYTES,
    MAX_PACKET_BYTES,
    cut_properties,
    refuse,
)
from tests.kit.hostile_broker import varint

# as in the first byte of a packet
CONNACK, PUBLISH_0, PUBLISH_1, PUBLISH_2, PUBLISH_3 = 0x20, 0x31, 0x33, 0x34, 0x36
PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
SUBACK, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 0x90, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0
FOR_BROKERS = (0x00, 0x10, 0x82, 0xA2)


@pytest.mark.parametrize(
    ("first", "length"),
    [
        (PUBLISH_0, MAX_PACKET_BYTES),
        (PUBLISH_1, MAX_PACKET_BYTES),
        (PUBACK, 2),
        (PUBACK, 4),
        (SUBACK, 3),
        (SUBACK, MAX_ANSWER_BYTES),
        (PINGRESP, 0),
        (DISCONNECT, 0),
        (DISCONNECT, 200),
    ],
)
def test_what_a_broker_sends_once_it_has_greeted(first: int, length: int) -> None:
    assert refuse(first, length, is_greeted=True) is None
    assert "before its CONNACK" in (refuse(first, length, is_greeted=False) or "")


def test_it_greets_once() -> None:
    assert refuse(CONNACK, 3, is_greeted=False) is None
    assert "a second CONNACK" in (refuse(CONNACK, 3, is_greeted=True) or "")
    assert "CONNACK of 4097 bytes" in (refuse(CONNACK, 4097, is_greeted=False) or "")


@pytest.mark.parametrize("first", [PUBREC, PUBREL, PUBCOMP, UNSUBACK, PINGREQ, AUTH, *FOR_BROKERS])
@pytest.mark.parametrize("is_greeted", [False, True])
def test_what_nothing_asked_for_ends_the_connection(first: int, is_greeted: bool) -> None:
    assert "for which nothing asked" in (refuse(first, 2, is_greeted=is_greeted) or "")


@pytest.mark.parametrize(
    ("first", "length", "why"),
    [
        (PUBLISH_2, 10, "QoS 2"),
        (PUBLISH_3, 10, "QoS 2"),
        (PUBLISH_0, MAX_PACKET_BYTES + 1, "announced a packet of 4325377 bytes"),
        (PUBACK, MAX_ANSWER_BYTES + 1, "a PUBACK of 4097 bytes"),
        (SUBACK, MAX_ANSWER_BYTES + 1, "a SUBACK of 4097 bytes"),
        (DISCONNECT, 60_000, "a DISCONNECT of 60000 bytes"),
    ],
)
def test_more_than_we_keep_is_refused_by_its_first_bytes(first: int, length: int, why: str) -> None:
    assert why in (refuse(first, length, is_greeted=True) or "")


user_properties = st.integers(0, 300).map(lambda count: b"\x26\0\1k\0\1v" * count)
packet_ids = st.integers(1, 65535).map(lambda number: number.to_bytes(2))


@given(st.text(max_size=20), st.booleans(), packet_ids, user_properties, st.binary(max_size=50))
def test_a_message_without_its_properties_is_the_same_message(
    topic: str, needs_answer: bool, packet_id: bytes, properties: bytes, payload: bytes
) -> None:
    first = PUBLISH_1 if needs_answer else PUBLISH_0
    named = len(topic.encode()).to_bytes(2) + topic.encode() + (packet_id if needs_answer else b"")
    body = bytearray(named + varint(len(properties)) + properties + payload)
    before: Any = _packet.decode_publish(first, bytes(body), MQTTv5)
    cut_properties(first, body)
    assert body == named + b"\0" + payload
    after: Any = _packet.decode_publish(first, body, MQTTv5)
    assert after._replace(properties=None) == before._replace(properties=None)


@given(packet_ids, user_properties, st.lists(st.sampled_from([0, 1, 128]), min_size=1))
def test_answers_without_their_properties_say_the_same(
    packet_id: bytes, properties: bytes, codes: list[int]
) -> None:
    listed = varint(len(properties)) + properties
    suback = bytearray(packet_id + listed + bytes(codes))
    cut_properties(SUBACK, suback)
    assert suback == packet_id + b"\0" + bytes(codes)
    for first, said in ((PUBACK, packet_id + b"\x80"), (DISCONNECT, b"\x8e")):
        body = bytearray(said + listed)
        cut_properties(first, body)
        assert body == said


@pytest.mark.parametrize("first", [PUBACK, DISCONNECT, PINGRESP])
def test_the_shortest_answers_stay_as_they_are(first: int) -> None:
    body = bytearray(b"\0\1" if first == PUBACK else b"")
    before = bytes(body)
    cut_properties(first, body)
    assert body == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\1t",
        b"\xff\xfft\0",
        b"\0\1t\x05\x26\0\1k",
        b"\0\1t\xff\xff\xff\xff\x01",
        b"\0\1t\x80",
    ],
)
def test_properties_that_end_nowhere_are_no_packet(body: bytes) -> None:
    with pytest.raises(ValueError, match="end beyond their packet"):
        cut_properties(PUBLISH_0, bytearray(body))
