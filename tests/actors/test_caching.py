"""What the keeper keeps, by what changed, on a disk that sometimes refuses; and what the next start takes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from config_manager.actors import caching
from config_manager.actors.caching import Keeper, LastKnownGood
from config_manager.actors.views import CommittedView
from config_manager.config.world import SystemDisk, World
from config_manager.storage.cache_file import CacheFile
from config_manager.storage.decisions.intents import NewEpoch, Put
from config_manager.storage.state import Committed
from config_manager.storage.witness import Witness
from tests.kit import stores as m

KEY = b"k" * 32


class CountingDisk(SystemDisk):
    """What reaches the disk, by file, in bytes. full: each write is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.written: dict[str, int] = {}

    def _count(self, path: Path, size: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.written[path.name] = self.written.get(path.name, 0) + size

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        data = b"".join(pieces)
        self._count(path, len(data))
        super().write_pieces(path, (data,), mode=mode)

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        self._count(path, len(data))
        super().append(path, data, at=at)


class Start:
    """One start of the keeping half of a server: what it took, and what it keeps from then on."""

    def __init__(self, directory: Path, committed: Committed) -> None:
        self.disk = CountingDisk()
        world = World(disk=self.disk)
        self.cache = LastKnownGood(CacheFile(directory / "config.lkg", KEY, world))
        self.took = self.cache.load()
        self.view = CommittedView(committed)
        witness = Witness.open(directory / "instance.json", KEY, world)
        self.keeper = Keeper(self.view, self.cache, witness)

    async def write(self, text: str) -> None:
        put = Put(service="small", values={"text": text})
        self.view.replace(m.decide(self.view.committed, put).change.after)
        await self.keeper.keep()

    @property
    def cached(self) -> int:
        return self.disk.written.get("config.lkg", 0)


FLEET = m.after(NewEpoch(services={f"s{n}": {"text": "x" * 10_000} for n in range(100)}))
"""1 MB"""


async def test_what_is_kept_costs_what_changed_and_the_next_start_takes_all_of_it(
    tmp_path: Path,
) -> None:
    first = Start(tmp_path, FLEET)
    assert (first.took, first.cache.available) == (None, False)
    await first.keeper.keep()
    base = first.cached
    for number in range(10):
        await first.write(str(number))
    assert 0 < first.cached - base < 10_000 < base
    assert first.cache.available
    second = Start(tmp_path, first.view.committed)
    assert (second.took, second.cache.available) == (first.view.committed, True)
    await second.keeper.keep()
    assert second.cached == 0, "a start finds it there"
    await second.write("on")
    assert 0 < second.cached < 1_000
    assert Start(tmp_path, FLEET).took == second.view.committed


async def test_a_disk_that_refuses_is_told_once_and_what_it_missed_is_written_when_it_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it = Start(tmp_path, FLEET)
    await it.keeper.keep()
    assert it.cache.behind_since is None
    it.disk.full = True
    refused_since: float | None = None
    for number in range(3):
        await it.write(str(number))
        assert it.keeper.due
        refused_since = refused_since or it.cache.behind_since
        assert it.cache.behind_since == refused_since is not None
        assert "No space left" in it.view.notices["cache"]
        assert not it.cache.available
        assert Start(tmp_path, FLEET).took == FLEET
    assert capsys.readouterr().out.count("cache not written") == 1
    it.disk.full = False
    assert await it.keeper.keep()
    assert (it.keeper.due, it.cache.available, it.view.notices) == (False, True, {})
    assert it.cache.behind_since is None
    assert Start(tmp_path, FLEET).took == it.view.committed
    cached = it.cached
    await it.write("small again")
    assert it.cached - cached < 1_000


async def test_what_leaving_leaves_behind_is_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "_MIN_INTERVAL_S", 60)
    it = Start(tmp_path, FLEET)
    async with caching.caching(it.view, it.keeper)():
        with trio.fail_after(5):
            while it.keeper.due:
                await trio.sleep(0.01)
        put = Put(service="small", values={"text": "the last"})
        it.view.replace(m.decide(FLEET, put).change.after)
    assert Start(tmp_path, FLEET).took == it.view.committed


async def test_a_state_that_may_not_be_published_is_not_kept(tmp_path: Path) -> None:
    """It is the cache's own, or contradicts what was kept."""
    it = Start(tmp_path, FLEET)
    it.view.publishable = False
    assert not it.keeper.due
