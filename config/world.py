"""The seams to the world: wall clock, randomness, disk. All of them are passed in.

Monotonic time needs no seam: it is Trio's clock, which tests replace with a MockClock.
The broker's seam is `actors.mqtt.port.Transport`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from config_manager.config.files import (
    append,
    creating,
    locked,
    make_directory,
    named,
    replacing,
    sweep,
)

_MAX_EXPONENT = 100
_FIRST_S = datetime.min.replace(tzinfo=UTC).timestamp()
_END_S = datetime(9999, 12, 31, tzinfo=UTC).timestamp() + 86_400


class WallClock(Protocol):
    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class Randomness(Protocol):
    def token(self, size: int) -> bytes:
        """`size` bytes fit for keys and nonces."""
        ...

    def uuid(self) -> str:
        """A random UUID in its canonical spelling."""
        ...

    def fraction(self) -> float:
        """0 ≤ x < 1, for jitter."""
        ...


class Disk(Protocol):
    """Reads and writes whole files, and appends. The database has its own way to the disk."""

    def read(self, path: Path) -> bytes:
        """The file's bytes. Raises OSError, which names the file; FileNotFoundError if there is none."""
        ...

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Either the old content or the new, whatever happens; durable on return. Raises OSError."""
        ...

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        """As `write_atomic`, piece by piece: each is asked for once the one before it is written."""
        ...

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        """Write behind the `at` bytes that a file has; durable on return.

        Raises OSError, also if the file has another size. After an error or a power cut any first
        part of the data may be there.
        """
        ...

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """As `write_atomic`, for a new file. Raises FileExistsError if it exists, also if another
        process was quicker."""
        ...

    def make_directory(self, path: Path, *, mode: int = 0o700) -> None:
        """Make it with this mode, and those above it. An existing one stays as it is. Raises OSError."""
        ...

    def lock(self, directory: Path) -> AbstractContextManager[None]:
        """One block at a time, for what is read, changed and written. Without a lock to be had, the
        block runs all the same."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Move a file within its directory over the target; durable with the next write there.
        Raises OSError."""
        ...

    def exists(self, path: Path) -> bool: ...


class SystemClock:
    def now(self) -> float:
        return time.time()


class SystemRandomness:
    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def uuid(self) -> str:
        # as uuid.uuid4, at a third of its cost: two are made for every request
        digits = os.urandom(16).hex()
        variant = "89ab"[int(digits[16], 16) & 3]
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
        )

    def fraction(self) -> float:
        return int.from_bytes(os.urandom(6)) / 2**48


class SystemDisk:
    def __init__(self) -> None:
        self._swept: set[Path] = set()

    def read(self, path: Path) -> bytes:
        with named(path):
            return path.read_bytes()

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self.write_pieces(path, (data,), mode=mode)

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        self._sweep_once(path.parent)
        # if root works on a service's directory, the file is the owner's
        with replacing(path, mode=mode, for_directorys_owner=True) as file:
            file.writelines(pieces)

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self._sweep_once(path.parent)
        with creating(path, mode=mode, for_directorys_owner=True) as file:
            file.write(data)

    append = staticmethod(append)
    make_directory = staticmethod(make_directory)
    lock = staticmethod(locked)

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def _sweep_once(self, directory: Path) -> None:
        if directory not in self._swept:
            self._swept.add(directory)
            sweep(directory)


@dataclass(frozen=True)
class World:
    """Everything outside our own decisions; replace it to run in a simulated world."""

    clock: WallClock = field(default_factory=SystemClock)
    randomness: Randomness = field(default_factory=SystemRandomness)
    disk: Disk = field(default_factory=SystemDisk)


def backoff_s(failures: int, *, first_s: float, longest_s: float) -> float:
    """The longest pause after so many failures (from 0), before jitter: doubled for each, up to longest_s."""
    # a float has no 2^1024, and an hour without a broker has that many failures
    return min(first_s * 2.0 ** min(failures, _MAX_EXPONENT), longest_s)


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC with milliseconds, as in every document, row and line."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> float:
    """Unix seconds of a time with any offset. Raises ValueError, also if there is no offset, or `rfc3339` could not
    say it: in UTC it is before the year 1, or after 9999."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; end it in Z")
    seconds = moment.timestamp()
    if not _FIRST_S <= seconds < _END_S:
        raise ValueError(f"{text!r} is not within the years 1 to 9999 in UTC")
    return seconds
