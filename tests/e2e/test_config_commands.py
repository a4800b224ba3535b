"""A service's configuration by hand, at a real server: get, set, history, diff, rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import MOSQUITTO, TOKEN, Process, Processes, Server
from tests.kit.shell import in_process

STT = "stt-worker"


class Operator:
    def __init__(self, processes: Processes, server: Server) -> None:
        self.processes, self.server = processes, server

    def run(self, *command: str, stdin: str = "") -> tuple[int, str]:
        ended = in_process(
            *(*command, "--url", self.server.url), stdin=stdin, CONFIG_MANAGER_TOKEN=TOKEN
        )
        return ended.code, ended.said

    def ok(self, *command: str, stdin: str = "") -> str:
        code, text = self.run(*command, stdin=stdin)
        assert code == 0, text
        return text

    def stored(self, service: str) -> Any:
        return json.loads(self.ok("get", service, "--stored", "--json"))["config"]


@pytest.fixture(scope="module")
def operator(module_shop: tuple[Processes, Path]) -> Operator:
    processes, directory = module_shop
    url = processes.broker(directory / "broker").url if MOSQUITTO else "none:"
    return Operator(processes, processes.server(directory / "data", url))


def test_a_key_is_set_shown_and_unset_and_the_others_stay(operator: Operator) -> None:
    text = operator.ok(
        "set", STT, "vad_threshold=0.25", "whisper_model=base.en", "--reason", "a test"
    )
    assert text.splitlines()[:2] == ["+ vad_threshold = 0.25", '+ whisper_model = "base.en"']
    assert operator.ok("get", STT, "whisper_model") == "base.en\n"
    assert operator.ok("get", STT, "vad_threshold") == "0.25\n"
    table = operator.ok("get", STT).splitlines()
    assert ["vad_threshold", "0.25"] in [line.split() for line in table]
    assert any(line.split()[-1:] == ["default"] for line in table)
    text = operator.ok("set", STT, "vad_threshold=0.5", "--unset", "whisper_model")
    assert text.splitlines()[:3] == [
        "- vad_threshold = 0.25",
        "+ vad_threshold = 0.5",
        '- whisper_model = "base.en"',
    ]
    assert operator.stored(STT) == {"vad_threshold": 0.5}
    assert operator.run("get", STT, "no_such_key")[0] == 6
    assert operator.run("get", "no-such-service")[0] == 6


def test_a_value_is_json_where_it_parses_else_text(operator: Operator) -> None:
    given = [
        "a=1",
        "b=1.0",
        "c=true",
        "d=null",
        "e=[1,2]",
        'f={"x":1}',
        "g=en US",
        'h="5"',
        "i=",
        "j=NaN",
    ]
    operator.ok("set", "types", *given)
    stored = operator.stored("types")
    assert stored == {
        "a": 1,
        "b": 1.0,
        "c": True,
        "d": None,
        "e": [1, 2],
        "f": {"x": 1},
        "g": "en US",
        "h": "5",
        "i": "",
        "j": "NaN",
    }
    assert isinstance(stored["b"], float)
    operator.ok("set", "types", 'f={"y":2}')
    assert operator.stored("types")["f"] == {"y": 2}, "an object is set, not merged"


def test_a_file_replaces_everything(operator: Operator) -> None:
    operator.ok("set", "filed", "a=1", "b=2")
    operator.ok("set", "filed", "--file", "-", stdin='{"b": 3}')
    assert operator.stored("filed") == {"b": 3}
    for wrong in ("[]", "{", ""):
        assert operator.run("set", "filed", "--file", "-", stdin=wrong)[0] == 2
    assert operator.run("set", "filed", "a=1", "--file", "-", stdin="{}")[0] == 2
    assert operator.run("set", "filed")[0] == 2
    assert operator.run("set", "filed", "a")[0] == 2


def test_what_is_not_allowed_is_told_by_the_field(operator: Operator) -> None:
    code, text = operator.run("set", STT, "vad_threshold=7", "no_such_key=1")
    assert code == 2
    assert "/vad_threshold" in text
    assert "/no_such_key" in text
    code, text = operator.run("set", "llm-worker", "openai_api_key=sk-oops")
    assert (code, "sk-oops" in text) == (2, False), "a secret has a command of its own"


def test_a_dry_run_changes_nothing_and_a_revision_is_held_to(operator: Operator) -> None:
    operator.ok("set", "held", "a=1")
    at = json.loads(operator.ok("get", "held", "--json"))["revision"]
    text = operator.ok("set", "held", "a=2", "--dry-run")
    assert text.splitlines() == [
        "- a = 1",
        "+ a = 2",
        f"nothing was changed: held stays at revision {at}",
    ]
    assert operator.stored("held") == {"a": 1}
    assert operator.run("set", "held", "a=2", "--revision", str(at - 1))[0] == 7
    operator.ok("set", "held", "a=2", "--revision", str(at))


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_write_can_wait_for_a_broker(operator: Operator) -> None:
    assert "a broker holds it" in operator.ok("set", "held", "a=3", "--wait", "5")


def test_history_says_who_what_when_and_why(operator: Operator) -> None:
    operator.ok("set", "told", "a=1", "--reason", "the first")
    operator.ok("set", "told", "a=2", "b=x")
    header, newest, oldest = operator.ok("history", "told").splitlines()
    assert header.split() == ["REVISION", "AT", "BY", "ACTION", "WHAT", "REASON"]
    assert 'a: 1 → 2; b: - → "x"' in newest
    assert oldest.endswith("a: - → 1              the first")
    answer = json.loads(operator.ok("history", "told", "--key", "b", "--json"))
    assert len(answer["entries"]) == 1
    assert operator.run("history", "no-such-service")[0] == 6


class Past:
    """A service with a past: written thrice, deleted, written again."""

    def __init__(self, operator: Operator, name: str) -> None:
        self.name = name
        self.revisions: list[int] = []
        self.states: list[dict[str, Any]] = [
            {"a": 1},
            {"a": 2, "b": "x"},
            {"b": "x", "c": [1, {"d": 2}]},
        ]
        for state in self.states:
            self.write(operator, state)
        answer = operator.server.http.delete(f"/api/v1/config/{name}").json()
        self.deleted_at = answer["revision"]
        self.write(operator, {"z": 0})

    def write(self, operator: Operator, state: dict[str, Any]) -> None:
        answer = operator.server.put(self.name, state).json()
        self.revisions.append(answer["revision"])
        operator.server.put("somebody-else", {})


def test_diff_tells_two_revisions_apart(operator: Operator) -> None:
    past = Past(operator, "differs")
    first, second, third, last = map(str, past.revisions)
    assert operator.ok("diff", "differs", first, second).splitlines() == [
        "- a = 1",
        "+ a = 2",
        '+ b = "x"',
    ]
    answer = json.loads(operator.ok("diff", "differs", second, third, "--json"))
    assert answer["changes"] == [
        {"key": "a", "old": 2, "new": None},
        {"key": "c", "old": None, "new": [1, {"d": 2}]},
    ]
    assert operator.ok("diff", "differs", last) == "no difference\n"
    assert operator.ok("diff", "differs") == "+ z = 0\n"
    assert operator.run("diff", "differs", str(past.deleted_at))[0] == 6
    assert operator.run("diff", "differs", "1")[0] in (0, 6)


def test_a_rollback_is_a_new_revision_with_what_was_there_then(operator: Operator) -> None:
    past = Past(operator, "rolls")
    for state, revision in zip(past.states, past.revisions, strict=False):
        text = operator.ok("rollback", "rolls", str(revision), "--dry-run")
        assert "nothing was changed" in text
        operator.ok("rollback", "rolls", str(revision))
        assert operator.stored("rolls") == state
        # a revision of somebody else in between means the same
        operator.ok("rollback", "rolls", str(revision + 1))
        assert operator.stored("rolls") == state
    entries = json.loads(operator.ok("history", "rolls", "--json"))["entries"]
    assert entries[1]["reason"] == f"rollback to revision {past.revisions[2]}"
    assert len(entries) == 5 + 6
    code, text = operator.run("rollback", "rolls", str(past.deleted_at))
    assert (code, "deleted" in text) == (6, True)
    assert operator.run("rollback", "rolls", str(past.revisions[0] - 1))[0] == 6


def test_a_rollback_brings_a_deleted_service_back_and_leaves_secrets_alone(
    operator: Operator,
) -> None:
    revision = operator.server.put("llm-worker", {"llm_timeout_sec": 7.5}).json()["revision"]
    secret = {"service": "llm-worker", "name": "openai_api_key", "value": "sk-marked-secret"}
    assert operator.server.http.post("/api/v1/secrets", json=secret).status_code == 201
    operator.server.put("llm-worker", {})
    text = operator.ok("rollback", "llm-worker", str(revision))
    answer = json.loads(operator.ok("get", "llm-worker", "--json"))
    assert answer["config"]["llm_timeout_sec"] == 7.5
    assert answer["config"]["openai_api_key"] == "********"
    assert "sk-marked" not in text
    operator.server.http.delete("/api/v1/config/llm-worker")
    operator.ok("rollback", "llm-worker", str(revision))
    assert operator.stored("llm-worker") == {"llm_timeout_sec": 7.5}


def test_a_schema_from_the_first_one_to_a_breaking_one_that_is_caught(
    operator: Operator, tmp_path: Path
) -> None:
    level: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
    file = tmp_path / "lamp.json"

    def write(**properties: Any) -> str:
        closed = {"type": "object", "additionalProperties": False}
        file.write_text(json.dumps({**closed, "properties": properties}))
        return str(file)

    assert operator.run("schema", "get", "lamp")[0] == 6
    text = operator.ok("schema", "put", "lamp", write(level=level), "--reason", "it is typed now")
    assert text.splitlines()[-1] == "lamp: version 1 is active"
    assert json.loads(operator.ok("schema", "get", "lamp")) == json.loads(file.read_text())
    code, text = operator.run("set", "lamp", "levle=0.4")
    assert (code, "did you mean level?" in text) == (2, True)
    operator.ok("set", "lamp", "level=0.9")

    write(level={**level, "maximum": 0.5})
    code, text = operator.run("schema", "check", "lamp", str(file))
    assert code == 7
    assert "stored in base: level = 0.9: expected a number from 0 to 0.5" in text
    code, text = operator.run("schema", "put", "lamp", str(file))
    assert (code, "/level: stored: 0.9: expected" in text) == (7, True)
    assert operator.run("schema", "put", "lamp", str(file), "--allow-breaking")[0] == 2

    renamed = {**level, "x-was": {"key": "level"}}
    assert operator.run("schema", "check", "lamp", write(brightness=renamed))[0] == 0
    text = operator.ok("schema", "put", "lamp", str(file), "--wait", "5")
    assert "level → brightness renamed" in text
    assert operator.stored("lamp") == {"brightness": 0.9}
    again = operator.ok("schema", "put", "lamp", str(file))
    assert again.splitlines()[-1] == "version 2 is the same schema; nothing was changed"

    rows = operator.ok("schema", "history", "lamp").splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["2*", "1"]
    assert rows[1].endswith("it is typed now")
    assert "level → brightness renamed" in operator.ok("schema", "diff", "lamp")
    listed = operator.ok("schema", "get")
    assert [line.split()[:3] for line in listed.splitlines() if "lamp" in line] == [
        ["lamp", "2", "put"]
    ]
    assert operator.run("schema", "adopt", "lamp", "ab")[0] == 2
    assert "takes any values" in operator.ok("schema", "delete", "lamp", "--reason", "enough")
    assert operator.run("schema", "delete", "lamp")[0] == 6
    for wrong in ("[]", "{"):
        file.write_text(wrong)
        assert operator.run("schema", "put", "lamp", str(file))[0] == 2


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_bad_epoch_is_taken_back_with_one_command_by_every_client(
    operator: Operator, tmp_path: Path
) -> None:
    """A14."""
    server, processes = operator.server, operator.processes
    names = ["hall", "porch", "yard"]
    for name in names:
        server.put(name, {"level": 1})
    clients: list[Process] = []
    for name in names:
        processes.pin(tmp_path / name, server.data_dir / "trust" / "root.json")
        mqtt_url = server.ready["mqtt_url"]
        clients.append(processes.follow(tmp_path / name, name, mqtt_url))
    bad = {"services": {name: {"level": 9} for name in names}}
    revision = server.http.post("/api/v1/config/epoch", json=bad).json()["revision"]
    for client in clients:
        client.event("applied", config={"level": 9})
    shown = operator.ok("rollback", "--last", "--dry-run").splitlines()
    assert shown[:4] == [
        f"takes back revision {revision}", "hall:", "  - level = 9", "  + level = 1"
    ]  # fmt: skip
    assert shown[-1] == "nothing was changed"
    said = operator.ok("rollback", "--last", "--reason", "too bright").splitlines()[-1]
    assert said.startswith(f"hall, porch, yard are at revision {revision + 1}")
    for client in clients:
        client.event("applied", revision=revision + 1, config={"level": 1})


def test_the_past_is_read_compared_explained_and_searched(operator: Operator) -> None:
    first = operator.server.put("attic", {"host": "old.example", "level": 1}).json()
    second = operator.server.put("attic", {"host": "new.example", "level": 1}).json()
    revision = str(first["revision"])
    assert operator.ok("get", "attic", "host", "--revision", revision) == "old.example\n"
    assert operator.ok("get", "attic", "host", "--at", first["updated_at"]) == "old.example\n"
    assert operator.run("get", "attic", "--at", "2001-01-01T00:00:00Z")[0] == 6
    assert operator.run("get", "attic", "--revision", "1", "--at", first["updated_at"])[0] == 2
    gone = ['- host = "old.example"', '+ host = "new.example"']
    assert operator.ok("diff", "attic", first["updated_at"], "now").splitlines() == gone
    assert operator.run("diff", "attic", "profile:night")[0] == 2
    said = operator.ok("explain", "attic", "host").splitlines()
    assert said[1].split()[:5] == [
        "host",
        '"new.example"',
        "base",
        "revision",
        f"{second['revision']},",
    ]
    assert operator.run("explain", "attic", "no_such")[0] == 6
    found = operator.ok("search", "OLD.example", "--in", "values,history").splitlines()
    assert [line.split()[:2] for line in found[1:]] == [["attic", "host"]] * 2
    assert operator.run("search", "")[0] == 2


def test_one_change_in_the_middle_is_taken_back_and_a_conflict_names_the_key(
    operator: Operator,
) -> None:
    operator.server.put("cellar", {"a": 1, "b": 1})
    middle = str(operator.server.put("cellar", {"a": 2, "b": 2}).json()["revision"])
    operator.server.put("cellar", {"a": 2, "b": 3})
    code, text = operator.run("rollback", "--undo", middle)
    assert (code, "cellar b was written since" in text) == (7, True)
    operator.ok("rollback", "--undo", middle, "--key", "b", "--yes")
    assert operator.stored("cellar") == {"a": 1, "b": 1}
    assert operator.run("rollback", "--undo", middle)[0] == 7
    assert operator.run("rollback")[0] == 2
