"""A change of schema or values, its plan, its past and its way back: by command, at a real server, with real clients.

What is accepted of changes; A1, A5, A11 and A14 have their own stories in test_old_and_new_code.py, test_plans.py and
test_config_commands.py.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from config_manager.client import Config
from config_manager.client.state.identity import trust_init
from config_manager.config.errors import SchemaInvalid
from config_manager.storage.decisions.json_schema import CompiledSchema
from tests.kit.processes import COMMAND, MOSQUITTO, TOKEN, Processes, Server, eventually
from tests.kit.schemas import a_service, edited, fits, independently, objects
from tests.kit.shell import InProcess

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

OK, INVALID, CONFLICT = 0, 2, 7
"""Exit codes."""
PAIRS = 40
WRITES = 80

LEVEL: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}


def schema(**properties: Any) -> dict[str, Any]:
    """As a model with extra="forbid" says it."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


class Running:
    """A service that runs, in a thread of this process."""

    def __init__(self, config: Config[Any]) -> None:
        self.config = config
        self.changes: list[dict[str, Any]] = []
        config.on_change(lambda change: self.changes.append(change.new.model_dump()))

    def runs(self, **values: Any) -> None:
        """It does, in time."""
        eventually(
            lambda: values.items() <= self.config.current.model_dump().items(),
            within=10,
            what=f"it runs with {values}",
        )

    def is_told(self, **values: Any) -> None:
        """Its callback is, in time, and of nothing newer."""
        eventually(
            lambda: self.changes[-1:] == [values],
            within=10,
            what=f"its callback is told {values}, and not only {self.changes}",
        )


class Operator(InProcess):
    def __init__(self, server: Server, directory: Path) -> None:
        super().__init__(server)
        self.server, self.directory = server, directory
        self._clients = 0

    def file(self, value: Any) -> str:
        path = self.directory / "given.json"
        path.write_text(json.dumps(value))
        return str(path)

    def schema(self, service: str, *more: str, **properties: Any) -> Any:
        return self.ok("schema", "put", service, self.file(schema(**properties)), *more)

    def refused(self, code: int, name: str, *command: str, stdin: str = "") -> str:
        """What it says why."""
        ended = self.run(*command, stdin=stdin)
        assert (ended.code, f"[{name}]" in ended.err) == (code, True), ended
        return ended.err

    def write(self, service: str, method: str, values: dict[str, Any]) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        told = self.server.http.request(
            method,
            f"/api/v1/config/{service}",
            content=json.dumps(values),
            headers={"Content-Type": kind},
        )
        assert told.status_code in (200, 201), told.text
        return told.json()

    def stored(self, service: str) -> Any:
        return self.ok("get", service, "--stored")["config"]

    @property
    def revision(self) -> int:
        revision: int = self.server.health()["revision"]
        return revision

    @contextmanager
    def instance(
        self, model: type[BaseModel], service: str, name: str, *, first_wait_s: float = 5
    ) -> Iterator[Running]:
        """One that runs. first_wait_s: how long it waits for values that it takes, before it runs on defaults."""
        self._clients += 1
        state = self.directory / f"state-{self._clients}"
        trust_init(state, self.server.data_dir / "trust" / "root.json")
        url = self.server.mqtt_url
        with Config(
            model,
            service=service,
            instance=name,
            state_dir=state,
            mqtt_url=url,
            env_file=None,
            first_wait_s=first_wait_s,
        ) as config:
            yield Running(config)


@pytest.fixture(scope="module")
def operator(module_shop: tuple[Processes, Path]) -> Operator:
    processes, directory = module_shop
    url = processes.broker(directory / "broker").url
    return Operator(processes.server(directory / "data", url, "--dev"), directory)


# ── schemas ────────────────────────────────────────────────────────────────────────────────────


class Lamp(BaseModel):
    model_config = ConfigDict(extra="forbid")
    level: float = Field(0.5, ge=0, le=1)


class DimLamp(Lamp):
    level: float = Field(0.4, ge=0, le=0.5)


def test_a_narrower_schema_names_what_is_stored_and_who_runs_and_is_made_for_a_reason(
    operator: Operator,
) -> None:
    """A2"""
    operator.schema("lamp", "--reason", "it is typed now", level=LEVEL)
    operator.ok("set", "lamp", "level=0.9")
    narrow = {"level": {**LEVEL, "maximum": 0.5}}
    with (
        operator.instance(Lamp, "lamp", "attic") as attic,
        operator.instance(DimLamp, "lamp", "kitchen", first_wait_s=0.2) as kitchen,
    ):
        attic.runs(level=0.9)
        operator.server.wait_learnt("lamp", {"level": 0.1}, "attic", "kitchen")
        put = ("schema", "put", "lamp", operator.file(schema(**narrow)))
        why = operator.refused(CONFLICT, "schema-breaking", *put)
        assert "/level: stored: 0.9: expected a number from 0 to 0.5" in why
        assert "instance kitchen: /level: expected a number from 0 to 0.5" in why
        assert "attic" not in why  # it is sent what it takes
        checked = operator.run("schema", "check", *put[2:], "--json")
        assert checked.code == CONFLICT
        [stored] = json.loads(checked.out)["breaks"]["stored"]
        assert (stored["layer"], stored["key"]) == ("base", "level")
        operator.refused(INVALID, "invalid-values", *put, "--allow-breaking")
        assert operator.ok("schema", "get", "lamp")["version"] == 1
        operator.ok(*put, "--allow-breaking", "--reason", "too bright")
        versions = operator.ok("schema", "history", "lamp")["versions"]
        assert [one["reason"] for one in versions] == ["too bright", "it is typed now"]
        # the next write has to fit, and both take it
        operator.refused(INVALID, "invalid-values", "set", "lamp", "level=0.8")
        operator.ok("set", "lamp", "level=0.3")
        attic.runs(level=0.3)
        kitchen.runs(level=0.3)


def test_what_check_calls_ok_is_not_contradicted_by_real_validation(operator: Operator) -> None:
    """A3. 10,000 pairs, and old code too: test_schema_comparison.py."""
    called_ok = 0
    for seed in range(PAIRS):
        r = Random(seed)
        old = a_service(r)
        new = edited(r, old)
        try:
            before, after = CompiledSchema(old), CompiledSchema(new)
        except SchemaInvalid:  # a change can leave a rule without its key
            continue
        service = f"pair-{seed}"
        operator.ok("schema", "put", service, operator.file(old))
        checked = operator.run("schema", "check", service, operator.file(new), "--json")
        differences = json.loads(checked.out)["differences"]
        breaks = {
            whom: any(one[whom] == "breaks" for one in differences)
            for whom in ("stored", "new_code")
        }
        assert checked.code in ((OK, CONFLICT) if any(breaks.values()) else (OK,)), checked
        values = [*objects(r, old), *objects(r, new)]
        for whom, closed in (("stored", True), ("new_code", False)):
            if breaks[whom]:
                continue
            was = independently(before, closed=True)
            now = independently(after, closed=closed)
            for value in values:
                if fits(was, before, value):
                    called_ok += 1
                    assert fits(now, after, value), (seed, whom, value, old, new)
    assert called_ok > PAIRS


class Pauses(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pause: float = Field(0.1, ge=0, json_schema_extra={"x-unit": "s"})


def test_another_unit_breaks_everybody_unless_it_says_how_values_move(operator: Operator) -> None:
    """A4"""
    pause = {"type": "number", "minimum": 0, "x-unit": "ms"}
    seconds = {**pause, "x-unit": "s"}
    operator.schema("player", pause=pause)
    revision = operator.ok("set", "player", "pause=300")["revision"]
    checked = operator.run(
        "schema", "check", "player", operator.file(schema(pause=seconds)), "--json"
    )
    assert checked.code == CONFLICT
    [difference] = json.loads(checked.out)["differences"]
    assert difference["change"] == "unit changed"
    assert {difference[whom] for whom in ("stored", "new_code", "old_code")} == {"breaks"}
    moved = operator.schema("player", pause={**seconds, "x-was": {"multiply": [1, 1000]}})
    assert (moved["migrated"], moved["revision"]) == (["player"], revision + 1)
    assert operator.stored("player") == {"pause": 0.3}
    [newest, *_] = operator.ok("history", "player")["entries"]
    assert (newest["action"], newest["revision"]) == ("schema", revision + 1)
    assert newest["changes"] == [{"key": "pause", "old": 300, "new": 0.3}]
    with operator.instance(Pauses, "player", "hall") as hall:
        hall.runs(pause=0.3)


def test_a_stored_key_that_the_model_has_no_more_stays_and_blocks_no_other(
    operator: Operator,
) -> None:
    """A6"""
    operator.ok("set", "fan", "level=0.9", "gone=1")
    with operator.instance(Lamp, "fan", "attic") as attic:
        operator.server.wait_learnt("fan", {"level": 0.1}, "attic")
        digest = operator.ok("schema", "adopt", "fan")["instance_schemas"][0]["digest"]
        adopt = ("schema", "adopt", "fan", digest[:12])
        assert "/gone" in operator.refused(CONFLICT, "schema-breaking", *adopt)
        operator.ok(*adopt, "--allow-breaking", "--reason", "it goes later")
        patched = operator.write("fan", "PATCH", {"level": 0.8})
        assert [one["pointer"] for one in patched["warnings"]] == ["/gone"]
        warnings = operator.ok("set", "fan", "level=0.7")["warnings"]
        assert [one["pointer"] for one in warnings] == ["/gone"]
        assert operator.stored("fan") == {"level": 0.7, "gone": 1}
        operator.refused(INVALID, "invalid-values", "set", "fan", "gone=2")
        attic.runs(level=0.7)  # though its code takes no other key


def test_no_schema_opens_a_file_or_a_connection(operator: Operator) -> None:
    """A7. Who opens the pipe waits for ever: nobody writes to it."""
    pipe = operator.directory / "pipe.json"
    os.mkfifo(pipe)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        for where in (
            "file:///etc/passwd",
            f"file://{pipe}",
            f"http://127.0.0.1:{port}/schema.json",
            f"https://localhost:{port}/schema.json#/$defs/x",
        ):
            hostile = operator.file(schema(level={"$ref": where}))
            for command in ("check", "put"):
                said = operator.refused(
                    INVALID, "schema-invalid", "schema", command, "spy", hostile
                )
                assert "root:" not in said
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert operator.run("schema", "get", "spy").code == 6  # nothing is there


def test_a_rule_is_judged_on_what_the_service_gets(operator: Operator) -> None:
    """A8. `backend` is not stored, and `if` would hold for what is absent."""
    rule = {"if": {"properties": {"backend": {"const": "ws"}}}, "then": {"required": ["ws_url"]}}
    backend = {"enum": ["local", "ws"], "default": "local"}
    keys = schema(backend=backend, ws_url={"type": "string"}, rate={"type": "integer"})
    operator.ok("schema", "put", "radio", operator.file({**keys, "allOf": [rule]}))
    assert operator.ok("set", "radio", "rate=1")["config"]["backend"] == "local"
    for command in (
        ("set", "radio", "backend=ws"),
        ("plan", "--set", "radio", "backend=ws"),
    ):
        assert "/ws_url" in operator.refused(INVALID, "invalid-values", *command)
    operator.ok("set", "radio", "backend=ws", "ws_url=ws://radio.example")
    # the other way round: the default counts though nothing is stored
    operator.ok("schema", "put", "tuner", operator.file({
        **schema(backend={**backend, "default": "ws"}, ws_url={"type": "string"}), "allOf": [rule]
    }))  # fmt: skip
    assert "/ws_url" in operator.refused(
        INVALID, "invalid-values", "set", "tuner", "--file", "-", stdin="{}"
    )


# ── plans ──────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_whose_base_moved_says_who_moved_it_and_reaches_nobody(operator: Operator) -> None:
    """A9"""
    operator.schema("gate", level=LEVEL)
    operator.ok("set", "door", "level=0.1")
    operator.ok("set", "gate", "level=0.1")
    planned = ("--set", "door", "level=0.6", "--set", "gate", "level=0.6")
    with operator.instance(Lamp, "gate", "north") as north:
        plan = operator.ok("plan", *planned)["id"]
        bob = operator.server.http.post("/api/v1/tokens", json={"name": "bob", "role": "write"})
        written = InProcess(operator.server, bob.json()["token"]).ok("set", "door", "level=0.2")
        why = operator.refused(CONFLICT, "plan-stale", "apply", plan)
        assert f"door is at revision {written['revision']} by bob, not" in why
        assert operator.revision == written["revision"]
        assert (operator.stored("door"), operator.stored("gate")) == (
            {"level": 0.2}, {"level": 0.1},
        )  # fmt: skip
        shown = operator.ok("plans", "show", plan)
        assert shown["state"] == "failed"
        [moved] = shown["moved"]
        assert (moved["service"], moved["by"], moved["is"]) == ("door", "bob", written["revision"])
        operator.ok("set", "gate", "level=0.3")
        north.is_told(level=0.3)
        assert {"level": 0.6} not in north.changes


def test_a_plan_that_two_apply_at_the_same_moment_is_applied_once(operator: Operator) -> None:
    """A10. Two processes."""
    operator.schema("bell", level=LEVEL)
    operator.ok("set", "bell", "level=0.1")
    with operator.instance(Lamp, "bell", "porch") as porch:
        plan = operator.ok("plan", "--set", "bell", "level=0.6")["id"]
        before = operator.revision
        environment = {"CONFIG_MANAGER_TOKEN": TOKEN, "CONFIG_MANAGER_URL": operator.server.url}
        with ExitStack() as both:
            started = [
                both.enter_context(
                    subprocess.Popen(
                        [COMMAND, "apply", plan],
                        env={**environment, "PATH": os.environ["PATH"]},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
                for _ in range(2)
            ]
            ended = {one.communicate(timeout=20)[1]: one.returncode for one in started}
        assert sorted(ended.values()) == [OK, CONFLICT], ended
        assert "[plan-used]" in max(ended, key=ended.__getitem__)
        operator.refused(CONFLICT, "plan-used", "apply", plan)
        assert operator.revision == before + 1
        porch.is_told(level=0.6)
        operator.ok("set", "bell", "level=0.7")
        porch.is_told(level=0.7)
        assert [one["level"] for one in porch.changes][-2:] == [0.6, 0.7]


# ── the past, and back to it ───────────────────────────────────────────────────────────────────


def test_what_get_answered_then_is_answered_for_revision_and_time(operator: Operator) -> None:
    """A13. After 1,000 writes of every kind: test_past.py."""
    chance = random.Random(13)
    secret = {"service": "llm-worker", "name": "openai_api_key", "value": "sk-marked-secret"}
    assert operator.server.http.post("/api/v1/secrets", json=secret).status_code == 201
    answered: list[dict[str, Any]] = []
    for _ in range(WRITES):
        values = {"llm_timeout_sec": chance.randint(1, 60), "openai_model": chance.choice("abc")}
        del values[chance.choice(list(values))]
        operator.write("llm-worker", chance.choice(("PUT", "PATCH")), values)
        answered.append(operator.server.get("/api/v1/config/llm-worker").json())
    at_the_same_time = {one["updated_at"]: one for one in answered}
    for then in chance.sample(answered, 12):
        for query, wanted in (
            (("--revision", str(then["revision"])), then),
            (("--at", then["updated_at"]), at_the_same_time[then["updated_at"]]),
        ):
            told = operator.ok("get", "llm-worker", *query)
            assert told["config"]["openai_api_key"] == "********"
            assert {name: told[name] for name in wanted} == wanted


def test_what_todays_schema_refuses_is_said_before_anything_is_taken_back(
    operator: Operator,
) -> None:
    """A15"""
    operator.schema("desk", level=LEVEL)
    with operator.instance(Lamp, "desk", "left") as left:
        bright = operator.ok("set", "desk", "level=0.9")["revision"]
        operator.ok("set", "desk", "level=0.3")
        narrow = {**LEVEL, "maximum": 0.5}
        operator.schema("desk", "--allow-breaking", "--reason", "too bright", level=narrow)
        left.is_told(level=0.3)
        before, told = operator.revision, len(left.changes)
        for command in (
            ("desk", str(bright)),
            ("desk", str(bright), "--dry-run"),
            ("--everything", str(bright)),
        ):
            why = operator.refused(CONFLICT, "rollback-refused", "rollback", *command)
            assert "level: expected a number from 0 to 0.5" in why
        assert (operator.revision, operator.stored("desk")) == (before, {"level": 0.3})
        operator.ok("set", "desk", "level=0.2")
        left.is_told(level=0.2)
        assert len(left.changes) == told + 1


def test_values_of_then_move_as_the_schemas_since_say(operator: Operator) -> None:
    """A15, with `x-was`."""
    operator.schema("tape", wait_ms={"type": "integer", "minimum": 0, "x-unit": "ms"})
    then = operator.ok("set", "tape", "wait_ms=300")["revision"]
    operator.ok("set", "tape", "wait_ms=2000")
    was = {"key": "wait_ms", "multiply": [1, 1000]}
    operator.schema("tape", pause={"type": "number", "minimum": 0, "x-unit": "s", "x-was": was})
    with operator.instance(Pauses, "tape", "deck") as deck:
        deck.runs(pause=2)
        told = operator.ok("rollback", "tape", str(then), "--dry-run")
        assert told["changes"] == [{"key": "pause", "old": 2, "new": 0.3}]
        operator.ok("rollback", "tape", str(then))
        deck.runs(pause=0.3)


def test_everything_goes_back_and_what_was_not_there_then_is_kept_and_named(
    operator: Operator,
) -> None:
    """A16"""
    operator.ok("set", "old-one", "level=0.1")
    then = str(operator.revision)
    operator.ok("set", "old-one", "level=0.8")
    operator.ok("set", "new-one", "level=0.8")
    with (
        operator.instance(Lamp, "old-one", "x") as older,
        operator.instance(Lamp, "new-one", "x") as newer,
    ):
        older.runs(level=0.8)
        newer.runs(level=0.8)
        said = operator.run("rollback", "--everything", then, "--dry-run").out
        assert "new-one: was not there then, and stays as it is" in said.splitlines()
        back = operator.ok("rollback", "--everything", then)
        assert (back["kept"], back["services"]) == (["new-one"], ["old-one"])
        older.is_told(level=0.1)
        assert operator.stored("new-one") == {"level": 0.8}
        assert [one for one in newer.changes if one != {"level": 0.8}] == []
