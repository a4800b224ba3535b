"""Data directories that can't be used: a status, or one line and an exit code, on real file systems."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.file_systems import file_system, fill, remount
from tests.kit.long import few_in_the_suite
from tests.kit.processes import COMMAND, Processes, Server, eventually, retained

SETPRIV = shutil.which("setpriv")
IS_ROOT = os.geteuid() == 0
UNPRIVILEGED = (
    # root who has to keep to the modes of files, as any other user
    (str(SETPRIV), "--bounding-set=-dac_override,-dac_read_search", COMMAND)
    if IS_ROOT
    else (COMMAND,)
)
needs_setpriv = pytest.mark.skipif(IS_ROOT and SETPRIV is None, reason="root, and no setpriv")


def one_line(code: int, text: list[str]) -> str:
    """What was said, but for lines of the log; never a traceback."""
    said = [line for line in text if line and not line.startswith("{")]
    assert len(said) == 1, (code, text)
    assert said[0].startswith("config-manager: "), said
    return said[0]


def serve(processes: Processes, data: Path, mqtt_url: str = "none:") -> tuple[int, str]:
    code, process = processes.run(
        *("serve", "--data-dir", str(data), "--bind", "127.0.0.1:0", "--mqtt-url", mqtt_url)
    )
    return code, one_line(code, process.text)


@pytest.fixture
def unprivileged() -> Iterator[Processes]:
    with Processes(UNPRIVILEGED) as processes:
        yield processes


@pytest.fixture(scope="module")
def template(module_shop: tuple[Processes, Path]) -> Path:
    """A data directory with one change in it, whose server has stopped."""
    processes, directory = module_shop
    server = processes.server(directory / "template", "none:")
    server.put("one", {"a": 1})
    assert server.stop() == 0
    return directory / "template"


# ── a place that is none ───────────────────────────────────────────────────────────────────────


def a_file(place: Path) -> Path:
    place.write_text("something")
    return place


def below_a_file(place: Path) -> Path:
    place.write_text("something")
    return place / "data"


def a_link_to_nowhere(place: Path) -> Path:
    place.symlink_to("nowhere")
    return place


def a_long_name(place: Path) -> Path:
    return place / ("n" * 300)


def not_ours(place: Path) -> Path:
    place.mkdir(mode=0o500)
    return place


def closed_to_us(place: Path) -> Path:
    place.mkdir(mode=0)
    return place


def in_what_is_not_ours(place: Path) -> Path:
    return not_ours(place) / "above" / "data"


@needs_setpriv
@pytest.mark.parametrize(
    "make",
    [
        a_file,
        below_a_file,
        a_link_to_nowhere,
        a_long_name,
        not_ours,
        closed_to_us,
        in_what_is_not_ours,
    ],
)
def test_where_nothing_can_be_made_is_2_with_variable_path_reason_and_what_helps(
    unprivileged: Processes, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    data = make(tmp_path / "d")
    code, process = unprivileged.run("init", "--data-dir", str(data))
    assert code == 2, process.text
    by_click = make is a_file  # it looks first, and prints how the command is called
    told = [
        serve(unprivileged, data),
        *([] if by_click else [(code, one_line(code, process.text))]),
    ]
    for code, said in told:
        assert code == 2, said
        assert said.startswith(f"config-manager: CONFIG_MANAGER_DATA_DIR: {tmp_path}")
        assert said.endswith("choose another directory [data-dir-unusable]")


@needs_setpriv
def test_what_is_somebody_elses_beside_a_database_is_3_and_nothing_is_called_damaged(
    unprivileged: Processes, template: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(template, tmp_path / "data")
    (data / "broker").mkdir(exist_ok=True)
    for name in (".lock", "keys", "instance.json", "trust/root.json", "trust/roots", "broker"):
        (data / name).chmod(0)
        code, said = serve(unprivileged, data, "auto:" if name == "broker" else "none:")
        (data / name).chmod(0o700)
        assert code == 3, said
        assert str(data / name) in said
        assert "Permission denied" in said
        assert "damaged" not in said
    assert serve_and_stop(unprivileged, data) == 0  # nothing was changed that it needs


def serve_and_stop(processes: Processes, data: Path) -> int:
    return processes.server(data, "none:").stop()


@needs_setpriv
def test_a_command_on_a_stopped_directory_that_it_may_not_write_is_3(
    unprivileged: Processes, template: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(template, tmp_path / "data")
    (data / "keys").chmod(0o500)
    code, process = unprivileged.run("rotate-db-key", "--data-dir", str(data))
    said = one_line(code, process.text)
    assert code == 3, said
    assert f"{data}/keys/db.key.new: Permission denied" in said


@needs_setpriv
def test_commands_on_a_stopped_directory_that_they_may_not_enter_are_3(
    unprivileged: Processes, template: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(template, tmp_path / "data")
    data.chmod(0)
    for command in (("audit", "verify"), ("rotate-db-key",), ("recover",)):
        code, process = unprivileged.run(*command, "--data-dir", str(data))
        said = one_line(code, process.text)
        assert (code, "Permission denied" in said) == (3, True), said
    data.chmod(0o700)


# ── a file system that takes no writes ─────────────────────────────────────────────────────────


def test_on_a_read_only_file_system_it_serves_what_was_kept_and_goes_on_once_it_can(
    shop: tuple[Processes, Path], template: Path
) -> None:
    processes, directory = shop
    with file_system(directory / "fs") as at:
        data = shutil.copytree(template, at / "data")
        names = sorted(data.rglob("*"))
        remount(at, "ro")
        server = processes.server(data, "none:")
        health = server.get("/health")
        said = health.json()
        assert (health.status_code, said["mode"], said["ok"]) == (503, "read-only", False)
        assert said["cache_available"]
        assert any("config.db can't be written" in why for why in said["reasons"])
        assert str(directory) not in health.text
        assert server.get("/api/v1/config/one").json()["config"] == {"a": 1}
        assert server.put("one", {"a": 2}).status_code == 503
        second = processes.server(data, "none:", start=False).launch()
        assert second.wait() == 4, second.text
        assert sorted(data.rglob("*")) == names

        remount(at, "rw")
        eventually(lambda: server.put("one", {"a": 2}).status_code == 200, within=15, what="normal")
        assert server.health()["mode"] == "normal"
        unavailable = [line for line in server.process.lines if "unavailable" in line["event"]]
        assert len(unavailable) == 1
        assert server.stop() == 0


def test_on_a_read_only_file_system_the_broker_of_our_own_starts_all_the_same(
    shop: tuple[Processes, Path], template: Path
) -> None:
    processes, directory = shop
    with file_system(directory / "fs") as at:
        data = shutil.copytree(template, at / "data")
        remount(at, "ro")
        server = processes.server(data, "auto:")
        assert server.get("/api/v1/config/one").json()["config"] == {"a": 1}
        assert server.stop() == 0


def test_on_a_read_only_file_system_without_a_cache_and_in_a_command_it_is_3(
    shop: tuple[Processes, Path], template: Path
) -> None:
    processes, directory = shop
    with file_system(directory / "fs") as at:
        data = shutil.copytree(template, at / "data")
        remount(at, "ro")
        code, process = processes.run("rotate-db-key", "--data-dir", str(data))
        assert code == 3, process.text
        assert "Read-only file system" in one_line(code, process.text)
        code, process = processes.run("audit", "verify", "--data-dir", str(data))
        assert code == 0, process.text  # which writes nothing
        remount(at, "rw")
        for cache in data.glob("config.lkg*"):
            cache.unlink()
        remount(at, "ro")
        code, said = serve(processes, data)
        assert (code, "config.db can't be written" in said) == (3, True), said


def test_a_first_start_on_a_read_only_file_system_is_2(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    with file_system(directory / "fs") as at:
        remount(at, "ro")
        code, said = serve(processes, at / "data")
        assert (code, "Read-only file system" in said) == (2, True), said


@needs_setpriv
def test_a_database_that_may_only_be_read_is_said_until_it_may_be_written(
    unprivileged: Processes, template: Path, tmp_path: Path
) -> None:
    """SQLite opens it without a word."""
    data = shutil.copytree(template, tmp_path / "data")
    (data / "config.db").chmod(0o400)
    server = unprivileged.server(data, "none:")
    for _ in range(3):
        said = server.health()
        assert (said["mode"], said["ok"]) == ("read-only", False)
        assert any("config.db can't be written" in why for why in said["reasons"])
        assert server.put("one", {"a": 2}).status_code == 503
    (data / "config.db").chmod(0o600)
    eventually(lambda: server.health()["mode"] == "normal", within=15, what="normal")
    assert server.put("one", {"a": 2}).status_code == 200

    (data / "config.db").chmod(0o400)  # while it runs, and nobody writes
    eventually(lambda: server.health()["mode"] == "read-only", within=15, what="read-only")


# ── a file system that is full ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("left_kib", few_in_the_suite((4, 20, 60, 100), (4, 60)))
def test_a_first_start_on_a_full_disk_is_2_and_leaves_nothing_that_stops_the_next_one(
    shop: tuple[Processes, Path], left_kib: int
) -> None:
    processes, directory = shop
    with file_system(directory / "fs") as at:
        ballast = fill(at, left_kib)
        code, said = serve(processes, at / "data")
        assert code == 2, said
        assert said.endswith("[data-dir-unusable]")
        ballast.unlink()
        assert serve_and_stop(processes, at / "data") == 0


def test_a_full_disk_is_said_by_rest_and_by_brokers_until_a_write_succeeds(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    with file_system(directory / "fs", "8m") as at:
        server = processes.server(at / "data", broker.url)
        assert server.put("one", {"a": 1}).status_code == 201
        server.wait_outbox_empty()
        ballast = fill(at)
        large = {"a": "x" * 100_000}
        assert server.put("one", large).status_code == 507
        said = server.health()
        assert (said["ok"], said["mode"]) == (True, "normal")
        assert any("the disk is full" in why for why in said["reasons"])

        def by_broker() -> bool:
            return b"the disk is full" in retained(broker.port, "system/health/config-manager")

        eventually(by_broker, within=10, what="said on the broker")

        keys = sorted((at / "data" / "keys").iterdir())
        for _ in range(7):  # once more than an actor may crash
            refused = server.http.post("/api/v1/trust/rotate", json={"role": "config"})
            assert refused.status_code == 507, refused.text
            assert refused.json()["type"] == "/problems/storage-full"
        root = server.root()
        revoked = server.http.post(
            "/api/v1/trust/revoke", json={"keyid": root.roles["beacon"].keyids[0]}
        )
        assert revoked.status_code == 507, revoked.text
        assert server.http.post("/api/v1/secrets/rotate-key").status_code == 507
        assert sorted((at / "data" / "keys").iterdir()) == keys
        assert server.root() == root

        ballast.unlink()
        assert server.put("one", large).status_code == 200
        assert not any("full" in why for why in server.health()["reasons"])
        eventually(lambda: not by_broker(), within=10, what="no longer said on the broker")
        rotated = server.http.post("/api/v1/trust/rotate", json={"role": "config"})
        assert rotated.status_code == 200, rotated.text
        assert server.stop() == 0
        again = server.start()
        assert (again.root().version, again.health()["ok"]) == (root.version + 1, True)


# ── what others may see ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_every_directory_and_file_has_its_own_mode_whatever_the_umask(
    shop: tuple[Processes, Path], umask: int
) -> None:
    processes, directory = shop
    data = directory / "above" / "data"
    before = os.umask(umask)
    try:
        server: Server = processes.server(data, "auto:")
        server.put("one", {"a": 1})
        assert server.stop() == 0
        assert processes.run("init", "--data-dir", str(data))[0] == 0
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode)
        for path in directory.rglob("*")
    }
    public = {
        "above": 0o755 & ~umask,
        "above/data/trust": 0o755,
        "above/data/trust/roots": 0o755,
        "above/data/trust/root.json": 0o644,
        "above/data/trust/roots/1.json": 0o644,
    }
    for name, mode in modes.items():
        private = 0o700 if (directory / name).is_dir() else 0o600
        assert mode == public.get(name, private), (name, oct(mode))
