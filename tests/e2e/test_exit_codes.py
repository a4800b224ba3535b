"""The exit codes of the contract, from the outside."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.kit.processes import COMMAND, Processes


def serve(
    processes: Processes, data: Path, *more: str, env: dict[str, str] | None = None
) -> tuple[int, str]:
    process = processes.start(
        [
            COMMAND,
            "serve",
            "--data-dir",
            str(data),
            "--bind",
            "127.0.0.1:0",
            "--mqtt-url",
            "none:",
            *more,
        ],
        env=env,
    )
    return process.wait(15), "\n".join(process.text)


@pytest.fixture(scope="module")
def template(module_shop: tuple[Processes, Path]) -> Path:
    """A data directory with one change in it, whose server has stopped."""
    processes, directory = module_shop
    server = processes.server(directory / "data", "none:")
    server.put("one", {"a": 1})
    assert server.stop() == 0
    return directory / "data"


@pytest.fixture
def stopped(shop: tuple[Processes, Path], template: Path) -> tuple[Processes, Path]:
    processes, directory = shop
    shutil.copytree(template, directory / "data")
    return processes, directory / "data"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONFIG_MANAGER_BIND", "nowhere"),
        ("CONFIG_MANAGER_MQTT_URL", "ftp://x"),
        ("CONFIG_MANAGER_HEARTBEAT_SECONDS", "soon"),
        ("CONFIG_MANAGER_LOG_FORMAT", "xml"),
        ("CONFIG_MANAGER_LOG_LEVEL", "loud"),
    ],
)
def test_a_setting_that_does_not_parse_is_2_and_named(
    shop: tuple[Processes, Path], name: str, value: str
) -> None:
    processes, directory = shop
    process = processes.start(
        [COMMAND, "serve", "--data-dir", str(directory / "d")],
        env={"CONFIG_MANAGER_BIND": "127.0.0.1:0", "CONFIG_MANAGER_MQTT_URL": "none:", name: value},
    )
    assert process.wait(10) == 2
    assert name in "\n".join(process.text)


def test_an_unknown_flag_and_dev_on_another_interface_are_2(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    assert serve(processes, directory / "d", "--no-such-flag")[0] == 2
    assert serve(processes, directory / "d", "--dev", "--bind", "0.0.0.0:0")[0] == 2


def test_a_port_taken_is_2(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = serve(processes, directory / "d", "--bind", f"127.0.0.1:{port}")
        assert code == 2
        assert str(port) in said


def test_a_wrong_key_is_3_and_changes_nothing(stopped: tuple[Processes, Path]) -> None:
    processes, data = stopped
    before = (data / "config.db").read_bytes()
    key = data / "keys" / "db.key"
    good = key.read_bytes()
    key.write_bytes(b"0" * 64)
    assert serve(processes, data)[0] == 3
    assert (data / "config.db").read_bytes() == before
    key.write_bytes(good)
    server = processes.server(data, "none:")
    assert server.get("/api/v1/config/one").json()["config"] == {"a": 1}


@pytest.mark.parametrize("content", [None, b"", b"not a database, whatever its name says" * 300])
def test_no_database_an_empty_one_and_none_at_all_are_3(
    stopped: tuple[Processes, Path], content: bytes | None
) -> None:
    processes, data = stopped
    for leftover in data.glob("config.db*"):
        leftover.unlink()
    if content is not None:
        (data / "config.db").write_bytes(content)
    assert serve(processes, data)[0] == 3
    left = (data / "config.db").read_bytes() if (data / "config.db").exists() else None
    assert left == content


def test_a_key_file_that_others_can_read_is_3(stopped: tuple[Processes, Path]) -> None:
    processes, data = stopped
    (data / "keys" / "db.key").chmod(0o644)
    code, said = serve(processes, data)
    assert code == 3
    assert "db.key" in said


def test_a_data_directory_in_use_is_4(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    processes.server(directory / "data", "none:")
    assert serve(processes, directory / "data")[0] == 4


def test_the_clients_codes(stopped: tuple[Processes, Path]) -> None:
    processes, data = stopped
    root = data.parent / "root.json"
    pinned = data.parent / "pinned"
    processes.pin(pinned, data / "trust" / "root.json")
    assert processes.run("client", "get", "--state", str(pinned), "--service", "one")[0] == 6
    state = ("--state", str(data.parent / "state"))
    # the contract is silent about a state that has no root yet: it is a matter of settings
    assert processes.run("client", "get", *state, "--service", "one")[0] == 2
    assert processes.run("client", "get", *state)[0] == 2
    root.write_text("{}")
    assert processes.run("client", "trust", "init", *state, "--root", str(root))[0] == 5
    assert processes.run("client", "no-such-command")[0] == 2


def test_the_files_modes(stopped: tuple[Processes, Path]) -> None:
    _, data = stopped
    assert (data / "keys").stat().st_mode & 0o777 == 0o700
    for key in (data / "keys").iterdir():
        assert key.stat().st_mode & 0o777 == 0o600, key
