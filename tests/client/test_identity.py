from __future__ import annotations

from pathlib import Path

import pytest

from config_manager.client.identity import load_identity, make_instance_name, trust_init
from config_manager.config.errors import KeyFileUnsafe, RootRefused, SettingsInvalid
from config_manager.config.world import World
from tests.client import makers as m


def write_root(path: Path, data: bytes | None = None) -> Path:
    path.write_bytes(m.root_bytes() if data is None else data)
    return path


def test_init_pins_the_root_and_again_changes_nothing(tmp_path: Path) -> None:
    root, state = write_root(tmp_path / "r"), tmp_path / "state"
    first = trust_init(state, root)
    assert trust_init(state, root) == first == load_identity(state)
    assert state.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (state / "keys").iterdir()} == {0o600}


def test_another_root_is_refused(tmp_path: Path) -> None:
    trust_init(tmp_path / "state", write_root(tmp_path / "r"))
    other = write_root(tmp_path / "other", m.root_bytes(m.make_root(version=2)))
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
