"""What callers leave behind is written together, at most once a minute, in bounded memory."""

from __future__ import annotations

import json
from typing import Any

import trio
from trio.testing import MockClock

from config_manager.actors.actor import Actor, RestartPolicy
from config_manager.actors.callers import Callers, NoteRefusals, RefusedCall, noting_callers
from config_manager.config.errors import ReadOnly
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.tokens import NoteTokenUses
from tests.kit.stores import START, empty, equipped


class Desk:
    """Takes what is to be written, or refuses it."""

    def __init__(self) -> None:
        self.written: list[tuple[float, str, Any]] = []
        self.refuses = False

    async def write(self, what: Decidable[None], by: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise ReadOnly("not now")
        self.written.append((trio.current_time(), by, what))

    @property
    def uses(self) -> list[tuple[float, Any]]:
        return [(at, w.uses) for at, _, w in self.written if isinstance(w, NoteTokenUses)]

    @property
    def refusals(self) -> list[tuple[str, Any]]:
        """Who, and the details as they are audited."""
        return [
            (by, json.loads(audit.body)["details"])
            for _, by, w in self.written
            if isinstance(w, NoteRefusals) and (audit := w.decide(empty(), equipped()).change.audit)
        ]


def refusal(by: str = "ci", call: str = "GET /x", **fields: Any) -> RefusedCall:
    return RefusedCall(by, fields.get("client"), call, fields.get("service"), "forbidden")


def noting(callers: Callers, desk: Desk) -> Any:
    return Actor("callers", noting_callers(callers, desk.write), RestartPolicy()).running()


async def test_a_use_is_written_once_a_minute_however_often_it_comes(
    autojump_clock: MockClock,
) -> None:
    callers, desk = Callers(), Desk()
    began = trio.current_time()
    async with noting(callers, desk):
        for second in range(150):
            callers.used("h", START + second)
            callers.used(f"other-{second % 2}", START + second)
            await trio.sleep(1)
        times = [round(at - began) for at, _ in desk.uses]
        assert times == [1, 61, 121]
        assert set(desk.uses[1][1]) == {"h", "other-0", "other-1"}
    assert len(desk.uses) == 4
    assert desk.uses[-1][1]["h"] == rfc3339(START + 149), "what stopping leaves behind is current"


async def test_who_is_idle_is_not_written_again(autojump_clock: MockClock) -> None:
    callers, desk = Callers(), Desk()
    async with noting(callers, desk):
        callers.used("a", START)
        await trio.sleep(100)
        callers.used("b", START + 100)
        await trio.sleep(1000)
    assert [set(uses) for _, uses in desk.uses] == [{"a"}, {"b"}]
    assert callers.uses == {"a": START, "b": START + 100}, "still known, for the list"


async def test_what_can_not_be_written_now_is_written_later(autojump_clock: MockClock) -> None:
    callers, desk = Callers(), Desk()
    async with noting(callers, desk):
        desk.refuses = True
        callers.used("a", START)
        callers.refused(refusal(), "r1")
        await trio.sleep(200)
        callers.refused(refusal(), "r2")
        desk.refuses = False
        await trio.sleep(120)
    assert [uses for _, uses in desk.uses] == [{"a": rfc3339(START)}]
    ((by, details),) = desk.refusals
    assert by == "ci"
    assert [(r["count"], r["request_id"]) for r in details["refusals"]] == [(2, "r2")]


async def test_each_caller_has_a_row_of_his_own_with_his_name(autojump_clock: MockClock) -> None:
    callers, desk = Callers(), Desk()
    async with noting(callers, desk):
        for _ in range(3):
            callers.refused(refusal("ci", "PUT /a", service="door"), "r1")
        callers.refused(refusal("anonymous", client="192.0.2.1"), "r2")
        callers.refused(refusal("ci", "GET /b"), "r3")
        await trio.sleep(2)
        assert desk.refusals == [
            (
                "ci",
                {
                    "refusals": [
                        {
                            "call": "PUT /a",
                            "service": "door",
                            "client": None,
                            "error": "forbidden",
                            "count": 3,
                            "request_id": "r1",
                        },
                        {
                            "call": "GET /b",
                            "service": None,
                            "client": None,
                            "error": "forbidden",
                            "count": 1,
                            "request_id": "r3",
                        },
                    ]
                },
            ),
            (
                "anonymous",
                {
                    "refusals": [
                        {
                            "call": "GET /x",
                            "service": None,
                            "client": "192.0.2.1",
                            "error": "forbidden",
                            "count": 1,
                            "request_id": "r2",
                        }
                    ]
                },
            ),
        ]
    assert len(desk.written) == 2, "nothing is written twice"


async def test_a_flood_is_counted_but_not_told_apart(autojump_clock: MockClock) -> None:
    callers, desk = Callers(), Desk()
    async with noting(callers, desk):
        for n in range(10_000):
            callers.refused(refusal("anonymous", client=f"10.0.{n // 250}.{n % 250}"), "r")
        await trio.sleep(2)
    ((_, details),) = desk.refusals
    assert len(details["refusals"]) == 64
    assert details["others"] == 10_000 - 64


async def test_a_token_that_is_tried_from_many_addresses_is_still_one_caller(
    autojump_clock: MockClock,
) -> None:
    callers, desk = Callers(), Desk()
    async with noting(callers, desk):
        for n in range(1_000):
            callers.refused(refusal("leaked", client=f"192.0.2.{n % 250}"), "r")
        callers.refused(refusal("anonymous", client="192.0.2.1"), "r")
        await trio.sleep(2)
    told = dict(desk.refusals)
    assert [one["client"] for one in told["leaked"]["refusals"]] == [
        f"192.0.2.{n}" for n in range(16)
    ]
    assert told["leaked"]["others"] == 1_000 - 16 * 4
    assert [one["client"] for one in told["anonymous"]["refusals"]] == ["192.0.2.1"]


async def test_a_flood_hides_nobody_elses_refusals(autojump_clock: MockClock) -> None:
    callers, desk = Callers(), Desk()
    async with noting(callers, desk):
        for n in range(1_000):
            for by, client in (("anonymous", "10.0.0.1"), ("leaked", None)):
                callers.refused(refusal(by, client=client, service=f"s-{n}"), "r")
        for by, client in (("anonymous", "192.0.2.1"), ("ci", None)):
            callers.refused(refusal(by, client=client), "r")
        await trio.sleep(2)
    told = dict(desk.refusals)
    clients = [one["client"] for one in told["anonymous"]["refusals"]]
    assert (clients.count("10.0.0.1"), clients.count("192.0.2.1")) == (16, 1)
    assert [len(told[by]["refusals"]) for by in ("leaked", "ci")] == [16, 1]
    assert [told[by].get("others") for by in ("anonymous", "leaked", "ci")] == [984, 984, None]
