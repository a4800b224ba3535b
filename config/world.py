"""The seams to the world: wall clock, randomness, disk. All of them are passed in.

Monotonic time needs no seam of its own: it is Trio's clock, which tests replace by a MockClock.
The broker's seam is `actors.mqtt.aiomqtt_transport.Transport`.
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
    """Whole files, and what is written behind one. The database has its own way to the disk."""

    def read(self, path: Path) -> bytes:
        """The file's bytes; raises OSError, which names the file (FileNotFoundError where there is none)."""
        ...

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Either the old content or the new, whatever happens; durable on return. Raises OSError."""
        ...

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        """As `write_atomic`, of what nobody needs to hold in one: each piece is asked for once the one
        before it was written."""
        ...

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        """Behind what is in a file that has `at` bytes; durable on return. Raises OSError, also if it
        has another size: then, or after a power cut, any first part of the data may be there."""
        ...

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """As `write_atomic`, where there is none yet; raises FileExistsError where there is, also
        where somebody else was quicker."""
        ...

    def make_directory(self, path: Path, *, mode: int = 0o700) -> None:
        """With this mode, and those above it; one that is there stays as it is. Raises OSError."""
        ...

    def lock(self, directory: Path) -> AbstractContextManager[None]:
        """A block of which one is run at a time, for what is read, changed and written. Where it can't
        be had, the block runs all the same."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Move a file within a directory, replacing the target; durable with the next write there.
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
        # root works on a service's directory: the file is its owner's
        with replacing(path, mode=mode, for_directorys_owner=True) as file:
            file.writelines(pieces)

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        append(path, data, at=at)

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self._sweep_once(path.parent)
        with creating(path, mode=mode, for_directorys_owner=True) as file:
            file.write(data)

    def make_directory(self, path: Path, *, mode: int = 0o700) -> None:
        make_directory(path, mode=mode)

    def lock(self, directory: Path) -> AbstractContextManager[None]:
        return locked(directory)

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
    """Everything that is not our own decision: replace it to run in a simulated one."""

    clock: WallClock = field(default_factory=SystemClock)
    randomness: Randomness = field(default_factory=SystemRandomness)
    disk: Disk = field(default_factory=SystemDisk)


def backoff_s(failures: int, *, first_s: float, longest_s: float) -> float:
    """The longest pause after so many failures (from 0): doubled for each, bounded, before jitter."""
    # a float has no 2^1024, and whoever is away for an hour fails that often
    return min(first_s * 2.0 ** min(failures, _MAX_EXPONENT), longest_s)


def rfc3339(seconds: float) -> str:
    """A time in UTC with milliseconds (RFC 3339): what every document, row and line carries."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> float:
    """The inverse of `rfc3339`, for any offset; raises ValueError (also without an offset)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; end it in Z")
    return moment.timestamp()
