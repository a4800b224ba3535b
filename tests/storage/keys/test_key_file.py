"""What may lie in keys/, what may be given from elsewhere, and how a key gets its successor."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from config_manager.config.errors import Conflict, DatabaseUnopenable, KeyFileUnsafe
from config_manager.config.world import World
from config_manager.storage.keys.key_file import KeyFile, read_key, read_token
from config_manager.storage.keys.key_ring import KeyRing
from tests.kit.stores import Counting

GIVEN = "0123456789abcdef" * 4
NOBODY = 65534
WORLD = World()

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def write_key(path: Path, text: str = GIVEN, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def ring(directory: Path, credentials: Path | None = None) -> KeyRing:
    return KeyRing.open(directory, World(randomness=Counting()), credentials_dir=credentials)


# ── keys/ ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["admin.token", "db.key.new", "config-0123456789abcdef.key", "x"])
def test_whatever_lies_in_keys_stops_the_start_where_others_can_read_it(
    tmp_path: Path, name: str
) -> None:
    ring(tmp_path)
    write_key(tmp_path / "keys" / name, mode=0o640)
    with pytest.raises(KeyFileUnsafe, match=rf"{name}: run chmod 600"):
        ring(tmp_path)
    (tmp_path / "keys" / name).chmod(0o600)


def test_a_data_directory_that_everybody_can_write_to_stops_the_start(tmp_path: Path) -> None:
    """They could put another keys/ in the place of ours."""
    tmp_path.chmod(0o777)
    with pytest.raises(KeyFileUnsafe, match="everybody can write"):
        ring(tmp_path)
    assert not (tmp_path / "keys").exists()
    tmp_path.chmod(0o1777)
    ring(tmp_path)


@root_only
def test_a_key_of_another_user_stops_the_start(tmp_path: Path) -> None:
    ring(tmp_path)
    os.chown(tmp_path / "keys" / "db.key", NOBODY, NOBODY)
    with pytest.raises(KeyFileUnsafe, match="another user"):
        ring(tmp_path)


def test_a_pipe_in_the_place_of_a_key_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "some.key", 0o600)
    with pytest.raises(DatabaseUnopenable, match="no file"):
        read_key(tmp_path / "some.key", WORLD)


def test_a_file_that_is_far_too_big_is_not_read(tmp_path: Path) -> None:
    path = write_key(tmp_path / "some.key", GIVEN + "\n" * 5000)
    with pytest.raises(DatabaseUnopenable, match="64 hex digits"):
        read_key(path, WORLD)


# ── given from elsewhere ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir(mode=0o700)
    return directory


def test_keys_that_are_given_are_used_and_not_made_beside_the_data(
    tmp_path: Path, credentials: Path
) -> None:
    names = ("db", "secrets", "instance", "root", "config", "beacon")
    for number, name in enumerate(names):
        write_key(credentials / f"{name}.key", f"{number:064x}", mode=0o400)
    (tmp_path / "data").mkdir()
    keys = ring(tmp_path / "data", credentials)
    assert [key[-1] for key in (keys.db_key, keys.secrets_key, keys.instance_key)] == [0, 1, 2]
    assert list((tmp_path / "data" / "keys").iterdir()) == []
    assert len(keys.root_seeds(WORLD)) == 1


def test_what_is_not_given_is_made_in_keys(tmp_path: Path, credentials: Path) -> None:
    write_key(credentials / "db.key", mode=0o400)
    keys = ring(tmp_path, credentials)
    assert keys.db_key.hex() == GIVEN
    made = {path.name for path in (tmp_path / "keys").iterdir()}
    assert made == {f"{n}.key" for n in ("secrets", "instance", "root", "config", "beacon")}


def test_links_as_kubernetes_mounts_them_are_followed(tmp_path: Path, credentials: Path) -> None:
    real = credentials / "..2027_01_15"
    real.mkdir(mode=0o755)
    write_key(real / "db.key", mode=0o400)
    (credentials / "..data").symlink_to(real.name)
    (credentials / "db.key").symlink_to("..data/db.key")
    assert ring(tmp_path, credentials).db_key.hex() == GIVEN


@pytest.mark.parametrize("mode", [0o444, 0o404, 0o644, 0o604, 0o660, 0o622, 0o640])
def test_a_given_key_that_everybody_can_read_or_others_can_write_is_refused(
    tmp_path: Path, credentials: Path, mode: int
) -> None:
    write_key(credentials / "db.key", mode=mode)
    with pytest.raises(KeyFileUnsafe):
        ring(tmp_path, credentials)


def test_a_given_key_in_a_directory_that_everybody_can_write_to_is_refused(
    tmp_path: Path, credentials: Path
) -> None:
    write_key(credentials / "db.key", mode=0o400)
    credentials.chmod(0o777)
    with pytest.raises(KeyFileUnsafe, match="everybody can write"):
        ring(tmp_path, credentials)
    credentials.chmod(0o1777)  # how Kubernetes mounts them
    assert ring(tmp_path, credentials).db_key.hex() == GIVEN


AS_NOBODY = """
import os, sys
from pathlib import Path
from config_manager.config.world import World
from config_manager.storage.keys.key_file import read_key
os.setgroups([int(g) for g in sys.argv[2].split(",") if g])
os.setgid(65534); os.setuid(65534)
print(read_key(Path(sys.argv[1]), World(), given=True).hex())
"""


@root_only
@pytest.mark.parametrize(
    ("owner", "group", "mode", "in_groups", "fine"),
    [
        (0, 4321, 0o440, "4321", True),  # fsGroup
        (0, 4321, 0o640, "4321", True),
        (NOBODY, NOBODY, 0o400, "", True),
        (0, 4321, 0o460, "4321", False),  # a group that can write can plant
        (0, 4321, 0o444, "4321", False),
        (4321, 4321, 0o440, "4321", False),  # another user's
        (NOBODY, 4321, 0o440, "4321", False),  # ours, so it needs no group
    ],
)
def test_a_group_may_read_what_root_put_there_for_it(
    owner: int, group: int, mode: int, in_groups: str, *, fine: bool
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # every directory above lets us pass
        path = write_key(Path(name) / "db.key", mode=mode)
        os.chown(path, owner, group)
        path.parent.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(path), in_groups],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.stdout.strip() == GIVEN) is fine, done.stderr
    if not fine:
        assert "KeyFileUnsafe" in done.stderr


def test_a_given_token_is_read_without_its_newline_and_nothing_else_will_do(
    credentials: Path,
) -> None:
    path = write_key(credentials / "admin.token", "a-token\n", mode=0o400)
    assert read_token(path, WORLD) == "a-token"
    for wrong in ("", "\n", "two words", "é", "a\nb"):
        path.chmod(0o600)
        path.write_text(wrong)
        with pytest.raises(DatabaseUnopenable, match=r"admin\.token holds no token"):
            read_token(path, WORLD)
    path.chmod(0o644)
    with pytest.raises(KeyFileUnsafe):
        read_token(path, WORLD)


# ── the successor ──────────────────────────────────────────────────────────────────────────────


def test_a_successor_is_private_and_stays_the_same_until_it_takes_over(tmp_path: Path) -> None:
    file = KeyFile(write_key(tmp_path / "db.key"), WORLD)
    assert file.read_successor() is None
    successor = file.begin()
    assert file.begin() == file.read_successor() == successor != file.read()
    assert stat.S_IMODE(file.successor.stat().st_mode) == 0o600
    assert file.finish()
    assert file.read() == successor
    assert file.read_successor() is None
    assert [path.name for path in tmp_path.iterdir()] == ["db.key"]


def test_a_successor_that_others_can_read_is_no_key(tmp_path: Path) -> None:
    file = KeyFile(write_key(tmp_path / "db.key"), WORLD)
    file.begin()
    file.successor.chmod(0o644)
    with pytest.raises(KeyFileUnsafe, match=r"db\.key\.new"):
        file.read_successor()


def test_where_a_key_is_mounted_its_successor_has_to_be_mounted_too(tmp_path: Path) -> None:
    write_key(tmp_path / "real")
    (tmp_path / "db.key").symlink_to("real")
    file = KeyFile(tmp_path / "db.key", WORLD, given=True)
    with pytest.raises(Conflict, match=r"db\.key\.new"):
        file.begin()
    write_key(tmp_path / "db.key.new", "f" * 64)
    assert file.begin().hex() == "f" * 64
    assert not file.finish()
    assert file.read().hex() == GIVEN


@root_only
def test_root_may_work_on_a_services_directory_and_what_it_writes_is_the_services(
    tmp_path: Path,
) -> None:
    ring(tmp_path)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    keys = ring(tmp_path)
    keys.db.begin()
    assert keys.db.successor.stat().st_uid == NOBODY
