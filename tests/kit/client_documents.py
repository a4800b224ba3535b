"""Publishers, honest and not, for the client's tests."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from config_manager.client.rules.kept import Kept
from config_manager.client.rules.root_chain import Link, RootChain
from config_manager.client.state.identity import Identity
from config_manager.config import wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import KeyRole, Root, RootKey
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.names import InstanceName
from config_manager.config.trust import Seen
from config_manager.config.wire import Envelope, Signature

ROOT_KEY, CONFIG_KEY, BEACON_KEY, STRANGER = (SigningKey(bytes([n]) * 32) for n in range(1, 5))
SERVICE = "stt-worker"
TOPIC = wire.config_topic(SERVICE)
WALL = 1_800_000_000.0


def key_id(key: SigningKey) -> str:
    return wire.keyid(key.verify_key.encode())


def sign(key: SigningKey, kind: str, payload: bytes) -> Envelope:
    signature = key.sign(wire.signed_bytes(kind, payload)).signature
    return Envelope(kind, payload, (Signature(key_id(key), signature),), "abc")


def make_root(*, config_not_after: str | None = None, version: int = 1) -> Root:
    keys = {key_id(k): RootKey(k.verify_key.encode()) for k in (ROOT_KEY, BEACON_KEY)}
    keys[key_id(CONFIG_KEY)] = RootKey(CONFIG_KEY.verify_key.encode(), config_not_after)
    roles = {
        name: KeyRole((key_id(key),), 1)
        for name, key in (("root", ROOT_KEY), ("config", CONFIG_KEY), ("beacon", BEACON_KEY))
    }
    return Root(version, "2026-01-01T00:00:00.000Z", keys, roles)


def root_bytes(root: Root | None = None) -> bytes:
    return sign(ROOT_KEY, wire.ROOT, (root or make_root()).to_bytes()).to_bytes()


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


def make_update(revision: int = 1, **fields: Any) -> ConfigUpdate:
    values: dict[str, Any] = {
        "service": SERVICE,
        "topic": TOPIC,
        "config_epoch": "00000000-0000-4000-8000-000000000000",
        "epoch_seq": 1,
        "revision": revision,
        "previous": None,
        "issued_at": "2026-01-01T00:00:00.000Z",
        "config": {"whisper_model": "base.en", "n": revision},
        "defaulted": (),
        "secrets": {},
        "deleted": False,
        "correlation_id": f"id-{revision}",
    }
    return ConfigUpdate(**{**values, **fields})


def update_bytes(revision: int = 1, key: SigningKey = CONFIG_KEY, **fields: Any) -> bytes:
    return sign(key, wire.CONFIG_UPDATE, make_update(revision, **fields).to_bytes()).to_bytes()


def raw_update(changes: dict[str, Any], revision: int = 1) -> bytes:
    """Signed, but with fields that the writer's own class would not make."""
    value = {**json.loads(make_update(revision).to_bytes()), **changes}
    return sign(CONFIG_KEY, wire.CONFIG_UPDATE, json.dumps(value).encode()).to_bytes()


def entry(revision: int, **fields: Any) -> tuple[int, str]:
    return (revision, wire.digest(make_update(revision, **fields).to_bytes()))


def make_snapshot(
    services: dict[str, tuple[int, str]], revision: int = 9, key: SigningKey = BEACON_KEY
) -> Envelope:
    snapshot = Snapshot("00000000-0000-4000-8000-000000000000", 1, revision, services)
    return sign(key, wire.SNAPSHOT, snapshot.to_bytes())


def make_beacon(
    snapshot: Envelope,
    seq: int,
    boot_seq: int = 1,
    valid_s: int = 30,
    key: SigningKey = BEACON_KEY,
    root_version: int = 1,
    issued_at: str = "2026-01-01T00:00:00.000Z",
) -> dict[str, Any]:
    beacon = Beacon(
        "00000000-0000-4000-8000-000000000000", 1, 9, snapshot.digest, root_version, "0" * 64,
        boot_seq, seq, issued_at, valid_s,
    )  # fmt: skip
    return sign(key, wire.BEACON, beacon.to_bytes()).to_object()


def snapshot_bytes(services: dict[str, tuple[int, str]], seq: int, **fields: Any) -> bytes:
    snapshot = make_snapshot(services, key=fields.get("key", BEACON_KEY))
    beacon = make_beacon(snapshot, seq, **fields)
    return json.dumps({**snapshot.to_object(), "beacon": beacon}).encode()


def keepalive_bytes(services: dict[str, tuple[int, str]], seq: int, **fields: Any) -> bytes:
    """The beacon names the snapshot of the same services, whoever signed that."""
    beacon = make_beacon(make_snapshot(services), seq, **fields)
    return json.dumps({"type": "health.keepalive", "data": {"beacon": beacon}}).encode()


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

    def __init__(self, now: float = WALL) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


def make_identity(instance: str = "robot-1") -> Identity:
    return Identity(
        Path("state"), InstanceName(instance), make_links(), b"s" * 32, b"e" * 32, b"f" * 32
    )


INSTANCE_KEY = SigningKey(b"s" * 32)
