"""The witness and the lock: who this instance is, how far it came, and that it is alone."""

from __future__ import annotations

import errno
import hmac
import json
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config import strict_json
from config_manager.config.audit import GENESIS
from config_manager.config.errors import DatabaseUnopenable, DataDirInUse
from config_manager.config.names import Mark
from config_manager.config.sealed_file import derive_key
from config_manager.config.world import SystemDisk, World
from config_manager.storage.witness import Witness, lock_data_dir
from tests.kit.stores import STEADY, Counting

KEY = b"i" * 32


def open_witness(path: Path, key: bytes = KEY, world: World | None = None) -> Witness:
    return Witness.open(path, key, world or World(randomness=Counting()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance.json"


@pytest.fixture
def witness(path: Path) -> Witness:
    """One that has come to (1, 7) and row 3 in its first start, on disk."""
    witness = open_witness(path)
    witness.boot()
    witness.advance(Mark(1, 7), (3, "c" * 64))
    return witness


# ── the witness ────────────────────────────────────────────────────────────────────────────────


def test_without_a_file_a_witness_begins_in_memory_and_writes_nothing(path: Path) -> None:
    witness = open_witness(path)
    assert (witness.mark, witness.boot_seq) == (Mark(0, 0), 0)
    assert not path.exists()


def test_what_was_noted_is_there_after_a_restart(path: Path, witness: Witness) -> None:
    again = open_witness(path)
    assert (again.instance_id, again.boot_seq, again.mark) == (witness.instance_id, 1, Mark(1, 7))
    again.boot()
    assert open_witness(path).boot_seq == 2
    assert open_witness(path).mark == Mark(1, 7)


@pytest.mark.parametrize("mark", [Mark(1, 7), Mark(1, 6), Mark(0, 99), Mark(0, 0)])
def test_a_witness_never_goes_back(path: Path, witness: Witness, mark: Mark) -> None:
    before = path.read_bytes()
    witness.advance(mark)
    assert witness.mark == open_witness(path).mark == Mark(1, 7)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mark", [Mark(1, 8), Mark(2, 8), Mark(2, 1)])
def test_a_witness_goes_on_to_the_later_epoch_first(
    path: Path, witness: Witness, mark: Mark
) -> None:
    witness.advance(mark)
    assert open_witness(path).mark == mark


def test_a_witness_knows_the_newest_row_of_the_audit_and_does_not_go_back(
    path: Path, witness: Witness
) -> None:
    assert open_witness(path.with_name("none")).audit[:2] == (0, GENESIS)
    for mark, audit in ((Mark(1, 7), (3, "d" * 64)), (Mark(1, 8), (2, "b" * 64))):
        witness.advance(mark, audit)
    assert open_witness(path).audit == (3, "c" * 64, "instance.json")
    assert open_witness(path).mark == Mark(1, 8)


def test_a_witness_from_before_the_audit_was_noted_is_taken(path: Path, witness: Witness) -> None:
    value = {
        "instance_id": witness.instance_id,
        "boot_seq": 1,
        "epoch_seq": 1,
        "revision": 7,
    }
    mac = hmac.digest(derive_key(KEY, "instance-witness"), strict_json.dumps(value), "sha256")
    path.write_text(json.dumps({**value, "mac": mac.hex()}))
    again = open_witness(path)
    assert (again.mark, again.audit.seq) == (Mark(1, 7), 0)
    again.advance(Mark(1, 7), (1, "a" * 64))
    assert open_witness(path).audit.seq == 1


def test_the_file_is_its_owners_alone_and_holds_no_key(path: Path, witness: Witness) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert witness.instance_id in text
    assert KEY.hex() not in text


ALTERATIONS: dict[str, dict[str, Any]] = {
    "behind by one": {"revision": 6},
    "far ahead": {"revision": 2**53},
    "beyond what JSON writers take": {"revision": 10**40},
    "another type of the same value": {"revision": 7.0},
    "true for 1": {"boot_seq": True},
    "text": {"revision": "7"},
    "nothing": {"epoch_seq": None},
    "a list": {"epoch_seq": [1]},
    "not a number": {"revision": float("nan")},
    "another epoch": {"epoch_seq": 0},
    "another boot": {"boot_seq": 2},
    "another instance": {"instance_id": "00000000-0000-4000-8000-00000000ffff"},
    "a lone surrogate": {"instance_id": "\ud800"},
    "a field more": {"extra": 1},
    "another end of the audit": {"audit_head": "e" * 64},
    "an earlier end of the audit": {"audit_seq": 0},
    "no mac": {"mac": None},
    "an empty mac": {"mac": ""},
    "a mac that is no hex": {"mac": "zz"},
    "a mac of zeros": {"mac": "0" * 64},
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_witness_is_refused(path: Path, witness: Witness, name: str) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **ALTERATIONS[name]}))
    with pytest.raises(DatabaseUnopenable, match=r"^instance\.json") as caught:
        open_witness(path)
    assert caught.value.description.exit_code == 3


@pytest.mark.parametrize(
    "field",
    ["instance_id", "boot_seq", "epoch_seq", "revision", "mac", "audit_seq", "audit_head"],
)
def test_a_witness_without_one_of_its_fields_is_refused(
    path: Path, witness: Witness, field: str
) -> None:
    value = json.loads(path.read_text())
    del value[field]
    path.write_text(json.dumps(value))
    with pytest.raises(DatabaseUnopenable):
        open_witness(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe", b'{"mac": "00"', b"[" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_witness_is_refused_and_never_a_fresh_start(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(DatabaseUnopenable):
        open_witness(path)
    assert path.read_bytes() == data


@STEADY
@given(st.data())
def test_no_bit_of_a_witness_can_be_turned(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Turned bits either make no difference to what is read, or are refused."""
    path = tmp_path_factory.mktemp("bits") / "instance.json"
    first = open_witness(path)
    first.boot()
    first.advance(Mark(3, 41))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        read = open_witness(path)
    except DatabaseUnopenable:
        return
    assert (read.instance_id, read.boot_seq, read.mark) == (first.instance_id, 1, Mark(3, 41))


def test_a_witness_under_another_instances_key_is_refused(path: Path, witness: Witness) -> None:
    with pytest.raises(DatabaseUnopenable, match="altered, or belongs to other keys"):
        open_witness(path, key=b"o" * 32)


def test_a_witness_that_is_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DatabaseUnopenable):
        open_witness(path)


class FullDisk(SystemDisk):
    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class SometimesFull(SystemDisk):
    full = False

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_atomic(path, data, mode=mode)


def test_what_can_not_be_written_is_not_claimed(path: Path, witness: Witness) -> None:
    """The next try writes it: a witness that believed itself written would skip it."""
    full = open_witness(path, world=World(disk=FullDisk()))
    with pytest.raises(OSError, match="No space"):
        full.advance(Mark(1, 8))
    with pytest.raises(OSError, match="No space"):
        full.boot()
    assert full.mark == Mark(1, 7)
    assert full.boot_seq == 2, "its beacons outrank those of the start before all the same"
    kept = open_witness(path)
    assert (kept.mark, kept.boot_seq) == (Mark(1, 7), 1)


def test_a_start_that_could_not_be_noted_is_with_what_is_written_next(
    path: Path, witness: Witness
) -> None:
    disk = SometimesFull()
    later = open_witness(path, world=World(disk=disk))
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        later.boot()
    disk.full = False
    later.advance(witness.mark)
    assert open_witness(path).boot_seq == 2


# ── starts ─────────────────────────────────────────────────────────────────────────────────────


def test_who_has_no_file_is_missing_one_and_who_has_is_not(path: Path, witness: Witness) -> None:
    assert open_witness(path.with_name("none")).is_missing
    assert not open_witness(path).is_missing


@pytest.mark.parametrize(("noted", "counts_as"), [(0, 2), (1, 2), (2, 3), (40, 41)])
def test_a_start_counts_above_what_is_noted_elsewhere(
    path: Path, witness: Witness, noted: int, counts_as: int
) -> None:
    again = open_witness(path)
    again.boot(noted)
    assert again.boot_seq == open_witness(path).boot_seq == counts_as
    assert open_witness(path).mark == Mark(1, 7), "nothing else moves"


def test_a_start_that_somebody_knows_of_later_is_outdone_and_written_with_what_comes_next(
    path: Path, witness: Witness
) -> None:
    assert not witness.is_due
    assert witness.begin_above(0) == 1, "it is above that already"
    assert (witness.begin_above(1), witness.begin_above(9), witness.begin_above(4)) == (2, 10, 10)
    assert (witness.is_due, open_witness(path).boot_seq) == (True, 1)
    witness.advance(Mark(1, 7))
    assert (witness.is_due, open_witness(path).boot_seq) == (False, 10)


class Slow(SystemDisk):
    """Stops before it writes, until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.let = Event(), Event()

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self.writing.set()
        assert self.let.wait(10)
        super().write_atomic(path, data, mode=mode)


def test_a_start_that_is_outdone_while_a_thread_writes_is_not_lost(
    path: Path, witness: Witness
) -> None:
    disk = Slow()
    ours = open_witness(path, world=World(disk=disk))
    thread = Thread(target=ours.advance, args=(Mark(1, 8),))
    thread.start()
    assert disk.writing.wait(10)
    assert ours.begin_above(9) == 10
    disk.let.set()
    thread.join(10)
    assert (ours.boot_seq, ours.is_due) == (10, True)
    ours.advance(Mark(1, 8))
    again = open_witness(path)
    assert (again.boot_seq, again.mark) == (10, Mark(1, 8))


def test_who_begins_anew_goes_back_where_that_was_decided_and_stays_who_he_is(
    path: Path, witness: Witness
) -> None:
    witness.begin_anew(Mark(2, 3), (2, "b" * 64), 50)
    again = open_witness(path)
    assert (again.mark, again.audit[:2]) == (Mark(2, 3), (2, "b" * 64))
    assert (again.boot_seq, again.instance_id) == (50, witness.instance_id)
    again.boot()
    assert (again.boot_seq, witness.boot_seq) == (51, 50)
    assert not witness.is_due


# ── the lock ───────────────────────────────────────────────────────────────────────────────────

HOLD = """
import sys
from pathlib import Path
from config_manager.config.errors import DataDirInUse
from config_manager.storage.witness import lock_data_dir
try:
    with lock_data_dir(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except DataDirInUse as error:
    print(error, flush=True)
    sys.exit(error.description.exit_code)
"""


def start_holder(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path), start_holder(tmp_path) as second:
        assert str(tmp_path) in first_line(second)
        assert second.wait(30) == 4


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        assert first_line(holder) == "held\n"
        with pytest.raises(DataDirInUse), lock_data_dir(tmp_path):
            pass
        holder.kill()
        holder.wait(30)
    with lock_data_dir(tmp_path):
        pass


def test_a_second_holder_in_one_process_is_refused_too_and_leaving_lets_go(tmp_path: Path) -> None:
    with lock_data_dir(tmp_path):
        for _ in range(2):  # a refusal does not let go of the first one's lock
            with pytest.raises(DataDirInUse), lock_data_dir(tmp_path):
                pass
    with lock_data_dir(tmp_path):
        pass


def test_leaving_with_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_data_dir(tmp_path):
        print(1 // 0)
    with lock_data_dir(tmp_path):
        pass


def test_locks_of_two_directories_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with lock_data_dir(tmp_path / "one"), lock_data_dir(tmp_path / "two"):
        pass
