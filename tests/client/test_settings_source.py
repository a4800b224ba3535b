"""A service with BaseSettings adopts by one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from config_manager.client.settings_source import DeliveredSource, delivered
from config_manager.client.state.cache import Cache
from config_manager.client.state.identity import load_identity, trust_init
from config_manager.client.testing import FakePublisher
from config_manager.config.world import World
from tests.kit import clients
from tests.kit import documents as m


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="STT_", env_file=None)
    settings_customise_sources = delivered("stt-worker")

    whisper_model: str = "tiny"
    threads: int = 4
    language: str = "en"


def as_any(model: Any) -> Any:
    """A checker wants a value for each alias; at run time they come from elsewhere."""
    return model


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    monkeypatch.setenv("CONFIG_MANAGER_STATE_DIR", str(directory))
    return directory


def deliver(state: Path, **fields: Any) -> None:
    (state.parent / "root").write_bytes(m.root_bytes())
    trust_init(state, state.parent / "root")
    identity = load_identity(state)
    kept = clients.make_kept(5, m.update_bytes(5, **fields))
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
        *content, last = kept.read_bytes()
        kept.write_bytes(bytes([*content, last ^ 1]))
    assert Settings().whisper_model == "tiny"
    assert "does not verify" in caplog.text


# ── the names of fields ────────────────────────────────────────────────────────────────────────


class Voice(BaseModel):
    pitch: float = 1.0
    speed: float = 1.0


class Named(BaseSettings):
    """Every way to name a field."""

    model_config = SettingsConfigDict(env_prefix="X_", env_nested_delimiter="__")
    settings_customise_sources = delivered("stt-worker")

    nick: str = Field("d", validation_alias="MY_NICK")
    n: int = Field(1, alias="alias_key")
    count: int = Field(0, validation_alias=AliasChoices("many", "how_many"))
    host: str = Field("h", validation_alias=AliasPath("server", "host"))
    third: int = Field(3, validation_alias=AliasPath("numbers", 2))
    voice: Voice = Voice()
    DATABASE_URL: str = "sqlite://"


class NamedEitherWay(Named):
    model_config = SettingsConfigDict(populate_by_name=True)


ALL = {"nick": "op", "n": 7, "count": 3, "host": "x", "third": 9, "database_url": "pg://"}


@pytest.mark.parametrize("model", [Named, NamedEitherWay])
def test_a_field_is_delivered_by_its_own_name_whatever_pydantic_calls_it(
    state: Path, model: Any
) -> None:
    deliver(state, config={**ALL, "voice": {"pitch": 2.0}})
    read = model()
    assert (read.nick, read.n, read.count, read.host) == ("op", 7, 3, "x")
    assert (read.DATABASE_URL, read.voice) == ("pg://", Voice(pitch=2.0))
    assert read.third == (9 if model is NamedEitherWay else 3)  # there is no list to put it into


@pytest.mark.parametrize("model", [Named, NamedEitherWay])
@pytest.mark.parametrize(
    "config",
    [{"alias_key": 7, "how_many": 3, "my_nick": "op"}, {"alias_key": 7, "many": 3, "nick": "op"}],
)
def test_and_by_any_other_of_its_names(state: Path, model: Any, config: dict[str, Any]) -> None:
    deliver(state, config=config)
    assert (model().n, model().count, model().nick) == (7, 3, "op")


@pytest.mark.parametrize("model", [Named, NamedEitherWay])
@pytest.mark.parametrize("count", ["MANY", "HOW_MANY", "X_COUNT"])
def test_a_variable_wins_under_whichever_name_it_stands(
    state: Path, monkeypatch: pytest.MonkeyPatch, model: Any, count: str
) -> None:
    deliver(state, config=ALL)
    monkeypatch.setenv(count, "5")
    monkeypatch.setenv("MY_NICK", "env")
    is_read = count != "X_COUNT" or model is NamedEitherWay
    assert (model().count, model().nick, model().n) == (5 if is_read else 3, "env", 7)
    assert model(alias_key=8, MY_NICK="arg").n == 8
    if model is NamedEitherWay:
        mine = as_any(model)(n=9, count=1)
        assert (mine.n, mine.count) == (9, 1)


def test_a_nested_variable_leaves_the_rest_of_what_was_delivered(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(state, config={"voice": {"pitch": 2.0, "speed": 3.0}})
    monkeypatch.setenv("X_VOICE__SPEED", "0.5")
    assert as_any(Named)().voice == Voice(pitch=2.0, speed=0.5)


def test_a_class_that_takes_anything_gets_what_it_has_no_field_for(state: Path) -> None:
    class Wide(BaseSettings):
        model_config = SettingsConfigDict(extra="allow")
        settings_customise_sources = delivered("stt-worker")

    deliver(state, config={"newer": 1})
    assert Wide().model_extra == {"newer": 1}


# ── secrets ────────────────────────────────────────────────────────────────────────────────────


class Guarded(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="X_")
    settings_customise_sources = delivered("stt-worker")
    api_key: SecretStr = SecretStr("default")
    TOKEN: SecretStr = Field(SecretStr(""), validation_alias="MY_TOKEN")
    n: int = 0


def kept_with_secrets(state: Path, monkeypatch: pytest.MonkeyPatch) -> FakePublisher:
    monkeypatch.setenv("CONFIG_MANAGER_STATE_DIR", str(state))
    publisher = FakePublisher("stt-worker")
    publisher.set_secrets(api_key="hunter2", token="hunter3")
    with publisher.open_in_threads(Guarded, state_dir=state, first_wait_s=0):
        publisher.deliver_and_wait(n=5)
    return publisher


def test_secrets_that_were_delivered_come_too(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_with_secrets(state, monkeypatch)
    read = as_any(Guarded)()
    assert read.api_key.get_secret_value() == "hunter2"
    assert (read.TOKEN.get_secret_value(), read.n) == ("hunter3", 5)
    monkeypatch.setenv("X_API_KEY", "mine")
    assert as_any(Guarded)().api_key.get_secret_value() == "mine"


def test_secrets_that_are_not_kept_leave_the_field_at_its_default(state: Path) -> None:
    deliver(state, config={"n": 5}, secrets={"api_key": 1})
    read = as_any(Guarded)()
    assert (read.api_key.get_secret_value(), read.n) == ("default", 5)


def test_secrets_of_an_instance_are_opened_by_its_name(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_with_secrets(state, monkeypatch)
    monkeypatch.setenv("CONFIG_MANAGER_INSTANCE", "another")
    assert as_any(Guarded)().api_key.get_secret_value() == "default"


# ── where the state is ─────────────────────────────────────────────────────────────────────────


class InEnvFile(BaseSettings):
    """It forbids what it does not know, as every BaseSettings that says nothing else."""

    model_config = SettingsConfigDict(env_file="settings.env")
    settings_customise_sources = delivered("stt-worker")
    n: int = 0


def test_the_state_directory_may_stand_in_the_classs_env_file(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(state, config={"n": 5})
    monkeypatch.delenv("CONFIG_MANAGER_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(state.parent / "none"))
    monkeypatch.chdir(state.parent)
    assert InEnvFile().n == 0
    (state.parent / "settings.env").write_text(
        "CONFIG_MANAGER_STATE_DIR=state\nCONFIG_MANAGER_MQTT_URL=none:\n"
    )
    assert InEnvFile().n == 5
    assert as_any(InEnvFile)(_env_file="none").n == 0
    for environment in ("STATE_DIRECTORY", "CONFIG_MANAGER_STATE_DIR"):
        with monkeypatch.context() as patch:
            patch.setenv(environment, str(state.parent / "none"))
            assert InEnvFile().n == 0


def test_an_env_file_that_the_class_does_not_name_is_not_read(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else may write in the working directory."""
    deliver(state, config={"n": 5, "threads": 8})
    monkeypatch.chdir(state.parent)
    (state.parent / ".env").write_bytes(b"A=\xff")
    assert InEnvFile().n == 5
    assert caplog.text == ""
    monkeypatch.delenv("CONFIG_MANAGER_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(state.parent / "none"))
    (state.parent / ".env").write_text("CONFIG_MANAGER_STATE_DIR=state\n")
    assert (InEnvFile().n, Settings().threads) == (0, 4)
    source = DeliveredSource(Settings, m.SERVICE)
    assert source() == {}


def test_the_environments_values_are_not_filled_into_ours(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(state, config={"n": 5})
    monkeypatch.delenv("CONFIG_MANAGER_STATE_DIR")
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.chdir(state.parent)
    Path("settings.env").write_text("N=${DB_PASSWORD}1\nconfig_manager_state_dir=${DB_PASSWORD}\n")
    with pytest.raises(ValidationError, match="hunter21"):  # the service's own is as it was
        InEnvFile()
    Path("settings.env").write_text("config_manager_state_dir=${DB_PASSWORD}\n")
    assert InEnvFile().n == 0
    assert "${DB_PASSWORD} holds no trust root" in caplog.text
    assert "hunter2" not in caplog.text
    assert "write it out" in caplog.text


def test_a_key_that_others_can_read_is_said_and_the_service_starts(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deliver(state, config={"threads": 8})
    assert Settings().threads == 8
    key = state / "keys/file.key"
    key.chmod(0o644)
    assert Settings().threads == 4
    assert "nothing delivered" in caplog.text
    assert f"run: chmod 600 {key}" in caplog.text
