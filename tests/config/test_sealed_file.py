"""The sealed file on a disk that loses power, and in the hands of others."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.sealed_file import SealBroken, SealedFile, derive_key
from config_manager.config.world import Disk, World
from tests.kit.documents import STEADY
from tests.kit.ram_disk import FilesInMemory, PowerCut

KEY = b"k" * 32
PATH = Path("/state/stt-worker.lkg")
PREVIOUS = Path("/state/stt-worker.lkg.previous")


@dataclass
class RamDisk(FilesInMemory):
    """Files that outlive a power cut. cut_at: the write that is interrupted, counted from 0.

    written: how much of that write arrives; None is none of it. A disk that keeps its promise
    (`write_atomic`) writes nothing or everything; one that lies writes a part.
    """

    cut_at: int | None = None
    written: int | None = None
    writes: int = 0

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        assert mode == 0o600
        self.writes += 1
        if self.cut_at == self.writes - 1:
            if self.written is not None:
                self.files[path] = data[: self.written]
            raise PowerCut
        self.files[path] = data

    def rename(self, old: Path, new: Path) -> None:
        self.writes += 1
        cut = self.cut_at == self.writes - 1
        if not cut or self.written is not None:
            self.files[new] = self.files.pop(old)
        if cut:
            raise PowerCut


class Counting:
    """Bytes that never repeat, the same in every run."""

    def __init__(self) -> None:
        self._made = 0

    def token(self, size: int) -> bytes:
        self._made += 1
        return self._made.to_bytes(size)

    def uuid(self) -> str:
        raise NotImplementedError

    def fraction(self) -> float:
        raise NotImplementedError


NONCES = Counting()


def open_file(disk: Disk, key: bytes = KEY, purpose: str = "lkg", path: Path = PATH) -> SealedFile:
    return SealedFile(path, key, purpose, World(disk=disk, randomness=NONCES))


def disk_with(*contents: bytes) -> RamDisk:
    disk = RamDisk()
    for content in contents:
        open_file(disk).write(content)
    return RamDisk(disk.files)


def test_what_is_written_comes_back_and_shows_in_neither_generation() -> None:
    disk = disk_with(b"the older secret", b"the newer secret")
    assert open_file(disk).read() == b"the newer secret"
    assert set(disk.files) == {PATH, PREVIOUS}
    assert not any(b"secret" in raw for raw in disk.files.values())


def test_nothing_was_ever_written_is_not_the_same_as_broken() -> None:
    with pytest.raises(FileNotFoundError):
        open_file(RamDisk()).read()


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_any_size_is_kept_even_none(size: int) -> None:
    assert open_file(disk_with(b"x" * size)).read() == b"x" * size


def test_the_same_content_is_never_sealed_the_same_way_twice() -> None:
    disk = disk_with(b"same", b"same")
    assert disk.files[PATH] != disk.files[PREVIOUS]


LENGTHS = (None, 0, 1, 24, 25, 48, 49, 64, 65, 10_000)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("written", LENGTHS)
@pytest.mark.parametrize("older", [(), (b"1",)], ids=["one generation", "two generations"])
def test_a_power_cut_at_any_step_leaves_the_old_content_or_the_new(
    older: tuple[bytes, ...], step: int, written: int | None
) -> None:
    """Even on a disk that writes a part: a file is replaced only while another one verifies."""
    disk = disk_with(*older, b"2")
    disk.cut_at, disk.written = step, written
    with pytest.raises(PowerCut):
        open_file(disk).write(b"3")
    came_up = RamDisk(disk.files)
    whole = written == 10_000
    assert open_file(came_up).read() == (b"3" if (step, whole) == (1, True) else b"2")
    open_file(came_up).write(b"4")
    assert open_file(came_up).read() == b"4"


def test_the_first_write_cut_short_leaves_nothing_that_opens() -> None:
    disk = RamDisk(cut_at=0, written=70)
    with pytest.raises(PowerCut):
        open_file(disk).write(b"x" * 100)
    with pytest.raises(SealBroken):
        open_file(RamDisk(disk.files)).read()


@STEADY
@given(st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 80)), max_size=8))
def test_however_often_the_power_fails_something_that_was_written_opens(
    cut: list[tuple[int, int | None]],
) -> None:
    disk = disk_with(b"0")
    possible = {b"0"}
    for n, (step, written) in enumerate(cut, 1):
        disk = RamDisk(disk.files, cut_at=step, written=written)
        content = b"%d" % n
        try:
            open_file(disk).write(content)
        except PowerCut:
            possible.add(content)
        else:
            possible = {content}
        assert open_file(RamDisk(disk.files)).read() in possible


def test_a_damaged_newest_never_replaces_the_good_one_before_it() -> None:
    disk = disk_with(b"good", b"newest")
    disk.files[PATH] = disk.files[PATH][:-1]
    disk.cut_at = 0
    with pytest.raises(PowerCut):
        open_file(disk).write(b"next")
    assert open_file(RamDisk(disk.files)).read() == b"good"


def test_a_newest_that_is_gone_leaves_the_one_before() -> None:
    disk = disk_with(b"older", b"newer")
    del disk.files[PATH]
    assert open_file(disk).read() == b"older"


def test_that_it_is_the_generation_before_is_said_and_why() -> None:
    disk = disk_with(b"older", b"newer")
    newest = disk.files.pop(PATH)
    for there, why in ((None, "is missing"), (newest[:-1], "does not verify"), (newest, None)):
        if there is not None:
            disk.files[PATH] = there
        file = open_file(disk)
        assert file.read() == (b"newer" if why is None else b"older")
        assert file.newest_unread == (why and f"the newest kept file {why}")


def test_a_newest_that_is_damaged_and_none_before_it_is_broken() -> None:
    disk = disk_with(b"only")
    disk.files[PATH] += b"x"
    with pytest.raises(SealBroken, match=r"^stt-worker\.lkg does not verify"):
        open_file(disk).read()


def test_a_damaged_generation_before_a_missing_one_is_broken_not_missing() -> None:
    disk = disk_with(b"older", b"newer")
    del disk.files[PATH]
    disk.files[PREVIOUS] = b"?"
    with pytest.raises(SealBroken):
        open_file(disk).read()


@STEADY
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_bit_of_the_file_can_be_flipped(place: int, bit: int) -> None:
    disk = disk_with(b"what was written")
    raw = bytearray(disk.files[PATH])
    raw[place % len(raw)] ^= 1 << bit
    disk.files[PATH] = bytes(raw)
    with pytest.raises(SealBroken):
        open_file(disk).read()


@STEADY
@given(st.binary(max_size=100), st.booleans())
def test_no_bytes_of_others_open_and_none_crash(raw: bytes, with_magic: bool) -> None:
    disk = RamDisk({PATH: b"config-manager sealed v1\n" * with_magic + raw})
    with pytest.raises(SealBroken):
        open_file(disk).read()


def test_another_key_opens_nothing_and_says_so() -> None:
    disk = disk_with(b"older", b"newer")
    with pytest.raises(SealBroken, match="another key"):
        open_file(disk, key=b"x" * 32).read()


def test_a_file_for_another_purpose_does_not_pass_for_this_one() -> None:
    """One master key serves several files; none can be put in another's place."""
    disk = disk_with(b"a receipt's counter")
    with pytest.raises(SealBroken):
        open_file(disk, purpose="marks").read()


def test_the_purpose_is_authenticated_even_where_the_key_is_the_same() -> None:
    class SameKey(SealedFile):
        def __init__(self, purpose: str) -> None:
            super().__init__(PATH, KEY, purpose, World(disk=disk, randomness=NONCES))
            self._key = bytes(32)

    disk = RamDisk()
    SameKey("one").write(b"x")
    assert SameKey("one").read() == b"x"
    with pytest.raises(SealBroken):
        SameKey("two").read()


def test_a_foreign_newest_over_our_own_is_passed_over_but_not_kept() -> None:
    ours, theirs = disk_with(b"ours", b"ours, newer"), RamDisk()
    open_file(theirs, key=b"x" * 32).write(b"theirs")
    ours.files[PATH] = theirs.files[PATH]
    assert open_file(ours).read() == b"ours"
    open_file(ours).write(b"next")
    assert open_file(RamDisk({PATH: ours.files[PREVIOUS]})).read() == b"ours"


class FailingDisk(RamDisk):
    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if path == PATH:
            raise OSError(errno.ENOSPC, "no space")
        super().write_atomic(path, data, mode=mode)


def test_a_full_disk_is_said_and_costs_nothing() -> None:
    disk = FailingDisk(disk_with(b"older", b"kept").files)
    with pytest.raises(OSError, match="no space"):
        open_file(disk).write(b"new")
    assert open_file(disk).read() == b"kept"


@pytest.mark.parametrize(
    ("master", "purpose"), [(KEY, "lkg "), (KEY, ""), (b"x" * 32, "lkg"), (KEY[:31], "lkg")]
)
def test_each_purpose_and_each_master_has_a_key_of_its_own(master: bytes, purpose: str) -> None:
    assert derive_key(master, purpose) != derive_key(KEY, "lkg")
    assert len(derive_key(master, purpose)) == 32


def test_a_derived_key_does_not_change_from_release_to_release() -> None:
    """Else nobody's last-known-good file would open after an upgrade."""
    assert derive_key(KEY, "lkg").hex() == (
        "50009e93a16b196e6d90c4ece57d95597d524d4c129e0bc069929b3607d8b617"
    )


def test_a_file_sealed_by_an_earlier_release_still_opens() -> None:
    raw = bytes.fromhex(
        "636f6e6669672d6d616e61676572207365616c65642076310a000102030405060708090a0b0c0d0e"
        "0f1011121314151617d60ec33bb4858736270d1b029d66402352d3609ab8c660c1b3a77bc9c80545"
    )
    assert open_file(RamDisk({PATH: raw})).read() == b"kept since then"
