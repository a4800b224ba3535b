"""`config-manager rotate-db-key`: nothing is lost, whenever it dies."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.world import World
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.recovery import FILE, open_sealed
from config_manager.storage.sql import database, rekeying
from config_manager.storage.sql.sql_store import SqlStore
from tests.kit.dying import dies
from tests.kit.long import LONG
from tests.kit.processes import COMMAND, Processes
from tests.kit.shell import in_process
from tests.kit.stores import committed_in

BIG_ROWS = 3_000
"""of 4 kB: enough that writing all of it anew takes a while"""


@pytest.fixture(scope="module")
def template(module_shop: tuple[Processes, Path]) -> tuple[Path, str]:
    """A data directory with a change and a secret in it, and its recovery key."""
    processes, directory = module_shop
    data, note = directory / "data", directory / "recovery-key"
    code, process = processes.run("init", "--data-dir", str(data), "--recovery-key-file", str(note))
    assert code == 0, process.text
    server = processes.server(data, "none:")
    server.put("one", {"a": 1})
    answer = server.http.post(
        "/api/v1/secrets", json={"service": "one", "name": "pin", "value": "conspicuous"}
    )
    assert answer.status_code == 201
    assert server.stop() == 0
    return data, note.read_text()


@pytest.fixture
def stopped(
    shop: tuple[Processes, Path], template: tuple[Path, str]
) -> tuple[Processes, Path, str]:
    """A copy of it for this test alone."""
    data = shop[1] / "data"
    shutil.copytree(template[0], data)
    return shop[0], data, template[1]


def rotate(data: Path, *more: str) -> tuple[int, str]:
    ended = in_process("rotate-db-key", "--data-dir", str(data), *more)
    return ended.code, ended.said


def key_in(data: Path) -> bytes:
    return bytes.fromhex((data / "keys" / "db.key").read_text())


def whole(processes: Processes, data: Path) -> None:
    """A server starts on it and has everything."""
    server = processes.server(data, "none:")
    assert server.get("/api/v1/config/one").json()["config"] == {"a": 1, "pin": "********"}
    revealed = server.http.post("/api/v1/secrets/one/pin/reveal", json={"reason": "a test"})
    assert revealed.json()["value"] == "conspicuous"
    assert server.stop() == 0


def opens(data: Path, key: bytes) -> bool:
    try:
        database.connect(data / "config.db", key).close()
    except DatabaseUnopenable:
        return False
    return True


def test_after_it_only_the_new_key_opens_the_database_and_nothing_is_lost(
    stopped: tuple[Processes, Path, str],
) -> None:
    processes, data, recovery_key = stopped
    before = key_in(data)
    code, said = rotate(data)
    assert code == 0, said
    after = key_in(data)
    assert after != before
    assert after.hex() not in said
    assert before.hex() not in said
    assert (opens(data, after), opens(data, before)) == (True, False)
    assert database.integrity_problems(data / "config.db", after) == []
    assert {path.name for path in data.glob("config.db*")} == {"config.db"}
    assert not list((data / "keys").glob("*.new"))
    assert open_sealed((data / FILE).read_bytes(), recovery_key)["db.key"] == after
    whole(processes, data)


def test_it_refuses_a_data_directory_in_use_and_one_without_a_database(
    stopped: tuple[Processes, Path, str],
) -> None:
    processes, data, _ = stopped
    server = processes.server(data, "none:")
    before = key_in(data)
    assert rotate(data)[0] == 4
    assert key_in(data) == before
    assert not list((data / "keys").glob("*.new"))
    assert server.stop() == 0
    assert rotate(data / "elsewhere")[0] == 6


def test_it_leaves_a_damaged_database_as_it_is(stopped: tuple[Processes, Path, str]) -> None:
    processes, data, _ = stopped
    content = bytearray((data / "config.db").read_bytes())
    content[5 * 4096 + 100] ^= 1
    (data / "config.db").write_bytes(content)
    code, said = rotate(data)
    assert code == 3, said
    assert "damaged" in said
    assert (data / "config.db").read_bytes() == content


def test_a_key_from_elsewhere_is_changed_where_it_lies(
    stopped: tuple[Processes, Path, str], tmp_path: Path
) -> None:
    processes, data, _ = stopped
    elsewhere = tmp_path / "mine"
    (data / "keys" / "db.key").rename(elsewhere)
    before = elsewhere.read_text()
    assert rotate(data)[0] == 3
    code, said = rotate(data, "--db-key-file", str(elsewhere))
    assert code == 0, said
    assert elsewhere.read_text() != before
    assert opens(data, bytes.fromhex(elsewhere.read_text()))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mine")] == ["mine"]


def test_a_key_that_is_mounted_is_changed_to_the_one_that_is_mounted_beside_it(
    stopped: tuple[Processes, Path, str], tmp_path: Path
) -> None:
    processes, data, _ = stopped
    (data / "keys" / "db.key").rename(tmp_path / "real")
    mounted = tmp_path / "db.key"
    mounted.symlink_to("real")
    code, said = rotate(data, "--db-key-file", str(mounted))
    assert code == 7, said
    assert "db.key.new" in said
    successor = tmp_path / "db.key.new"
    successor.write_text("0123456789abcdef" * 4)
    successor.chmod(0o600)
    code, said = rotate(data, "--db-key-file", str(mounted))
    assert code == 7, said
    assert opens(data, bytes.fromhex(successor.read_text()))
    server = processes.server(data, "none:", "--db-key-file", str(mounted))
    assert server.get("/api/v1/config/one").status_code == 200


# ── dying ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=LONG)])
def test_killed_at_any_line_the_next_start_opens_it_and_the_next_run_completes_it(
    stopped: tuple[Processes, Path, str], tmp_path: Path, every: int
) -> None:
    """every: of so many lines one."""
    processes, start, recovery_key = stopped
    deaths = dies("rekey", start, tmp_path, every)
    assert deaths > 50 // every
    old = key_in(start)
    opened_by_old = opened_by_new = 0
    for line in range(1, deaths + 1):
        data = tmp_path / str(line)
        keys = KeyRing.open(data, World())  # what a start does
        assert keys.contents(World()).items() >= {("db.key", key_in(data))}
        key = rekeying.settle(data / "config.db", keys.db, keys.db_key)
        opened_by_old += key == old
        opened_by_new += key != old
        sealed = open_sealed((data / FILE).read_bytes(), recovery_key)
        assert key in (sealed.get("db.key"), sealed.get("db.key.new")), line
        store = SqlStore.open(
            data / "config.db",
            key,
            vouching=Vouching(keys.instance_key),
            epoch_id="x",
            at="x",
            fresh=False,
        )
        state = committed_in(store).services["one"]
        assert (state.stored, state.secrets) == ({"a": 1}, {"pin": 1}), line
        store.close()
        if key != old:
            assert key_in(data) == key
            assert not opens(data, old)
    assert opened_by_old > 10 // every
    assert opened_by_new > 10 // every
    for line in (opened_by_old, deaths):
        code, said = rotate(tmp_path / str(line))
        assert code == 0, said
        assert not opens(tmp_path / str(line), old)
    whole(processes, tmp_path / str(opened_by_old))


@pytest.mark.parametrize(
    "part", [pytest.param(0.02, marks=LONG), 0.5, pytest.param(1.0, marks=LONG)]
)
def test_killed_while_sqlcipher_writes_the_pages_anew_nothing_is_lost(
    stopped: tuple[Processes, Path, str], part: float
) -> None:
    processes, data, _ = stopped
    old = key_in(data)
    connection = database.connect(data / "config.db", old)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO idempotency VALUES (?, randomblob(32), randomblob(4000), 0)",
        [(f"filler-{n}",) for n in range(BIG_ROWS)],
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    size = (data / "config.db").stat().st_size
    wal = data / "config.db-wal"
    process = processes.start([COMMAND, "rotate-db-key", "--data-dir", str(data)])
    while process.alive:
        try:
            if wal.stat().st_size >= part * size:
                os.kill(process.pid, signal.SIGKILL)
                break
        except FileNotFoundError:
            pass
    assert process.wait(30) == -signal.SIGKILL
    assert (data / "keys" / "db.key.new").exists()
    whole(processes, data)
    code, said = rotate(data)
    assert code == 0, said
    assert not opens(data, old)
    assert database.integrity_problems(data / "config.db", key_in(data)) == []
