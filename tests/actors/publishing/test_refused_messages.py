"""A broker that does not take one message: that one is set aside and named, all others go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from config_manager.actors.mqtt.port import BrokerUnavailable, Message
from config_manager.actors.publishing.refusals import packet_bytes
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.storage.decisions.intents import Put
from config_manager.storage.state import Committed
from tests.kit.desk import Desk, MemoryBroker, update
from tests.kit.stores import after

LIMIT = 20_000
Manner = Literal["announces", "hangs up", "answers", "throws away"]
ROOT = wire.root_topic(1)
SEALED = wire.sealed_topic("gate", "hall")


class FussyBroker(MemoryBroker):
    """Takes no packet over `limit`, in its manner. `refuses`: topic → code of the PUBACK."""

    def __init__(self, manner: Manner = "hangs up", limit: int | None = LIMIT) -> None:
        super().__init__()
        self.manner, self.limit = manner, limit
        self.refuses: dict[str, int] = {}
        self.sent: list[tuple[str, int]] = []
        self.keepalives = 0
        self.goodbye: int | None = None
        self._hung_up = False

    @asynccontextmanager
    async def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AsyncIterator[MemoryBroker]:
        self._hung_up = False
        self.maximum_packet_bytes = self.limit if self.manner == "announces" else None
        async with super().connect(address, client_id=client_id, will=will):
            yield self

    def hang_up(self, code: int | None = None) -> None:
        self._hung_up, self.goodbye = True, code
        self.hangs_up()

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        self.keepalives += topic == wire.KEEPALIVE_TOPIC
        await super().publish(topic, payload, qos=qos, retain=retain)

    def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        if self._hung_up:
            raise BrokerUnavailable("not connected")
        size = packet_bytes(topic, payload)
        self.sent.append((topic, size))
        is_large = self.limit is not None and size > self.limit
        code = 149 if is_large and self.manner == "answers" else self.refuses.get(topic, 0)
        if is_large and self.manner in ("announces", "hangs up"):
            self.hang_up()
            return
        if not code and not is_large:
            self.takes(topic, payload)

        def answer() -> None:
            if not self._hung_up:  # what it hung up after is not acknowledged any more
                answered(code)

        trio.lowlevel.current_trio_token().run_sync_soon(answer)

    async def messages(self) -> AsyncGenerator[Message]:
        async for message in super().messages():
            yield message
        raise BrokerUnavailable("the connection was closed", self.goodbye)


def services(**sizes: int) -> Committed:
    return after(*(Put(service=name, values={"note": "x" * n}) for name, n in sizes.items()))


SMALL = {f"svc{number}": 10 for number in range(21)}


async def beat(desk: Desk) -> None:
    """What beaconing does: a snapshot that is another each time, and a keepalive."""
    number = 0
    while True:
        number += 1
        desk.outlet.send(wire.KEEPALIVE_TOPIC, b"alive %d" % number)
        await trio.sleep(10)


@pytest.mark.parametrize("manner", ["announces", "hangs up", "answers", "throws away"])
async def test_of_22_services_the_one_that_is_too_large_is_named_and_the_others_are_held(
    autojump_clock: MockClock, manner: Manner
) -> None:
    broker = FussyBroker(manner)
    desk = Desk(services(aaa=30_000, **SMALL), broker)
    async with desk.actor.running(), trio.open_nursery() as nursery:
        nursery.start_soon(beat, desk)
        await trio.sleep(30)
        assert {wire.config_topic(name) for name in SMALL} <= broker.retained.keys()
        await trio.sleep(170)
        assert desk.broker_view.state == "connected"
        assert desk.broker_view.set_aside.keys() == {"aaa"}
        assert desk.confirmations.depth(desk.view.committed) == 1
        assert broker.keepalives > 15
        nursery.cancel_scope.cancel()
    envelope = update(desk.view.committed.services["aaa"]).to_bytes()
    size = f"{packet_bytes(wire.config_topic('aaa'), envelope):,}"
    assert (
        desk.broker_view.set_aside["aaa"]
        == {
            "announces": f"a message of {size} bytes is over its limit of 20,000",
            "hangs up": f"it hung up 3 times at a message of {size} bytes",
            "answers": f"it answered 149 (packet too large) to a message of {size} bytes",
            "throws away": "acknowledged 5 times, never given back: an ACL or a size limit of the broker?",
        }[manner]
    )
    assert broker.attempts == (4 if manner == "hangs up" else 1)


@pytest.mark.parametrize("manner", ["announces", "hangs up", "answers"])
async def test_a_smaller_one_heals_at_once(autojump_clock: MockClock, manner: Manner) -> None:
    broker = FussyBroker(manner)
    desk = Desk(services(aaa=30_000, bbb=1), broker)
    async with desk.actor.running():
        await trio.sleep(30)
        assert "aaa" in desk.broker_view.set_aside
        desk.view.replace(services(aaa=10, bbb=1))
        with trio.fail_after(1):
            await desk.confirmations.wait("aaa", 1)
        assert desk.broker_view.set_aside == {}


async def test_what_broke_the_connection_is_tried_again_every_ten_minutes(
    autojump_clock: MockClock,
) -> None:
    broker = FussyBroker("hangs up")
    desk = Desk(services(aaa=30_000, bbb=1), broker)
    async with desk.actor.running():
        await trio.sleep(500)
        assert broker.attempts == 4
        desk.view.replace(services(aaa=30_100, bbb=1))  # larger still: there is no hope
        await trio.sleep(80)
        assert broker.attempts == 4
        await trio.sleep(60)
        assert broker.attempts == 5
        assert desk.broker_view.set_aside["aaa"].startswith("it hung up 4 times at a message of ")
        broker.limit = None
        await trio.sleep(620)
        assert desk.confirmations.confirmed("aaa", 1)
        assert desk.broker_view.set_aside == {}
        assert broker.attempts == 5


async def test_a_snapshot_that_is_too_large_stops_nothing_though_it_changes_all_the_time(
    autojump_clock: MockClock,
) -> None:
    broker = FussyBroker("hangs up")
    desk = Desk(services(**SMALL), broker)
    desk.outlet.set_retained(ROOT, b"root")
    async with desk.actor.running(), trio.open_nursery() as nursery:
        nursery.start_soon(beat, desk)
        for number in range(50):
            desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, b"%030000d" % number)
            await trio.sleep(10)
        assert broker.attempts == 4
        assert broker.keepalives > 40
        assert {ROOT, *map(wire.config_topic, SMALL)} <= broker.retained.keys()
        [(name, why)] = desk.broker_view.set_aside.items()
        assert (name, why[:24]) == (wire.SNAPSHOT_TOPIC, "it hung up 3 times at a ")
        desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, b"few services again")
        with trio.fail_after(1):
            await desk.outlet.until_held(wire.SNAPSHOT_TOPIC)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("topic", [ROOT, SEALED, wire.SNAPSHOT_TOPIC, wire.HEALTH_TOPIC])
@pytest.mark.parametrize("manner", ["announces", "hangs up", "answers", "throws away"])
async def test_whatever_the_document_is_it_is_named_by_its_topic_and_leaving_does_not_wait_for_it(
    autojump_clock: MockClock, topic: str, manner: Manner
) -> None:
    broker = FussyBroker(manner)
    desk = Desk(services(gate=10), broker)
    desk.outlet.set_retained(topic, b"x" * 30_000)
    desk.outlet.set_retained(wire.root_topic(2), b"small")
    async with desk.actor.running():
        await trio.sleep(200)
        assert desk.broker_view.set_aside.keys() == {topic}
        assert desk.broker_view.state == "connected"
        assert broker.retained.keys() == {wire.root_topic(2), wire.config_topic("gate")}
        with trio.fail_after(1):
            await desk.outlet.flush()


async def test_a_limit_that_is_announced_is_never_passed_and_another_one_is_heeded_at_once(
    autojump_clock: MockClock,
) -> None:
    broker = FussyBroker("announces")
    desk = Desk(services(aaa=30_000, bbb=1), broker)
    desk.outlet.set_retained(ROOT, b"x" * 30_000)
    async with desk.actor.running():
        await trio.sleep(300)
        assert max(size for _, size in broker.sent) <= LIMIT
        broker.limit = 50_000
        broker.hang_up(139)  # server shutting down
        await trio.sleep(10)
        assert desk.confirmations.confirmed("aaa", 1)
        assert desk.broker_view.set_aside == {}
        assert ROOT in broker.retained


async def test_a_broker_that_was_away_may_have_another_limit_though_it_does_not_say_so(
    autojump_clock: MockClock,
) -> None:
    broker = FussyBroker("hangs up")
    desk = Desk(services(aaa=30_000), broker)
    async with desk.actor.running():
        await trio.sleep(60)
        assert "aaa" in desk.broker_view.set_aside
        broker.limit, broker.away = None, True
        broker.hang_up()
        await trio.sleep(20)
        broker.away = False
        await trio.sleep(10)
        assert desk.confirmations.confirmed("aaa", 1)


@pytest.mark.parametrize("code", [128, 135, 149, 151, 199])
async def test_a_refusing_code_is_named_at_once_and_what_was_mended_is_noticed_in_a_minute(
    autojump_clock: MockClock, code: int
) -> None:
    broker = FussyBroker(limit=None)
    topic = wire.config_topic("aaa")
    broker.refuses = {topic: code, ROOT: code}
    desk = Desk(services(aaa=10, bbb=10), broker)
    desk.outlet.set_retained(ROOT, b"root")
    async with desk.actor.running():
        await trio.sleep(2)
        assert desk.broker_view.set_aside.keys() == {"aaa", ROOT}
        assert f"it answered {code}" in desk.broker_view.set_aside["aaa"]
        assert desk.confirmations.confirmed("bbb", 1)
        await trio.sleep(200)
        assert len([name for name, _ in broker.sent if name == topic]) <= 5
        broker.refuses = {}
        await trio.sleep(65)
        assert desk.broker_view.set_aside == {}
        assert desk.confirmations.confirmed("aaa", 1)
    assert broker.attempts == 1


async def test_nothing_is_set_aside_because_a_network_breaks_again_and_again(
    autojump_clock: MockClock,
) -> None:
    broker = FussyBroker(limit=None)
    desk = Desk(services(**SMALL), broker)
    desk.outlet.set_retained(ROOT, b"root")
    async with desk.actor.running():
        for number in range(20):
            await trio.sleep(7)
            sizes = dict.fromkeys(SMALL, 10 + number)
            desk.view.replace(services(**sizes))  # sixteen of them on their way
            desk.outlet.set_retained(ROOT, b"root %d" % number)
            await trio.sleep(0)
            broker.hang_up()
        await trio.sleep(30)
        assert desk.broker_view.set_aside == {}
        assert desk.confirmations.depth(desk.view.committed) == 0


class SlowBroker(FussyBroker):
    """Takes its time over each message, and as many at once as it announced."""

    def __init__(self, most: int) -> None:
        super().__init__("hangs up")
        self.receive_maximum = most
        self.came: list[tuple[int, str]] = []  # in which connection, and what

    def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        self.came.append((self.attempts, topic))
        trio.lowlevel.spawn_system_task(self._later, self.attempts, topic, payload, answered)

    async def _later(
        self, attempt: int, topic: str, payload: bytes, answered: Callable[[int], None]
    ) -> None:
        await trio.sleep(0.1)
        if attempt == self.attempts and not self._hung_up:
            super().hand_over(topic, payload, answered)


@pytest.mark.parametrize("most", [1, 20])
async def test_what_is_suspected_has_its_turn_by_itself_though_there_is_always_something_else(
    autojump_clock: MockClock, most: int
) -> None:
    broker = SlowBroker(most)
    first = services(aaa=30_000, **SMALL)
    desk = Desk(first, broker)
    async with desk.actor.running():
        # more than it takes meanwhile, for 120 s: the fifteen that were on their way beside it at the first break
        # may have their turns before it, one each 5 s
        for number in range(600):
            newer = services(**dict.fromkeys(SMALL, number), aaa=30_000)
            unchanged = {"aaa": first.services["aaa"]}
            desk.view.replace(replace(newer, services={**newer.services, **unchanged}))
            desk.outlet.set_retained(ROOT, b"root %d" % number)
            await trio.sleep(0.2)
        assert desk.broker_view.set_aside.keys() == {"aaa"}
    for attempt in range(2, broker.attempts + 1):
        topics = [topic for number, topic in broker.came if number == attempt]
        assert wire.config_topic("aaa") not in topics[:-1], "nothing was on its way beside it"


@pytest.mark.parametrize("code", [0, 139, 142, 152])
async def test_who_says_why_he_hangs_up_is_believed(autojump_clock: MockClock, code: int) -> None:
    broker = FussyBroker(limit=None)
    desk = Desk(services(aaa=10), broker)
    async with desk.actor.running():
        for number in range(10):
            await trio.sleep(100)
            desk.view.replace(services(aaa=10 + number))
            await trio.sleep(0)
            broker.hang_up(code)
        assert desk.broker_view.set_aside == {}


async def test_who_is_pushed_off_by_another_with_its_client_id_does_not_push_back_at_once(
    autojump_clock: MockClock,
) -> None:
    broker = FussyBroker(limit=None)
    desk = Desk(services(aaa=10), broker)

    async def the_other() -> None:
        while True:
            await trio.sleep(0.1)
            if desk.broker_view.state == "connected":
                broker.hang_up(142)
                await trio.sleep(0.1)

    async with desk.actor.running(), trio.open_nursery() as nursery:
        nursery.start_soon(the_other)
        await trio.sleep(600)
        assert broker.attempts < 30
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_is_on_its_way_than_the_broker_announced(
    autojump_clock: MockClock, most: int
) -> None:
    class Slow(MemoryBroker):
        receive_maximum = most
        on_the_way = 0
        at_once = 0

        def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
            self.on_the_way += 1
            self.at_once = max(self.at_once, self.on_the_way)
            trio.lowlevel.spawn_system_task(self._answer, topic, payload, answered)

        async def _answer(
            self, topic: str, payload: bytes, answered: Callable[[int], None]
        ) -> None:
            await trio.sleep(0.1)
            self.on_the_way -= 1
            self.takes(topic, payload)
            answered(0)

    broker = Slow()
    desk = Desk(services(**SMALL), broker)
    for number in range(1, 10):
        desk.outlet.set_retained(wire.root_topic(number), b"root")
    async with desk.actor.running():
        await trio.sleep(10)
        assert broker.at_once == most
        assert len(broker.retained) == 9 + len(SMALL)
