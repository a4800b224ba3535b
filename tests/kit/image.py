"""deploy/Dockerfile as what it makes: its steps are read, and those that need no container engine are done."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.kit.installed import ROOT
from tests.kit.processes import Process, Processes, free_port

FILE = ROOT / "deploy" / "Dockerfile"
IS_ROOT = os.geteuid() == 0
SETPRIV = shutil.which("setpriv")


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a RUN."""
        return [shlex.split(one) for one in self.text.split("&&")]


def stages(text: str) -> list[list[Step]]:
    """The steps of each stage, from its FROM on."""
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    lines = without_comments.replace("\\\n", " ").splitlines()
    found: list[list[Step]] = []
    for step in (Step(*line.split(maxsplit=1)) for line in lines if line.strip()):
        if step.name == "FROM":
            found.append([])
        found[-1].append(step)
    return found


class Image:
    """The last stage: what the image has. The one before it builds."""

    def __init__(self) -> None:
        self.build, self.steps = stages(FILE.read_text())

    def at(self, name: str) -> int:
        """Where the one step of this name stands."""
        [place] = [n for n, step in enumerate(self.steps) if step.name == name]
        return place

    def text(self, name: str) -> str:
        return self.steps[self.at(name)].text

    def commands(self, program: str) -> list[tuple[int, list[str]]]:
        """Each command of this program that a RUN runs, with the place of its step."""
        return [
            (place, words)
            for place, step in enumerate(self.steps)
            if step.name == "RUN"
            for words in step.commands
            if words[0] == program
        ]

    @property
    def volume(self) -> str:
        return self.text("VOLUME")

    @property
    def home(self) -> str:
        return self.text("WORKDIR")

    @cached_property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in shlex.split(self.text("ENV")))

    @property
    def user(self) -> tuple[int, int]:
        uid, _, gid = self.text("USER").partition(":")
        return int(uid), int(gid)

    @property
    def command(self) -> list[str]:
        return [*json.loads(self.text("ENTRYPOINT")), *json.loads(self.text("CMD"))]

    @property
    def health_check(self) -> list[str]:
        command: list[str] = json.loads(self.text("HEALTHCHECK").partition("CMD ")[2])
        return command


class BuildContext:
    """What `COPY . .` takes of a checkout, by its .dockerignore."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        lines = (root / ".dockerignore").read_text().splitlines()
        self._patterns = [line for line in lines if line and not line.startswith("#")]

    def leaves_out(self, name: str) -> bool:
        """The last pattern that a file, or a folder above it, matches decides."""
        path, found = Path(name), False
        every = [str(one) for one in (path, *path.parents)]
        for pattern in self._patterns:
            regex = _as_regex(pattern.removeprefix("!"))
            if any(regex.fullmatch(one) for one in every):
                found = not pattern.startswith("!")
        return found

    def files(self) -> set[str]:
        found: set[str] = set()
        for folder, folders, names in os.walk(self._root):
            here = Path(folder).relative_to(self._root)
            found |= {str(here / name) for name in names if not self.leaves_out(str(here / name))}
            folders[:] = [one for one in folders if self._may_hold(str(here / one))]
        return found

    def _may_hold(self, folder: str) -> bool:
        back_in = any(pattern.startswith(f"!{folder}/") for pattern in self._patterns)
        return back_in or not self.leaves_out(folder)


def _as_regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    translated = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(translated.get(part) or re.escape(part) for part in parts))


class Container:
    """What the image makes of a directory that stands for its root. Its processes are the image's user
    where we are root, else we ourselves."""

    def __init__(self, processes: Processes, root: Path, image: Image) -> None:
        self._processes = processes
        self.root = root
        self.image = image
        self.port = free_port()
        host = image.environment["CONFIG_MANAGER_BIND"].rpartition(":")[0]
        self.environment = {
            **{name: self.inside(value) for name, value in image.environment.items()},
            "CONFIG_MANAGER_BIND": f"{host}:{self.port}",
            "CONFIG_MANAGER_MQTT_URL": "none:",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        root.chmod(0o755)

    def inside(self, path: str) -> str:
        return f"{self.root}{path}" if path.startswith("/") else path

    def path(self, path: str) -> Path:
        return Path(self.inside(path))

    @property
    def data(self) -> Path:
        return self.path(self.image.volume)

    def make_directories(self) -> None:
        """By the image's own commands."""
        self.path("/var/lib").mkdir(parents=True)
        for _, words in self.image.commands("install"):
            owned = [self.inside(word) for word in words]
            if not IS_ROOT:  # who may give nothing away
                owned = re.sub(r" -[og] \d+", "", shlex.join(owned)).split()
            subprocess.run(owned, check=True)

    def bind(self, host: str) -> None:
        self.environment["CONFIG_MANAGER_BIND"] = f"{host}:{self.port}"

    def give(self, path: Path) -> Path:
        """A file that is the user's."""
        path.chmod(0o400)
        if IS_ROOT:
            os.chown(path, *self.image.user)
        return path

    def start(self, argv: list[str], *, before: Sequence[str] = (), **more: str) -> Process:
        """before: a command that root runs, which goes on as ours."""
        return self._processes.start(
            [*before, *self._as_user(), *argv],
            env={**self.environment, **more},
            cwd=self.path(self.image.home),
        )

    def serve(self, **more: str) -> Process:
        return self.start(self.image.command, **more)

    def check_health(self, **more: str) -> tuple[int, str]:
        process = self.start(self.image.health_check, **more)
        return process.wait(), "\n".join(process.text)

    def _as_user(self) -> list[str]:
        if not IS_ROOT:
            return []
        uid, gid = self.image.user
        # Without a capability, but for one that an image needs not: to read the checkout and its Python,
        # which may lie where only root gets to. It writes nothing.
        kept = ",".join(["-all", *([] if _everybody_reads_python() else ["+dac_read_search"])])
        return [
            *(str(SETPRIV), f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
            *(f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"),
            "--no-new-privs",
        ]


def _everybody_reads_python() -> bool:
    python = Path(sys.executable)
    places = [ROOT, python.parent, python.resolve().parent]
    every = {above for place in places for above in (place, *place.parents)}
    return all(place.stat().st_mode & stat.S_IXOTH for place in every)
