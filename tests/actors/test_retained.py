"""What brokers retain of ours, looked at while no server runs, on brokers in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from nacl.signing import SigningKey
from trio.testing import MockClock

from config_manager.actors.mqtt.port import Message
from config_manager.actors.retained import Retained, look
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.documents.receipt import Running
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.world import World
from config_manager.storage.decisions.intents import Put
from tests.kit.desk import MemoryBroker, snapshot, update
from tests.kit.documents import RECEIPT, ROOT_KEY, SECOND_CONFIG, make_root, sign
from tests.kit.stores import after

ADDRESS = BrokerAddress("broker.test", 1883)
COMMITTED = after(Put(service="gate", values={"a": 1}), Put(service="gate", values={"a": 2}))
ADA = SigningKey(b"a" * 32)


def receipt(revision: int, key: SigningKey = ADA, epoch_seq: int = 1) -> bytes:
    made = replace(RECEIPT, running=Running(epoch_seq, revision, "0" * 64))
    return sign(wire.RECEIPT, made.to_bytes(), key).to_bytes()


TOPIC = wire.status_topic(RECEIPT.service, RECEIPT.instance)


async def seen(
    broker: MemoryBroker, *, is_enrolled: bool = True, root: Root | None = None
) -> Retained:
    key = bytes(ADA.verify_key) if is_enrolled else None
    found, unreachable = await look(
        [ADDRESS], broker, root=root or make_root(), sign_key=lambda *_: key, world=World()
    )
    assert unreachable == ({str(ADDRESS): "connection refused"} if broker.away else {})
    return found


def holding(**messages: bytes) -> MemoryBroker:
    broker = MemoryBroker()
    broker.retained |= messages
    return broker


async def test_a_snapshot_its_beacon_configurations_and_receipts_are_witnesses(
    autojump_clock: MockClock,
) -> None:
    broker = holding()
    state = COMMITTED.services["gate"]
    broker.retained[wire.config_topic("gate")] = update(state).to_bytes()
    assert (await seen(broker)).highest(Mark(1, 0)) == (Mark(1, 2), 2)
    broker.retained[TOPIC] = receipt(30)
    assert (await seen(broker)).highest(Mark(1, 0)) == (Mark(1, 30), 30)
    broker.retained[wire.SNAPSHOT_TOPIC] = snapshot(COMMITTED, boot_seq=9, epoch_seq=4, revision=12)
    found = await seen(broker)
    assert (found.highest(Mark(1, 0)), found.boot_seq) == ((Mark(4, 12), 30), 9)
    assert found.highest(Mark(4, 80)) == (Mark(4, 80), 80)


async def test_what_is_not_ours_is_none_and_a_broker_that_is_away_is_said(
    autojump_clock: MockClock,
) -> None:
    state = COMMITTED.services["gate"]
    forged = sign(wire.CONFIG_UPDATE, state.payload, SECOND_CONFIG)
    broker = holding()
    broker.retained = {
        wire.config_topic("gate"): forged.to_bytes(),
        wire.SNAPSHOT_TOPIC: json.dumps({"beacon": 1}).encode(),
        wire.root_topic(2): b"{}",
        wire.ROOTS_PREFIX + "x": b"{}",
        TOPIC: b"rubbish",
    }
    found = await seen(broker)
    assert (found.highest(Mark(1, 1)), found.boot_seq, found.roots) == ((Mark(1, 1), 1), 0, {})
    broker.away = True
    assert (await seen(broker)).highest(Mark(1, 1)) == (Mark(1, 1), 1)


@pytest.mark.parametrize("is_enrolled", [True, False])
@pytest.mark.parametrize(
    ("mark", "counts"),
    [(Mark(1, 2**53 - 2), False), (Mark(2**53 - 2, 3), False), (Mark(2, 9), True)],
)
async def test_a_claim_counts_as_far_as_it_leaves_numbers_to_go_on_with(
    autojump_clock: MockClock, mark: Mark, counts: bool, is_enrolled: bool
) -> None:
    broker = holding()
    broker.retained[TOPIC] = receipt(mark.revision, epoch_seq=mark.epoch_seq)
    found = await seen(broker, is_enrolled=is_enrolled)
    assert found.highest(Mark(1, 4)) == ((mark, mark.revision) if counts else (Mark(1, 4), 4))


async def test_the_chain_of_roots_is_walked_first_whatever_comes_first(
    autojump_clock: MockClock,
) -> None:
    """The newest key signs what is retained; no root here lists it."""
    second, third = (make_root(n, config=(SECOND_CONFIG,)) for n in (2, 3))
    broker = holding()
    broker.retained[wire.config_topic("gate")] = sign(
        wire.CONFIG_UPDATE, COMMITTED.services["gate"].payload, SECOND_CONFIG
    ).to_bytes()
    for root in (third, second):
        topic = wire.root_topic(root.version)
        broker.retained[topic] = sign(wire.ROOT, root.to_bytes(), ROOT_KEY).to_bytes()
    found = await seen(broker)
    assert (found.root.version, sorted(found.roots)) == (3, [2, 3])
    assert found.highest(Mark(1, 0)) == (Mark(1, 2), 2)
    del broker.retained[wire.root_topic(2)]
    found = await seen(broker)
    assert (found.root.version, found.mark) == (1, Mark(0, 0)), "3 does not follow from 1"


async def test_a_broker_that_gives_wildcards_nothing_retained_shows_its_roots_and_its_snapshot(
    autojump_clock: MockClock,
) -> None:
    """The newest root lists the beacon's key; no root here does."""
    broker = holding()
    broker.gives_to_wildcards = False
    broker.retained[wire.SNAPSHOT_TOPIC] = snapshot(COMMITTED, boot_seq=9, epoch_seq=4, revision=12)
    for version in range(2, 7):
        root = make_root(version)
        broker.retained[wire.root_topic(version)] = sign(
            wire.ROOT, root.to_bytes(), ROOT_KEY
        ).to_bytes()
    found = await seen(broker, root=make_root(beacon=(SECOND_CONFIG,)))
    assert (found.root.version, sorted(found.roots)) == (6, [2, 3, 4, 5, 6])
    assert found.highest(Mark(1, 0)) == (Mark(4, 12), 12)


class Endless(MemoryBroker):
    """Sends without end."""

    sent = 0
    has_unread = True

    @asynccontextmanager
    async def connect(self, *args: object, **options: object) -> AsyncIterator[MemoryBroker]:
        yield self

    async def subscribe(self, *filters: str, qos: int = 1) -> Sequence[int]:
        return [qos] * len(filters)

    async def messages(self) -> AsyncGenerator[Message]:
        while True:
            await trio.sleep(0.1)
            self.sent += 1
            yield Message(wire.root_topic(self.sent + 1), b"x" * 1000, retained=True)


async def test_a_broker_that_never_stops_is_left_and_said(autojump_clock: MockClock) -> None:
    found, unread = await look(
        [ADDRESS], Endless(), root=make_root(), sign_key=lambda *_: None, world=World()
    )
    assert (found.root.version, unread) == (
        1,
        {str(ADDRESS): "it was not read to its end within 20 s"},
    )
