"""What happens once at a start, before the actors run: keys, root, database, witness, tokens, own broker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from config_manager.actors.actor import ActorStates
from config_manager.actors.caching import LastKnownGood
from config_manager.actors.measuring import Measures
from config_manager.actors.own_broker import own_broker
from config_manager.actors.signing import sign
from config_manager.actors.storing.opening import Opening
from config_manager.actors.storing.reading import Reading
from config_manager.actors.storing.writer import Writer, tools_of
from config_manager.actors.tracing import Tracing
from config_manager.actors.trusting import TrustView
from config_manager.actors.views import CommittedView
from config_manager.config import wire
from config_manager.config.brokers import Auto, BrokerAddress, Nothing
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents.root import ROLES
from config_manager.config.errors import DatabaseUnopenable, RecoveryRefused, RootRefused
from config_manager.config.names import Epoch
from config_manager.config.roots import first
from config_manager.config.sealed_file import derive_key
from config_manager.config.settings import Settings
from config_manager.config.world import World, rfc3339
from config_manager.storage.decisions.changes import empty
from config_manager.storage.decisions.schema_versions import at_start
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.tokens import AcceptAdminToken, hash_of, make_token, tokens
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.key_file import check_private, read_token
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.recovery import Recovery
from config_manager.storage.keys.root_files import RootFiles
from config_manager.storage.keys.secret_box import SecretBoxes
from config_manager.storage.sql import rekeying
from config_manager.storage.sql.snapshot import opened_snapshot
from config_manager.storage.sql.sql_store import SqlStore
from config_manager.storage.store import DatabaseUnavailable, Store
from config_manager.storage.witness import Witness


class OpenStore(Protocol):
    def __call__(self, keys: KeyRing, *, catalogue: Catalogue, world: World) -> Store: ...


@dataclass(frozen=True, slots=True)
class OpenedData:
    """What the actors share of the data directory."""

    keys: KeyRing
    root_files: RootFiles
    trust: TrustView
    view: CommittedView
    shapes: Shapes
    boxes: SecretBoxes
    witness: Witness
    opening: Opening
    writer: Writer
    reading: Reading
    cache: LastKnownGood
    measures: Measures
    tracing: Tracing


async def open_data(
    settings: Settings,
    targets: Sequence[BrokerAddress | Auto | Nothing],
    catalogue: Catalogue,
    world: World,
    open_store: OpenStore | None,
) -> OpenedData:
    """Open everything in the data directory, which is locked, and count the start. open_store: see
    `running_system`. Raises StartError, OSError, DatabaseUnavailable."""
    data_dir = settings.data_dir
    keys = KeyRing.of(settings, world)
    root_files = RootFiles(data_dir, world)
    trust = open_trust(root_files, keys, world)
    seal_for_recovery(keys, world)
    view = CommittedView(empty(Epoch(0, "")))
    boxes = SecretBoxes(keys.secrets_key, world.randomness, successor=keys.secrets.read_successor())
    witness = Witness.of(keys, world)
    if witness.is_missing and open_store is None:
        demand_who_can_tell(keys, targets)
    vouching = Vouching(keys.instance_key)
    opening = Opening(
        partial(
            open_store or partial(open_as_witnessed, witness),
            keys,
            catalogue=catalogue,
            world=world,
        ),
        view,
        vouching=vouching,
        begin_above=witness.begin_above,
        world=world,
    )
    fingerprint_key = derive_key(keys.instance_key, "idempotency-fingerprints")
    shapes = Shapes(catalogue, opening.schema_versions)
    tools = tools_of(shapes, boxes, vouching, fingerprint_key, world)
    measures, tracing = Measures(), Tracing(world.clock.now)
    writer = Writer(opening, tools, boxes, world, measures, tracing)
    cache = LastKnownGood.of(keys, world)
    await opening.start(witness.mark, witness.audit, cache.load)
    await count_start(witness, opening)
    await accept_tokens(writer, view, settings, keys, world)
    await expect_unconfirmed(tracing, opening)
    reading = Reading(opening, vouching)
    return OpenedData(
        *(keys, root_files, trust, view, shapes, boxes, witness, opening, writer, reading, cache),
        *(measures, tracing),
    )


async def expect_unconfirmed(tracing: Tracing, opening: Opening) -> None:
    """What is published from now on for changes of earlier starts belongs to their traces."""
    pending: list[tuple[str, int]] = []
    await opening.best_effort(lambda store: pending.extend(store.pending()))
    services = opening.view.committed.services
    tracing.expect(services[name] for name, _ in pending if name in services)


async def count_start(witness: Witness, opening: Opening) -> None:
    """Count above every start that the database and instance.json know. A full disk does not stop the
    start."""
    view = opening.view
    if witness.is_missing and view.committed.audit_seq > 0:
        view.notices["witness"] = (
            "instance.json was missing: this start counts from what the database and the brokers know"
        )
        structlog.get_logger().warning("instance.json was missing", starts=opening.starts_noted)
    try:
        witness.boot(opening.starts_noted)
    except OSError as error:
        why = f"instance.json can't be written ({error.strerror or error}): this start is not noted"
        view.notices["instance"] = why
        structlog.get_logger().error("start not noted", error=why)
    await opening.note_boot(witness.boot_seq)


def seal_for_recovery(keys: KeyRing, world: World) -> None:
    """Keys may have changed since the last start. The start does not fail if this does."""
    try:
        Recovery(keys, world).refresh()
    except (OSError, RecoveryRefused) as error:
        structlog.get_logger().error("recovery not sealed", error=str(error))


def demand_who_can_tell(keys: KeyRing, targets: Sequence[BrokerAddress | Auto | Nothing]) -> None:
    """If instance.json was lost, the database or a broker has to know how often this instance has started:
    with a lower number services would take nothing of ours for fresh. A broker of our own (`auto:`) keeps
    nothing while we are stopped. Changes nothing; raises DatabaseUnopenable."""
    if any(isinstance(target, BrokerAddress) for target in targets):
        return
    if noted_starts(keys) == 0:
        raise DatabaseUnopenable(
            "instance.json is missing, and neither the database nor a broker knows how often this "
            "instance has started; put instance.json back from a backup, name a broker that it has "
            "published to (--mqtt-url), or accept what is here: config-manager restore --accept"
        )


def noted_starts(keys: KeyRing) -> int | None:
    """As the database has them, which is not changed; 0 if they are not ours. None if it is empty or does
    not open now; opening it for real says why."""
    path = keys.data_dir / "config.db"
    with (
        suppress(DatabaseUnopenable, DatabaseUnavailable),
        opened_snapshot(path, rekeying.key_now(path, keys.db, keys.db_key)) as snapshot,
    ):
        if snapshot.head.seq > 0:
            return Vouching(keys.instance_key).starts_in(snapshot)
    return None


def open_as_witnessed(
    witness: Witness, keys: KeyRing, *, catalogue: Catalogue, world: World
) -> Store:
    return open_sql_store(keys, catalogue=catalogue, world=world, fresh=witness.is_first_start)


def open_sql_store(keys: KeyRing, *, catalogue: Catalogue, world: World, fresh: bool) -> SqlStore:
    """Raises DatabaseUnopenable, DatabaseUnavailable, OSError."""
    path, at = keys.data_dir / "config.db", rfc3339(world.clock.now())
    store = SqlStore.open(
        path,
        rekeying.settle(path, keys.db, keys.db_key),
        vouching=Vouching(keys.instance_key),
        epoch_id=world.randomness.uuid(),
        at=at,
        fresh=fresh,
    )
    try:
        kept = at_start(store.newest_schemas(), store.activations(), catalogue, at, store.revision)
        if any(kept):
            store.keep_schemas(*kept)
    except BaseException:
        store.abandon()
        raise
    return store


def open_trust(files: RootFiles, keys: KeyRing, world: World) -> TrustView:
    """The current root; version 1 is made at the first start. Raises RootRefused."""
    loaded = files.load()
    if loaded is None:
        publics = {role: keys.publics(role, world)[0] for role in ROLES}
        root = first(publics, rfc3339(world.clock.now()))
        seed = keys.root_seeds(world)[root.roles["root"].keyids[0]]
        files.keep(1, sign(seed, wire.ROOT, root.to_bytes()).to_bytes())
        loaded = files.load()
        assert loaded is not None
    root, data = loaded
    view = TrustView(root, data, keys, world)
    for role in ("config", "beacon"):
        try:
            view.key_for(role)
        except KeyError:
            raise RootRefused(
                f"trust/root.json does not list our {role} key: it is another publisher's, or was "
                "exchanged; put back the one that belongs to these keys"
            ) from None
    return view


async def accept_tokens(
    writer: Writer, view: CommittedView, settings: Settings, keys: KeyRing, world: World
) -> None:
    """Accept the bootstrap token if one is set; else, at the first start, make one for `admin.token`."""
    known = tokens(view.committed)

    async def accept(name: str, token: str) -> None:
        token_hash = hash_of(token.encode())
        if name not in known or known[name].hash != token_hash:
            what = AcceptAdminToken(name, token_hash)
            if not await writer.administer_at_start(what, world.randomness.uuid()):
                why = (
                    f"the {name} token that was given is not accepted: the database can't be written; "
                    "start again once it can"
                )
                view.notices["token"] = why
                structlog.get_logger().error("token not accepted", error=why)

    if settings.bootstrap_token is not None:
        await accept("bootstrap", settings.bootstrap_token.get_secret_value())
    elif (given := settings.credentials_dir) is not None and (given / "admin.token").exists():
        await accept("bootstrap", read_token(given / "admin.token", world))
    elif not known and view.mode == "normal":  # in read-only mode nothing is written
        path = keys.directory / "admin.token"
        if not world.disk.exists(path):  # the file is there if a start died before the commit
            token = make_token(world.randomness)
            # readable by its owner alone
            world.disk.write_atomic(path, token.reveal().encode() + b"\n")
        check_private(path)
        await accept("admin", world.disk.read(path).decode().strip())


async def start_brokers(
    targets: Sequence[BrokerAddress | Auto | Nothing],
    settings: Settings,
    stack: AsyncExitStack,
    states: ActorStates,
    world: World,
) -> list[BrokerAddress]:
    """The addresses to publish to; an `auto:` broker of our own is started on the way."""
    addresses: list[BrokerAddress] = []
    for target in targets:
        match target:
            case BrokerAddress():
                target.check_files()
                addresses.append(target)
            case Auto(port):
                own = await stack.enter_async_context(own_broker(settings.data_dir, port, world))
                states.actors.append(own.actor)
                addresses.append(own.address)
            case Nothing():
                pass
    return addresses
