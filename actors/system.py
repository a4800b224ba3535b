"""The whole tree on one page: start order, policies, shutdown order.

Order is nesting: `own broker → signing → storing → callers → caching → publishing → beaconing → health`, and
HTTP inside all of them. Leaving goes the other way round: each refuses new mail, drains within its
grace, and what did not stop is named. Before publishing stops, the retained health says `shutdown`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import structlog
import trio

from config_manager.actors.actor import Actor, ActorStates, Context, Life, RestartPolicy
from config_manager.actors.beaconing import BeaconMaker, beaconing
from config_manager.actors.caching import Keeper, caching
from config_manager.actors.callers import Callers, WriteDown, noting_callers
from config_manager.actors.delivering import Deliverer, delivering
from config_manager.actors.health import HealthBoard, HealthFrames, health
from config_manager.actors.messages import Confirmed, Sign, Witnessed, Write
from config_manager.actors.mqtt.aiomqtt_transport import Transport
from config_manager.actors.mqtt.broker_ways import Ways, ways_to_brokers
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.publishing.publisher import Publisher, SignUpdate, publishing
from config_manager.actors.secrets_rotating import (
    RotationReport,
    SecretsRotation,
    secrets_rotating,
)
from config_manager.actors.signing import signing
from config_manager.actors.starting import OpenStore, open_data, start_brokers
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.storing.reading import Reading
from config_manager.actors.trusting import Trusting, TrustView, trusting
from config_manager.actors.views import BrokerView, CommittedView, Confirmations, HealthReport
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.catalogue import Catalogue
from config_manager.config.files import make_directory
from config_manager.config.settings import Settings
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from config_manager.storage.decisions.devices import sign_key_of
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.forgotten import forgotten
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.keys.recovery import Recovery
from config_manager.storage.state import ServiceState
from config_manager.storage.witness import lock_data_dir

_FAREWELL_S = 1.0
_NOTE_WITHIN_S = 5.0

STORING = RestartPolicy(mailbox=256, grace=5.0)
"""256 writes may wait: at 2,000 a second that is an eighth of a second, then HTTP answers 503."""
SIGNING = RestartPolicy(mailbox=256, grace=1.0)
ROTATING = RestartPolicy(mailbox=4, grace=2.0)
TRUSTING = RestartPolicy(mailbox=16, grace=6.0)
"""A change that has begun is announced to the brokers for up to 5 s, and then counts."""
FOLLOWING = RestartPolicy(mailbox=1, grace=2.0)
"""For actors that nobody asks: they follow a view."""


@dataclass(frozen=True)
class System:
    """What REST holds of the running system.

    storing: takes every write; reading: history, audit and secrets, beside it. signing: signs what is answered signed.
    rotating: begins a new secrets key; rotation: how far that is. trust: the
    root and its versions; trusting: takes every change to it. states: every actor, in start order.
    statuses: what instances say they run. callers: when tokens were last used, and who was refused.
    """

    storing: Actor
    reading: Reading
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
        opened = await open_data(settings, targets, catalogue, world, open_store)
        keys, trust, view, witness = opened.keys, opened.trust, opened.view, opened.witness
        states = ActorStates()

        async def start(actor: Actor) -> Actor:
            states.actors.append(actor)
            return await stack.enter_async_context(actor.running())

        def actor(name: str, life: Life, policy: RestartPolicy) -> Actor:
            return Actor(name, life, policy, jitter=world.randomness.fraction)

        signer = await start(
            actor("signing", signing(lambda role: keys.seed(trust.key_for(role))), SIGNING)
        )

        storing = await start(
            Actor.batching(
                "storing", opened.writer.life(), STORING, jitter=world.randomness.fraction
            )
        )
        rotation = SecretsRotation(
            view,
            keys.secrets,
            opened.boxes,
            storing=storing,
            reading=opened.reading,
            recovery=Recovery(keys, world),
        )
        rotating = await start(actor("secrets-rotating", secrets_rotating(rotation), ROTATING))
        callers = Callers()
        await start(
            actor("callers", noting_callers(callers, _administered_by(storing, world)), FOLLOWING)
        )
        keeper = Keeper(view, opened.cache, witness)
        await start(actor("caching", caching(view, keeper), FOLLOWING))

        frames = HealthFrames(world)
        addresses = await start_brokers(targets, settings, stack, states, world)
        outlets = [_outlet(view, trust) for _ in addresses]
        confirmations = Confirmations([BrokerView(str(address)) for address in addresses])
        statuses = StatusBoard(
            lambda *name: sign_key_of(view.committed, *name),
            lambda *name: forgotten(view.committed, *name),
        )
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
            opened.root_files,
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
        health_board = HealthBoard(view, confirmations, states, lambda: opened.cache.available)
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
            reading=opened.reading,
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


def _administered_by(storing_actor: Actor, world: World) -> WriteDown:
    async def administered(what: Decidable[None], by: str) -> None:
        context = Context(world.randomness.uuid(), trio.current_time() + _NOTE_WITHIN_S)
        await storing_actor.ask(Write(what, Terms(by)), context)

    return administered


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
