"""One device's key takes no secrets: it gets none, and everybody else goes on."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.actors.messages import Write
from config_manager.actors.system import System
from config_manager.config.enrolment import Enrolment
from config_manager.config.names import Epoch
from config_manager.storage.decisions.devices import Enrol, delivery, enrolled
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.memory_store import MemoryStore
from tests.actors.test_system import context, everyone_runs
from tests.kit.asgi import Answer, Caller, running

WEAK = bytes(32)
GOOD = PrivateKey(b"\x07" * 32).public_key


async def enrol(rest: Caller, name: str, seal: bytes, *, past_the_edge: bool = False) -> Answer:
    """past_the_edge: as an older release would have taken it."""
    told = await rest.ask("POST", "/api/v1/devices/tokens", {"service": "door"})
    token, key = told.json["token"], SigningKey(hashlib.sha256(name.encode()).digest())
    what = Enrolment(
        hashlib.sha256(token.encode()).hexdigest(), "door", name, bytes(key.verify_key), seal
    )
    proof = what.prove(bytes(key))
    if past_the_edge:
        await rest.system.storing.ask(Write(Enrol(what, proof), Terms(name)), context())
        return told
    return await post(rest, token, what, proof)


async def post(rest: Caller, token: str, what: Enrolment, proof: bytes) -> Answer:
    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    body: dict[str, Any] = {
        "token": token,
        "service": what.service,
        "instance": what.instance,
        "sign_public": text(what.sign_public),
        "seal_public": text(what.seal_public),
        "proof": text(proof),
    }
    return await rest.ask("POST", "/api/v1/devices/enroll", body)


async def delivered(system: System, name: str) -> None:
    while True:
        committed = system.view.committed
        device = enrolled(committed, "door", name)
        if device is not None and delivery(committed, device) is not None:
            return
        await system.view.changed()


def said(capsys: pytest.CaptureFixture[str], event: str) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if event in line]


async def test_a_key_of_low_order_from_an_older_database_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores: list[MemoryStore] = []

    def make(epoch: Epoch) -> MemoryStore:
        stores[:] = stores or [MemoryStore(epoch)]
        return stores[0]

    with trio.fail_after(20):
        async with running(tmp_path, make) as system:
            rest = Caller(system)
            await rest.ask(
                "POST", "/api/v1/secrets", {"service": "door", "name": "pin", "value": "1"}
            )
            await enrol(rest, "ada-is-weak", WEAK, past_the_edge=True)
            await enrol(rest, "bob", GOOD.encode())
            await delivered(system, "bob")
            weak = enrolled(system.view.committed, "door", "ada-is-weak")
            assert weak is not None
            assert delivery(system.view.committed, weak) is None
            assert (await rest.ask("PUT", "/api/v1/config/door", {"open": True})).status == 200
        lines = said(capsys, "not delivered")
        assert len(lines) == 1, lines
        assert "ada-is-weak" in lines[0]
        assert "door" in lines[0]
        async with running(tmp_path, make) as system:  # nor after a restart
            await trio.testing.wait_all_tasks_blocked()
            await everyone_runs(system)
            assert (await Caller(system).ask("DELETE", "/api/v1/devices/door/ada-is-weak")).json[
                "secrets"
            ] == []


@pytest.mark.parametrize("weak", ["sign_public", "seal_public"])
async def test_enrolment_refuses_a_key_of_low_order_and_says_which(
    tmp_path: Path, weak: str
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        sign = bytes(SigningKey.generate().verify_key)
        what = Enrolment("ab" * 32, "door", "eve", sign, GOOD.encode())
        what = (
            replace(what, sign_public=WEAK)
            if weak == "sign_public"
            else replace(what, seal_public=WEAK)
        )
        told = await post(rest, "a-token-that-nobody-made", what, bytes(64))
        assert told.status == 422
        assert told.headers["content-type"] == "application/problem+json"
        assert [e["pointer"] for e in told.json["errors"]] == [f"/{weak}"]
