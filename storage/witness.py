"""The witness: which instance this is and how far it has come, beside the database, authenticated.

A database that is behind its witness was rolled back; SQLCipher can't see that by itself.
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from config_manager.config import strict_json
from config_manager.config.audit import GENESIS, Head
from config_manager.config.disk_errors import is_read_only
from config_manager.config.errors import DatabaseUnopenable, DataDirInUse
from config_manager.config.files import LOCK, named, open_lock
from config_manager.config.names import Mark
from config_manager.config.sealed_file import derive_key
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World
from config_manager.storage.keys.key_ring import KeyRing


@dataclass(frozen=True, slots=True)
class _Record:
    instance_id: str
    boot_seq: int
    epoch_seq: int
    revision: int
    audit_seq: int = 0
    audit_head: str = GENESIS


class Witness:
    """`instance.json`: HMAC-SHA256 under a key derived from the instance's own."""

    def __init__(
        self, path: Path, key: bytes, world: World, record: _Record, *, is_missing: bool = False
    ) -> None:
        """is_missing: there was no file. Either this is a first start, or the file was lost."""
        self.is_missing = is_missing
        self._path = path
        self._key = key
        self._world = world
        self._record = record
        self._written = record
        self._boot_seq = record.boot_seq

    @classmethod
    def open(cls, path: Path, instance_key: bytes, world: World) -> Witness:
        """Read it, or begin one in memory if there is none. Raises DatabaseUnopenable, and OSError if it
        can't be read, which says nothing about its content."""
        key = derive_key(instance_key, "instance-witness")
        try:
            data = world.disk.read(path)
        except FileNotFoundError:
            first = _Record(world.randomness.uuid(), 0, 0, 0)
            return cls(path, key, world, first, is_missing=True)
        except IsADirectoryError:
            data = b""
        try:
            value = strict_json.loads_object(data)
            mac = bytes.fromhex(value.pop("mac"))
            # a record of a version that noted no audit has two fields less
            record = _Record(**value)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DatabaseUnopenable(f"{path.name} is damaged; restore it from a backup") from None
        if not hmac.compare_digest(mac, _mac(key, value)):
            raise DatabaseUnopenable(
                f"{path.name} was altered, or belongs to other keys; restore both from one backup"
            )
        return cls(path, key, world, record)

    @classmethod
    def of(cls, keys: KeyRing, world: World) -> Witness:
        """The one of a data directory; raises as `open` does."""
        return cls.open(keys.data_dir / "instance.json", keys.instance_key, world)

    @property
    def instance_id(self) -> str:
        return self._record.instance_id

    @property
    def boot_seq(self) -> int:
        """Starts of this instance, this one included; beacons of a later start outrank earlier ones."""
        return self._boot_seq

    @property
    def is_first_start(self) -> bool:
        """Until the first start is counted. From then on a missing database was removed."""
        return self._boot_seq == 0

    @property
    def mark(self) -> Mark:
        return Mark(self._record.epoch_seq, self._record.revision)

    @property
    def audit(self) -> Head:
        """The newest row of the audit that was noted; row 0 is before the first."""
        return Head(self._record.audit_seq, self._record.audit_head, self._path.name)

    def boot(self, noted: int = 0) -> None:
        """Count this start, durably, above the `noted` starts that are known elsewhere. Raises OSError; the
        start counts all the same, and the next `advance` writes it."""
        self.begin_above(max(noted, self._boot_seq))
        self._save(replace(self._record, boot_seq=self._boot_seq))

    def begin_above(self, boot_seq: int) -> int:
        """Count this start above that one, and answer its number. The next `advance` writes it."""
        self._boot_seq = max(self._boot_seq, boot_seq + 1)
        return self._boot_seq

    @property
    def is_due(self) -> bool:
        """Whether `advance` has something to write even if the database has not moved."""
        return self._written.boot_seq != self._boot_seq

    def advance(self, mark: Mark, audit: tuple[int, str] = (0, GENESIS)) -> None:
        """Note how far the database and its audit (number and hash of its newest row) have come,
        durably; neither goes back. Raises OSError."""
        record = replace(self._record, boot_seq=self._boot_seq)
        if mark > self.mark:
            record = replace(record, epoch_seq=mark.epoch_seq, revision=mark.revision)
        if audit[0] > record.audit_seq:
            record = replace(record, audit_seq=audit[0], audit_head=audit[1])
        if record != self._written:
            self._save(record)

    def begin_anew(self, mark: Mark, audit: tuple[int, str], boot_seq: int) -> None:
        """Note this instead of whatever was known before, durably. Raises OSError."""
        self._boot_seq = boot_seq
        record = _Record(self.instance_id, boot_seq, mark.epoch_seq, mark.revision, *audit)
        self._save(record)

    def _save(self, record: _Record) -> None:
        data = {**asdict(record), "mac": _mac(self._key, asdict(record)).hex()}
        self._world.disk.write_atomic(self._path, strict_json.dumps(data) + b"\n")
        self._record = self._written = record


def _mac(key: bytes, record: JsonObject) -> bytes:
    return hmac.digest(key, strict_json.dumps(record), "sha256")


@contextmanager
def lock_data_dir(data_dir: Path) -> Generator[None]:
    """Hold the data directory. Raises DataDirInUse, OSError. The kernel lets go when the process ends."""
    path = data_dir / LOCK
    descriptor = _open_lock(path)
    try:
        with named(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataDirInUse(
                    f"another process uses the data directory {data_dir}; stop it, or choose another one"
                ) from None
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """On a read-only file system the file is opened for reading, which is enough for a lock. The directory
    stands in for a file that was never made. Raises OSError."""
    try:
        return open_lock(path)
    except OSError as error:
        if not is_read_only(error):
            raise
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
