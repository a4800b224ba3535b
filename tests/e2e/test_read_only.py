"""A damaged database: GET goes on from the cache, writes say so, and it recovers."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.kit.processes import Processes, Server, eventually


def damage(database: Path) -> None:
    """Overwrite every page but the first: it opens, and can't be read."""
    with database.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def kept(server: Server) -> None:
    revision = server.health()["revision"]
    eventually(lambda: server.process.event("cached", revision=revision), within=5, what="cached")


def check_read_only(server: Server) -> None:
    health = server.get("/health")
    assert health.status_code == 503
    said = health.json()
    assert (said["ok"], said["mode"], said["database_available"]) == (False, "read-only", False)
    assert said["reasons"]
    got = server.get("/api/v1/config/one")
    assert got.status_code == 200
    assert got.json()["config"] == {"a": 1}
    refused = server.put("one", {"a": 2})
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert refused.json()["detail"]


def test_damaged_at_start_it_serves_from_the_cache_and_restored_it_recovers(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    assert server.put("one", {"a": 1}).status_code == 201
    kept(server)
    assert server.stop() == 0
    database = server.data_dir / "config.db"
    shutil.copy(database, directory / "good.db")
    damage(database)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)

    server.start()
    check_read_only(server)
    assert server.stop() == 0

    shutil.copy(directory / "good.db", database)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    server.start()
    assert server.health()["mode"] == "normal"
    assert server.put("one", {"a": 3}).status_code == 200


def test_damaged_while_running_reads_go_on_and_restored_it_recovers_by_itself(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    assert server.put("one", {"a": 1}).status_code == 201
    kept(server)
    files = [server.data_dir / f"config.db{suffix}" for suffix in ("", "-wal")]
    # held still meanwhile: what it commits between copy and damage would be missing afterwards
    os.kill(server.process.pid, signal.SIGSTOP)
    good = {path: path.read_bytes() for path in files if path.exists()}
    for path, content in good.items():
        with path.open("r+b") as file:
            file.write(b"\xa5" * len(content))
    os.kill(server.process.pid, signal.SIGCONT)

    def refused() -> bool:
        answer = server.put("one", {"a": 1})
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 503

    eventually(refused, within=15, every=0.1, what="writes are refused")
    eventually(lambda: server.health()["mode"] == "read-only", within=5, what="read-only")
    check_read_only(server)

    for path in files:
        if path in good:
            with path.open("r+b") as file:
                file.write(good[path])
                file.truncate()
    eventually(lambda: server.health()["mode"] == "normal", within=30, every=0.2, what="recovered")
    eventually(
        lambda: server.put("one", {"a": 4}).status_code == 200, within=5, what="writes work again"
    )
