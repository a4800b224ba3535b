"""The server's kept state: written by what changed, on a disk that loses power, fills up, and is altered."""

from __future__ import annotations

import base64
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.sealed_file import SealBroken
from config_manager.config.world import SystemDisk, World
from config_manager.storage.cache_file import CacheFile
from config_manager.storage.decisions.intents import Delete, NewEpoch, Put
from config_manager.storage.state import Committed
from tests.kit import stores as m
from tests.kit.earlier import DATA, SERVER
from tests.kit.platter import REPLACED, platter
from tests.kit.ram_disk import FilesInMemory, PowerCut

KEY = b"k" * 32
PATH = Path("/data/config.lkg")
PREVIOUS = Path("/data/config.lkg.previous")
NONCES = m.Counting()


@dataclass
class RamDisk(FilesInMemory):
    """Files that outlive a power cut. cut_at: the call that is interrupted, counted from 0; written: how
    many bytes of what it appends arrive, and whether a rename does. full: each append and each write
    fails; the append after so many bytes."""

    cut_at: int | None = None
    written: int = 0
    full: int | None = None
    calls: list[str] = field(default_factory=list)
    bytes_written: int = 0

    def _call(self, name: str) -> bool:
        """Whether this one is cut."""
        self.calls.append(name)
        return self.cut_at == len(self.calls) - 1

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        assert mode == 0o600
        cut, data = self._call("base"), b"".join(pieces)
        if self.full is not None:
            raise OSError(errno.ENOSPC, "no space", str(path))
        if not cut or self.written:
            self.files[path] = data
            self.bytes_written += len(data)
        if cut:
            raise PowerCut

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        cut, there = self._call("record"), self.read(path)
        if len(there) != at:
            raise OSError(errno.ESTALE, "somebody else wrote to it", str(path))
        written = self.full if self.full is not None else self.written if cut else len(data)
        self.files[path] = there + data[:written]
        self.bytes_written += written
        if self.full is not None:
            raise OSError(errno.ENOSPC, "no space", str(path))
        if cut:
            raise PowerCut

    def rename(self, old: Path, new: Path) -> None:
        cut = self._call("rename")
        if not cut or self.written:
            self.files[new] = self.files.pop(old)
        if cut:
            raise PowerCut


def opened(disk: RamDisk | SystemDisk, path: Path = PATH, key: bytes = KEY) -> CacheFile:
    return CacheFile(path, key, World(disk=disk, randomness=NONCES))


def loaded(disk: RamDisk) -> tuple[Committed, str | None]:
    """What another start takes, and what it says about it."""
    cache = opened(RamDisk(dict(disk.files)))
    return cache.load(), cache.is_older


def puts(state: Committed, count: int, **values: Any) -> list[Committed]:
    """The state after each of so many small writes."""
    made: list[Committed] = []
    for number in range(count):
        intent = Put(service="small", values={"n": number, **values})
        state = m.decide(state, intent).change.after
        made.append(state)
    return made


def large(state: Committed) -> Committed:
    """After a change that needs a new base."""
    services = {name: {"text": "z" * 150_000} for name in ("large", "larger")}
    return m.decide(state, NewEpoch(services=services)).change.after


FLEET = m.after(
    NewEpoch(services={f"s{n}": {"text": "x" * 10_000} for n in range(100)}), Delete(service="s7")
)
"""1 MB"""
STATES = [FLEET, *puts(FLEET, 6)]


def disk_with(*states: Committed) -> RamDisk:
    """Each saved, one after the other, by the same process."""
    disk = RamDisk()
    cache = opened(disk)
    for state in states:
        cache.save(state)
    return disk


def small(count: int = 4) -> list[Committed]:
    return puts(m.after(Put(service="a", values={"x": 1})), count)


def test_what_is_saved_is_loaded_and_shows_nowhere() -> None:
    disk = disk_with(*STATES)
    assert loaded(disk) == (STATES[-1], None)
    assert not any(b"small" in raw or b"xxxx" in raw for raw in disk.files.values())


def test_a_small_change_costs_what_it_changes() -> None:
    disk = disk_with(FLEET)
    assert 1_000_000 < disk.bytes_written < 1_300_000
    cache = opened(disk)
    assert cache.load() == FLEET
    before = disk.bytes_written
    for state in STATES[1:]:
        cache.save(state)
    assert disk.calls == ["base", *["record"] * 6]
    assert (disk.bytes_written - before) / 6 < 1_000


def test_what_is_kept_already_is_not_written_again() -> None:
    """A start writes nothing of what it finds; in its memory no object is the one that was kept."""
    disk = disk_with(*STATES)
    cache = opened(disk)
    cache.load()
    calls, state = len(disk.calls), STATES[-1]
    again = {name: replace(one) for name, one in state.services.items()}
    cache.save(replace(state, services=again))
    cache.save(replace(state, services=again))
    assert len(disk.calls) == calls
    cache.save(puts(state, 1)[0])
    assert disk.calls[calls:] == ["record"]


def test_the_base_is_written_again_when_what_is_behind_it_is_a_quarter_of_it() -> None:
    disk = disk_with(FLEET)
    cache = opened(disk)
    cache.load()
    before, base = disk.bytes_written, disk.bytes_written
    states = puts(FLEET, 80, text="y" * 10_000)
    for state in states:
        cache.save(state)
        assert len(disk.files[PATH]) <= base * 1.3
    bases = disk.calls.count("base") - 1
    assert 2 <= bases <= 3
    assert disk.bytes_written - before < 80 * 11_000 + bases * base * 1.1
    assert loaded(disk) == (states[-1], None)


def test_a_small_base_waits_for_a_quarter_of_a_mebibyte() -> None:
    disk = RamDisk()
    cache = opened(disk)
    for state in small(450):
        cache.save(state)
    assert disk.calls.count("base") == 2
    assert len(disk.files[PREVIOUS]) <= 256 * 1024 + 1_200


def test_cut_anywhere_in_the_last_record_the_state_before_it_is_there_and_nothing_is_said() -> None:
    disk, states = RamDisk(), small()
    cache = opened(disk)
    for state in states[:-1]:
        cache.save(state)
    begin = len(disk.files[PATH])
    cache.save(states[-1])
    whole = disk.files[PATH]
    for cut in range(begin, len(whole)):
        came_up = RamDisk({PATH: whole[:cut]})
        again = opened(came_up)
        assert (again.load(), again.is_older) == (states[-2], None), cut
        again.save(states[-1])
        wanted = ["record"] if cut == begin else ["rename", "base"]
        assert came_up.calls == wanted, f"nothing is written behind what is torn ({cut})"
        assert loaded(came_up) == (states[-1], None)


def test_no_bit_of_a_record_can_be_flipped_in_silence() -> None:
    states = small()
    disk = disk_with(states[0])
    begin, ends = len(disk.files[PATH]), list[int]()
    cache = opened(disk)
    cache.load()
    for state in states[1:]:
        cache.save(state)
        ends.append(len(disk.files[PATH]))
    whole = disk.files[PATH]
    for place in range(begin, len(whole)):
        raw = bytearray(whole)
        raw[place] ^= 1 << place % 8
        came_up = RamDisk({PATH: bytes(raw)})
        again = opened(came_up)
        assert again.load() == states[sum(end <= place for end in ends)], place
        assert again.is_older is not None
        assert again.is_older.startswith("a part of the kept file does not verify"), place
        if place % 50 == 0:
            again.save(states[-1])
            assert came_up.calls == ["rename", "base"]
            assert loaded(came_up) == (states[-1], None)


def parts_of(states: list[Committed]) -> list[bytes]:
    """A file's base and its records."""
    disk = disk_with(states[0])
    cache, sizes = opened(disk), [0, len(disk.files[PATH])]
    cache.load()
    for state in states[1:]:
        cache.save(state)
        sizes.append(len(disk.files[PATH]))
    raw = disk.files[PATH]
    return [raw[a:b] for a, b in zip(sizes, sizes[1:], strict=False)]


@pytest.mark.parametrize(
    ("order", "takes"),
    [([0, 2, 1, 3], 0), ([0, 1, 1, 2, 3], 1), ([0, 2, 3], 0), ([0, 1, 3], 1), ([0, 1, 2, 3, 3], 3)],
    ids=["swapped", "repeated", "the first taken out", "one taken out", "the last repeated"],
)
def test_records_in_another_order_end_where_it_begins_and_that_is_said(
    order: list[int], takes: int
) -> None:
    states = small()
    parts = parts_of(states)
    state, said = loaded(RamDisk({PATH: b"".join(parts[n] for n in order)}))
    assert state == states[takes]
    assert said is not None and "does not verify" in said


def test_the_records_of_another_base_do_not_fit_even_where_it_holds_the_same() -> None:
    states = small()
    one, other = parts_of(states), parts_of(states)
    state, said = loaded(RamDisk({PATH: one[0] + b"".join(other[1:])}))
    assert state == states[0]
    assert said is not None and "does not verify" in said


def test_the_end_of_an_older_file_does_not_fit_behind_what_was_written_since_it_was_put_back() -> (
    None
):
    states = small()
    parts = parts_of(states)
    disk = RamDisk({PATH: b"".join(parts[:2])})  # somebody puts an older one back
    cache = opened(disk)
    assert cache.load() == states[1]
    # what nobody audits moves no number, so that only its place tells such a record from others
    told = replace(states[1], registry={"token": {"phone": {"last_used_at": "today"}}})
    cache.save(told)
    disk.files[PATH] += b"".join(parts[2:])
    state, said = loaded(disk)
    assert (state, said is None) == (told, False)


def test_a_damaged_base_leaves_the_generation_before_with_what_is_behind_it_and_says_so() -> None:
    states = puts(FLEET, 80, text="y" * 10_000)
    disk = disk_with(FLEET, *states)
    whole = disk.files[PATH]
    kept = [loaded(RamDisk({PATH: disk.files[PREVIOUS]}))[0]]
    assert kept[0] in states
    for place in (0, 30, 45, 100, 500_000):
        raw = bytearray(whole)
        raw[place] ^= 1
        disk.files[PATH] = bytes(raw)
        assert loaded(disk) == (kept[0], "the newest kept file does not verify")
    del disk.files[PATH]
    assert loaded(disk) == (kept[0], "the newest kept file is missing")


def test_a_damaged_base_never_takes_the_good_ones_place() -> None:
    disk = disk_with(FLEET, *puts(FLEET, 40, text="y" * 10_000))
    good = disk.files[PREVIOUS]
    raw = bytearray(disk.files[PATH])
    raw[1_000] ^= 1
    disk.files[PATH] = bytes(raw)
    cache = opened(disk)
    cache.load()
    disk.calls.clear()
    cache.save(STATES[1])
    assert disk.calls == ["base"]
    assert disk.files[PREVIOUS] == good
    assert loaded(disk) == (STATES[1], None)


@pytest.mark.parametrize("there", ["flipped", "another's", "cut"])
def test_nor_does_one_that_is_damaged_while_the_server_runs(there: str) -> None:
    disk = disk_with(*STATES)
    cache, raw = opened(disk), disk.files[PATH]
    cache.load()
    found = {"flipped": b"\0" * 60 + raw[60:], "another's": b"?", "cut": raw[:1_000]}
    disk.files = {PREVIOUS: b"the good one", PATH: found[there]}
    disk.calls.clear()
    cache.save(large(STATES[-1]))
    assert disk.calls[-1] == "base"
    assert "rename" not in disk.calls
    assert disk.files[PREVIOUS] == b"the good one"


def test_nothing_was_ever_kept_is_not_the_same_as_broken() -> None:
    with pytest.raises(FileNotFoundError):
        opened(RamDisk()).load()
    with pytest.raises(SealBroken, match=r"^config\.lkg does not verify"):
        opened(RamDisk({PATH: b"?"})).load()
    with pytest.raises(SealBroken):
        opened(RamDisk({PREVIOUS: b"?"})).load()
    with pytest.raises(SealBroken, match="another key"):
        opened(disk_with(*small()), key=b"x" * 32).load()


# ── a disk that fails ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arrives", [0, 1, 30, 10_000])
def test_a_full_disk_keeps_what_was_kept_and_the_next_save_begins_a_new_base(arrives: int) -> None:
    states = small()
    disk = disk_with(*states[:2])
    cache = opened(disk)
    cache.load()
    disk.full = arrives
    for _ in range(3):
        with pytest.raises(OSError, match="no space"):
            cache.save(states[2])
        # of what arrived whole, too: that it is durable was never said
        assert loaded(disk)[0] in (states[1], states[2])
    disk.full = None
    disk.calls.clear()
    cache.save(states[2])
    assert disk.calls == ["base"], "the kept one has become the generation before"
    cache.save(states[3])
    assert disk.calls == ["base", "record"]
    assert loaded(disk) == (states[3], None)


def test_an_append_alone_that_fails_costs_a_base() -> None:
    class NoAppend(RamDisk):
        def append(self, path: Path, data: bytes, *, at: int) -> None:
            self.files[path] += data[:20]
            raise OSError(errno.EIO, "sick", str(path))

    states = small()
    disk = NoAppend(disk_with(states[0]).files)
    cache = opened(disk)
    cache.load()
    for state in states[1:]:
        cache.save(state)
        assert loaded(disk) == (state, None)


def test_a_file_that_somebody_took_away_or_wrote_to_is_begun_anew() -> None:
    states = small()
    disk = disk_with(states[0])
    cache = opened(disk)
    cache.load()
    del disk.files[PATH]
    cache.save(states[1])
    assert loaded(disk) == (states[1], None)
    disk.files[PATH] += b"somebody's"
    cache.save(states[2])
    assert loaded(disk) == (states[2], None)


# ── a power cut at any call ────────────────────────────────────────────────────────────────────


@m.STEADY
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 600), st.booleans()), min_size=1, max_size=6
    )
)
def test_wherever_the_power_fails_what_was_kept_is_there_or_what_was_being_kept(
    starts: list[tuple[int, int, bool]],
) -> None:
    disk, state = disk_with(small(1)[0]), small(1)[0]
    possible = [state]
    for cut_at, written, is_large in starts:
        disk = RamDisk(disk.files, cut_at=cut_at, written=written)
        cache = opened(disk)
        state = cache.load()
        assert state in possible
        assert cache.is_older in (None, "the newest kept file is missing")
        for after in [*puts(state, 3), *([large(state)] if is_large else []), *puts(state, 2)]:
            possible = [state, after]
            try:
                cache.save(after)
            except PowerCut:
                break
            state = after
            possible = [state]


@pytest.mark.parametrize("written", [0, 1])
@pytest.mark.parametrize(("step", "call"), [(0, "rename"), (1, "base")])
def test_each_step_of_a_new_base_leaves_the_old_one_with_its_records_or_the_new_one(
    step: int, call: str, written: int
) -> None:
    states = small()
    disk = RamDisk(disk_with(*states).files, cut_at=step, written=written)
    cache, after = opened(disk), large(states[-1])
    cache.load()
    with pytest.raises(PowerCut):
        cache.save(after)
    assert disk.calls[-1] == call
    state, said = loaded(disk)
    is_new = (call, written) == ("base", 1)
    assert state == (after if is_new else states[-1])
    is_there = is_new or (call, written) == ("rename", 0)
    assert said == (None if is_there else "the newest kept file is missing")
    came_up = RamDisk(disk.files)
    again = opened(came_up)
    again.load()
    again.save(after)
    assert loaded(came_up) == (after, None)


# ── on a real disk ─────────────────────────────────────────────────────────────────────────────


def test_its_files_are_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    path, states = tmp_path / "config.lkg", puts(FLEET, 40, text="y" * 10_000)
    old = os.umask(0)
    try:
        cache = opened(SystemDisk(), path)
        for state in states:
            cache.save(state)
    finally:
        os.umask(old)
    assert {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {
        "config.lkg": 0o600,
        "config.lkg.previous": 0o600,
    }
    assert opened(SystemDisk(), path).load() == states[-1]


def test_a_new_base_is_durable_before_it_takes_the_old_ones_place_and_its_records_on_return(
    tmp_path: Path,
) -> None:
    cache = opened(SystemDisk(), tmp_path / "config.lkg")
    cache.save(FLEET)
    with platter() as done:
        cache.save(STATES[1])
        cache.save(large(STATES[1]))
        cache.save(puts(large(STATES[1]), 1)[0])
    assert done == ["file", "replace", *REPLACED, "file"]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_what_an_earlier_version_kept_opens_and_is_written_on(tmp_path: Path, version: str) -> None:
    server = DATA / version / SERVER
    path = tmp_path / "config.lkg"
    for name in ("config.lkg", "config.lkg.previous"):
        shutil.copy(server / name, tmp_path)
    key = bytes.fromhex((server / "keys" / "instance.key").read_text())
    cache = opened(SystemDisk(), path, key)
    state = cache.load()
    assert cache.is_older is None
    assert state.services and state.registered("token") and state.registered("device")
    assert all(one.payload and one.digest for one in state.services.values())
    states = puts(state, 2)
    for one in states:
        cache.save(one)
    assert (tmp_path / "config.lkg.previous").read_bytes() == (server / "config.lkg").read_bytes()
    again = opened(SystemDisk(), path, key)
    assert (again.load(), again.is_older) == (states[-1], None)
    path.write_bytes(b"?")
    assert again.load() == state, "the generation before is the earlier version's"


def test_it_is_smaller_than_what_it_holds_in_memory_and_than_it_was() -> None:
    """Payload, effective and stored have one copy; in base64 each service took 3.3 times its payload."""
    payloads = sum(len(state.payload) for state in FLEET.services.values())
    assert len(disk_with(FLEET).files[PATH]) < 1.1 * payloads
    assert len(base64.b64encode(b"x" * payloads)) > 1.3 * payloads
