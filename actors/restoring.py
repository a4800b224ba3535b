"""`restore --accept` on a stopped data directory: gather every witness, and begin above them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass

from config_manager.actors.broker_ways import ways_to_brokers
from config_manager.actors.caching import LastKnownGood
from config_manager.actors.mqtt import Transport
from config_manager.actors.retained import Retained, look
from config_manager.actors.system import open_sql_store
from config_manager.config.brokers import BrokerAddress
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents import Root
from config_manager.config.errors import RootRefused
from config_manager.config.names import Mark
from config_manager.config.settings import Settings
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World, rfc3339
from config_manager.storage import accepting, rekeying
from config_manager.storage.administration import Administrator
from config_manager.storage.devices import devices, enrolled
from config_manager.storage.instance import Witness, lock_data_dir
from config_manager.storage.keys import KeyRing
from config_manager.storage.root_files import RootFiles
from config_manager.storage.sql_store import SqlSnapshot, SqlStore, snapshot_of
from config_manager.storage.state import Change, Committed
from config_manager.storage.tokens import tokens
from config_manager.storage.vouching import Judgement, Vouching


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, or would be. put_back, dropped: as /health names them. history_as_it_lies: services
    whose history no audit could put back. unreachable: url → why.
    access: tokens and enrolled devices that are there, for who has to look at them."""

    services: int
    revision: int
    epoch_seq: int
    revision_before: int
    epoch_seq_before: int
    put_back: tuple[str, ...]
    dropped: tuple[str, ...]
    as_it_lies: bool
    history_as_it_lies: tuple[str, ...]
    unreachable: dict[str, str]
    access: tuple[str, ...]

    def to_object(self) -> JsonObject:
        return asdict(self)


async def accept_what_is_here(
    settings: Settings,
    *,
    catalogue: Catalogue,
    transport: Transport,
    world: World,
    reason: str | None,
    dry_run: bool,
) -> Restored:
    """Raises StartError (DataDirInUse, DatabaseUnopenable, RootRefused), DatabaseUnavailable, OSError,
    TooLarge."""
    data_dir = settings.data_dir
    ways = ways_to_brokers(settings.mqtt_url)
    # a broker of our own keeps nothing while we are stopped
    addresses = [way for way in ways if isinstance(way, BrokerAddress)]
    with lock_data_dir(data_dir):
        keys = KeyRing.open(
            data_dir,
            world,
            db_key_file=settings.db_key_file,
            credentials_dir=settings.credentials_dir,
        )
        with _opened(keys, catalogue, world, dry_run=dry_run) as (store, snapshots):
            with snapshots as snapshot:
                committed = snapshot.committed()
                judgement = Vouching(keys.instance_key).judge(snapshot)
            work = _Work(settings, keys, store, catalogue, world)
            return await work.accept(committed, judgement, addresses, transport, reason=reason)


@contextmanager
def _opened(
    keys: KeyRing, catalogue: Catalogue, world: World, *, dry_run: bool
) -> Iterator[tuple[SqlStore | None, AbstractContextManager[SqlSnapshot]]]:
    """The store, and how to read all of it. Without the store nothing is changed: an earlier version's
    database is not even migrated. (A change of its key that was cut off is finished, as ever.)"""
    path = keys.data_dir / "config.db"
    if dry_run:
        yield None, snapshot_of(path, rekeying.settle(path, keys.db, keys.db_key))
        return
    store = open_sql_store(keys, catalogue=catalogue, world=world, fresh=False)
    try:
        yield store, store.snapshot()
    finally:
        store.close()


@dataclass(frozen=True, slots=True)
class _Work:
    """store: None where nothing is to be changed."""

    settings: Settings
    keys: KeyRing
    store: SqlStore | None
    catalogue: Catalogue
    world: World

    async def accept(
        self,
        committed: Committed,
        judgement: Judgement,
        addresses: Sequence[BrokerAddress],
        transport: Transport,
        *,
        reason: str | None,
    ) -> Restored:
        files = RootFiles(self.settings.data_dir, self.world)
        loaded = files.load()
        if loaded is None:
            raise RootRefused("trust/root.json is missing; put it back from a backup")
        seen, unreachable = await look(
            addresses,
            transport,
            root=loaded[0],
            sign_key=lambda service, instance: _sign_key(committed, service, instance),
            world=self.world,
        )
        _demand_keys(seen.root, self.keys)
        cache = LastKnownGood.of(self.keys, self.world)
        kept = cache.load()
        witness = Witness.open(
            self.settings.data_dir / "instance.json", self.keys.instance_key, self.world
        )
        what = accepting.weigh(committed, judgement)
        known = max(what.before.mark, witness.mark, kept.mark if kept else Mark(0, 0))
        highest, revision = seen.highest(known)
        change = accepting.accept(
            what,
            judgement,
            highest=highest,
            highest_revision=revision,
            epoch_id=self.world.randomness.uuid(),
            catalogue=self.catalogue,
            who=Administrator(
                "restore", reason, rfc3339(self.world.clock.now()), self.world.randomness.uuid()
            ),
        )
        if self.store is not None:
            self._keep(self.store, change, what, seen, files, witness, cache)
        return Restored(
            services=len(change.services),
            revision=change.after.revision,
            epoch_seq=change.after.epoch.seq,
            revision_before=committed.revision,
            epoch_seq_before=committed.epoch.seq,
            put_back=tuple(one.reason for one in what.put_back if one.table != "registry"),
            dropped=tuple(one.reason for one in what.put_back if one.table == "registry"),
            as_it_lies=what.as_it_lies,
            history_as_it_lies=what.lying,
            unreachable=unreachable,
            access=_access(change.after),
        )

    def _keep(
        self,
        store: SqlStore,
        change: Change,
        what: accepting.Acceptance,
        seen: Retained,
        files: RootFiles,
        witness: Witness,
        cache: LastKnownGood,
    ) -> None:
        """The database first: killed after that, it is ahead of its witness, and this can be repeated."""
        for version, data in seen.roots.items():
            files.stage(data)
            files.adopt(version, data)
        store.repair(what.repair)
        store.commit([change])
        starts = max(witness.boot_seq, store.boot_seq(), seen.boot_seq)
        if starts == 0:  # nobody knows: more seconds have passed than it can have been started
            starts = int(self.world.clock.now())
        store.note_boot(starts)
        after = change.after
        witness.begin_anew(after.mark, (after.audit_seq, after.audit_head), starts)
        cache.save(after)


def _access(committed: Committed) -> tuple[str, ...]:
    return (
        *(f"token {t.name} ({t.role}: {' '.join(t.services)})" for t in tokens(committed).values()),
        *(
            f"device {device.service}/{device.instance}"
            for device in devices(committed)
            if device.revoked_at is None
        ),
    )


def _sign_key(committed: Committed, service: str, instance: str) -> bytes | None:
    device = enrolled(committed, service, instance)
    return None if device is None else device.sign_public


def _demand_keys(root: Root, keys: KeyRing) -> None:
    for role in ("config", "beacon"):
        if not any(keys.holds(one) for one in root.roles[role].keyids):
            raise RootRefused(
                f"a broker retains trust root {root.version}, and none of its {role} keys is here; put the "
                "newest keys/ back (config-manager recover, or a backup of them)"
            )
