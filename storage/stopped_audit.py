"""The audit of a data directory whose server is stopped, and what else there knows its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config_manager.config.audit import Head
from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.world import World
from config_manager.storage.instance import Witness, lock_data_dir
from config_manager.storage.keys import KeyRing
from config_manager.storage.sql_store import snapshot_of
from config_manager.storage.store import DatabaseUnavailable, Snapshot
from config_manager.storage.vouching import Vouching


@dataclass(frozen=True, slots=True)
class StoppedAudit:
    """snapshot: of what is kept; its head is by the database's own counters. known: by others."""

    snapshot: Snapshot
    vouching: Vouching
    known: tuple[Head, ...]


@contextmanager
def stopped_audit(
    data_dir: Path, world: World, *, db_key_file: Path | None = None
) -> Iterator[StoppedAudit]:
    """Nothing is changed. Raises DataDirInUse, DatabaseUnopenable, KeyFileUnsafe."""
    path = data_dir / "config.db"
    if not path.exists():
        raise DatabaseUnopenable(f"there is no database in {data_dir}")
    try:
        with lock_data_dir(data_dir):
            keys = KeyRing.open(data_dir, world, db_key_file=db_key_file)
            known: tuple[Head, ...] = ()
            witness = data_dir / "instance.json"
            if world.disk.exists(witness):
                known = (Witness.open(witness, keys.instance_key, world).audit,)
            with snapshot_of(path, keys.db_key) as snapshot:
                yield StoppedAudit(snapshot, Vouching(keys.instance_key), known)
    except DatabaseUnavailable as error:
        raise DatabaseUnopenable(
            f"the database can't be read ({error}); nothing was changed"
        ) from error
