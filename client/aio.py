"""Following one service under asyncio: the same rules (`instance`), one aiomqtt connection a broker.

No Trio in here, and no trio-asyncio: importing that changes `asyncio.run()` for the whole process.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar, Unpack, cast

from pydantic import BaseModel

from config_manager.client.aio_connection import (
    BrokerUnavailable,
    Connect,
    Connection,
    Will,
    connect_with_aiomqtt,
)
from config_manager.client.background import Outcome, Worker, run_in
from config_manager.client.brokers import parse_addresses
from config_manager.client.callbacks import check_answer, check_runs
from config_manager.client.config import LiveConfig
from config_manager.client.instance import (
    Call,
    Change,
    Do,
    Keep,
    KeepRoot,
    PublishReceipt,
    Swap,
    Tell,
    TooStale,
    Written,
)
from config_manager.client.opening import (
    ABSENT_GRACE_S,
    OptionArguments,
    Options,
    Prepared,
    prepare,
)
from config_manager.client.saying import OnceAMinute, say, say_event
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import World, backoff_s

M = TypeVar("M", bound=BaseModel)

Apply = Callable[[Change[M]], Awaitable[None] | None]
"""The service's say in a change: return to accept, raise to refuse, raise NotNow to be asked again."""

_Messages = AsyncGenerator[tuple[str, bytes], None]

_TICK_S = 1.0
_BACKOFF_S = 0.5
_BACKOFF_LIMIT_S = 30.0
_KEEP_RETRY_S = 1.0
_FAREWELL_S = 1.0

END_WITHIN_S = 3.0
"""How long leaving waits for what does not end: a callback that takes no cancellation."""


class AsyncioConfig(LiveConfig[M]):
    """What `open_config` gives under asyncio."""

    def __init__(self, prepared: Prepared[M]) -> None:
        super().__init__(prepared.instance)
        self._news = asyncio.Event()
        self._retry: Callable[[], None] = lambda: None

    async def _next_news(self) -> None:
        await self._news.wait()

    def _released(self) -> None:
        self._retry()

    def _swap(self, values: M, change: Change[M] | None) -> None:
        super()._swap(values, change)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


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
        if prepared.broken is not None:
            say(logging.ERROR, "kept file broken", service=prepared.service, detail=prepared.broken)
        config = AsyncioConfig(prepared)
        driver = _Driver(prepared, config, apply, connect or connect_with_aiomqtt, disk, world)
        config._retry = driver.retry_soon  # noqa: SLF001  the two are one thing, in public and private
        await driver.perform(prepared.instance.start(_now()), patient=False)
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
                if prepared.instance.source == "defaults":
                    await driver.wait_for_first(prepared)
                prepared.instance.opened()
                yield config
        finally:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await driver.end()
            finally:  # also where whoever cancelled us loses patience
                config._close()  # noqa: SLF001
                await driver.stop(tasks)


@asynccontextmanager
async def _watched(driver: _Driver[Any], tasks: list[asyncio.Task[Any]]) -> AsyncIterator[None]:
    """The body, cancelled where one of our tasks fails; then that failure is raised from it."""
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


class _Driver(Generic[M]):
    """Does what the instance says, in order."""

    def __init__(
        self,
        prepared: Prepared[M],
        config: AsyncioConfig[M],
        apply: Apply[M] | None,
        connect: Connect,
        disk: Worker,
        world: World,
    ) -> None:
        self.watch: Callable[[asyncio.Task[Any]], None] = lambda _: None
        """whose failure ends the body"""
        self._instance = prepared.instance
        self._cache = prepared.cache
        self._disk = disk
        self._once_a_minute = OnceAMinute(prepared.service)
        self._boots = prepared.boots
        self._next_boot: int | None = None
        self._keep_root = prepared.keep_root
        self._config = config
        self._apply = apply
        self._connect = connect
        self._world = world
        self._turn = asyncio.Lock()
        self._due = asyncio.Event()
        self._receipt = prepared.instance.receipt()
        self._new_receipt = asyncio.Event()
        self._at_brokers: dict[str, PublishReceipt] = {}
        """client id → the receipt that its broker acknowledged last"""
        self._acknowledged = asyncio.Event()
        self._first = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._readings: dict[str, asyncio.Timeout] = {}
        """client id → what ends the reading of its connection"""
        self._stops = False
        self._leaves = False

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    async def wait_for_first(self, prepared: Prepared[M]) -> None:
        """The first start ever: until something is delivered, or known not to be there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(prepared.options.wait_s):
                await self._first.wait()
                if self._instance.source == "defaults":  # or the snapshot is a second old
                    await asyncio.sleep(ABSENT_GRACE_S)
        prepared.check_required()

    async def tick(self) -> NoReturn:
        while True:
            await self._step(lambda: self._instance.tick(_now(), self._world.clock.now()))
            await self._keep_what_waits()
            await self._count_as_newest()
            wakes_at = _now() + _TICK_S
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(wakes_at, self._instance.due or wakes_at)):
                    await self._due.wait()
            if self._due.is_set():  # outside the timeout: what was decided is done to its end
                self._due.clear()
                await self._step(lambda: self._instance.retry(_now()))

    async def _count_as_newest(self) -> None:
        """Another process that started since has a higher number. The disk is asked when it is idle, and
        is not waited for: it may hang."""
        number, self._next_boot = self._next_boot, None
        if number is not None:
            await self._step(lambda: self._instance.starts_anew(number))
            for reading in self._readings.values():  # whose will is of the number before
                with suppress(RuntimeError):  # it ends already
                    reading.reschedule(_now())
        elif self._disk.is_idle:
            self._disk.submit(self._boots.take_next_if_overtaken, self._note_boot)

    def _note_boot(self, outcome: Outcome) -> None:
        self._next_boot = outcome.value

    async def _keep_what_waits(self) -> None:
        """The process that wrote the file may have ended."""
        async with self._turn:
            if (kept := self._cache.unwritten) is not None:
                await self._write(Keep(kept), patient=False)

    def has_failed(self, error: BaseException) -> None:
        self._config._fail(error)  # noqa: SLF001

    def retry_soon(self) -> None:
        """Nobody holds the configuration any more."""
        self._due.set()

    async def end(self) -> None:
        """Say that we leave on purpose, on disk and to the brokers. A disk that takes nothing, or hangs,
        keeps no broker from hearing it."""
        todo = self._instance.end()
        for do in todo:
            if isinstance(do, PublishReceipt):
                self._show(do)
        self._leaves = True
        await self.perform([do for do in todo if isinstance(do, Keep)], patient=False)
        while any(there is not self._receipt for there in self._at_brokers.values()):
            await self._acknowledged.wait()

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

    async def _step(self, decide: Callable[[], list[Do[M]]]) -> None:
        """One decision and what follows from it, before the next."""
        async with self._turn:
            await self._perform(decide())
        if self._instance.source == "broker" or self._instance.nothing_to_wait_for:
            self._first.set()

    async def perform(self, todo: list[Do[M]], *, patient: bool = True) -> None:
        async with self._turn:
            await self._perform(todo, patient=patient)

    async def _perform(self, todo: list[Do[M]], *, patient: bool = True) -> None:
        """In order: what must be durable is, before anything that follows from it. patient: until
        the disk takes it; a start must not wait for that."""
        overtaken = False
        for do in todo:
            match do:
                case Keep() | KeepRoot():
                    written = await self._write(do, patient=patient)
                    if patient and not written.is_done:
                        return  # we leave, and what follows needs it
                    overtaken |= written.was_delayed
                case Call(change):
                    call = asyncio.create_task(self._call(change), name="config-manager apply")
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                    self.watch(call)
                case Swap(effective, change):
                    self._config._swap(effective.values, change)  # noqa: SLF001
                case Tell(event):
                    say_event(self._instance.service, event)
                case PublishReceipt():
                    self._show(self._instance.receipt() if overtaken else do)
                case TooStale(reason, policy):
                    self._too_stale(reason, policy)

    def _show(self, receipt: PublishReceipt) -> None:
        if self._leaves:  # the farewell is the last word
            return
        self._receipt = receipt
        self._new_receipt.set()
        self._new_receipt = asyncio.Event()

    async def _call(self, change: Change[M]) -> None:
        assert self._apply is not None
        error: BaseException | None = None
        try:
            answer = self._apply(change)
            if inspect.isawaitable(answer):
                await answer
            else:
                check_answer(answer, "apply")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            if self._stops and isinstance(raised, asyncio.CancelledError):
                raise
            error = raised  # also a cancellation of something that it waited for
        await self._step(lambda: self._instance.called(error, _now()))

    def _too_stale(self, reason: str, policy: str) -> None:
        level = logging.INFO if policy == "report" else logging.WARNING
        say(level, "too stale", service=self._instance.service, reason=reason)
        if policy == "stop":
            raise ConfigurationStale(
                f"{self._instance.service}: stale ({reason}) for longer than max_stale_s allows"
            )

    async def _write(self, do: Keep | KeepRoot, *, patient: bool) -> Written:
        """Durable before it is applied: a full disk delays a change, it never loses a mark."""
        kept = do.kept if isinstance(do, Keep) else None
        write = (
            partial(self._cache.keep, do.kept)
            if isinstance(do, Keep)
            else partial(self._keep_root, do.link)
        )
        has_said, began_at = False, _now()
        while (error := (await run_in(self._disk, write)).error) is not None:
            if not isinstance(error, OSError):
                raise error
            self._once_a_minute.cannot_keep(error, _now())
            if not patient or self._leaves:
                break
            if kept is not None and not has_said:
                self._show(self._instance.cannot_keep(kept, error, self._receipt.document))
                has_said = True
            await asyncio.sleep(_KEEP_RETRY_S)
        if has_said:
            self._instance.was_delayed(_now() - began_at)
        return Written(error is None, has_said)

    # ── brokers ────────────────────────────────────────────────────────────────────────────────

    async def stay_connected(self, address: BrokerAddress, client_id: str) -> NoReturn:
        failures = 0
        while True:
            worked = False
            try:
                last_will = self._instance.receipt(gone=True)
                will = Will(last_will.topic, last_will.payload)
                async with self._connect(address, client_id, will) as connection:
                    await connection.subscribe(*self._instance.filters)
                    say(logging.INFO, "connected", broker=str(address))
                    # made afresh: the last will that this broker may hold has a higher number
                    await self._step(lambda: [self._instance.receipt()])
                    sending = asyncio.create_task(self._send_receipts(connection, client_id))
                    try:
                        async with (
                            asyncio.timeout(None) as self._readings[client_id],
                            aclosing(cast("_Messages", connection.messages())) as messages,
                        ):
                            async for topic, payload in messages:
                                worked = True  # which a broker that drops us at once does not
                                await self._arrived(topic, payload)
                    finally:
                        self._readings.pop(client_id, None)
                        await _ended([sending])
            except TimeoutError:  # we count as newest from now on, which a new will has to say
                pass
            except BrokerUnavailable as error:
                say(logging.WARNING, "broker unavailable", broker=str(address), error=str(error))
            await self._step(lambda: self._instance.disconnected(_now()))
            failures = 0 if worked else failures + 1
            pause = backoff_s(failures, first_s=_BACKOFF_S, longest_s=_BACKOFF_LIMIT_S)
            await asyncio.sleep(pause * self._world.randomness.fraction())

    async def _arrived(self, topic: str, payload: bytes) -> None:
        before = self._instance.due
        await self._step(
            lambda: self._instance.receive(topic, payload, self._world.clock.now(), _now())
        )
        if before is None and self._instance.due is not None:
            self._due.set()  # the ticking task sleeps longer than that

    async def _send_receipts(self, connection: Connection, client_id: str) -> None:
        """The newest receipt, whenever there is one that this broker has not got."""
        sent: PublishReceipt | None = None
        try:
            while True:
                if self._receipt is sent:
                    await self._new_receipt.wait()
                else:
                    receipt = self._receipt
                    self._at_brokers.setdefault(client_id, receipt)
                    await connection.publish(receipt.topic, receipt.payload)
                    sent = self._at_brokers[client_id] = receipt
                    self._acknowledged.set()
                    self._acknowledged = asyncio.Event()
        except BrokerUnavailable:
            pass  # the reader of the same connection notices, and says so
        finally:
            self._at_brokers.pop(client_id, None)
            self._acknowledged.set()
            self._acknowledged = asyncio.Event()


def _now() -> float:
    """Monotonic seconds, by the loop's own clock: who replaces the loop replaces time."""
    return asyncio.get_running_loop().time()
