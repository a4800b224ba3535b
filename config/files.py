"""A file that takes another's place, whole and durable, in a directory that may be somebody else's.

`replacing` takes it from whoever has it, `creating` only where nobody has. `append` alone changes a file
that is there.

Root runs commands on a service's directory, whose owner may plant links there. So what is written goes
into a file that was not there before, under a name that nobody can guess, and its owner is changed
only through the descriptor it was made with. A process that dies in between leaves its file, which
nobody reads; `sweep` takes such away. A lock on each says whether its writer still lives.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_OURS = re.compile(r"\.config-manager-[0-9a-f]{16}\.tmp")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_THERE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_BEHIND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK = ".lock"
"""In each directory whose `locked` somebody had."""
_ATTEMPTS = 100
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""What file systems say that know no second name of a file (FAT, some of a network's)."""

_ABOVE = 0o755
"""The mode of a directory that is made only because one below it is wanted."""
_LOCKED_WITHIN_S = 5.0
_LOOK_S = 0.002
ROOT = 0

_Place = Callable[[str, str, int], None]
"""Gives the file written under the first name the second one. The directory's descriptor is last."""


@contextmanager
def replacing(
    path: Path, *, mode: int = 0o600, for_directorys_owner: bool = False
) -> Generator[IO[bytes]]:
    """Write what `path` is to hold; it does once the block ends well, durably. Else nothing changed.

    for_directorys_owner: where root writes, the file is for whom the directory belongs to. Raises
    OSError.
    """
    with _placing(path, mode, _replace, for_directorys_owner=for_directorys_owner) as file:
        yield file


@contextmanager
def creating(
    path: Path, *, mode: int = 0o600, for_directorys_owner: bool = False
) -> Generator[IO[bytes]]:
    """As `replacing`, where there is nothing of that name: of several who do this at once one wins,
    and the others get FileExistsError. Where the file system knows no links, only those who hold the
    directory's `locked` can rely on it.
    """
    with _placing(path, mode, _link, for_directorys_owner=for_directorys_owner) as file:
        yield file


def append(path: Path, data: bytes, *, at: int) -> None:
    """Write behind the `at` bytes that are in the file; durable on return.

    Raises OSError, also if the file has another size. Of what could not be written, or was being
    written in a power cut, any first part may be there.
    """
    with named(path):
        descriptor = os.open(path, _BEHIND)
        try:
            if os.fstat(descriptor).st_size != at:
                raise OSError(errno.ESTALE, "somebody else wrote to it", str(path))
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """With this mode, whatever the umask; where root makes it, for whom the directory above belongs to;
    durable. Those above that are missing become 0755, or less by the umask. One that is there stays as it
    is. Raises OSError."""
    missing: list[Path] = []
    for place in (path, *path.parents):
        if place.is_dir():
            break
        missing.append(place)
    for place in reversed(missing):
        _make_one(place, mode if place == path else None)


def _make_one(path: Path, mode: int | None) -> None:
    try:
        path.mkdir(mode=_ABOVE if mode is None else mode)
    except FileExistsError:  # somebody else was as quick, or it is no directory
        if path.is_dir():
            return
        raise
    made = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.geteuid() == ROOT:
            owner = path.parent.stat()
            with suppress(PermissionError):  # a container's root that may give nothing away
                os.fchown(made, owner.st_uid, owner.st_gid)
        if mode is not None:
            os.fchmod(made, mode)  # whatever the umask took away
    finally:
        os.close(made)
    sync(path.parent)


def sync(directory: Path) -> None:
    """What was made and renamed in it is durable, as far as we may and the disk will."""
    with suppress(OSError):  # who may write there need not be allowed to read
        descriptor = os.open(directory, _DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def named(path: Path) -> Generator[None]:
    """An OSError out of the block names the file, for who has to look after it."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """The kernel names no file where a read or a write fails, and the passing name where one is placed."""
    theirs = error.filename is not None and not _OURS.fullmatch(str(error.filename))
    if error.errno is not None and not theirs and not isinstance(error, ConnectionError):
        error.filename, error.filename2 = str(path), None


def open_lock(path: Path) -> int:
    """A file that is only locked, made where there is none: for us alone, or, where root makes it, for
    whom the directory belongs to. Raises OSError."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            return os.open(path, _LOCK_FILE)
        with suppress(FileExistsError):  # somebody else was as quick
            return _make_lock(path)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _make_lock(path: Path) -> int:
    descriptor = os.open(path, _LOCK_FILE | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask took away
        if os.geteuid() == ROOT:
            owner = path.parent.stat()
            with suppress(PermissionError):  # a container's root that may give nothing away
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """One at a time, of all processes that do this with the directory. Who can't have it within 5 s
    goes on without: a process that somebody stopped must not keep all others from starting. So does
    everybody where files can't be locked. The lock is on a file in it that only its owner opens:
    a directory can be locked by whoever may read it."""
    descriptor: int | None = None
    with suppress(OSError):
        descriptor = open_lock(directory / LOCK)
    if descriptor is None:
        yield
        return
    try:
        _wait_for_lock(descriptor)
        yield
    finally:
        with suppress(OSError):  # said, because a child that was forked meanwhile has it as well
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait_for_lock(descriptor: int) -> None:
    until = time.monotonic() + _LOCKED_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return
            time.sleep(_LOOK_S)
        except OSError:  # no locks here
            return
        else:
            return


@contextmanager
def _placing(
    path: Path, mode: int, place: _Place, *, for_directorys_owner: bool
) -> Generator[IO[bytes]]:
    directory = os.open(path.parent, _DIRECTORY)
    try:
        with named(path):
            name, descriptor = _create(directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if for_directorys_owner and os.geteuid() == ROOT:
                    owner = os.fstat(directory)
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                os.fchmod(descriptor, mode)
                yield file
                file.flush()
                os.fsync(descriptor)
                place(name, path.name, directory)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
            if isinstance(error, OSError):
                _name(error, path)
            raise
        with named(path):
            os.fsync(directory)
    finally:
        os.close(directory)


def _replace(name: str, final: str, directory: int) -> None:
    os.replace(name, final, src_dir_fd=directory, dst_dir_fd=directory)


def _link(name: str, final: str, directory: int) -> None:
    try:
        os.link(name, final, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        with suppress(OSError):  # it would be swept
            os.unlink(name, dir_fd=directory)
        return
    with suppress(FileNotFoundError):
        os.stat(final, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final)
    _replace(name, final, directory)


def sweep(directory: Path) -> None:
    """Take away what writers left that died. Never raises: it is only tidiness."""
    with suppress(OSError):
        descriptor = os.open(directory, _DIRECTORY)
        try:
            for name in filter(_OURS.fullmatch, os.listdir(descriptor)):  # noqa: PTH208  a descriptor
                with suppress(OSError):
                    _unlink_if_left(name, descriptor)
        finally:
            os.close(descriptor)


def _create(directory: int) -> tuple[str, int]:
    """A new file's name and descriptor, locked. Raises OSError."""
    for _ in range(_ATTEMPTS):
        name = _fresh_name()
        try:
            descriptor = os.open(name, _NEW, 0o600, dir_fd=directory)
        except FileExistsError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a sweeper was here before our lock
            os.close(descriptor)
            continue
        except OSError:  # a network's file system without locks: there nothing is swept
            return name, descriptor
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _fresh_name() -> str:
    return f".config-manager-{os.urandom(8).hex()}.tmp"


def _unlink_if_left(name: str, directory: int) -> None:
    descriptor = os.open(name, _THERE, dir_fd=directory)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
