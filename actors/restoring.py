"""`restore --accept` on a stopped data directory: gather every witness, and begin above them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from config_manager.actors.broker_ways import ways_to_brokers
from config_manager.actors.caching import LastKnownGood
from config_manager.actors.mqtt import Transport
from config_manager.actors.retained import Retained, is_near, look
from config_manager.actors.starting import open_sql_store
from config_manager.config.brokers import BrokerAddress
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents import Root
from config_manager.config.errors import DatabaseUnopenable, InvalidValues, RootRefused
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
from config_manager.storage.sql_store import opened_snapshot
from config_manager.storage.state import Change, Committed
from config_manager.storage.tokens import tokens
from config_manager.storage.vouching import Judgement, Vouching, without


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done, or would be. put_back, dropped: as /health names them. by_cache: the audit is
    not whole, and the cache is accepted. not_allowed: services whose values their model refuses. asked: brokers; unreachable: url → why.
    access: tokens and enrolled devices that are there, for who has to look at them."""

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
        here = _Here(settings, keys, catalogue, world)
        return await here.accept(addresses, transport, reason=reason, dry_run=dry_run)


class _Here:
    """The data directory."""

    def __init__(
        self, settings: Settings, keys: KeyRing, catalogue: Catalogue, world: World
    ) -> None:
        self._database = settings.data_dir / "config.db"
        self._keys = keys
        self._catalogue = catalogue
        self._world = world
        self._vouching = Vouching(keys.instance_key)
        self._files = RootFiles(settings.data_dir, world)
        self._witness = Witness.open(settings.data_dir / "instance.json", keys.instance_key, world)
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
        key = (
            self._key()
            if dry_run
            else rekeying.settle(self._database, self._keys.db, self._keys.db_key)
        )
        with opened_snapshot(self._database, key) as snapshot:
            judgement = self._vouching.judge(snapshot, cached=self._cached)
            noted = snapshot.boot_seq if self._vouching.is_sealed(snapshot) else 0
        is_whole = not any(one.table == "audit" for one in judgement.not_audited)
        trusted = without(judgement.committed, judgement.foreign)
        seen, unread = await look(
            addresses,
            transport,
            root=loaded[0],
            sign_key=lambda service, instance: _sign_key(trusted, service, instance),
            world=self._world,
        )
        _demand_keys(seen.root, self._keys)
        here = self._how_far(judgement, seen, is_whole=is_whole)
        cached = [self._cached.mark] if self._cached is not None else []
        highest, revision = seen.highest(here, self._witness.mark, *cached)
        what = accepting.weigh(judgement, self._cached, here)

        def change(now: Judgement) -> Change:
            return accepting.accept(
                what,
                now,
                highest=highest,
                highest_revision=revision,
                epoch_id=self._world.randomness.uuid(),
                catalogue=self._catalogue,
                who=Administrator(
                    "restore",
                    reason,
                    rfc3339(self._world.clock.now()),
                    self._world.randomness.uuid(),
                ),
            )

        after = change(judgement).after
        if not dry_run:
            after = self._keep(what, change, seen, noted)
        foreign = judgement.foreign
        return Restored(
            services=len(after.services),
            revision=after.revision,
            epoch_seq=after.epoch.seq,
            revision_before=here.revision,
            epoch_seq_before=here.epoch_seq,
            put_back=tuple(one.reason for one in foreign if accepting.is_put_back(one, what)),
            dropped=tuple(
                one.reason
                for one in foreign
                if not (what.as_it_lies or accepting.is_put_back(one, what))
            ),
            as_it_lies=what.as_it_lies,
            by_cache=what.by_cache,
            not_allowed=self._not_allowed(after),
            asked=tuple(url for url in map(str, addresses) if url not in unread),
            unreachable=unread,
            access=_access(after),
        )

    def _key(self) -> bytes:
        """Of the two, while a change of the database's key is not finished."""
        successor = self._keys.db.read_successor()
        if successor is not None:
            with suppress(DatabaseUnopenable), opened_snapshot(self._database, successor):
                return successor
        return self._keys.db_key

    def _how_far(self, judgement: Judgement, seen: Retained, *, is_whole: bool) -> Mark:
        """By the audit, if it is whole. Else the database only claims it."""
        replay, committed = judgement.replay, judgement.committed
        if is_whole:
            return Mark(replay.epoch_seq, replay.revision)
        known = [self._witness.mark, *([self._cached.mark] if self._cached else [])]
        claim = committed.mark
        revision = max([seen.revision, *(mark.revision for mark in known)])
        is_true = is_near(claim, max(seen.mark, *known, Mark(1, 0)), revision)
        return max(known) if not is_true else max(claim, *known)

    def _keep(
        self,
        what: accepting.Acceptance,
        change: Callable[[Judgement], Change],
        seen: Retained,
        noted: int,
    ) -> Committed:
        """The database first: killed after that, it is ahead of its witness, and this can be repeated."""
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
            if starts == 0:  # nobody knows: more seconds have passed than it can have been started
                starts = int(self._world.clock.now())
            store.note_boot(starts)
        finally:
            store.close()
        after = done.after
        self._witness.begin_anew(after.mark, (after.audit_seq, after.audit_head), starts)
        self._cache.save(after)
        return after

    def _not_allowed(self, after: Committed) -> tuple[str, ...]:
        """Services whose values today's model does not allow: they go on as they are."""
        names = []
        for name, state in after.services.items():
            try:
                if not state.deleted:
                    self._catalogue.check(name, state.stored)
            except InvalidValues:
                names.append(name)
        return tuple(names)


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
