"""Publishing to a broker in memory: what it holds, for how long it may be away, what it gives away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from config_manager.actors.mqtt.port import BrokerUnavailable, Message
from config_manager.config import strict_json, wire
from config_manager.config.audit import GENESIS
from config_manager.storage.decisions.forgotten import FORGOTTEN, Forgotten, rows_after
from config_manager.storage.decisions.intents import Put
from config_manager.storage.state import Committed, RegistryRow, with_rows
from tests.kit.desk import Desk, MemoryBroker, snapshot, update
from tests.kit.documents import (
    BEACON,
    CONFIG_KEY,
    RECEIPT,
    ROOT_KEY,
    SECOND_CONFIG,
    STRANGER,
    make_root,
    sign,
)
from tests.kit.stores import after, empty


class FarBroker(MemoryBroker):
    """Behind a poor line: what it sends comes in its order, but pauses before what is not a
    configuration."""

    def __init__(self) -> None:
        super().__init__()
        self._line = trio.Lock()

    async def subscribe(self, *filters: str, qos: int = 1) -> Sequence[int]:
        async with self._line:
            self._session.filters = filters
            trio.lowlevel.spawn_system_task(self._give, self.retained_under(filters))
        return [qos] * len(filters)

    async def _give(self, messages: Sequence[tuple[str, bytes]]) -> None:
        async with self._line:
            for topic, payload in messages:
                if not topic.startswith(wire.config_topic("")):
                    await trio.sleep(0.2)
                self._session.put((topic, payload, True))


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
            assert await desk.confirmations.wait("gate", 1)
    assert wire.config_topic("gate") in broker.retained


class Breaking(MemoryBroker):
    """Its connection can break; and it forgets all it had."""

    async def messages(self) -> AsyncGenerator[Message]:
        async for message in self._messages:
            yield message
        raise BrokerUnavailable("the connection broke")

    def breaks_and_forgets(self) -> None:
        self.retained.clear()
        self.away = True
        self.hangs_up()


async def test_a_broker_that_comes_back_empty_is_told_everything_again_and_holds_nothing_meanwhile(
    autojump_clock: MockClock,
) -> None:
    broker = Breaking()
    desk = Desk(after(Put(service="gate", values={"a": 1})), broker)
    desk.outlet.set_retained(wire.HEALTH_TOPIC, b'{"ok":true}')
    async with desk.actor.running():
        await trio.sleep(10)
        held = dict(broker.retained)
        assert {wire.HEALTH_TOPIC, wire.config_topic("gate")} <= held.keys()
        assert desk.confirmations.confirmed("gate", 1)
        broker.breaks_and_forgets()
        await trio.sleep(10)
        assert not desk.confirmations.confirmed("gate", 1)
        broker.away = False
        await trio.sleep(10)
        assert broker.retained == held
        assert desk.confirmations.confirmed("gate", 1)


class Stubborn(MemoryBroker):
    """Acknowledges everything, and once told to keeps what it has."""

    keeps = False

    def takes(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        if not self.keeps:
            super().takes(topic, payload, retain=retain)


async def test_what_a_broker_acknowledges_and_does_not_take_is_never_confirmed(
    autojump_clock: MockClock,
) -> None:
    first = Put(service="gate", values={"a": 1})
    broker = Stubborn()
    desk = Desk(after(first), broker)
    async with desk.actor.running():
        with trio.fail_after(10):
            assert await desk.confirmations.wait("gate", 1)
        await trio.sleep(5)
        broker.keeps = True
        desk.view.replace(newer := after(first, Put(service="gate", values={"a": 2})))
        with trio.move_on_after(600):  # it is read again meanwhile, and is the older one
            assert not await desk.confirmations.wait("gate", 2)
        assert not desk.confirmations.confirmed("gate", 2)
        assert desk.confirmations.depth(newer) == 1
        broker.keeps = False
        with trio.fail_after(120):
            assert await desk.confirmations.wait("gate", 2)


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
        assert desk.witnessed[0].mark == newer.mark
        assert not desk.view.publishable
    assert (broker.retained, broker.cleared) == (before, [])


@pytest.mark.parametrize("service", ["gate", "late"])
async def test_a_newer_configuration_is_a_witness_though_no_snapshot_tells_of_it(
    autojump_clock: MockClock, service: str
) -> None:
    older = after(Put(service="gate", values={"a": 1}))
    newer = after(Put(service="gate", values={"a": 1}), Put(service=service, values={"a": 2}))
    broker = MemoryBroker()
    topic = wire.config_topic(service)
    broker.retained = {
        topic: update(newer.services[service]).to_bytes(),
        wire.SNAPSHOT_TOPIC: snapshot(older),
    }
    before = dict(broker.retained)
    desk = Desk(older, broker)
    async with desk.actor.running():
        await trio.sleep(200)
        assert [seen.mark for seen in desk.witnessed] == [newer.mark]

        assert not desk.view.publishable
    assert (broker.retained, broker.cleared) == (before, [])


ROW = "ab" * 32
STATE = after(Put(service="gate", values={"a": 1}))
NEXT_ROOT = sign(wire.ROOT, make_root(2, config=(SECOND_CONFIG,)).to_bytes(), ROOT_KEY).to_bytes()
OTHER_ROOT = make_root(2, config=(STRANGER,))


@pytest.mark.parametrize(
    ("topic", "payload", "ours"),
    [
        (wire.SNAPSHOT_TOPIC, snapshot(STATE, audit_head=ROW), snapshot(STATE)),
        (wire.SNAPSHOT_TOPIC, snapshot(STATE, root_version=2), snapshot(STATE)),
        (wire.root_topic(2), NEXT_ROOT, None),
        (
            wire.root_topic(2),
            NEXT_ROOT,
            sign(wire.ROOT, OTHER_ROOT.to_bytes(), ROOT_KEY).to_bytes(),
        ),
    ],
    ids=["a row of the audit", "a beacon of a newer root", "a newer root", "another root"],
)
async def test_what_we_signed_and_do_not_have_is_a_witness_that_nothing_is_written_over(
    autojump_clock: MockClock, topic: str, payload: bytes, ours: bytes | None
) -> None:
    broker = MemoryBroker()
    broker.retained = {topic: payload}
    roots = (make_root(), OTHER_ROOT) if ours is not None and "roots" in topic else (make_root(),)
    desk = Desk(STATE, broker, *roots)
    if ours is not None:
        desk.outlet.set_retained(topic, ours)
    async with desk.actor.running():
        await trio.sleep(200)
        assert not desk.view.publishable
    assert broker.retained == {topic: payload}
    assert broker.cleared == []


def desk_with_another_root(broker: MemoryBroker) -> Desk:
    """We have another version 2 than the broker, which another (newer) server filled."""
    desk = Desk(STATE, broker, make_root(), OTHER_ROOT, rows=[ROW])
    other = sign(wire.ROOT, OTHER_ROOT.to_bytes(), ROOT_KEY).to_bytes()
    desk.outlet.set_retained(wire.root_topic(2), other)
    return desk


async def test_nothing_is_sent_before_all_that_a_broker_retains_was_judged(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    broker.retained = {
        wire.SNAPSHOT_TOPIC: snapshot(STATE, audit_head=ROW),  # harmless, and judged at length
        wire.root_topic(2): NEXT_ROOT,
    }
    before = dict(broker.retained)
    desk = desk_with_another_root(broker)
    async with desk.actor.running():
        await trio.sleep(200)
        assert [bool(seen.beyond) for seen in desk.witnessed][:2] == [False, True]
    assert (broker.retained, broker.cleared) == (before, [])


async def test_a_pause_on_the_line_does_not_hide_a_witness(autojump_clock: MockClock) -> None:
    newer = after(Put(service="gate", values={"a": 1}), Put(service="late", values={"b": 2}))
    broker = FarBroker()
    broker.retained = {
        wire.config_topic(name): update(state).to_bytes() for name, state in newer.services.items()
    } | {wire.SNAPSHOT_TOPIC: snapshot(newer)}
    before = dict(broker.retained)
    desk = Desk(STATE, broker)
    async with desk.actor.running():
        await trio.sleep(200)
        assert not desk.view.publishable
    assert (broker.retained, broker.cleared) == (before, [])


async def test_who_was_rolled_back_puts_no_old_secrets_over_newer_ones_but_tells_its_health(
    autojump_clock: MockClock,
) -> None:
    sealed, revoked = wire.sealed_topic("gate", "ada"), wire.sealed_topic("gate", "eve")
    newer = after(Put(service="gate", values={"a": 1}), Put(service="gate", values={"a": 2}))
    broker = MemoryBroker()
    broker.retained = {wire.SNAPSHOT_TOPIC: snapshot(newer), sealed: b"newer"}
    before = dict(broker.retained)
    desk = Desk(STATE, broker)
    documents = {wire.HEALTH_TOPIC: b"{}", sealed: b"older", revoked: b"older"}
    for topic, document in documents.items():
        desk.outlet.set_retained(topic, document)
    async with desk.actor.running():
        await trio.sleep(200)
        assert broker.retained == {**before, wire.HEALTH_TOPIC: b"{}"}
        desk.view.publishable = True  # the newest database was put in place
        desk.view.wake()
        await trio.sleep(1)
    assert {topic: broker.retained[topic] for topic in documents} == documents


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (wire.SNAPSHOT_TOPIC, snapshot(after(), audit_head=GENESIS)),
        (wire.SNAPSHOT_TOPIC, snapshot(STATE, audit_head=ROW, boot_seq=2**50)),
        (wire.SNAPSHOT_TOPIC, snapshot(STATE).replace(b"beacon", b"nobeac")),
        (wire.SNAPSHOT_TOPIC, sign(wire.SNAPSHOT, b"{}", STRANGER).to_bytes()),
        (wire.root_topic(1), sign(wire.ROOT, make_root(root=(STRANGER,)).to_bytes(), STRANGER).to_bytes()),
        (wire.root_topic(2), sign(wire.ROOT, make_root(2, root=(STRANGER,)).to_bytes(), STRANGER).to_bytes()),
        (wire.root_topic(2), sign(wire.ROOT, make_root(1).to_bytes(), ROOT_KEY).to_bytes()),
        (wire.root_topic(3), sign(wire.ROOT, make_root(3).to_bytes(), ROOT_KEY).to_bytes()),
        (wire.ROOTS_PREFIX + "02", NEXT_ROOT),
        (wire.ROOTS_PREFIX + "two", NEXT_ROOT),
    ],
)  # fmt: skip
async def test_what_is_old_or_not_ours_stops_nothing(
    autojump_clock: MockClock, topic: str, payload: bytes
) -> None:
    broker = MemoryBroker()
    broker.retained = {topic: payload}
    desk = Desk(STATE, broker, rows=[ROW])
    ours = {wire.SNAPSHOT_TOPIC: snapshot(STATE), wire.root_topic(1): b"root 1"}
    for name, document in ours.items():
        desk.outlet.set_retained(name, document)
    async with desk.actor.running():
        with trio.fail_after(10):
            assert await desk.confirmations.wait("gate", 1)
        await trio.sleep(5)
        assert desk.view.publishable
    assert {name: broker.retained[name] for name in ours} == ours


async def test_a_broker_that_comes_back_as_it_was_before_the_keys_were_exchanged_is_filled_anew(
    autojump_clock: MockClock,
) -> None:
    now = make_root(3, config=(SECOND_CONFIG,))
    broker = MemoryBroker()
    older = {
        wire.SNAPSHOT_TOPIC: snapshot(STATE, audit_head=ROW, root_version=2),
        wire.root_topic(1): sign(wire.ROOT, make_root().to_bytes(), ROOT_KEY).to_bytes(),
        wire.root_topic(2): NEXT_ROOT,
    }
    broker.retained = dict(older)
    desk = Desk(STATE, broker, make_root(), make_root(2, config=(SECOND_CONFIG,)), now, rows=[ROW])
    current = {
        wire.SNAPSHOT_TOPIC: snapshot(STATE, root_version=3, boot_seq=2),
        wire.root_topic(2): NEXT_ROOT,
        wire.root_topic(3): sign(wire.ROOT, now.to_bytes(), ROOT_KEY).to_bytes(),
    }
    for topic, document in current.items():
        desk.outlet.set_retained(topic, document)
    async with desk.actor.running():
        await trio.sleep(5)
        assert desk.view.publishable
        assert [seen.beyond for seen in desk.witnessed] == [None]
    assert {topic: broker.retained[topic] for topic in current} == current
    assert broker.cleared == []


async def test_old_snapshots_played_back_over_and_over_are_judged_once(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    desk = Desk(STATE, broker, rows=[ROW])
    desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, snapshot(STATE))
    async with desk.actor.running():
        await trio.sleep(1)
        for _ in range(50):
            await broker.publish(wire.SNAPSHOT_TOPIC, snapshot(STATE, audit_head=ROW), retain=True)
            await trio.sleep(1.5)
        await trio.sleep(60)  # who is overwritten so often repairs once a minute
    assert len(desk.witnessed) == 1
    assert broker.retained[wire.SNAPSHOT_TOPIC] == snapshot(STATE)


async def test_an_own_snapshot_that_is_read_back_late_is_no_witness(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    desk = Desk(STATE, broker)
    earlier = snapshot(STATE, audit_head="cd" * 32)  # as it was when we made it, a moment ago
    desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, earlier)
    desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, snapshot(STATE))
    broker.retained[wire.SNAPSHOT_TOPIC] = earlier
    async with desk.actor.running():
        await trio.sleep(5)
    assert desk.witnessed == []
    assert broker.retained[wire.SNAPSHOT_TOPIC] == snapshot(STATE)


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


# ── instances that were forgotten ──────────────────────────────────────────────────────────────

RECEIPT_TOPIC = wire.status_topic(RECEIPT.service, RECEIPT.instance)
SCHEMA_TOPIC = wire.schema_topic(RECEIPT.service, RECEIPT.schema)
OTHERS = {
    wire.status_topic(RECEIPT.service, "hall"): b"another instance's",
    wire.schema_topic(RECEIPT.service, "f" * 64): b"{}",
}


def said(**fields: Any) -> bytes:
    return sign(wire.RECEIPT, replace(RECEIPT, **fields).to_bytes(), STRANGER).to_bytes()


def having_forgotten(state: Committed) -> Committed:
    """RECEIPT's instance, as of that receipt."""
    [signature] = wire.parse_envelope(said()).signatures
    mark = Forgotten(signature.keyid, *RECEIPT.order, until=2_000_000_000.0, schema=RECEIPT.schema)
    rows = rows_after(state, RECEIPT.service, RECEIPT.instance, mark)
    return replace(state, registry=with_rows(state.registry, rows))


async def test_what_is_forgotten_is_emptied_at_once_and_nothing_else_is(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    broker.retained |= {RECEIPT_TOPIC: said(), SCHEMA_TOPIC: b"{}", **OTHERS}
    desk = Desk(empty(), broker)
    async with desk.actor.running():
        await trio.sleep(5)
        assert broker.cleared == []
        desk.view.replace(having_forgotten(empty()))
        await trio.sleep(5)
        assert broker.cleared == [SCHEMA_TOPIC, RECEIPT_TOPIC]
        assert desk.statuses.statuses() == []
    assert broker.retained.items() >= OTHERS.items()


async def test_a_schema_that_another_instance_names_stays_and_what_is_no_digest_is_no_topic(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    hall = wire.status_topic(RECEIPT.service, "hall")
    broker.retained |= {RECEIPT_TOPIC: said(), SCHEMA_TOPIC: b"{}", hall: said(instance="hall")}
    desk = Desk(empty(), broker)
    async with desk.actor.running():
        await trio.sleep(5)
        desk.view.replace(having_forgotten(empty()))
        await trio.sleep(5)
        assert broker.cleared == [RECEIPT_TOPIC]
        key = f"{RECEIPT.service}/hall"
        [row] = desk.view.committed.registered(FORGOTTEN).values()
        odd = RegistryRow(FORGOTTEN, key, {**row, "schema": "../#"})
        committed = desk.view.committed
        registry = with_rows(committed.registry, (odd,))
        desk.view.replace(replace(committed, registry=registry))
        await trio.sleep(5)
    assert broker.cleared == [RECEIPT_TOPIC, hall]


async def test_a_broker_that_was_away_is_emptied_when_its_old_receipt_is_read(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    broker.retained |= {RECEIPT_TOPIC: said(), SCHEMA_TOPIC: b"{}", **OTHERS}
    desk = Desk(having_forgotten(empty()), broker)
    async with desk.actor.running():
        await trio.sleep(5)
        assert broker.cleared == [SCHEMA_TOPIC, RECEIPT_TOPIC]
        assert desk.statuses.statuses() == []
        await broker.publish(RECEIPT_TOPIC, said(gone=True), retain=True)  # it notices only now
        await trio.sleep(5)
        assert broker.cleared == [SCHEMA_TOPIC, RECEIPT_TOPIC] * 2
        assert desk.statuses.statuses() == []


async def test_a_broker_that_repeats_an_old_receipt_without_end_gets_one_answer_a_second(
    autojump_clock: MockClock,
) -> None:
    """Also at the beginning, while what it retains is still being read."""
    broker = MemoryBroker()
    broker.retained |= {RECEIPT_TOPIC: said()}
    desk = Desk(having_forgotten(empty()), broker)
    async with desk.actor.running():
        while not broker.sessions:  # it connects in its turn
            await trio.sleep(0.01)
        for _ in range(200):
            await broker.publish(RECEIPT_TOPIC, said(gone=True), retain=True)
        await trio.sleep(0.5)
        assert len(broker.cleared) <= 2


async def test_one_that_has_come_back_keeps_what_it_says_there(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    back = {RECEIPT_TOPIC: said(seq=RECEIPT.seq + 1), SCHEMA_TOPIC: b"{}"}
    broker.retained |= back
    desk = Desk(having_forgotten(empty()), broker)
    async with desk.actor.running():
        await trio.sleep(1_000)
        assert broker.cleared == []
        assert broker.retained.items() >= back.items()
        assert len(desk.statuses.statuses()) == 1


async def test_our_own_empty_message_does_not_hide_one_that_came_back_on_another_broker(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    broker.retained[RECEIPT_TOPIC] = said()
    desk = Desk(having_forgotten(empty()), broker)
    desk.statuses.take("another", RECEIPT_TOPIC, said(boot_seq=9), retained=False, now=0.0)
    async with desk.actor.running():
        await trio.sleep(5)
        assert broker.cleared == [SCHEMA_TOPIC, RECEIPT_TOPIC]
        assert len(desk.statuses.statuses()) == 1
        await broker.publish(RECEIPT_TOPIC, b"", retain=True)  # by hand, as ever
        await trio.sleep(1)
        assert desk.statuses.statuses() == []


async def test_nothing_is_emptied_while_publishing_is_held_and_it_is_made_good_after(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    broker.retained[RECEIPT_TOPIC] = said()
    desk = Desk(having_forgotten(empty()), broker)
    desk.view.publishable = False
    async with desk.actor.running():
        await trio.sleep(100)
        assert broker.cleared == []
        assert desk.statuses.statuses() == [], "and is not shown"
        desk.view.publishable = True
        desk.view.wake()
        await trio.sleep(601)  # once what all instances said is read again
        assert broker.cleared == [SCHEMA_TOPIC, RECEIPT_TOPIC]


async def test_who_plays_an_old_receipt_back_over_and_over_does_not_make_us_his_amplifier(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker()
    desk = Desk(having_forgotten(empty()), broker)
    async with desk.actor.running():
        await trio.sleep(5)
        for _ in range(500):
            await broker.publish(RECEIPT_TOPIC, said(gone=True), retain=True)
            await trio.sleep(0.01)
        await trio.sleep(2)
    assert broker.cleared.count(RECEIPT_TOPIC) <= 12
    assert RECEIPT_TOPIC not in broker.retained
    assert desk.statuses.statuses() == []


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
            assert await desk.confirmations.wait("gate", 1)


# ── starts that a broker knows of ──────────────────────────────────────────────────────────────


async def test_a_retained_beacon_of_a_later_start_is_told_once_and_only_before_we_write_there(
    autojump_clock: MockClock,
) -> None:
    committed = after(Put(service="gate", values={"a": 1}))
    broker = Breaking()
    broker.retained[wire.SNAPSHOT_TOPIC] = snapshot(committed, boot_seq=7)
    desk = Desk(committed, broker)
    desk.boot_seq = 3
    desk.outlet.set_retained(wire.SNAPSHOT_TOPIC, ours := snapshot(committed, boot_seq=3))
    async with desk.actor.running():
        await trio.sleep(10)
        assert [told.boot_seq for told in desk.witnessed] == [7]
        assert desk.boot_seq == 8
        assert broker.retained[wire.SNAPSHOT_TOPIC] == ours, "and we go on"
        broker.tells(wire.SNAPSHOT_TOPIC, snapshot(committed, boot_seq=20))  # a twin
        await trio.sleep(10)
        broker.breaks_and_forgets()
        # it was there meanwhile
        broker.retained[wire.SNAPSHOT_TOPIC] = snapshot(committed, boot_seq=30)
        broker.away = False
        await trio.sleep(70)
        assert desk.boot_seq == 8, "who is outdone by a twin that runs would never come to an end"


@pytest.mark.parametrize(("beacon", "raised"), [(1, 3), (2, 3), (3, 4), (4, 5)])
async def test_the_same_number_is_outdone_too_and_a_lower_one_is_no_news(
    autojump_clock: MockClock, beacon: int, raised: int
) -> None:
    committed = after(Put(service="gate", values={"a": 1}))
    broker = MemoryBroker()
    broker.retained[wire.SNAPSHOT_TOPIC] = snapshot(committed, boot_seq=beacon)
    desk = Desk(committed, broker)
    desk.boot_seq = 3
    async with desk.actor.running():
        await trio.sleep(10)
    assert desk.boot_seq == raised


async def test_a_beacon_that_somebody_else_signed_counts_for_nothing(
    autojump_clock: MockClock,
) -> None:
    committed = after(Put(service="gate", values={"a": 1}))
    broker = MemoryBroker()
    value = strict_json.loads_object(snapshot(committed, boot_seq=7))
    beacon = replace(BEACON, boot_seq=2**50)
    forged = sign(wire.BEACON, beacon.to_bytes(), CONFIG_KEY)  # another role's key
    broker.retained[wire.SNAPSHOT_TOPIC] = strict_json.dumps(
        {**value, "beacon": forged.to_object()}
    )
    desk = Desk(committed, broker)
    desk.boot_seq = 3
    async with desk.actor.running():
        await trio.sleep(10)
    assert desk.boot_seq == 3
