"""`config-manager secret rotate-key` on a real server that is killed in the middle of it."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from config_manager.config.secret import Secret
from config_manager.config.world import SystemRandomness
from config_manager.storage.keys.recovery import FILE, open_sealed
from config_manager.storage.keys.secret_box import SecretBox, key_id_of
from config_manager.storage.sql import database
from tests.kit.processes import COMMAND, TOKEN, Processes, Server, eventually

ROTATE = "/api/v1/secrets/rotate-key"
FILLERS = 6_000
"""Sixty pages: a kill between the first and the last is no matter of luck."""
VALUES = {1: "conspicuous-one", 2: "conspicuous-two"}


def key_in(data: Path, name: str) -> bytes:
    return bytes.fromhex((data / "keys" / name).read_text())


def fill(data: Path) -> None:
    """Versions of a service that sorts before `door`, as many as would take REST a while."""
    box = SecretBox(key_in(data, "secrets.key"), SystemRandomness())
    rows = [
        box.seal("a-service", "filler", number + 1, Secret("filler"), "2027-01-15T08:00:00.000Z")
        for number in range(FILLERS)
    ]
    path = data / "config.db"
    with closing(database.connect(path, key_in(data, "db.key"))) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (r.service, r.name, r.version, r.key_id, r.nonce, r.ciphertext, r.updated_at)
                for r in rows
            ],
        )
        connection.execute("COMMIT")


def under_each_key(data: Path) -> dict[str, int]:
    path = data / "config.db"
    with closing(database.connect(path, key_in(data, "db.key"))) as connection:
        rows = connection.execute("SELECT key_id, count(*) FROM secrets GROUP BY key_id")
        return dict(rows.fetchall())


def report(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = server.get(ROTATE).json()
    return answer


def revealed(server: Server, version: int) -> str:
    answer = server.http.post(
        "/api/v1/secrets/door/pin/reveal", json={"reason": "a test", "version": version}
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["value"])


def rotate(server: Server, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "secret", "rotate-key", "--url", server.url, *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "CONFIG_MANAGER_TOKEN": TOKEN},
    )


@pytest.fixture
def filled(shop: tuple[Processes, Path]) -> tuple[Server, str]:
    """A server with a secret of two versions among thousands, and its recovery key."""
    processes, directory = shop
    data, note = directory / "data", directory / "recovery-key"
    code, process = processes.run("init", "--data-dir", str(data), "--recovery-key-file", str(note))
    assert code == 0, process.text
    fill(data)
    server = processes.server(data, "none:")
    for value in VALUES.values():
        body = {"service": "door", "name": "pin", "value": value}
        assert server.http.post("/api/v1/secrets", json=body).status_code == 201
    return server, note.read_text()


def test_killed_in_the_middle_it_goes_on_at_the_next_start_and_nothing_is_ever_unreadable(
    filled: tuple[Server, str],
) -> None:
    server, recovery_key = filled
    data = server.data_dir
    old = key_in(data, "secrets.key")
    begun = server.http.post(ROTATE, params={"reason": "somebody left"})
    assert (begun.status_code, begun.json()["total"]) == (202, FILLERS + 2)
    eventually(lambda: report(server)["done"] > 0, within=20, what="the first page is done")
    assert {n: revealed(server, n) for n in VALUES} == VALUES
    server.kill()

    new = key_in(data, "secrets.key.new")
    under = under_each_key(data)
    assert set(under) == {key_id_of(old), key_id_of(new)}, "it was killed in the middle"
    sealed = open_sealed((data / FILE).read_bytes(), recovery_key)
    assert (sealed["secrets.key"], sealed["secrets.key.new"]) == (old, new)

    server.start()
    assert {n: revealed(server, n) for n in VALUES} == VALUES
    said = rotate(server, "--json")  # shown the one that runs, to its end
    assert said.returncode == 0, said.stderr
    done = json.loads(said.stdout)
    assert (done["state"], done["done"], done["unreadable"]) == ("idle", FILLERS + 2, 0)
    assert done["correlation_id"] == begun.json()["correlation_id"]
    assert {n: revealed(server, n) for n in VALUES} == VALUES
    assert server.stop() == 0

    assert under_each_key(data) == {key_id_of(new): FILLERS + 2}
    assert key_in(data, "secrets.key") == new
    assert [path.name for path in (data / "keys").glob("secrets*")] == ["secrets.key"]
    sealed = open_sealed((data / FILE).read_bytes(), recovery_key)
    assert (sealed["secrets.key"], "secrets.key.new" in sealed) == (new, False)
    lines = "\n".join(server.process.text)
    assert old.hex() not in lines + said.stderr
    assert new.hex() not in lines + said.stderr


def test_the_command_begins_one_and_says_how_it_ended(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    before = key_in(server.data_dir, "secrets.key")
    said = rotate(server, "--reason", "a new year")
    assert (said.returncode, said.stderr) == (0, "")
    assert "the old one is gone" in said.stdout
    assert key_in(server.data_dir, "secrets.key") != before
    begun = rotate(server, "--no-wait", "--json")
    assert begun.returncode == 0, begun.stderr
    assert json.loads(begun.stdout)["by"] == "bootstrap"
