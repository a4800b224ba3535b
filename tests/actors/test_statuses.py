"""The board of what instances run: never a crash, never back, never without bounds."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.actors.receipt_reading import InstanceStatus
from config_manager.actors.statuses import (
    NewlyRuns,
    NotTaken,
    StatusBoard,
)
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339
from tests.kit.documents import make_receipt

NOW = 1_800_000_000.0
TOPIC = wire.status_topic("stt-worker", "kitchen")


def running(revision: int) -> Running:
    return Running(1, revision, f"{revision:064x}")


def make(seq: int = 1, boot_seq: int = 1, **fields: Any) -> Receipt:
    values: dict[str, Any] = {
        "running": running(1),
        "last_attempt": Attempt(1, "healthy"),
        "correlation_id": "change-1",
        "at": rfc3339(NOW - 60),
    }
    return make_receipt(**{**values, "boot_seq": boot_seq, "seq": seq, **fields})


def seal(payload: bytes, *, kind: str = wire.RECEIPT, key: str = "a") -> bytes:
    return Envelope(kind, payload, (Signature(key * 64, bytes(64)),)).to_bytes()


class Board:
    """A StatusBoard and a broker or two that talk to it."""

    def __init__(self, **limits: Any) -> None:
        self.board = StatusBoard(lambda service, instance: None, **limits)
        self.now = NOW

    def live(self, receipt: Receipt, **options: Any) -> object:
        return self.send(receipt, retained=False, **options)

    def retained(self, receipt: Receipt, **options: Any) -> object:
        return self.send(receipt, retained=True, **options)

    def send(
        self, receipt: Receipt, *, retained: bool, broker: str = "A", key: str = "a"
    ) -> object:
        topic = wire.status_topic(receipt.service, receipt.instance)
        return self.raw(seal(receipt.to_bytes(), key=key), topic, retained=retained, broker=broker)

    def raw(
        self, payload: bytes, topic: str = TOPIC, *, retained: bool = False, broker: str = "A"
    ) -> object:
        return self.board.take(broker, topic, payload, retained=retained, now=self.now)

    @property
    def only(self) -> InstanceStatus:
        (status,) = self.board.statuses()
        return status


# ── what is taken ──────────────────────────────────────────────────────────────────────────────


def test_a_receipt_is_shown_with_when_it_came() -> None:
    board = Board()
    board.live(make())
    assert board.only.receipt == make()
    assert (board.only.since, board.only.received_at, board.only.gone) == (NOW, NOW, False)


def test_what_was_retained_before_we_came_began_when_it_says_but_never_later_than_now() -> None:
    for at, since in ((NOW - 60, NOW - 60), (NOW + 60, NOW), (-(10.0**9), 0.0)):
        board = Board()
        board.retained(make(at=rfc3339(at)))
        assert (board.only.since, board.only.received_at) == (since, NOW)


def test_since_stands_until_it_runs_something_else() -> None:
    board = Board()
    board.live(make(1))
    board.now += 5
    board.live(make(2, freshness="stale (no-beacon)"))
    assert (board.only.since, board.only.received_at) == (NOW, NOW + 5)
    board.live(make(3, running=running(2)))
    assert board.only.since == NOW + 5


def test_instances_come_sorted_and_by_service() -> None:
    board = Board()
    names = [("b", "2"), ("b", "1"), ("a-b", "1"), ("a", "9")]
    for service, instance in names:
        board.live(make(service=service, instance=instance))
    shown = [(s.receipt.service, s.receipt.instance) for s in board.board.statuses()]
    assert shown == sorted(names)
    assert [s.receipt.instance for s in board.board.statuses("b")] == ["1", "2"]
    assert board.board.statuses("c") == []


def test_a_revision_that_newly_runs_is_news_once() -> None:
    board = Board()
    assert board.live(make(1)) == NewlyRuns(make(1), running(1))
    assert board.live(make(2)) is None
    changed = make(3, running=running(2), correlation_id="change-2")
    assert board.live(changed) == NewlyRuns(changed, running(2))
    assert board.live(changed) is None


def test_what_was_retained_before_we_came_is_no_news_but_a_change_while_we_were_away_is() -> None:
    board = Board()
    assert board.retained(make(1)) is None
    assert isinstance(board.retained(make(2, running=running(2))), NewlyRuns)


def test_who_runs_defaults_alone_reports_no_revision() -> None:
    board = Board()
    assert board.live(make(running=None, source="defaults")) is None
    assert board.only.receipt.running is None


def test_an_id_that_is_none_is_left_out() -> None:
    board = Board()
    board.live(make(correlation_id="two words\x1b[2J"))
    assert board.only.receipt.correlation_id is None


def test_an_empty_message_removes_the_instance_and_makes_room() -> None:
    board = Board(max_instances=2)
    board.live(make())
    board.raw(b"")
    assert board.board.statuses() == []
    board.live(make(instance="hall"))
    assert board.only.receipt.instance == "hall"
    board.raw(b"", wire.status_topic("stt-worker", "nobody"))
    assert board.board.refused == 0


# ── never back, and gone ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("older", [(3, 4), (3, 3), (2, 9), (1, 1)])
def test_an_older_receipt_is_ignored(older: tuple[int, int]) -> None:
    board = Board()
    board.live(make(4, 3, running=running(7)))
    board.live(make(older[1], older[0], running=running(6)))
    assert board.only.receipt.running == running(7)


def test_a_new_boot_counts_from_one_again() -> None:
    board = Board()
    board.live(make(99, 1))
    board.live(make(1, 2, running=running(2)))
    assert board.only.receipt.order == (2, 1)


def test_a_will_wins_though_it_was_signed_before_and_knows_less() -> None:
    board = Board()
    board.live(make(6, running=running(2)))
    board.now += 1
    assert board.live(make(5, running=running(1), gone=True)) is None
    assert board.only.gone
    assert board.only.receipt.running == running(2)
    assert board.only.since == NOW + 1


def test_the_will_of_an_earlier_boot_says_nothing_about_this_one() -> None:
    board = Board()
    board.live(make(1, 2))
    board.live(make(99, 1, gone=True))
    assert not board.only.gone


def test_a_will_alone_shows_an_instance_that_is_gone() -> None:
    board = Board()
    assert board.live(make(gone=True)) is None
    assert board.only.gone


def test_the_next_boot_is_back() -> None:
    board = Board()
    board.live(make(1, 1, gone=True))
    board.live(make(1, 2))
    assert not board.only.gone


def test_who_reconnects_repeats_its_receipt_and_is_back() -> None:
    """A client makes its will (5) after the receipt (4) that it publishes once it is connected."""
    board = Board()
    board.live(make(4))
    board.live(make(5, gone=True))
    board.live(make(4))
    assert not board.only.gone


def test_a_broker_that_still_retains_the_last_receipt_does_not_bring_it_back() -> None:
    board = Board()
    board.live(make(4), broker="A")
    board.live(make(3, gone=True), broker="A")
    board.retained(make(4), broker="B")  # whose own will never came
    assert board.only.gone
    board.retained(make(4), broker="A")  # which was killed and forgot the will
    assert board.only.gone


def test_what_took_the_wills_place_while_we_were_away_brings_it_back() -> None:
    board = Board()
    board.retained(make(5, gone=True), broker="A")
    board.retained(make(7, running=running(2)), broker="B")
    assert board.only.gone
    assert board.only.receipt.running == running(2)
    board.retained(make(8), broker="A")
    assert not board.only.gone


def test_a_will_that_is_read_again_is_news_only_once() -> None:
    board = Board()
    board.retained(make(5, gone=True), broker="A")
    board.live(make(9), broker="B")
    board.retained(make(5, gone=True), broker="A")
    assert not board.only.gone


def test_a_state_made_anew_has_another_key_and_its_time_decides() -> None:
    board = Board()
    board.live(make(50, 9, at=rfc3339(NOW)), key="a")
    board.live(make(1, 1, at=rfc3339(NOW + 10), running=running(2)), key="b")
    assert board.only.receipt.running == running(2)
    board.live(make(49, 9, at=rfc3339(NOW), gone=True), key="a")
    assert not board.only.gone


# ── garbage ────────────────────────────────────────────────────────────────────────────────────


def changed(**fields: Any) -> bytes:
    return seal(json.dumps({**json.loads(make().to_bytes()), **fields}).encode())


GARBAGE = {
    "not JSON": b"x",
    "no envelope": b"{}",
    "a list": b"[]",
    "half a character": b"\xff",
    "deep": b"[" * 100_000,
    "too large": changed(overrides=["x" * wire.MAX_RECEIPT_BYTES]),
    "another type": seal(make().to_bytes(), kind=wire.BEACON),
    "payload is no object": seal(b"[]"),
    "payload is no JSON": seal(b"\0"),
    "another instance": seal(make(instance="hall").to_bytes()),
    "another service": seal(make(service="tts-worker").to_bytes()),
    "a field is missing": seal(b'{"service":"stt-worker","instance":"kitchen"}'),
    "an unknown critical field": changed(critical=["later"]),
    "seq is a float": changed(seq=1.5),
    "seq is true": changed(seq=True),
    "seq is negative": changed(seq=-1),
    "seq too large": changed(seq=2**53),
    "gone is a word": changed(gone="yes"),
    "running is a list": changed(running=[]),
    "running is false": changed(running=False),
    "running half": changed(running={"revision": 1}),
    "a digest that is none": changed(running={"epoch_seq": 1, "revision": 1, "digest": "\x1b[2J"}),
    "overrides is a text": changed(overrides="a"),
    "overrides hold numbers": changed(overrides=[1]),
    "a source that is no word": changed(source="\x1b[2J"),
    "a source as long as a book": changed(source="a" * 33),
    "a stage that is no word": changed(last_attempt={"revision": 1, "stage": "", "reason": None}),
    "a freshness as long as a book": changed(freshness="a" * 201),
    "at is no time": changed(at="yesterday"),
    "at has no time zone": changed(at="2026-01-01T00:00:00"),
    "at is out of this world": changed(at="9999-99-99T00:00:00Z"),
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_counted_and_changes_nothing(payload: bytes) -> None:
    board = Board()
    board.live(make(0))
    before = board.only
    assert isinstance(board.raw(payload), NotTaken)
    assert board.only == before
    assert board.board.refused == 1


@pytest.mark.parametrize(
    "topic",
    ["/", "a/", "/a", "A/b", "a/b c", "epoch/a", "config-manager/a", "a/config-manager", "ä/b"]
    + [f"{'a' * 64}/b", "a/b/c", "a"],
)
def test_a_topic_that_names_no_instance_is_counted(topic: str) -> None:
    service, _, instance = topic.partition("/")
    payload = seal(make(service=service, instance=instance).to_bytes())
    board = Board()
    assert isinstance(board.raw(payload, wire.STATUS_PREFIX + topic), NotTaken)
    assert isinstance(board.raw(b"", wire.STATUS_PREFIX + topic), NotTaken)
    assert board.board.statuses() == []


def test_retained_garbage_that_is_read_again_is_counted_once() -> None:
    board = Board()
    for _ in range(3):
        board.raw(b"x", retained=True)
    assert board.board.refused == 1
    board.raw(b"x", retained=False)
    assert board.board.refused == 2


def test_a_receipt_of_the_largest_size_is_taken() -> None:
    board = Board()
    empty = len(seal(make(overrides=("",)).to_bytes()))
    payload = seal(make(overrides=("x" * ((wire.MAX_RECEIPT_BYTES - empty) // 4 * 3),)).to_bytes())
    assert wire.MAX_RECEIPT_BYTES - 4 < len(payload) <= wire.MAX_RECEIPT_BYTES
    assert not isinstance(board.raw(payload), NotTaken)
    assert board.only.size == len(payload)


# ── bounds ─────────────────────────────────────────────────────────────────────────────────────


KEY = SigningKey(bytes(32))


def signed(receipt: Receipt) -> bytes:
    payload = receipt.to_bytes()
    signature = KEY.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
    return Envelope(
        wire.RECEIPT, payload, (Signature(wire.keyid(KEY.verify_key.encode()), signature),)
    ).to_bytes()


def test_an_enrolled_instance_takes_the_place_of_the_stranger_who_came_first() -> None:
    board = StatusBoard(
        lambda _, instance: KEY.verify_key.encode() if instance == "ours" else None, max_instances=4
    )

    def tell(receipt: Receipt) -> object:
        topic = wire.status_topic(receipt.service, receipt.instance)
        payload = signed(receipt)
        return board.take("A", topic, payload, retained=False, now=NOW)

    strangers = [("one", "a"), ("two", "b"), ("three", "c"), ("four", "d")]
    for service, instance in strangers:
        tell(make(service=service, instance=instance))
    assert isinstance(tell(make(service="five", instance="e")), NotTaken)
    for service in ("five", "six", "seven", "eight"):
        assert isinstance(tell(make(service=service, instance="ours")), NewlyRuns)
    assert {s.receipt.instance for s in board.statuses()} == {"ours"}
    assert isinstance(tell(make(service="nine", instance="ours")), NotTaken)
    assert isinstance(tell(make(2, service="five", instance="ours", running=running(2))), NewlyRuns)


def test_strangers_of_one_service_leave_half_of_the_board_to_the_others() -> None:
    board = Board(max_instances=10)
    told = [board.live(make(instance=f"i-{n}")) for n in range(10)]
    assert [isinstance(one, NotTaken) for one in told] == [False] * 5 + [True] * 5
    told = [board.live(make(service=f"other-{n}")) for n in range(5)]
    assert all(isinstance(one, NewlyRuns) for one in told)
    board.raw(b"", wire.status_topic("stt-worker", "i-0"))
    assert isinstance(board.live(make(instance="i-9")), NewlyRuns)


def test_past_the_limit_new_instances_are_refused_and_known_ones_go_on() -> None:
    board = Board(max_instances=4)
    for name in ("a", "b"):
        board.live(make(instance=name))
    assert isinstance(board.live(make(instance="c")), NotTaken)
    board.live(make(2, instance="a", running=running(2)))
    assert [s.receipt.running for s in board.board.statuses()] == [running(2), running(1)]
    assert board.board.refused == 1


def test_all_receipts_together_have_a_limit_too() -> None:
    one = len(seal(make().to_bytes()))
    board = Board(max_total_bytes=2 * one)
    board.live(make())
    board.live(make(2))  # replaces the first
    board.live(make(instance="kitchel"))
    assert isinstance(board.live(make(instance="kitcheo")), NotTaken)
    assert isinstance(board.live(make(3, overrides=("x" * 100,))), NotTaken)
    board.raw(b"")
    board.live(make(instance="kitcheo"))
    assert len(board.board.statuses()) == 2


# ── properties ─────────────────────────────────────────────────────────────────────────────────

RECEIPTS = st.builds(
    make,
    seq=st.integers(0, 4),
    boot_seq=st.integers(0, 2),
    running=st.one_of(st.none(), st.integers(1, 3).map(running)),
    gone=st.booleans(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from(list(json.loads(make().to_bytes()))), JSON, max_size=3)


@given(st.lists(st.tuples(RECEIPTS, st.booleans(), st.sampled_from("AB"))))
def test_whatever_comes_in_whatever_order_it_never_goes_back(
    messages: list[tuple[Receipt, bool, str]],
) -> None:
    board = Board()
    seen: list[Receipt] = []
    for receipt, retained, broker in messages:
        board.send(receipt, retained=retained, broker=broker)
        seen.append(receipt)
        assert board.only.receipt.order == max(r.order for r in seen)
    assert board.board.refused == 0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5, unique=True), st.data())
def test_living_receipts_give_the_same_board_in_every_order(
    numbers: list[int], data: st.DataObject
) -> None:
    receipts = [make(n, running=running(n)) for n in numbers]
    for order in (receipts, data.draw(st.permutations(receipts))):
        board = Board()
        for receipt in order:
            board.live(receipt)
        assert board.only.receipt == make(max(numbers), running=running(max(numbers)))


def test_a_will_retained_on_one_broker_wins_in_every_order_of_reading() -> None:
    messages = [(make(4), "A"), (make(6, running=running(2)), "B"), (make(3, gone=True), "C")]
    for order in itertools.permutations(messages):
        board = Board()
        for receipt, broker in order:
            board.retained(receipt, broker=broker)
        assert board.only.gone
        assert board.only.receipt.running == running(2)


@given(st.binary(max_size=200) | FIELDS, st.text(max_size=20) | st.just("stt-worker/kitchen"))
def test_no_bytes_crash_it(content: bytes | dict[str, Any], name: str) -> None:
    board = Board()
    if isinstance(content, dict):
        content = json.dumps({**json.loads(make().to_bytes()), **content}).encode()
        board.raw(seal(content), wire.STATUS_PREFIX + name)
        envelope = {"payloadType": wire.RECEIPT, "payload": base64.b64encode(content).decode()}
        board.raw(json.dumps(envelope).encode(), wire.STATUS_PREFIX + name)
    else:
        board.raw(content, wire.STATUS_PREFIX + name)
    for status in board.board.statuses():
        assert wire.status_topic(status.receipt.service, status.receipt.instance) == TOPIC


@pytest.mark.parametrize("also", [False, True])
def test_an_enrolled_instances_receipt_names_its_key_and_no_other(also: bool) -> None:
    """The names are not signed: a broker could write others, and no report would prove what it says."""
    key = SigningKey(bytes([7]) * 32)
    board = StatusBoard(lambda _service, _instance: key.verify_key.encode())
    payload = make().to_bytes()
    good = key.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
    mine, other = wire.keyid(key.verify_key.encode()), "b" * 64
    names = (mine, other) if also else (other,)
    signatures = tuple(Signature(name, good) for name in names)
    told = Envelope(wire.RECEIPT, payload, signatures).to_bytes()
    assert isinstance(board.take("A", TOPIC, told, retained=False, now=NOW), NotTaken)
    told = Envelope(wire.RECEIPT, payload, (Signature(mine, good),)).to_bytes()
    assert isinstance(board.take("A", TOPIC, told, retained=False, now=NOW), NewlyRuns)
