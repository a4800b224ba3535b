"""The audit of a data directory whose server is stopped, and what else there knows how it ends."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config_manager.config.audit import Head
from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.world import World
from config_manager.storage.cache_file import kept_in_cache
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.sql.snapshot import opened_snapshot
from config_manager.storage.state import Committed
from config_manager.storage.store import DatabaseUnavailable, StoreSnapshot
from config_manager.storage.witness import Witness, lock_data_dir


@dataclass(frozen=True, slots=True)
class StoppedAudit:
    """snapshot: of what is kept; its head comes from the database's own counters. known: rows that others know.
    cached: the last-known-good state, if it verifies."""

    snapshot: StoreSnapshot
    vouching: Vouching
    known: tuple[Head, ...]
    cached: Committed | None


@contextmanager
def stopped_audit(
    data_dir: Path, world: World, *, db_key_file: Path | None = None
) -> Generator[StoppedAudit]:
    """Changes nothing. Raises DataDirInUse, DatabaseUnopenable, KeyFileUnsafe."""
    path = data_dir / "config.db"
    if not path.exists() or path.stat().st_size == 0:  # before anything is made there
        raise DatabaseUnopenable(f"there is no database in {data_dir}")
    try:
        with lock_data_dir(data_dir):
            keys = KeyRing.open(data_dir, world, db_key_file=db_key_file)
            witness = Witness.of(keys, world)
            known = () if witness.is_missing else (witness.audit,)
            with opened_snapshot(path, keys.db_key) as snapshot:
                yield StoppedAudit(
                    snapshot, Vouching(keys.instance_key), known, kept_in_cache(keys, world)
                )
    except DatabaseUnavailable as error:
        raise DatabaseUnopenable(
            f"the database can't be read ({error}); nothing was changed"
        ) from error
