"""What is imported is required: by the core where a service's process imports it, else by an extra."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from config_manager.api import extra
from tests.kit.installed import ROOT, names, required, requirements_of, with_all_they_need

ROOMS = ("actors", "api", "client", "config", "storage")
CORE, SERVER = names(required()), names(required("server"))


def modules(*rooms: str) -> set[Path]:
    return {path for room in rooms for path in (ROOT / room).rglob("*.py")}


@cache
def imported(module: Path) -> frozenset[str]:
    """Every dotted name that a module may import, wherever in it: also those of names from packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def ours(name: str) -> Iterator[Path]:
    """The files that importing a dotted name of ours runs."""
    parts = name.split(".")[1:]
    for depth in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:depth])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                yield file


def with_what_they_import(start: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    waiting = set(start)
    while waiting:
        module = waiting.pop()
        found.add(module)
        for name in imported(module):
            if name.startswith("config_manager."):
                waiting |= set(ours(name)) - found
    return found


def packages_of(files: Iterable[Path]) -> dict[str, set[str]]:
    """The packages of others that these modules import: normalised name → the modules' paths."""
    where = packages_distributions()
    found: dict[str, set[str]] = {}
    for file in files:
        for top in {name.split(".")[0] for name in imported(file)}:
            if top not in sys.stdlib_module_names and top != "config_manager":
                assert top in where, f"{file} imports {top}, which is not installed"
                package = canonicalize_name(where[top][0])
                found.setdefault(package, set()).add(str(file.relative_to(ROOT)))
    return found


def halves(packages: Iterable[str]) -> set[str]:
    """What comes in exactly one version with one of these, as pydantic-core does with pydantic."""
    return {
        canonicalize_name(one.name)
        for package in packages
        for one in requirements_of(distribution(package))
        if any(part.operator == "==" and "*" not in part.version for part in one.specifier)
    }


def test_everything_that_a_service_imports_is_required_without_an_extra() -> None:
    needed = packages_of(with_what_they_import(modules("client")))
    assert len(needed) > 10
    allowed = CORE | halves(CORE)
    assert {k: v for k, v in needed.items() if k not in allowed} == {}


def test_everything_else_is_required_by_the_server() -> None:
    needed = packages_of(modules(*ROOMS))
    allowed = CORE | SERVER | halves(CORE)
    assert {k: v for k, v in needed.items() if k not in allowed} == {}


def test_a_service_gets_nothing_that_it_does_not_import() -> None:
    needed = packages_of(with_what_they_import(modules("client")))
    comes_anyway = {
        canonicalize_name(one.name)
        for package in needed
        for one in requirements_of(distribution(package))
    }
    assert CORE - set(needed) - comes_anyway == set()


def test_the_server_requires_nothing_that_it_does_not_import() -> None:
    assert SERVER - set(packages_of(modules(*ROOMS))) == set()
    assert SERVER & CORE == set()


def test_the_command_knows_what_the_extra_brings() -> None:
    assert set(extra.SERVER) == SERVER


@pytest.mark.parametrize("package", extra.SERVER)
def test_a_package_of_the_extra_is_imported_by_its_own_name(package: str) -> None:
    assert canonicalize_name(packages_distributions()[package.replace("-", "_")][0]) == package


def test_the_page_says_which_wheels_there_are() -> None:
    """By uv.lock, which has every file that PyPI offers of a version."""
    page = (ROOT / "docs" / "clients.md").read_text()
    rows = re.findall(r"^\| (core|`\[server\]`) \| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    said = {one: (armv7l, i686) for _, every, *(armv7l, i686) in rows for one in every.split(", ")}
    found: dict[str, tuple[str, str]] = {}
    needed = with_all_they_need([*required(), *required("server")])
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        wheels = [one["url"].rpartition("/")[2] for one in package.get("wheels", ())]
        if package["name"] in needed and not any("-none-any" in one for one in wheels):
            name = f"{package['name']} {package['version']}"
            found[name] = (_has_wheels(wheels, "armv7l"), _has_wheels(wheels, "i686"))
    assert said == found


def _has_wheels(wheels: list[str], machine: str) -> str:
    """For all of Python 3.11 to 3.13, or for none of them."""

    def every(libc: str) -> bool:
        fits = [one for one in wheels if f"{libc}linux" in one and machine in one]
        return all(
            any(f"-cp3{minor}-" in one for one in fits) or any("-abi3-" in one for one in fits)
            for minor in (11, 12, 13)
        )

    if not every("many"):
        return "no"
    return "yes" if every("musl") else "yes, glibc"
