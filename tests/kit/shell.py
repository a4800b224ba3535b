"""A shell as an operator has one: its `config-manager` asks one server."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.kit.processes import COMMAND, Server


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
