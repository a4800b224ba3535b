"""A file that takes another's place, whole and durable, in a directory that may be somebody else's.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_OURS = re.compile(r"\.config-manager-[0-9a-f]{16}\.tmp")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_THERE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 100
ROOT = 0


@contextmanager
def replacing(
    path: Path, *, mode: int = 0o600, for_directorys_owner: bool = False
) -> Iterator[IO[bytes]]:
    """Write what `path` is to hold; it does once the block ends well, durably. Else nothing changed.

    for_directorys_owner: where root writes, the file is for whom the directory belongs to. Raises
    OSError.
    """
    directory = os.open(path.parent, _DIRECTORY)
    try:
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
                os.replace(name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)


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
