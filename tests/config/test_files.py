"""What takes a file's place is whole, and follows nobody's links: root writes where others plant them.
What makes a file is alone in that, and a process that waits for a directory does not wait for ever."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from config_manager.config import files
from config_manager.config.files import append, creating, locked, make_directory, replacing, sweep
from config_manager.config.world import SystemDisk
from tests.kit.platter import REPLACED, platter

GUESSED = ".config-manager-0123456789abcdef.tmp"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a file", "a named pipe"])
def test_what_was_planted_under_a_guessed_name_is_neither_followed_nor_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    victim, planted, path = tmp_path / "roots-own", tmp_path / GUESSED, tmp_path / "db.key.new"
    victim.write_text("precious")
    if kind == "a link":
        planted.symlink_to(victim)
    elif kind == "a link to nothing":
        planted.symlink_to(tmp_path / "nothing")
    elif kind == "a file":
        planted.write_text("mine, and I hold it open")
    else:
        os.mkfifo(planted)
    names = iter([GUESSED, GUESSED, ".config-manager-fedcba9876543210.tmp"])
    monkeypatch.setattr(files, "_fresh_name", lambda: next(names))
    before = planted.lstat()
    with replacing(path) as file:
        file.write(b"a key")
    assert path.read_bytes() == b"a key"
    assert victim.read_text() == "precious"
    assert planted.lstat() == before
    assert not (tmp_path / "nothing").exists()


def test_a_link_in_the_files_place_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "roots-own", tmp_path / "instance.json"
    victim.write_text("precious")
    path.symlink_to(victim)
    SystemDisk().write_atomic(path, b"ours")
    assert (path.read_bytes(), path.is_symlink()) == (b"ours", False)
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_roots_file_is_the_directorys_owners_only_where_that_is_asked_for(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with replacing(tmp_path / "service's", for_directorys_owner=True) as file:
        file.write(b"x")
    with replacing(tmp_path / "operator's") as file:
        file.write(b"x")
    assert (tmp_path / "service's").stat().st_uid == 65534
    assert (tmp_path / "operator's").stat().st_uid == 0


def test_a_power_cut_leaves_the_old_file_or_the_new_one_whole(tmp_path: Path) -> None:
    with platter() as done, replacing(tmp_path / "f") as file:
        file.write(b"x")
        assert done == []
    assert done == REPLACED
    with platter() as done, creating(tmp_path / "g") as file:
        file.write(b"x")
        assert done == []
    assert done == ["file", "link", "directory"]


def test_a_power_cut_leaves_a_new_file_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    with platter() as done, creating(tmp_path / "f") as file:
        file.write(b"x")
    assert done == ["file", "link", "replace", "directory"]


def test_a_power_cut_leaves_a_directory_that_was_made_in_the_one_above(tmp_path: Path) -> None:
    with platter() as done:
        make_directory(tmp_path / "a" / "b")
    assert done == ["directory", "directory"]


def test_a_disk_that_fills_up_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    SystemDisk().write_atomic(path, b"old")
    with files_of_at_most(1_000), pytest.raises(OSError):
        SystemDisk().write_atomic(path, b"new" * 1_000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_in_pieces_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f"

    def pieces(*, fails: bool) -> Iterator[bytes]:
        yield b"new"
        if fails:
            raise RuntimeError
        yield b"er"

    SystemDisk().write_atomic(path, b"old")
    with pytest.raises(RuntimeError):
        SystemDisk().write_pieces(path, pieces(fails=True))
    assert path.read_bytes() == b"old"
    with platter() as done:
        SystemDisk().write_pieces(path, pieces(fails=False))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"newer", 0o600)
    assert done == REPLACED
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_appended_is_durable_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f"
    SystemDisk().write_atomic(path, b"old")
    with platter() as done:
        append(path, b" and new", at=3)
    assert done == ["file"], "its name was durable before"
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"old and new", 0o600)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_nothing_is_appended_to_what_somebody_else_wrote_to(tmp_path: Path, at: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(OSError) as caught:
        append(path, b"new", at=at)
    assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, str(path))
    assert path.read_bytes() == b"old"


def test_nothing_is_appended_to_what_is_not_there_or_stands_for_another(tmp_path: Path) -> None:
    victim, link, pipe = tmp_path / "roots-own", tmp_path / "link", tmp_path / "pipe"
    victim.write_bytes(b"precious")
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (tmp_path / "nothing", link, pipe):
        with pytest.raises(OSError) as caught:
            append(path, b"new", at=8)
        assert caught.value.filename == str(path)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_a_disk_that_fills_up_leaves_a_first_part_of_what_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with files_of_at_most(1_000), pytest.raises(OSError):
        append(path, b"new" * 1_000, at=3)
    assert path.read_bytes() == (b"old" + b"new" * 1_000)[:1_000]


def test_what_fails_names_the_file_that_was_meant_not_the_passing_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with files_of_at_most(1_000), pytest.raises(OSError) as written:
        SystemDisk().write_atomic(path, b"new" * 1_000)
    path.mkdir()
    with pytest.raises(OSError) as placed:
        SystemDisk().write_atomic(path, b"new")
    with pytest.raises(IsADirectoryError) as read:
        SystemDisk().read(path)
    for caught in (written, placed, read):
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)


def test_a_block_that_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    SystemDisk().write_atomic(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_dead_left_is_swept_with_the_next_write_and_the_livings_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f"
    left = tmp_path / GUESSED
    left.write_bytes(b"half, by a process that was killed")
    not_ours = [tmp_path / "f.tmp", tmp_path / ".config-manager-notes.tmp"]
    for one in not_ours:
        one.write_text("somebody's")
    link = tmp_path / GUESSED.replace("0", "f")
    link.symlink_to(not_ours[0])
    with replacing(path) as file:
        file.write(b"first")
        SystemDisk().write_atomic(tmp_path / "g", b"another process's")
        assert not left.exists()
    assert path.read_bytes() == b"first"
    assert {one.name for one in tmp_path.iterdir()} == {
        *("f", "g", link.name),
        *(one.name for one in not_ours),
    }
    assert not_ours[0].read_text() == "somebody's"


def test_who_was_swept_before_he_had_his_lock_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lock = 0, fcntl.flock

    def swept_first(descriptor: int, how: int) -> None:
        nonlocal made
        made += 1
        if made == 1:
            monkeypatch.setattr(fcntl, "flock", lock)
            sweep(tmp_path)
            monkeypatch.setattr(fcntl, "flock", swept_first)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    with replacing(tmp_path / "f") as file:
        file.write(b"whole")
    assert made == 2
    assert (tmp_path / "f").read_bytes() == b"whole"


def test_a_directory_that_is_not_there_is_swept_in_silence(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "f"):
        pass


def test_nobody_else_reads_it_while_it_is_written(tmp_path: Path) -> None:
    with replacing(tmp_path / "f") as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


# ── making what is not there ───────────────────────────────────────────────────────────────────


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_made_once_whole_private_and_who_is_second_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        without_links(monkeypatch)
    path, disk = tmp_path / "key", SystemDisk()
    disk.create(path, b"first")
    with pytest.raises(FileExistsError):
        disk.create(path, b"second")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"first", 0o600)
    assert (path.stat().st_nlink, list(tmp_path.iterdir())) == (1, [path])


@pytest.mark.parametrize("links", [True, False])
def test_a_link_in_the_place_of_what_is_to_be_made_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        without_links(monkeypatch)
    path = tmp_path / "key"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError), creating(path) as file:
        file.write(b"a key")
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_who_make_a_file_at_once_one_does(tmp_path: Path) -> None:
    def make(content: bytes) -> bool:
        try:
            with creating(tmp_path / "key") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True

    contents = [b"%d" % index for index in range(50)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, contents))
    assert made.count(True) == 1
    assert (tmp_path / "key").read_bytes() == contents[made.index(True)]


def test_a_directory_is_made_for_us_alone_and_one_that_is_there_stays(tmp_path: Path) -> None:
    old = os.umask(0o277)
    try:
        make_directory(tmp_path / "state")
    finally:
        os.umask(old)
    make_directory(tmp_path / "a/b/c")
    for made in ("state", "a/b/c"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o700
    (tmp_path / "state").chmod(0o750)
    make_directory(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o750
    (tmp_path / "link").symlink_to(tmp_path / "state")
    make_directory(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "file")
    with pytest.raises(OSError):
        make_directory(tmp_path / "file/state")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_each_directory_has_its_own_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        make_directory(tmp_path / "a/b/keys")
        make_directory(tmp_path / "a/trust", mode=0o755)
    finally:
        os.umask(old)
    above = 0o755 & ~umask  # nobody's wish but the umask's
    wanted = {"a": above, "a/b": above, "a/b/keys": 0o700, "a/trust": 0o755}
    assert {n: stat.S_IMODE((tmp_path / n).stat().st_mode) for n in wanted} == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give directories away")
def test_roots_directory_is_for_whom_the_one_above_belongs_to(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    make_directory(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_uid == 65534


def test_one_at_a_time_is_in_a_directorys_block(tmp_path: Path) -> None:
    inside, most = 0, 0
    counting = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        with locked(tmp_path):
            with counting:
                inside += 1
                most = max(most, inside)
            time.sleep(0.001)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(40)))
    assert most == 1


def test_who_waits_for_one_that_was_stopped_goes_on_and_so_does_who_can_have_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCKED_WITHIN_S", 0.05)
    with locked(tmp_path), locked(tmp_path), locked(tmp_path / "none"):
        pass

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_who_may_only_read_the_directory_holds_nobody_up(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    old = os.umask(0o277)
    began = time.monotonic()
    try:
        with locked(tmp_path):
            assert time.monotonic() - began < files._LOCKED_WITHIN_S / 2
    finally:
        os.umask(old)
        os.close(descriptor)
    assert stat.S_IMODE((tmp_path / files.LOCK).stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_roots_lock_is_for_the_directorys_owner_and_nothing_that_was_there_is_given_away(
    tmp_path: Path,
) -> None:
    for name in ("service", "there"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 65534, 65534)
    (tmp_path / "roots-own").touch(0o600)
    os.link(tmp_path / "roots-own", tmp_path / "there" / files.LOCK)
    for name in ("service", "there"):
        with locked(tmp_path / name):
            pass
    assert (tmp_path / "service" / files.LOCK).stat().st_uid == 65534
    assert (tmp_path / "roots-own").stat().st_uid == 0


@pytest.mark.parametrize("kind", ["a link", "a directory", "a named pipe"])
def test_a_lock_that_is_no_file_is_not_followed_and_holds_nobody_up(
    tmp_path: Path, kind: str
) -> None:
    planted = tmp_path / files.LOCK
    if kind == "a link":
        planted.symlink_to(tmp_path / "victim")
    elif kind == "a directory":
        planted.mkdir()
    else:
        os.mkfifo(planted)
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [files.LOCK]


FORKS = """
import os, sys, time
from pathlib import Path
from config_manager.config.files import locked

directory = Path(sys.argv[1])
read, write = os.pipe()
with locked(directory):
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)  # lives until its parent is gone
        os._exit(0)
began = time.monotonic()
with locked(directory):
    print(time.monotonic() - began)
"""


def test_a_child_that_was_forked_in_the_block_does_not_keep_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert float(done.stdout) < files._LOCKED_WITHIN_S / 2
