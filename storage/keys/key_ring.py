"""Every key of an instance: made at the first start, then read from `<data>/keys`, or from where they are given.
`storage.keys.key_file` says which files are safe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nacl.signing import SigningKey

from config_manager.config.documents.root import ROLES
from config_manager.config.files import make_directory
from config_manager.config.wire import keyid
from config_manager.config.world import World
from config_manager.storage.keys.key_file import (
    KEY_BYTES,
    KeyFile,
    check_not_writable,
    check_private,
    read_key,
)

if TYPE_CHECKING:
    from config_manager.config.settings import Settings


class KeyRing:
    """Every key of this instance. It has no repr that shows one.

    db, secrets: the files of the two keys that are changed through a successor.

    A role may have several keys over time. `config.key` is the first; later ones carry the first 16 digits of
    their id (`config-0123456789abcdef.key`). The trust root says which one signs. The root's own keys may be
    elsewhere, offline.
    """

    def __init__(
        self, places: _Places, files: Mapping[str, KeyFile], seeds: Mapping[str, bytes]
    ) -> None:
        """files: db, secrets, instance. seeds: key id → Ed25519 seed; none of the root's."""
        self.data_dir = places.data_dir
        self.directory = places.directory
        self.db = files["db"]
        self.secrets = files["secrets"]
        self.db_key = self.db.read()
        self.secrets_key = self.secrets.read()
        self.instance_key = files["instance"].read()
        self._files = files
        self._places = places
        self._seeds = dict(seeds)

    def __repr__(self) -> str:
        return f"KeyRing({str(self.directory)!r})"

    def holds(self, key_id: str) -> bool:
        """Whether configurations or beacons can be signed with this key here."""
        return key_id in self._seeds

    def seed(self, key_id: str) -> bytes:
        """The Ed25519 seed. Raises KeyError if the key is not here."""
        return self._seeds[key_id]

    def publics(self, role: str, world: World) -> list[bytes]:
        """The raw public keys of a role whose seeds are here, the first one first."""
        return [_public(seed) for seed in _read(self._places.of_role(role), world)]

    def add(self, role: str, world: World) -> bytes:
        """Make a new key for a role, durable on return, and answer its public key. Raises OSError."""
        seed = world.randomness.token(KEY_BYTES)
        public = _public(seed)
        world.disk.write_atomic(self._later(role, public), seed.hex().encode())
        if role != "root":
            self._seeds[keyid(public)] = seed
        return public

    def drop(self, role: str, public: bytes) -> None:
        """Forget a key that `add` made and nothing relies on after all."""
        self._seeds.pop(keyid(public), None)
        with suppress(OSError):  # a file that stays is of no use to anybody
            self._later(role, public).unlink(missing_ok=True)

    def _later(self, role: str, public: bytes) -> Path:
        return self.directory / f"{role}-{keyid(public)[:16]}.key"

    def root_seeds(self, world: World) -> dict[str, bytes]:
        """Key id → seed of each root key that is here now. They are read when needed and not kept: taking the
        files offline takes the keys from the running service, too."""
        return {keyid(_public(seed)): seed for seed in _read(self._places.of_role("root"), world)}

    def contents(self, world: World) -> dict[str, bytes]:
        """File name → key, of every key that is here now, successors included."""
        found: dict[str, bytes] = {}
        for name, file in self._files.items():
            found[f"{name}.key"] = file.read()
            if (successor := file.read_successor()) is not None:
                found[f"{name}.key.new"] = successor
        for role in ROLES:
            for path, given in self._places.of_role(role):
                found[path.name] = read_key(path, world, given=given)
        return found

    def root_files(self) -> list[Path]:
        """The files of the root keys that are here."""
        return [path for path, _ in self._places.of_role("root")]

    @classmethod
    def of(cls, settings: Settings, world: World) -> KeyRing:
        """`open`, with the places that the settings name."""
        return cls.open(
            settings.data_dir,
            world,
            db_key_file=settings.db_key_file,
            credentials_dir=settings.credentials_dir,
        )

    @classmethod
    def open(
        cls,
        data_dir: Path,
        world: World,
        *,
        db_key_file: Path | None = None,
        credentials_dir: Path | None = None,
    ) -> KeyRing:
        """Read the keys, or make them if nothing was ever kept under them.

        credentials_dir: key files that lie there (`db.key`, `secrets.key`, …) are used instead of those in
        `keys/`, which then aren't made. Raises KeyFileUnsafe if others can read one. Raises DatabaseUnopenable
        if one is missing beside data that needs it, or is not 64 hex digits.
        """
        places = _Places(data_dir, credentials_dir)
        places.check()
        fresh = not any(world.disk.exists(data_dir / n) for n in ("instance.json", "config.db"))

        def file(name: str, given: Path | None = None) -> KeyFile:
            path, is_given = (given, True) if given else places.of(name)
            key_file = KeyFile(path, world, given=is_given)
            if fresh and not is_given and not world.disk.exists(path):
                key_file.make()
            return key_file

        files = {"db": file("db", db_key_file)}
        files |= {name: file(name) for name in ("secrets", "instance")}
        seeds: dict[str, bytes] = {}
        for role in ROLES:
            # the root's key may be offline
            if not places.of_role(role) and (fresh or role != "root"):
                file(role).read()
            for seed in _read(places.of_role(role), world):
                if role != "root":
                    seeds[keyid(_public(seed))] = seed
        return cls(places, files, seeds)


class _Places:
    """Where key files lie: a given one wins over our own."""

    def __init__(self, data_dir: Path, given: Path | None) -> None:
        self.data_dir = data_dir
        self.directory = data_dir / "keys"
        self._given = given

    def check(self) -> None:
        """Make `keys/` if it is missing. Raises KeyFileUnsafe if others reach into it."""
        check_not_writable(self.data_dir)
        make_directory(self.directory)
        check_private(self.directory)
        for path in self.directory.iterdir():
            if path.exists():  # a link that leads nowhere: reading it says that it is missing
                check_private(path)

    def of(self, name: str) -> tuple[Path, bool]:
        """A key's file, and whether it is given."""
        if self._given is not None and (self._given / f"{name}.key").exists():
            return self._given / f"{name}.key", True
        return self.directory / f"{name}.key", False

    def of_role(self, role: str) -> list[tuple[Path, bool]]:
        """A role's key files, the first one first, and whether each is given."""
        first = self.of(role)
        later = sorted(self.directory.glob(f"{role}-*.key"))
        return [*([first] if first[0].exists() else []), *((path, False) for path in later)]


def _read(files: list[tuple[Path, bool]], world: World) -> list[bytes]:
    return [read_key(path, world, given=given) for path, given in files]


def _public(seed: bytes) -> bytes:
    return SigningKey(seed).verify_key.encode()
