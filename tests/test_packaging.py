"""The wheel: every module and every file that is read at run time, under one import name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("actors", "api", "client", "config", "storage")
SHIPPED = {".py", ".sql", ".html", ".css", ".js", ".typed"}


def _setuptools_is_new_enough() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77  # as in pyproject.toml
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    # only what git would take, in a place of its own: a build leaves `build/` behind
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", *ROOMS):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    isolation = ["--no-isolation"] if _setuptools_is_new_enough() else []
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", source / "dist", source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def test_each_file_of_each_room_is_in_the_wheel(wheel: list[str]) -> None:
    wanted = {
        f"config_manager/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in SHIPPED or path.name == "py.typed"
        if "__pycache__" not in path.parts
    }
    assert sorted(wanted - set(wheel)) == []


def test_the_wheel_owns_one_import_name(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"config_manager"}
