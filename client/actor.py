"""Following one service under Trio: brokers in, verified configuration out.

Starts from the last-known-good file before any network, connects to every broker it was given, for
ever, and merges what they say: it doesn't matter which of them is honest or up. One task per broker
reads; one task judges, keeps and swaps, so that everything has one order. `instance` decides.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Generic,
    NamedTuple,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
)

import trio
from pydantic import BaseModel, ConfigDict

from config_manager.client.background import Outcome, Worker, run_under_trio
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
from config_manager.client.subscriber import Applied, Event, Offered, Resigned, RootTrusted
from config_manager.client.words import leaves_of
from config_manager.config.errors import ConfigurationStale
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World, backoff_s

if TYPE_CHECKING:  # at run time they would bring a broker client into every importing service
    from config_manager.actors.mqtt import Connection, Message, Transport
    from config_manager.config.brokers import BrokerAddress

M = TypeVar("M", bound=BaseModel)

Apply = Callable[[Change[M]], Awaitable[None] | None]
"""The service's say in a change: return to accept, raise to refuse, raise NotNow to be asked again."""

_Messages: TypeAlias = "AsyncGenerator[Message, None]"

_TICK_S = 1.0
_BACKOFF_S = 0.5
_BACKOFF_LIMIT_S = 30.0
_INBOX = 64
_UNREAD_EVENTS = 256
_KEEP_RETRY_S = 1.0
_FAREWELL_S = 1.0


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


class Anything(BaseModel):
    """The model of who takes whatever is delivered."""

    model_config = ConfigDict(extra="allow", frozen=True)


class _Listener(Protocol[M]):
    """Who hears what the driver finds out."""

    def _tell(self, event: Event) -> None: ...

    def _swap(self, values: M, change: Change[M] | None) -> None: ...

    def _fail(self, error: BaseException) -> None: ...


class Follower:
    """What `follow` gives: an async iterator of events, and the configuration that runs.

    A service that only looks at `current` may leave the events unread: past 256 of them the oldest
    are dropped, never the newest.
    """

    def __init__(
        self, service: str, instance: str, secrets: Callable[[], Mapping[str, Secret]] = dict
    ) -> None:
        self.service = service
        self.instance = instance
        self.running: Applied | None = None
        self._secrets = secrets
        self._unread: deque[Event] = deque(maxlen=_UNREAD_EVENTS)
        self._news = trio.Event()

    @property
    def current(self) -> JsonObject | None:
        """The configuration to run with; None while none was ever applied."""
        return self.running.update.config if self.running is not None else None

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """What was delivered sealed with the running configuration."""
        return self._secrets()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._unread:
            await self._news.wait()
            self._news = trio.Event()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._unread.popleft()

    def _tell(self, event: Event) -> None:
        if isinstance(event, Applied):
            self.running = event
        if isinstance(event, Resigned | Offered | RootTrusted):
            return  # nothing that a service could act on
        self._unread.append(event)
        self._news.set()

    def _swap(self, values: Anything, change: Change[Anything] | None) -> None:
        """`current` is what was delivered, as it was delivered."""

    def _fail(self, error: BaseException) -> None:
        """The block raises it."""


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
        super().__init__(prepared.instance)
        self._news = trio.Event()
        self._send: Callable[[_News], None] = lambda _: None

    async def _next_news(self) -> None:
        await self._news.wait()

    def _released(self) -> None:
        self._send(_Released())

    def _swap(self, values: M, change: Change[M] | None) -> None:
        super()._swap(values, change)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


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
        config._send = driver.send  # noqa: SLF001  the two are one thing, split in public and private
        if prepared.instance.source == "defaults":
            await driver.wait_for_first(prepared)
        prepared.instance.opened()
        try:
            yield config
        finally:
            config._close()  # noqa: SLF001


@asynccontextmanager
async def _driving(
    prepared: Prepared[M],
    listener: _Listener[M],
    apply: Apply[M] | None,
    transport: Transport | None,
    world: World,
) -> AsyncIterator[_Driver[M]]:
    from config_manager.client.brokers import parse_addresses

    raised: Exception | None = None
    with _one_failure_as_itself(), prepared.disk_thread() as disk:
        addresses = parse_addresses(prepared.mqtt_url)
        if prepared.broken is not None:
            say(logging.ERROR, "kept file broken", service=prepared.service, detail=prepared.broken)
        driver = _Driver(prepared, listener, apply, disk, world)
        await driver.perform(lambda: prepared.instance.start(trio.current_time()), patient=False)
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
                # also when we are cancelled: what runs is still there to say that we leave
                with trio.CancelScope(shield=True), trio.move_on_after(_FAREWELL_S):
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


class _Driver(Generic[M]):
    """Does what the instance says, in order."""

    def __init__(
        self,
        prepared: Prepared[M],
        listener: _Listener[M],
        apply: Apply[M] | None,
        disk: Worker,
        world: World,
    ) -> None:
        self._instance = prepared.instance
        self._cache = prepared.cache
        self._disk = disk
        self._once_a_minute = OnceAMinute(prepared.service)
        self._boots = prepared.boots
        self._next_boot: int | None = None
        self._keep_root = prepared.keep_root
        self._listener = listener
        self._apply = apply
        self._world = world
        self._scope = trio.CancelScope(shield=True)  # it ends after the body, whoever is cancelled
        self._nursery: trio.Nursery
        self._inbox, self._news = trio.open_memory_channel[_News](_INBOX)
        self._turn = trio.Lock()
        self._receipt = prepared.instance.receipt()
        self._new_receipt = trio.Event()
        self._at_brokers: dict[str, PublishReceipt] = {}
        """client id → the receipt that its broker acknowledged last"""
        self._acknowledged = trio.Event()
        self._first = trio.Event()
        self._stale: ConfigurationStale | None = None
        self._stops = trio.Event()
        self._leaves = False
        self._readings: dict[str, trio.CancelScope] = {}
        """client id → what ends the reading of its connection"""

    def send(self, news: _News) -> None:
        """From outside the driver's tasks; where the inbox is full the next tick does it."""
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._inbox.send_nowait(news)

    async def wait_for_first(self, prepared: Prepared[M]) -> None:
        """The first start ever: until something is delivered, or known not to be there."""
        with trio.move_on_after(prepared.options.wait_s):
            await self._first.wait()
            if self._instance.source == "defaults":  # not there; or the snapshot is a second old
                await trio.sleep(ABSENT_GRACE_S)
        prepared.check_required()

    async def run(
        self,
        transport: Transport | None,
        addresses: list[BrokerAddress],
        client_id: str,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Everything that goes on in the background, until `stop`."""
        with self._scope:
            try:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self.judge)
                    for number, address in enumerate(addresses):
                        assert transport is not None
                        own_id = f"{client_id}-{number}"
                        self._nursery.start_soon(self.stay_connected, transport, address, own_id)
                    task_status.started()
            except Exception as error:
                self._listener._fail(leaves_of(error)[0])  # noqa: SLF001
                raise

    def stop(self) -> None:
        self._scope.cancel()

    async def judge(self) -> NoReturn:
        instance = self._instance
        await self._step(lambda: instance.tick(trio.current_time(), self._world.clock.now()))
        next_tick = trio.current_time() + _TICK_S
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
            if now >= wakes_at:  # also where messages never pause: time must not depend on them
                await self._step(partial(instance.tick, now, wall_now))
                await self._keep_what_waits()
                await self._count_as_newest()
                next_tick = now + _TICK_S

    async def _count_as_newest(self) -> None:
        """Another process that started since has a higher number. The disk is asked when it is idle, and
        is not waited for: it may hang."""
        number, self._next_boot = self._next_boot, None
        if number is not None:
            await self._step(lambda: self._instance.starts_anew(number))
            for reading in self._readings.values():  # whose will is of the number before
                reading.cancel()
        elif self._disk.is_idle:
            self._disk.submit(self._boots.take_next_if_overtaken, self._note_boot)

    def _note_boot(self, outcome: Outcome) -> None:
        self._next_boot = outcome.value

    async def _keep_what_waits(self) -> None:
        """The process that wrote the file may have ended."""
        async with self._turn:
            if (kept := self._cache.unwritten) is not None:
                await self._write(Keep(kept), patient=False)

    async def _step(self, decide: Callable[[], list[Do[M]]]) -> None:
        await self.perform(decide)
        if self._instance.source == "broker" or self._instance.nothing_to_wait_for:
            self._first.set()

    async def perform(self, decide: Callable[[], list[Do[M]]], *, patient: bool = True) -> None:
        """One decision and what follows from it, before the next: receipts are numbered as they are
        made."""
        async with self._turn:
            await self._perform(decide(), patient=patient)

    async def _perform(self, todo: list[Do[M]], *, patient: bool) -> None:
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
                    self._nursery.start_soon(self._call, change)
                case Swap(effective, change):
                    self._listener._swap(effective.values, change)  # noqa: SLF001
                case Tell(event):
                    say_event(self._instance.service, event)
                    self._listener._tell(event)  # noqa: SLF001
                case PublishReceipt():
                    self._show(self._instance.receipt() if overtaken else do)
                case TooStale(reason, policy):
                    self._too_stale(reason, policy)

    def _show(self, receipt: PublishReceipt) -> None:
        if self._leaves:  # the farewell is the last word
            return
        self._receipt = receipt
        self._new_receipt.set()
        self._new_receipt = trio.Event()

    async def _call(self, change: Change[M]) -> None:
        assert self._apply is not None
        error: BaseException | None = None
        try:
            answer = self._apply(change)
            if inspect.isawaitable(answer):
                await answer
            else:
                check_answer(answer, "apply")
        except (KeyboardInterrupt, SystemExit, trio.Cancelled):
            raise
        except BaseExceptionGroup as raised:
            if raised.subgroup((KeyboardInterrupt, SystemExit, trio.Cancelled)) is not None:
                raise
            error = raised
        except BaseException as raised:  # noqa: BLE001  the service refuses; it says why
            error = raised
        await self._inbox.send(_Called(error))

    def _too_stale(self, reason: str, policy: str) -> None:
        level = logging.INFO if policy == "report" else logging.WARNING
        say(level, "too stale", service=self._instance.service, reason=reason)
        if policy == "stop":
            self._stale = ConfigurationStale(
                f"{self._instance.service}: stale ({reason}) for longer than max_stale_s allows"
            )
            self._listener._fail(self._stale)  # noqa: SLF001
            self._stops.set()

    async def stop_the_service(self) -> None:
        """Beside the body and not in the background, which has yet to say that we are gone."""
        await self._stops.wait()
        if self._stale is not None:
            raise self._stale

    async def _write(self, do: Keep | KeepRoot, *, patient: bool) -> Written:
        """Durable before it is applied: a full disk delays a change, it never loses a mark."""
        kept = do.kept if isinstance(do, Keep) else None
        write = (
            partial(self._cache.keep, do.kept)
            if isinstance(do, Keep)
            else partial(self._keep_root, do.link)
        )
        has_said, began_at = False, trio.current_time()
        while (error := (await run_under_trio(self._disk, write)).error) is not None:
            if not isinstance(error, OSError):
                raise error
            self._once_a_minute.cannot_keep(error, trio.current_time())
            if not patient or self._leaves:
                break
            if kept is not None and not has_said:
                self._show(self._instance.cannot_keep(kept, error, self._receipt.document))
                has_said = True
            await trio.sleep(_KEEP_RETRY_S)
        if has_said:
            self._instance.was_delayed(trio.current_time() - began_at)
        return Written(error is None, has_said)

    async def end(self) -> None:
        """Say that we leave on purpose, on disk and to the brokers. A disk that takes nothing, or hangs,
        keeps no broker from hearing it."""
        todo = self._instance.end()
        for do in todo:
            if isinstance(do, PublishReceipt):
                self._show(do)
        self._leaves = True
        await self.perform(lambda: [do for do in todo if isinstance(do, Keep)], patient=False)
        while any(there is not self._receipt for there in self._at_brokers.values()):
            await self._acknowledged.wait()

    # ── brokers ────────────────────────────────────────────────────────────────────────────────

    async def stay_connected(
        self, transport: Transport, address: BrokerAddress, client_id: str
    ) -> NoReturn:
        from config_manager.actors.mqtt import BrokerUnavailable, Message, broken_as_itself

        failures = 0
        while True:
            worked = False
            try:
                last_will = self._instance.receipt(gone=True)
                will = Message(last_will.topic, last_will.payload, retained=True)
                with broken_as_itself():
                    async with (
                        transport.connect(address, client_id=client_id, will=will) as connection,
                        trio.open_nursery() as nursery,
                    ):
                        self._readings[client_id] = nursery.cancel_scope
                        await connection.subscribe(*self._instance.filters)
                        say(logging.INFO, "connected", broker=str(address))
                        # made afresh: the last will that this broker may hold has a higher number
                        await self.perform(lambda: [self._instance.receipt()])
                        nursery.start_soon(self._send_receipts, connection, client_id)
                        async with aclosing(cast("_Messages", connection.messages())) as messages:
                            async for message in messages:
                                worked = True  # which a broker that drops us at once does not
                                await self._inbox.send(_Arrived(message.topic, message.payload))
            except BrokerUnavailable as error:
                say(logging.WARNING, "broker unavailable", broker=str(address), error=str(error))
            finally:
                self._readings.pop(client_id, None)
            await self._inbox.send(_Lost())
            failures = 0 if worked else failures + 1
            pause = backoff_s(failures, first_s=_BACKOFF_S, longest_s=_BACKOFF_LIMIT_S)
            await trio.sleep(pause * self._world.randomness.fraction())

    async def _send_receipts(self, connection: Connection, client_id: str) -> NoReturn:
        """The newest receipt, whenever there is one that this broker has not got."""
        sent: PublishReceipt | None = None
        try:
            while True:
                if self._receipt is sent:
                    await self._new_receipt.wait()
                else:
                    receipt = self._receipt
                    self._at_brokers.setdefault(client_id, receipt)
                    await connection.publish(receipt.topic, receipt.payload, qos=1, retain=True)
                    sent = self._at_brokers[client_id] = receipt
                    self._acknowledged.set()
                    self._acknowledged = trio.Event()
        finally:
            self._at_brokers.pop(client_id, None)
            self._acknowledged.set()
            self._acknowledged = trio.Event()


def _default_transport() -> Transport:
    from config_manager.actors.mqtt import AiomqttTransport
    from config_manager.client.inbox import Inbox

    return AiomqttTransport(unread=Inbox)
