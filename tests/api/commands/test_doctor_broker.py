"""What doctor finds out about a broker that can't do what configurations need, and what it says to do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from config_manager.actors.mqtt.port import Announced, BrokerUnavailable, Message
from config_manager.api.commands.doctor_broker import try_broker
from config_manager.api.commands.doctor_findings import Finding
from config_manager.config.brokers import BrokerAddress
from tests.kit.brokers import Mosquitto
from tests.kit.hostile_broker import hostile
from tests.kit.memory_broker import MemoryBroker, Session
from tests.kit.processes import MOSQUITTO, workshop


class Odd(MemoryBroker):
    """Many connections under Trio, to a broker that can't do something."""

    maximum_packet_bytes = None
    announced = Announced("5")
    grants = 1
    more_codes = 0
    keeps = True
    hears = True
    largest_given = 300_000

    @asynccontextmanager
    async def connect(self, address: BrokerAddress, **_: Any) -> AsyncIterator[Any]:
        send, receive = trio.open_memory_channel[Any](10_000)
        with Session(self, None, send.send_nowait, trio.Event()) as session:
            yield _Connection(self, session, receive)

    def takes(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        if self.hears:
            super().takes(topic, payload, retain=retain and self.keeps)


class _Connection:
    def __init__(
        self, broker: Odd, session: Session, received: trio.MemoryReceiveChannel[Any]
    ) -> None:
        self._broker, self._session, self._received = broker, session, received
        self.announced = broker.announced
        self.maximum_packet_bytes = None

    async def subscribe(self, *filters: str, qos: int = 1) -> Sequence[int]:
        await trio.lowlevel.checkpoint()
        given = (self._broker.retained.get(one, b"") for one in filters)
        if any(len(payload) > self._broker.largest_given for payload in given):
            raise BrokerUnavailable("the broker hung up")
        if self._broker.grants < 128:
            self._session.subscribe(filters)
        return [self._broker.grants] * (len(filters) + self._broker.more_codes)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._broker.takes(topic, payload, retain=retain)

    async def messages(self) -> AsyncIterator[Message]:
        async for topic, payload, retained in self._received:
            yield Message(topic, payload, retained=retained)


def told_apart(broker: Odd) -> list[Finding]:
    async def look() -> list[Finding]:
        return await try_broker(BrokerAddress("127.0.0.1", 1883), broker)

    found = trio.run(look, clock=trio.testing.MockClock(autojump_threshold=0))
    assert not any(topic.startswith("system/doctor/") for topic in broker.retained)
    return [one for one in found if one.level != "ok" and not one.check.startswith("anonymous")]


ODD: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "by name alone": (
        {"gives_to_wildcards": False},
        ("warning", "retained messages", "not to a filter with a +"),
    ),
    "keeps none": ({"keeps": False}, ("failed", "retained messages", "it keeps none")),
    "says that it keeps none": (
        {"announced": Announced("5", keeps_retained=False)},
        ("failed", "retained messages", "it keeps none"),
    ),
    "no wildcards": (
        {"announced": Announced("5", takes_wildcards=False)},
        ("failed", "subscriptions", "no filter with a +"),
    ),
    "says QoS 0": (
        {"announced": Announced("5", maximum_qos=0)},
        ("failed", "QoS 1", "QoS 0 alone"),
    ),
    "grants QoS 0": ({"grants": 0}, ("failed", "QoS 1", "QoS 0 alone")),
    "refuses": ({"grants": 135}, ("failed", "subscriptions", "with code 135")),
    "answers no filter": ({"more_codes": -1}, ("failed", "subscriptions", "with code 128")),
    "refuses, in two codes": (
        {"grants": 135, "more_codes": 1},
        ("failed", "subscriptions", "with code 135"),
    ),
    "throws away": ({"hears": False}, ("failed", "our topics", "does not come back")),
    "gives nothing large": (
        {"largest_given": 100_000},
        ("failed", "message size", "hangs up at a message of 262,144 bytes"),
    ),
    "3.1.1": ({"announced": Announced("3.1.1")}, ("note", "MQTT version", "3.1.1 alone")),
}


@pytest.mark.parametrize("what", ODD)
def test_the_brokers_own_trouble_is_named_once_with_what_to_do(what: str) -> None:
    oddities, (level, check, words) = ODD[what]
    broker = Odd()
    vars(broker).update(oddities)
    (one,) = told_apart(broker)
    assert (one.level, one.check) == (level, check)
    assert words in one.detail
    assert one.remedy or level == "note"


@pytest.mark.parametrize("pause_s", [0.0, 0.4])
def test_a_broker_that_never_stops_sending_is_left(pause_s: float) -> None:
    class Floods(Odd):
        @asynccontextmanager
        async def connect(self, address: BrokerAddress, **given: Any) -> AsyncIterator[Any]:
            async with super().connect(address, **given) as connection:
                connection.messages = self._flood
                yield connection

        async def _flood(self) -> AsyncGenerator[Message]:
            while True:
                await trio.sleep(pause_s)
                yield Message("t", b"noise", retained=False)

    (one,) = told_apart(Floods())
    assert (one.level, one.check) == ("failed", "broker")
    assert "never stops sending" in one.detail


def test_a_broker_that_is_too_slow_for_all_of_it_is_told_so() -> None:
    class Slow(Odd):
        @asynccontextmanager
        async def connect(self, address: BrokerAddress, **given: Any) -> AsyncIterator[Any]:
            await trio.sleep(50)
            async with super().connect(address, **given) as connection:
                yield connection

    (one,) = told_apart(Slow())
    assert (one.level, one.check) == ("failed", "broker")
    assert "over 120 s" in one.detail


def test_a_broker_that_can_do_all_of_it_is_told_so() -> None:
    assert told_apart(Odd()) == []


REAL = {
    "retain_available false": ("retained messages", "it keeps none"),
    "max_qos 0": ("QoS 1", "QoS 0 alone"),
    "clientid_prefixes other-": ("broker", "Not authorized"),
}


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("line", REAL)
def test_a_real_broker_says_so_itself(line: str) -> None:
    class Restricted(Mosquitto):
        lines = (line,)

    with workshop() as (processes, directory):
        broker = Restricted(processes, directory / "broker")
        broker.start()
        found = trio.run(try_broker, BrokerAddress("127.0.0.1", broker.port))
    check, words = REAL[line]
    (one,) = [one for one in found if one.level == "failed"]
    assert one.check == check
    assert words in one.detail
    assert one.remedy


def test_a_broker_that_takes_no_such_client_id_is_told_which_it_has_to_take() -> None:
    with hostile(b"\x20\x03\x00\x85\x00") as (address, _):
        (one,) = trio.run(try_broker, address)
    assert (one.level, one.check) == ("failed", "broker")
    assert "beginning with config-manager-" in one.remedy
