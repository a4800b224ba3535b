"""The single writer when its store fails: what the caller is told, and what is true afterwards."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import trio
import trio.testing

from config_manager.config.names import Epoch
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.state import HistoryPage, HistoryQuery
from config_manager.storage.store import DatabaseUnavailable, DiskFull
from tests.api.asgi import Answer, Caller, on_disk, running, with_the_key

DOOR = "/api/v1/config/door"


class FailingStore(MemoryStore):
    """Fails its next commit, before or after it became durable."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(epoch)
        self.fails: DatabaseUnavailable | None = None
        self.durable_first = False

    def commit_staged(self) -> None:
        error, self.fails = self.fails, None
        if error is None or self.durable_first:
            super().commit_staged()
        if error is not None:
            raise error


async def test_a_commit_that_fails_may_have_become_durable_and_the_caller_is_told(
    tmp_path: Path,
) -> None:
    stores: list[FailingStore] = []

    def make(epoch: Epoch) -> FailingStore:
        stores.append(FailingStore(epoch))
        return stores[-1]

    async with running(tmp_path, make) as system:
        rest = Caller(system)
        stores[0].fails, stores[0].durable_first = DatabaseUnavailable("EIO"), True
        key = {"Idempotency-Key": "once"}
        told = await rest.ask("PUT", DOOR, {"open": True}, headers=key)
        assert told.status == 503
        assert told.json["type"] == "/problems/outcome-unknown"
        assert "may have been written" in told.json["detail"]
        assert told.headers["retry-after"]
        while system.view.mode == "read-only":  # until it has been opened afresh
            await system.view.changed()
        assert (await rest.ask("GET", DOOR)).json["revision"] == 1
        again = await rest.ask("PUT", DOOR, {"open": True}, headers=key)
        assert again.json["revision"] == 1, "the same key repeats nothing"


async def test_a_full_disk_wrote_nothing_and_says_so(tmp_path: Path) -> None:
    stores: list[FailingStore] = []

    def make(epoch: Epoch) -> FailingStore:
        stores.append(FailingStore(epoch))
        return stores[-1]

    async with running(tmp_path, make) as system:
        rest = Caller(system)
        stores[0].fails = DiskFull("SQLITE_FULL")
        told = await rest.ask("PUT", DOOR, {"open": True})
        assert (told.status, told.json["type"]) == (507, "/problems/storage-full")
        assert system.view.mode == "normal"
        assert (await rest.ask("PUT", DOOR, {"open": True})).json["revision"] == 1


async def test_a_write_waits_for_somebody_elses_lock_without_holding_up_the_event_loop(
    tmp_path: Path,
) -> None:
    told: list[Answer] = []

    async def put(rest: Caller) -> None:
        told.append(await rest.ask("PUT", DOOR, {"open": True}))

    async with on_disk(tmp_path) as system:
        with with_the_key(tmp_path, read_only=False) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(put, Caller(system))
                await trio.testing.wait_all_tasks_blocked()
                assert not told, "it waits, and others go on"
                stranger.execute("ROLLBACK")
        assert [(a.status, a.json["revision"]) for a in told] == [(201, 1)]
        assert system.view.mode == "normal"


class SlowToRead(MemoryStore):
    """Reads its history only once somebody on the event loop has let it."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(epoch)
        self.let = Event()

    def history(self, query: HistoryQuery) -> HistoryPage:
        if not self.let.wait(5):
            raise AssertionError("the event loop stood still")
        return super().history(query)


async def test_a_long_page_of_history_is_read_while_the_event_loop_goes_on(tmp_path: Path) -> None:
    stores: list[SlowToRead] = []
    told: list[Answer] = []

    def make(epoch: Epoch) -> SlowToRead:
        stores.append(SlowToRead(epoch))
        return stores[-1]

    async def read(rest: Caller) -> None:
        told.append(await rest.ask("GET", f"{DOOR}/history"))

    async with running(tmp_path, make) as system:
        rest = Caller(system)
        await rest.ask("PUT", DOOR, {"open": True})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, rest)
            await trio.testing.wait_all_tasks_blocked()
            assert (await rest.ask("GET", DOOR)).status == 200
            stores[0].let.set()
        assert [len(answer.json["entries"]) for answer in told] == [1]
