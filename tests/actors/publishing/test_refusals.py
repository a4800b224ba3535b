"""What a broker refuses, judged without any broker: on a clock that is set by hand."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from config_manager.actors.publishing.refusals import AGAIN_S, BrokerRefusals, name_of, packet_bytes
from config_manager.config import wire

A, B = wire.config_topic("a"), wire.root_topic(1)


class Desk:
    def __init__(self) -> None:
        self.now = 0.0
        self.aside: dict[str, str] = {}
        self.told: list[str] = []
        self.refusals = BrokerRefusals(
            self.aside, lambda name, _: self.told.append(name), self.clock
        )

    def clock(self) -> float:
        return self.now

    def breaks(self, *topics: str, size: int = 100, code: int | None = None) -> None:
        for topic in topics:
            self.refusals.handed(topic, "content", size)
        self.refusals.broke(code)


@pytest.mark.parametrize("length", [0, 80, 90, 98, 99, 100, 16_350, 16_360, 16_370, 2_097_130])
def test_the_size_of_a_packet_is_what_paho_sends(length: int) -> None:
    client: Any = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    sent: list[bytes] = []
    client._sock = "connected"
    client._packet_queue = lambda _command, packet, *_: sent.append(packet)
    client._send_publish(1, "system/ü".encode(), b"x" * length, 1, True)
    client._sock = None
    assert packet_bytes("system/ü", b"x" * length) == len(sent[0])


def test_who_is_taken_is_suspected_no_longer_and_who_is_not_is_set_aside_at_the_third() -> None:
    it = Desk()
    it.breaks(A, B)
    assert [it.refusals.judge(topic, "content", 100) for topic in (A, B)] == ["alone", "alone"]
    it.refusals.handed(B, "content", 100)
    assert it.refusals.answered(B, 16)  # nobody listens: taken all the same
    assert it.refusals.judge(B, "content", 100) == "free"
    it.breaks(A)
    assert (it.aside, it.told) == ({}, [])
    it.breaks(A)
    assert it.aside == {"a": "it hung up 3 times at a message of 100 bytes"}
    assert it.refusals.judge(A, "other", 100) == "aside"
    assert it.refusals.judge(A, "other", 99) == "alone"


def test_a_code_says_more_than_a_broken_connection_where_it_comes_with_one() -> None:
    it = Desk()
    for _ in range(3):
        it.breaks(A, code=149)
    assert it.aside == {"a": "it hung up 3 times at a message of 100 bytes (packet too large)"}


@pytest.mark.parametrize("code", [0, 137, 139, 141, 142, 152, 160])
def test_what_has_nothing_to_do_with_a_message_is_held_against_none(code: int) -> None:
    it = Desk()
    for _ in range(9):
        it.breaks(A, code=code)
    assert it.refusals.judge(A, "content", 100) == "free"


def test_what_is_due_is_named_until_it_was_tried() -> None:
    it = Desk()
    for _ in range(3):
        it.breaks(A)
    assert it.refusals.due() == []
    it.now += AGAIN_S
    assert it.refusals.due() == it.refusals.due() == [A]
    it.breaks(A)
    assert it.refusals.due() == []
    it.refusals.connected(None, after_absence=False)
    assert it.refusals.due() == [], "the same broker"
    it.refusals.connected(None, after_absence=True)
    assert it.refusals.due() == [A], "perhaps another one"


def test_what_is_named_already_is_not_told_again_in_the_same_way() -> None:
    it = Desk()
    it.refusals.connected(1000, after_absence=False)
    for size in range(2000, 2050):
        assert it.refusals.judge(A, f"content {size}", size) == "aside"
    assert it.told == ["a"]
    assert it.aside == {"a": "a message of 2,049 bytes is over its limit of 1,000"}
    assert it.refusals.judge(A, "small", 1000) == "free"
    assert it.aside == {}


def test_an_operator_reads_a_services_name_and_a_documents_topic() -> None:
    assert name_of(wire.config_topic("gate")) == "gate"
    assert name_of(wire.SNAPSHOT_TOPIC) == wire.SNAPSHOT_TOPIC
    assert name_of(wire.sealed_topic("gate", "hall")) == wire.sealed_topic("gate", "hall")
