"""A root directory of its own for each stage of deploy/Dockerfile, and its steps done there one by one.

There is no engine and no base image. What stands for `python:3.11-slim` is this machine's own root, under an
overlay that takes all writes, with an empty Python environment first in PATH. The overlay lies in memory,
in a mount namespace of its own: when the process that holds it ends, nothing is left.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from tests.kit.image import SETPRIV, BuildContext, Image, Step
from tests.kit.installed import ROOT
from tests.kit.processes import Process, Processes, descendants, eventually

_HOLD = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/root/tmp"
echo '{"event": "mounted"}'
exec sleep infinity
"""
_PYTHON = "/opt/python"
_PATH = f"{_PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_RUN = """
set -e
ip link set lo up
mount -t proc proc "$1/proc"
if [ "$2" ]; then mount -t tmpfs -o "$3" tmpfs "$1$2"; fi
mount -o remount,ro "$1"
root=$1
shift 3
exec chroot "$root" "$@"
"""


def why_not() -> str | None:
    """Why none can be made here."""
    if os.geteuid() != 0:
        return "only root mounts"
    if missing := [one for one in ("unshare", "nsenter", "chroot", "ip") if not shutil.which(one)]:
        return f"no {missing[0]}"
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False)
    return "no namespaces here" if done.returncode else None


@dataclass(frozen=True, slots=True)
class Volume:
    """What is mounted where the image says VOLUME: by default what an engine makes of a new one."""

    uid: int
    mode: str

    @property
    def options(self) -> str:
        return f"uid={self.uid},gid={self.uid},mode={self.mode}"


class PlainRoot:
    """One stage."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self._folder = folder
        folder.mkdir()
        self._holder = processes.start(["unshare", "--mount", "sh", "-c", _HOLD, "sh", str(folder)])
        self._holder.event("mounted")
        self.directory = "/"
        self.environment: dict[str, str] = {}
        self._make_plain()

    @property
    def seen_from_here(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{self._folder}/root")

    def do(self, step: Step, stages: Mapping[str, PlainRoot]) -> None:
        """FROM, ENTRYPOINT and the like only say how it is run."""
        if step.name == "RUN":
            self._run(["sh", "-ec", f"cd {shlex.quote(self.directory)}; {step.text}"])
        elif step.name == "WORKDIR":
            self.directory = step.text
            self._here(step.text).mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            self._copy(shlex.split(step.text), stages)
        elif step.name == "VOLUME":
            assert self._here(step.text).is_dir(), "an engine would make it, as root's"

    def start(
        self, image: Image, argv: Sequence[str], *, volume: Volume | None = None, **more: str
    ) -> Process:
        """As its user, as the first process of a container with a network of its own, read-only but for
        its volume."""
        place = image.volume if volume else ""
        return self._processes.start(
            [
                *self._enter("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"),
                *("sh", "-c", _RUN, "sh", f"{self._folder}/root", place),
                volume.options if volume else "",
                *self._as(image, argv, more),
            ]
        )

    def exec(self, image: Image, beside: Process, argv: Sequence[str]) -> tuple[int, str]:
        """As `docker exec` does it: in the namespaces of one that runs."""
        first = self.first(beside)
        process = self._processes.start(
            [
                *("nsenter", "--target", str(first), "--mount", "--net", "--pid", "--root"),
                *self._as(image, argv, {}),
            ]
        )
        return process.wait(), "\n".join(process.text)

    def first(self, process: Process) -> int:
        """The id, here, of what is the first process there."""

        def found() -> int | None:
            below = descendants(process.pid)
            return next((pid for pid in below if _id_inside(pid) == "1"), None)

        return eventually(found, within=10, what="a container's first process")

    @cached_property
    def _base(self) -> str:
        return str(Path(sys.executable).resolve())

    def _make_plain(self) -> None:
        """No user but those that every Debian has, and a Python where nothing is installed."""
        users = "cd /usr/share/base-passwd; for of in passwd group; do cp $of.master /etc/$of; done"
        self._run(["sh", "-ec", f"{users}; rm -f /etc/shadow /etc/gshadow; pwconv; grpconv"])
        for above in Path(self._base).parents:  # may be only root's to enter
            self._run(["chmod", "o+x", str(above)])
        self._run([self._base, "-m", "venv", _PYTHON])
        self.environment["PATH"] = _PATH

    def _here(self, path: str) -> Path:
        return self.seen_from_here / path.removeprefix("/")

    def _enter(self, *argv: str) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--mount", *argv]

    def _run(self, argv: list[str]) -> None:
        done = subprocess.run(
            [*self._enter("chroot", f"{self._folder}/root"), *argv],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"

    def _copy(self, words: list[str], stages: Mapping[str, PlainRoot]) -> None:
        if words == [".", "."]:
            for name in sorted(BuildContext().files()):
                file = self._here(f"{self.directory}/{name}")
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, file)
            return
        option, *sources, to = words
        whose = stages[option.removeprefix("--from=")]
        target = self._here(to)
        target.mkdir(parents=True)
        for source in sources:
            found = whose._here(source)
            if found.is_dir():  # what is in it
                shutil.copytree(found, target, dirs_exist_ok=True)
            else:
                shutil.copy(found, target)

    def _as(self, image: Image, argv: Sequence[str], more: Mapping[str, str]) -> list[str]:
        uid, gid = image.user
        environment = {"PATH": _PATH, "HOME": image.home, **image.environment, **more}
        return [
            *(str(SETPRIV), f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
            *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
            *("env", "--ignore-environment", "--chdir", image.home),
            *(f"{name}={value}" for name, value in environment.items()),
            *argv,
        ]


def _id_inside(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    [line] = [one for one in status.splitlines() if one.startswith("NSpid:")]
    ids = line.split()[1:]
    return ids[-1] if len(ids) > 1 else ""


class Built:
    """The image, after its last step."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.image = Image()
        build, self.root = (PlainRoot(processes, folder / name) for name in ("build", "last"))
        for root, steps in ((build, self.image.build), (self.root, self.image.steps)):
            for step in steps:
                root.do(step, {"build": build})

    @classmethod
    @contextmanager
    def by_its_steps(cls, folder: Path) -> Iterator[Self]:
        with Processes() as processes:
            yield cls(processes, folder)

    def start(self, volume: Volume | None = None, **more: str) -> Process:
        return self.root.start(self.image, self.image.command, volume=volume, **more)

    def exec(self, beside: Process, *argv: str) -> tuple[int, str]:
        return self.root.exec(self.image, beside, argv)
