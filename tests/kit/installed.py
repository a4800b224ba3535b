"""What `pip install config-manager` brings and what `config-manager[server]` adds: by pyproject.toml, and by
what the packages that are installed here say of themselves. No index is asked.
"""

from __future__ import annotations

import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

_PATH = "import sys; sys.path.append({site!r})\n"
_MAIN = """
sys.argv[0] = "config-manager"
from config_manager.api.main import main
main()
"""


def required(extra: str | None = None) -> list[Requirement]:
    """The requirements of pyproject.toml: the core's, or those that an extra adds."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(line) for line in lines]


def names(requirements: Iterable[Requirement]) -> set[str]:
    return {canonicalize_name(one.name) for one in requirements}


def requirements_of(package: Distribution, *extras: str) -> list[Requirement]:
    """What one package needs here, on this Python and system."""
    every = [Requirement(line) for line in package.requires or ()]
    return [
        one
        for one in every
        if one.marker is None
        or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def with_all_they_need(requirements: Iterable[Requirement]) -> dict[str, Distribution]:
    """What an installer would install for these, by normalised name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if (name, frozenset(one.extras)) not in seen:
            seen.add((name, frozenset(one.extras)))
            found[name] = distribution(name)
            waiting += requirements_of(found[name], *one.extras)
    return found


class Site:
    """A folder that holds our wheel and the packages of some requirements, and nothing else, and a Python
    that sees only that: -S against what is installed, -I against PYTHONPATH and the working directory."""

    main = _MAIN

    def __init__(self, folder: Path, wheel: Path, requirements: Iterable[Requirement]) -> None:
        self.folder = folder
        folder.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for package in with_all_they_need(requirements).values():
            assert package.files is not None, f"{package.name} does not say which files it has"
            tops = {file.parts[0] for file in package.files} - {"..", "__pycache__"}
            for top in tops:
                (folder / top).symlink_to(str(package.locate_file(top)))

    def python(self, script: str, *arguments: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", self._path + script, *arguments]

    @property
    def command(self) -> list[str]:
        """`config-manager`."""
        return self.python(self.main)

    @property
    def _path(self) -> str:
        return _PATH.format(site=str(self.folder))
