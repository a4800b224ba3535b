"""What all commands have in common: `--json`, completion, colours on a terminal alone."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from config_manager.api.main import cli
from config_manager.config.colours import wants_colours
from tests.kit.processes import COMMAND

BASH = shutil.which("bash")
_ESCAPE = re.compile(rb"\x1b\[")


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            inside = click.Context(command, parent=context, info_name=name)
            for words, found in commands(command, inside):
                yield f"{name} {words}", found
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command


ALL = dict(commands(cli, click.Context(cli)))


def test_every_command_prints_json_if_it_is_asked_to_and_says_what_it_is_for() -> None:
    assert {"serve", "client run", "trust sign", "get", "plans list", "completion"} <= ALL.keys()
    options = {words: [o for p in one.params for o in p.opts] for words, one in ALL.items()}
    assert [words for words, given in options.items() if "--json" not in given] == []
    assert [words for words, one in ALL.items() if not (one.help or "").strip()] == []


def test_what_is_made_without_a_server_is_told_in_json(tmp_path: Path) -> None:
    def told(*arguments: str | Path) -> dict[str, Any]:
        result = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        (line,) = result.stdout.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found

    data, key = tmp_path / "data", tmp_path / "offline.key"
    made = told("init", "--data-dir", data)
    assert made["made"] is True
    assert made["trust_root"] == str(data / "trust" / "root.json")
    assert Path(str(made["admin_token_file"])).read_text().strip()
    recovery = tmp_path / "recovery"
    recovery.write_text(str(made["recovery_key"]))
    again = told("init", "--data-dir", data)
    assert again["made"] is False
    assert "recovery_key" not in again, "it is shown once"
    assert told("rotate-db-key", "--data-dir", data) == {
        "db_key_file": str(data / "keys" / "db.key")
    }
    (data / "keys" / "beacon.key").unlink()
    put_back = told("recover", "--data-dir", data, "--recovery-key-file", recovery)
    assert put_back == {"keys_dir": str(data / "keys"), "put_back": ["beacon.key"]}
    offline = told("trust", "make-key", "--out", key)
    assert offline["public"] == f"{key}.pub"
    moved = told("trust", "export-root", "--data-dir", data, "--to", tmp_path / "stick")
    assert moved["moved"] == ["root.key"]
    signed = told(
        *("trust", "sign", "--yes", "--key", tmp_path / "stick" / "root.key"),
        *("--in", moved["root"], "--out", tmp_path / "signed.json"),
    )
    assert signed["version"] == 1
    state = tmp_path / "state"
    pinned = told("client", "trust", "init", "--state", state, "--root", moved["root"])
    assert pinned["root_version"] == 1


# ── completion ─────────────────────────────────────────────────────────────────────────────────

_ASKS_BASH = """
source "$1"
COMP_WORDS=(config-manager "${@:2}"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_config_manager_completion config-manager
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_choices(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    printed = CliRunner().invoke(cli, ["completion", "bash"])
    script.write_text(printed.output)
    environment = {**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}

    def completed(*words: str) -> list[str]:
        assert BASH is not None
        done = subprocess.run(
            [BASH, "--norc", "-c", _ASKS_BASH, "-", script, *words],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert completed("se") == ["search", "secret", "serve", "set"]
    assert completed("secret", "rot") == ["rotate-key"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]
    assert "--json" in completed("get", "--")


def test_every_shell_gets_its_script_and_an_unknown_one_is_told_which_there_are() -> None:
    for shell, begins in (("zsh", "#compdef config-manager"), ("fish", "function ")):
        told = CliRunner().invoke(cli, ["completion", shell, "--json"])
        said = json.loads(told.output)
        assert said["shell"] == shell
        assert said["script"].strip().startswith(begins)
        assert "_CONFIG_MANAGER_COMPLETE" in said["script"]
    unknown = CliRunner().invoke(cli, ["completion", "csh"])
    assert unknown.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in unknown.output


# ── colours ────────────────────────────────────────────────────────────────────────────────────

_LOGS = """
import sys
from config_manager.config.logging import configure, flush
import structlog
configure("console", "info")
structlog.get_logger().error("a line", actor="test")
flush()
from config_manager.api.commands.output import table
for line in table(("NAME", "STATE", "WHY"), [("late", "late", "")], {"STATE": {"late": "red"}}):
    print(line)
"""


def on_a_terminal(argv: list[str], **environment: str) -> bytes:
    """What a program prints if its output is one."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        argv, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **environment}
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            said += piece
        os.close(ours)
        assert process.wait() == 0, said
    return said


def test_colours_are_for_a_terminal_that_wants_them() -> None:
    argv = [sys.executable, "-c", _LOGS]
    coloured = on_a_terminal(argv, NO_COLOR="")  # an empty one says nothing
    assert b"\x1b[1ma line" in coloured
    assert b"late  \x1b[31mlate\x1b[0m" in coloured, "the column that has colours, and no other"
    refused = on_a_terminal(argv, NO_COLOR="1")
    assert b"a line" in refused
    assert b"late  late" in refused
    assert not _ESCAPE.search(refused)
    piped = subprocess.run(argv, capture_output=True, env={**os.environ, "TERM": "xterm"})
    assert b"a line" in piped.stdout
    assert b"NAME  STATE  WHY\nlate  late" in piped.stdout
    assert not _ESCAPE.search(piped.stdout)


def test_no_colours_without_a_terminal_or_on_one_that_has_none() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert wants_colours(Terminal(), {})
    assert not wants_colours(Terminal(), {"TERM": "dumb"})
    assert not wants_colours(io.StringIO(), {})
    assert not wants_colours(None, {})
