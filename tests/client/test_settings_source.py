"""A service with BaseSettings adopts by one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings, SettingsConfigDict

from config_manager.client.cache import Cache
from config_manager.client.identity import load_identity, trust_init
from config_manager.client.settings_source import delivered
from config_manager.config.world import World
from tests.client import makers as m


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="STT_", env_file=None)
    settings_customise_sources = delivered("stt-worker")

    whisper_model: str = "tiny"
    threads: int = 4
    language: str = "en"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    monkeypatch.setenv("CONFIG_MANAGER_STATE_DIR", str(directory))
    return directory


def deliver(state: Path, **fields: Any) -> None:
    (state.parent / "root").write_bytes(m.root_bytes())
    trust_init(state, state.parent / "root")
    identity = load_identity(state)
    kept = m.make_kept(5, m.update_bytes(5, **fields))
    Cache(state, m.SERVICE, identity.file_key, identity.roots, World()).keep(kept)


def test_environment_over_delivered_over_default(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(state, config={"whisper_model": "base", "threads": 8, "unknown": 1})
    monkeypatch.setenv("STT_THREADS", "2")
    settings = Settings()
    assert (settings.whisper_model, settings.threads, settings.language) == ("base", 2, "en")
    assert Settings(whisper_model="mine").whisper_model == "mine"


def test_what_the_server_only_filled_in_is_not_taken(state: Path) -> None:
    deliver(state, config={"whisper_model": "large", "threads": 8}, defaulted=("whisper_model",))
    assert (Settings().whisper_model, Settings().threads) == ("tiny", 8)


def test_with_nothing_delivered_it_starts_with_its_own_defaults_and_says_why(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings().whisper_model == "tiny"
    assert "trust init" in caplog.text


def test_a_file_that_was_tampered_with_is_not_taken(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(state, config={"whisper_model": "base"})
    for kept in state.glob("*.lkg*"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"\0")
    assert Settings().whisper_model == "tiny"
    assert "does not verify" in caplog.text
