"""Plans through the command, at a real server: the walk-through of docs/plans.md, files, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from config_manager.client.state.identity import trust_init
from tests.kit.processes import MOSQUITTO, Processes, eventually
from tests.kit.shell import Shell, steps_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plans.md"


@pytest.fixture(scope="module")
def shell(module_shop: tuple[Processes, Path]) -> Shell:
    processes, directory = module_shop
    server = processes.server(directory / "data", "none:", "--dev")
    (directory / "work").mkdir()
    return Shell(server, directory / "work")


def test_the_walk_through_of_the_page_does_what_it_says(shell: Shell) -> None:
    code, said = shell.run("bash", "-ec", steps_of(PAGE))
    assert code == 0, said
    told = said.splitlines()
    assert 'stt-worker  whisper_model  "base.en" → "small.en"' in told
    assert "            vad_threshold  0.4 → 0.3" in told
    assert "0.3" in told
    assert told.count("exit code 7") == 2
    assert "[plan-used]" in said
    assert "stt-worker is at revision 3 by dev, not 2" in said
    assert "[plan-stale]" in said
    states = [line.split()[1] for line in told if re.match(r"p-[0-9a-f]{12}  ", line)]
    assert states == ["failed", "applied"]
    assert "stt-worker  vad_threshold  0.45 → 0.3" in told
    assert told.count("0.3") == 2


def test_files_of_each_kind_are_planned_and_applied_together(shell: Shell) -> None:
    (shell.directory / "a.json").write_text('{"x": 1}')
    (shell.directory / "b.toml").write_text("x = 1.5\n[deep]\ny = [true]\n")
    (shell.directory / "values.yaml").write_text("off: no\nat: 22:00\nmode: 0777\nnothing: ~\n")
    command = ("config-manager", "apply", "a.json", "b.toml", "c=values.yaml", "--json")
    code, said = shell.run(*command, "--set", "d", "x=en")
    assert code == 6, said  # nobody has written d
    code, said = shell.run(*command, "--reason", "a test")
    assert code == 0, said
    assert json.loads(said)["services"] == ["a", "b", "c"]
    _, said = shell.run("config-manager", "get", "c", "--stored", "--json")
    stored = json.loads(said)["config"]
    assert stored == {"off": "no", "at": "22:00", "mode": "0777", "nothing": None}
    code, said = shell.run(
        "config-manager", "apply", "-", "--service", "a", "--merge", stdin='{"y": 2}'
    )
    assert (code, "- → 2" in said) == (0, True), said
    _, said = shell.run("config-manager", "get", "a", "--stored", "--json")
    assert json.loads(said)["config"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.yaml", "x: 1\nx: 2\n", "line 2"),
        ("a.yaml", "x: &a [1]\ny: *a\n", "aliases"),
        ("a.yaml", "x: !!python/object/apply:os.system [ls]\n", "could not determine"),
        ("a.toml", "x = 2026-01-01\n", "write it in quotes"),
        ("a.json", '{"x": 1, "x": 2}', "stands twice"),
        ("a.json", "[1]", "expected an object"),
        ("a.ini", "x = 1", "expected a file"),
        ("A B.json", "{}", "whose values"),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused(
    shell: Shell, name: str, text: str, why: str
) -> None:
    (shell.directory / name).write_text(text)
    code, said = shell.run("config-manager", "plan", name)
    assert (code, why in said) == (2, True), said


# ── the forecast, and what instances then say ──────────────────────────────────────────────────

LAMPS = """
import sys
from typing import Literal
import trio
from pydantic import BaseModel, ConfigDict, Field
from config_manager.client import open_config

class Old(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: Literal["white", "red"] = "white"
    level: float = Field(0.5, ge=0, le=1)

class New(Old):
    colour: Literal["white", "red", "blue"] = "white"
    port: int = Field(80, json_schema_extra={"x-restart-required": True})

async def run(model, name):
    where = {"state_dir": f"{sys.argv[1]}/{name}", "mqtt_url": sys.argv[2]}
    async with open_config(model, service="lamp", instance=name, **where):
        await trio.sleep_forever()

async def main():
    async with trio.open_nursery() as nursery:
        for model, name in ((Old, "attic"), (New, "kitchen"), (New, "lab-1")):
            nursery.start_soon(run, model, name)

trio.run(main)
"""


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_an_instance_with_an_older_schema_refuses_as_the_plan_said(
    shop: tuple[Processes, Path],
) -> None:
    """A11"""
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url, "--dev")
    for name in ("attic", "kitchen", "lab-1"):
        trust_init(directory / "states" / name, server.data_dir / "trust" / "root.json")
    assert server.put("lamp", {"colour": "white"}).status_code == 201
    processes.start([sys.executable, "-c", LAMPS, str(directory / "states"), broker.url])

    server.wait_learnt("lamp", {"colour": "blue"}, "attic", "kitchen", "lab-1")

    def settled() -> bool:
        told = server.get("/api/v1/schemas/lamp").json()
        return "blue" in json.dumps(told["schema"])

    eventually(settled, within=15, what="the wider schema is active")
    with processes.client(server.url) as http:
        wanted = {"patch": {"lamp": {"colour": "blue"}}, "reason": "a colder light"}
        plan = http.post("/api/v1/plans?reason=x", json=wanted)
        assert plan.status_code == 201, plan.text
        forecast = {one["instance"]: one for one in plan.json()["instances"]}
        assert {name: one["verdict"] for name, one in forecast.items()} == {
            "attic": "refuses",
            "kitchen": "hot",
            "lab-1": "hot",
        }
        assert "/colour" in forecast["attic"]["why"]
        restart = http.post("/api/v1/plans", json={"patch": {"lamp": {"port": 8080}}}).json()
        assert {one["instance"]: one["verdict"] for one in restart["instances"]} == {
            "attic": "same",
            "kitchen": "restart",
            "lab-1": "restart",
        }
        answer = http.post(f"/api/v1/plans/{plan.json()['id']}/apply")
        assert answer.status_code == 200, answer.text
        applied = answer.json()

    def attempts() -> dict[str, Any]:
        told = server.get("/api/v1/status?service=lamp").json()["instances"]
        return {one["instance"]: one["last_attempt"] for one in told}

    def decided() -> bool:
        return all(
            one is not None and one["revision"] == applied["revision"]
            for one in attempts().values()
        )

    eventually(decided, within=15, what="every instance has decided")
    stages = {name: one["stage"] for name, one in attempts().items()}
    assert stages["attic"] == "refused", stages
    assert {stages["kitchen"], stages["lab-1"]} <= {"applied", "healthy"}, stages
