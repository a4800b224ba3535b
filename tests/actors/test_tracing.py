"""The times of steps, in memory: what is noted, what is kept, and how much."""

from __future__ import annotations

from dataclasses import replace

from config_manager.actors.actor import Context
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.tracing import Tracing
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Stage
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.intents import NewEpoch, Put
from config_manager.storage.state import Commit, Committed, ServiceState
from config_manager.storage.trace import BrokerTimes, ChangeTimes, StageTime
from tests.kit import documents as d
from tests.kit import stores as m

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HERE, THERE = "mqtt://here:1883", "mqtt://there:1883"


class Noting:
    """A second passes with each time that is noted."""

    def __init__(self, **how: int) -> None:
        self.now = 100.0
        self.tracing = Tracing(self._tick, **how)
        self.state: Committed = m.empty()

    def _tick(self) -> float:
        self.now += 1
        return self.now

    def commits(self, *services: str, asked: float | None = 100.0) -> list[ServiceState]:
        what = NewEpoch(services={one: {} for one in services})
        one = Put(service=services[0], values={})
        change: Commit = m.decide(self.state, one if len(services) == 1 else what).change
        self.state = change.after
        self.tracing.committed(change, Context("id", asked=asked, traceparent=TRACE), 2)
        return [self.state.services[name] for name in services]

    def times(self, revision: int) -> ChangeTimes:
        noted = self.tracing.of(revision)
        assert noted is not None
        return noted.all_times


def test_of_each_step_at_each_broker_the_first_time_counts() -> None:
    noting = Noting()
    (door,) = noting.commits("door")
    for broker in (HERE, THERE):
        noting.tracing.done("signed", door, broker)
    noting.tracing.done("published", door, HERE)
    noting.tracing.done("published", door, HERE)  # it was sent again
    noting.tracing.done("confirmed", door, HERE)  # before its PUBACK came
    noting.tracing.done("acknowledged", door, HERE)
    assert noting.times(1) == ChangeTimes(
        1, 100.0, 101.0, 2, TRACE,
        (BrokerTimes("door", HERE, 102.0, 104.0, 106.0, 105.0), BrokerTimes("door", THERE, 103.0)),
    )  # fmt: skip


def test_what_is_taken_to_be_kept_is_taken_once_unless_the_disk_refused_it() -> None:
    noting = Noting()
    (door,) = noting.commits("door")
    (taken,) = noting.tracing.take_unkept()
    assert (taken.revision, taken.brokers) == (1, ())
    assert noting.tracing.take_unkept() == []
    noting.tracing.not_kept([taken])
    noting.tracing.done("signed", door, HERE)
    assert [one.brokers for one in noting.tracing.take_unkept()] == [
        (BrokerTimes("door", HERE, 102.0),)
    ]


def test_what_an_earlier_process_committed_is_noted_only_if_no_broker_was_seen_to_hold_it() -> None:
    before = Noting()
    door, wall = *before.commits("door"), *before.commits("wall")
    noting = Noting()
    noting.tracing.expect([wall])
    for state in (door, wall):
        noting.tracing.done("confirmed", state, HERE)
    assert noting.tracing.of(door.revision) is None, "a start reads everything back"
    assert noting.times(wall.revision) == ChangeTimes(
        2, None, m.START, brokers=(BrokerTimes("wall", HERE, confirmed=101.0),)
    )
    assert wall.updated_at == rfc3339(m.START)


def test_the_oldest_are_let_go_and_a_change_of_many_services_counts_as_many() -> None:
    noting = Noting(most=7)
    for name in ("a", "b"):
        (state,) = noting.commits(name)
        noting.tracing.done("signed", state, HERE)
    assert (noting.tracing.of(1) is None, noting.tracing.of(2) is None) == (False, False)
    for state in noting.commits("c", "d", "e", "f"):
        noting.tracing.done("signed", state, HERE)
        noting.tracing.done("signed", state, THERE)
    newest = noting.tracing.of(3)
    assert noting.tracing.of(1) is noting.tracing.of(2) is None
    assert newest is not None
    assert len(newest.brokers) == 8, "the newest stays, whatever its size"
    assert [one.revision for one in noting.tracing.take_unkept()] == [3]


def test_what_instances_say_of_a_change_is_noted_once_and_only_of_its_own_services() -> None:
    noting, board = Noting(), StatusBoard()
    board.on_receipt.append(noting.tracing.heard)
    noting.commits("door")

    def says(seq: int, stage: Stage, service: str = "door", revision: int = 1) -> None:
        attempt = Attempt(revision, stage, at=rfc3339(m.START + seq), took_ms=seq)
        receipt = replace(d.RECEIPT, service=service, instance="one", seq=seq, last_attempt=attempt)
        envelope = Envelope(wire.RECEIPT, receipt.to_bytes(), (Signature("a" * 64, bytes(64)),))
        topic = wire.status_topic(service, "one")
        board.take(HERE, topic, envelope.to_bytes(), retained=False, now=200.0 + seq)

    says(1, "received")
    says(2, "applied")
    says(3, "applied")  # another receipt of the same attempt
    says(4, "healthy")
    says(1, "applied", service="wall")
    says(5, "applied", revision=2)
    noted = noting.tracing.of(1)
    assert noted is not None
    assert noted.instances == {
        ("door", "one"): [
            StageTime("received", m.START + 1, 201.0, None, 1),
            StageTime("applied", m.START + 2, 202.0, None, 2),
            StageTime("healthy", m.START + 4, 204.0, None, 4),
        ]
    }


def _refuses(instance: str, reason: str = "no") -> bytes:
    attempt = Attempt(1, "refused", reason)
    receipt = replace(d.RECEIPT, service="door", instance=instance, last_attempt=attempt)
    signature = Signature("a" * 64, bytes(64))
    return Envelope(wire.RECEIPT, receipt.to_bytes(), (signature,)).to_bytes()


def test_strangers_without_end_who_come_and_go_take_no_memory_without_end() -> None:
    noting, board = Noting(), StatusBoard()
    board.on_receipt.append(noting.tracing.heard)
    noting.commits("door")
    for number in range(300):
        topic = wire.status_topic("door", f"s{number}")
        board.take(HERE, topic, _refuses(f"s{number}"), retained=False, now=200.0)
        board.take(HERE, topic, b"", retained=False, now=200.0)
    noted = noting.tracing.of(1)
    assert noted is not None
    assert len(noted.instances) == 256


def test_a_reason_that_fills_its_receipt_is_cut() -> None:
    noting, board = Noting(), StatusBoard()
    board.on_receipt.append(noting.tracing.heard)
    noting.commits("door")
    topic = wire.status_topic("door", "one")
    board.take(HERE, topic, _refuses("one", "x" * 40_000), retained=False, now=200.0)
    noted = noting.tracing.of(1)
    assert noted is not None
    assert noted.instances["door", "one"][0].reason == "x" * 1_000
