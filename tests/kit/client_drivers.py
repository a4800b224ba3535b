"""The two drivers behind one face, in virtual time, with brokers in memory.

A story is one coroutine that runs under Trio and under asyncio alike. Time jumps to the next
deadline when nothing else can happen and no thread (which writes a file) is at work.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing

from config_manager.actors.mqtt.port import BrokerUnavailable, Message
from config_manager.client.drivers import asyncio_connection, asyncio_driver, trio_driver
from config_manager.client.drivers.background import work_done
from config_manager.client.drivers.live_config import LiveConfig
from config_manager.client.state.identity import trust_init
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt
from config_manager.config.world import SystemDisk, World
from tests.kit import documents as m
from tests.kit.client_story import Settings
from tests.kit.memory_broker import Event, MemoryBroker, Session

T = TypeVar("T")

_IDLE_S = 0.0003


class Broker(MemoryBroker):
    """Honest unless a story makes it otherwise; it keeps the receipts that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.receipts: list[Receipt] = []
        self.is_up = True
        self.acknowledges = True
        self.failure: Exception | None = None

    def answers(self, client_id: str) -> None:
        """A client connects; raises what it hears if this broker lets nobody in."""
        self.client_ids.append(client_id)
        if self.failure is not None:
            raise self.failure
        if not self.is_up:
            raise BrokerUnavailable("connection refused")

    def says(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        super().takes(topic, payload, retain=retain)

    def takes(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        super().takes(topic, payload, retain=retain)
        if topic.startswith(wire.STATUS_PREFIX):
            self.receipts.append(Receipt.parse(wire.parse_envelope(payload).payload))

    def drops_all(self) -> None:
        for session in list(self.sessions):
            session.breaks()

    @property
    def last(self) -> Receipt:
        """The receipt that is retained."""
        return self.receipts[-1]

    @property
    def stage(self) -> str:
        attempt = self.last.last_attempt
        return f"{attempt.stage} {attempt.revision}" if attempt is not None else "nothing"

    # what the publisher does through it

    def configures(self, revision: int, **fields: Any) -> None:
        self.says(m.TOPIC, m.update_bytes(revision, **fields))

    def vouches(self, revision: int | None, seq: int) -> None:
        """Snapshot and beacon; None: the publisher holds nothing for this service."""
        services = {m.SERVICE: m.entry(revision)} if revision is not None else {}
        self.says(wire.SNAPSHOT_TOPIC, m.snapshot_bytes(services, seq))
        self.says(wire.KEEPALIVE_TOPIC, m.keepalive_bytes(services, seq), retain=False)


class FickleDisk(SystemDisk):
    """A real one that a story can fill."""

    def __init__(self) -> None:
        self.full = False
        self.refused = 0

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if self.full:
            self.refused += 1
            raise OSError(28, "No space left on device")
        path.write_bytes(data)  # the real one's way to the platter is tested with it
        path.chmod(mode)


class Kit(ABC):
    """A driver, its loop, its brokers, its state directory."""

    name: str

    def __init__(self, directory: Path) -> None:
        (directory / "root.json").write_bytes(m.root_bytes())
        trust_init(directory / "state", directory / "root.json")
        self.state = directory / "state"
        self.disk = FickleDisk()
        self.brokers = {"a": Broker(), "b": Broker()}
        self.world = World(clock=self, disk=self.disk)

    @property
    def a(self) -> Broker:
        return self.brokers["a"]

    @property
    def b(self) -> Broker:
        return self.brokers["b"]

    def now(self) -> float:
        """The wall clock's time: it is right, and goes with the other."""
        return m.NOW + self.time()

    def open(self, **options: Any) -> AbstractAsyncContextManager[LiveConfig[Any]]:
        given: dict[str, Any] = {
            "model": Settings, "service": m.SERVICE, "state_dir": self.state,
            "mqtt_url": "mqtt://a", "env_file": None, "world": self.world, **options,
        }  # fmt: skip
        # a process that has just ended may still hold the claim for the last work of its thread
        gives_up_at = time.monotonic() + 1
        while work_done() is None and time.monotonic() < gives_up_at:
            time.sleep(0.001)
        return self.open_config(**given)

    async def until(
        self, predicate: Callable[[], Any], *, within: float = 60, every: float = 0.25
    ) -> None:
        deadline = self.time() + within
        while not predicate():
            assert self.time() < deadline, f"not within {within:g} s"
            await self.sleep(every)

    async def forever(self) -> None:
        await self.event().wait()

    @abstractmethod
    def open_config(self, **options: Any) -> AbstractAsyncContextManager[LiveConfig[Any]]: ...

    @abstractmethod
    def run(self, story: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """To its end; fails where a task outlives it."""

    @abstractmethod
    def time(self) -> float: ...

    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...

    @abstractmethod
    def event(self) -> Event: ...

    @abstractmethod
    async def cancelled(
        self, body: Callable[[Callable[[], Any]], Awaitable[None]], *, after: float | None = None
    ) -> bool:
        """Run it, give it what cancels it, and say whether it was. after: cancel it then."""

    @abstractmethod
    async def together(self, *parts: Callable[[], Awaitable[None]]) -> None:
        """Until each has ended."""


def told(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A story of its kit (`it`) and pytest's parameters, as a test."""

    @functools.wraps(story)
    def test(it: Kit, **rest: Any) -> None:
        it.run(functools.partial(story, it, **rest))

    return test


# ── Trio ───────────────────────────────────────────────────────────────────────────────────────


class TrioKit(Kit):
    name = "trio"

    def open_config(self, **options: Any) -> AbstractAsyncContextManager[LiveConfig[Any]]:
        return trio_driver.open_config(**options, transport=self)

    @asynccontextmanager
    async def connect(
        self, address: Any, *, client_id: str, will: Message | None = None
    ) -> AsyncIterator[Any]:
        assert will is not None
        assert will.retained, "who comes later has to learn it too"
        await trio.lowlevel.checkpoint()
        broker = self.brokers[address.host]
        broker.answers(client_id)
        send, receive = trio.open_memory_channel[Any](100_000)
        said = will.topic, will.payload
        with Session(broker, said, send.send_nowait, trio.Event()) as session:
            yield _TrioConnection(broker, session, receive)

    def run(self, story: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._clock = trio.testing.MockClock()

        async def jump() -> None:
            threads = trio.to_thread.current_default_thread_limiter()
            while True:
                done = work_done()
                await trio.testing.wait_all_tasks_blocked(_IDLE_S)
                ahead = trio.lowlevel.current_statistics().seconds_to_next_deadline
                is_idle = threads.borrowed_tokens == 0 and done is not None and done == work_done()
                if is_idle and 0 < ahead < float("inf"):
                    self._clock.jump(ahead)

        async def main() -> T:
            with trio.fail_after(10_000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(jump)
                    told = await story()
                    nursery.cancel_scope.cancel()
            return told

        return trio.run(main, clock=self._clock, strict_exception_groups=True)

    def time(self) -> float:
        return self._clock.current_time()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def event(self) -> Event:
        return trio.Event()

    async def cancelled(
        self, body: Callable[[Callable[[], Any]], Awaitable[None]], *, after: float | None = None
    ) -> bool:
        with trio.CancelScope() as scope:
            if after is not None:
                scope.deadline = trio.current_time() + after
            await body(scope.cancel)
        return scope.cancelled_caught

    async def together(self, *parts: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(part)


class _TrioConnection:
    def __init__(
        self, broker: Broker, session: Session, received: trio.MemoryReceiveChannel[Any]
    ) -> None:
        self._broker = broker
        self._session = session
        self._received = received

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        await trio.lowlevel.checkpoint()
        self._session.subscribe(filters)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        assert (qos, retain) == (1, True)
        await trio.lowlevel.checkpoint()
        if not self._broker.acknowledges:
            await self._session.lost.wait()
        if self._session.lost.is_set():
            raise BrokerUnavailable("lost")
        self._broker.takes(topic, payload)

    async def messages(self) -> AsyncGenerator[Message]:
        async for item in self._received:
            if item is None:
                raise BrokerUnavailable("lost")
            topic, payload, retained = item
            yield Message(topic, payload, retained=retained)


# ── asyncio ────────────────────────────────────────────────────────────────────────────────────


class AioKit(Kit):
    name = "asyncio"

    def open_config(self, **options: Any) -> AbstractAsyncContextManager[LiveConfig[Any]]:
        return asyncio_driver.open_config(**options, connect=self.connect)

    @asynccontextmanager
    async def connect(
        self, address: Any, client_id: str, will: asyncio_connection.Will
    ) -> AsyncIterator[asyncio_connection.AsyncioConnection]:
        await asyncio.sleep(0)
        broker = self.brokers[address.host]
        broker.answers(client_id)
        queue = asyncio.Queue[Any]()
        said = will.topic, will.payload
        with Session(broker, said, queue.put_nowait, asyncio.Event()) as session:
            yield _AioConnection(broker, session, queue)

    def run(self, story: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def main() -> T:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, JumpingLoop)
            loop.set_default_executor(loop.threads)
            try:
                async with asyncio.timeout(10_000):
                    told = await story()
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert not left, f"still there: {left}"
                return told
            finally:
                loop.threads.shutdown()

        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            self._loop = runner.get_loop()
            return runner.run(main())

    def time(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def event(self) -> Event:
        return asyncio.Event()

    async def cancelled(
        self, body: Callable[[Callable[[], Any]], Awaitable[None]], *, after: float | None = None
    ) -> bool:
        async def start() -> None:
            await body(asyncio.current_task().cancel)  # type: ignore[union-attr]

        task = asyncio.create_task(start())
        if after is not None:
            asyncio.get_running_loop().call_later(after, task.cancel)
        await asyncio.wait([task])
        if task.cancelled():
            return True
        await task
        return False

    async def together(self, *parts: Callable[[], Awaitable[None]]) -> None:
        async def run(part: Callable[[], Awaitable[None]]) -> None:
            await part()

        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(run(part))


class _AioConnection:
    def __init__(self, broker: Broker, session: Session, received: asyncio.Queue[Any]) -> None:
        self._broker = broker
        self._session = session
        self._received = received

    async def subscribe(self, *filters: str) -> None:
        await asyncio.sleep(0)
        self._session.subscribe(filters)

    async def publish(self, topic: str, payload: bytes) -> None:
        await asyncio.sleep(0)
        if not self._broker.acknowledges:
            await self._session.lost.wait()
        if self._session.lost.is_set():
            raise BrokerUnavailable("lost")
        self._broker.takes(topic, payload)

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        while (item := await self._received.get()) is not None:
            yield item[:2]
        raise BrokerUnavailable("lost")


class _CountingThreads(ThreadPoolExecutor):
    def __init__(self) -> None:
        super().__init__(2)
        self.at_work = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.at_work += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        self.at_work -= 1


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, threads: _CountingThreads) -> None:
        super().__init__()
        self._threads = threads
        self.ahead = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        done = self._work_done()
        events = super().select(min(timeout, _IDLE_S))
        if not events and done is not None and done == self._work_done():
            self.ahead += timeout
        return events

    def _work_done(self) -> int | None:
        return None if self._threads.at_work else work_done()


def run_asyncio(main: Coroutine[Any, Any, T]) -> T:
    """In real time, and on asyncio's own loop: where anything has imported trio-asyncio,
    `asyncio.run` takes another."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Sleeps for nobody: where there is nothing to do, it is later already."""

    def __init__(self) -> None:
        self.threads = _CountingThreads()
        self._jumping = _JumpingSelector(self.threads)
        super().__init__(self._jumping)

    def time(self) -> float:
        return time.monotonic() + self._jumping.ahead


KITS = (TrioKit, AioKit)
