from __future__ import annotations

import os
from pathlib import Path

import pytest

from config_manager.client.rules.root_chain import follow_on, pin
from config_manager.client.state.identity import (
    keep_root,
    load_identity,
    make_instance_name,
    trust_init,
)
from config_manager.config.errors import KeyFileUnsafe, RootRefused, SettingsInvalid
from config_manager.config.world import World
from tests.kit import documents as m
from tests.kit import roots as r


def write_root(path: Path, data: bytes | None = None) -> Path:
    path.write_bytes(m.root_bytes() if data is None else data)
    return path


def test_init_pins_the_root_and_again_changes_nothing(tmp_path: Path) -> None:
    root, state = write_root(tmp_path / "r"), tmp_path / "state"
    first = trust_init(state, root)
    assert trust_init(state, root) == first == load_identity(state)
    assert state.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (state / "keys").iterdir()} == {0o600}


def test_what_is_missing_above_is_made_for_its_owner_alone_too(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        trust_init(tmp_path / ".local/state/cm", write_root(tmp_path / "r"))
    finally:
        os.umask(old)
    for made in (".local", ".local/state", ".local/state/cm", ".local/state/cm/keys"):
        assert (tmp_path / made).stat().st_mode & 0o777 == 0o700


def test_another_root_is_refused(tmp_path: Path) -> None:
    trust_init(tmp_path / "state", write_root(tmp_path / "r"))
    other = write_root(tmp_path / "other", r.root(1, r.STRANGER, root=(r.STRANGER,)))
    with pytest.raises(RootRefused, match="new state directory"):
        trust_init(tmp_path / "state", other)


@pytest.mark.parametrize("data", [b"", b"{}", m.update_bytes(1)])
def test_what_does_not_verify_as_a_root_is_never_pinned(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RootRefused):
        trust_init(tmp_path / "state", write_root(tmp_path / "r", data))
    assert not (tmp_path / "state").exists()


def test_no_state_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="trust init"):
        load_identity(tmp_path)


def test_a_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    trust_init(tmp_path / "state", write_root(tmp_path / "r"))
    (tmp_path / "state/keys/file.key").chmod(0o644)
    with pytest.raises(KeyFileUnsafe):
        load_identity(tmp_path / "state")


@pytest.mark.parametrize("host", ["Küche.local", "", "-x-", "a" * 300])
def test_any_host_name_becomes_an_instance_name(host: str) -> None:
    assert len(make_instance_name(host, World())) <= 63


def test_a_root_brought_by_hand_is_trusted_where_it_follows(tmp_path: Path) -> None:
    state = tmp_path / "state"
    trust_init(state, write_root(tmp_path / "1"))
    second = write_root(tmp_path / "2", r.root(2, config=(r.SECOND_CONFIG,)))
    assert trust_init(state, second).root.version == 2
    assert load_identity(state).roots == tuple(
        pin(path.read_bytes()).root for path in (tmp_path / "1", second)
    )
    assert trust_init(state, second) == trust_init(state, tmp_path / "1") == load_identity(state)


@pytest.mark.parametrize(
    "data",
    [
        r.root(3),
        r.root(2, r.STRANGER, root=(r.STRANGER,)),
        r.root(1, config=(r.STRANGER,)),
    ],
)
def test_a_root_that_does_not_follow_is_refused(tmp_path: Path, data: bytes) -> None:
    state = tmp_path / "state"
    trust_init(state, write_root(tmp_path / "1"))
    with pytest.raises(RootRefused, match="new state directory"):
        trust_init(state, write_root(tmp_path / "other", data))
    assert load_identity(state).root.version == 1


def test_the_chain_is_read_back_and_verified_from_the_pinned_root_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    trust_init(state, write_root(tmp_path / "r"))
    chain = load_identity(state).chain
    for version in (2, 3, 4):
        link = follow_on(chain[-1], r.root(version))
        keep_root(state, link, World())
        chain += (link,)
    assert load_identity(state).chain == chain
    assert {p.stat().st_mode & 0o777 for p in (state / "roots").iterdir()} == {0o600}
    assert (state / "roots").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "damage", [b"", b"{}", r.root(3, r.STRANGER), r.root(4), r.root(3)[:200]], ids=str
)
def test_a_chain_goes_as_far_as_it_verifies_and_says_where_it_ends(
    tmp_path: Path, damage: bytes
) -> None:
    state = tmp_path / "state"
    trust_init(state, write_root(tmp_path / "r"))
    for version in (2, 3, 4):
        link = follow_on(load_identity(state).chain[-1], r.root(version))
        keep_root(state, link, World())
    (state / "roots/3.json").write_bytes(damage)
    identity = load_identity(state)
    assert identity.root.version == 2
    assert identity.broken is not None
    assert "3.json" in identity.broken
