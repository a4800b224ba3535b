"""The key files: made at the first start, 0600 or no start, 64 hex digits each."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from nacl.signing import SigningKey

from config_manager.config.errors import DatabaseUnopenable, KeyFileUnsafe
from config_manager.config.world import World

_KEY_BYTES = 32
_SIGNING_ROLES = ("root", "config", "beacon")


class KeyRing:
    """Every key of this instance. It has no repr that shows one."""

    def __init__(self, data_dir: Path, keys: Mapping[str, bytes]) -> None:
        self.data_dir = data_dir
        self.directory = data_dir / "keys"
        self.db_key = keys["db"]
        self.secrets_key = keys["secrets"]
        self.instance_key = keys["instance"]
        self.seeds: Mapping[str, bytes] = {role: keys[role] for role in _SIGNING_ROLES}

    def __repr__(self) -> str:
        return f"KeyRing({str(self.directory)!r})"

    def public(self, role: str) -> bytes:
        """The role's raw Ed25519 public key."""
        return SigningKey(self.seeds[role]).verify_key.encode()

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
        keys: dict[str, bytes] = {}
        for name in ("db", "secrets", "instance", *_SIGNING_ROLES):
            path = directory / f"{name}.key"
            given = db_key_file if name == "db" else None
            if given is None and fresh and not world.disk.exists(path):
                world.disk.write_atomic(path, world.randomness.token(_KEY_BYTES).hex().encode())
            keys[name] = read_key(given or path, world)
        return cls(data_dir, keys)


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
