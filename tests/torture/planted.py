"""Bugs that were planted once, each as a patch in `tests/planted`, and the tests that must notice each.

A patch's first line says what it breaks, and after `->` which test files of the suite fail then:

    # the will is not retained: who comes later takes a dead client for a live one -> tests/e2e/test_status.py

Each is applied to a copy of the checkout, whose code the copy's tests run: PYTHONPATH comes before the
editable install, for the commands that they start as well.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "tests" / "planted"
SHORT = 5

_NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".venv",
    "*.egg-info",
    "build",
    "dist",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "results",
)
_WHOSE = "import config_manager.config.wire as code; print(code.__file__)"
_WITHIN_S = 600
_SOME_FAILED = 1  # pytest's exit codes; another one says that it could not run them


@dataclass(frozen=True)
class Bug:
    path: Path
    breaks: str
    tests: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Bug:
        first = path.read_text().partition("\n")[0]
        breaks, arrow, tests = first.removeprefix("# ").rpartition(" -> ")
        assert arrow and first.startswith("# "), f"{path.name}: no line `# what it breaks -> tests`"
        return cls(path, breaks, tuple(tests.split()))


class Copy:
    """The checkout's files somewhere else, where they may be broken."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(ROOT, directory, symlinks=True, ignore=_NOT_COPIED)
        path = os.pathsep.join((str(directory / "typed"), str(directory)))
        self._env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        # `git apply` outside of any repository: the copy is what it works on
        self._env |= {"GIT_CEILING_DIRECTORIES": str(directory.parent)}
        whose = Path(self._run(sys.executable, "-c", _WHOSE).stdout.strip())
        assert whose.is_relative_to(directory), f"it runs the code of {whose}"

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.directory,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )

    def patch(self, bug: Bug) -> None:
        done = self._run("git", "apply", str(bug.path))
        assert done.returncode == 0, f"{bug.path.name} no longer applies:\n{done.stderr}"

    def test(self, *files: str) -> tuple[int, str]:
        """pytest's exit code and what it said, up to the first failure."""
        pytest = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
        done = self._run(*pytest, "-m", "not torture", *files)
        return done.returncode, done.stdout[-5_000:]


def bugs() -> list[Bug]:
    return [Bug.read(path) for path in sorted(PATCHES.glob("*.patch"))]


def chosen(luck: random.Random, *, short: bool) -> list[Bug]:
    everything = bugs()
    if not short:
        return everything
    return sorted(luck.sample(everything, SHORT), key=lambda bug: bug.path)


def planted(some: Sequence[Bug]) -> str:
    """Without any bug all of the tests pass; with each, one fails."""
    with tempfile.TemporaryDirectory(prefix="cm-planted-") as name, ThreadPoolExecutor(2) as pool:
        there = Path(name).resolve()
        files = sorted({file for bug in some for file in bug.tests})
        healthy = pool.submit(_tested, there / "healthy", None, files)
        broken = pool.map(lambda bug: _tested(there / bug.path.stem, bug, bug.tests), some)
        missed: list[str] = []
        for bug, (code, said) in zip(some, broken, strict=True):
            is_caught = code == _SOME_FAILED
            print(f"       {bug.path.stem}: {'caught' if is_caught else 'MISSED'}", flush=True)
            if not is_caught:
                missed.append(f"{bug.path.name}: {bug.breaks}: pytest ended with {code}\n{said}")
        code, said = healthy.result()
    assert code == 0, f"nothing was planted, and this fails:\n{said}"
    caught = f"{len(some) - len(missed)} of {len(some)} caught"
    assert not missed, "\n".join([caught, *missed])
    return caught


def _tested(directory: Path, bug: Bug | None, files: Sequence[str]) -> tuple[int, str]:
    copy = Copy(directory)
    if bug is not None:
        copy.patch(bug)
    code, said = copy.test(*files)
    shutil.rmtree(directory)
    return code, said
