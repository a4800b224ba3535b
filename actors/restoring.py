"""`restore --accept` on a stopped data directory: gather every witness, and begin above them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from config_manager.actors.caching import LastKnownGood
from config_manager.actors.mqtt.broker_ways import ways_to_brokers
from config_manager.actors.mqtt.port import Transport
from config_manager.actors.retained import Retained, look
from config_manager.actors.starting import open_sql_store
from config_manager.config.brokers import BrokerAddress
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents.root import Root
from config_manager.config.errors import RootRefused
from config_manager.config.names import Mark
from config_manager.config.settings import Settings
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World
from config_manager.storage.decisions import accepting
from config_manager.storage.decisions.changes import Occasion
from config_manager.storage.decisions.devices import devices, sign_key_of
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.tokens import tokens
from config_manager.storage.decisions.vouching import Judgement, Vouching, without
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.root_files import RootFiles
from config_manager.storage.sql import rekeying
from config_manager.storage.sql.snapshot import opened_snapshot
from config_manager.storage.state import Commit, Committed
from config_manager.storage.witness import Witness, lock_data_dir


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, or would be.

    put_back, dropped: as /health names them. as_it_lies: the audit is not whole; by_cache: the cache is
    accepted instead. not_allowed: services whose values their model refuses. asked: brokers that answered;
    unreachable: url → why. access: tokens and enrolled devices, for the operator to check.
    """

    services: int
    revision: int
    epoch_seq: int
    revision_before: int
    epoch_seq_before: int
    put_back: tuple[str, ...]
    dropped: tuple[str, ...]
    as_it_lies: bool
    by_cache: bool
    not_allowed: tuple[str, ...]
    asked: tuple[str, ...]
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
    ways = ways_to_brokers(settings.mqtt_url)
    # a broker of our own keeps nothing while we are stopped
    addresses = [way for way in ways if isinstance(way, BrokerAddress)]
    with lock_data_dir(settings.data_dir):
        keys = KeyRing.of(settings, world)
        here = _Here(keys, catalogue, world)
        return await here.accept(addresses, transport, reason=reason, dry_run=dry_run)


class _Here:
    """The data directory."""

    def __init__(self, keys: KeyRing, catalogue: Catalogue, world: World) -> None:
        self._database = keys.data_dir / "config.db"
        self._keys = keys
        self._catalogue = catalogue
        self._shapes = Shapes(catalogue)
        self._world = world
        self._vouching = Vouching(keys.instance_key)
        self._files = RootFiles(keys.data_dir, world)
        self._witness = Witness.of(keys, world)
        self._cache = LastKnownGood.of(keys, world)
        self._cached = self._cache.load()

    async def accept(
        self,
        addresses: Sequence[BrokerAddress],
        transport: Transport,
        *,
        reason: str | None,
        dry_run: bool,
    ) -> Restored:
        loaded = self._files.load()
        if loaded is None:
            raise RootRefused("trust/root.json is missing; put it back from a backup")
        key_of = rekeying.key_now if dry_run else rekeying.settle
        key = key_of(self._database, self._keys.db, self._keys.db_key)
        with opened_snapshot(self._database, key) as snapshot:
            judgement = self._vouching.judge(snapshot, cached=self._cached)
            noted = self._vouching.starts_in(snapshot)
        trusted = without(judgement.committed, judgement.foreign)
        seen, unread = await look(
            addresses,
            transport,
            root=loaded[0],
            sign_key=partial(sign_key_of, trusted),
            world=self._world,
        )
        _demand_keys(seen.root, self._keys)
        here = self._how_far(judgement, seen)
        what = accepting.weigh(judgement, self._cached, here)
        change = self._changes(what, seen, reason)
        after = change(judgement).after
        if not dry_run:
            after = self._keep(what, change, seen, noted)
        asked = tuple(url for url in map(str, addresses) if url not in unread)
        return Restored(
            services=len(after.services),
            revision=after.revision,
            epoch_seq=after.epoch.seq,
            revision_before=here.revision,
            epoch_seq_before=here.epoch_seq,
            put_back=tuple(one.reason for one in what.put_back),
            dropped=tuple(one.reason for one in what.let_go),
            as_it_lies=what.as_it_lies,
            by_cache=what.by_cache,
            not_allowed=self._not_allowed(after),
            asked=asked,
            unreachable=unread,
            access=_access(after),
        )

    @property
    def _known(self) -> list[Mark]:
        """How far witness and cache have come."""
        return [self._witness.mark, *([self._cached.mark] if self._cached is not None else [])]

    def _how_far(self, judgement: Judgement, seen: Retained) -> Mark:
        """By the audit, if it is whole; else the database only claims it."""
        if judgement.is_whole:
            return Mark(judgement.replay.epoch_seq, judgement.replay.revision)
        claim = judgement.committed.mark
        is_true = seen.may_be_true(claim, *self._known, Mark(1, 0))
        return max([*self._known, *([claim] if is_true else [])])

    def _changes(
        self, what: accepting.Acceptance, seen: Retained, reason: str | None
    ) -> Callable[[Judgement], Commit]:
        """Makes the accepting change from what is kept by then."""
        highest, revision = seen.highest(what.repair.mark, *self._known)

        def change(now: Judgement) -> Commit:
            return accepting.accept(
                what,
                now,
                highest=highest,
                highest_revision=revision,
                epoch_id=self._world.randomness.uuid(),
                shapes=self._shapes,
                on=Occasion(
                    "restore", reason, self._world.clock.now(), self._world.randomness.uuid()
                ),
            )

        return change

    def _keep(
        self,
        what: accepting.Acceptance,
        change: Callable[[Judgement], Commit],
        seen: Retained,
        noted: int,
    ) -> Committed:
        """The database first: if we are killed after that, it is ahead of its witness, and this can be
        repeated."""
        for version, data in seen.roots.items():
            self._files.stage(data)
            self._files.adopt(version, data)
        store = open_sql_store(
            self._keys, catalogue=self._catalogue, world=self._world, fresh=False
        )
        try:
            store.repair(what.repair)
            with store.snapshot() as snapshot:
                repaired = self._vouching.judge(snapshot, cached=self._cached)
            done = change(repaired)
            store.commit([done])
            starts = max(self._witness.boot_seq, noted, seen.boot_seq)
            if starts == 0:  # unknown: it can't have started more often than seconds have passed
                starts = int(self._world.clock.now())
            store.note_boot(starts)
        finally:
            store.close()
        after = done.after
        self._witness.begin_anew(after.mark, (after.audit_seq, after.audit_head), starts)
        self._cache.save(after)
        return after

    def _not_allowed(self, after: Committed) -> tuple[str, ...]:
        """Services whose values their active shape does not allow; they stay as they are."""
        return tuple(
            name
            for name, state in after.services.items()
            if not state.deleted
            and (shape := self._shapes.of(after, name)) is not None
            and shape.errors(state.stored)
        )


def _access(committed: Committed) -> tuple[str, ...]:
    return (
        *(f"token {t.name} ({t.role}: {' '.join(t.services)})" for t in tokens(committed).values()),
        *(
            f"device {device.service}/{device.instance}"
            for device in devices(committed)
            if device.revoked_at is None
        ),
    )


def _demand_keys(root: Root, keys: KeyRing) -> None:
    for role in ("config", "beacon"):
        if not any(keys.holds(one) for one in root.roles[role].keyids):
            raise RootRefused(
                f"a broker retains trust root {root.version}, and none of its {role} keys is here; put the "
                "newest keys/ back (config-manager recover, or a backup of them)"
            )
