"""Old and new code of one service side by side: real server, Mosquitto and clients."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config_manager.client.state.identity import trust_init
from config_manager.config import wire
from tests.kit.earlier import VERSIONS, command, unpack
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Process,
    Processes,
    Server,
    eventually,
    listening,
    of_revision,
    retained,
)

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

SERVICE = "lamp"
CODE = """
import json, signal, sys
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
from config_manager.client import Config

class Old(BaseModel):
    model_config = ConfigDict(extra="forbid")
    level: float = Field(0.5, ge=0, le=1)
    mode: Literal["calm", "bright"] = "calm"

class New(BaseModel):
    model_config = ConfigDict(extra="forbid")
    brightness: float = Field(0.5, ge=0, le=1, json_schema_extra={"x-was": {"key": "level"}})
    mode: Literal["calm", "bright", "disco"] = "calm"
    colour: str = "white"

def say(event, values):
    print(json.dumps({"event": event, **values.model_dump()}), flush=True)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
model, state, instance, url = sys.argv[1:]
with Config({"old": Old, "new": New}[model], service="lamp", state_dir=state, mqtt_url=url,
            instance=instance, env_file=None) as config:
    config.on_change(lambda change: say("changed", change.new))
    say("opened", config.current)
    signal.sigwait([signal.SIGTERM])
"""


class Lamp:
    def __init__(self, shop: tuple[Processes, Path], *flags: str) -> None:
        self.processes, self.directory = shop
        self.broker = self.processes.broker(self.directory / "broker")
        self.server: Server = self.processes.server(
            self.directory / "data", self.broker.url, *flags
        )

    def state(self, name: str) -> Path:
        state = self.directory / name
        if not state.exists():
            trust_init(state, self.server.data_dir / "trust" / "root.json")
        return state

    def runs(self, model: str, name: str) -> Process:
        arguments = (model, str(self.state(name)), name, self.broker.url)
        return self.processes.start([sys.executable, "-c", CODE, *arguments])

    def schema(
        self, fits: Callable[[dict[str, Any]], object], *, within: float = 10
    ) -> dict[str, Any]:
        last: list[Any] = []

        def probe() -> dict[str, Any] | None:
            told = self.server.get(f"/api/v1/schemas/{SERVICE}").json()
            last[:] = [told]
            return told if "digest" in told and fits(told) else None

        try:
            return eventually(probe, within=within, what="the schema")
        except AssertionError as late:
            raise AssertionError(f"{late}; last: {json.dumps(last)}") from None

    def instance(self, name: str, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            told = self.server.get("/api/v1/status").json()["instances"]
            return next((one for one in told if one["instance"] == name and fits(one)), None)

        return eventually(probe, within=10, what=f"{name} in the status")

    def history(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.server.get(f"/api/v1/config/{SERVICE}/history").json()[
            "entries"
        ]
        return entries

    def put(self, values: dict[str, Any]) -> dict[str, Any]:
        told = self.server.put(SERVICE, values)
        assert told.status_code in (200, 201), told.text
        answer: dict[str, Any] = told.json()
        return answer


def changed(process: Process, **values: Any) -> None:
    """It runs with these, since a change or, on a busy machine, since it opened."""
    process.line(lambda one: values.items() <= one.items())


def changes(process: Process) -> list[dict[str, Any]]:
    return [one for one in process.lines if one.get("event") == "changed"]


def test_each_gets_its_own_names_through_a_rename_under_one_signature(
    shop: tuple[Processes, Path],
) -> None:
    """A1, A5, and the receipt of A11; a client of 0.1.0 beside them."""
    lamp = Lamp(shop, "--dev")
    old = lamp.runs("old", "attic")
    first = lamp.schema(lambda told: told["source"] == "instance")
    assert first["reason"] == "attic was built with it"
    assert first["by"] == "config-manager"
    lamp.put({"level": 0.7})
    changed(old, level=0.7)

    # the first release: it has no model, and knows neither contents nor variants
    code = unpack(VERSIONS[0].wheel, lamp.directory / "code")
    theirs = lamp.processes.start(
        [
            *(*command(code), "client", "run", "--state", str(lamp.state("cellar"))),
            *("--service", SERVICE, "--mqtt-url", lamp.broker.url, "--instance", "cellar"),
        ]
    )
    theirs.event("applied")

    new = lamp.runs("new", "kitchen")
    second = lamp.schema(lambda told: told["version"] > first["version"])
    assert second["schema"]["properties"].keys() == {"brightness", "mode", "colour"}
    assert lamp.history()[0]["action"] == "schema"  # the stored value has moved
    changed(new, brightness=0.7)
    names = {one["digest"]: one["instances"] for one in second["instance_schemas"]}
    assert sorted(names.values()) == [["attic"], ["kitchen"]]

    revision = lamp.put({"brightness": 0.2, "colour": "red"})["revision"]
    changed(new, brightness=0.2, colour="red")
    changed(old, level=0.2)
    update = lamp.server.verified(SERVICE, retained(lamp.broker.port, wire.config_topic(SERVICE)))
    assert update.config == {"brightness": 0.2, "colour": "red", "mode": "calm"}
    [variant] = update.variants
    assert variant.config == {"level": 0.2, "mode": "calm"}
    assert variant.schemas == (first["digest"],)
    for name in ("attic", "kitchen", "cellar"):
        lamp.instance(name, lambda one: one["running"]["revision"] == revision)

    # what is new to the old code alone does not reach its callback
    asked = len(changes(old))
    revision = lamp.put({"brightness": 0.2, "colour": "blue"})["revision"]
    changed(new, colour="blue")
    lamp.instance("attic", lambda one: one["running"]["revision"] == revision)
    assert len(changes(old)) == asked

    # a value that the old code lacks is said before, and its receipt agrees afterwards
    told = lamp.put({"brightness": 0.2, "mode": "disco"})
    [refused] = told["refused_by"]
    assert refused["instance"] == "attic"
    assert "mode" in refused["why"]
    changed(new, mode="disco")
    there = lamp.instance("attic", lambda one: one["last_attempt"]["stage"] == "refused")
    assert there["running"]["revision"] == revision
    assert [one for one in theirs.lines if one.get("event") in ("refused", "stale")] == []


@pytest.mark.torture
def test_old_code_that_is_started_later_is_adapted_to_and_nobody_else_notices(
    shop: tuple[Processes, Path],
) -> None:
    lamp = Lamp(shop, "--dev")
    new = lamp.runs("new", "kitchen")
    lamp.schema(lambda told: told["source"] == "instance")
    revision = lamp.put({"brightness": 0.3, "colour": "red"})["revision"]
    changed(new, brightness=0.3)
    asked = len(changes(new))
    with listening(lamp.broker.port, wire.config_topic(SERVICE)) as listener:
        old = lamp.runs("old", "attic")
        changed(old, level=0.3)
        payload = listener.message(wire.config_topic(SERVICE), of_revision(revision + 1))
    assert lamp.server.verified(SERVICE, payload).content == str(revision)
    entry = lamp.history()[0]
    assert (entry["action"], entry["by"], entry["changes"]) == ("adapt", "config-manager", [])
    lamp.instance("kitchen", lambda one: one["running"]["revision"] == revision + 1)
    assert len(changes(new)) == asked
    # the server starts again, and has nothing new to say
    lamp.server.stop()
    lamp.server.start()
    lamp.instance("attic", lambda one: one["in_sync"] and one["freshness"] == "fresh")
    assert lamp.history()[0]["revision"] == revision + 1


@pytest.mark.torture
def test_without_dev_an_instance_that_never_enrolled_makes_a_candidate_alone(
    shop: tuple[Processes, Path],
) -> None:
    lamp = Lamp(shop)
    lamp.runs("old", "attic")

    def candidate() -> dict[str, Any] | None:
        told = lamp.server.get(f"/api/v1/schemas/{SERVICE}/instances").json()
        return next(iter(told["instance_schemas"]), None)

    found = eventually(candidate, within=10, what="a candidate")
    assert (found["instances"], found["candidate"]) == (["attic"], True)
    assert lamp.server.get(f"/api/v1/schemas/{SERVICE}").status_code == 404
    code, told = lamp.processes.run(
        *("schema", "adopt", SERVICE, found["digest"], "--url", lamp.server.url),
        env={"CONFIG_MANAGER_TOKEN": TOKEN},
    )
    assert code == 0, told.text
    assert lamp.schema(lambda one: one["source"] == "instance")["digest"] == found["digest"]
