"""`.env`: what it may be, and whose variables count there."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic_settings import BaseSettings, SettingsConfigDict

from config_manager.client.commands.client import client
from config_manager.client.drivers.opening import Options, Prepared, prepare
from config_manager.client.state.env_file import UNSAID, Lines, ours_in, read, read_for
from config_manager.client.state.identity import trust_init
from config_manager.config.errors import SettingsInvalid
from config_manager.config.world import World
from tests.kit import documents as m
from tests.kit.client_story import Settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    return tmp_path


def opened(environment: dict[str, str] | None = None, **options: Any) -> Prepared[Any]:
    given = Options(service=m.SERVICE, **options)
    return prepare(Settings, given, world=World(), environment=environment or {})


# ── our own variables ──────────────────────────────────────────────────────────────────────────


def test_our_variables_may_stand_beside_the_services_own(here: Path) -> None:
    (here / ".env").write_text(
        "STT_WORKER_N=5\nCONFIG_MANAGER_STATE_DIR=state\nCONFIG_MANAGER_ROOT=root.json\n"
        "CONFIG_MANAGER_MQTT_URL=mqtt://broker:1884\nCONFIG_MANAGER_INSTANCE=robot-7\n"
    )
    prepared = opened()
    assert prepared.identity.state_dir == Path("state")  # of the working directory
    assert (here / "state" / "root.json").exists()
    assert (prepared.mqtt_url, prepared.name) == ("mqtt://broker:1884", "robot-7")
    assert prepared.instance.effective.values.n == 5


def test_the_environment_beats_them_and_the_caller_beats_both(here: Path) -> None:
    (here / ".env").write_text("CONFIG_MANAGER_STATE_DIR=a\nCONFIG_MANAGER_INSTANCE=robot-7\n")
    environment = {"CONFIG_MANAGER_STATE_DIR": "b"}
    root = here / "root.json"
    assert opened(environment, root=root).identity.state_dir == Path("b")
    last = opened(environment, root=root, state_dir="c", instance="robot-8")
    assert (last.identity.state_dir, last.name) == (Path("c"), "robot-8")


def test_without_env_file_there_are_none_and_another_one_may_be_named(here: Path) -> None:
    (here / ".env").write_text("CONFIG_MANAGER_STATE_DIR=a\n")
    (here / "other").write_text("CONFIG_MANAGER_STATE_DIR=b\n")
    at = {"XDG_STATE_HOME": str(here)}
    root = here / "root.json"
    assert opened(at, root=root, env_file=None).identity.state_dir == here / "config-manager"
    assert opened(at, root=root, env_file="other").identity.state_dir == Path("b")


def test_an_empty_variable_of_the_environment_is_there_and_says_nothing() -> None:
    lines: Lines = {"CONFIG_MANAGER_ROOT": "x", "CONFIG_MANAGER_BARE": None, "OTHER": "y"}
    assert ours_in({"CONFIG_MANAGER_ROOT": ""}, lines) == {"CONFIG_MANAGER_ROOT": ""}
    assert ours_in({}, lines) == {"CONFIG_MANAGER_ROOT": "x"}


def test_a_line_moves_no_state_directory_that_systemd_names(here: Path) -> None:
    (here / ".env").write_text("CONFIG_MANAGER_STATE_DIR=a\n")
    root = here / "root.json"
    at = {"STATE_DIRECTORY": str(here / "systemds")}
    assert opened(at, root=root).identity.state_dir == here / "systemds"
    assert opened({"STATE_DIRECTORY": ""}, root=root).identity.state_dir == Path("a")
    named = {**at, "CONFIG_MANAGER_STATE_DIR": "b"}
    assert opened(named, root=root).identity.state_dir == Path("b")


def test_the_environments_values_are_filled_into_the_services_variables_and_never_into_ours(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    (here / ".env").write_text(
        "CONFIG_MANAGER_MQTT_URL=mqtt://x:${DB_PASSWORD}@evil\n"
        "CONFIG_MANAGER_INSTANCE='${NOBODY:-robot}'\nCONFIG_MANAGER_BARE\nOWN=${DB_PASSWORD}\n"
    )
    assert read(".env", is_named=False) == {
        "CONFIG_MANAGER_MQTT_URL": "mqtt://x:${DB_PASSWORD}@evil",
        "CONFIG_MANAGER_INSTANCE": "${NOBODY:-robot}",
        "CONFIG_MANAGER_BARE": None,
        "OWN": "hunter2",
    }
    assert caplog.text.count("write it out") == 2
    assert "hunter2" not in caplog.text


def test_an_empty_root_is_none(here: Path) -> None:
    trust_init(here / "state", here / "root.json")
    assert opened({"CONFIG_MANAGER_ROOT": ""}, state_dir="state").name


def test_the_command_takes_its_broker_from_there(here: Path) -> None:
    def run() -> Any:
        arguments = ["run", "--state", "none", "--service", "stt-worker"]
        return CliRunner().invoke(client, arguments, env={"CONFIG_MANAGER_MQTT_URL": None})

    assert "Missing option '--mqtt-url'" in run().output
    (here / ".env").write_text("CONFIG_MANAGER_MQTT_URL=none:\n")
    assert "holds no trust root" in repr(run().exception)


# ── what the file is ───────────────────────────────────────────────────────────────────────────


def test_a_pipe_is_read_as_a_shells_process_substitution_makes_one(here: Path) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=("STT_WORKER_N=5\n",))
    writer.start()
    assert read("pipe", is_named=True) == {"STT_WORKER_N": "5"}
    writer.join()
    reading, writing = os.pipe()
    os.write(writing, b"STT_WORKER_N=6\n")
    os.close(writing)
    assert read(f"/dev/fd/{reading}", is_named=True) == {"STT_WORKER_N": "6"}
    os.close(reading)


@pytest.mark.parametrize("name", [".env", "named"])
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("directory", "a directory"),
        ("link", "a link to a file that is not there"),
        ("socket", "a socket"),
    ],
)
def test_what_cannot_be_read_is_said_once(
    here: Path, caplog: pytest.LogCaptureFixture, name: str, kind: str, why: str
) -> None:
    if kind == "directory":
        Path(name).mkdir()
    elif kind == "link":
        Path(name).symlink_to("nowhere")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
    assert read_for(Settings, name) == {}
    (record,) = caplog.records
    assert record.fields == {  # type: ignore[attr-defined]
        "event": ".env not read", "actor": "client", "file": name, "detail": why
    }  # fmt: skip


def test_only_a_file_that_somebody_named_is_missed(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_for(Settings, ".env") == {}
    assert read_for(Settings, None) == {}
    assert read_for(Settings, os.devnull) == {}
    assert caplog.records == []
    assert read_for(Settings, "named") == {}
    assert read_for(Settings, "root.json/x") == {}
    assert caplog.text.count("there is no such file") == 2


@pytest.mark.parametrize(
    ("content", "read_as"),
    [
        (
            b"\xef\xbb\xbfA=1\r\nB='x y'\r\n",
            {"A": "1", "B": "x y"},
        ),  # as Windows' Notepad writes it
        (b"A\n", {"A": None}),
        (b"", {}),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(
    here: Path, content: bytes, read_as: dict[str, str | None]
) -> None:
    Path("x").write_bytes(content)
    assert read("x", is_named=True) == read_as


def test_another_encoding_is_an_error_that_names_the_file(here: Path) -> None:
    Path("x").write_bytes("A=ü".encode("latin-1"))
    with pytest.raises(SettingsInvalid, match="^x: not UTF-8"):
        read("x", is_named=True)
    assert read("x", "latin-1", is_named=True) == {"A": "ü"}
    with pytest.raises(SettingsInvalid, match="^x: no such encoding: klingon"):
        read("x", "klingon", is_named=True)


# ── a BaseSettings' own files ──────────────────────────────────────────────────────────────────


def test_a_settings_class_names_its_own_files_and_the_caller_has_the_last_word(here: Path) -> None:
    class Own(BaseSettings):
        model_config = SettingsConfigDict(
            env_file=("a.env", Path("b.env"), "none.env"), env_file_encoding="latin-1"
        )

    Path("a.env").write_bytes("A=ü\nB=1\n".encode("latin-1"))
    Path("b.env").write_text("B=2\n")
    Path(".env").write_text("C=3\n")
    assert read_for(Own, UNSAID) == {"A": "ü", "B": "2"}
    assert read_for(Own, "b.env") == {"B": "2"}
    assert read_for(Own, ".env") == {"C": "3"}
    assert read_for(Own, None) == {}
    assert read_for(BaseModel, UNSAID) == {"C": "3"}


def test_a_settings_class_that_names_no_file_has_none_unless_the_caller_names_one(
    here: Path,
) -> None:
    class Silent(BaseSettings):
        n: int = 0

    class Usual(Silent):
        model_config = SettingsConfigDict(env_file=".env")

    (here / ".env").write_text("N=3\nCONFIG_MANAGER_STATE_DIR=a\n")

    def n_and_state(model: type[BaseSettings], **said: Any) -> tuple[Any, Path]:
        options = Options(service=m.SERVICE, root="root.json", **said)
        at = {"XDG_STATE_HOME": str(here)}
        prepared = prepare(model, options, world=World(), environment=at)
        return prepared.instance.effective.values.model_dump()["n"], prepared.identity.state_dir

    assert n_and_state(Silent) == (0, here / "config-manager")
    assert n_and_state(Silent, env_file=".env") == n_and_state(Usual) == (3, Path("a"))


def test_a_settings_class_may_look_further_up(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deep(BaseSettings):
        model_config = SettingsConfigDict(env_file="up.env", env_file_depth=2)

    (here / "up.env").write_text("A=1\n")
    (here / "x" / "y").mkdir(parents=True)
    monkeypatch.chdir(here / "x" / "y")
    assert read_for(Deep, UNSAID) == {"A": "1"}
