"""Eleven real instances in every state, beside what they really ran; and a broker and a server that restart."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Broker,
    Process,
    Processes,
    Server,
    eventually,
    free_port,
    listening,
    workshop,
)

SERVICE = "door"
OURS, THEIRS = 9, 77
"""volume: after the change that makes the difference; what a twin of the server published"""

INSTANCE = """
import json, sys, trio
from pydantic import BaseModel, Field, field_validator
from config_manager.client import NotNow, open_config

name, state, url = sys.argv[1:]

class Door(BaseModel):
    volume: int = Field(0, json_schema_extra={"x-restart-required": True} if name == "restarts" else {})

    @field_validator("volume")
    @classmethod
    def _suits(cls, value: int) -> int:
        if name == "refuses" and value == 9:
            raise ValueError("too loud")
        return value

async def apply(change):
    if name == "waits" and change.new.volume == 9:
        raise NotNow(1)

async def main():
    async with open_config(Door, service="door", state_dir=state, mqtt_url=url, instance=name,
                           apply=apply, bake_s=0.5, env_file=None) as config:
        while True:
            print(json.dumps({"volume": config.current.volume}), flush=True)
            await trio.sleep(0.1)

trio.run(main)
"""

EXPECTED = {
    "good": ("in-line", OURS),
    "better": ("in-line", OURS),
    "refuses": ("refused", 1),
    "waits": ("waiting", 1),
    "restarts": ("waiting", 1),
    "overridden": ("overridden", 3),
    "late": ("late", 0),
    "stale": ("stale", OURS),
    "silent": ("silent", 1),
    "foreign": ("foreign", THEIRS),
    "claimed": ("claimed", OURS),
}
"""name → its state after the change, and the volume that it really runs"""
DRIFTS = {"refuses", "late", "stale", "foreign"}


class Bridge:
    """A Mosquitto that passes on these topics alone."""

    def __init__(self, directory: Path, to: Broker, *topics: str) -> None:
        directory.mkdir()
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "persistence false",
            f"connection {directory.name}",
            f"address 127.0.0.1:{to.port}",
            "restart_timeout 1",
            "notifications false",
            *(f"topic {topic}" for topic in topics),
        ]
        config = directory / "mosquitto.conf"
        config.write_text("\n".join([*lines, *(["user root"] if os.geteuid() == 0 else [])]) + "\n")
        assert MOSQUITTO is not None
        self.process = Process([MOSQUITTO, "-c", str(config)])


class Fleet:
    def __init__(self, processes: Processes, directory: Path) -> None:
        self.processes, self.directory = processes, directory
        self.broker = processes.broker(directory / "broker", persistent=False)
        self.server: Server = processes.server(directory / "data", self.broker.url)
        self.running: dict[str, Process] = {}
        self.bridges: list[Bridge] = []

    def bridge(self, name: str, *topics: str) -> str:
        bridge = Bridge(self.directory / name, self.broker, *topics)
        self.bridges.append(bridge)
        return bridge.url

    def enrol(self, name: str) -> None:
        state = self.directory / f"state-{name}"
        self.processes.pin(state, self.directory / "data" / "trust" / "root.json")
        body = {"service": SERVICE, "instance": name}
        made = self.server.http.post("/api/v1/devices/tokens", json=body).json()
        file = state.with_suffix(".token")
        file.write_text(made["token"])
        code, told = self.processes.run(
            *("client", "enroll", "--state", str(state), "--service", SERVICE, "--instance", name),
            *("--url", self.server.url, "--token-file", str(file)),
        )
        assert code == 0, told.text

    def start(self, name: str, url: str | None = None, **environment: str) -> Process:
        state = self.directory / f"state-{name}"
        argv = [sys.executable, "-c", INSTANCE, name, str(state), url or self.broker.url]
        process = self.running[name] = self.processes.start(argv, env=environment)
        return process

    def runs(self, name: str) -> int | None:
        lines = [line["volume"] for line in self.running[name].lines if "volume" in line]
        return lines[-1] if lines else None

    def wait_until_it_runs(self, name: str, volume: int) -> None:
        try:
            eventually(lambda: self.runs(name) == volume, within=30, what=f"{name} runs {volume}")
        except AssertionError as late:
            raise AssertionError(f"{late}; it said: {self.running[name].text[-20:]}") from None

    def put(self, server: Server, volume: int) -> None:
        answer = server.put(SERVICE, {"volume": volume}, params={"wait": "confirmed"})
        assert answer.json()["propagation"] == "confirmed", answer.text

    def states(self) -> dict[str, Any]:
        shown = self.server.get("/api/v1/status?limit=500").json()["instances"]
        return {one["instance"]: one for one in shown}

    def drifting(self) -> dict[str, Any]:
        shown = self.server.get("/api/v1/drift").json()["drift"]
        return {one["instance"]: one for one in shown}

    def command(self, *words: str) -> tuple[int, str]:
        code, process = self.processes.run(
            *words, "--url", self.server.url, env={"CONFIG_MANAGER_TOKEN": TOKEN}
        )
        return code, "\n".join(process.text)

    def make_foreign(self) -> None:
        """It follows a copy of the server to a revision of that, and comes back with it."""
        self.server.stop()
        shutil.copytree(self.directory / "data", self.directory / "twin")
        elsewhere = self.processes.broker(self.directory / "elsewhere", persistent=False)
        twin = self.processes.server(self.directory / "twin", elsewhere.url)
        self.put(twin, THEIRS)
        client = self.start("foreign", elsewhere.url)
        self.wait_until_it_runs("foreign", THEIRS)
        time.sleep(1.0)  # until it has proved itself
        client.terminate()
        twin.stop()
        elsewhere.kill()
        self.server.start()


def are_as_expected(states: dict[str, Any]) -> bool:
    found = {name: one["state"] for name, one in states.items()}
    wanted = {name: state for name, (state, _) in EXPECTED.items()} | {"never": "silent"}
    assert found == wanted
    return True


def told(states: dict[str, Any]) -> dict[str, Any]:
    """What a restart must not change. An instance that only claims is not kept."""
    about = ("state", "why", "running", "wanted")
    tried = ("revision", "stage", "reason")
    return {
        name: {
            **{key: one[key] for key in about},
            **{key: (one["last_attempt"] or {}).get(key) for key in tried},
        }
        for name, one in states.items()
        if name != "claimed"
    }


def is_as_before(now: dict[str, Any], before: dict[str, Any]) -> bool:
    differing = {
        name: (now.get(name), before[name]) for name in before if now.get(name) != before[name]
    }
    assert not differing, differing
    assert now.keys() == before.keys()
    return True


@pytest.mark.torture
@pytest.mark.timeout(400)
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_each_instance_is_in_the_state_that_it_is_in_also_after_restarts() -> None:
    with workshop() as (processes, directory):
        fleet = Fleet(processes, directory)
        try:
            _story(fleet)
        finally:
            for bridge in fleet.bridges:
                bridge.process.kill()


def _story(fleet: Fleet) -> None:
    for name in (*EXPECTED, "never"):
        if name == "claimed":
            root = fleet.directory / "data" / "trust" / "root.json"
            fleet.processes.pin(fleet.directory / "state-claimed", root)
        else:
            fleet.enrol(name)
    fleet.put(fleet.server, 1)
    fleet.make_foreign()
    no_beacon = fleet.bridge(
        "no-beacon",
        "system/config/# in 1",
        "system/trust/# in 1",
        "system/config-status/# out 1",
    )
    no_config = fleet.bridge("no-config", "system/keepalive/# in 0", "system/config-status/# out 1")
    elsewhere = {"stale": no_beacon, "late": no_config}
    for name in EXPECTED:
        if name != "foreign":
            environment = {"DOOR_VOLUME": "3"} if name == "overridden" else {}
            fleet.start(name, elsewhere.get(name), **environment)
    for name in EXPECTED:
        if name not in ("foreign", "late", "overridden"):
            fleet.wait_until_it_runs(name, 1)
    fleet.running["silent"].terminate()
    fleet.put(fleet.server, OURS)
    fleet.start("foreign")

    eventually(lambda: are_as_expected(fleet.states()), within=90, what="every state", every=0.5)
    for name, (_, volume) in EXPECTED.items():
        assert fleet.runs(name) == volume, name
    eventually(lambda: fleet.drifting().keys() == DRIFTS, within=30, what="drift", every=0.5)
    assert fleet.drifting()["refuses"]["why"].endswith("too loud")
    assert "no-beacon" in fleet.drifting()["stale"]["why"]
    code, text = fleet.command("drift")
    assert code == 7, text
    assert all(name in text for name in DRIFTS)
    code, text = fleet.command("status")
    assert code == 0
    assert "not ours" in text.splitlines()[1]
    before, drift_before = told(fleet.states()), fleet.drifting()

    fleet.broker.kill()
    assert is_as_before(told(fleet.states()), before)
    fleet.broker.start()
    with listening(fleet.broker.port, f"system/config-status/{SERVICE}/#") as listener:
        for name in ("good", "refuses"):
            topic = f"system/config-status/{SERVICE}/{name}"
            listener.message(topic, within=60)
        fleet.server.wait_outbox_empty(within=60)
        assert is_as_before(told(fleet.states()), before)
        assert fleet.drifting().keys() == DRIFTS

    fleet.server.stop()
    fleet.server.start()
    assert fleet.drifting().keys() == DRIFTS
    eventually(
        lambda: is_as_before(told(fleet.states()), before),
        within=60,
        what="the board as before",
        every=0.5,
    )
    since = {name: one["since"] for name, one in drift_before.items()}
    assert {name: one["since"] for name, one in fleet.drifting().items()} == since

    fleet.put(fleet.server, 2)
    eventually(lambda: fleet.drifting().keys() == {"late", "stale"}, within=60, what="fewer drift")
    code, text = fleet.command("drift", "--since", "1h", "--json")
    assert code == 7
    ended = {one["instance"]: one["ended"] for one in json.loads(text.splitlines()[0])["drift"]}
    assert {name for name, at in ended.items() if at is not None} >= {"refuses", "foreign"}
