"""Files in memory, for a disk that loses power: its tests say which call is cut."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path


class PowerCut(Exception):
    """Nothing after this instant happens."""


@dataclass
class FilesInMemory:
    """A `Disk` that reads. Who writes to it says how, and what a power cut leaves of that."""

    files: dict[Path, bytes] = field(default_factory=dict)

    def read(self, path: Path) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self.files[path]

    def exists(self, path: Path) -> bool:
        return path in self.files

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        raise NotImplementedError

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        raise NotImplementedError

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        raise NotImplementedError

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        raise NotImplementedError

    def make_directory(self, path: Path, *, mode: int = 0o700) -> None:
        raise NotImplementedError

    def rename(self, old: Path, new: Path) -> None:
        raise NotImplementedError

    def lock(self, directory: Path) -> AbstractContextManager[None]:
        raise NotImplementedError
