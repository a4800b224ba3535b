"""A shell as an operator has one: its `config-manager` asks one server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from click.testing import CliRunner
from structlog.testing import capture_logs

from config_manager.api.main import main
from tests.kit.processes import COMMAND, TOKEN, Processes, Server


def steps_of(page: Path) -> str:
    """The commands of a page's walk-through, in order: its blocks of sh."""
    return "".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL))


class Shell:
    """A shell in a directory of its own. more: variables beside those that the command needs."""

    def __init__(
        self, server: Server, directory: Path, more: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self._environment = {
            "CONFIG_MANAGER_URL": server.url,
            "PATH": f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            **(more or {}),
        }

    def walk(self, page: Path) -> tuple[int, str]:
        """The page's commands in order, until one fails; what it started in the background ends with it."""
        at_end = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
        return self.run("bash", "-ec", at_end + steps_of(page))

    def run(self, *command: str, stdin: str = "") -> tuple[int, str]:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def walked(shop: tuple[Processes, Path], page: Path) -> tuple[Server, str]:
    """What a page's commands say at a broker and a server of their own, in development, if all of them succeed."""
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url, "--dev")
    shell = Shell(server, directory, {"CONFIG_MANAGER_MQTT_URL": broker.url})
    code, said = shell.walk(page)
    assert code == 0, said
    return server, said


class Ended(NamedTuple):
    """A command that has ended: its exit code, and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def lines(self) -> list[Any]:
        """What it says to programs."""
        return [json.loads(line) for line in self.out.splitlines()]


def in_process(*arguments: str, stdin: str = "", **environment: str) -> Ended:
    """`config-manager` without a process of its own, which costs 0.2 to 0.5 s; for one thread at a time.

    Of the environment's own CONFIG_MANAGER_ variables it sees none. What is for the whole process is left out: this
    one goes on, so its log stays as it is (the errors are in `err`), and it may be debugged.
    """
    none_of_ours = {name: None for name in os.environ if name.startswith("CONFIG_MANAGER_")}
    with (
        CliRunner().isolation(stdin, {**none_of_ours, **environment}) as (out, err, _),
        mock.patch.object(sys, "argv", ["config-manager", *arguments]),
        mock.patch("config_manager.config.logging.configure"),
        mock.patch("config_manager.api.commands.local.forbid_dumps"),
        capture_logs() as logged,
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        assert isinstance(code, int)
        for one in logged:
            if one["log_level"] in ("error", "critical"):
                sys.stderr.write(f"{one}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        return Ended(code, out.getvalue().decode(), err.getvalue().decode())


class InProcess:
    """Commands that ask one server, as `in_process` runs them."""

    def __init__(self, server: Server, token: str = TOKEN) -> None:
        self._environment = {"CONFIG_MANAGER_URL": server.url, "CONFIG_MANAGER_TOKEN": token}

    def run(self, *arguments: str, stdin: str = "") -> Ended:
        return in_process(*arguments, stdin=stdin, **self._environment)

    def ok(self, *arguments: str, stdin: str = "") -> Any:
        """What it answers with --json."""
        ended = self.run(*arguments, "--json", stdin=stdin)
        assert ended.code == 0, ended
        return json.loads(ended.out)
