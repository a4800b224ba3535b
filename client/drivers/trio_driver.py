"""Following one service under Trio: brokers in, verified configuration out.

The client starts from the last-known-good file, before any network. It stays connected to every broker
that it was given and merges what they say: one honest broker that is up is enough. One task per broker
reads. One task judges, keeps and swaps, so that everything has one order. `rules.instance` decides.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import (
    TypeVar,
    Unpack,
    cast,
)

import trio
from pydantic import BaseModel

from config_manager.actors.mqtt.port import Message, Transport, broken_as_itself
from config_manager.client.drivers.background import Worker
from config_manager.client.drivers.driver import FAREWELL_S, Driver, Listener
from config_manager.client.drivers.follower import Anything, Delivered, Follower
from config_manager.client.drivers.live_config import LiveConfig, LiveState
from config_manager.client.drivers.opening import (
    Apply,
    OptionArguments,
    Options,
    Prepared,
    parse_addresses,
    prepare,
)
from config_manager.client.model.words import leaves_of
from config_manager.client.rules.todo import Change, PublishReceipt
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import World

M = TypeVar("M", bound=BaseModel)

_ENDS = (KeyboardInterrupt, SystemExit, trio.Cancelled)


@asynccontextmanager
async def follow(
    service: str,
    *,
    state_dir: Path | str,
    mqtt_url: str,
    instance: str | None = None,
    transport: Transport | None = None,
    world: World | None = None,
) -> AsyncGenerator[Follower]:
    """Follow one service, whatever its settings look like, until the block ends.

    mqtt_url: comma-separated; `none:` runs on the last-known-good file alone. Raises InvalidName,
    SettingsInvalid, KeyFileUnsafe or RootRefused before anything started; later trouble with
    brokers is never raised, it makes the configuration stale.

        async with follow("stt-worker", state_dir="state", mqtt_url="mqtt://localhost") as follower:
            async for event in follower:
                ...
    """
    options = Options(
        service=service,
        state_dir=state_dir,
        mqtt_url=mqtt_url,
        instance=instance,
        env_file=None,
        bake_s=0,
    )
    prepared = prepare(Anything, options, world=world)
    delivered = Delivered(lambda: prepared.instance.effective.secrets)
    async with _driving(prepared, delivered, transport):
        yield Follower(prepared.service, prepared.name, delivered)


class TrioConfig(LiveConfig[M]):
    """What `open_config` gives under Trio."""


@asynccontextmanager
async def open_config(
    model: type[M],
    *,
    apply: Apply[M] | None = None,
    transport: Transport | None = None,
    world: World | None = None,
    **options: Unpack[OptionArguments],
) -> AsyncGenerator[TrioConfig[M]]:
    """`config_manager.client.open_config` under Trio. transport: the seam for tests."""
    prepared = prepare(model, Options(**options), apply=apply, world=world)
    state = LiveState(prepared.instance, trio.Event)
    async with _driving(prepared, state, transport) as driver:
        state.released = driver.retry_soon
        await driver.wait_until_open()
        try:
            yield TrioConfig(state)
        finally:
            state.close()


@asynccontextmanager
async def _driving(
    prepared: Prepared[M], listener: Listener[M], transport: Transport | None
) -> AsyncGenerator[_Driver[M]]:
    raised: Exception | None = None
    with _one_failure_as_itself(), prepared.disk_thread() as disk:
        addresses = parse_addresses(prepared.mqtt_url)
        driver = _Driver(prepared, listener, disk)
        await driver.start()
        if addresses:
            transport = transport or _default_transport()
        async with trio.open_nursery() as nursery:
            await nursery.start(driver.run, transport, addresses, prepared.client_id)
            driver.outlive_the_body()
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
def _one_failure_as_itself() -> Generator[None]:
    """What ended the background passes without the groups that nurseries put around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures = leaves_of(group)
        if len(failures) > 1:
            raise
        raise failures[0] from None


class _Driver(Driver[M]):
    """Under Trio: one task per broker reads, one task judges."""

    def __init__(self, prepared: Prepared[M], listener: Listener[M], disk: Worker) -> None:
        super().__init__(prepared, listener, disk)
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery
        self._transport: Transport | None = None
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

    async def _until(self, time: float, wait: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_at(time):
            await wait()

    def _start_call(self, change: Change[M]) -> None:
        self._nursery.start_soon(self._call, change)

    def _ends_the_call(self, error: BaseException) -> bool:
        if isinstance(error, BaseExceptionGroup):
            return cast("BaseExceptionGroup[BaseException]", error).subgroup(_ENDS) is not None
        return isinstance(error, _ENDS)

    def _stop_the_service(self, error: ConfigurationStale) -> None:
        self._stale = error
        self._listener.fail(error)
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
                    self._nursery.start_soon(self.judge)
                    for number, address in enumerate(addresses):
                        own_id = f"{client_id}-{number}"
                        self._nursery.start_soon(self.stay_connected, address, own_id)
                    task_status.started()
            except Exception as error:
                self._listener.fail(leaves_of(error)[0])
                raise

    def outlive_the_body(self) -> None:
        """From here on the background ends by `stop` alone, whatever is cancelled. Not earlier: what is shielded while
        it starts does not end if the caller is cancelled in that moment."""
        self._scope.shield = True

    def stop(self) -> None:
        self._scope.cancel()

    async def _converse(self, address: BrokerAddress, client_id: str, gone: PublishReceipt) -> None:
        assert self._transport is not None
        will = Message(gone.topic, gone.payload, retained=True)
        with broken_as_itself():
            async with (
                self._transport.connect(address, client_id=client_id, will=will) as connection,
                trio.open_nursery() as nursery,
            ):
                self._readings[client_id] = nursery.cancel_scope.cancel
                subscribed = await self._begin(address, connection.subscribe)
                nursery.start_soon(self._subscribe_on, connection.subscribe, subscribed)
                publish = partial(connection.publish, qos=1, retain=True)
                nursery.start_soon(self._send_receipts, publish, client_id)
                offer = partial(self._schema_offer.make, connection.subscribe, publish, client_id)
                nursery.start_soon(offer)
                async with aclosing(connection.messages()) as messages:
                    async for message in messages:
                        await self._arrived(client_id, message.topic, message.payload)


def _default_transport() -> Transport:
    from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
    from config_manager.client.drivers.inbox import Inbox

    return AiomqttTransport(unread=Inbox)
