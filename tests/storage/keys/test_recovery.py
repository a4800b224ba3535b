"""The recovery key: what it opens, what no other key opens, and that it keeps up with the keys."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey

from config_manager.config.errors import Conflict, DatabaseUnopenable, RecoveryRefused
from config_manager.config.world import World
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.recovery import (
    FILE,
    Recovery,
    _from_words,
    _in_words,
    open_sealed,
    put_back,
)
from tests.kit.stores import STEADY

WORLD = World()


def keys_in(directory: Path) -> KeyRing:
    return KeyRing.open(directory, WORLD)


def begun(directory: Path) -> str:
    return Recovery(keys_in(directory), WORLD).begin().reveal()


def sealed(directory: Path) -> bytes:
    return (directory / FILE).read_bytes()


def test_the_recovery_key_opens_every_key_file_as_it_is(tmp_path: Path) -> None:
    shown = begun(tmp_path)
    on_disk = {p.name: bytes.fromhex(p.read_text()) for p in (tmp_path / "keys").iterdir()}
    assert open_sealed(sealed(tmp_path), shown) == on_disk
    assert len(on_disk) == 6


def test_nothing_of_a_key_shows_in_the_sealed_file_or_in_what_holds_it(tmp_path: Path) -> None:
    recovery = Recovery(keys_in(tmp_path), WORLD)
    shown = recovery.begin()
    assert shown.reveal() not in repr(shown)
    content = sealed(tmp_path)
    assert shown.reveal().encode() not in content
    assert _from_words(shown.reveal()).hex().encode() not in content
    for path in (tmp_path / "keys").iterdir():
        key = bytes.fromhex(path.read_text())
        assert key.hex().encode() not in content
        assert base64.b64encode(key) not in content
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_keys_that_changed_are_sealed_anew_and_others_are_not_written_again(
    tmp_path: Path,
) -> None:
    shown = begun(tmp_path)
    keys = keys_in(tmp_path)
    before = sealed(tmp_path)
    Recovery(keys, WORLD).refresh()
    assert sealed(tmp_path) == before
    keys.add("config", WORLD)
    successor = keys.db.begin()
    Recovery(keys, WORLD).refresh()
    opened = open_sealed(sealed(tmp_path), shown)
    assert opened["db.key.new"] == successor
    assert sum(name.startswith("config") for name in opened) == 2
    keys.db.finish()
    Recovery(keys, WORLD).refresh()
    opened = open_sealed(sealed(tmp_path), shown)
    assert opened["db.key"] == successor
    assert "db.key.new" not in opened


def test_without_a_recovery_key_nothing_is_sealed(tmp_path: Path) -> None:
    Recovery(keys_in(tmp_path), WORLD).refresh()
    assert not (tmp_path / FILE).exists()


def test_a_new_recovery_key_ends_the_old_one(tmp_path: Path) -> None:
    old = begun(tmp_path)
    new = begun(tmp_path)
    with pytest.raises(RecoveryRefused, match="not the one"):
        open_sealed(sealed(tmp_path), old)
    assert open_sealed(sealed(tmp_path), new)


def test_who_can_write_beside_the_data_can_not_have_the_keys_sealed_to_himself(
    tmp_path: Path,
) -> None:
    begun(tmp_path)
    his = PrivateKey.generate()
    value = json.loads(sealed(tmp_path))
    value["public"] = base64.b64encode(his.public_key.encode()).decode()
    value["of"] = "something else"  # so that it is sealed anew
    (tmp_path / FILE).write_text(json.dumps(value))
    before = sealed(tmp_path)
    with pytest.raises(RecoveryRefused, match="altered"):
        Recovery(keys_in(tmp_path), WORLD).refresh()
    assert sealed(tmp_path) == before
    with pytest.raises(RecoveryRefused):
        open_sealed(before, _in_words(his.encode()))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"public":1}', b"\xff", b'{"public":"!","mac":""}']
)
def test_a_damaged_file_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    shown = begun(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(RecoveryRefused, match="damaged"):
        open_sealed(content, shown)
    with pytest.raises(RecoveryRefused, match="damaged"):
        Recovery(keys_in(tmp_path), WORLD).refresh()


def test_a_sealed_part_that_was_altered_does_not_open(tmp_path: Path) -> None:
    shown = begun(tmp_path)
    value = json.loads(sealed(tmp_path))
    content = bytearray(base64.b64decode(value["sealed"]))
    content[-1] ^= 1
    value["sealed"] = base64.b64encode(bytes(content)).decode()
    with pytest.raises(RecoveryRefused, match="damaged"):
        open_sealed(json.dumps(value).encode(), shown)


# ── as people write it ─────────────────────────────────────────────────────────────────────────


@STEADY
@given(st.binary(min_size=32, max_size=32))
def test_what_is_shown_is_read_back_however_it_is_typed(key: bytes) -> None:
    shown = _in_words(key)
    assert len(shown) == 14 * 4 + 13
    for typed in (shown, shown.lower(), shown.replace("-", " ") + "\n", shown.replace("-", "")):
        assert _from_words(typed) == key
    assert _from_words(shown.replace("0", "o").replace("1", "l")) == key


@STEADY
@given(st.binary(min_size=32, max_size=32), st.data())
def test_one_wrong_letter_or_two_exchanged_is_noticed(key: bytes, data: st.DataObject) -> None:
    digits = list(_in_words(key).replace("-", ""))
    at = data.draw(st.integers(0, len(digits) - 2))
    if data.draw(st.booleans()):
        wrong = [*digits]
        wrong[at] = data.draw(st.sampled_from([d for d in "0123456789ABCDEF" if d != digits[at]]))
    else:
        wrong = [*digits[:at], digits[at + 1], digits[at], *digits[at + 2 :]]
    if wrong == digits:
        return
    with pytest.raises(RecoveryRefused, match="mistyped"):
        _from_words("".join(wrong))


@pytest.mark.parametrize(
    "text", ["", "x", "-" * 56, "Z" * 56, "U" * 56, "0" * 55, "0" * 57, "é" * 56]
)
def test_what_is_no_recovery_key_is_refused(text: str) -> None:
    with pytest.raises(RecoveryRefused, match="mistyped"):
        _from_words(text)


# ── putting back ───────────────────────────────────────────────────────────────────────────────


def test_only_what_is_missing_is_put_back_and_privately(tmp_path: Path) -> None:
    keys = {"db.key": b"d" * 32, "config.key": b"c" * 32}
    assert put_back(keys, tmp_path / "keys", WORLD) == ["db.key", "config.key"]
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "keys").iterdir()} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    (tmp_path / "keys" / "db.key").unlink()
    assert put_back(keys, tmp_path / "keys", WORLD) == ["db.key"]
    assert put_back(keys, tmp_path / "keys", WORLD) == []


def test_another_key_that_is_there_is_left_alone_and_then_nothing_is_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "db.key").write_text("0" * 64)
    with pytest.raises(Conflict, match="another key"):
        put_back({"config.key": b"c" * 32, "db.key": b"d" * 32}, tmp_path, WORLD)
    assert [p.name for p in tmp_path.iterdir()] == ["db.key"]


@pytest.mark.parametrize("name", ["../db.key", "/etc/db.key", "a/db.key", "passwd", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatabaseUnopenable, match="name"):
        put_back({name: b"d" * 32}, tmp_path, WORLD)
