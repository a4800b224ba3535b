"""Following one service under asyncio: the same rules (`instance`), one aiomqtt connection a broker.

No Trio in here, and no trio-asyncio: importing that changes `asyncio.run()` for the whole process.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, Unpack

from pydantic import BaseModel

from config_manager.actors.packet_limit import PacketLimit, connect_properties
from config_manager.client.brokers import parse_addresses
from config_manager.client.config import LiveConfig
from config_manager.client.inbox import Inbox
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
)
from config_manager.client.opening import (
    ABSENT_GRACE_S,
    OptionArguments,
    Options,
    Prepared,
    prepare,
)
from config_manager.client.saying import say, say_event
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import World, backoff_s

if TYPE_CHECKING:
    import aiomqtt

M = TypeVar("M", bound=BaseModel)

Apply = Callable[[Change[M]], Awaitable[None] | None]
"""The service's say in a change: return to accept, raise to refuse, raise NotNow to be asked again."""

_TICK_S = 1.0
_BACKOFF_S = 0.5
_BACKOFF_LIMIT_S = 30.0
_KEEP_RETRY_S = 1.0
_FAREWELL_S = 1.0
_CONNECT_S = 5.0
_KEEPALIVE_S = 10


class BrokerUnavailable(Exception):
    """The broker can't be reached, refused us, or the connection broke; the message says which."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us, retained, when we are gone without a word."""

    topic: str
    payload: bytes


class Connection(Protocol):
    """One live connection; everything raises BrokerUnavailable once it broke."""

    async def subscribe(self, *filters: str) -> None: ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Retained, QoS 1; returns after the PUBACK."""
        ...

    def messages(self) -> AsyncIterator[tuple[str, bytes]]: ...


Connect = Callable[[BrokerAddress, str, Will], AbstractAsyncContextManager[Connection]]
"""(address, client id, will) → a connection: the seam for tests and simulations."""


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
    world = world or World()
    prepared = prepare(model, Options(**options), asks=apply is not None, world=world)
    with closing(prepared.claim):
        addresses = parse_addresses(prepared.mqtt_url)
        if prepared.broken is not None:
            say(logging.ERROR, "kept file broken", service=prepared.service, detail=prepared.broken)
        config = AsyncioConfig(prepared)
        driver = _Driver(prepared, config, apply, connect or connect_with_aiomqtt, world)
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
            async with _watched(tasks):
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
async def _watched(tasks: list[asyncio.Task[Any]]) -> AsyncIterator[None]:
    """The body, cancelled where one of our tasks fails; then that failure is raised from it."""
    body = asyncio.current_task()
    assert body is not None
    cancelled_before = body.cancelling()
    raised: BaseException | None = None
    with _cancelling(body, tasks) as failed:
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
    body: asyncio.Task[Any], tasks: list[asyncio.Task[Any]]
) -> Iterator[list[BaseException]]:
    """Cancel the body, once, when a task fails; gives the failures."""
    failed: list[BaseException] = []

    def on_done(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            failed.append(error)
            if len(failed) == 1:
                body.cancel()

    for task in tasks:
        task.add_done_callback(on_done)
    try:
        yield failed
    finally:
        for task in tasks:
            task.remove_done_callback(on_done)


class _Driver(Generic[M]):
    """Does what the instance says, in order."""

    def __init__(
        self,
        prepared: Prepared[M],
        config: AsyncioConfig[M],
        apply: Apply[M] | None,
        connect: Connect,
        world: World,
    ) -> None:
        self._instance = prepared.instance
        self._cache = prepared.cache
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
        self._stops = False

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
            wakes_at = _now() + _TICK_S
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(wakes_at, self._instance.due or wakes_at)):
                    await self._due.wait()
            if self._due.is_set():  # outside the timeout: what was decided is done to its end
                self._due.clear()
                await self._step(lambda: self._instance.retry(_now()))

    async def _keep_what_waits(self) -> None:
        """The process that wrote the file may have ended."""
        async with self._turn:
            if (kept := self._cache.unwritten) is not None:
                await self._write(partial(self._cache.keep, kept), patient=False)

    def retry_soon(self) -> None:
        """Nobody holds the configuration any more."""
        self._due.set()

    async def end(self) -> None:
        """Say that we leave on purpose, on disk and to the brokers."""
        await self._step(self._instance.end)
        while any(there is not self._receipt for there in self._at_brokers.values()):
            await self._acknowledged.wait()

    async def stop(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._stops = True
        running = [*tasks, *self._calls]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

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
        for do in todo:
            match do:
                case Keep(kept):
                    await self._write(partial(self._cache.keep, kept), patient=patient)
                case KeepRoot(link):
                    await self._write(partial(self._keep_root, link), patient=patient)
                case Call(change):
                    call = asyncio.create_task(self._call(change))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                case Swap(effective, change):
                    self._config._swap(effective.values, change)  # noqa: SLF001
                case Tell(event):
                    say_event(self._instance.service, event)
                case PublishReceipt():
                    self._receipt = do
                    self._new_receipt.set()
                    self._new_receipt = asyncio.Event()
                case TooStale(reason, policy):
                    self._too_stale(reason, policy)

    async def _call(self, change: Change[M]) -> None:
        assert self._apply is not None
        error: BaseException | None = None
        try:
            answer = self._apply(change)
            if inspect.isawaitable(answer):
                await answer
        except Exception as raised:  # noqa: BLE001  the service refuses; it says why
            error = raised
        except asyncio.CancelledError as raised:
            if self._stops:
                raise
            error = raised  # of something that it waited for: no answer would be none for ever
        await self._step(lambda: self._instance.called(error, _now()))

    def _too_stale(self, reason: str, policy: str) -> None:
        level = logging.INFO if policy == "report" else logging.WARNING
        say(level, "too stale", service=self._instance.service, reason=reason)
        if policy == "stop":
            raise ConfigurationStale(
                f"{self._instance.service}: stale ({reason}) for longer than max_stale_s allows"
            )

    async def _write(self, write: Callable[[], None], *, patient: bool) -> None:
        """Durable before it is applied: a full disk delays a change, it never loses a mark."""
        while True:
            try:
                await asyncio.to_thread(write)
            except OSError as error:
                service = self._instance.service
                say(logging.ERROR, "cannot keep", service=service, error=str(error))
                if not patient:
                    return
                await asyncio.sleep(_KEEP_RETRY_S)
            else:
                return

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
                        async for topic, payload in connection.messages():
                            worked = True  # which a broker that drops us at once does not
                            await self._arrived(topic, payload)
                    finally:
                        sending.cancel()
                        await asyncio.gather(sending, return_exceptions=True)
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


# ── aiomqtt ────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def connect_with_aiomqtt(
    address: BrokerAddress, client_id: str, will: Will
) -> AsyncIterator[Connection]:
    """Protocol 5, else 3.1.1. Raises BrokerUnavailable."""
    import aiomqtt

    limit: PacketLimit | None = None
    try:
        client = _make_client(address, client_id, will, aiomqtt.ProtocolVersion.V5)
        limit = PacketLimit(client._client)  # noqa: SLF001  aiomqtt shows it to nobody
        try:
            await _connect_or_clean_up(client)
        except aiomqtt.MqttError:  # it may not know 5
            client = _make_client(address, client_id, will, aiomqtt.ProtocolVersion.V311)
            limit = PacketLimit(client._client)  # noqa: SLF001
            await _connect_or_clean_up(client)
    except (aiomqtt.MqttError, OSError) as error:
        refused = limit.refused if limit else None
        raise BrokerUnavailable(refused or str(error) or type(error).__name__) from error
    try:
        yield _AiomqttConnection(client, limit)
    finally:
        with suppress(aiomqtt.MqttError, OSError):
            await client.__aexit__(None, None, None)


async def _connect_or_clean_up(client: Any) -> None:
    """aiomqtt connects in a thread, which goes on where we are cancelled, and then leaves a socket,
    its watchers and a task to a loop that may be closed already."""
    paho, loop, connect = client._client, asyncio.get_running_loop(), client._client_connect  # noqa: SLF001
    is_given_up = False

    async def end_at_once() -> None:
        pass

    def clean_up() -> None:
        paho._sock_close()  # noqa: SLF001  which ends all of them

    def connect_unless_given_up() -> None:
        try:
            connect()
        finally:
            if is_given_up:  # behind what connecting made the loop do
                loop.call_soon_threadsafe(clean_up)

    client._client_connect = connect_unless_given_up  # noqa: SLF001
    try:
        await client.__aenter__()
    except BaseException:
        client._misc_loop = end_at_once  # noqa: SLF001
        is_given_up = True
        loop.call_soon(clean_up)
        raise


def _make_client(
    address: BrokerAddress, client_id: str, will: Will, version: Any
) -> aiomqtt.Client:
    import aiomqtt

    v5 = version is aiomqtt.ProtocolVersion.V5
    return aiomqtt.Client(
        hostname=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        identifier=client_id,
        protocol=version,
        will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True),
        clean_session=None if v5 else True,
        clean_start=True if v5 else 3,
        keepalive=_KEEPALIVE_S,
        timeout=_CONNECT_S,
        queue_type=Inbox,
        # small packets wait 40 ms for each other's acknowledgement otherwise (Nagle)
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        tls_context=address.tls_context(),
        properties=connect_properties() if v5 else None,
        logger=_SILENT,
    )


class _AiomqttConnection:
    def __init__(self, client: aiomqtt.Client, limit: PacketLimit) -> None:
        self._client = client
        self._limit = limit

    def _broken(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(self._limit.refused or str(error))

    async def subscribe(self, *filters: str) -> None:
        import aiomqtt

        try:
            await self._client.subscribe([(name, 1) for name in filters])
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error

    async def publish(self, topic: str, payload: bytes) -> None:
        import aiomqtt

        try:
            await self._client.publish(topic, payload, qos=1, retain=True)
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        import aiomqtt

        try:
            async for message in self._client.messages:
                payload = message.payload
                yield str(message.topic), payload if isinstance(payload, bytes) else b""
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error
        raise BrokerUnavailable("the connection was closed")


_SILENT = logging.getLogger("config_manager.mqtt")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL + 1)
