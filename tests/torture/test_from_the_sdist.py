"""The sdist alone, as a stranger gets it: unpacked it is a checkout that works, and it installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.image import BuildContext
from tests.kit.installed import ROOT
from tests.kit.processes import Processes

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

OUTSIDE = {
    k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTEST", "PYTHON"))
}


def ran(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=OUTSIDE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sdist")
    source = place / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".*_cache", "__pycache__", "data", "build", "dist", "*.egg-info"
    )

    def left_out(folder: str, names: list[str]) -> set[str]:
        found = set(ignored(folder, names))
        return found - {"data"} if Path(folder).name == "tests" else found

    shutil.copytree(ROOT, source, ignore=left_out)
    ran(sys.executable, "-m", "build", "--sdist", "--outdir", place, source, cwd=place)
    [made] = place.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    [folder] = place.iterdir()
    return folder


def test_its_recipes_tests_and_documents_work(unpacked: Path) -> None:
    assert "serve" in ran("./just", "--list", cwd=unpacked)
    some = ("tests/test_docs.py", "tests/test_just.py", "tests/config/test_vectors.py")
    assert "passed" in ran("./just", "test", "-n", "0", *some, cwd=unpacked)
    ran("./just", "docs", cwd=unpacked)
    assert (unpacked / "build/docs/html/index.html").is_file()


def test_an_image_can_be_built_of_it(unpacked: Path) -> None:
    assert BuildContext(unpacked).files() == BuildContext().files()


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    place = tmp_path_factory.mktemp("installed")
    ran(sys.executable, "-m", "venv", place / "venv", cwd=place)
    ran(place / "venv/bin/pip", "install", "--quiet", f"{sdist}[server]", cwd=place)
    with Processes([str(place / "venv/bin/config-manager")]) as processes:
        yield processes


def test_it_installs_into_an_empty_environment_and_serves(
    installed: Processes, tmp_path: Path
) -> None:
    code, said = installed.run("--version")
    assert code == 0, said.text
    server = installed.server(tmp_path / "data", "auto:")
    put = server.put("stt-worker", {"whisper_model": "tiny"}, params={"wait": "confirmed"})
    assert (put.status_code, put.json()["propagation"]) == (201, "confirmed")
    assert server.stop() == 0
