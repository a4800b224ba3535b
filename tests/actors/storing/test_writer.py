"""The single writer when its store fails: what the caller is told, and what is true afterwards."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

import pytest
import trio
import trio.testing
from pydantic import SecretStr

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.storing import opening
from config_manager.actors.system import System, running_system
from config_manager.config import wire
from config_manager.config.names import Epoch
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import SystemDisk, World
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.state import Commit, HistoryPage, HistoryQuery, SealedSecret
from config_manager.storage.store import CommitUnsure, DatabaseUnavailable, DiskFull, Finish
from tests.kit.asgi import TOKEN, Answer, Caller, on_disk, running, with_the_key
from tests.kit.desk import MemoryBroker

DOOR = "/api/v1/config/door"
T = TypeVar("T")
S = TypeVar("S", bound=MemoryStore)


def made_with(kind: Callable[[Epoch], S]) -> tuple[list[S], Callable[[Epoch], S]]:
    """The stores that a system opens, and what opens them."""
    stores: list[S] = []

    def make(epoch: Epoch) -> S:
        stores.append(kind(epoch))
        return stores[-1]

    return stores, make


class FailingStore(MemoryStore):
    """Fails its next commit, before or after it became durable."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(epoch)
        self.fails: DatabaseUnavailable | None = None
        self.durable_first = False

    def begin(self, changes: Sequence[Commit]) -> Finish:
        keep = super().begin(changes)

        def finish() -> None:
            error, self.fails = self.fails, None
            if error is None or self.durable_first:
                keep()
            if error is not None:
                raise error

        return finish


async def test_a_commit_that_fails_may_have_become_durable_and_the_caller_is_told(
    tmp_path: Path,
) -> None:
    stores, make = made_with(FailingStore)
    async with running(tmp_path, make) as system:
        rest = Caller(system)
        stores[0].fails, stores[0].durable_first = CommitUnsure("EIO"), True
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
    stores, make = made_with(FailingStore)
    async with running(tmp_path, make) as system:
        rest = Caller(system)
        stores[0].fails = DiskFull("SQLITE_FULL")
        told = await rest.ask("PUT", DOOR, {"open": True})
        assert (told.status, told.json["type"]) == (507, "/problems/storage-full")
        assert (system.view.mode, system.health().ok) == ("normal", True)
        assert any("the disk is full" in why for why in system.health().reasons)
        assert (await rest.ask("PUT", DOOR, {"open": True})).json["revision"] == 1
        assert system.health().reasons == ()


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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_PROBE_INTERVAL_S", 0.01)
    monkeypatch.setattr(opening, "_REOPEN_INTERVAL_S", 0.01)


async def read_only_for(system: System, reason: str) -> None:
    with trio.fail_after(5):
        while system.view.mode == "normal" or reason not in "; ".join(system.view.reasons):
            await trio.sleep(0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_data_directory_that_was_emptied_is_not_begun_anew_while_running_nor_at_a_start(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        assert (await rest.ask("PUT", DOOR, {"open": True})).status == 201
        for name in ("config.db", "config.db-wal", "config.db-shm", "instance.json"):
            (tmp_path / name).unlink()
        await read_only_for(system, "missing or empty")
        assert "No such file" in system.view.reasons[0], "what it began with is still said"
        assert not (tmp_path / "config.db").exists()
        told = await rest.ask("PUT", DOOR, {"open": False})
        assert (told.status, told.json["type"]) == (503, "/problems/read-only")
    (tmp_path / "instance.json").unlink(missing_ok=True)
    async with on_disk(tmp_path) as system:
        assert system.view.mode == "read-only"
        assert "the database has door at no revision" in system.view.reasons[0]
        assert (await Caller(system).ask("GET", DOOR)).json["config"] == {"open": True}


@pytest.mark.usefixtures("impatient")
async def test_a_log_that_was_cut_costs_no_acknowledged_write_in_silence(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        for number in range(3):
            await rest.ask("PUT", DOOR, {"n": number})
        os.truncate(tmp_path / "config.db-wal", 0)
        told = await rest.ask("PUT", DOOR, {"n": 3})
        assert told.status == 503
        await read_only_for(system, "config.db-wal was cut")
        assert (await rest.ask("GET", DOOR)).json["config"] == {"n": 2}
    async with on_disk(tmp_path) as system:
        assert system.view.mode == "read-only"
        assert (await Caller(system).ask("GET", DOOR)).json["config"] == {"n": 2}


async def test_one_service_of_an_older_database_gives_it_away_though_the_counter_is_right(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        await rest.ask("PUT", DOOR, {"n": 1})
        before = system.view.committed.services["door"]
        await rest.ask("PUT", DOOR, {"n": 2})
    with with_the_key(tmp_path, read_only=False) as stranger:
        stranger.execute("UPDATE configurations SET revision = ?", (before.revision,))
    async with on_disk(tmp_path) as system:
        assert system.view.mode == "read-only"
        assert system.view.reasons[0] == "not-audited: door"
        assert "the database has door at revision 1" in " ".join(system.view.reasons)


async def test_a_token_that_a_read_only_start_can_not_accept_is_named_in_health(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        assert (await Caller(system).ask("PUT", DOOR, {"open": True})).status == 201
    database = tmp_path / "config.db"
    content = database.read_bytes()  # every page but the first: it opens, and can't be read
    database.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    settings = Settings(
        data_dir=tmp_path, mqtt_url="none:", bootstrap_token=SecretStr("another-token")
    )
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
    ) as system:
        report = system.health()
        assert report.mode == "read-only"
        assert any("the bootstrap token" in reason for reason in report.reasons), report.reasons


@pytest.mark.parametrize(
    ("is_behind_the_first", "says"),
    [
        (True, "a part of the kept file does not verify"),
        (False, "the newest kept file does not verify"),
    ],
)
async def test_an_older_cache_is_taken_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_behind_the_first: bool, says: str
) -> None:
    newest, previous = tmp_path / "config.lkg", tmp_path / "config.lkg.previous"
    place = 100
    for number in (1, 2):
        async with on_disk(tmp_path) as system:
            told = await Caller(system).ask("PUT", DOOR, {"n": number})
            assert told.status in (200, 201)
        if number == 1:
            shutil.copy(newest, previous)
            if (
                is_behind_the_first
            ):  # in the first record of the second run, which may write several
                place += newest.stat().st_size
    raw = bytearray(newest.read_bytes())
    raw[place] ^= 1
    newest.write_bytes(raw)
    capsys.readouterr()
    async with on_disk(tmp_path) as system:
        assert system.view.mode == "normal"
    lines = [line for line in capsys.readouterr().out.splitlines() if "older cache taken" in line]
    assert [says in line for line in lines] == [True]
    assert "revision=1" in lines[0]


class Sick(SystemDisk):
    """Fails to write where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: tuple[str, int] | None = None
        """a part of the path, and errno"""

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if self.fails is not None and self.fails[0] in str(path):
            raise OSError(self.fails[1], os.strerror(self.fails[1]), str(path))
        super().write_atomic(path, data, mode=mode)


@pytest.mark.parametrize("place", ["keys/", "trust/"])
@pytest.mark.parametrize(
    ("number", "status", "kind"),
    [(errno.ENOSPC, 507, "storage-full"), (errno.EIO, 503, "disk-refused")],
)
async def test_a_change_of_the_root_that_no_file_takes_is_refused_whole_and_the_actor_lives(
    tmp_path: Path, place: str, number: int, status: int, kind: str
) -> None:
    disk = Sick()
    settings = Settings(data_dir=tmp_path, mqtt_url="none:", bootstrap_token=SecretStr(TOKEN))
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World(disk=disk)
    ) as system:
        rest = Caller(system)
        keys, audit = sorted((tmp_path / "keys").iterdir()), system.view.committed.audit_seq
        beacon = system.trust.current.roles["beacon"].keyids[0]
        disk.fails = (place, number)
        for _ in range(7):  # once more than an actor may crash
            for call, body in (("rotate", {"role": "config"}), ("revoke", {"keyid": beacon})):
                told = await rest.ask("POST", f"/api/v1/trust/{call}", body)
                assert (told.status, told.json["type"]) == (status, f"/problems/{kind}"), told.json
                assert str(tmp_path) in told.json["detail"]
        assert system.trusting.state == "running"
        assert sorted((tmp_path / "keys").iterdir()) == keys
        assert system.view.committed.audit_seq == audit
        disk.fails = None
        told = await rest.ask("POST", "/api/v1/trust/rotate", {"role": "config"})
        assert told.status == 200, told.json
        assert system.trust.current.version == 2


class FullDisk(SystemDisk):
    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_full_disk_is_no_reason_not_to_start_and_health_names_it(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        assert (await Caller(system).ask("PUT", DOOR, {"open": True})).status == 201
    settings = Settings(data_dir=tmp_path, mqtt_url="none:", bootstrap_token=SecretStr(TOKEN))
    async with running_system(
        settings,
        catalogue=SAMPLE_CATALOGUE,
        transport=AiomqttTransport(),
        world=World(disk=FullDisk()),
    ) as system:
        assert any("this start is not noted" in reason for reason in system.health().reasons)
        assert (await Caller(system).ask("GET", DOOR)).json["config"] == {"open": True}


class SlowToRead(MemoryStore):
    """Reads its history and its secrets only once somebody on the event loop has let it."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(epoch)
        self.let = Event()

    def history(self, query: HistoryQuery) -> HistoryPage:
        self._wait()
        return super().history(query)

    def secret_versions(
        self, service: str | None = None, name: str | None = None
    ) -> Sequence[SealedSecret]:
        self._wait()
        return super().secret_versions(service, name)

    def _wait(self) -> None:
        if not self.let.wait(5):
            raise AssertionError("the event loop stood still")


async def test_a_long_page_of_history_is_read_while_the_event_loop_goes_on(tmp_path: Path) -> None:
    stores, make = made_with(SlowToRead)
    told: list[Answer] = []

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


@pytest.mark.parametrize(
    "target", [f"{DOOR}/history", "/api/v1/secrets", "/api/v1/secrets/door/pin"]
)
async def test_a_write_does_not_wait_for_who_reads(tmp_path: Path, target: str) -> None:
    stores, make = made_with(SlowToRead)
    async with running(tmp_path, make) as system:
        rest = Caller(system)
        await rest.ask("PUT", DOOR, {"open": True})
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(rest.ask, "GET", target)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3):
                assert (await rest.ask("PUT", DOOR, {"open": number})).status == 200
            stores[0].let.set()


async def test_nothing_is_read_for_who_has_left(tmp_path: Path) -> None:
    asked: list[HistoryQuery] = []

    class Noting(SlowToRead):
        def history(self, query: HistoryQuery) -> HistoryPage:
            asked.append(query)
            return super().history(query)

    stores, make = made_with(Noting)
    async with running(tmp_path, make) as system:
        rest = Caller(system)
        await rest.ask("PUT", DOOR, {"open": True})
        async with trio.open_nursery() as staying:
            staying.start_soon(rest.ask, "GET", f"{DOOR}/history?limit=1")
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as leaving:
                for _ in range(3):
                    leaving.start_soon(rest.ask, "GET", f"{DOOR}/history?limit=2")
                await trio.testing.wait_all_tasks_blocked()
                leaving.cancel_scope.cancel()
            staying.start_soon(rest.ask, "GET", f"{DOOR}/history?limit=3")
            await trio.testing.wait_all_tasks_blocked()
            stores[0].let.set()
        assert [query.limit for query in asked] == [1, 3]


async def test_a_page_that_can_not_be_read_makes_it_read_only_and_it_recovers(
    tmp_path: Path,
) -> None:
    stores, make = made_with(MemoryStore)
    async with running(tmp_path, make) as system:
        rest = Caller(system)
        await rest.ask("PUT", DOOR, {"open": True})
        stores[0].fail_next = DatabaseUnavailable("EIO")
        assert (await rest.ask("GET", f"{DOOR}/history")).status == 503
        assert system.view.mode == "read-only"
        told = await rest.ask("GET", f"{DOOR}/history")
        assert (told.status, told.json["type"]) == (503, "/problems/read-only")
        with trio.fail_after(10):
            while (await rest.ask("GET", f"{DOOR}/history")).status != 200:
                await trio.sleep(0.05)
        assert (await rest.ask("PUT", DOOR, {"open": False})).status == 200


class OneCallAtATime(MemoryStore):
    """Waits in one kind of call until it is let, and notes what comes meanwhile. A store is promised that
    nothing does: SQLite's connection, too, is one."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(epoch)
        self.waits_in: str | None = None
        self._lock = Lock()
        self.waiting = Event()
        self.let = Event()
        self.at_once: list[str] = []

    def _in_turn(self, name: str, call: Callable[[], T]) -> T:
        if not self._lock.acquire(blocking=False):
            self.at_once.append(name)
            return call()
        try:
            if name == self.waits_in and not self.let.is_set():
                self.waiting.set()
                assert self.let.wait(10), "nobody let it"
            return call()
        finally:
            self._lock.release()

    def probe(self) -> None:
        self._in_turn("probe", super().probe)

    def begin(self, changes: Sequence[Commit]) -> Finish:
        finish = self._in_turn("begin", lambda: MemoryStore.begin(self, changes))
        return lambda: self._in_turn("commit", finish)

    async def is_waiting(self) -> None:
        with trio.fail_after(10):
            await trio.to_thread.run_sync(self.waiting.wait, abandon_on_cancel=True)


@asynccontextmanager
async def one_at_a_time(
    directory: Path, waits_in: str
) -> AsyncIterator[tuple[System, OneCallAtATime]]:
    stores, make = made_with(OneCallAtATime)
    async with running(directory, make) as system:
        (store,) = stores
        store.waits_in = waits_in
        try:
            yield system, store
        finally:
            store.let.set()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("waits_in", ["probe", "commit"])
async def test_the_store_is_asked_one_thing_at_a_time(tmp_path: Path, waits_in: str) -> None:
    told: list[Answer] = []

    async def put(rest: Caller) -> None:
        told.append(await rest.ask("PUT", DOOR, {"open": True}))

    async with one_at_a_time(tmp_path, waits_in) as (system, store):
        rest = Caller(system)
        async with trio.open_nursery() as nursery:
            if waits_in == "commit":
                nursery.start_soon(rest.ask, "PUT", "/api/v1/config/another", {})
            await store.is_waiting()
            nursery.start_soon(put, rest)
            await trio.testing.wait_all_tasks_blocked()
            assert not told, "it waits for its turn"
            store.let.set()
        assert [answer.status for answer in told] == [201]
        assert store.at_once == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("waits_in", ["probe", "commit"])
async def test_a_write_that_was_taken_is_committed_and_answered_though_the_actors_life_ends(
    tmp_path: Path, waits_in: str
) -> None:
    told: list[Answer] = []

    async def put(rest: Caller) -> None:
        told.append(await rest.ask("PUT", DOOR, {"open": True}))

    async with one_at_a_time(tmp_path, waits_in) as (system, store):
        async with trio.open_nursery() as nursery:
            if waits_in == "probe":
                await store.is_waiting()
            nursery.start_soon(put, Caller(system))
            await store.is_waiting()
            await trio.testing.wait_all_tasks_blocked()
            system.storing.crash(RuntimeError("a drill"))
            await trio.testing.wait_all_tasks_blocked()
            store.let.set()
        assert [(answer.status, answer.json.get("revision")) for answer in told] == [(201, 1)]
        assert system.view.committed.revision == 1


@pytest.mark.usefixtures("impatient")
async def test_of_two_writes_that_waited_together_the_second_is_decided_on_the_first(
    tmp_path: Path,
) -> None:
    merge = {"content-type": "application/merge-patch+json"}
    told: list[Answer] = []

    async def patch(rest: Caller, values: dict[str, int]) -> None:
        told.append(await rest.ask("PATCH", DOOR, values, headers=merge))

    async with one_at_a_time(tmp_path, "probe") as (system, store):
        rest = Caller(system)
        async with trio.open_nursery() as nursery:
            await store.is_waiting()
            nursery.start_soon(rest.ask, "PUT", DOOR, {"begun": 1})
            # this one is in hand, the others wait for it
            await trio.testing.wait_all_tasks_blocked()
            for name in ("one", "two"):
                nursery.start_soon(patch, rest, {name: 1})
            await trio.testing.wait_all_tasks_blocked()
            store.let.set()
        assert sorted(answer.json["revision"] for answer in told) == [2, 3]
        assert (await rest.ask("GET", DOOR)).json["config"] == {"begun": 1, "one": 1, "two": 1}


class SlowToGiveBack(MemoryBroker):
    """Keeps back what is said of the second root until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_back: bytes | None = None
        self.keeps_back = trio.Event()

    def tells(self, topic: str, payload: bytes) -> None:
        if topic == wire.root_topic(2) and not self.keeps_back.is_set():
            self.kept_back = payload
            self.keeps_back.set()
        else:
            super().tells(topic, payload)

    def goes_on(self) -> None:
        assert self.kept_back is not None
        self.tells(wire.root_topic(2), self.kept_back)


async def test_a_change_of_the_root_that_was_begun_is_finished_though_the_actors_life_ends(
    tmp_path: Path,
) -> None:
    broker = SlowToGiveBack()
    told: list[Answer] = []

    async def rotate(rest: Caller) -> None:
        told.append(await rest.ask("POST", "/api/v1/trust/rotate", {"role": "config"}))

    settings = Settings(
        data_dir=tmp_path, mqtt_url="mqtt://broker.test", bootstrap_token=SecretStr(TOKEN)
    )
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=broker, world=World()
    ) as system:
        with trio.fail_after(10):
            while system.confirmations.brokers[0].state != "connected":
                await trio.sleep(0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rotate, Caller(system))
                await broker.keeps_back.wait()
                system.trusting.crash(RuntimeError("a drill"))
                await trio.testing.wait_all_tasks_blocked()
                broker.goes_on()
        assert [answer.status for answer in told] == [200]
        assert system.trust.current.version == 2


# ── starts ─────────────────────────────────────────────────────────────────────────────────────


class Died(BaseException):
    """As SIGKILL would end it."""


class DiesWriting(SystemDisk):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if path.name == self.name:
            raise Died
        super().write_atomic(path, data, mode=mode)


def starts_in(data: Path) -> tuple[int, int]:
    """By instance.json, and by the database."""
    with with_the_key(data) as reader:
        ((noted,),) = reader.execute("SELECT boot_seq FROM counters").fetchall()
    return json.loads((data / "instance.json").read_text())["boot_seq"], noted


@asynccontextmanager
async def on_this_disk(data: Path, disk: SystemDisk) -> AsyncIterator[System]:
    settings = Settings(data_dir=data, mqtt_url="none:", bootstrap_token=SecretStr(TOKEN))
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World(disk=disk)
    ) as system:
        yield system


async def test_a_first_start_that_died_before_it_was_counted_was_none(tmp_path: Path) -> None:
    with pytest.raises(Died):
        async with on_this_disk(tmp_path, DiesWriting("instance.json")):
            raise AssertionError
    assert (tmp_path / "config.db").stat().st_size > 0
    assert not (tmp_path / "instance.json").exists()
    async with on_disk(tmp_path) as system:
        assert (system.health().ok, system.health().reasons) == (True, ())
        assert (await Caller(system).ask("PUT", DOOR, {"open": True})).status == 201
    assert starts_in(tmp_path) == (1, 1)


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_comes_back_is_asked_how_often_this_instance_has_started(
    tmp_path: Path,
) -> None:
    for _ in range(4):
        async with on_disk(tmp_path) as system:
            await Caller(system).ask("PUT", DOOR, {"open": True})
    assert starts_in(tmp_path) == (4, 4)
    database = tmp_path / "config.db"
    good = database.read_bytes()  # every page but the first: it opens, and can't be read
    database.write_bytes(good[:4096] + b"\xa5" * (len(good) - 4096))
    (tmp_path / "instance.json").unlink()
    async with on_disk(tmp_path) as system:
        assert system.view.mode == "read-only"
        database.write_bytes(good)
        with trio.fail_after(10):
            while system.view.mode == "read-only":
                await system.view.changed()
        assert (await Caller(system).ask("PUT", DOOR, {"open": False})).status == 200
    assert starts_in(tmp_path) == (5, 5)
    async with on_disk(tmp_path) as system:
        assert system.health().reasons == ()
    assert starts_in(tmp_path) == (6, 6)


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_comes_and_goes_makes_no_start_another(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        assert (await Caller(system).ask("PUT", DOOR, {"open": True})).status == 201
        for _ in range(3):
            (tmp_path / "config.db").rename(tmp_path / "away")
            await read_only_for(system, "config.db")
            (tmp_path / "away").rename(tmp_path / "config.db")
            with trio.fail_after(10):
                while system.view.mode == "read-only":
                    await system.view.changed()
    assert starts_in(tmp_path) == (1, 1)
