"""Following one service under asyncio: the same rules (`instance`), one aiomqtt connection a broker.

This module imports neither Trio nor trio-asyncio: that one changes `asyncio.run()` for the whole process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NoReturn, TypeVar, Unpack, cast

from pydantic import BaseModel

from config_manager.actors.mqtt.port import BrokerUnavailable
from config_manager.client.drivers.asyncio_connection import (
    AsyncioConnection,
    Connect,
    Will,
    connect_with_aiomqtt,
)
from config_manager.client.drivers.background import Outcome, Work, Worker, run_in
from config_manager.client.drivers.brokers import parse_addresses
from config_manager.client.drivers.callbacks import check_runs
from config_manager.client.drivers.driver import FAREWELL_S, TICK_S, Apply, Driver
from config_manager.client.drivers.live_config import LiveConfig
from config_manager.client.drivers.log import say
from config_manager.client.drivers.opening import OptionArguments, Options, Prepared, prepare
from config_manager.client.rules.todo import Change
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import World

M = TypeVar("M", bound=BaseModel)

_Messages = AsyncGenerator[tuple[str, bytes], None]

END_WITHIN_S = 3.0
"""How long leaving waits for what does not end: a callback that takes no cancellation."""


class AsyncioConfig(LiveConfig[M]):
    """What `open_config` gives under asyncio."""

    def __init__(self, prepared: Prepared[M]) -> None:
        super().__init__(prepared.instance, asyncio.Event)


@asynccontextmanager
async def open_config(
    model: type[M],
    *,
    apply: Apply[M] | None = None,
    connect: Connect | None = None,
    world: World | None = None,
    **options: Unpack[OptionArguments],
) -> AsyncIterator[AsyncioConfig[M]]:
    """A service's typed, live configuration. options: see `opening.Options`.

    apply: asked before a change (`Change`); may be async and slow; raising refuses it. Raises
    SettingsInvalid, InvalidName, KeyFileUnsafe, RootRefused; NothingDelivered with `require=True`;
    with `on_stale="stop"` the block is cancelled later, and ConfigurationStale raised from it.

        async with open_config(SttSettings, service="stt-worker") as config:
            use(config.current)
            async for change in config.changes():
                use(change.new)
    """
    if apply is not None:
        check_runs(apply, "apply")
    world = world or World()
    prepared = prepare(model, Options(**options), asks=apply is not None, world=world)
    with prepared.disk_thread() as disk:
        addresses = parse_addresses(prepared.mqtt_url)
        config = AsyncioConfig(prepared)
        driver = _Driver(prepared, config, apply, connect or connect_with_aiomqtt, disk, world)
        config._released = driver.retry_soon  # noqa: SLF001  the two are one thing, in public and private
        await driver.start()
        tasks = [asyncio.create_task(driver.tick(), name="config-manager tick")]
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
                yield config
        finally:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(FAREWELL_S):
                        await driver.end()
            finally:  # also if the caller is cancelled once more
                config._close()  # noqa: SLF001
                await driver.stop(tasks)


@asynccontextmanager
async def _watched(driver: _Driver[Any], tasks: list[asyncio.Task[Any]]) -> AsyncIterator[None]:
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
    with suppress(asyncio.CancelledError):  # it may not be delivered yet, and must not be later
        await asyncio.sleep(0)
    if body.uncancel() > cancelled_before:  # somebody else cancelled too: that goes on
        raise asyncio.CancelledError
    if raised is not None and not isinstance(raised, asyncio.CancelledError):
        raise raised
    raise failed[0] from None


@contextmanager
def _cancelling(
    body: asyncio.Task[Any], driver: _Driver[Any], tasks: list[asyncio.Task[Any]]
) -> Iterator[list[BaseException]]:
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
    waits for is done (python/cpython#86296), and aiomqtt waits by it. Whoever cancels the caller
    meanwhile is obeyed afterwards.
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
    """Under asyncio: a task per broker, one that ticks, and one for each call of the callback."""

    def __init__(
        self,
        prepared: Prepared[M],
        config: AsyncioConfig[M],
        apply: Apply[M] | None,
        connect: Connect,
        disk: Worker,
        world: World,
    ) -> None:
        super().__init__(prepared, config, apply, disk, world)
        self.watch: Callable[[asyncio.Task[Any]], None] = lambda _: None
        """the failure of such a task ends the body"""
        self._connect = connect
        self._due = asyncio.Event()
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

    async def _at_most(self, seconds: float, wait: Callable[[], Awaitable[None]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await wait()

    async def _on_disk(self, work: Work) -> Outcome:
        return await run_in(self._disk, work)

    def _start_call(self, change: Change[M]) -> None:
        call = asyncio.create_task(self._call(change), name="config-manager apply")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        self.watch(call)

    async def _call(self, change: Change[M]) -> None:
        error: BaseException | None = None
        try:
            await self._ask(change)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            if self._stops and isinstance(raised, asyncio.CancelledError):
                raise
            error = raised  # also a cancellation of something that it waited for
        await self._step(lambda: self._instance.called(error, _now()))

    def _stop_the_service(self, error: ConfigurationStale) -> None:
        raise error  # out of a task that is watched

    def has_failed(self, error: BaseException) -> None:
        self._listener._fail(error)  # noqa: SLF001

    # ── tasks ──────────────────────────────────────────────────────────────────────────────────

    async def tick(self) -> NoReturn:
        while True:
            await self._step(lambda: self._instance.tick(_now(), self._world.clock.now()))
            await self._keep_what_waits()
            await self._count_as_newest()
            wakes_at = _now() + TICK_S
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(wakes_at, self._instance.due or wakes_at)):
                    await self._due.wait()
            if self._due.is_set():  # outside the timeout: what was decided is done to its end
                self._due.clear()
                await self._step(lambda: self._instance.retry(_now()))

    def retry_soon(self) -> None:
        """Nobody holds the configuration any more."""
        self._due.set()

    async def stop(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._stops = True
        left, calls = await _ended(tasks), await _ended(self._calls, again_s=END_WITHIN_S / 2)
        for task in (*left, *calls):
            say(
                logging.ERROR,
                "did not end",
                service=self._instance.service,
                task=task.get_name(),
                detail=f"it was left alone after {END_WITHIN_S:g} s",
            )

    async def _connect_once(self, address: BrokerAddress, client_id: str) -> bool:
        worked = False
        try:
            last_will = self._instance.receipt(gone=True)
            will = Will(last_will.topic, last_will.payload)
            async with self._connect(address, client_id, will) as connection:
                await self._begin(address, connection.subscribe)
                sending = asyncio.create_task(self._send_until_lost(connection, client_id))
                try:
                    async with (
                        asyncio.timeout(None) as reading,
                        aclosing(cast("_Messages", connection.messages())) as messages,
                    ):
                        self._readings[client_id] = partial(_end_now, reading)
                        async for topic, payload in messages:
                            worked = True
                            await self._arrived(topic, payload)
                finally:
                    self._readings.pop(client_id, None)
                    await _ended([sending])
        except TimeoutError:  # the reading was ended, so that a new will says the new number
            pass
        except BrokerUnavailable as error:
            say(logging.WARNING, "broker unavailable", broker=str(address), error=str(error))
        return worked

    async def _send_until_lost(self, connection: AsyncioConnection, client_id: str) -> None:
        with suppress(BrokerUnavailable):  # the reader of the same connection notices, and says so
            await self._send_receipts(connection.publish, client_id)

    async def _arrived(self, topic: str, payload: bytes) -> None:
        before = self._instance.due
        await self._step(
            lambda: self._instance.receive(topic, payload, self._world.clock.now(), _now())
        )
        if before is None and self._instance.due is not None:
            self._due.set()  # the ticking task sleeps longer than that

    async def _lost(self) -> None:
        await self._step(lambda: self._instance.disconnected(_now()))


def _end_now(reading: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # it ends already
        reading.reschedule(_now())


def _now() -> float:
    """Monotonic seconds, by the loop's own clock: another loop brings its own time."""
    return asyncio.get_running_loop().time()
