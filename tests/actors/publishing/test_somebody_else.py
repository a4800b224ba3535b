"""Somebody else writes on our topics: it is said, it is slowed down, and it ends when it ends."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from config_manager.actors.health import HealthFrames, broker_reasons
from config_manager.actors.mqtt.port import BrokerUnavailable, Message
from config_manager.config import wire
from config_manager.config.world import World
from config_manager.storage.decisions.intents import Put
from tests.kit.desk import Desk, MemoryBroker, snapshot
from tests.kit.documents import STRANGER, sign
from tests.kit.stores import after, empty

STATE = after(Put(service="gate", values={"a": 1}))
CONFIG = wire.config_topic("gate")
SEALED = wire.sealed_topic("gate", "hall")
FRAMES = HealthFrames(World())
DOCUMENTS = {
    SEALED: b"sealed",
    wire.root_topic(1): b"root",
    wire.SNAPSHOT_TOPIC: snapshot(STATE),
    wire.HEALTH_TOPIC: FRAMES.status(ok=True, event="ready"),
}
THEIRS = sign(wire.CONFIG_UPDATE, b"{}", STRANGER).to_bytes()


class Rival:
    """Another server, with other keys: repairs at once whatever we wrote over its own."""

    def __init__(self, broker: MemoryBroker, *topics: str) -> None:
        self.broker, self.topics = broker, topics
        self.times = 0

    async def run(self) -> None:
        while True:
            await trio.sleep(0.2)
            for topic in self.topics:
                if self.broker.retained.get(topic) != THEIRS:
                    self.times += 1
                    await self.broker.publish(topic, THEIRS, retain=True)


def a_desk(broker: MemoryBroker) -> Desk:
    desk = Desk(STATE, broker)
    for topic, payload in DOCUMENTS.items():
        desk.outlet.set_retained(topic, payload)
    return desk


@pytest.mark.parametrize("topic", [CONFIG, *DOCUMENTS])
async def test_who_repairs_what_we_repair_is_named_and_answered_ever_less(
    autojump_clock: MockClock, topic: str
) -> None:
    broker = MemoryBroker()
    desk = a_desk(broker)
    rival = Rival(broker, topic)
    async with desk.actor.running():
        await trio.sleep(5)
        ours = broker.retained[topic]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rival.run)
            await trio.sleep(60)
            assert rival.times < 20
            assert desk.broker_view.contested.keys() == {topic}
            [reason] = broker_reasons(desk.broker_view)
            url = "broker mqtt://broker.test:1883"
            assert reason.startswith(f"{url}: somebody else writes {topic} (1")
            before = rival.times
            await trio.sleep(1200)
            assert 17 <= rival.times - before <= 23, "once a minute, and never given up"
            nursery.cancel_scope.cancel()
        await trio.sleep(60)
        assert broker.retained[topic] == ours
        await trio.sleep(185)
        assert broker_reasons(desk.broker_view) == []


async def test_what_is_written_over_is_not_confirmed_until_it_stays(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    desk = a_desk(broker)
    rival = Rival(broker, CONFIG)
    async with desk.actor.running():
        await trio.sleep(5)
        assert desk.confirmations.confirmed("gate", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rival.run)
            await trio.sleep(60)
            for _ in range(600):
                assert not desk.confirmations.confirmed("gate", 1)
                assert desk.confirmations.depth(STATE) == 1
                await trio.sleep(0.5)
            newer = after(Put(service="gate", values={"a": 1}), Put(service="gate", values={}))
            desk.view.replace(newer)  # a change goes out at once all the same
            await trio.sleep(1)
            with trio.move_on_after(30):
                assert not await desk.confirmations.wait("gate", 2)
            nursery.cancel_scope.cancel()
        with trio.fail_after(250):
            assert await desk.confirmations.wait("gate", 2)
        assert desk.confirmations.depth(newer) == 0


async def test_one_who_writes_over_it_once_costs_a_second(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    desk = a_desk(broker)
    async with desk.actor.running():
        await trio.sleep(5)
        ours = dict(broker.retained)
        for topic in ours:
            await broker.publish(topic, THEIRS, retain=True)
        await trio.sleep(0.01)
        assert desk.confirmations.depth(STATE) in (0, 1)
        await trio.sleep(2)
        assert broker.retained == ours
        assert desk.confirmations.confirmed("gate", 1)
        assert broker_reasons(desk.broker_view) == []


async def test_our_own_that_comes_back_late_is_nobody_elses(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    desk = a_desk(broker)
    async with desk.actor.running():
        for number in range(300):
            state = after(Put(service="gate", values={"a": number}))
            desk.view.replace(state)
            desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, snapshot(state))
            await trio.sleep(0.05)
        assert desk.broker_view.contested == {}


async def test_wills_of_our_own_earlier_connections_are_nobody_elses(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    desk = a_desk(broker)
    async with desk.actor.running():
        await trio.sleep(1)
        for _ in range(20):
            await broker.publish(wire.HEALTH_TOPIC, b"{}", retain=True)  # as Desk's will says
            await trio.sleep(1.5)
        assert broker.retained[wire.HEALTH_TOPIC] == DOCUMENTS[wire.HEALTH_TOPIC]
        assert desk.broker_view.contested == {}


# ── the health is left to who publishes ────────────────────────────────────────────────────────

PRODUCTION = FRAMES.status(ok=True, event="ready")
OURS = FRAMES.status(ok=False, event="degraded", reasons=["rollback-suspected"])


def a_copy(broker: MemoryBroker) -> Desk:
    """Of a data directory that is too old: it suspects a rollback."""
    desk = Desk(empty(), broker)
    desk.view.publishable = False
    desk.outlet.set_retained(wire.HEALTH_TOPIC, OURS)
    return desk


async def alive(broker: MemoryBroker) -> None:
    """Production's keepalives."""
    while True:
        if broker.attempts:
            await broker.publish(wire.KEEPALIVE_TOPIC, FRAMES.keepalive(None, ok=True))
        await trio.sleep(10)


async def test_a_copy_that_publishes_nothing_leaves_the_health_to_who_is_alive(
    autojump_clock: MockClock,
) -> None:
    passed: list[bytes] = []

    class Noting(MemoryBroker):
        async def publish(
            self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
        ) -> None:
            passed.append(payload)
            await super().publish(topic, payload, qos=qos, retain=retain)

    broker = Noting()
    broker.retained[wire.HEALTH_TOPIC] = PRODUCTION
    desk = a_copy(broker)
    async with trio.open_nursery() as nursery:
        async with desk.actor.running():
            nursery.start_soon(alive, broker)
            for _ in range(360):
                await trio.sleep(2)
                desk.outlet.send(wire.KEEPALIVE_TOPIC, FRAMES.keepalive(None, ok=False))
                assert broker.retained[wire.HEALTH_TOPIC] == PRODUCTION
            [reason] = broker_reasons(desk.broker_view)
            assert "another config-manager is alive there" in reason
            assert not any(b'"ok":false' in payload for payload in passed), "no keepalives either"
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(400)  # it has died, its broker with it: nobody else says how it is
                assert broker.retained[wire.HEALTH_TOPIC] == OURS
                assert broker_reasons(desk.broker_view) == []


@pytest.mark.parametrize("last", ["shutdown", "offline", None])
async def test_who_suspects_a_rollback_and_is_alone_says_so_at_once(
    autojump_clock: MockClock, last: str | None
) -> None:
    broker = MemoryBroker()
    broker.retained[wire.HEALTH_TOPIC] = (
        FRAMES.status(ok=False, event=last) if last else b"no health"
    )
    async with a_copy(broker).actor.running():
        await trio.sleep(2)
        assert broker.retained[wire.HEALTH_TOPIC] == OURS


async def test_its_own_keepalives_are_no_company(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    desk = a_copy(broker)
    async with desk.actor.running():
        for _ in range(60):
            await trio.sleep(10)
            desk.outlet.send(wire.KEEPALIVE_TOPIC, FRAMES.keepalive(None, ok=False))
        assert not desk.outlet.company.is_there


async def test_a_copy_that_knows_of_the_other_leaves_no_will_either(
    autojump_clock: MockClock,
) -> None:
    wills: list[Message | None] = []

    class Noting(MemoryBroker):
        def connect(self, address, *, client_id, will=None):  # type: ignore[no-untyped-def]
            wills.append(will)
            return super().connect(address, client_id=client_id, will=will)

        async def messages(self):  # type: ignore[no-untyped-def]
            with trio.move_on_after(60):
                async for message in super().messages():
                    yield message
            raise BrokerUnavailable("gone")

    broker = Noting()
    broker.retained[wire.HEALTH_TOPIC] = PRODUCTION
    async with trio.open_nursery() as nursery, a_copy(broker).actor.running():
        nursery.start_soon(alive, broker)
        await trio.sleep(150)
        nursery.cancel_scope.cancel()
    assert [will is None for will in wills] == [False, True, True]
