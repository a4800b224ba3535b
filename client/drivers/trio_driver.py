"""Following one service under Trio: brokers in, verified configuration out.

The client starts from the last-known-good file, before any network. It stays connected to every broker
that it was given, and merges what they say: it doesn't matter which of them is honest or up. One task per
broker reads. One task judges, keeps and swaps, so that everything has one order. `instance` decides.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    NamedTuple,
    NoReturn,
    TypeAlias,
    TypeVar,
    Unpack,
    assert_never,
    cast,
)

import trio
from pydantic import BaseModel

from config_manager.client.drivers.background import Outcome, Work, Worker, run_under_trio
from config_manager.client.drivers.callbacks import check_runs
from config_manager.client.drivers.driver import FAREWELL_S, TICK_S, Apply, Driver, Listener
from config_manager.client.drivers.follower import Anything, Follower
from config_manager.client.drivers.live_config import LiveConfig
from config_manager.client.drivers.log import say
from config_manager.client.drivers.opening import OptionArguments, Options, Prepared, prepare
from config_manager.client.model.words import leaves_of
from config_manager.client.rules.todo import Change
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import World

if TYPE_CHECKING:  # at run time they would bring a broker client into every importing service
    from config_manager.actors.mqtt.port import Message, Transport
    from config_manager.config.brokers import BrokerAddress

M = TypeVar("M", bound=BaseModel)

_Messages: TypeAlias = "AsyncGenerator[Message, None]"

_INBOX = 64


class _Lost(NamedTuple):
    """A connection broke."""


class _Arrived(NamedTuple):
    topic: str
    payload: bytes


class _Called(NamedTuple):
    """The callback returned, or raised."""

    error: BaseException | None


class _Released(NamedTuple):
    """Nobody holds the configuration any more."""


_News = _Arrived | _Lost | _Called | _Released


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
    """Follow one service, whatever its settings look like, until the block ends.

    mqtt_url: comma-separated; `none:` runs on the last-known-good file alone. Raises InvalidName,
    SettingsInvalid, KeyFileUnsafe or RootRefused before anything started; later trouble with
    brokers is never raised, it makes the configuration stale.

        async with follow("stt-worker", state_dir="state", mqtt_url="mqtt://localhost") as follower:
            async for event in follower:
                ...
    """
    world = world or World()
    options = Options(
        service=service,
        state_dir=state_dir,
        mqtt_url=mqtt_url,
        instance=instance,
        env_file=None,
        bake_s=0,
    )
    prepared = prepare(Anything, options, asks=False, world=world)
    follower = Follower(
        prepared.service, prepared.name, lambda: prepared.instance.effective.secrets
    )
    async with _driving(prepared, follower, None, transport, world):
        yield follower


class TrioConfig(LiveConfig[M]):
    """What `open_config` gives under Trio."""

    def __init__(self, prepared: Prepared[M]) -> None:
        super().__init__(prepared.instance, trio.Event)


@asynccontextmanager
async def open_config(
    model: type[M],
    *,
    apply: Apply[M] | None = None,
    transport: Transport | None = None,
    world: World | None = None,
    **options: Unpack[OptionArguments],
) -> AsyncIterator[TrioConfig[M]]:
    """A service's typed, live configuration. options: see `Options`.

    apply: asked before a change (`Change`); may be async and slow; raising refuses it. Raises
    SettingsInvalid, InvalidName, KeyFileUnsafe, RootRefused; NothingDelivered with `require=True`;
    ConfigurationStale later, with `on_stale="stop"`.

        async with open_config(SttSettings, service="stt-worker") as config:
            use(config.current)
            async for change in config.changes():
                use(change.new)
    """
    if apply is not None:
        check_runs(apply, "apply")
    world = world or World()
    prepared = prepare(model, Options(**options), asks=apply is not None, world=world)
    config = TrioConfig(prepared)
    async with _driving(prepared, config, apply, transport, world) as driver:
        config._released = driver.retry_soon  # noqa: SLF001  the two are one thing, in public and private
        await driver.wait_until_open()
        try:
            yield config
        finally:
            config._close()  # noqa: SLF001


@asynccontextmanager
async def _driving(
    prepared: Prepared[M],
    listener: Listener[M],
    apply: Apply[M] | None,
    transport: Transport | None,
    world: World,
) -> AsyncIterator[_Driver[M]]:
    from config_manager.client.drivers.brokers import parse_addresses

    raised: Exception | None = None
    with _one_failure_as_itself(), prepared.disk_thread() as disk:
        addresses = parse_addresses(prepared.mqtt_url)
        driver = _Driver(prepared, listener, apply, disk, world)
        await driver.start()
        if addresses:
            transport = transport or _default_transport()
        async with trio.open_nursery() as nursery:
            await nursery.start(driver.run, transport, addresses, prepared.client_id)
            nursery.start_soon(driver.stop_the_service)
            try:
                yield driver
            except Exception as error:  # noqa: BLE001  the body's own: not to be wrapped by a nursery
                raised = error
            finally:
                # also if this is cancelled: the farewell still needs what runs
                with trio.CancelScope(shield=True), trio.move_on_after(FAREWELL_S):
                    await driver.end()
                driver.stop()
                nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


@contextmanager
def _one_failure_as_itself() -> Iterator[None]:
    """What ended the background passes without the groups that nurseries put around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        only: BaseException = group
        while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
            only = only.exceptions[0]
        if only is group or isinstance(only, BaseExceptionGroup):
            raise
        raise only from None


class _Driver(Driver[M]):
    """Under Trio: one task per broker reads, one task judges."""

    def __init__(
        self,
        prepared: Prepared[M],
        listener: Listener[M],
        apply: Apply[M] | None,
        disk: Worker,
        world: World,
    ) -> None:
        super().__init__(prepared, listener, apply, disk, world)
        self._scope = trio.CancelScope(shield=True)  # it ends after the body, whatever is cancelled
        self._nursery: trio.Nursery
        self._transport: Transport | None = None
        self._inbox, self._news = trio.open_memory_channel[_News](_INBOX)
        self._stale: ConfigurationStale | None = None
        self._stops = trio.Event()

    # ── what an event loop does ────────────────────────────────────────────────────────────────

    def _now(self) -> float:
        return trio.current_time()

    def _new_event(self) -> trio.Event:
        return trio.Event()

    def _new_lock(self) -> trio.Lock:
        return trio.Lock()

    async def _sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def _at_most(self, seconds: float, wait: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(seconds):
            await wait()

    async def _on_disk(self, work: Work) -> Outcome:
        return await run_under_trio(self._disk, work)

    def _start_call(self, change: Change[M]) -> None:
        self._nursery.start_soon(self._call, change)

    async def _call(self, change: Change[M]) -> None:
        error: BaseException | None = None
        try:
            await self._ask(change)
        except (KeyboardInterrupt, SystemExit, trio.Cancelled):
            raise
        except BaseExceptionGroup as raised:
            if raised.subgroup((KeyboardInterrupt, SystemExit, trio.Cancelled)) is not None:
                raise
            error = raised
        except BaseException as raised:  # noqa: BLE001  the service refuses; it says why
            error = raised
        await self._inbox.send(_Called(error))

    def _stop_the_service(self, error: ConfigurationStale) -> None:
        self._stale = error
        self._listener._fail(error)  # noqa: SLF001
        self._stops.set()

    async def stop_the_service(self) -> None:
        """Beside the body and not in the background, which has yet to say that the service leaves."""
        await self._stops.wait()
        if self._stale is not None:
            raise self._stale

    # ── tasks ──────────────────────────────────────────────────────────────────────────────────

    async def run(
        self,
        transport: Transport | None,
        addresses: list[BrokerAddress],
        client_id: str,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Everything that goes on in the background, until `stop`."""
        self._transport = transport
        with self._scope:
            try:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._judge)
                    for number, address in enumerate(addresses):
                        own_id = f"{client_id}-{number}"
                        self._nursery.start_soon(self.stay_connected, address, own_id)
                    task_status.started()
            except Exception as error:
                self._listener._fail(leaves_of(error)[0])  # noqa: SLF001
                raise

    def stop(self) -> None:
        self._scope.cancel()

    def retry_soon(self) -> None:
        """Nobody holds the configuration any more. If the inbox is full, the next tick applies what
        waited."""
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._inbox.send_nowait(_Released())

    async def _judge(self) -> NoReturn:
        instance = self._instance
        await self._step(lambda: instance.tick(trio.current_time(), self._world.clock.now()))
        next_tick = trio.current_time() + TICK_S
        while True:
            news: _News | None = None
            wakes_at = min(next_tick, instance.due or next_tick)
            with trio.move_on_at(wakes_at):
                news = await self._news.receive()
            now, wall_now = trio.current_time(), self._world.clock.now()
            match news:
                case _Arrived(topic, payload):
                    await self._step(partial(instance.receive, topic, payload, wall_now, now))
                case _Lost():
                    await self._step(partial(instance.disconnected, now))
                case _Called(error):
                    await self._step(partial(instance.called, error, now))
                case _Released():
                    await self._step(partial(instance.retry, now))
                case None:
                    pass
                case _ as unreachable:
                    assert_never(unreachable)
            if now >= wakes_at:  # also if messages never pause: time must not depend on them
                await self._step(partial(instance.tick, now, wall_now))
                await self._keep_what_waits()
                await self._count_as_newest()
                next_tick = now + TICK_S

    async def _connect_once(self, address: BrokerAddress, client_id: str) -> bool:
        from config_manager.actors.mqtt.port import BrokerUnavailable, Message, broken_as_itself

        assert self._transport is not None
        connect, worked = self._transport.connect, False
        try:
            last_will = self._instance.receipt(gone=True)
            will = Message(last_will.topic, last_will.payload, retained=True)
            with broken_as_itself():
                async with (
                    connect(address, client_id=client_id, will=will) as connection,
                    trio.open_nursery() as nursery,
                ):
                    self._readings[client_id] = nursery.cancel_scope.cancel
                    await self._begin(address, connection.subscribe)
                    publish = partial(connection.publish, qos=1, retain=True)
                    nursery.start_soon(self._send_receipts, publish, client_id)
                    async with aclosing(cast("_Messages", connection.messages())) as messages:
                        async for message in messages:
                            worked = True
                            await self._inbox.send(_Arrived(message.topic, message.payload))
        except BrokerUnavailable as error:
            say(logging.WARNING, "broker unavailable", broker=str(address), error=str(error))
        finally:
            self._readings.pop(client_id, None)
        return worked

    async def _lost(self) -> None:
        await self._inbox.send(_Lost())


def _default_transport() -> Transport:
    from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
    from config_manager.client.drivers.inbox import Inbox

    return AiomqttTransport(unread=Inbox)
