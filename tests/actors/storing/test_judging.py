"""Many who ask for the audit to be verified cost little more than one, and nobody gets an answer from before."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from config_manager.storage.decisions.vouching import Vouching
from tests.kit.asgi import Caller, running

VERIFY = "/api/v1/audit/verify"


class Held:
    """The first reading waits in its thread until `go` is set; `began` counts all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = 0
        self.has_read = Event()
        self.go = Event()
        judge = Vouching.judge

        def held(*args: Any, **more: Any) -> Any:
            self.began += 1
            found = judge(*args, **more)
            self.has_read.set()
            assert self.go.wait(20)
            return found

        monkeypatch.setattr(Vouching, "judge", held)


async def test_who_waits_while_one_begins_shares_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as system:
        caller, held = Caller(system), Held(monkeypatch)
        rows: list[int] = []

        async def verify() -> None:
            answer = await caller.ask("GET", VERIFY)
            assert answer.json["ok"] is True, answer.json
            rows.append(answer.json["rows"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(verify)
            await trio.to_thread.run_sync(held.has_read.wait)
            assert (await caller.ask("PUT", "/api/v1/config/a", {"x": 1})).status == 201
            for _ in range(9):
                nursery.start_soon(verify)
            await wait_all_tasks_blocked()
            held.go.set()
        assert held.began == 2
        first, *others = rows
        assert set(others) == {first + 1}, "an answer from before the write"


async def test_another_question_or_a_caller_that_leaves_takes_no_answer_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as system:
        caller, held = Caller(system), Held(monkeypatch)
        verdicts: list[bool] = []

        async def verify(target: str = VERIFY) -> None:
            verdicts.append((await caller.ask("GET", target)).json["ok"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(verify)
            await trio.to_thread.run_sync(held.has_read.wait)
            leaving = trio.CancelScope()

            async def leave() -> None:
                with leaving:
                    await verify()

            nursery.start_soon(leave)
            await wait_all_tasks_blocked()
            nursery.start_soon(verify, f"{VERIFY}?contains={'0' * 64}")
            nursery.start_soon(verify)
            await wait_all_tasks_blocked()
            leaving.cancel()
            held.go.set()
        assert sorted(verdicts) == [False, True, True]
