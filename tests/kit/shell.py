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

from config_manager.api.main import main
from tests.kit.processes import COMMAND, TOKEN, Server


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


class Ended(NamedTuple):
    """A command that has ended: its exit code, and what it said."""

    code: int
    out: str
    err: str


class InProcess:
    """The same command without a process of its own, which costs 0.2 s; for one thread at a time."""

    def __init__(self, server: Server, token: str = TOKEN) -> None:
        self._environment = {"CONFIG_MANAGER_URL": server.url, "CONFIG_MANAGER_TOKEN": token}

    def run(self, *arguments: str, stdin: str = "") -> Ended:
        argv = ["config-manager", *arguments]
        runner = CliRunner()
        with (
            runner.isolation(stdin, self._environment) as (out, err, _),
            mock.patch.object(sys, "argv", argv),
        ):
            try:
                main()
            except SystemExit as ended:
                code = ended.code
            sys.stdout.flush()
            sys.stderr.flush()
            assert isinstance(code, int)
            return Ended(code, out.getvalue().decode(), err.getvalue().decode())

    def ok(self, *arguments: str, stdin: str = "") -> Any:
        """What it answers with --json."""
        ended = self.run(*arguments, "--json", stdin=stdin)
        assert ended.code == 0, ended
        return json.loads(ended.out)
