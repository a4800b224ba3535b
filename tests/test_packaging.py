"""The wheel: every module and every file that is read at run time, under one import name. The sdist: what the
wheel is built from, and what the documents name. And what a service has that installed no extra.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import pytest

from config_manager.api.extra import SERVER
from config_manager.api.main import LazyGroup
from tests.kit.installed import ROOT, Site, required
from tests.kit.processes import MOSQUITTO, Processes, workshop
from tests.kit.reports import pinned, story

ROOMS = ("actors", "api", "client", "config", "storage")
SHIPPED = {".py", ".sql", ".html", ".css", ".js", ".json", ".typed"}
FOR_THE_SDIST = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md"),
    *("just", "justfile", "pyproject.toml", ".editorconfig", ".pre-commit-config.yaml"),
    *(".dockerignore", "uv.lock", ".ci", "bench", "deploy", "docs", "examples", "tests"),
)


def _setuptools_is_new_enough() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77  # as in pyproject.toml
    except PackageNotFoundError:
        return False


class Built(NamedTuple):
    sdist: Path
    wheel: Path

    @property
    def in_the_sdist(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}

    @property
    def in_the_wheel(self) -> list[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    # only what git would take, in a place of its own: a build leaves `build/` behind
    source = tmp_path_factory.mktemp("source")
    for name in (*FOR_THE_SDIST, *ROOMS):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    isolation = ["--no-isolation"] if _setuptools_is_new_enough() else []
    # the sdist, and from that the wheel
    done = subprocess.run(
        [sys.executable, "-m", "build", *isolation, "--outdir", source / "dist", source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist] = (source / "dist").glob("*.tar.gz")
    [wheel] = (source / "dist").glob("*.whl")
    return Built(sdist, wheel)


def files(*folders: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_each_file_of_each_room_is_in_the_wheel(built: Built) -> None:
    wanted = {f"config_manager/{name}" for name in files(*ROOMS) if Path(name).suffix in SHIPPED}
    wanted |= {f"config_manager/{room}/py.typed" for room in ROOMS}
    assert sorted(wanted - set(built.in_the_wheel)) == []


def test_the_wheel_owns_one_import_name(built: Built) -> None:
    tops = {name.split("/")[0] for name in built.in_the_wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"config_manager"}


def test_the_sdist_has_what_the_documents_name_and_the_tests(built: Built) -> None:
    wanted = {name for name in FOR_THE_SDIST if (ROOT / name).is_file()}
    wanted |= files(*ROOMS, ".ci", "bench", "deploy", "docs", "examples", "tests")
    assert sorted(wanted - built.in_the_sdist) == []
    assert not [name for name in built.in_the_sdist if name.endswith(".pyc")]


# -- without an extra


@pytest.fixture(scope="module")
def core(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What `pip install config-manager` leaves: our wheel, and the packages that it requires."""
    return Site(tmp_path_factory.mktemp("core") / "site", built.wheel, required())


@pytest.fixture
def shop(core: Site) -> Iterator[tuple[Processes, Path]]:
    """Whose `config-manager` is that of the core alone."""
    with workshop() as (_, directory), Processes(core.command) as processes:
        yield processes, directory


def run(core: Site, program: str, directory: Path) -> str:
    done = subprocess.run(
        core.python(program, str(directory)),
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("package", SERVER)
def test_nothing_of_the_server_comes_with_the_core(
    core: Site, tmp_path: Path, package: str
) -> None:
    program = "import sys, importlib.util as u; sys.exit(u.find_spec({!r}) is not None)"
    run(core, program.format(package.replace("-", "_")), tmp_path)


IMPORTS = """
import importlib, pkgutil
import config_manager.client as client

assert [name for name in client.__all__ if getattr(client, name) is None] == []
for module in pkgutil.walk_packages(client.__path__, "config_manager.client."):
    importlib.import_module(module.name)
    print(module.name)
"""

FROM_A_PUBLISHER = """
import asyncio, sys, trio
from pathlib import Path
from pydantic import BaseModel, SecretStr
from config_manager.client import Config, open_config
from config_manager.client.testing import FakePublisher

class Voice(BaseModel):
    volume: float = 0.5
    api_key: SecretStr = SecretStr("")

async def live():
    publisher = FakePublisher("voice")
    publisher.set_secrets(api_key="x")
    async with publisher.open(Voice, first_wait_s=0) as config:
        assert (await publisher.deliver(volume=0.8)).applied
        assert config.current.volume == 0.8
        assert config.current.api_key.get_secret_value() == "x"
        assert (await publisher.deliver(volume="loud")).stage == "refused"

asyncio.run(live())
trio.run(live)

publisher = FakePublisher("voice")
state = Path(sys.argv[1]) / "state"
with publisher.open_in_threads(Voice, first_wait_s=0, bake_s=0, state_dir=state) as config:
    assert publisher.deliver_and_wait(volume=0.9).applied

where = dict(service="voice", state_dir=state, mqtt_url="none:", env_file=None)
with Config(Voice, **where) as config:
    assert (config.current.volume, config.source) == (0.9, "last-known-good")

async def offline():
    async with open_config(Voice, **where) as config:
        assert (config.current.volume, config.source) == (0.9, "last-known-good")

asyncio.run(offline())
trio.run(offline)

import os
os.environ["CONFIG_MANAGER_STATE_DIR"] = str(state)
from pydantic_settings import BaseSettings
from config_manager.client.settings_source import delivered

class Settings(BaseSettings):
    settings_customise_sources = delivered("voice")
    volume: float = 0.5

assert Settings().volume == 0.9
"""


def test_every_module_and_every_name_of_the_client_imports(core: Site, tmp_path: Path) -> None:
    there = (path.relative_to(ROOT) for path in (ROOT / "client").rglob("*.py"))
    modules = {".".join(("config_manager", *path.with_suffix("").parts)) for path in there}
    imported = set(run(core, IMPORTS, tmp_path).split())
    assert imported == {name.removesuffix(".__init__") for name in modules} - {
        "config_manager.client"
    }


def test_a_service_under_asyncio_trio_and_threads_live_and_offline(
    core: Site, tmp_path: Path
) -> None:
    run(core, FROM_A_PUBLISHER, tmp_path)


def test_the_client_commands_follow_a_server(shop: tuple[Processes, Path]) -> None:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    processes, directory = shop
    state = directory / "state"
    with Processes() as whole:
        broker = whole.broker(directory / "broker")
        server = whole.server(directory / "data", broker.url)
        server.put("stt-worker", {"whisper_model": "base.en"}, params={"wait": "confirmed"})
        processes.pin(state, server.data_dir / "trust" / "root.json")
        token = directory / "token"
        made = server.http.post("/api/v1/devices/tokens", json={"service": "stt-worker"})
        token.write_text(made.json()["token"])
        here = ("--state", str(state), "--service", "stt-worker")
        code, enrolled = processes.run(
            "client", "enroll", *here, "--url", server.url, "--token-file", str(token)
        )
        assert code == 0, enrolled.text
        follower = processes.follow(state, "stt-worker", broker.url)
        assert follower.event("applied")["config"]["whisper_model"] == "base.en"
        server.put("stt-worker", {"whisper_model": "tiny.en"})
        follower.event("applied", revision=2)
        assert follower.terminate() == 0
    for form, said in (("json", '"tiny.en"'), ("toml", "tiny.en"), ("yaml", "tiny.en")):
        code, got = processes.run("client", "get", *here, "--format", form)
        assert code == 0, got.text
        assert said in "\n".join(got.text)
    code, wrapped = processes.run(
        *("client", "run", *here, "--mqtt-url", "none:", "--"),
        *("/bin/sh", "-c", "echo $STT_WORKER_WHISPER_MODEL; exit 9"),
    )
    assert (code, "tiny.en" in wrapped.text) == (9, True)


COMMANDS = sorted({"serve", *LazyGroup.lazy} - {"client", "completion"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_other_command_says_what_to_install(
    shop: tuple[Processes, Path], command: str
) -> None:
    processes, _ = shop
    code, said = processes.run(command, "--whatever")
    line = (
        f"config-manager: {command} needs the server's packages: "
        f"pip install 'config-manager[server]' (missing: {', '.join(SERVER)})"
    )
    assert said.text == [line]
    assert code == 2


def test_help_lists_every_command_and_says_which_need_the_extra(
    shop: tuple[Processes, Path],
) -> None:
    processes, _ = shop
    code, said = processes.run("--help")
    before, _, after = "\n".join(said.text).partition("config-manager[server]:\n")
    assert code == 0
    assert "\n  client " in before
    assert "\n  completion " in before
    assert re.findall(r"^  (\S+)", after, re.MULTILINE) == COMMANDS
    for arguments in (
        ["--version"],
        ["client", "--help"],
        ["client", "run", "--help"],
        ["completion", "zsh"],
    ):
        code, said = processes.run(*arguments)
        assert code == 0, said.text
    assert processes.run("srve")[0] == 2


def test_a_report_is_verified_where_no_server_is_installed(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    fleet = story()
    (directory / "report.json").write_bytes(fleet.report(0, 5000))
    (directory / "pinned.json").write_bytes(pinned(fleet))
    what = (str(directory / "report.json"), "--root", str(directory / "pinned.json"))
    code, said = processes.run("report", "verify", *what)
    assert code == 0, said.text
    assert any("kitchen-pi" in line and "between" in line for line in said.text)


def stand_in(site: Site, to: Path, **packages: str) -> list[str]:
    """`config-manager` where each package of the extra is a module of this text, by default empty."""
    for package in SERVER:
        module = package.replace("-", "_")
        (to / f"{module}.py").write_text(packages.get(module, ""))
    return site.python(f"sys.path.append({str(to)!r})\n" + site.main)


def test_only_what_is_missing_is_named(core: Site, tmp_path: Path) -> None:
    command = stand_in(core, tmp_path)
    (tmp_path / "quart.py").unlink()
    (tmp_path / "quart" / "__pycache__").mkdir(parents=True)  # what an uninstaller leaves
    (tmp_path / "quart_trio.py").unlink()
    with Processes(command) as processes:
        code, said = processes.run("serve")
    assert (code, said.text[0].partition(" (")[2]) == (2, "missing: quart, quart-trio)")


def test_a_package_that_is_there_and_broken_is_not_taken_for_missing(
    core: Site, tmp_path: Path
) -> None:
    with Processes(stand_in(core, tmp_path, structlog="import not_here")) as processes:
        code, said = processes.run("serve", "--data-dir", str(tmp_path / "data"))
    text = "\n".join(said.text)
    assert code == 1
    assert "ModuleNotFoundError: No module named 'not_here'" in text
    assert "pip install" not in text


def test_a_module_of_ours_that_is_not_there_is_not_taken_for_the_extra() -> None:
    program = """
import sys
from config_manager.api import main
main.LazyGroup.lazy["status"] = "config_manager.api.not_here:status"
sys.argv[1:] = ["status"]
main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "No module named 'config_manager.api.not_here'" in done.stderr
    assert "pip install" not in done.stderr
