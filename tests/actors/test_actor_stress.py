"""Every ask ends, in any order of crashes, refusals, cancellations, restarts and shutdowns."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
import trio
from trio.testing import MockClock

from config_manager.actors.actor import (
    Actor,
    Context,
    Full,
    Gone,
    Handler,
    Request,
    RestartLimit,
    RestartPolicy,
)
from config_manager.config.errors import NotFound

CALLERS = 30
SEEDS = 120


@dataclass(frozen=True)
class Job(Request[int]):
    kind: str
    seconds: float


async def one_world(seed: int) -> Counter[str]:
    luck = random.Random(seed)
    ends: Counter[str] = Counter()
    issued = 0

    @asynccontextmanager
    async def life() -> AsyncIterator[Handler]:
        if issued and luck.random() < 0.1:
            raise OSError("could not be opened again")

        async def handle(request: Any, _: Context) -> int:
            await trio.sleep(request.seconds)
            match request.kind:
                case "boom":
                    raise ValueError
                case "group":
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(trio.sleep, 0.5)
                        raise KeyError("in a nursery")
                case "refuse":
                    raise NotFound("no")
            return 1

        yield handle

    policy = RestartPolicy(
        mailbox=luck.choice([0, 1, 4]),
        restarts=luck.choice([2, 5, 50]),
        window=5,
        backoff=0.01,
        grace=luck.choice([0, 0.5, 3]),
    )
    actor = Actor("a", life, policy, on_event=lambda _: None)

    async def caller() -> None:
        nonlocal issued
        await trio.sleep(luck.random() * 3)
        issued += 1
        kind = luck.choices(["ok", "boom", "group", "refuse"], [8, 1, 1, 2])[0]
        job = Job(kind, luck.random() * 0.3)
        deadline = trio.current_time() + luck.choice([0.2, 1, 200])
        end = "cancelled"
        with trio.move_on_after(luck.choice([0.1, 0.5, 100])):
            try:
                await actor.ask(job, Context("c", deadline))
                end = "answered"
            except (Gone, Full, NotFound, trio.TooSlowError) as error:
                end = type(error).__name__
        ends[end] += 1

    async with trio.open_nursery() as outside:
        for _ in range(CALLERS):
            outside.start_soon(caller)
        await trio.sleep(0.01)
        try:
            with trio.move_on_after(luck.choice([1, 2, 10])):
                async with actor.running():
                    await trio.sleep(luck.choice([1.5, 4, 20]))
        except* (RestartLimit, OSError):
            pass
    assert sum(ends.values()) == issued == CALLERS, (seed, ends)
    return ends


def test_thousands_of_random_asks_all_end() -> None:
    structlog.reset_defaults()
    ends: Counter[str] = Counter()
    for seed in range(SEEDS):
        ends += trio.run(one_world, seed, clock=MockClock(autojump_threshold=0))
    assert sum(ends.values()) == SEEDS * CALLERS
    # each way out was met, so that the worlds are not all alike
    assert set(ends) >= {"answered", "Gone", "NotFound", "TooSlowError", "cancelled", "Full"}
