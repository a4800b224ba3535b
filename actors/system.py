"""The whole tree on one page: start order, policies, shutdown order.

Order is nesting: `own broker → signing → storing → callers → caching → publishing → beaconing → health`, and
HTTP inside all of them. Leaving goes the other way round: each refuses new mail, drains within its
grace, and what did not stop is named. Before publishing stops, the retained health says `shutdown`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from config_manager.actors.actor import Actor, ActorStates, Context, Life, Policy
from config_manager.actors.beaconing import BeaconMaker, beaconing
from config_manager.actors.broker import own_broker
from config_manager.actors.broker_ways import Ways, ways_to_brokers
from config_manager.actors.caching import Keeper, LastKnownGood, caching
from config_manager.actors.callers import Callers, Write, noting_callers
from config_manager.actors.delivering import Deliverer, delivering
from config_manager.actors.health import HealthBoard, HealthFrames, health
from config_manager.actors.messages import Administer, Confirmed, Sign, Witnessed
from config_manager.actors.mqtt import Transport
from config_manager.actors.outlet import Outlet
from config_manager.actors.publishing import Publisher, SignUpdate, publishing
from config_manager.actors.reading import Pages
from config_manager.actors.secrets_rotating import (
    RotationReport,
    SecretsRotation,
    secrets_rotating,
)
from config_manager.actors.signing import sign, signing
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.storing import Storage
from config_manager.actors.trusting import Trusting, TrustView, trusting
from config_manager.actors.views import BrokerView, CommittedView, Confirmations, HealthReport
from config_manager.config import wire
from config_manager.config.brokers import Auto, BrokerAddress, Nothing
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents import ROLES
from config_manager.config.errors import DatabaseUnopenable, RecoveryRefused, RootRefused
from config_manager.config.files import make_directory
from config_manager.config.names import Epoch
from config_manager.config.roots import first
from config_manager.config.sealed_file import derive_key
from config_manager.config.settings import Settings
from config_manager.config.wire import Envelope
from config_manager.config.world import World, rfc3339
from config_manager.storage import changes, rekeying
from config_manager.storage.administration import Administration
from config_manager.storage.devices import enrolled
from config_manager.storage.forgotten import Forgotten, forgotten
from config_manager.storage.instance import Witness, lock_data_dir
from config_manager.storage.key_files import check_private, read_token
from config_manager.storage.keys import KeyRing
from config_manager.storage.recovery import Recovery
from config_manager.storage.root_files import RootFiles
from config_manager.storage.secrets import SecretBoxes
from config_manager.storage.sql_store import SqlStore
from config_manager.storage.state import ServiceState
from config_manager.storage.store import Store
from config_manager.storage.terms import Terms
from config_manager.storage.tokens import AcceptAdminToken, hash_of, make_token, tokens
from config_manager.storage.vouching import Vouching

_FAREWELL_S = 1.0
_NOTE_WITHIN_S = 5.0

STORING = Policy(mailbox=256, grace=5.0)
"""256 writes may wait: at 2,000 a second that is an eighth of a second, then HTTP answers 503."""
SIGNING = Policy(mailbox=256, grace=1.0)
ROTATING = Policy(mailbox=4, grace=2.0)
TRUSTING = Policy(mailbox=16, grace=6.0)
"""A change that has begun is announced to the brokers for up to 5 s, and then counts."""
FOLLOWING = Policy(mailbox=1, grace=2.0)
"""For actors that nobody asks: they follow a view."""


class OpenStore(Protocol):
    def __call__(self, keys: KeyRing, *, catalogue: Catalogue, world: World) -> Store: ...


@dataclass(frozen=True)
class System:
    """What REST holds of the running system.

    storing: takes every write; pages: reads history and audit beside it. signing: signs what is answered signed.
    rotating: begins a new secrets key; rotation: how far that is. trust: the
    root and its versions; trusting: takes every change to it. states: every actor, in start order.
    statuses: what instances say they run. callers: when tokens were last used, and who was refused.
    """

    storing: Actor
    pages: Pages
    signing: Actor
    rotating: Actor
    rotation: Callable[[], RotationReport]
    view: CommittedView
    confirmations: Confirmations
    health: Callable[[], HealthReport]
    trust: TrustView
    trusting: Actor
    catalogue: Catalogue
    world: World
    states: ActorStates
    brokers: Sequence[BrokerAddress] = ()
    statuses: StatusBoard = field(default_factory=StatusBoard)
    callers: Callers = field(default_factory=Callers)


@asynccontextmanager
async def running_system(
    settings: Settings,
    *,
    catalogue: Catalogue,
    transport: Transport,
    world: World,
    open_store: OpenStore | None = None,
) -> AsyncIterator[System]:
    """The whole service but HTTP. Raises StartError (config.errors) where it can't start; OSError and
    DatabaseUnavailable of the disk are told by whoever knows the settings (`api.data_dirs`).

    open_store: where the data lives; SQLCipher in the data directory unless something else is given.
    """
    data_dir = settings.data_dir
    targets = ways_to_brokers(settings.mqtt_url)
    make_directory(data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_data_dir(data_dir))
        keys = KeyRing.open(
            data_dir,
            world,
            db_key_file=settings.db_key_file,
            credentials_dir=settings.credentials_dir,
        )
        root_files = RootFiles(data_dir, world)
        trust = _trust(root_files, keys, world)
        _seal_for_recovery(keys, world)
        states = ActorStates()

        async def start(actor: Actor) -> Actor:
            states.actors.append(actor)
            return await stack.enter_async_context(actor.running())

        def actor(name: str, life: Life, policy: Policy) -> Actor:
            return Actor(name, life, policy, jitter=world.randomness.fraction)

        signer = await start(
            actor("signing", signing(lambda role: keys.seed(trust.key_for(role))), SIGNING)
        )

        view = CommittedView(changes.empty(Epoch(0, "")))
        boxes = SecretBoxes(
            keys.secrets_key, world.randomness, successor=keys.secrets.read_successor()
        )
        witness = Witness.open(data_dir / "instance.json", keys.instance_key, world)
        opens = open_store or partial(_open_as_witnessed, witness)
        storage = Storage(
            partial(opens, keys, catalogue=catalogue, world=world),
            view,
            catalogue=catalogue,
            secret_boxes=boxes,
            fingerprint_key=derive_key(keys.instance_key, "idempotency-fingerprints"),
            vouching=Vouching(keys.instance_key),
            begin_above=witness.begin_above,
            world=world,
        )
        cache = LastKnownGood.of(keys, world)
        await storage.start(witness.mark, witness.audit, cache.load)
        await _count_start(witness, storage, targets)
        await _accept_tokens(storage, settings, keys, world)
        storing = await start(
            Actor.batching("storing", storage.life(), STORING, jitter=world.randomness.fraction)
        )
        rotation = SecretsRotation(
            view, keys.secrets, boxes, storing=storing, recovery=Recovery(keys, world)
        )
        rotating = await start(actor("secrets-rotating", secrets_rotating(rotation), ROTATING))
        callers = Callers()
        await start(
            actor("callers", noting_callers(callers, _administered_by(storing, world)), FOLLOWING)
        )
        keeper = Keeper(view, cache, witness)
        await start(actor("caching", caching(view, keeper), FOLLOWING))

        frames = HealthFrames(world)
        addresses = await _brokers(targets, settings, stack, states, world)
        outlets = [_outlet(view, trust) for _ in addresses]
        confirmations = Confirmations([BrokerView(str(address)) for address in addresses])
        statuses = StatusBoard(partial(_sign_key, view), partial(_forgotten, view))
        ways = Ways(witness.instance_id, world.randomness.uuid())
        for index, address in enumerate(addresses):
            name = "publishing" if len(addresses) == 1 else f"publishing-{index + 1}"
            publisher = Publisher(
                address,
                transport,
                view=view,
                confirmations=confirmations,
                broker_view=confirmations.brokers[index],
                sign=_sign_with(signer),
                witnessed=_told_to(storing),
                note_confirmed=_noted_by(storing),
                outlet=outlets[index],
                will=frames.will,
                believed=trust,
                client_id=ways.client_id(index),
                boot_seq=lambda: witness.boot_seq,
                world=world,
                statuses=statuses,
                echoes=ways.echoes,
            )
            await start(actor(name, publishing(name, publisher), FOLLOWING))
        await stack.enter_async_context(_farewell(frames, outlets))
        work = Trusting(
            trust,
            root_files,
            keys,
            storing=storing,
            outlets=outlets,
            changed=view.wake,
            world=world,
        )
        trusting_actor = await start(actor("trusting", trusting(work), TRUSTING))
        deliverer = Deliverer(view, storing, signer, outlets, trust, world)
        await start(actor("delivering", delivering(deliverer), FOLLOWING))

        maker = BeaconMaker(
            signer,
            boot_seq=lambda: witness.boot_seq,
            root_version=lambda: None if trust.changing else trust.current.version,
            heartbeat_s=settings.heartbeat_seconds,
            world=world,
        )
        health_board = HealthBoard(view, confirmations, states, lambda: cache.available)
        await start(
            actor(
                "beaconing",
                beaconing(
                    maker,
                    view,
                    outlets,
                    lambda beacon: frames.keepalive(beacon, ok=health_board.report().ok),
                    heartbeat_s=settings.heartbeat_seconds,
                ),
                FOLLOWING,
            )
        )
        await start(actor("health", health(health_board, frames, outlets), FOLLOWING))
        yield System(
            storing=storing,
            pages=Pages(storage.read_page, storage.judge_audit),
            signing=signer,
            rotating=rotating,
            rotation=rotation.report,
            view=view,
            confirmations=confirmations,
            health=health_board.report,
            trust=trust,
            trusting=trusting_actor,
            catalogue=catalogue,
            world=world,
            states=states,
            brokers=addresses,
            statuses=statuses,
            callers=callers,
        )


def _outlet(view: CommittedView, trust: TrustView) -> Outlet:
    outlet = Outlet(view)
    for version, envelope in trust.roots.items():
        outlet.set_retained(wire.root_topic(version), envelope)
    return outlet


async def _count_start(
    witness: Witness, storage: Storage, targets: Sequence[BrokerAddress | Auto | Nothing]
) -> None:
    """Above every start that the database and instance.json know; a full disk is no reason not to serve
    what is there. Raises DatabaseUnopenable where instance.json was lost and nobody can tell the number:
    services go by it, and would take nothing of ours for fresh."""
    view = storage.view
    if witness.is_missing and view.committed.audit_seq > 0:
        can_be_told = storage.starts_noted or any(not isinstance(to, Nothing) for to in targets)
        if not can_be_told and view.mode == "normal":
            raise DatabaseUnopenable(
                "instance.json is missing, and neither the database nor a broker knows how often this "
                "instance has started; put instance.json back from a backup, name a broker that it has "
                "published to (--mqtt-url), or accept what is here: config-manager restore --accept"
            )
        view.notices["witness"] = (
            "instance.json was missing: this start counts from what the database and the brokers know"
        )
        structlog.get_logger().warning("instance.json was missing", starts=storage.starts_noted)
    try:
        witness.boot(storage.starts_noted)
    except OSError as error:
        why = f"instance.json can't be written ({error.strerror or error}): this start is not noted"
        view.notices["instance"] = why
        structlog.get_logger().error("start not noted", error=why)
    await storage.note_boot(witness.boot_seq)


def _seal_for_recovery(keys: KeyRing, world: World) -> None:
    """Keys may have changed since the last start; a start does not fail for what is for a bad day."""
    try:
        Recovery(keys, world).refresh()
    except (OSError, RecoveryRefused) as error:
        structlog.get_logger().error("recovery not sealed", error=str(error))


def _open_as_witnessed(
    witness: Witness, keys: KeyRing, *, catalogue: Catalogue, world: World
) -> Store:
    return open_sql_store(keys, catalogue=catalogue, world=world, fresh=witness.is_first_start)


def open_sql_store(keys: KeyRing, *, catalogue: Catalogue, world: World, fresh: bool) -> SqlStore:
    """Raises DatabaseUnopenable, DatabaseUnavailable, OSError."""
    path = keys.data_dir / "config.db"
    return SqlStore.open(
        path,
        rekeying.settle(path, keys.db, keys.db_key),
        vouching=Vouching(keys.instance_key),
        epoch_id=world.randomness.uuid(),
        catalogue=catalogue,
        at=rfc3339(world.clock.now()),
        fresh=fresh,
    )


def _sign_key(view: CommittedView, service: str, instance: str) -> bytes | None:
    """What an enrolled instance signs its receipts with; None where it is not enrolled."""
    device = enrolled(view.committed, service, instance)
    return None if device is None else device.sign_public


def _forgotten(view: CommittedView, service: str, instance: str) -> Forgotten | None:
    return forgotten(view.committed, service, instance)


def _sign_with(signing_actor: Actor) -> SignUpdate:
    async def sign_update(state: ServiceState) -> Envelope:
        request = Sign("config", wire.CONFIG_UPDATE, state.payload, state.correlation_id)
        return await signing_actor.ask(request, Context(state.correlation_id))

    return sign_update


def _told_to(storing_actor: Actor) -> Callable[[Witnessed], Awaitable[None]]:
    async def witnessed(what: Witnessed) -> None:
        await storing_actor.ask(what, Context(f"witness-of-{what.audit_head[:16]}"))

    return witnessed


def _noted_by(
    storing_actor: Actor,
) -> Callable[[tuple[tuple[str, int], ...]], Awaitable[None]]:
    async def note_confirmed(revisions: tuple[tuple[str, int], ...]) -> None:
        await storing_actor.ask(Confirmed(revisions), Context("outbox"))

    return note_confirmed


def _administered_by(storing_actor: Actor, world: World) -> Write:
    async def administered(what: Administration[Any], by: str) -> None:
        context = Context(world.randomness.uuid(), trio.current_time() + _NOTE_WITHIN_S)
        await storing_actor.ask(Administer(what=what, terms=Terms(by)), context)

    return administered


def _trust(files: RootFiles, keys: KeyRing, world: World) -> TrustView:
    """The root that counts; version 1 is made at the first start. Raises RootRefused."""
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


async def _accept_tokens(storage: Storage, settings: Settings, keys: KeyRing, world: World) -> None:
    """The bootstrap token where one is set; else, the first time, one made for `admin.token`."""
    known = tokens(storage.view.committed)

    async def accept(name: str, token: str) -> None:
        token_hash = hash_of(token.encode())
        if name not in known or known[name].hash != token_hash:
            what = AcceptAdminToken(name, token_hash)
            if not await storage.administer_at_start(what, world.randomness.uuid()):
                why = (
                    f"the {name} token that was given is not accepted: the database can't be written; "
                    "start again once it can"
                )
                storage.view.notices["token"] = why
                structlog.get_logger().error("token not accepted", error=why)

    if settings.bootstrap_token is not None:
        await accept("bootstrap", settings.bootstrap_token.get_secret_value())
    elif (given := settings.credentials_dir) is not None and (given / "admin.token").exists():
        await accept("bootstrap", read_token(given / "admin.token", world))
    elif not known and storage.view.mode == "normal":  # else nothing is written
        path = keys.directory / "admin.token"
        if not world.disk.exists(path):  # else a start that died between file and database
            token = make_token(world.randomness)
            world.disk.write_atomic(path, token.reveal().encode() + b"\n")  # for its owner alone
        check_private(path)
        await accept("admin", world.disk.read(path).decode().strip())


async def _brokers(
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
            case _:  # none: publish nowhere
                pass
    return addresses


@asynccontextmanager
async def _farewell(frames: HealthFrames, outlets: Sequence[Outlet]) -> AsyncIterator[None]:
    """After health and beaconing stopped, before publishing does: say that we leave on purpose."""
    try:
        yield
    finally:
        payload = frames.status(ok=False, event="shutdown", reasons=["the service was stopped"])
        with trio.CancelScope(shield=True), trio.move_on_after(_FAREWELL_S):
            async with trio.open_nursery() as nursery:
                for outlet in outlets:
                    outlet.set_retained(wire.HEALTH_TOPIC, payload)
                    nursery.start_soon(outlet.flush)
        structlog.get_logger().info("stopping")
