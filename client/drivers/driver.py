"""What both drivers do alike: carry out what the rules (`rules.instance`) decide, in that order.

The subclasses run under Trio (`trio_driver`) and asyncio (`asyncio_driver`). Each runs the tasks, reads the
brokers and asks the service's callback in the way of its own event loop.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from pydantic import BaseModel

from config_manager.actors.mqtt.port import BrokerUnavailable
from config_manager.client.drivers.background import Result, Worker, run_in
from config_manager.client.drivers.callbacks import check_answer
from config_manager.client.drivers.event_log import OnceAMinute, say_event
from config_manager.client.drivers.loops import LoopEvent, Wakeup
from config_manager.client.drivers.opening import ABSENT_GRACE_S, Prepared
from config_manager.client.drivers.schema_offer import SchemaOffer
from config_manager.client.rules.events import Event
from config_manager.client.rules.todo import (
    Call,
    Change,
    Do,
    Keep,
    KeepOutcome,
    KeepRoot,
    PublishReceipt,
    Swap,
    Tell,
    TooStale,
)
from config_manager.client.state.log import say
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import ConfigurationStale
from config_manager.config.world import backoff_s

M = TypeVar("M", bound=BaseModel)

FAREWELL_S = 1.0
_TICK_S = 1.0
_BACKOFF_S = 0.5
_BACKOFF_LIMIT_S = 30.0
_KEEP_RETRY_S = 1.0
_MOST_AHEAD = 4
"""Decisions that may wait while a broker's next message is read. Messages that came together are judged one
right after the other: a configuration, and the snapshot that proves it fresh."""


class Listener(Protocol[M]):
    """Hears what the driver finds out."""

    def tell(self, event: Event) -> None: ...

    def swap(self, values: M, change: Change[M] | None) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Driver(ABC, Generic[M]):
    """Does what the instance says, in order."""

    def __init__(self, prepared: Prepared[M], listener: Listener[M], disk: Worker) -> None:
        self._prepared = prepared
        self._instance = prepared.instance
        self._listener = listener
        self._apply = prepared.apply
        self._disk = disk
        self._world = prepared.world
        self._once_a_minute = OnceAMinute(prepared.service)
        self._turn = self._new_lock()
        self._asked: deque[tuple[Callable[[], list[Do[M]]], LoopEvent]] = deque()
        """decisions that the judge has yet to make, and who waits for each"""
        self._is_released = False
        self._news = Wakeup(self._new_event)
        self._first = self._new_event()
        self._next_boot: int | None = None
        self._readings: dict[str, Callable[[], None]] = {}
        """client id → what ends the reading of its connection"""
        self._heard_from = set[str]()
        """the client ids whose connection brought a message"""
        self._receipt = prepared.instance.receipt()
        self._new_receipt = Wakeup(self._new_event)
        self._at_brokers: dict[str, PublishReceipt] = {}
        """client id → the receipt that its broker acknowledged last"""
        self._acknowledged = Wakeup(self._new_event)
        self._new_root = Wakeup(self._new_event)
        instance = prepared.instance
        self._schema_offer = SchemaOffer(instance.service, instance.schema, self._sleep)
        self._leaves = False

    # ── what an event loop does ────────────────────────────────────────────────────────────────

    @abstractmethod
    def _now(self) -> float:
        """Monotonic seconds, by the loop's own clock."""

    @abstractmethod
    def _new_event(self) -> LoopEvent: ...

    @abstractmethod
    def _new_lock(self) -> AbstractAsyncContextManager[Any]: ...

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    @abstractmethod
    async def _until(self, time: float, wait: Callable[[], Awaitable[None]]) -> None:
        """Await it, and cancel it at that time."""

    @abstractmethod
    def _start_call(self, change: Change[M]) -> None:
        """Start `_call` in a task of its own."""

    @abstractmethod
    def _ends_the_call(self, error: BaseException) -> bool:
        """Whether an exception out of a callback is no answer of it, but ends its task."""

    @abstractmethod
    def _stop_the_service(self, error: ConfigurationStale) -> None:
        """The block that the service runs in ends, and raises this."""

    @abstractmethod
    async def _converse(self, address: BrokerAddress, client_id: str, gone: PublishReceipt) -> None:
        """Connect, and read until the connection breaks (BrokerUnavailable) or its reading is ended.
        gone: the broker's to say if the connection breaks without a word."""

    # ── decisions ──────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Run what was kept. Call this before anything else."""
        if (broken := self._prepared.broken) is not None:
            say(logging.ERROR, "kept file broken", service=self._instance.service, detail=broken)
        await self._perform(lambda: self._instance.start(self._now()), patient=False)

    async def wait_until_open(self) -> None:
        """Wait until the service may run. On the first start ever, that is when something is delivered, or known not to
        be there. Raises NothingDelivered."""
        if self._instance.source == "defaults":
            until = self._now() + self._prepared.options.wait_s
            await self._until(until, self._wait_for_first)
            self._prepared.check_required()
        self._instance.opened()

    async def _wait_for_first(self) -> None:
        await self._first.wait()
        if self._instance.source == "defaults":  # not there; or the snapshot is a second old
            await self._sleep(ABSENT_GRACE_S)
        async with self._turn:
            pass  # what came meanwhile may still be on its way to the disk, before it is current

    async def end(self) -> None:
        """Say that the service leaves on purpose, on disk and to the brokers. The brokers hear it even if the disk
        is full or hangs."""
        todo = self._instance.end()
        for do in todo:
            if isinstance(do, PublishReceipt):
                self._show(do)
        self._leaves = True
        await self._perform(lambda: [do for do in todo if isinstance(do, Keep)], patient=False)
        while any(there is not self._receipt for there in self._at_brokers.values()):
            await self._acknowledged.wait()

    async def judge(self) -> NoReturn:
        """Decide on everything that happens, one after the other, and on what time brings."""
        next_tick = self._now()
        while True:
            wakes_at = min(next_tick, self._instance.due or next_tick)
            await self._until(wakes_at, self._wait_for_news)
            now = self._now()
            # outside the wait, which may be cancelled: what was decided is done to its end
            if self._is_released:
                self._is_released = False
                await self._step(lambda: self._instance.retry(self._now()))
            elif self._asked:
                decide, is_done = self._asked.popleft()
                await self._step(decide)
                is_done.set()
            if now >= wakes_at:  # also if messages never pause: time must not depend on them
                await self._step(lambda: self._instance.tick(self._now(), self._world.clock.now()))
                await self._keep_what_waits()
                await self._count_as_newest()
                next_tick = now + _TICK_S

    async def _wait_for_news(self) -> None:
        while not (self._asked or self._is_released):
            await self._news.wait()

    def retry_soon(self) -> None:
        """Apply what waited, now that nobody holds the configuration any more."""
        self._is_released = True
        self._news.wake()

    async def _judged(self, decide: Callable[[], list[Do[M]]]) -> None:
        """Let the judge decide, and wait until that is done. Cancelled, it is done all the same."""
        await self._ask(decide).wait()

    def _ask(self, decide: Callable[[], list[Do[M]]]) -> LoopEvent:
        """Let the judge decide when its turn comes. What is given back is set once that is done."""
        is_done = self._new_event()
        self._asked.append((decide, is_done))
        self._news.wake()
        return is_done

    async def _step(self, decide: Callable[[], list[Do[M]]]) -> None:
        await self._perform(decide)
        if self._instance.source == "broker" or self._instance.nothing_to_wait_for:
            self._first.set()

    async def _perform(self, decide: Callable[[], list[Do[M]]], *, patient: bool = True) -> None:
        """One decision and what follows from it, before the next: receipts are numbered as they are made.
        patient: wait until the disk takes it; a start must not wait for that."""
        async with self._turn:
            is_late = False  # other receipts were shown meanwhile: one in hand has to be made anew
            for do in decide():
                match do:
                    case Keep() | KeepRoot():
                        written = await self._write(do, patient=patient)
                        if patient and not written.is_done:
                            return  # the service leaves, and what follows needs it
                        is_late |= written.was_delayed
                        if isinstance(do, KeepRoot):
                            self._new_root.wake()
                    case Call(change):
                        self._start_call(change)
                    case Swap(effective, change):
                        self._listener.swap(effective.values, change)
                    case Tell(event):
                        say_event(self._instance.service, event)
                        self._listener.tell(event)
                    case PublishReceipt():
                        self._show(self._instance.receipt() if is_late else do)
                    case TooStale(reason, policy):
                        self._too_stale(reason, policy)

    def _too_stale(self, reason: str, policy: str) -> None:
        level = logging.INFO if policy == "report" else logging.WARNING
        service = self._instance.service
        say(level, "too stale", service=service, reason=reason)
        if policy == "stop":
            detail = f"{service}: stale ({reason}) for longer than max_stale_s allows"
            self._stop_the_service(ConfigurationStale(detail))

    async def _call(self, change: Change[M]) -> None:
        """Ask the service's callback, and hand in its answer."""
        assert self._apply is not None
        error: BaseException | None = None
        try:
            answer = self._apply(change)
            if inspect.isawaitable(answer):
                await answer
            else:
                check_answer(answer, "apply")
        except BaseException as raised:
            if self._ends_the_call(raised):
                raise
            error = raised
        await self._judged(lambda: self._instance.called(error, self._now()))

    # ── the disk ───────────────────────────────────────────────────────────────────────────────

    async def _write(self, do: Keep | KeepRoot, *, patient: bool) -> KeepOutcome:
        """Make it durable, before it is applied: a full disk delays a change and never loses a mark."""
        prepared, kept = self._prepared, do.kept if isinstance(do, Keep) else None
        write = (
            partial(prepared.cache.keep, do.kept)
            if isinstance(do, Keep)
            else partial(prepared.keep_root, do.link)
        )
        has_said, began_at = False, self._now()
        while (error := (await run_in(self._disk, write)).error) is not None:
            if not isinstance(error, OSError):
                raise error
            self._once_a_minute.cannot_keep(error, self._now())
            if not patient or self._leaves:
                break
            if kept is not None and not has_said:
                self._show(self._instance.cannot_keep(kept, error, self._receipt.document))
                has_said = True
            await self._sleep(_KEEP_RETRY_S)
        if has_said:
            self._instance.was_delayed(self._now() - began_at)
        return KeepOutcome(error is None, has_said)

    async def _keep_what_waits(self) -> None:
        """The process that wrote the file may have ended."""
        async with self._turn:
            if (kept := self._prepared.cache.unwritten) is not None:
                await self._write(Keep(kept), patient=False)

    async def _count_as_newest(self) -> None:
        """Take a new number if another process has started since. The disk is asked if it is idle, and is not
        waited for, because it may hang."""
        number, self._next_boot = self._next_boot, None
        if number is not None:
            await self._step(lambda: self._instance.starts_anew(number))
            for end_reading in self._readings.values():  # its will is of the number before
                end_reading()
        elif self._disk.is_idle:
            self._disk.submit(self._prepared.boots.take_next_if_overtaken, self._note_boot)

    def _note_boot(self, result: Result) -> None:
        self._next_boot = result.value

    # ── brokers ────────────────────────────────────────────────────────────────────────────────

    async def stay_connected(self, address: BrokerAddress, client_id: str) -> NoReturn:
        failures = 0
        while True:
            self._heard_from.discard(client_id)
            try:
                await self._converse(address, client_id, self._instance.receipt(gone=True))
            except BrokerUnavailable as error:
                say(logging.WARNING, "broker unavailable", broker=str(address), error=str(error))
            finally:
                self._readings.pop(client_id, None)
            await self._judged(lambda: self._instance.disconnected(self._now()))
            # a broker that drops the client at once counts as broken
            failures = 0 if client_id in self._heard_from else failures + 1
            pause = backoff_s(failures, first_s=_BACKOFF_S, longest_s=_BACKOFF_LIMIT_S)
            await self._sleep(pause * self._world.randomness.fraction())

    async def _begin(
        self, address: BrokerAddress, subscribe: Callable[..., Awaitable[object]]
    ) -> set[str]:
        """What comes first on a new connection. Returns what was subscribed to."""
        filters = self._instance.filters
        await subscribe(*filters)
        say(logging.INFO, "connected", broker=str(address))
        # made afresh: the last will that this broker may hold has a higher number
        await self._step(lambda: [self._instance.receipt()])
        return set(filters)

    async def _subscribe_on(
        self, subscribe: Callable[..., Awaitable[object]], subscribed: set[str]
    ) -> NoReturn:
        """What a newer root adds to the filters."""
        while True:
            if more := [name for name in self._instance.filters if name not in subscribed]:
                subscribed.update(more)
                await subscribe(*more)
            else:
                await self._new_root.wait()

    async def _arrived(self, client_id: str, topic: str, payload: bytes) -> None:
        self._heard_from.add(client_id)
        if self._schema_offer.takes(client_id, topic, payload):
            return
        clock = self._world.clock
        is_done = self._ask(
            lambda: self._instance.receive(topic, payload, clock.now(), self._now())
        )
        if len(self._asked) > _MOST_AHEAD:
            await is_done.wait()

    def _show(self, receipt: PublishReceipt) -> None:
        if self._leaves:  # the farewell is the last word
            return
        self._receipt = receipt
        self._new_receipt.wake()

    async def _send_receipts(
        self, publish: Callable[[str, bytes], Awaitable[None]], client_id: str
    ) -> NoReturn:
        """The newest receipt, whenever there is one that this broker has not got."""
        sent: PublishReceipt | None = None
        try:
            while True:
                if self._receipt is sent:
                    await self._new_receipt.wait()
                else:
                    receipt = self._receipt
                    self._at_brokers.setdefault(client_id, receipt)
                    await publish(receipt.topic, receipt.payload)
                    sent = self._at_brokers[client_id] = receipt
                    self._acknowledged.wake()
        finally:
            self._at_brokers.pop(client_id, None)
            self._acknowledged.wake()
