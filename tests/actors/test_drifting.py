"""What is kept of instances, and when: receipts that say something new, and drift; at most once a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from config_manager.actors import receipts_kept
from config_manager.actors.actor import Actor, Context, answering
from config_manager.actors.drifting import Drifting, drifting
from config_manager.actors.messages import Keep, Prune
from config_manager.config.documents.receipt import Attempt
from config_manager.config.errors import ReadOnly
from config_manager.config.world import World
from config_manager.storage.drifts import DriftQuery, KeptReceipt, ReceiptsQuery
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.store import Store
from tests.kit.instances import EPOCH, START, Fleet

R = TypeVar("R")
KEEP_S = 1_000.0


class Database:
    """A store, and what storing and reading make of it; storing keeps nothing while it `fails`."""

    def __init__(self) -> None:
        self.store = MemoryStore(EPOCH)
        self.fails = False
        self.refuses = 0
        self.keeps: list[tuple[float, Keep]] = []

    async def handle(self, request: Any, _context: Context) -> object:
        await trio.lowlevel.checkpoint()
        if isinstance(request, Prune):
            return self.store.prune_observed(request.before, request.limit)
        assert isinstance(request, Keep)
        self.keeps.append((trio.current_time(), request))
        if not self.fails:
            self.store.keep_observed(request.observed)
        return not self.fails

    async def past(self, read: Callable[[Store], R], _context: Context) -> R:
        await trio.lowlevel.checkpoint()
        self.refuses -= 1
        if self.refuses >= 0:
            raise ReadOnly("the disk fails")
        return read(self.store)

    def receipts(self, instance: str = "x", service: str = "a") -> Sequence[KeptReceipt]:
        return self.store.receipts(ReceiptsQuery(service, instance))


@asynccontextmanager
async def server(database: Database, *enrolled: str, revision: int = 1) -> AsyncIterator[Fleet]:
    """One start: service `a` at this revision, `x` and others enrolled."""
    fleet = Fleet({"a": revision}, monotonic=trio.current_time)
    for instance in ("x", *enrolled):
        fleet.enrol("a", instance)
    storing = Actor("storing", answering(database.handle))
    work = Drifting(
        fleet.board,
        fleet.statuses,
        fleet.view,
        storing,
        database,  # type: ignore[arg-type]
        World(clock=fleet),
        keep_s=KEEP_S,
    )
    async with storing.running():
        await work.restore()
        async with Actor("drifting", drifting(work)).running():
            yield fleet


async def test_receipts_are_kept_where_they_say_something_new_and_together_within_a_second(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with server(database) as fleet:
        fleet.hear("a", "x", None)
        fleet.hear("a", "x", 1, last_attempt=Attempt(1, "applied"))
        fleet.hear("a", "x", 1, last_attempt=Attempt(1, "applied"))
        fleet.hear("a", "x", 1, last_attempt=Attempt(1, "healthy"))
        fleet.hear("a", "stranger", 1)
        await trio.sleep(1.5)
        assert [one.stage for one in database.receipts()] == [None, "applied", "healthy"]
        assert [one.state for one in database.receipts()] == ["pending", "in-line", "in-line"]
        assert database.receipts("stranger") == []
        assert len(database.keeps) == 1
        for words in ("stale (no-beacon)", "stale (withheld)", "fresh"):
            fleet.hear("a", "x", 1, last_attempt=Attempt(1, "healthy"), freshness=words)
        await trio.sleep(1.5)
        assert [one.state for one in database.receipts()][3:] == ["stale", "in-line"]


async def test_of_an_instance_that_never_stops_talking_ten_a_minute_are_kept_and_the_newest(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with server(database) as fleet:
        for number in range(50):
            fleet.hear("a", "x", 1, last_attempt=Attempt(number, "received"))
            await trio.sleep(0.2)
        await trio.sleep(2.0)
        assert [one.attempted for one in database.receipts()] == list(range(10))
        await trio.sleep(60.0)
        assert [one.attempted for one in database.receipts()] == [*range(10), 49]


async def test_a_receipt_that_was_held_back_is_kept_before_the_ones_that_came_after_it(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with server(database) as fleet:
        fleet.view.mode = "read-only"
        for number in range(12):
            fleet.hear("a", "x", 1, last_attempt=Attempt(number, "received"))
        await trio.sleep(61.0)
        fleet.hear("a", "x", 1, last_attempt=Attempt(12, "received"))
        fleet.view.mode = "normal"
        await trio.sleep(2.0)
        assert [one.attempted for one in database.receipts()] == [*range(10), 11, 12]


async def test_drift_is_kept_as_it_begins_and_ends_and_wakes_who_waits(
    autojump_clock: MockClock,
) -> None:
    database, woken = Database(), list[float]()

    async def follow(fleet: Fleet) -> None:
        while True:
            await fleet.board.changed()
            if fleet.board.events_after(0):
                woken.append(trio.current_time())

    async with server(database) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(follow, fleet)
        fleet.hear("a", "x", 1)
        await trio.sleep(1.0)
        fleet.commit("a", 2)
        fleet.confirm("a", 2)
        await trio.sleep(42.0)
        (open_,) = database.store.drifts(DriftQuery())
        assert (open_.state, open_.ended) == ("late", None)
        assert open_.since == pytest.approx(START + 31.0, abs=0.1)
        assert open_.began == pytest.approx(START + 41.0, abs=0.1)
        fleet.hear("a", "x", 2)
        await trio.sleep(2.0)
        (ended,) = database.store.drifts(DriftQuery())
        assert ended[:5] == open_[:5]
        assert ended.ended is not None
        assert woken == pytest.approx([41.0, 43.0], abs=0.1)
        nursery.cancel_scope.cancel()


async def test_after_a_restart_the_board_is_as_before(autojump_clock: MockClock) -> None:
    database = Database()
    others = ("back", "gone", "never", "refuses")
    async with server(database, *others) as fleet:
        for instance in ("x", "gone", "refuses"):
            fleet.hear("a", instance, 1)
        fleet.hear("a", "gone", 1, gone=True)
        fleet.hear("a", "back", 1, gone=True)
        fleet.hear("a", "back", 1)
        fleet.commit("a", 2)
        fleet.confirm("a", 2)
        fleet.hear("a", "refuses", 1, last_attempt=Attempt(2, "refused", "model: no"))
        await trio.sleep(50.0)
        fleet.hear("a", "back", 2)  # and the server ends before this second is over
        before = [one for one in fleet.board.judged() if one.instance != "never"]
        open_before = fleet.board.open()
    assert {one.instance: one.state for one in before} == {
        "back": "in-line",
        "gone": "silent",
        "refuses": "refused",
        "x": "late",
    }
    async with server(database, *others, revision=2) as fleet:
        fleet.confirm("a", 2)
        await trio.sleep(1.0)
        after = [one for one in fleet.board.judged() if one.instance != "never"]
        assert [(one.instance, one.state, one.why) for one in after] == [
            (one.instance, one.state, one.why) for one in before
        ]
        assert fleet.state("a", "never") == "silent"
        assert [one.seq for one in fleet.board.open()] == [one.seq for one in open_before]
        assert [one.since for one in fleet.board.open()] == [one.since for one in open_before]
        assert fleet.events() == []
        assert all(one.status and one.status.is_from_before for one in after)
        kept = len(database.receipts())
        fleet.repeat("a", "x")  # what the broker retains
        await trio.sleep(1.5)
        judged = fleet.board.one("a", "x")
        assert judged is not None
        assert judged.status is not None
        assert not judged.status.is_from_before
        assert len(database.receipts()) == kept, "it tells nothing new"
        fleet.hear("a", "gone", 2, boot_seq=2)
        await trio.sleep(1.5)
        assert fleet.state("a", "gone") == "in-line"


async def test_what_was_forgotten_or_has_another_key_since_does_not_come_back(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with server(database, "other") as fleet:
        fleet.hear("a", "x", 1)
        fleet.hear("a", "other", 1)
        await trio.sleep(2.0)
        assert len(database.receipts()) == 1
        fleet.forget("a", "x")
        await trio.sleep(2.0)
        assert database.receipts() == []
    async with server(database) as fleet:  # `other` is not enrolled here
        assert [one.instance for one in fleet.board.judged()] == ["x"]
        assert fleet.state("a", "x") == "silent"
    assert len(database.receipts("other")) == 1, "the past stays"


async def test_what_the_database_does_not_take_is_kept_once_it_does(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    database.fails = True
    async with server(database) as fleet:
        fleet.hear("a", "x", None)
        await trio.sleep(3.5)
        assert database.receipts() == []
        assert len(database.keeps) >= 3
        database.fails = False
        fleet.hear("a", "x", 1)
    assert [one.revision for one in database.receipts()] == [None, 1], "also what came at the end"


async def test_while_the_database_is_read_only_for_long_only_the_newest_waits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts_kept, "_MOST_WAIT", 12)
    database = Database()
    async with server(database) as fleet:
        fleet.view.mode = "read-only"
        for number in range(25):
            fleet.hear("a", "x", 1, last_attempt=Attempt(number, "received"))
            await trio.sleep(6.1)
        fleet.view.mode = "normal"
        await trio.sleep(2.0)
        assert [one.attempted for one in database.receipts()] == [24]


async def test_while_the_database_can_not_be_read_brokers_have_to_do_and_open_drift_ends_later(
    autojump_clock: MockClock,
) -> None:
    database = Database()
    async with server(database) as fleet:
        fleet.hear("a", "x", None)
        await trio.sleep(50.0)
        assert len(fleet.board.open()) == 1
    database.refuses = 1
    async with server(database) as fleet:
        fleet.hear("a", "x", 1)
        assert fleet.state("a", "x") == "in-line"
        await trio.sleep(3.0)
        (drift,) = database.store.drifts(DriftQuery())
        assert drift.ended is not None


async def test_old_receipts_are_pruned(autojump_clock: MockClock) -> None:
    database = Database()
    async with server(database) as fleet:
        for number in range(4):
            fleet.hear("a", "x", 1, last_attempt=Attempt(number, "healthy"))
        await trio.sleep(2.0)
        assert len(database.receipts()) == 4
        await trio.sleep(KEEP_S + 3_700.0)
        assert [one.attempted for one in database.receipts()] == [0, 3]
