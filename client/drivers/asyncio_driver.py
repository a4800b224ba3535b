"""Following one service under asyncio: the same rules (`instance`), one aiomqtt connection a broker.

This module imports neither Trio nor trio-asyncio: trio-asyncio changes `asyncio.run()` for the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, Unpack, cast

from pydantic import BaseModel

from config_manager.actors.mqtt.port import BrokerUnavailable
from config_manager.client.drivers.asyncio_connection import (
    Connect,
    Will,
    connect_with_aiomqtt,
)
from config_manager.client.drivers.background import Worker
from config_manager.client.drivers.driver import FAREWELL_S, Driver, Listener
from config_manager.client.drivers.live_config import LiveConfig, LiveState
from config_manager.client.drivers.opening import (
    Apply,
    OptionArguments,
    Options,
    Prepared,
    parse_addresses,
    prepare,
)
from config_manager.client.rules.todo import Change, PublishReceipt
from config_manager.client.state.log import say
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import World

M = TypeVar("M", bound=BaseModel)

_Messages = AsyncGenerator[tuple[str, bytes], None]

END_WITHIN_S = 3.0
"""How long leaving waits for what does not end: a callback that takes no cancellation."""


class AsyncioConfig(LiveConfig[M]):
    """What `open_config` gives under asyncio."""


@asynccontextmanager
async def open_config(
    model: type[M],
    *,
    apply: Apply[M] | None = None,
    connect: Connect | None = None,
    world: World | None = None,
    **options: Unpack[OptionArguments],
) -> AsyncGenerator[AsyncioConfig[M]]:
    """`config_manager.client.open_config` under asyncio. connect: the seam for tests."""
    prepared = prepare(model, Options(**options), apply=apply, world=world)
    with prepared.disk_thread() as disk:
        addresses = parse_addresses(prepared.mqtt_url)
        state = LiveState(prepared.instance, asyncio.Event)
        driver = _Driver(prepared, state, disk, connect or connect_with_aiomqtt)
        state.released = driver.retry_soon
        await driver.start()
        tasks = [asyncio.create_task(driver.judge(), name="config-manager judge")]
        tasks += [
            asyncio.create_task(
                driver.stay_connected(address, f"{prepared.client_id}-{number}"),
                name=f"config-manager {address}",
            )
            for number, address in enumerate(addresses)
        ]
        try:
            async with _watched(driver, tasks):
                await driver.wait_until_open()
                yield AsyncioConfig(state)
        finally:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(FAREWELL_S):
                        await driver.end()
            finally:  # also if the caller is cancelled once more
                state.close()
                await driver.stop(tasks)


@asynccontextmanager
async def _watched(driver: _Driver[Any], tasks: list[asyncio.Task[Any]]) -> AsyncGenerator[None]:
    """The body. If a task of the driver fails, the body is cancelled, and raises that failure."""
    body = asyncio.current_task()
    assert body is not None
    cancelled_before = body.cancelling()
    raised: BaseException | None = None
    with _cancelling(body, driver, tasks) as failed:
        try:
            yield
        except BaseException as error:
            raised = error
            if not failed:
                raise
    if not failed:
        return
    # a cancellation that is not delivered yet is taken here: it must not come after the block
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    if body.uncancel() > cancelled_before:  # somebody else cancelled too: that goes on
        raise asyncio.CancelledError
    if raised is not None and not isinstance(raised, asyncio.CancelledError):
        raise raised
    raise failed[0] from None


@contextmanager
def _cancelling(
    body: asyncio.Task[Any], driver: _Driver[Any], tasks: list[asyncio.Task[Any]]
) -> Generator[list[BaseException]]:
    """Cancel the body, once, when a task fails; gives the failures."""
    failed: list[BaseException] = []

    def on_done(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            failed.append(error)
            if len(failed) == 1:
                driver.has_failed(error)
                body.cancel()

    driver.watch = lambda task: task.add_done_callback(on_done)
    for task in tasks:
        task.add_done_callback(on_done)
    try:
        yield failed
    finally:
        driver.watch = lambda _: None
        for task in tasks:
            task.remove_done_callback(on_done)


async def _ended(
    tasks: Iterable[asyncio.Task[Any]], *, again_s: float = 0.2
) -> set[asyncio.Task[Any]]:
    """Cancel these until they have ended; gives those that have not within the time. again_s: before each
    further time; a caller's callback may have something to clean up.

    Once is not enough: `asyncio.wait_for` of Python 3.11 loses a cancellation that comes as what it
    waits for is done (python/cpython#86296), and aiomqtt waits by it. If the caller is cancelled meanwhile,
    this raises CancelledError at the end.
    """
    left = {task for task in tasks if not task.done()}
    gives_up_at = _now() + END_WITHIN_S
    cancelled: asyncio.CancelledError | None = None
    while left and _now() < gives_up_at:
        for task in left:
            task.cancel()
        try:
            _, left = await asyncio.wait(left, timeout=again_s)
        except asyncio.CancelledError as error:
            cancelled = error
            left = {task for task in left if not task.done()}
    if cancelled is not None:
        raise cancelled
    return left


class _Driver(Driver[M]):
    """Under asyncio: a task per broker, one that judges, and one for each call of the callback."""

    def __init__(
        self, prepared: Prepared[M], listener: Listener[M], disk: Worker, connect: Connect
    ) -> None:
        super().__init__(prepared, listener, disk)
        self.watch: Callable[[asyncio.Task[Any]], None] = lambda _: None
        """the failure of such a task ends the body"""
        self._connect = connect
        self._calls: set[asyncio.Task[None]] = set()
        self._stops = False

    # ── what an event loop does ────────────────────────────────────────────────────────────────

    def _now(self) -> float:
        return _now()

    def _new_event(self) -> asyncio.Event:
        return asyncio.Event()

    def _new_lock(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _until(self, time: float, wait: Callable[[], Awaitable[None]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(time):
                await wait()

    def _start_call(self, change: Change[M]) -> None:
        call = asyncio.create_task(self._call(change), name="config-manager apply")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        self.watch(call)

    def _ends_the_call(self, error: BaseException) -> bool:
        # a cancellation may also be that of something that the callback waited for
        is_ours = self._stops and isinstance(error, asyncio.CancelledError)
        return is_ours or isinstance(error, KeyboardInterrupt | SystemExit)

    def _stop_the_service(self, error: ConfigurationStale) -> None:
        raise error  # out of a task that is watched

    def has_failed(self, error: BaseException) -> None:
        self._listener.fail(error)

    # ── tasks ──────────────────────────────────────────────────────────────────────────────────

    async def stop(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._stops = True
        left, calls = await _ended(tasks), await _ended(self._calls, again_s=END_WITHIN_S / 2)
        service, detail = self._instance.service, f"it was left alone after {END_WITHIN_S:g} s"
        for task in (*left, *calls):
            say(logging.ERROR, "did not end", service=service, task=task.get_name(), detail=detail)

    async def _converse(self, address: BrokerAddress, client_id: str, gone: PublishReceipt) -> None:
        will = Will(gone.topic, gone.payload)
        # it times out if the reading is ended, so that a new will says the new number
        with suppress(TimeoutError):
            async with self._connect(address, client_id, will) as connection:
                subscribed = await self._begin(address, connection.subscribe)
                sending = [
                    asyncio.create_task(_until_lost(work))
                    for work in (
                        self._send_receipts(connection.publish, client_id),
                        self._subscribe_on(connection.subscribe, subscribed),
                        self._schema_offer.make(
                            connection.subscribe, connection.publish, client_id
                        ),
                    )
                ]
                try:
                    async with (
                        asyncio.timeout(None) as reading,
                        aclosing(cast("_Messages", connection.messages())) as messages,
                    ):
                        self._readings[client_id] = partial(_end_now, reading)
                        async for topic, payload in messages:
                            await self._arrived(client_id, topic, payload)
                finally:
                    await _ended(sending)


async def _until_lost(work: Awaitable[object]) -> None:
    with suppress(BrokerUnavailable):  # the reader of the same connection notices, and says so
        await work


def _end_now(reading: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # the reading is ending already
        reading.reschedule(_now())


def _now() -> float:
    """Monotonic seconds, by the loop's own clock: another loop brings its own time."""
    return asyncio.get_running_loop().time()
