"""Integers end at ±(2^53 - 1). Earlier servers took ±2^53: what they stored goes on working."""

from __future__ import annotations

from pathlib import Path

from config_manager.actors.actor import Context
from config_manager.actors.messages import Write
from config_manager.storage.decisions.intents import Put
from config_manager.storage.decisions.terms import Terms
from tests.kit.asgi import Caller, on_disk, running

DOOR = "/api/v1/config/door"
PATCH = {"Content-Type": "application/merge-patch+json"}
ONCE_TAKEN = {"n": [{"deep": 2**53}], "m": -(2**53)}


async def test_no_write_takes_an_integer_that_readers_disagree_on(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        for number in (2**53, -(2**53), 2**53 + 1):
            values = {"n": {"list": [number]}}
            for got in (
                await rest.ask("PUT", DOOR, values),
                await rest.ask("PATCH", DOOR, values, headers=PATCH),
                await rest.ask("POST", "/api/v1/config/epoch", {"services": {"door": values}}),
            ):
                assert (got.status, "±(2^53 - 1)" in got.json["detail"]) == (400, True)
        largest = await rest.ask("PUT", DOOR, {"n": [2**53 - 1, 1 - 2**53]})
        assert largest.status == 201


async def test_what_an_earlier_server_took_is_answered_and_patched(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        put = Put(service="door", values=ONCE_TAKEN)
        await system.storing.ask(Write(put, Terms("an earlier server")), Context("id-1"))
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        assert system.view.publishable
        assert (await rest.ask("GET", DOOR)).json["config"] == ONCE_TAKEN
        patched = await rest.ask("PATCH", DOOR, {"x": 1}, headers=PATCH)
        assert (patched.status, patched.json["config"]) == (200, {**ONCE_TAKEN, "x": 1})
