"""Every step of deploy/Dockerfile, done in a plain root directory, and what comes of it started there."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest
from packaging.utils import canonicalize_name

from tests.kit.installed import ROOT
from tests.kit.plain_root import Built, Volume, why_not
from tests.kit.processes import BEHIND_A_PROXY, eventually

README = (ROOT / "deploy" / "README.md").read_text()

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if problem := why_not():
        pytest.skip(problem)
    with Built.by_its_steps(tmp_path_factory.mktemp("image")) as made:
        yield made


def test_what_is_installed_goes_together_and_is_what_the_lock_says(built: Built) -> None:
    server = built.start(Volume(999, "0700"))
    server.event("ready", within=30)
    code, said = built.exec(server, "python", "-m", "pip", "--no-cache-dir", "check")
    assert (code, said) == (0, "No broken requirements found.")
    code, said = built.exec(
        server, "python", "-m", "pip", "--no-cache-dir", "list", "--format=json"
    )
    installed = {(canonicalize_name(one["name"]), one["version"]) for one in json.loads(said)}
    lock = (ROOT / "uv.lock").read_text()
    locked = set(re.findall(r'^name = "(.+)"\nversion = "(.+)"', lock, re.MULTILINE))
    names = {name for name, _ in installed} - {"pip", "setuptools"}
    assert {one for one in installed - locked if one[0] in names} == set()
    assert {"trio", "sqlcipher3", "hypercorn"} <= names
    assert {"pytest", "ruff", "mypy", "sphinx"} & names == set()


def test_the_first_process_serves_is_healthy_gives_its_token_and_stops_by_sigterm(
    built: Built,
) -> None:
    server = built.start(Volume(999, "0700"), **BEHIND_A_PROXY)
    ready = server.event("ready", within=30)
    assert ready["url"] == "http://0.0.0.0:8081"
    check = built.image.health_check

    def healthy() -> dict[str, object] | None:
        code, said = built.exec(server, *check)
        return json.loads(said) if code == 0 else None

    assert eventually(healthy, within=20, what="healthy")["ok"] is True
    # by the very lines of the README, from `exec config-manager` on
    exec_lines = README.replace("\\\n", " ")
    [cat] = re.findall(r"exec config-manager +(cat \S+)", exec_lines)
    code, token = built.exec(server, *cat.split())
    assert (code, token[:7]) == (0, "cfgmgr_")
    [create] = re.findall(r"exec config-manager +(config-manager token create [^#\n]+)", exec_lines)
    code, said = built.exec(server, *create.split())
    assert code == 0, said
    assert "cfgmgr_" in said
    os.kill(built.root.first(server), signal.SIGTERM)
    assert server.wait() == 0


def test_a_volume_that_an_engine_made_as_roots_ends_it_with_a_line_that_helps(built: Built) -> None:
    server = built.start(Volume(0, "0755"))
    assert server.wait() == 2
    [said] = server.text
    assert "/var/lib/config-manager/data, with everything in it, must belong to uid 999" in said


def test_the_directory_that_the_image_has_is_what_a_new_volume_takes_owner_and_mode_from(
    built: Built,
) -> None:
    place = built.root.seen_from_here / built.image.volume.removeprefix("/")
    status = place.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (999, 999, 0o700)


def test_nothing_of_the_build_stays_in_the_image(built: Built) -> None:
    top = built.root.seen_from_here
    assert not (top / "src").exists()
    assert not (top / "tmp/install").exists()
    assert len(list(top.glob("opt/python/lib/*/site-packages/config_manager/client"))) == 1
