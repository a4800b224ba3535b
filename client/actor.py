"""Following one service under Trio: brokers in, verified configuration out.

`follow` starts from the last-known-good file before any network, connects to every broker it was
given, for ever, and merges what they say: it doesn't matter which of them is honest or up. One task
per broker reads; one task judges, keeps and emits, so that events have one order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import structlog
import trio

from config_manager.client.cache import Cache, KeptBroken
from config_manager.client.identity import load_identity
from config_manager.client.subscriber import (
    CHANGES_KEPT,
    Applied,
    Deleted,
    Event,
    Kept,
    Refused,
    Resigned,
    Stale,
    Subscriber,
)
from config_manager.config import wire
from config_manager.config.names import ServiceName, parse_instance, parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World

if TYPE_CHECKING:  # at run time they would bring a broker client into every importing service
    from config_manager.actors.mqtt import BrokerAddress, Transport

_TICK_S = 1.0
_BACKOFF_S = 0.5
_BACKOFF_LIMIT_S = 30.0
_MAX_EXPONENT = 10  # 0.5 s · 2^6 is past the limit already; this only bounds the number
_INBOX = 64
_UNREAD_EVENTS = 256
_KEEP_RETRY_S = 1.0


class _Lost(NamedTuple):
    """A connection broke."""


class _Arrived(NamedTuple):
    topic: str
    payload: bytes


class Follower:
    """What `follow` gives: an async iterator of events, and the configuration that runs.

    A service that only looks at `current` may leave the events unread: past 256 of them the oldest
    are dropped, never the newest.
    """

    def __init__(self, service: str, instance: str) -> None:
        self.service = service
        self.instance = instance
        self.running: Applied | None = None
        self._unread: deque[Event] = deque(maxlen=_UNREAD_EVENTS)
        self._news = trio.Event()

    @property
    def current(self) -> JsonObject | None:
        """The configuration to run with; None while none was ever applied."""
        return self.running.update.config if self.running is not None else None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._unread:
            await self._news.wait()
            self._news = trio.Event()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._unread.popleft()

    def _emit(self, event: Event) -> None:
        log = structlog.get_logger().bind(actor="client", service=self.service)
        match event:
            case Applied(update, _, source, signer_revoked):
                self.running = event
                log.info(
                    "applied",
                    correlation_id=update.correlation_id,
                    request_id=update.correlation_id,
                    epoch_seq=update.epoch_seq,
                    revision=update.revision,
                    source=source,
                    **({"signer_revoked": True} if signer_revoked else {}),
                )
            case Refused(reason, detail):
                log.warning("refused", reason=reason, detail=detail)
            case Deleted(update):
                log.warning("deleted", correlation_id=update.correlation_id)
            case Resigned():
                log.info("resigned")
                return  # nothing that a service could act on
            case Stale(reason):
                log.warning("stale", reason=reason)
            case _:
                log.info("fresh")
        self._unread.append(event)
        self._news.set()


@asynccontextmanager
async def follow(
    service: str,
    *,
    state_dir: Path | str,
    mqtt_url: str,
    instance: str | None = None,
    transport: Transport | None = None,
    world: World | None = None,
) -> AsyncIterator[Follower]:
    """Follow one service until the block ends.

    mqtt_url: comma-separated; `none:` runs on the last-known-good file alone. Raises InvalidName,
    SettingsInvalid, KeyFileUnsafe or RootRefused before anything started; later trouble with
    brokers is never raised, it makes the configuration stale.

        async with follow("stt-worker", state_dir="state", mqtt_url="mqtt://localhost") as follower:
            async for event in follower:
                ...
    """
    world = world or World()
    name = parse_service(service)
    identity = load_identity(Path(state_dir), world)
    mine = parse_instance(instance) if instance is not None else identity.instance
    addresses = _parse_addresses(mqtt_url)
    cache = Cache(identity.state_dir, name, identity.file_key, identity.root, world)
    kept = _load(cache)
    driver = _Driver(
        Subscriber(name, mine, identity.root, kept), Follower(name, mine), cache, world
    )
    driver.start_from(kept)
    async with trio.open_nursery() as nursery:
        inbox, outbox = trio.open_memory_channel[_Arrived | _Lost](_INBOX)
        nursery.start_soon(driver.judge, outbox)
        if addresses:
            transport = transport or _default_transport()
        for number, address in enumerate(addresses):
            assert transport is not None
            client_id = f"cm-{name}-{mine}-{world.randomness.token(3).hex()}-{number}"
            nursery.start_soon(_stay_connected, transport, address, client_id, name, inbox, world)
        try:
            yield driver.follower
        finally:
            nursery.cancel_scope.cancel()


class _Driver:
    def __init__(
        self, subscriber: Subscriber, follower: Follower, cache: Cache, world: World
    ) -> None:
        self.follower = follower
        self._subscriber = subscriber
        self._cache = cache
        self._world = world

    def start_from(self, kept: Kept | None) -> None:
        if kept is not None and kept.running is not None:
            update, envelope = kept.running
            self.follower._emit(  # noqa: SLF001  the two are one thing, split in public and private
                Applied(update, envelope, "last-known-good", kept.signer_revoked)
            )

    async def judge(self, arrivals: trio.MemoryReceiveChannel[_Arrived | _Lost]) -> NoReturn:
        subscriber = self._subscriber
        await self._pass_on(subscriber.tick(trio.current_time(), self._world.clock.now()))
        next_tick = trio.current_time() + _TICK_S
        while True:
            item: _Arrived | _Lost | None = None
            with trio.move_on_at(next_tick):
                item = await arrivals.receive()
            now, wall_now = trio.current_time(), self._world.clock.now()
            match item:
                case _Arrived(topic, payload):
                    await self._pass_on(subscriber.receive(topic, payload, wall_now, now))
                case _Lost():
                    await self._pass_on(subscriber.disconnected(now))
                case None:
                    pass
            if now >= next_tick:  # also where messages never pause: time must not depend on them
                await self._pass_on(subscriber.tick(now, wall_now))
                next_tick = now + _TICK_S

    async def _pass_on(self, events: list[Event]) -> None:
        if any(isinstance(event, CHANGES_KEPT) for event in events):
            await self._keep()
        for event in events:
            self.follower._emit(event)  # noqa: SLF001

    async def _keep(self) -> None:
        """Durable before it is applied: a full disk delays a change, it never loses a mark."""
        kept = self._subscriber.kept
        assert kept is not None
        while True:
            try:
                await trio.to_thread.run_sync(self._cache.keep, kept)
            except OSError as error:
                structlog.get_logger().error("cannot keep", actor="client", error=str(error))
                await trio.sleep(_KEEP_RETRY_S)
            else:
                return


def _load(cache: Cache) -> Kept | None:
    try:
        return cache.load()
    except KeptBroken as error:
        structlog.get_logger().error("kept file broken", actor="client", detail=str(error))
        return error.marks


async def _stay_connected(
    transport: Transport,
    address: BrokerAddress,
    client_id: str,
    service: ServiceName,
    inbox: trio.MemorySendChannel[_Arrived | _Lost],
    world: World,
) -> NoReturn:
    from config_manager.actors.mqtt import BrokerUnavailable

    log = structlog.get_logger().bind(actor="client", broker=str(address))
    failures = 0
    while True:
        try:
            async with transport.connect(address, client_id=client_id) as connection:
                await connection.subscribe(
                    wire.config_topic(service),
                    wire.SNAPSHOT_TOPIC,
                    wire.KEEPALIVE_TOPIC,
                    wire.ROOTS_FILTER,
                )
                log.info("connected")
                async for message in connection.messages():
                    failures = 0  # it works, which a broker that drops us at once does not
                    await inbox.send(_Arrived(message.topic, message.payload))
        except BrokerUnavailable as error:
            log.warning("broker unavailable", error=str(error))
        await inbox.send(_Lost())
        longest = min(_BACKOFF_S * 2 ** min(failures, _MAX_EXPONENT), _BACKOFF_LIMIT_S)
        failures += 1
        await trio.sleep(longest * world.randomness.fraction())


def _parse_addresses(mqtt_url: str) -> list[BrokerAddress]:
    from config_manager.actors.mqtt import Auto, BrokerAddress, parse_mqtt_urls
    from config_manager.config.errors import SettingsInvalid

    places = parse_mqtt_urls(mqtt_url)
    if any(isinstance(place, Auto) for place in places):
        raise SettingsInvalid(
            "auto: is for the server; give its mqtt_url, such as mqtt://localhost"
        )
    return [place for place in places if isinstance(place, BrokerAddress)]


def _default_transport() -> Transport:
    from config_manager.actors.mqtt import AiomqttTransport

    return AiomqttTransport()
