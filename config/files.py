"""A file that takes another's place, whole and durable, in a directory that may be somebody else's.

`replacing` writes over what is there, `creating` only where nothing is. `append` alone changes a file in place.

Root runs commands on a service's directory, whose owner may plant links there. So what is written goes
into a new file under a name that nobody can guess, and its owner is changed only through the
descriptor it was made with. A process that dies in between leaves that file, which nobody reads;
`sweep` removes such files. A lock on each says whether its writer still lives.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

_OURS = re.compile(r"\.config-manager-[0-9a-f]{16}\.tmp")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_THERE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_BEHIND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK = ".lock"
"""In each directory that was `locked`."""
_ATTEMPTS = 100
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""The errors of file systems that know no second name of a file (FAT, some network file systems)."""

_ABOVE = 0o755
"""The mode of a directory that is made only because one below it is wanted."""
_LOCKED_WITHIN_S = 5.0
_LOOK_S = 0.002
ROOT = 0

_Place = Callable[[str, str, int], None]
"""Gives the file written under the first name the second one. The directory's descriptor is last."""


def replacing(
    path: Path, *, mode: int = 0o600, for_directorys_owner: bool = False
) -> AbstractContextManager[IO[bytes]]:
    """A file to write to. Once the block ends well, it is at `path`, durably; else nothing changed.

    for_directorys_owner: a file that root writes gets the owner of its directory. Raises OSError.
    """
    return _placing(path, mode, _replace, for_directorys_owner=for_directorys_owner)


def creating(
    path: Path, *, mode: int = 0o600, for_directorys_owner: bool = False
) -> AbstractContextManager[IO[bytes]]:
    """As `replacing`, for a name that is free. Of several at once one wins, the others get
    FileExistsError. On a file system without links only holders of the directory's `locked` can
    rely on that.
    """
    return _placing(path, mode, _link, for_directorys_owner=for_directorys_owner)


def append(path: Path, data: bytes, *, at: int) -> None:
    """Write behind the `at` bytes that are in the file; durable on return.

    Raises OSError, also if the file has another size. After an error or a power cut any first part
    of the data may be there.
    """
    with named(path), _opened(path, _BEHIND) as descriptor:
        if os.fstat(descriptor).st_size != at:
            raise OSError(errno.ESTALE, "somebody else wrote to it", str(path))
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make a directory with this mode, whatever the umask; durable.

    Missing ones above it become 0755, or less by the umask. One that root makes gets the owner of the
    directory above. One that is there stays as it is. Raises OSError.
    """
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
    with _opened(path, _DIRECTORY | os.O_NOFOLLOW) as made:
        _give_to_owner_above(made, path)
        if mode is not None:
            os.fchmod(made, mode)  # whatever the umask took away
    sync(path.parent)


def _give_to_owner_above(descriptor: int, path: Path) -> None:
    """What root made belongs to the owner of the directory above it."""
    if os.geteuid() == ROOT:
        owner = path.parent.stat()
        with suppress(PermissionError):  # a container's root that may give nothing away
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync(directory: Path) -> None:
    """Make new and renamed files in it durable, as far as we may and the disk will."""
    # we may not be allowed to read it
    with suppress(OSError), _opened(directory, _DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path | str, flags: int, directory: int | None = None) -> Generator[int]:
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def named(path: Path) -> Generator[None]:
    """An OSError out of the block names the file, for the operator."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """The kernel names no file if a read or a write fails, and the passing name if a rename does."""
    theirs = error.filename is not None and not _OURS.fullmatch(str(error.filename))
    if error.errno is not None and not theirs and not isinstance(error, ConnectionError):
        error.filename, error.filename2 = str(path), None


def open_lock(path: Path) -> int:
    """A file that is only locked, made if there is none: for us alone, or, if root makes it, for the
    directory's owner. Raises OSError."""
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
        _give_to_owner_above(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """One block at a time, of all processes that do this with the directory.

    A block that can't have the lock within 5 s runs without it: a stopped process must not keep all others
    from starting. So does every block where files can't be locked. The lock is on a file that only
    the directory's owner opens, because anybody who may read a directory may lock it.
    """
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
        # explicitly, because a child that was forked meanwhile has it as well
        with suppress(OSError):
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
    with _opened(path.parent, _DIRECTORY) as directory:
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


def _replace(name: str, final: str, directory: int) -> None:
    os.replace(name, final, src_dir_fd=directory, dst_dir_fd=directory)


def _link(name: str, final: str, directory: int) -> None:
    try:
        os.link(name, final, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        with suppress(OSError):  # a later `sweep` would remove it
            os.unlink(name, dir_fd=directory)
        return
    with suppress(FileNotFoundError):
        os.stat(final, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final)
    _replace(name, final, directory)


def sweep(directory: Path) -> None:
    """Remove the files of writers that died. Never raises: it only tidies up."""
    with suppress(OSError), _opened(directory, _DIRECTORY) as descriptor:
        for name in filter(_OURS.fullmatch, os.listdir(descriptor)):  # noqa: PTH208  a descriptor
            with suppress(OSError):
                _unlink_if_left(name, descriptor)


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
    with _opened(name, _THERE, directory) as descriptor:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
