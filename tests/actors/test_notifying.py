"""Who is told what, in which order, how often, and what stays after a restart. The clock is Trio's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from nacl.signing import SigningKey
from trio.testing import MockClock

from config_manager.actors.actor import Context
from config_manager.actors.drift_log import DriftEvent
from config_manager.actors.http_out import Answered, Unanswered
from config_manager.actors.notices import MOST_WAITING, events_of
from config_manager.actors.notified import Post
from config_manager.actors.notifying import Notifier, SendTest
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.views import CommittedView
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt
from config_manager.config.errors import Conflict, NotFound, ReadOnly
from config_manager.config.http_target import HttpTarget
from config_manager.config.secret import Secret
from config_manager.config.webhooks import make_webhook_secret
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import SystemRandomness, World, rfc3339
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.intents import Put
from config_manager.storage.decisions.notifications import (
    NOTICE,
    AddNotification,
    EventKind,
    Notification,
    RemoveNotification,
    notifications,
    place_of,
)
from config_manager.storage.drifts import Drift, DriftQuery
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.trace import Change, ChangesQuery
from tests.actors.test_statuses import make
from tests.kit.stores import FIRST_EPOCH, START, VOUCHING, Counting, empty, equipped

EVERY: tuple[EventKind, ...] = ("revision", "rollback", "refused", "drift")
DAY_S = 24 * 3600.0

OK, DOWN = Answered(204), Unanswered("nobody is there")


class Wall:
    def now(self) -> float:
        return START + trio.current_time()


class Drifts:
    """What the notifier sees of the board of drift, in a process; `kept`: what is in the database of it."""

    def __init__(self, kept: list[Drift]) -> None:
        self.kept = kept
        self._events: list[DriftEvent] = []
        self.last_seq = max((max(one.seq, one.ended_seq or 0) for one in kept), default=0)
        self._news = trio.Event()

    def events_after(self, seq: int) -> tuple[DriftEvent, ...]:
        return tuple(event for event in self._events if event.seq > seq)

    async def changed(self) -> None:
        await self._news.wait()

    def begins(self, service: str) -> None:
        now = START + trio.current_time()
        drift = Drift(int(now * 1000), service, "kitchen", "late", "it waits", now, now, 1, "id")
        self._tell(drift)
        self.kept.append(drift)

    def ends(self, service: str) -> None:
        now = START + trio.current_time()
        index = next(i for i, one in enumerate(self.kept) if one.service == service)
        self.kept[index] = self.kept[index]._replace(ended=now, ended_seq=int(now * 1000))
        self._tell(self.kept[index])

    def _tell(self, drift: Drift) -> None:
        self._events.append(list(events_of(drift))[-1])
        self.last_seq = self._events[-1].seq
        self._news.set()
        self._news = trio.Event()


class Office:
    """A store, its view and its writer, which outlive the notifier; and receivers with the manners of the test."""

    def __init__(self) -> None:
        self.key = SigningKey(bytes(32))
        self.drift = Drifts([])
        self.statuses = StatusBoard()
        self.store = MemoryStore(FIRST_EPOCH)
        self.store.vouching = VOUCHING
        self.view = CommittedView(empty())
        self.world = World(clock=Wall(), randomness=Counting())
        self.manners: Callable[[str], Answered | Unanswered] = lambda _name: OK
        self.takes_s = 0.0
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self.tried_at: list[float] = []
        self.at_once = self.most_at_once = 0
        self.writes = self.receipts = 0
        self.is_readable = True
        self.ahead_s = 0.0

    # ── what the notifier is given ─────────────────────────────────────────────────────────────

    async def changes(self, query: ChangesQuery, _context: Context) -> Sequence[Change]:
        await trio.lowlevel.checkpoint()
        if not self.is_readable:
            raise ReadOnly("the disk is gone")
        return self.store.changes(query)

    async def drifts(self, query: DriftQuery, _context: Context) -> Sequence[Drift]:
        await trio.lowlevel.checkpoint()
        assert query.since is not None
        return [one for one in self.drift.kept if one.ended is None or one.ended >= query.since]

    async def secret_of(self, _target: Notification) -> Secret:
        await trio.lowlevel.checkpoint()
        return SECRET

    async def write_down(self, what: Decidable[None]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_readable:
            raise ReadOnly("the disk is gone")
        self.writes += 1
        self.write(what)

    async def send(
        self,
        to: HttpTarget,
        body: bytes,
        headers: Sequence[tuple[str, str]],
        _within_s: float,
    ) -> Answered | Unanswered:
        name = to.path.removeprefix("/")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.takes_s)
        finally:
            self.at_once -= 1
        self.tried_at.append(trio.current_time())
        self.ids.append(dict(headers)["webhook-id"])
        answer = self.manners(name)
        if answer.ok:
            self.got.append((name, json.loads(body)))
        return answer

    # ── what a test does ───────────────────────────────────────────────────────────────────────

    def write(self, what: Decidable[Any], by: str = "ada") -> Any:
        now = self.world.clock.now() + self.ahead_s
        decided = what.decide(self.view.committed, equipped(by=by, now=now))
        self.store.commit([decided.change])
        self.view.replace(decided.change.after)
        return decided.answer

    def put(self, number: int, service: str = "lamp") -> None:
        self.write(Put(service=service, values={"n": number}))

    def add(
        self, name: str, events: tuple[EventKind, ...] = EVERY, services: tuple[str, ...] = ("*",)
    ) -> None:
        url = f"http://127.0.0.1:9/{name}"
        self.write(AddNotification(name, url, False, events, services, SECRET))

    def refuses(self, revision: int, *, enrolled: bool = True, service: str = "lamp") -> None:
        """An instance says so, with its next receipt."""
        self.receipts += 1
        receipt = make(
            self.receipts,
            service=service,
            last_attempt=Attempt(revision, "refused", "no such voice"),
        )
        payload = receipt.to_bytes()
        key = self.key if enrolled else SigningKey(bytes(range(32)))
        signature = key.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
        signatures = (Signature(wire.keyid(key.verify_key.encode()), signature),)
        envelope = Envelope(wire.RECEIPT, payload, signatures).to_bytes()
        topic = wire.status_topic(service, "kitchen")
        now = self.world.clock.now()
        self.statuses.take("A", topic, envelope, retained=False, now=now)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Notifier]:
        """Until it is killed: nothing is said at the end."""
        self.drift = Drifts(self.drift.kept)
        self.statuses = StatusBoard(
            lambda service, _: None if service == "stranger" else bytes(self.key.verify_key)
        )
        notifier = Notifier(
            self.view,
            self,
            self.drift,  # type: ignore[arg-type]
            self.statuses,
            self.write_down,
            Post(self.world, "4f0c2d1e", self.secret_of, self.send),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.work)
            yield notifier
            nursery.cancel_scope.cancel()

    def told(self) -> list[tuple[str, object]]:
        return [(body["type"], body.get("event", body["revision"])) for _, body in self.got]

    def revisions(self, name: str = "chat") -> list[int]:
        return [body["revision"] for who, body in self.got if who == name]


SECRET = make_webhook_secret(SystemRandomness())


@pytest.fixture
def office() -> Office:
    return Office()


def reached(office: Office, name: str) -> int:
    place = place_of(office.view.committed, name)
    assert place is not None
    return place.revision


# ── what is told ───────────────────────────────────────────────────────────────────────────────


async def test_each_change_after_the_adding_is_told_once_in_order(
    office: Office, autojump_clock: MockClock
) -> None:
    office.put(1)
    async with office.running():
        office.add("chat")
        for number in range(2, 30):
            office.put(number)
            await trio.sleep(0.01)
        await trio.sleep(5)
    assert office.revisions() == list(range(2, 30))
    assert len(set(office.ids)) == 28
    assert office.most_at_once == 1
    name, body = office.got[0]
    assert name == "chat"
    assert body == {
        "type": "revision",
        "revision": 2,
        "config_epoch": FIRST_EPOCH.id,
        "epoch_seq": 1,
        "at": body["at"],
        "by": "ada",
        "action": "put",
        "reason": None,
        "correlation_id": "id",
        "services": ["lamp"],
    }


async def test_a_target_hears_of_its_events_and_services_alone(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("all")
    office.add("lamps", services=("lamp-*",))
    office.add("drifts", events=("drift",))
    async with office.running():
        office.put(1, "lamp-1")
        office.put(2, "bell")
        await trio.sleep(1)
        for service in ("lamp-2", "bell"):
            office.drift.begins(service)
            await trio.sleep(1)
    told = [
        (name, body["type"], body.get("service") or body["revision"]) for name, body in office.got
    ]
    assert sorted(told, key=str) == [
        ("all", "drift", "bell"),
        ("all", "drift", "lamp-2"),
        ("all", "revision", 1),
        ("all", "revision", 2),
        ("drifts", "drift", "bell"),
        ("drifts", "drift", "lamp-2"),
        ("lamps", "drift", "lamp-2"),
        ("lamps", "revision", 1),
    ]


async def test_a_target_that_is_down_holds_up_no_other(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("down")
    office.add("chat")
    office.manners = lambda name: DOWN if name == "down" else OK
    async with office.running() as notifier:
        for number in range(1, 6):
            office.put(number)
        await trio.sleep(3)
        chat, down = notifier.targets()
    assert office.revisions() == [1, 2, 3, 4, 5]
    assert (chat.state, down.state, len(down.queue)) == ("ok", "trying", 5)
    assert down.last_error == "nobody is there"


async def test_what_is_removed_is_told_nothing_more_and_what_is_added_again_begins_anew(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    office.manners = lambda _name: DOWN
    async with office.running() as notifier:
        office.put(1)
        await trio.sleep(5)
        office.write(RemoveNotification("chat"))
        await trio.sleep(5)
        assert notifier.targets() == []
        office.manners = lambda _name: OK
        office.add("chat")
        office.put(2)
        await trio.sleep(5)
    assert office.revisions() == [2]


# ── again, and for how long ────────────────────────────────────────────────────────────────────


async def test_what_fails_is_sent_again_with_growing_pauses_and_the_same_id(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    office.manners = lambda _name: Answered(500)
    async with office.running() as notifier:
        office.put(1)
        await trio.sleep(DAY_S / 2)
        [line] = notifier.targets()
        assert line.last_error == "the answer was 500"
        pauses = [b - a for a, b in zip(office.tried_at, office.tried_at[1:], strict=False)]
        # half of 1 s, 2 s, … as this world's chance is always one half
        assert pauses[:10] == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256])
        assert pauses[10:] == pytest.approx([300] * len(pauses[10:]))
        office.manners = lambda _name: OK
        await trio.sleep(601)
        assert (line.state, len(line.queue)) == ("ok", 0)
    assert office.revisions() == [1]
    assert set(office.ids) == {"4f0c2d1e-1-1"}


async def test_after_a_day_in_vain_it_fails_gives_up_what_is_old_and_recovers_by_itself(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    office.manners = lambda _name: DOWN
    async with office.running() as notifier:
        office.put(1)
        office.put(2)
        await trio.sleep(DAY_S - 700)
        [line] = notifier.targets()
        assert (line.state, notifier.reasons()) == ("trying", [])
        await trio.sleep(1400)
        assert line.state == "failing"
        assert notifier.reasons() == [
            "notification chat has been failing for over a day: GET /api/v1/notifications says why"
        ]
        assert [one.number for one in line.queue] == [2]  # with which it goes on being tried
        office.put(3)
        await trio.sleep(700)
        assert [one.number for one in line.queue] == [3]
        assert line.queue.given_up == 2
        office.manners = lambda _name: OK
        await trio.sleep(700)
        assert (line.state, notifier.reasons()) == ("ok", [])
    assert office.revisions() == [3]


async def test_a_thousand_wait_and_the_oldest_give_way(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    office.manners = lambda _name: DOWN
    async with office.running() as notifier:
        for number in range(1, MOST_WAITING + 2):
            office.put(number)
        await trio.sleep(60)
        [line] = notifier.targets()
        assert len(line.queue) == MOST_WAITING == 1000
        assert line.queue.given_up == 1
        office.manners = lambda _name: OK
        await trio.sleep(700)
    assert office.revisions() == list(range(2, 1002))


async def test_refusals_without_end_take_no_memory_without_end_while_nothing_can_be_written(
    office: Office, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def can_not(_what: object) -> None:
        raise ReadOnly("the disk is gone")

    monkeypatch.setattr(office, "write_down", can_not)
    office.add("chat")
    async with office.running() as notifier:
        for revision in range(MOST_WAITING + 5):
            office.refuses(revision)
        await trio.sleep(5)
        kept: object = vars(notifier)["_unkept"]
    assert len(kept) == MOST_WAITING  # type: ignore[arg-type]


async def test_a_test_goes_past_what_waits_and_if_it_is_answered_the_rest_follows(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    office.manners = lambda _name: DOWN
    async with office.running() as notifier:
        office.put(1)
        await trio.sleep(DAY_S / 2)
        context = Context("test", trio.current_time() + 10)
        assert await notifier.handle(SendTest("chat", 8), context) == DOWN
        office.manners = lambda _name: OK
        tried = len(office.tried_at)
        assert await notifier.handle(SendTest("chat", 8), context) == OK
        await trio.sleep(0.1)
        assert len(office.tried_at) == tried + 2
        with pytest.raises(NotFound):
            await notifier.handle(SendTest("nobody", 8), context)
    assert [body["type"] for _, body in office.got] == ["test", "revision"]


# ── what stays ─────────────────────────────────────────────────────────────────────────────────


async def test_after_a_kill_it_goes_on_at_its_place(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    async with office.running():
        office.put(1)
        await trio.sleep(3)
        office.manners = lambda _name: DOWN
        office.put(2)
        await trio.sleep(3)
        office.drift.begins("lamp")
        await trio.sleep(3)
        office.refuses(2)
        await trio.sleep(3)
        office.put(3)
        await trio.sleep(3)
        office.drift.ends("lamp")
        await trio.sleep(3)
    office.put(4)  # while nobody was there to see it
    office.manners = lambda _name: OK
    async with office.running():
        await trio.sleep(3)
    told = [
        ("revision", 1),
        ("revision", 2),
        ("drift", "began"),
        ("refused", 2),
        ("revision", 3),
        ("drift", "ended"),
        ("revision", 4),
    ]
    assert office.told() == told
    assert office.view.committed.registered(NOTICE) == {}
    async with office.running():
        await trio.sleep(3)
    assert office.told() == told
    # whatever was tried before the kill had the same id
    assert len(set(office.ids)) == len(told)


async def test_a_refusal_is_told_once_until_it_is_another_one_and_never_of_who_only_claims(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat", events=("refused",))
    async with office.running():
        for revision in (1, 1, 2):
            office.refuses(revision)
            office.refuses(revision, service="stranger")
            office.refuses(revision, enrolled=False)
            await trio.sleep(1)
        await trio.sleep(3)
    assert [body["revision"] for _, body in office.got] == [1, 2]
    _, body = office.got[0]
    assert body == {
        "type": "refused",
        "service": "lamp",
        "instance": "kitchen",
        "revision": 1,
        "stage": "refused",
        "why": "no such voice",
        "at": rfc3339(START),
        "correlation_id": "change-1",
    }


async def test_drift_is_told_as_it_begins_and_ends(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    async with office.running():
        await trio.sleep(60)
        office.drift.begins("lamp")
        await trio.sleep(60)
        office.drift.ends("lamp")
        await trio.sleep(60)
    began, ended = (body for _, body in office.got)
    assert began == {
        "type": "drift",
        "event": "began",
        "service": "lamp",
        "instance": "kitchen",
        "state": "late",
        "why": "it waits",
        "since": rfc3339(START + 60),
        "at": rfc3339(START + 60),
        "revision": 1,
        "correlation_id": "id",
    }
    assert ended == {**began, "event": "ended", "at": rfc3339(START + 120)}


async def test_who_is_added_while_the_clock_is_ahead_hears_of_drift_once_it_is_set_right(
    office: Office, autojump_clock: MockClock
) -> None:
    async with office.running():
        await trio.sleep(1)
        office.ahead_s = DAY_S
        office.add("chat")
        await trio.sleep(1)
        office.ahead_s = 0.0
        office.drift.begins("lamp")
        await trio.sleep(2)
    assert [body["event"] for _, body in office.got] == ["began"]
    place = place_of(office.view.committed, "chat")
    assert place is not None
    assert place.drift == office.drift.last_seq


async def test_drift_that_was_kept_just_before_a_kill_is_told_after_it(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    async with office.running():
        await trio.sleep(5)
    office.drift.begins("lamp")  # nobody was told of it any more
    async with office.running():
        await trio.sleep(5)
    async with office.running():
        await trio.sleep(5)
    assert office.told() == [("drift", "began")]


async def test_what_was_delivered_in_the_last_second_before_a_kill_comes_again_with_the_same_id(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    async with office.running():
        office.put(1)
        await trio.sleep(0.5)
    async with office.running():
        await trio.sleep(3)
    assert office.revisions() == [1, 1]
    assert office.ids == ["4f0c2d1e-1-1"] * 2


async def test_places_are_written_once_a_second_however_much_is_told(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    async with office.running():
        for number in range(100):
            office.put(number)
            await trio.sleep(0.1)
        await trio.sleep(10)
    assert len(office.revisions()) == 100
    assert office.writes <= 12


async def test_a_target_that_is_behind_costs_another_nothing(
    office: Office, autojump_clock: MockClock
) -> None:
    """Each begins at its own place, whatever was read for the others."""
    office.add("down")
    office.manners = lambda name: DOWN if name == "down" else OK
    async with office.running():
        office.put(1)
        office.put(2)
        await trio.sleep(3)
        office.add("chat")
        office.put(3)
        await trio.sleep(3)
    async with office.running():
        await trio.sleep(3)
        office.put(4)
        await trio.sleep(3)
    assert office.revisions() == [3, 4]
    assert reached(office, "chat") == 4
    assert reached(office, "down") == 0


async def test_while_the_database_can_not_be_read_drifts_are_told_and_changes_later(
    office: Office, autojump_clock: MockClock
) -> None:
    office.add("chat")
    async with office.running():
        await trio.sleep(1)
        office.put(1)
        office.is_readable = False
        office.refuses(1)
        await trio.sleep(30)
        assert [body["type"] for _, body in office.got] == ["refused"]
        office.is_readable = True
        await trio.sleep(30)
    assert [body["type"] for _, body in office.got] == ["refused", "revision"]
    assert reached(office, "chat") == 1


def test_there_are_sixteen_at_most_each_with_its_name() -> None:
    state = empty()
    for number in range(16):
        what = AddNotification(
            f"to-{number}", "https://example.org/s3cret", False, EVERY, ("*",), SECRET
        )
        state = what.decide(state, equipped()).change.after
    for name, why in (("to-1", "already"), ("to-16", "16")):
        with pytest.raises(Conflict, match=why):
            AddNotification(name, "https://example.org", False, EVERY, ("*",), SECRET).decide(
                state, equipped()
            )
    change = RemoveNotification("to-1").decide(state, equipped()).change
    assert change.forgotten == ("config-manager", "to-1")
    assert len(notifications(change.after)) == 15
    assert change.audit is not None
    assert b"s3cret" not in change.audit.body
    assert rfc3339(START).encode() in change.audit.body
