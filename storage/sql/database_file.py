"""The database's files beside SQLite's own view of them: watched, and their log kept while in doubt.

SQLite goes on from its page cache, and acknowledges writes into files that were cut, exchanged or removed
meanwhile. And closing the last connection writes the log (`-wal`) into the file and deletes it. If that file is
damaged or foreign, a loss that could be repaired becomes final. sqlcipher3 does not offer SQLite's switch against
it. But SQLite asks for an exclusive lock first, and a lock of an open file description refuses that, even within
one process.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

from config_manager.storage.store import DatabaseUnavailable

_SALT_BYTES = 16
"""SQLCipher keeps the salt in the clear at the front; it never changes while the file lives."""
_SHARED_FIRST = 0x4000_0002
"""The first byte that readers lock (SQLite's os.h, "Locking"). Writing the log into the file locks all of them."""


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """The database, its log, and that log's index, whether they are there or not."""
    return path, log_of(path), path.with_name(path.name + "-shm")


def log_of(path: Path) -> Path:
    """SQLite's write-ahead log."""
    return path.with_name(path.name + "-wal")


class _Stat(NamedTuple):
    inode: int
    size: int
    written_at: int
    """Nanoseconds; of the log 0, because other connections may write to it, as SQLite lets them."""


class DatabaseFile:
    """One for each store. All stores of a file in this process share one descriptor, because closing any
    descriptor of a file drops every POSIX lock that SQLite holds on it."""

    _descriptors: ClassVar[dict[tuple[int, int], list[int]]] = {}
    """(device, inode) → descriptor, number of holders"""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._log = log_of(path)
        status = path.stat()
        self._key = (status.st_dev, status.st_ino)
        if self._key not in self._descriptors:
            self._descriptors[self._key] = [os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0]
        self._descriptors[self._key][1] += 1
        self._salt = os.pread(self._descriptor, _SALT_BYTES, 0)
        self._left = self._stats()

    def release(self) -> None:
        """Once every connection is closed."""
        held = self._descriptors[self._key]
        held[1] -= 1
        if held[1] == 0:
            del self._descriptors[self._key]
            os.close(held[0])

    @property
    def _descriptor(self) -> int:
        return self._descriptors[self._key][0]

    # ── the log ────────────────────────────────────────────────────────────────────────────────

    def keep_log(self) -> None:
        """From now on, closing the last connection leaves the log as it is."""
        self._lock(fcntl.F_RDLCK)

    def let_log_go(self) -> None:
        """The database is sound: closing the last connection may put the log into it."""
        self._lock(fcntl.F_UNLCK)

    def _lock(self, kind: int) -> None:
        flock = struct.pack("hhqqi0q", kind, os.SEEK_SET, _SHARED_FIRST, 1, 0)
        with suppress(OSError, AttributeError):  # a file system, or a system, without such locks
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, flock)

    # ── who writes ─────────────────────────────────────────────────────────────────────────────

    def note(self) -> None:
        """Note what is there now as our own doing. Raises DatabaseUnavailable if it can't be."""
        try:
            now = self._stats()
        except OSError as error:
            raise DatabaseUnavailable(f"{self._path.name}: {error.strerror or error}") from error
        for path, before, after in zip((self._path, self._log), self._left, now, strict=True):
            if before is not None and (after is None or after.inode != before.inode):
                raise DatabaseUnavailable(f"{path.name} {_say(before, after)} while it was open")
        self._left = now

    def check(self) -> None:
        """Raises DatabaseUnavailable unless everything is as we left it. Takes 10 µs, so before every commit."""
        try:
            now = self._stats()
            salt = os.pread(self._descriptor, _SALT_BYTES, 0)
        except OSError as error:
            raise DatabaseUnavailable(
                f"{self._path.name}: {error.strerror or error} while it was open"
            ) from error
        if salt != self._salt:
            raise DatabaseUnavailable(f"{self._path.name} was overwritten while it was open")
        for path, before, after in zip((self._path, self._log), self._left, now, strict=True):
            if before is not None and (wrong := _say(before, after)) is not None:
                raise DatabaseUnavailable(f"{path.name} {wrong} while it was open")

    def _stats(self) -> tuple[_Stat, _Stat | None]:
        try:
            log = _stat(self._log)
        except FileNotFoundError:
            log = None
        return _stat(self._path), log and log._replace(written_at=0)


def _stat(path: Path) -> _Stat:
    status = path.stat()
    return _Stat(status.st_ino, status.st_size, status.st_mtime_ns)


def _say(before: _Stat, after: _Stat | None) -> str | None:
    """What was done to a file. A log may grow: what another connection wrote is noticed by the counters and the
    audit."""
    if after is None:
        return "was removed"
    if before.inode != after.inode:
        return "was replaced"
    if after.size < before.size:
        return f"was cut from {before.size} to {after.size} bytes"
    return "was written to by somebody else" if after.written_at != before.written_at else None
