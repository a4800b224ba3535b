"""Publishing to a broker in memory: what it holds, for how long it may be away, what it gives away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from config_manager.actors.actor import Actor
from config_manager.actors.mqtt import BrokerUnavailable, Message
from config_manager.actors.publishing import Outlet, Publisher, publishing
from config_manager.actors.views import BrokerView, CommittedView, Confirmations
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.documents import Snapshot
from config_manager.config.names import Mark
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from config_manager.storage.state import Committed, ServiceState
from config_manager.storage.writes import Put
from tests.config.makers import BEACON_KEY, CONFIG_KEY, make_root, sign
from tests.storage.makers import after, empty


class Believing:
    """One root, never changed."""

    current = make_root()
    changing = False

    def key_for(self, role: str) -> str:
        return self.current.roles[role].keyids[0]


class MemoryBroker:
    """Retains, gives back to who subscribed, and can be away. `cleared`: topics that were emptied."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.cleared: list[str] = []
        self.away = False
        self.attempts = 0
        self._arrived: trio.MemorySendChannel[Message] | None = None
        self._messages: trio.MemoryReceiveChannel[Message]

    @asynccontextmanager
    async def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AsyncIterator[MemoryBroker]:
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        if self.away:
            raise BrokerUnavailable("connection refused")
        self._arrived, self._messages = trio.open_memory_channel[Message](1000)
        yield self

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._take(topic, payload, retain=retain)

    def hand_over(self, topic: str, payload: bytes, acknowledged: Callable[[], None]) -> None:
        self._take(topic, payload, retain=True)
        trio.lowlevel.current_trio_token().run_sync_soon(acknowledged)

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """In the order of the filters, as Mosquitto does it."""
        await trio.lowlevel.checkpoint()
        for prefix in (name.partition("+")[0] for name in filters):
            for topic, payload in list(self.retained.items()):
                if topic.startswith(prefix):
                    self._tell(Message(topic, payload, retained=True))

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._messages:
            yield message

    def _take(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.cleared.append(topic)
            self.retained.pop(topic, None)
        self._tell(Message(topic, payload))

    def _tell(self, message: Message) -> None:
        assert self._arrived is not None
        self._arrived.send_nowait(message)


def update(state: ServiceState) -> Envelope:
    return sign(wire.CONFIG_UPDATE, state.payload, CONFIG_KEY)


def snapshot(committed: Committed) -> bytes:
    services = {name: (s.revision, s.digest) for name, s in committed.services.items()}
    epoch = committed.epoch
    document = Snapshot(epoch.id, epoch.seq, committed.revision, services)
    return sign(wire.SNAPSHOT, document.to_bytes(), BEACON_KEY).to_bytes()


class Desk:
    """A publisher of one state, and what it says to the others."""

    def __init__(self, committed: Committed, broker: MemoryBroker) -> None:
        self.view = CommittedView(committed)
        self.broker_view = BrokerView("mqtt://broker.test:1883")
        self.confirmations = Confirmations([self.broker_view])
        self.outlet = Outlet()
        self.witnessed: list[Mark] = []
        self.before_signing: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        publisher = Publisher(
            BrokerAddress("broker.test", 1883),
            broker,
            view=self.view,
            confirmations=self.confirmations,
            broker_view=self.broker_view,
            sign=self._sign,
            witnessed=self._note,
            note_confirmed=self._forget,
            outlet=self.outlet,
            will=lambda: Message(wire.HEALTH_TOPIC, b"{}", retained=True),
            believed=Believing(),
            client_id="config-manager-test",
            world=World(),
        )
        self.actor = Actor("publishing", publishing("publishing", publisher))

    async def _sign(self, state: ServiceState) -> Envelope:
        await self.before_signing()
        return update(state)

    async def _note(self, mark: Mark) -> None:
        self.witnessed.append(mark)

    async def _forget(self, revisions: tuple[tuple[str, int], ...]) -> None: ...


async def test_a_broker_that_is_away_for_a_day_costs_nothing_but_the_attempts(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    broker.away = True
    desk = Desk(after(Put(service="gate", values={"a": 1})), broker)
    async with desk.actor.running():
        await trio.sleep(24 * 3600)
        assert broker.attempts > 1000
        assert desk.actor.state == "running"
        broker.away = False
        with trio.fail_after(10):
            await desk.confirmations.wait("gate", 1)
    assert wire.config_topic("gate") in broker.retained


async def test_what_was_rolled_back_clears_nothing_that_the_newer_state_published(
    autojump_clock: MockClock,
) -> None:
    newer = after(Put(service="gate", values={"a": 1}), Put(service="late", values={"b": 2}))
    broker = MemoryBroker()
    broker.retained = {
        wire.config_topic(name): update(state).to_bytes() for name, state in newer.services.items()
    } | {wire.SNAPSHOT_TOPIC: snapshot(newer)}
    before = dict(broker.retained)
    desk = Desk(after(Put(service="gate", values={"a": 1})), broker)
    async with desk.actor.running():
        await trio.sleep(200)
        assert desk.witnessed[0] == newer.mark
        assert not desk.view.publishable
    assert (broker.retained, broker.cleared) == (before, [])


async def test_a_leftover_of_ours_that_nobody_knows_is_cleared(autojump_clock: MockClock) -> None:
    leftover = after(Put(service="late", values={"b": 2})).services["late"]
    broker = MemoryBroker()
    broker.retained[wire.config_topic("late")] = update(leftover).to_bytes()
    known = after(Put(service="gate", values={"a": 1}), Put(service="gate", values={"a": 2}))
    desk = Desk(known, broker)
    async with desk.actor.running():
        await trio.sleep(5)
    assert broker.cleared == [wire.config_topic("late")]
    assert set(broker.retained) == {wire.config_topic("gate")}


async def test_nothing_is_published_once_publishing_is_held_though_it_is_being_signed(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    desk = Desk(empty(), broker)

    async def meanwhile_a_witness_is_seen() -> None:
        desk.view.hold_publishing()
        await trio.lowlevel.checkpoint()

    desk.before_signing = meanwhile_a_witness_is_seen
    async with desk.actor.running():
        await trio.sleep(1)
        desk.view.replace(after(Put(service="gate", values={"a": 1})))
        await trio.sleep(100)
        assert broker.retained == {}
        desk.before_signing = trio.lowlevel.checkpoint
        desk.view.publishable = True
        desk.view.wake()
        with trio.fail_after(5):
            await desk.confirmations.wait("gate", 1)
