"""The `secret` commands on a real server: an operator's day with one secret."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import COMMAND, TOKEN, Processes, Server

VALUE = "conspicuous-ünïcode 'quoted'\twith\nlines"


@pytest.fixture(scope="module")
def alone(module_shop: tuple[Processes, Path]) -> Server:
    processes, directory = module_shop
    return processes.server(directory / "data", "none:")


def secret(server: Server, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [COMMAND, "secret", *arguments, "--url", server.url],
        input=stdin.encode(),
        capture_output=True,
        timeout=20,
        check=False,
        env={**os.environ, "CONFIG_MANAGER_TOKEN": TOKEN},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def shown(server: Server, *arguments: str) -> Any:
    code, out, err = secret(server, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_day_with_a_secret(alone: Server, tmp_path: Path) -> None:
    assert "no secrets yet" in secret(alone, "list")[1]
    code, out, err = secret(alone, "set", "door", "pin", stdin=VALUE + "\n")
    assert (code, err) == (0, "")
    assert "version 1" in out
    file = tmp_path / "value"
    file.write_text("from a file\n")
    assert "version 2" in secret(alone, "set", "door", "pin", "--file", str(file))[1]

    listed = secret(alone, "list")[1]
    assert [line.split()[:4] for line in listed.splitlines()] == [
        ["SERVICE", "NAME", "VERSION", "KEPT"],
        ["door", "pin", "2", "2"],
    ]
    assert [v["version"] for v in shown(alone, "versions", "door", "pin")["versions"]] == [1, 2]

    code, out, _ = secret(alone, "reveal", "door", "pin", "--reason", "a look")
    assert (code, out) == (0, "from a file\n")
    code, out, _ = secret(alone, "reveal", "door", "pin", "--reason", "a look", "--version", "1")
    assert (code, out) == (0, VALUE)

    assert secret(alone, "delete", "door", "pin")[0] == 2
    code, out, _ = secret(alone, "delete", "door", "pin", "--yes")
    assert code == 0
    assert "deleted" in out
    assert secret(alone, "reveal", "door", "pin", "--reason", "again")[0] == 6
    assert secret(alone, "delete", "door", "pin", "--yes")[0] == 6
    assert "version 3" in secret(alone, "set", "door", "pin", stdin="back")[1]


def test_a_value_is_never_taken_from_the_command_line(alone: Server) -> None:
    code, _, err = secret(alone, "set", "door", "pin", "a-value-in-argv")
    assert code == 2
    assert "a-value-in-argv" not in alone.process.argv
    assert "argument" in err


@pytest.mark.parametrize(("stdin", "why"), [("", "empty"), ("\n", "empty")])
def test_an_empty_value_is_not_stored(alone: Server, stdin: str, why: str) -> None:
    code, _, err = secret(alone, "set", "door", "empty", stdin=stdin)
    assert code == 2
    assert why in err


def test_a_reveal_without_a_reason_is_a_usage_error_and_an_empty_one_is_refused(
    alone: Server,
) -> None:
    secret(alone, "set", "door", "code", stdin="1234")
    assert secret(alone, "reveal", "door", "code")[0] == 2
    code, out, _ = secret(alone, "reveal", "door", "code", "--reason", " ")
    assert (code, out) == (2, "")


def test_no_line_that_the_server_wrote_holds_a_value(alone: Server) -> None:
    secret(alone, "set", "door", "loud", stdin="conspicuous-in-logs")
    secret(alone, "reveal", "door", "loud", "--reason", "conspicuous-reason")
    said = "\n".join(alone.process.text)
    assert "secret.reveal" in said
    assert "conspicuous-in-logs" not in said
    for path in alone.data_dir.rglob("*"):
        if path.is_file():
            assert b"conspicuous-in-logs" not in path.read_bytes(), path
