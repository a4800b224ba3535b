"""A publisher at its desk: a broker in memory before it, and everybody it talks to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio

from config_manager.actors.actor import Actor, follower
from config_manager.actors.messages import Witnessed
from config_manager.actors.mqtt.port import Announced, BrokerUnavailable, Message
from config_manager.actors.publishing import desk
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.publishing.publisher import Publisher
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.views import BrokerView, CommittedView, Confirmations
from config_manager.config import strict_json, wire
from config_manager.config.audit import GENESIS
from config_manager.config.brokers import BrokerAddress
from config_manager.config.documents.root import Root
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from config_manager.storage.decisions.forgotten import forgotten
from config_manager.storage.state import Committed, ServiceState
from tests.kit import memory_broker
from tests.kit.documents import (
    BEACON,
    BEACON_KEY,
    CONFIG_KEY,
    make_root,
    sign,
)
from tests.kit.memory_broker import Session


class Believing:
    """These versions of the root, the last one counts."""

    changing = False

    def __init__(self, *versions: Root) -> None:
        self.versions = versions or (make_root(),)
        self.current = self.versions[-1]

    def version(self, number: int) -> Root | None:
        return next((one for one in self.versions if one.version == number), None)

    def key_for(self, role: str) -> str:
        return self.current.roles[role].keyids[0]


class MemoryBroker(memory_broker.MemoryBroker):
    """A Trio transport to the broker in memory: one connection at a time."""

    announced = Announced("5")
    maximum_packet_bytes: int | None = None
    receive_maximum = 20

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0
        self._session: Session
        self._messages: trio.MemoryReceiveChannel[Message]

    @property
    def has_unread(self) -> bool:
        return bool(self._messages.statistics().current_buffer_used)

    @asynccontextmanager
    async def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AsyncIterator[MemoryBroker]:
        self.attempts += 1
        assert will is None or will.retained, "who comes later has to learn it too"
        await trio.lowlevel.checkpoint()
        if self.away:
            raise BrokerUnavailable("connection refused")
        send, self._messages = trio.open_memory_channel[Message](1000)

        def put(item: tuple[str, bytes, bool] | None) -> None:
            if item is None:
                send.close()
            else:
                send.send_nowait(Message(item[0], item[1], retained=item[2]))

        with Session(self, None, put, trio.Event()) as self._session:
            yield self

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        await trio.lowlevel.checkpoint()
        self.takes(topic, payload, retain=retain)

    def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        self.takes(topic, payload)
        trio.lowlevel.current_trio_token().run_sync_soon(answered, 0)

    async def subscribe(self, *filters: str, qos: int = 1) -> Sequence[int]:
        await trio.lowlevel.checkpoint()
        self._session.subscribe(filters)
        return [qos] * len(filters)

    async def messages(self) -> AsyncGenerator[Message]:
        async for message in self._messages:
            yield message

    def hangs_up(self) -> None:
        self._session.breaks()


def update(state: ServiceState) -> Envelope:
    return sign(wire.CONFIG_UPDATE, state.payload, CONFIG_KEY)


def snapshot(committed: Committed, **beacon: Any) -> bytes:
    """Of this state, beside the beacon that names it, with these fields changed."""
    services = {name: (s.revision, s.digest) for name, s in committed.services.items()}
    epoch = committed.epoch
    document = Snapshot(epoch.id, epoch.seq, committed.revision, services)
    signed = sign(wire.SNAPSHOT, document.to_bytes(), BEACON_KEY)
    beside = replace(BEACON, **{"audit_head": committed.audit_head, **beacon})
    envelope = sign(wire.BEACON, beside.to_bytes(), BEACON_KEY)
    return strict_json.dumps({**signed.to_object(), "beacon": envelope.to_object()})


class Desk:
    """A publisher of one state, and what it says to the others."""

    def __init__(
        self, committed: Committed, broker: MemoryBroker, *roots: Root, rows: Sequence[str] = ()
    ) -> None:
        """roots: the versions that are here. rows: what the audit holds beside its newest."""
        self.view = CommittedView(committed)
        self._rows = {*rows, committed.audit_head, GENESIS}
        self.broker_view = BrokerView("mqtt://broker.test:1883")
        self.confirmations = Confirmations([self.broker_view])
        self.outlet = Outlet(self.view)
        self.statuses = StatusBoard(forgotten=lambda *name: forgotten(self.view.committed, *name))
        self.witnessed: list[Witnessed] = []
        self.boot_seq = MAX_INTEGER
        self.before_signing: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        publisher = Publisher(
            BrokerAddress("broker.test", 1883),
            broker,
            desk.Desk(
                view=self.view,
                believed=Believing(*roots),
                outlet=self.outlet,
                broker_view=self.broker_view,
                confirmations=self.confirmations,
                sign=self._sign,
                judge=self._note,
                note_confirmed=self._forget,
                world=World(),
                boot_seq=lambda: self.boot_seq,
                statuses=self.statuses,
            ),
            will=lambda: Message(wire.HEALTH_TOPIC, b"{}", retained=True),
            client_id="config-manager-test",
        )
        self.actor = Actor("publishing", follower(publisher.run))

    async def _sign(self, state: ServiceState) -> Envelope:
        await self.before_signing()
        return update(state)

    async def _note(self, what: Witnessed) -> None:
        """As storing judges it."""
        await trio.sleep(0.3)  # longer than a broker's retained messages take
        self.witnessed.append(what)
        if what.boot_seq is not None:
            self.boot_seq = max(self.boot_seq, what.boot_seq + 1)
        self.view.publishable = not (
            what.beyond is not None
            or what.audit_head not in self._rows
            or (what.mark is not None and what.mark > self.view.committed.mark)
        )
        self.view.wake()

    async def _forget(self, revisions: tuple[tuple[str, int], ...]) -> None: ...
