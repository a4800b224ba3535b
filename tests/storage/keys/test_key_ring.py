"""The key files: made once, private, 64 hex digits, and never made anew beside data."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.config.documents.root import ROLES
from config_manager.config.errors import DatabaseUnopenable, KeyFileUnsafe
from config_manager.config.wire import keyid
from config_manager.config.world import World
from config_manager.storage.keys.key_file import read_key
from config_manager.storage.keys.key_ring import KeyRing
from tests.kit.stores import STEADY, Counting

NAMES = ("db", "secrets", "instance", "root", "config", "beacon")
GIVEN = "0123456789abcdef" * 4


def make_world() -> World:
    return World(randomness=Counting())


def write_key(path: Path, text: str = GIVEN, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def values(ring: KeyRing) -> list[bytes]:
    signing = [read_key(ring.directory / f"{role}.key", World()) for role in ROLES]
    return [ring.db_key, ring.secrets_key, ring.instance_key, *signing]


def test_the_first_start_makes_every_key_each_another_and_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        ring = KeyRing.open(tmp_path, make_world())
    finally:
        os.umask(old)
    assert {p.name for p in ring.directory.iterdir()} == {f"{name}.key" for name in NAMES}
    assert {stat.S_IMODE(p.stat().st_mode) for p in ring.directory.iterdir()} == {0o600}
    assert stat.S_IMODE(ring.directory.stat().st_mode) == 0o700
    assert len(set(values(ring))) == len(NAMES)
    assert {len(key) for key in values(ring)} == {32}


def test_a_key_file_holds_64_hex_digits(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path, make_world())
    assert (tmp_path / "keys/db.key").read_text() == ring.db_key.hex()


def test_the_next_start_reads_the_same_keys(tmp_path: Path) -> None:
    first = KeyRing.open(tmp_path, make_world())
    before = {p.name: p.read_bytes() for p in first.directory.iterdir()}
    (tmp_path / "instance.json").touch()
    assert values(KeyRing.open(tmp_path, make_world())) == values(first)
    assert {p.name: p.read_bytes() for p in first.directory.iterdir()} == before


def test_a_first_start_that_was_killed_goes_on_with_the_keys_it_had_made(tmp_path: Path) -> None:
    first = KeyRing.open(tmp_path, make_world())
    for name in ("instance", "root", "config", "beacon"):
        (tmp_path / f"keys/{name}.key").unlink()
    again = KeyRing.open(tmp_path, World())
    assert (again.db_key, again.secrets_key) == (first.db_key, first.secrets_key)
    assert again.instance_key != first.instance_key


@pytest.mark.parametrize("beside", ["instance.json", "config.db"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "root"])
def test_a_key_that_is_missing_beside_data_is_never_made_anew(
    tmp_path: Path, name: str, beside: str
) -> None:
    KeyRing.open(tmp_path, make_world())
    (tmp_path / beside).touch()
    (tmp_path / f"keys/{name}.key").unlink()
    with pytest.raises(DatabaseUnopenable, match=rf"{name}\.key is missing"):
        KeyRing.open(tmp_path, make_world())
    assert not (tmp_path / f"keys/{name}.key").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777])
@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_others_can_touch_stops_the_start(tmp_path: Path, name: str, mode: int) -> None:
    KeyRing.open(tmp_path, make_world())
    (tmp_path / f"keys/{name}.key").chmod(mode)
    with pytest.raises(KeyFileUnsafe, match=rf"{name}\.key.*chmod 600") as caught:
        KeyRing.open(tmp_path, make_world())
    assert caught.value.description.exit_code == 3


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_owners_own_rights_are_the_owners_business(tmp_path: Path, mode: int) -> None:
    assert read_key(write_key(tmp_path / "k", mode=mode), make_world()).hex() == GIVEN


@pytest.mark.parametrize(
    "text",
    ["", "\n", GIVEN[:-1], GIVEN[:-2], GIVEN + "00", GIVEN[:-1] + "g", "0x" + GIVEN[2:],
     " ".join(GIVEN[i : i + 2] for i in range(0, 64, 2)), GIVEN + "\n" + GIVEN, "ä" * 64,
     "\N{FULLWIDTH DIGIT ONE}" * 64],
)  # fmt: skip
def test_what_is_not_64_hex_digits_is_refused_without_being_repeated(
    tmp_path: Path, text: str
) -> None:
    path = write_key(tmp_path / "some.key", text)
    with pytest.raises(DatabaseUnopenable, match=r"some\.key") as caught:
        read_key(path, make_world())
    assert GIVEN[:16] not in str(caught.value)


@pytest.mark.parametrize("text", [GIVEN, GIVEN + "\n", GIVEN.upper(), f"  {GIVEN}\r\n"])
def test_an_editors_newline_and_capitals_do_no_harm(tmp_path: Path, text: str) -> None:
    assert read_key(write_key(tmp_path / "k", text), make_world()).hex() == GIVEN


@STEADY
@given(data=st.binary(max_size=80))
def test_no_content_of_a_key_file_crashes_its_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.key"
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        key = read_key(path, make_world())
    except DatabaseUnopenable:
        return
    assert key.hex().encode() == data.strip().lower()


def test_a_directory_in_the_place_of_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.key").mkdir(mode=0o700)
    with pytest.raises(DatabaseUnopenable, match="can't be read"):
        read_key(tmp_path / "some.key", make_world())


# ── a database key of the operator's own ───────────────────────────────────────────────────────


def test_a_given_database_key_is_used_and_none_is_made_beside_it(tmp_path: Path) -> None:
    given_file = write_key(tmp_path / "mine")
    ring = KeyRing.open(tmp_path, make_world(), db_key_file=given_file)
    assert ring.db_key.hex() == GIVEN
    assert not (tmp_path / "keys/db.key").exists()
    assert given_file.read_text() == GIVEN


def test_a_given_database_key_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnopenable, match="mine is missing"):
        KeyRing.open(tmp_path, make_world(), db_key_file=tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_given_database_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnsafe):
        KeyRing.open(tmp_path, make_world(), db_key_file=write_key(tmp_path / "mine", mode=0o640))


# ── what a ring shows ──────────────────────────────────────────────────────────────────────────


def test_a_ring_prints_no_key(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path, World())
    shown = f"{ring!r} {ring}"
    assert str(ring.directory) in shown
    for key in values(ring):
        assert key.hex() not in shown
        assert repr(key) not in shown


@pytest.mark.parametrize("role", ["root", "config", "beacon"])
def test_the_public_key_of_a_role_checks_what_its_seed_signs(tmp_path: Path, role: str) -> None:
    ring = KeyRing.open(tmp_path, make_world())
    [public] = ring.publics(role, World())
    seeds = {**ring.root_seeds(World())}
    seed = seeds[keyid(public)] if role == "root" else ring.seed(keyid(public))
    assert public == SigningKey(seed).verify_key.encode()
    others = [one for other in ROLES if other != role for one in ring.publics(other, World())]
    assert public not in others


def test_the_root_key_may_be_offline_and_is_never_kept_in_memory(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path, make_world())
    (tmp_path / "instance.json").touch()
    [public] = ring.publics("root", World())
    assert not ring.holds(keyid(public))
    (tmp_path / "keys/root.key").unlink()
    assert ring.root_seeds(World()) == {}
    again = KeyRing.open(tmp_path, make_world())
    assert again.root_seeds(World()) == {}
    assert not (tmp_path / "keys/root.key").exists()


def test_a_roles_later_keys_are_read_with_its_first(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path, make_world())
    (tmp_path / "instance.json").touch()
    later = ring.add("config", World())
    assert ring.holds(keyid(later))
    again = KeyRing.open(tmp_path, make_world())
    assert again.publics("config", World())[1:] == [later]
    assert again.seed(keyid(later)) == ring.seed(keyid(later))
    (tmp_path / "keys/config.key").unlink()  # revoked, and taken away
    assert KeyRing.open(tmp_path, make_world()).publics("config", World()) == [later]
