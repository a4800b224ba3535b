"""What a client holds, made for tests: kept files, chains of roots, a state directory's contents, its disk."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from config_manager.client.rules.events import Applied, Event
from config_manager.client.rules.identity import Identity
from config_manager.client.rules.kept import Kept, Version
from config_manager.client.rules.root_chain import Link, RootChain
from config_manager.client.rules.subscriber import Subscriber
from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import Root
from config_manager.config.names import InstanceName
from config_manager.config.trust import Seen
from tests.kit.documents import NOW, make_root, root_bytes, update_bytes


def make_links(root: Root | None = None) -> tuple[Link, ...]:
    """The chain of a state directory that saw no other root yet; nobody need have signed it."""
    root = root or make_root()
    return (Link(root, wire.digest(root.to_bytes()), root_bytes(root)),)


def make_chain(root: Root | None = None) -> RootChain:
    return RootChain(make_links(root))


def make_kept(revision: int, payload: bytes | None = None, **fields: Any) -> Kept:
    """As it is on disk once this revision was taken."""
    envelope = wire.parse_envelope(payload or update_bytes(revision))
    update = ConfigUpdate.parse(envelope.payload)
    seen = Seen(update.mark, envelope.digest)
    return Kept((update, envelope), seen, seen_by=dict.fromkeys(envelope.signers, seen), **fields)


class MemoryDisk:
    """Files in a dictionary; `full` refuses every write, as a full disk does."""

    def __init__(self) -> None:
        self.files: dict[Path, bytes] = {}
        self.full = False
        self.refused = 0

    def read(self, path: Path) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path)) from None

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self.files[path] = data

    def write_pieces(self, path: Path, pieces: Iterable[bytes], *, mode: int = 0o600) -> None:
        self.write_atomic(path, b"".join(pieces), mode=mode)

    def append(self, path: Path, data: bytes, *, at: int) -> None:
        raise NotImplementedError

    def create(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        self.write_atomic(path, data, mode=mode)

    def make_directory(self, path: Path, *, mode: int = 0o700) -> None:
        """There are none."""

    def lock(self, directory: Path) -> AbstractContextManager[None]:
        return nullcontext()

    def rename(self, old: Path, new: Path) -> None:
        self.files[new] = self.files.pop(old)

    def exists(self, path: Path) -> bool:
        return path in self.files


class SetClock:
    """A wall clock that says what it was told."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


def make_identity(instance: str = "robot-1") -> Identity:
    return Identity(
        Path("state"), InstanceName(instance), make_links(), b"s" * 32, b"e" * 32, b"f" * 32
    )


INSTANCE_KEY = SigningKey(b"s" * 32)


class Taker(Subscriber):
    """A subscriber whose service takes each configuration as it comes."""

    def _offer(self, version: Version) -> list[Event]:
        if not super()._offer(version):
            return []
        self.trial = self.trial.run(bakes=False)
        return [Applied(*version, "broker")]
