"""The kernel: every ask ends, whoever crashes, leaves or stops."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
import trio
from outcome import Outcome, Value
from trio.testing import MockClock, wait_all_tasks_blocked

from config_manager.actors.actor import (
    Actor,
    ActorCrashed,
    ActorStarted,
    ActorStates,
    ActorStopped,
    BatchHandler,
    Context,
    Full,
    Gone,
    Handler,
    Life,
    Request,
    RestartLimit,
    RestartPolicy,
    SupervisorEvent,
    follower,
    idle,
)
from config_manager.config.errors import NotFound


@dataclass(frozen=True)
class Add(Request[int]):
    n: int


@dataclass(frozen=True)
class Boom(Request[None]): ...


@dataclass(frozen=True)
class Sleep(Request[str]):
    seconds: float


@dataclass(frozen=True)
class Refuse(Request[None]): ...


@dataclass(frozen=True)
class WhoAmI(Request[dict[str, Any]]): ...


class Diary(list[str]):
    """What happened, in order."""

    def counter(self, name: str = "c", *, fails_at_start: bool = False) -> Life:
        """A life that counts from 0, and writes what it does."""

        @asynccontextmanager
        async def life() -> AsyncIterator[Handler]:
            if fails_at_start:
                raise OSError("no disk")
            total = 0
            self.append(f"{name} up")

            async def handle(request: Any, _: Context) -> Any:
                nonlocal total
                match request:
                    case Add(n):
                        total += n
                        self.append(f"{name} add {n}")
                        return total
                    case Boom():
                        raise ZeroDivisionError("bug")
                    case Sleep(seconds):
                        self.append(f"{name} sleep")
                        await trio.sleep(seconds)
                        self.append(f"{name} slept")
                        return "ok"
                    case Refuse():
                        raise NotFound("no")
                    case WhoAmI():
                        return structlog.contextvars.get_contextvars()

            try:
                yield handle
            finally:
                self.append(f"{name} down")

        return life


@pytest.fixture
def diary() -> Diary:
    return Diary()


def within(seconds: float = math.inf, correlation_id: str = "id-1") -> Context:
    return Context(correlation_id, trio.current_time() + seconds)


# ── answers ────────────────────────────────────────────────────────────────────────────────────


async def test_a_reply_comes_back_and_the_id_is_bound_while_it_is_made(
    diary: Diary, autojump_clock: MockClock
) -> None:
    async with Actor("c", diary.counter()).running() as actor:
        assert await actor.ask(Add(2), within()) == 2
        assert await actor.ask(Add(3), within()) == 5
        bound = await actor.ask(WhoAmI(), within(correlation_id="xyz"))
        assert (bound["actor"], bound["correlation_id"], bound["request_id"]) == ("c", "xyz", "xyz")
    assert structlog.contextvars.get_contextvars() == {}
    assert diary[-1] == "c down"
    with pytest.raises(Gone):
        await actor.ask(Add(1), within())


async def test_a_refusal_is_an_answer_and_no_crash(diary: Diary, autojump_clock: MockClock) -> None:
    async with Actor("c", diary.counter()).running() as actor:
        await actor.ask(Add(1), within())
        with pytest.raises(NotFound):
            await actor.ask(Refuse(), within())
        assert await actor.ask(Add(1), within()) == 2
    assert diary.count("c up") == 1


async def test_a_crash_costs_one_caller_and_keeps_the_queue(
    diary: Diary, autojump_clock: MockClock
) -> None:
    got: list[object] = []
    async with Actor("c", diary.counter()).running() as actor:
        await actor.ask(Add(41), within())

        async def boom() -> None:
            with pytest.raises(Gone, match="Boom"):
                await actor.ask(Boom(), within())
            got.append("gone")

        async def add() -> None:
            total = await actor.ask(Add(1), within())
            got.append(total)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.ask, Sleep(1), within())
            await wait_all_tasks_blocked()
            nursery.start_soon(boom)
            await wait_all_tasks_blocked()
            nursery.start_soon(add)
    assert got == ["gone", 1]  # fresh state; the mail that waited was answered
    assert diary.count("c up") == 2


# ── callers who leave, deadlines, pressure ─────────────────────────────────────────────────────


async def test_cancelled_while_queued_never_runs(diary: Diary, autojump_clock: MockClock) -> None:
    async with Actor("c", diary.counter()).running() as actor, trio.open_nursery() as nursery:
        nursery.start_soon(actor.ask, Sleep(5), within())
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await actor.ask(Add(1), within())
    assert "c add 1" not in diary


async def test_cancelled_in_the_middle_the_work_still_finishes(
    diary: Diary, autojump_clock: MockClock
) -> None:
    async with Actor("c", diary.counter()).running() as actor:
        with trio.move_on_after(1):
            await actor.ask(Sleep(5), within())
        assert await actor.ask(Add(1), within()) == 1
    assert "c slept" in diary
    assert diary.count("c up") == 1


async def test_the_deadline_reaches_the_handler(diary: Diary, autojump_clock: MockClock) -> None:
    async with Actor("c", diary.counter()).running() as actor:
        with pytest.raises(trio.TooSlowError):
            await actor.ask(Sleep(5), within(1))
        now = trio.current_time()
        assert await actor.ask(Add(1), within()) == 1
        assert trio.current_time() == now  # it was not still sleeping
    assert "c slept" not in diary


async def test_a_full_mailbox_says_that_nothing_happened(
    diary: Diary, autojump_clock: MockClock
) -> None:
    async with (
        Actor("c", diary.counter(), RestartPolicy(mailbox=1)).running() as actor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(actor.ask, Sleep(5), within())
        await wait_all_tasks_blocked()
        nursery.start_soon(actor.ask, Add(1), within())
        await wait_all_tasks_blocked()
        with pytest.raises(Full, match="no room for Add"):
            await actor.ask(Add(7), within(1))
    assert "c add 7" not in diary


# ── restarts ───────────────────────────────────────────────────────────────────────────────────


async def test_the_restart_limit_goes_upstairs_and_leaves_nobody_waiting(
    diary: Diary, autojump_clock: MockClock
) -> None:
    gone = 0

    async def boom(actor: Actor) -> None:
        nonlocal gone
        with pytest.raises(Gone):
            await actor.ask(Boom(), within())
        gone += 1

    with pytest.raises(BaseExceptionGroup) as caught:
        async with Actor(
            "c", diary.counter(), RestartPolicy(restarts=2, backoff=1)
        ).running() as actor:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(boom, actor)
                await trio.sleep_forever()
    limit, other = caught.value.split(RestartLimit)
    assert limit is not None
    assert other is None
    assert diary.count("c up") == 3


async def test_crashes_outside_the_window_are_forgiven(
    diary: Diary, autojump_clock: MockClock
) -> None:
    policy = RestartPolicy(restarts=1, window=10, backoff=0.1)
    async with Actor("c", diary.counter(), policy).running() as actor:
        for _ in range(5):
            with pytest.raises(Gone):
                await actor.ask(Boom(), within())
            await trio.sleep(11)
    assert diary.count("c up") == 6


async def test_pauses_double_up_to_their_limit_with_jitter(
    diary: Diary, autojump_clock: MockClock
) -> None:
    pauses: list[float | None] = []

    def on_event(event: SupervisorEvent) -> None:
        if isinstance(event, ActorCrashed):
            pauses.append(event.restart_in_s)

    policy = RestartPolicy(restarts=5, backoff=1, backoff_limit=3)
    actor = Actor("c", diary.counter(), policy, on_event=on_event, jitter=lambda: 0.5)
    async with actor.running():
        for _ in range(4):
            with pytest.raises(Gone):
                await actor.ask(Boom(), within())
    assert pauses == [0.5, 1.0, 1.5, 1.5]


async def test_a_failure_at_first_start_belongs_to_who_starts_it(autojump_clock: MockClock) -> None:
    diary = Diary()
    with pytest.raises((OSError, ExceptionGroup)) as caught:
        async with Actor("c", diary.counter(fails_at_start=True)).running():
            raise AssertionError("the body must not run")
    error = caught.value
    if isinstance(error, ExceptionGroup):
        assert error.subgroup(OSError) is not None


async def test_a_planted_crash_is_a_crash_like_any_other(
    diary: Diary, autojump_clock: MockClock
) -> None:
    async with Actor("c", diary.counter()).running() as actor, trio.open_nursery() as nursery:

        async def asks() -> None:
            with pytest.raises(Gone):
                await actor.ask(Sleep(100), within())

        nursery.start_soon(asks)
        await wait_all_tasks_blocked()
        actor.crash(RuntimeError("drill"))
        assert await actor.ask(Add(1), within()) == 1
    assert diary.count("c up") == 2


# ── order and shutdown ─────────────────────────────────────────────────────────────────────────


async def test_the_inner_one_drains_before_the_outer_one_stops(
    diary: Diary, autojump_clock: MockClock
) -> None:
    async with (
        Actor("store", diary.counter("store")).running() as store,
        Actor("pub", diary.counter("pub")).running() as pub,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pub.ask, Sleep(1), within())
        await wait_all_tasks_blocked()
        nursery.start_soon(store.ask, Add(1), within())
    assert diary == [
        *("store up", "pub up", "pub sleep", "store add 1"),
        *("pub slept", "pub down", "store down"),
    ]


async def test_cancelling_the_whole_tree_is_ordered_and_bounded(
    diary: Diary, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    with trio.move_on_after(1):
        async with (
            Actor("store", diary.counter("store"), RestartPolicy(grace=2)).running(),
            Actor("pub", diary.counter("pub"), RestartPolicy(grace=2)).running() as pub,
        ):
            try:
                await pub.ask(Sleep(100), within())
            finally:
                diary.append("body out")
    assert diary == ["store up", "pub up", "pub sleep", "body out", "pub down", "store down"]
    assert trio.current_time() - began == 3


async def test_who_does_not_stop_in_time_is_named_and_its_callers_are_told(
    diary: Diary, autojump_clock: MockClock
) -> None:
    events: list[SupervisorEvent] = []
    told: list[str] = []
    actor = Actor("slow", diary.counter(), RestartPolicy(grace=1), on_event=events.append)

    async def caller(request: Request[Any]) -> None:
        try:
            await actor.ask(request, within())
        except Gone:
            told.append(type(request).__name__)

    async with trio.open_nursery() as nursery:
        async with actor.running():
            nursery.start_soon(caller, Sleep(100))
            await wait_all_tasks_blocked()
            nursery.start_soon(caller, Add(1))
            await wait_all_tasks_blocked()
    assert sorted(told) == ["Add", "Sleep"]
    assert events == [ActorStarted("slow"), ActorStopped("slow", overdue=True)]
    assert actor.state == "stopped"


async def test_the_outer_ones_end_takes_the_inner_one_with_it(
    diary: Diary, autojump_clock: MockClock
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with (
            Actor("store", diary.counter("store"), RestartPolicy(restarts=0)).running() as store,
            Actor("pub", diary.counter("pub")).running(),
            trio.open_nursery() as nursery,
        ):

            async def boom() -> None:
                with pytest.raises(Gone):
                    await store.ask(Boom(), within())

            nursery.start_soon(boom)
            await trio.sleep_forever()
    assert caught.value.split(RestartLimit)[1] is None
    assert sorted(diary[2:]) == ["pub down", "store down"]


async def test_a_crash_is_logged_with_the_request_that_it_had_in_hand(
    diary: Diary, autojump_clock: MockClock
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with Actor("c", diary.counter()).running() as actor:
            with pytest.raises(Gone):
                await actor.ask(Boom(), within(correlation_id="id-7"))
            await trio.sleep(1)
    (entry,) = [one for one in logs if one["event"] == "actor crashed"]
    assert entry["log_level"] == "error"
    notes = entry["exc_info"].__notes__
    assert any("Boom" in note and "id-7" in note for note in notes)


async def test_states_are_there_for_health_to_read(diary: Diary, autojump_clock: MockClock) -> None:
    actor = Actor("c", diary.counter(), RestartPolicy(backoff=1))
    states = ActorStates([actor])
    assert states.report() == {"c": "starting"}
    async with actor.running():
        assert states.report() == {"c": "running"}
        with pytest.raises(Gone):
            await actor.ask(Boom(), within())
        await wait_all_tasks_blocked()
        assert states.report() == {"c": "restarting"}
    assert states.report() == {"c": "stopped"}


# ── batches ────────────────────────────────────────────────────────────────────────────────────


async def test_what_waits_together_is_handled_together_and_answered_one_by_one(
    autojump_clock: MockClock,
) -> None:
    sizes: list[int] = []

    @asynccontextmanager
    async def life() -> AsyncIterator[BatchHandler]:
        async def handle(jobs: Sequence[tuple[Any, Context]]) -> Sequence[Outcome[Any]]:
            sizes.append(len(jobs))
            await trio.sleep(1)
            return [Value(request.n * 2) for request, _ in jobs]

        yield handle

    answers: dict[int, int] = {}

    async def ask(actor: Actor, n: int) -> None:
        answers[n] = await actor.ask(Add(n), within())

    async with Actor.batching("b", life).running() as actor, trio.open_nursery() as nursery:
        nursery.start_soon(ask, actor, 0)
        await wait_all_tasks_blocked()
        for n in range(1, 10):
            nursery.start_soon(ask, actor, n)
        with trio.move_on_after(0.5):
            await actor.ask(Add(99), within())  # leaves while it waits: never handled
    assert answers == {n: 2 * n for n in range(10)}
    assert sizes == [1, 9]


async def test_a_crash_in_a_batch_costs_that_batch_only(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def life() -> AsyncIterator[BatchHandler]:
        async def handle(jobs: Sequence[tuple[Any, Context]]) -> Sequence[Outcome[Any]]:
            if any(isinstance(request, Boom) for request, _ in jobs):
                raise ZeroDivisionError("bug")
            return [Value(request.n) for request, _ in jobs]

        yield handle

    async with Actor.batching("b", life).running() as actor:
        with pytest.raises(Gone):
            await actor.ask(Boom(), within())
        assert await actor.ask(Add(5), within()) == 5


# ── small things ───────────────────────────────────────────────────────────────────────────────


async def test_asking_who_is_asked_nothing_is_a_bug() -> None:
    with pytest.raises(TypeError, match="Add"):
        await idle(Add(1), Context("x"))


@pytest.mark.parametrize("crashes", [False, True])
async def test_what_is_done_at_the_end_waits_for_work_that_takes_no_cancellation(
    diary: Diary, autojump_clock: MockClock, crashes: bool
) -> None:
    """Such as a write in a thread: a second one beside it would damage the file."""

    async def work() -> None:
        with trio.CancelScope(shield=True):
            diary.append("work")
            await trio.sleep(1)
            diary.append("worked")

    async def at_end() -> None:
        diary.append("end")
        await trio.sleep(0.5)
        diary.append("ended")

    async with Actor("f", follower(work, at_end=at_end)).running() as actor:
        await wait_all_tasks_blocked()
        if crashes:
            actor.crash(RuntimeError("drill"))
            await trio.sleep(2)
    once = ["work", "worked", "end", "ended"]
    assert diary == once * (2 if crashes else 1)
