"""The whole tree on one page: start order, policies, shutdown order.

Order is nesting: `signing → storing → secrets-rotating → callers → caching → own broker → drifting → notifying →
publishing → exporting-traces → learning-schemas → trusting → delivering → beaconing → watching → health`, and HTTP inside
all of them. They stop in the opposite order: each refuses new mail, drains within its grace, and is named if it did not
stop. Before publishing stops, the retained health says `shutdown`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
import trio
from nacl.exceptions import CryptoError

from config_manager.actors.actor import (
    Actor,
    ActorStates,
    Context,
    Life,
    RestartPolicy,
    answering,
    follower,
)
from config_manager.actors.beaconing import BeaconMaker, beaconing
from config_manager.actors.caching import Keeper, LastKnownGood, caching
from config_manager.actors.callers import Callers, noting_callers
from config_manager.actors.delivering import Deliverer, delivering
from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.drifting import Drifting, drifting
from config_manager.actors.exporting import Exporter
from config_manager.actors.health import HealthBoard, HealthFrames, health
from config_manager.actors.home_assistant import HomeAssistant, also_reads, home_assistant
from config_manager.actors.learning_schemas import Learner, News, learning_schemas
from config_manager.actors.measuring import Measures
from config_manager.actors.messages import Confirmed, Sign, Witnessed, Write
from config_manager.actors.misfits import Misfits
from config_manager.actors.mqtt.broker_ways import Ways, ways_to_brokers
from config_manager.actors.mqtt.port import Transport
from config_manager.actors.notified import Post
from config_manager.actors.notifying import Notifier, notifying
from config_manager.actors.publishing.desk import Desk
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.publishing.publisher import Publisher
from config_manager.actors.reporting import ReportMaker
from config_manager.actors.schema_board import SchemaBoard
from config_manager.actors.secrets_rotating import RotationReport, SecretsRotation
from config_manager.actors.signing import signing
from config_manager.actors.starting import OpenedData, OpenStore, open_data, start_brokers
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.storing.reading import Reading
from config_manager.actors.tracing import Tracing
from config_manager.actors.trusting import Trusting, TrustView
from config_manager.actors.views import BrokerView, CommittedView, Confirmations, HealthReport
from config_manager.actors.watching import Watching
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.catalogue import Catalogue
from config_manager.config.files import make_directory
from config_manager.config.home_assistant import discovery, discovery_topic
from config_manager.config.names import OUR_ID
from config_manager.config.our_version import our_version
from config_manager.config.secret import Secret
from config_manager.config.settings import Settings
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from config_manager.storage.decisions.devices import sign_key_of
from config_manager.storage.decisions.discovery import is_discovered
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.forgotten import forgotten
from config_manager.storage.decisions.notifications import Notification
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.keys.recovery import Recovery
from config_manager.storage.state import ServiceState
from config_manager.storage.witness import lock_data_dir

_FAREWELL_S = 1.0
_NOTE_WITHIN_S = 5.0
_SHORT_ID = 8
"""Characters of our instance's id: enough to tell a few servers apart."""

STORING = RestartPolicy(mailbox=256, grace=5.0)
"""256 writes may wait: at 2,000 a second that is an eighth of a second, then HTTP answers 503."""
SIGNING = RestartPolicy(mailbox=256, grace=1.0)
ROTATING = RestartPolicy(mailbox=4, grace=2.0)
NOTIFYING = RestartPolicy(mailbox=4, grace=2.0)
TRUSTING = RestartPolicy(mailbox=16, grace=6.0)
"""A change of the root is announced to the brokers for up to 5 s before it counts."""
FOLLOWING = RestartPolicy(mailbox=1, grace=2.0)
"""For actors that take no requests: they follow a view."""


@dataclass(frozen=True)
class System:
    """What REST holds of the running system.

    storing: takes every write; reading: history, audit and secrets, beside it. signing: signs answers. rotating: begins
    a new secrets key; rotation: how far that is. trust: the root and its versions; trusting: takes every change
    to it. states: every actor, in start order. statuses: what instances say they run. schemas: what
    brokers hold of their schemas, and the database does not. callers: when tokens were
    last used, and which calls were refused. measures: what is counted and timed. tracing: when
    the newest changes' steps were done. cache: the last-known-good one.
    watching: what happens, for those that are told while it does. reports: makes them.
    """

    storing: Actor
    reading: Reading
    signing: Actor
    rotating: Actor
    rotation: Callable[[], RotationReport]
    notifier: Notifier
    notifying: Actor
    view: CommittedView
    confirmations: Confirmations
    health: Callable[[], HealthReport]
    watching: Watching
    trust: TrustView
    trusting: Actor
    shapes: Shapes
    world: World
    states: ActorStates
    reports: ReportMaker
    drift: DriftBoard
    measures: Measures
    tracing: Tracing
    cache: LastKnownGood
    brokers: Sequence[BrokerAddress] = ()
    statuses: StatusBoard = field(default_factory=StatusBoard)
    schemas: SchemaBoard = field(default_factory=SchemaBoard)
    callers: Callers = field(default_factory=Callers)


@asynccontextmanager
async def running_system(
    settings: Settings,
    *,
    catalogue: Catalogue,
    transport: Transport,
    world: World,
    open_store: OpenStore | None = None,
) -> AsyncGenerator[System]:
    """The whole service but HTTP. Raises StartError (config.errors) if it can't start, and OSError and
    DatabaseUnavailable for the disk, which callers word by the settings (`api.commands.local.disk_explained`).

    open_store: where the data lives; SQLCipher in the data directory unless something else is given.
    """
    targets = ways_to_brokers(settings.mqtt_url)
    make_directory(settings.data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_data_dir(settings.data_dir))
        opened = await open_data(settings, targets, catalogue, world, open_store)
        tree = _Tree(stack, world)
        writing = await _start_writing(tree, opened)
        frames = HealthFrames(world)
        addresses = await start_brokers(targets, settings, stack, tree.states, world)
        brokers = await _start_publishing(
            tree, opened, writing, addresses, transport, frames, settings
        )
        await _start_exporting(tree, opened, settings)
        await _start_learning(tree, opened, writing, brokers, dev=settings.dev)
        await stack.enter_async_context(_farewell(frames, brokers.outlets))
        await _start_home_assistant(tree, opened, writing, brokers, settings)
        trusting_actor = await _start_signed_documents(tree, opened, writing, brokers.outlets)
        board, reports, watching = await _start_signs_of_life(
            tree, opened, writing, brokers, frames, settings.heartbeat_seconds
        )
        yield System(
            storing=writing.storing,
            reading=opened.reading,
            signing=writing.signing,
            rotating=writing.rotating,
            rotation=writing.rotation.report,
            notifier=brokers.notifier,
            notifying=brokers.notifying,
            view=opened.view,
            confirmations=brokers.confirmations,
            health=board.report,
            watching=watching,
            trust=opened.trust,
            trusting=trusting_actor,
            shapes=opened.shapes,
            world=world,
            states=tree.states,
            reports=reports,
            drift=brokers.drift,
            brokers=addresses,
            statuses=brokers.statuses,
            schemas=brokers.schemas,
            callers=writing.callers,
            measures=opened.measures,
            tracing=opened.tracing,
            cache=opened.cache,
        )


class _Tree:
    """Actors, each inside the one before; `states` has them in that order."""

    def __init__(self, stack: AsyncExitStack, world: World) -> None:
        self._stack = stack
        self.world = world
        self.states = ActorStates()

    async def start(self, name: str, life: Life, policy: RestartPolicy = FOLLOWING) -> Actor:
        return await self.run(Actor(name, life, policy, jitter=self.world.randomness.fraction))

    async def run(self, actor: Actor) -> Actor:
        self.states.actors.append(actor)
        return await self._stack.enter_async_context(actor.running())


class _Writing(NamedTuple):
    """The actors that change what is on disk, and what the others ask of them."""

    signing: Actor
    storing: Actor
    rotating: Actor
    rotation: SecretsRotation
    callers: Callers
    world: World

    async def write_down(self, what: Decidable[None], by: str = OUR_ID) -> None:
        context = Context(self.world.randomness.uuid(), trio.current_time() + _NOTE_WITHIN_S)
        await self.storing.ask(Write(what, Terms(by)), context)

    async def sign(self, state: ServiceState) -> Envelope:
        request = Sign("config", wire.CONFIG_UPDATE, state.payload, state.correlation_id)
        return await self.signing.ask(request, Context(state.correlation_id))

    async def judge(self, seen: Witnessed) -> None:
        await self.storing.ask(seen, Context(f"witness-of-{seen.audit_head[:16]}"))

    async def note_confirmed(self, revisions: tuple[tuple[str, int], ...]) -> None:
        await self.storing.ask(Confirmed(revisions), Context("outbox"))


async def _start_writing(tree: _Tree, opened: OpenedData) -> _Writing:
    keys, trust, view, world = opened.keys, opened.trust, opened.view, tree.world
    signer = await tree.start(
        "signing", signing(lambda role: keys.seed(trust.key_for(role))), SIGNING
    )
    storing = await tree.run(
        Actor.batching("storing", opened.writer.life(), STORING, jitter=world.randomness.fraction)
    )
    rotation = SecretsRotation(
        view,
        keys.secrets,
        opened.boxes,
        storing=storing,
        reading=opened.reading,
        recovery=Recovery(keys, world),
    )
    rotating_life = follower(rotation.work, answers=rotation.handle)
    rotating = await tree.start("secrets-rotating", rotating_life, ROTATING)

    writing = _Writing(signer, storing, rotating, rotation, Callers(), world)
    await tree.start("callers", noting_callers(writing.callers, writing.write_down))
    await tree.start("caching", caching(view, Keeper(view, opened.cache, opened.witness)))
    return writing


class _Brokers(NamedTuple):
    """outlets: one for each broker."""

    outlets: Sequence[Outlet]
    confirmations: Confirmations
    statuses: StatusBoard
    drift: DriftBoard
    schemas: SchemaBoard
    news: News
    notifier: Notifier
    notifying: Actor


async def _start_publishing(
    tree: _Tree,
    opened: OpenedData,
    writing: _Writing,
    addresses: Sequence[BrokerAddress],
    transport: Transport,
    frames: HealthFrames,
    settings: Settings,
) -> _Brokers:
    """One actor for each broker; and before them those that judge what they hear of instances, and tell others."""
    view, trust, witness = opened.view, opened.trust, opened.witness
    reads = also_reads(witness.instance_id) if settings.home_assistant != "off" else {}
    outlets = [_outlet(view, trust, reads) for _ in addresses]
    confirmations = Confirmations([BrokerView(str(address)) for address in addresses])
    statuses = StatusBoard(
        lambda service, instance: sign_key_of(view.committed, service, instance),
        lambda service, instance: forgotten(view.committed, service, instance),
    )
    confirmations.on_confirmed.append(opened.measures.confirmed)
    statuses.on_receipt.append(opened.measures.heard)
    statuses.on_receipt.append(opened.tracing.heard)
    keep_s = settings.receipts_keep_s
    drift = await _start_drifting(tree, opened, writing, statuses, confirmations, keep_s)
    notifier, notifying_actor = await _start_notifying(tree, opened, writing, statuses, drift)
    schemas = SchemaBoard(
        statuses.built_with,
        lambda service, digest: digest in opened.shapes.of_instances(view.committed, service),
    )
    news = News()
    ways = Ways(witness.instance_id, tree.world.randomness.uuid())
    for index, address in enumerate(addresses):
        desk = Desk(
            view=view,
            believed=trust,
            outlet=outlets[index],
            broker_view=confirmations.brokers[index],
            confirmations=confirmations,
            sign=writing.sign,
            judge=writing.judge,
            note_confirmed=writing.note_confirmed,
            world=tree.world,
            boot_seq=lambda: witness.boot_seq,
            statuses=statuses,
            tracing=opened.tracing,
            schemas=schemas,
            heard=news.tell,
            echoes=ways.echoes,
        )
        publisher = Publisher(
            address, transport, desk, will=frames.will, client_id=ways.client_id(index)
        )
        name = "publishing" if len(addresses) == 1 else f"publishing-{index + 1}"
        await tree.start(name, follower(publisher.run, at_end=desk.holding.tell_storing))
    return _Brokers(
        outlets, confirmations, statuses, drift, schemas, news, notifier, notifying_actor
    )


async def _start_drifting(
    tree: _Tree,
    opened: OpenedData,
    writing: _Writing,
    statuses: StatusBoard,
    confirmations: Confirmations,
    keep_s: float,
) -> DriftBoard:
    """Filled with what was kept, before any broker tells anything."""
    board = DriftBoard(opened.view, statuses, confirmations, tree.world.clock)
    work = Drifting(
        board,
        statuses,
        opened.view,
        writing.storing,
        opened.reading,
        tree.world,
        keep_s=keep_s,
    )
    await work.restore()
    await tree.start("drifting", drifting(work))
    return board


async def _start_exporting(tree: _Tree, opened: OpenedData, settings: Settings) -> None:
    """Where traces are sent to a collector."""
    if (collector := settings.otlp_target) is None:
        return
    exporter = Exporter.to(collector, opened.tracing, opened.witness.instance_id, tree.world)
    await tree.start("exporting-traces", follower(exporter.work))


async def _start_learning(
    tree: _Tree, opened: OpenedData, writing: _Writing, brokers: _Brokers, *, dev: bool
) -> None:
    async def ask(what: Decidable[Any], reason: str) -> Any:
        context = Context(tree.world.randomness.uuid(), trio.current_time() + _NOTE_WITHIN_S)
        return await writing.storing.ask(Write(what, Terms(OUR_ID, reason)), context)

    learner = Learner(
        brokers.schemas,
        brokers.statuses,
        opened.view,
        opened.shapes,
        ask,
        brokers.news,
        tree.world,
        believes_claims=dev,
    )
    await tree.start("learning-schemas", learning_schemas(learner))


async def _start_notifying(
    tree: _Tree, opened: OpenedData, writing: _Writing, statuses: StatusBoard, drift: DriftBoard
) -> tuple[Notifier, Actor]:
    async def secret_of(target: Notification) -> Secret:
        context = Context(f"notify-{target.name}", trio.current_time() + _NOTE_WITHIN_S)
        versions = await opened.reading.secrets(context, OUR_ID, target.name)
        sealed = [one for one in versions if one.version == target.secret]
        if not sealed:
            raise CryptoError("it is not there")
        return opened.boxes.open(sealed[0])

    post = Post(tree.world, opened.witness.instance_id[:_SHORT_ID], secret_of)
    notifier = Notifier(opened.view, opened.reading, drift, statuses, writing.write_down, post)
    return notifier, await tree.start("notifying", notifying(notifier), NOTIFYING)


async def _start_home_assistant(
    tree: _Tree, opened: OpenedData, writing: _Writing, brokers: _Brokers, settings: Settings
) -> None:
    """If it is wanted, or what it left on the brokers has to go."""
    on = settings.home_assistant != "off"
    if not on and not is_discovered(opened.view.committed):
        return

    instance_id, public = opened.witness.instance_id, settings.public_url
    one = HomeAssistant(
        opened.view,
        brokers.drift,
        brokers.outlets,
        opened.reading.changes,
        writing.write_down,
        discovery_topic(instance_id),
        discovery(instance_id, our_version(), None if public is None else f"{public}/docs"),
    )
    if on:
        brokers.notifier.listeners.append(one.tell)
    await tree.start("home-assistant", home_assistant(one, on=on))


async def _start_signed_documents(
    tree: _Tree, opened: OpenedData, writing: _Writing, outlets: Sequence[Outlet]
) -> Actor:
    """Roots, and secrets sealed to devices; answers the actor that takes changes to the root."""
    view, trust, world = opened.view, opened.trust, tree.world
    work = Trusting(
        trust,
        opened.root_files,
        opened.keys,
        storing=writing.storing,
        outlets=outlets,
        changed=view.wake,
        world=world,
    )
    trusting_actor = await tree.start("trusting", answering(work.handle), TRUSTING)
    deliverer = Deliverer(view, writing.storing, writing.signing, outlets, trust, world)
    await tree.start("delivering", delivering(deliverer))
    return trusting_actor


async def _start_signs_of_life(
    tree: _Tree,
    opened: OpenedData,
    writing: _Writing,
    brokers: _Brokers,
    frames: HealthFrames,
    heartbeat_s: float,
) -> tuple[HealthBoard, ReportMaker, Watching]:
    """Beacons, streams and health, and reports, which end in a beacon."""
    view, trust = opened.view, opened.trust
    board = HealthBoard(
        view,
        brokers.confirmations,
        tree.states,
        lambda: opened.cache.available,
        Misfits(view, opened.shapes).reasons,
        brokers.notifier.reasons,
    )
    maker = BeaconMaker(
        writing.signing,
        boot_seq=lambda: opened.witness.boot_seq,
        root_version=lambda: None if trust.changing else trust.current.version,
        heartbeat_s=heartbeat_s,
        world=tree.world,
    )
    life = beaconing(
        maker,
        view,
        brokers.outlets,
        lambda beacon: frames.keepalive(beacon, ok=board.report().ok),
        heartbeat_s=heartbeat_s,
    )
    await tree.start("beaconing", life)
    watching = Watching(view, opened.reading.changes, board.report, brokers.drift)
    await tree.start("watching", follower(watching.follow))
    # the last, because its first word is `ready`
    await tree.start("health", health(board, frames, brokers.outlets))
    reports = ReportMaker(opened.reading, view, trust, writing.signing, maker, tree.world)
    return board, reports, watching


def _outlet(
    view: CommittedView,
    trust: TrustView,
    reads: Mapping[str, Callable[[Outlet, bytes], None] | None],
) -> Outlet:
    outlet = Outlet(view, reads)
    for version, envelope in trust.roots.items():
        outlet.set_retained(wire.root_topic(version), envelope)
    return outlet


@asynccontextmanager
async def _farewell(frames: HealthFrames, outlets: Sequence[Outlet]) -> AsyncGenerator[None]:
    """After health and beaconing stopped and before publishing does: say that we stop on purpose."""
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
