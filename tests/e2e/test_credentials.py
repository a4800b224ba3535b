"""Keys that come from elsewhere, as systemd and containers hand them over."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.kit.processes import COMMAND, Process, Processes

NAMES = ("db", "secrets", "instance", "root", "config", "beacon")


def serve(processes: Processes, data: Path, *flags: str, env: dict[str, str]) -> Process:
    return processes.start(
        [COMMAND, "serve", "--data-dir", str(data), "--bind", "127.0.0.1:0", "--mqtt-url", "none:",
         *flags],
        env={"CONFIG_MANAGER_LOG_FORMAT": "json", **env},
    )  # fmt: skip


@pytest.fixture
def credentials(shop: tuple[Processes, Path]) -> Path:
    """What systemd mounts for LoadCredential: read-only files in a directory of their own."""
    directory = shop[1] / "credentials"
    directory.mkdir(mode=0o700)
    for number, name in enumerate(NAMES):
        (directory / f"{name}.key").write_text(f"{0xC0FFEE00 + number:08x}" * 8)
    (directory / "admin.token").write_text("a-token-from-systemd\n")
    for path in directory.iterdir():
        path.chmod(0o400)
    return directory


def test_with_every_key_from_systemd_none_lies_beside_the_data(
    shop: tuple[Processes, Path], credentials: Path
) -> None:
    processes, directory = shop
    data = directory / "data"
    for _ in range(2):  # a first start, and a start on what it made
        process = serve(processes, data, env={"CREDENTIALS_DIRECTORY": str(credentials)})
        url = process.event("ready", within=15)["url"]
        answer = httpx.get(
            url + "/api/v1/secrets",
            headers={"Authorization": "Bearer a-token-from-systemd"},
            trust_env=False,
        )
        assert answer.status_code == 200
        assert process.terminate() == 0
    assert list((data / "keys").iterdir()) == []
    held = [path.read_text().strip() for path in credentials.iterdir()]
    keys = [bytes.fromhex(path.read_text()) for path in credentials.glob("*.key")]
    assert len(keys) == len(NAMES)
    for path in data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [key for key in held if key.encode() in content], path
            assert not [key for key in keys if key in content], path


def test_a_stolen_data_directory_without_the_credentials_does_not_open(
    shop: tuple[Processes, Path], credentials: Path
) -> None:
    processes, directory = shop
    data = directory / "data"
    flags = ("--credentials-dir", str(credentials))
    process = serve(processes, data, *flags, env={})
    process.event("ready", within=15)
    assert process.terminate() == 0
    thief = serve(processes, data, env={})
    assert thief.wait() == 3
    assert not list((data / "keys").iterdir())


def test_credentials_that_are_not_there_stop_the_start_before_keys_are_made_elsewhere(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    env = {"CONFIG_MANAGER_CREDENTIALS_DIR": str(directory / "nowhere")}
    process = serve(processes, directory / "data", env=env)
    assert process.wait() == 2
    assert "CONFIG_MANAGER_CREDENTIALS_DIR" in "\n".join(process.text)
    assert not (directory / "data").exists()


def test_a_credential_that_everybody_can_read_stops_the_start(
    shop: tuple[Processes, Path], credentials: Path
) -> None:
    processes, directory = shop
    (credentials / "secrets.key").chmod(0o444)
    process = serve(processes, directory / "data", env={"CREDENTIALS_DIRECTORY": str(credentials)})
    assert process.wait() == 3
    assert "secrets.key" in "\n".join(process.text)
