"""The kernel: one task, one bounded mailbox, one life after another.

A crash costs a caller an error, never a hang. Every `ask` ends in a value, a `Refusal` (understood and
turned down; the actor lives on), `Gone` (crashed or stopping: the outcome is unknown), `Full` (never
delivered: nothing happened) or `trio.TooSlowError` (delivered, not answered in time).

An actor may hold only actors that started before it, so asks form a DAG and can't deadlock. News travel
upwards in views that others follow (`actors.views`).
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar

import structlog
import trio
from outcome import Error, Outcome, Value

from config_manager.config.errors import Refusal
from config_manager.config.world import backoff_s

R = TypeVar("R")


class Gone(Exception):
    """The actor stopped or crashed before it answered: the effect is unknown."""


class Full(Exception):
    """The mailbox stayed full until the deadline: nothing was delivered, nothing happened."""


class RestartLimit(Exception):
    """Too many crashes within the window: the failure goes upstairs and ends the process."""

    def __init__(self, actor: str, crashes: int) -> None:
        super().__init__(f"{actor} crashed {crashes} times within its window")
        self.actor = actor
        self.crashes = crashes


class Request(Generic[R]):
    """Base of every message; R is the type of its reply."""

    __slots__ = ()


class Context(NamedTuple):
    """What travels with a request. deadline: absolute, in seconds on Trio's clock. asked: when it came (Unix
    seconds); traceparent: the caller's place in a trace (W3C Trace Context); None for what nobody asked."""

    correlation_id: str
    deadline: float = math.inf
    asked: float | None = None
    traceparent: str | None = None


class Mail(NamedTuple):
    """A request in the mailbox, with the one-slot channel that its sender waits on."""

    request: Request[Any]
    context: Context
    reply: trio.MemorySendChannel[Outcome[Any]]

    @property
    def abandoned(self) -> bool:
        """Whether the sender has stopped waiting; then the request is skipped."""
        return self.reply.statistics().open_receive_channels == 0

    def answer(self, outcome: Outcome[Any]) -> None:
        with suppress(trio.BrokenResourceError):  # the sender left meanwhile
            self.reply.send_nowait(outcome)


Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
BatchHandler: TypeAlias = Callable[
    [Sequence[tuple[Any, Context]]], Awaitable[Sequence[Outcome[Any]]]
]
Life: TypeAlias = Callable[[], AbstractAsyncContextManager[Handler]]
BatchLife: TypeAlias = Callable[[], AbstractAsyncContextManager[BatchHandler]]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How an actor is treated. Times in seconds.

    mailbox: requests that may wait. restarts: crashes forgiven within `window`. backoff: before the
    first restart, doubled for each further one within the window, up to `backoff_limit`, with full
    jitter. grace: what draining may take when the actor is stopped.
    """

    mailbox: int = 64
    restarts: int = 5
    window: float = 60.0
    backoff: float = 0.05
    backoff_limit: float = 2.0
    grace: float = 2.0


State: TypeAlias = Literal["starting", "running", "restarting", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class ActorStarted:
    actor: str


@dataclass(frozen=True, slots=True)
class ActorCrashed:
    """crashes: within the window, this one included. restart_in_s: None if the limit is passed."""

    actor: str
    error: Exception
    crashes: int
    restart_in_s: float | None


@dataclass(frozen=True, slots=True)
class ActorStopped:
    """overdue: it did not stop within its grace and was cancelled."""

    actor: str
    overdue: bool


SupervisorEvent: TypeAlias = ActorStarted | ActorCrashed | ActorStopped


class EventHook(Protocol):
    def __call__(self, event: SupervisorEvent, /) -> None: ...


def log_event(event: SupervisorEvent) -> None:
    """The default hook: one log line per event."""
    log = structlog.get_logger()
    match event:
        case ActorStarted(actor):
            log.debug("actor started", actor=actor)
        case ActorCrashed(actor, error, crashes, restart_in_s):
            log.error(
                "actor crashed",
                actor=actor,
                error=type(error).__name__,
                crashes=crashes,
                restart_in_s=restart_in_s,
                exc_info=error,
            )
        case ActorStopped(actor, overdue):
            if overdue:
                log.error("actor did not stop in time", actor=actor)
            else:
                log.debug("actor stopped", actor=actor)


class Actor:
    """A name, a bounded mailbox that outlives crashes, and lives run one after another."""

    _run_life: Callable[[], Awaitable[None]]

    def __init__(
        self,
        name: str,
        life: Life,
        policy: RestartPolicy = RestartPolicy(),
        *,
        on_event: EventHook = log_event,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.name = name
        self.state: State = "starting"
        self.waiting = 0
        """requests that wait to be handled"""
        self.most_waiting = 0
        self.restarts = 0
        self._run_life = lambda: self._one_by_one(life)
        self._policy = policy
        self._on_event = on_event
        self._jitter = jitter
        self._inbox, self._mail = trio.open_memory_channel[Mail](policy.mailbox)
        self._current_life = trio.CancelScope()
        self._planted: Exception | None = None
        self._started: Callable[[], None] | None = None

    @classmethod
    def batching(
        cls,
        name: str,
        life: BatchLife,
        policy: RestartPolicy = RestartPolicy(),
        *,
        on_event: EventHook = log_event,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> Actor:
        """An actor whose handler takes all waiting requests at once, and answers each."""
        actor = cls(name, answering(idle), policy, on_event=on_event, jitter=jitter)
        actor._run_life = lambda: actor._in_batches(life)
        return actor

    async def ask(self, request: Request[R], context: Context) -> R:
        """Send and wait. Raises Refusal, Gone, Full, or TooSlowError at the context's deadline."""
        answer, waiter = trio.open_memory_channel[Outcome[R]](1)
        delivered = False
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        with waiter:  # closed when we leave early: the request is abandoned then
            try:
                with trio.fail_at(context.deadline):
                    await self._inbox.send(Mail(request, context, answer))
                    delivered = True
                    outcome = await waiter.receive()
            except (trio.ClosedResourceError, trio.BrokenResourceError, trio.EndOfChannel):
                answer.close()
                raise Gone(f"{self.name} went away before answering {_name(request)}") from None
            except trio.TooSlowError:
                if delivered:
                    raise
                answer.close()
                raise Full(f"{self.name} has no room for {_name(request)}") from None
            finally:
                if not delivered:
                    self.waiting -= 1
        return outcome.unwrap()

    def crash(self, error: Exception) -> None:
        """End the current life with `error`, as a bug in it would: for tests."""
        self._planted = error
        self._current_life.cancel()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Actor]:
        """Start; raises what the first life raises before it is up. Leaving drains and stops it. If crashes
        pass the limit, RestartLimit is raised in the body, in an exception group."""
        async with trio.open_nursery() as nursery:
            scope: trio.CancelScope = await nursery.start(self._supervise)
            scope.shield = True  # the body is always cancelled before the actor that it relies on
            try:
                yield self
            finally:
                if self.state != "stopped":
                    self.state = "stopping"
                self._inbox.close()  # refuse new mail, answer what is queued, within `grace`
                scope.deadline = trio.current_time() + self._policy.grace

    async def _supervise(
        self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
    ) -> None:
        structlog.contextvars.bind_contextvars(actor=self.name)
        crashes: list[float] = []
        started = False
        scope = trio.CancelScope()

        def on_started() -> None:
            nonlocal started
            self.state = "running"
            self._on_event(ActorStarted(self.name))
            if not started:
                started = True
                task_status.started(scope)

        self._started = on_started
        try:
            with scope:
                while True:
                    try:
                        await self._live()
                        return
                    except Exception as crash:
                        if not started:
                            raise  # a failure at the first start is raised by `running`
                        await self._back_off(crash, crashes)
        finally:
            self.state = "stopped"
            with self._mail, suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:  # closing a channel drops what it holds, so tell every queued caller
                    self._mail.receive_nowait().reply.close()
                    self.waiting -= 1
            if started:
                self._on_event(ActorStopped(self.name, overdue=scope.cancelled_caught))

    async def _back_off(self, crash: Exception, crashes: list[float]) -> None:
        policy, now = self._policy, trio.current_time()
        crashes[:] = [t for t in crashes if t > now - policy.window] + [now]
        if len(crashes) > policy.restarts:
            self._on_event(ActorCrashed(self.name, crash, len(crashes), None))
            raise RestartLimit(self.name, len(crashes)) from crash
        pause = backoff_s(len(crashes) - 1, first_s=policy.backoff, longest_s=policy.backoff_limit)
        pause *= self._jitter()
        self.state = "restarting"
        self.restarts += 1
        self._on_event(ActorCrashed(self.name, crash, len(crashes), pause))
        await trio.sleep(pause)

    async def _live(self) -> None:
        """One life; returns when the mailbox is closed and drained."""
        self._planted = None
        with trio.CancelScope() as self._current_life:
            await self._run_life()
        if self._planted is not None:
            raise self._planted

    def _announce(self) -> None:
        assert self._started is not None
        self._started()

    async def _one_by_one(self, life: Life) -> None:
        async with life() as handle:
            self._announce()
            async for mail in self._mail:
                self.waiting -= 1
                with mail.reply:  # a reply closed unsent tells the caller Gone
                    if not mail.abandoned:
                        await self._handle_one(handle, mail)

    async def _handle_one(self, handle: Handler, mail: Mail) -> None:
        outcome: Outcome[Any]
        with (
            trio.CancelScope(deadline=mail.context.deadline),
            structlog.contextvars.bound_contextvars(
                correlation_id=mail.context.correlation_id,
                request_id=mail.context.correlation_id,
            ),
        ):
            try:
                outcome = Value(await handle(mail.request, mail.context))
            except Refusal as refusal:
                outcome = Error(refusal)
            except Exception as crash:
                crash.add_note(
                    f"{self.name} was handling {_name(mail.request)} of {mail.context.correlation_id}"
                )
                raise
            mail.answer(outcome)

    async def _in_batches(self, life: BatchLife) -> None:
        async with life() as handle:
            self._announce()
            async for first in self._mail:
                batch = [first]
                with suppress(trio.WouldBlock, trio.EndOfChannel):
                    while len(batch) < self._policy.mailbox:
                        batch.append(self._mail.receive_nowait())
                self.waiting -= len(batch)
                try:
                    wanted = [mail for mail in batch if not mail.abandoned]
                    if not wanted:
                        continue
                    outcomes = await handle([(mail.request, mail.context) for mail in wanted])
                    for mail, outcome in zip(wanted, outcomes, strict=True):
                        mail.answer(outcome)
                except Exception as crash:
                    names = ", ".join(sorted({_name(mail.request) for mail in batch}))
                    crash.add_note(f"{self.name} was handling {len(batch)} of {names}")
                    raise
                finally:
                    for mail in batch:
                        mail.reply.close()


async def idle(request: object, _context: Context) -> NoReturn:
    """The handler of an actor that takes no requests: it works on its own, or follows a view."""
    raise TypeError(f"this actor takes no requests, but {type(request).__name__} came")


def answering(handle: Handler) -> Life:
    """The life of an actor that only answers."""
    return lambda: nullcontext(handle)


def follower(
    work: Callable[[], Awaitable[None]],
    *,
    answers: Handler = idle,
    at_end: Callable[[], Awaitable[None]] | None = None,
    end_within_s: float = 1.0,
) -> Life:
    """The life of an actor that works by itself. work: runs for as long as the life lasts; an exception that
    it raises ends the life. answers: handles requests meanwhile. at_end: called once the work has stopped,
    cancelled or not; it has end_within_s."""

    @asynccontextmanager
    async def life() -> AsyncGenerator[Handler]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                try:
                    yield answers
                finally:
                    nursery.cancel_scope.cancel()
        finally:  # after the nursery: a thread that the work waits for takes no cancellation
            if at_end is not None:
                deadline = trio.current_time() + end_within_s
                with trio.CancelScope(shield=True, deadline=deadline):
                    await at_end()

    return life


@dataclass
class ActorStates:
    """What health reads: the state of every actor in the tree, in start order."""

    actors: list[Actor] = field(default_factory=list[Actor])

    def report(self) -> dict[str, State]:
        return {actor.name: actor.state for actor in self.actors}


def _name(request: Request[Any]) -> str:
    return type(request).__name__
