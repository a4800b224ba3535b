"""The key files: made at the first start, 0600 or no start, 64 hex digits each."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from nacl.signing import SigningKey

from config_manager.config.documents import ROLES
from config_manager.config.errors import DatabaseUnopenable, KeyFileUnsafe
from config_manager.config.wire import keyid
from config_manager.config.world import World

_KEY_BYTES = 32


class KeyRing:
    """Every key of this instance. It has no repr that shows one.

    A role may have several keys over time: `config.key` is the first, later ones carry the first 16
    digits of their id (`config-0123456789abcdef.key`). Which one signs is the trust root's to say. The root's own may
    be elsewhere, offline.
    """

    def __init__(
        self, data_dir: Path, keys: Mapping[str, bytes], seeds: Mapping[str, bytes]
    ) -> None:
        """keys: db, secrets, instance. seeds: key id → Ed25519 seed; none of the root's."""
        self.data_dir = data_dir
        self.directory = data_dir / "keys"
        self.db_key = keys["db"]
        self.secrets_key = keys["secrets"]
        self.instance_key = keys["instance"]
        self._seeds = dict(seeds)

    def __repr__(self) -> str:
        return f"KeyRing({str(self.directory)!r})"

    def holds(self, key_id: str) -> bool:
        """Whether we can sign configurations or beacons with this key."""
        return key_id in self._seeds

    def seed(self, key_id: str) -> bytes:
        """Raises KeyError where the key is not here."""
        return self._seeds[key_id]

    def publics(self, role: str, world: World) -> list[bytes]:
        """The raw public keys of a role whose seeds are here, its first one first."""
        return [_public(seed) for seed in self._read_role(role, world)]

    def add(self, role: str, world: World) -> bytes:
        """A new key for a role, on disk before anybody relies on it; its public key."""
        seed = world.randomness.token(_KEY_BYTES)
        public = _public(seed)
        path = self.directory / f"{role}-{keyid(public)[:16]}.key"
        world.disk.write_atomic(path, seed.hex().encode())
        if role != "root":
            self._seeds[keyid(public)] = seed
        return public

    def root_seeds(self, world: World) -> dict[str, bytes]:
        """Key id → seed of each root key that is here now: read when they are needed and not kept, so
        that who takes them offline has taken them from the running service, too."""
        return {keyid(_public(seed)): seed for seed in self._read_role("root", world)}

    def root_files(self) -> list[Path]:
        """Where the root keys lie that are here."""
        return _files(self.directory, "root")

    def _read_role(self, role: str, world: World) -> list[bytes]:
        return [read_key(path, world) for path in _files(self.directory, role)]

    @classmethod
    def open(cls, data_dir: Path, world: World, *, db_key_file: Path | None = None) -> KeyRing:
        """Read the keys, or make them where nothing was ever kept under them.

        Raises KeyFileUnsafe where others can read one, DatabaseUnopenable where one is missing
        beside data that needs it, or is not 64 hex digits.
        """
        directory = data_dir / "keys"
        directory.mkdir(mode=0o700, exist_ok=True)
        check_private(directory)
        fresh = not any(world.disk.exists(data_dir / n) for n in ("instance.json", "config.db"))

        def key(name: str, given: Path | None = None) -> bytes:
            path = directory / f"{name}.key"
            if given is None and fresh and not world.disk.exists(path):
                world.disk.write_atomic(path, world.randomness.token(_KEY_BYTES).hex().encode())
            return read_key(given or path, world)

        keys = {
            "db": key("db", db_key_file),
            "secrets": key("secrets"),
            "instance": key("instance"),
        }
        seeds: dict[str, bytes] = {}
        for role in ROLES:
            if not _files(directory, role) and (fresh or role != "root"):  # that may be offline
                key(role)
            for path in _files(directory, role):
                seed = read_key(path, world)
                if role != "root":
                    seeds[keyid(_public(seed))] = seed
        return cls(data_dir, keys, seeds)


def _files(directory: Path, role: str) -> list[Path]:
    """A role's key files, the first one first."""
    first = directory / f"{role}.key"
    return [*([first] if first.exists() else []), *sorted(directory.glob(f"{role}-*.key"))]


def _public(seed: bytes) -> bytes:
    return SigningKey(seed).verify_key.encode()


def check_private(path: Path) -> None:
    """Only we can reach it; raises KeyFileUnsafe. A key that others could read or plant is no key."""
    status = path.stat()
    if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise KeyFileUnsafe(f"others can reach {path.name}: run chmod {mode} on it")
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFileUnsafe(f"{path.name} belongs to another user: run chown on it")


def read_key(path: Path, world: World) -> bytes:
    """One key file; raises KeyFileUnsafe or DatabaseUnopenable."""
    try:
        mode = path.stat().st_mode
        text = world.disk.read(path).decode("ascii").strip()
        key = bytes.fromhex(text)
    except FileNotFoundError:
        raise DatabaseUnopenable(
            f"the key file {path.name} is missing; put it back from where you keep it"
        ) from None
    except (OSError, ValueError) as error:
        raise DatabaseUnopenable(f"the key file {path.name} can't be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileUnsafe(f"others can read {path.name}: run chmod 600 on it, and change the key")
    if len(key) != _KEY_BYTES or len(text) != 2 * _KEY_BYTES:
        raise DatabaseUnopenable(f"the key file {path.name} does not hold 64 hex digits")
    return key
