"""The whole tree: any one actor may crash under load, and the others never notice."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from config_manager.actors.actor import Context, Gone
from config_manager.actors.messages import Write
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import System, running_system
from config_manager.config.errors import ReadOnly
from config_manager.config.names import ServiceName
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage.decisions.intents import Put, Written
from config_manager.storage.decisions.terms import Terms
from tests.kit.processes import MOSQUITTO, free_port

ACTORS = (
    "signing",
    "storing",
    "callers",
    "caching",
    "broker",
    "drifting",
    "publishing",
    "exporting-traces",
    "learning-schemas",
    "notifying",
    "secrets-rotating",
    "trusting",
    "delivering",
    "beaconing",
    "watching",
    "health",
)


def settings_for(directory: Path, mqtt_url: str) -> Settings:
    nobody = f"http://127.0.0.1:{free_port()}"
    return Settings(data_dir=directory, bind="127.0.0.1:0", mqtt_url=mqtt_url, otlp_url=nobody)


def put(writer: int, number: int) -> Write[Written]:
    service = ServiceName(f"writer-{writer}")
    return Write(Put(service=service, values={"n": number}), Terms("test"))


def context(seconds: float = 10) -> Context:
    return Context("test", trio.current_time() + seconds)


async def everyone_runs(system: System) -> None:
    while set(system.states.report().values()) != {"running"}:
        await trio.sleep(0.01)


@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto")
async def test_any_one_may_crash_under_load_and_costs_what_it_had_in_hand(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    newest: dict[int, int] = {}
    stop = trio.Event()

    async def writes(system: System, writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                written = await system.storing.ask(put(writer, number), context())
                newest[writer] = written.state.revision
                ends["written"] += 1
            except Gone:
                ends["gone"] += 1
            except ReadOnly:  # storing opens its database again
                ends["read-only"] += 1
                await trio.sleep(0.01)

    settings = settings_for(tmp_path, f"auto:{free_port()}")
    with trio.fail_after(60):
        async with (
            running_system(
                settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
            ) as system,
            trio.open_nursery() as nursery,
        ):
            assert {actor.name for actor in system.states.actors} == set(ACTORS)
            for writer in range(4):
                nursery.start_soon(writes, system, writer)
            for actor in list(system.states.actors):
                before = ends["written"]
                while ends["written"] < before + 20:
                    await trio.sleep(0.005)
                actor.crash(RuntimeError("drill"))
                await trio.sleep(0)
                await everyone_runs(system)
                before = ends["written"]
                while ends["written"] < before + 20:
                    await trio.sleep(0.005)
            stop.set()
        # at most one batch was in the hands of the one that writes
        assert ends["gone"] <= 4 * 2, ends
        async with running_system(
            settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
        ) as system:
            for writer, revision in newest.items():
                state = system.view.committed.services[f"writer-{writer}"]
                assert state.revision >= revision
                await system.confirmations.wait(state.service, state.revision)


async def stop_with(mqtt_url: str, directory: Path, reaches: Callable[[], bool]) -> None:
    async with running_system(
        settings_for(directory, mqtt_url),
        catalogue=SAMPLE_CATALOGUE,
        transport=AiomqttTransport(),
        world=World(),
    ) as system:
        written = await system.storing.ask(put(0, 1), context())
        assert written.state.revision == 1
        while not reaches():
            await trio.sleep(0.001)


async def test_the_tree_stops_within_its_time_though_a_broker_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes connections and never says a word."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def says_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, says_nothing, listeners)
        await stop_with(f"mqtt://127.0.0.1:{port}", tmp_path, lambda: True)
        nursery.cancel_scope.cancel()
    assert "did not stop in time" not in capsys.readouterr().out


async def test_the_tree_stops_within_its_time_though_a_resolver_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, let_go = threading.Event(), threading.Event()

    def answers_late(*_: Any, **__: Any) -> Any:
        is_asked.set()
        let_go.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", answers_late)
    await stop_with("mqtt://broker", tmp_path, is_asked.is_set)
    let_go.set()
    assert "did not stop in time" not in capsys.readouterr().out
