"""A `BaseSettings` is opened as it is: its own variables, below them what an operator sets."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    JsonConfigSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
    YamlConfigSettingsSource,
)

from config_manager.client.drivers.opening import read_layers
from config_manager.client.model.overrides import prefix_of
from config_manager.client.model.precedence import Layers, Merged
from config_manager.client.settings_source import delivered
from config_manager.client.testing import FakePublisher
from config_manager.config.errors import SettingsInvalid
from tests.kit import documents as m

SECRET = "hunter2-hunter2"


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Db(BaseModel):
    host: str = "localhost"
    port: int = 5432


class Own(BaseSettings):
    """What a FastAPI service has, more or less."""

    model_config = SettingsConfigDict(env_prefix="STT_", env_nested_delimiter="__")

    model: str = "tiny"
    nick: str = Field("nobody", validation_alias="MY_NICK")
    count: int = Field(0, validation_alias=AliasChoices("COUNT", "HOW_MANY"))
    hosts: list[str] = []
    tags: Annotated[list[str], NoDecode] = []
    db: Db = Db()
    token: SecretStr = SecretStr("")
    DATABASE_URL: str = "sqlite://"

    @field_validator("tags", mode="before")
    @classmethod
    def cut(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


def effective(
    model: type[BaseModel],
    environment: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    *,
    lines: dict[str, str | None] | None = None,
    prefix: str | None = None,
) -> Merged[Any]:
    first = prefix_of(model, "stt-worker") if prefix is None else prefix
    layers: Layers[Any] = read_layers(model, first, environment=environment or {}, env_file=lines)
    return layers.merge(m.make_update(7, config=config) if config is not None else None)


def refusal(model: type[BaseModel], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        effective(model, environment)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    return str(caught.value)


# ── what comes first ───────────────────────────────────────────────────────────────────────────


def test_environment_over_env_file_over_delivered_over_default() -> None:
    config = {"model": "delivered", "count": 5, "hosts": ["d"]}
    told = effective(
        Own,
        {"STT_MODEL": "env", "HOW_MANY": "1"},
        config,
        lines={"STT_MODEL": "file", "MY_NICK": "n"},
    )
    assert (told.values.model, told.values.count, told.values.nick) == ("env", 1, "n")
    assert (told.values.hosts, told.values.tags) == (["d"], [])
    assert told.overrides == ("count", "model", "nick")
    assert str(told.explanations["model"]) == (
        "model = 'env': from the environment (STT_MODEL); it shadows 'delivered' of revision 7"
    )
    assert (told.explanations["count"].name, told.explanations["nick"].name) == (
        "HOW_MANY",
        "MY_NICK",
    )
    assert told.explanations["nick"].origin == ".env"
    assert told.explanations["hosts"].origin == "delivered"
    assert told.explanations["tags"].origin == "default"


def test_what_this_process_has_in_its_own_environment_is_not_looked_at_behind_our_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STT_MODEL", "behind")
    assert effective(Own, {}, {}).values.model == "tiny"


def test_a_prefix_that_was_said_beats_the_classs_own() -> None:
    environment = {"STT_MODEL": "a", "MY_MODEL": "b", "MODEL": "c"}
    for prefix, expected in ((None, "a"), ("MY_", "b"), ("", "c")):
        assert effective(Own, environment, prefix=prefix).values.model == expected


@pytest.mark.parametrize(
    "names", [("nick", "count"), ("MY_NICK", "HOW_MANY"), ("my_nick", "count")]
)
def test_a_field_is_delivered_by_its_name_or_another_of_its_names(names: tuple[str, str]) -> None:
    told = effective(Own, {}, dict(zip(names, ("op", 3), strict=True)))
    assert (told.values.nick, told.values.count) == ("op", 3)


def test_a_field_in_capitals_is_delivered_in_small_letters() -> None:
    told = effective(Own, {}, {"database_url": "pg://"})
    assert told.values.DATABASE_URL == "pg://"
    assert told.explanations["DATABASE_URL"].origin == "delivered"

    class Plain(BaseModel):
        DATABASE_URL: SecretStr = SecretStr("")

    assert effective(Plain, {}, {"database_url": "x"}).values.DATABASE_URL == SecretStr("x")
    assert effective(Plain, {"STT_WORKER_DATABASE_URL": "y"}).overrides == ("DATABASE_URL",)


def test_a_key_for_a_release_to_come_is_passed_over_though_the_class_forbids_extras() -> None:
    assert effective(Own, {}, {"model": "base", "newer": 1}).values.model == "base"

    class Wide(BaseSettings):
        model_config = SettingsConfigDict(extra="allow", env_prefix="W_")

    told = effective(Wide, {}, {"newer": 1}, lines={"W_EXTRA": "x", "CONFIG_MANAGER_ROOT": "y"})
    assert (told.values.newer, told.values.extra) == (1, "x")
    assert set(told.explanations) == {"newer", "extra"}


# ── texts ──────────────────────────────────────────────────────────────────────────────────────


def test_lists_nested_variables_and_secrets_are_read_as_pydantic_settings_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {
        "stt_hosts": '["a"]', "STT_TAGS": "a,b", "STT_DB__HOST": "db1", "STT_TOKEN": SECRET,
        "STT_DATABASE_URL": "pg://", "MY_NICK": "5",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told, made = effective(Own, environment), cast("Any", Own)
    assert told.values.model_dump() == made().model_dump()
    assert told.explanations["db"].name == "STT_DB__HOST"
    assert SECRET not in str(told.explanations)


def test_a_nested_variable_says_its_part_and_the_operator_the_others() -> None:
    config = {"db": {"host": "delivered", "port": 1}}
    told = effective(Own, {"STT_DB__PORT": "3"}, config, lines={"STT_DB__HOST": "file"})
    assert told.values.db == Db(host="file", port=3)
    assert effective(Own, {"STT_DB__PORT": "3"}, config).values.db == Db(host="delivered", port=3)
    assert told.explanations["db"].name == "STT_DB__PORT"
    assert told.overrides == ("db",)
    whole = effective(Own, {"STT_DB": '{"host": "json"}', "STT_DB__PORT": "4"})
    assert whole.values.db == Db(host="json", port=4)
    assert whole.explanations["db"].name == "STT_DB, STT_DB__PORT"


@pytest.mark.parametrize("strict", [False, True])
def test_options_of_the_class_are_honoured(*, strict: bool) -> None:
    class Fussy(BaseSettings):
        model_config = SettingsConfigDict(
            case_sensitive=True, env_prefix="F_", env_ignore_empty=True, env_parse_none_str="null",
            env_parse_enums=True, strict=strict, populate_by_name=True,
        )  # fmt: skip
        size: int = 1
        other: int | None = 2
        color: Color = Color.BLUE
        token: SecretStr = SecretStr("")
        where: Path = Path("a")
        named: int = Field(0, alias="AKA")

    environment = {
        "F_size": "5", "F_SIZE": "6", "F_other": "null", "F_color": "RED", "F_token": SECRET,
        "F_where": "b", "F_named": "7",
    }  # fmt: skip
    values = effective(Fussy, environment).values
    assert (values.size, values.other, values.color) == (5, None, Color.RED)
    assert (values.token, values.where, values.named) == (SecretStr(SECRET), Path("b"), 7)
    assert effective(Fussy, {"F_size": ""}).overrides == ()


def test_a_path_into_a_variable_is_followed() -> None:
    class Deep(BaseSettings):
        host: str = Field("", validation_alias=AliasPath("server", "host"))
        first: int = Field(0, validation_alias=AliasPath("numbers", 0))

    told = effective(Deep, {"SERVER": '{"host": "h"}', "NUMBERS": "[4, 5]"}, {"host": "d"})
    assert (told.values.host, told.values.first) == ("h", 4)
    assert (told.explanations["host"].name, told.overrides) == ("SERVER", ("first", "host"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "STT_HOSTS",
            SECRET,
            'STT_HOSTS: Input should be a valid list; write JSON, such as ["a","b"]',
        ),
        (
            "STT_DB",
            SECRET,
            'STT_DB: Input should be a valid dictionary or instance of Db; write JSON, such as {"a": 1}',
        ),
        ("HOW_MANY", SECRET, "HOW_MANY: Input should be a valid integer"),
        ("STT_DB__PORT", SECRET, "STT_DB__PORT: port: Input should be a valid integer"),
        ("STT_MODEL", "not UTF-8: \udcff", "STT_MODEL: JSON has no value for this"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(name: str, text: str, said: str) -> None:
    assert refusal(Own, {name: text}).startswith(said)


@pytest.mark.parametrize("error", [KeyError, StopIteration, TypeError])
def test_whatever_the_classs_own_code_raises_the_variable_is_named(error: type[Exception]) -> None:
    class Wild(BaseSettings):
        x: str = ""
        y: list[str] = []

        @field_validator("x", mode="before")
        @classmethod
        def fail(cls, value: Any) -> Any:
            raise error(SECRET)

    assert refusal(Wild, {"X": SECRET, "Y": "[]"}) == f"X: {error.__name__}"

    class Reader(EnvSettingsSource):
        def prepare_field_value(self, field_name: str, *args: Any, **kwargs: Any) -> Any:
            if field_name == "y":
                raise error(SECRET)
            return super().prepare_field_value(field_name, *args, **kwargs)

    class Wilder(Wild):
        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:  # type: ignore[override]
            return (Reader(settings_cls),)

    assert refusal(Wilder, {}) == f"y: {error.__name__}"

    class Wildest(Wild):
        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:  # type: ignore[override]
            raise error(SECRET)

    assert refusal(Wildest, {}) == f"Wildest.settings_customise_sources raised {error.__name__}"


def test_a_validator_of_the_whole_that_wants_more_than_the_variables_is_judged_with_the_rest() -> (
    None
):
    class Whole(BaseSettings):
        low: int = 0
        high: int = 10

        @model_validator(mode="after")
        def ordered(self) -> Any:
            if self.low >= self.high:
                raise ValueError("low is not below high")
            return self

    assert effective(Whole, {"LOW": "3"}, {"high": 20}).values.high == 20


# ── sources ────────────────────────────────────────────────────────────────────────────────────


def customised(*chosen: Any, **config: Any) -> type[BaseSettings]:
    """A class that puts these sources after its environment's."""

    class Customised(BaseSettings):
        model_config = SettingsConfigDict(**config)  # type: ignore[typeddict-item]
        n: int = 0

        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: Any, init_settings: Any, env_settings: Any, **others: Any
        ) -> Any:
            made = [
                others[one]
                if isinstance(one, str)
                else one(settings_cls)
                if isinstance(one, type)
                else one
                for one in chosen
            ]
            return (init_settings, env_settings, *made)

    return Customised


class Vault(PydanticBaseSettingsSource):
    def get_field_value(self, field: Any, field_name: str) -> Any:
        return 1, field_name, False

    def __call__(self) -> dict[str, Any]:
        return {"n": 1}


def from_a_function() -> dict[str, Any]:
    return {"n": 1}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (YamlConfigSettingsSource, "its source YamlConfigSettingsSource"),
        (TomlConfigSettingsSource, "its source TomlConfigSettingsSource"),
        (JsonConfigSettingsSource, "its source JsonConfigSettingsSource"),
        (Vault, "its source Vault"),
        (from_a_function, "its source from_a_function"),
    ],
)
def test_a_source_that_cannot_be_honoured_is_refused_by_its_name(source: Any, name: str) -> None:
    said = refusal(customised(source))
    assert said.startswith(f"Customised: {name} can't be honoured")
    assert "give the server what it holds" in said


@pytest.mark.parametrize("option", ["cli_parse_args", "nested_model_default_partial_update"])
def test_so_is_an_option_that_reads_from_elsewhere(option: str) -> None:
    assert f"its option {option}" in refusal(customised(**{option: True}))


def test_sources_in_another_order_are_refused() -> None:
    class Backwards(BaseSettings):
        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:  # type: ignore[override]
            return sources["dotenv_settings"], sources["env_settings"]

    assert "another order" in refusal(Backwards)
    assert effective(customised("dotenv_settings", "file_secret_settings")).values.n == 0


def test_a_class_that_leaves_a_source_out_does_not_read_it() -> None:
    model = customised()  # no .env
    assert effective(model, lines={"N": "1"}).values.n == 0


def test_an_environment_source_of_the_users_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Commas(EnvSettingsSource):
        """As pydantic-settings' own page has it."""

        def prepare_field_value(self, field_name: str, field: Any, value: Any, *args: Any) -> Any:
            if field_name == "numbers" and value:
                return [int(one) for one in value.split(",")]
            return super().prepare_field_value(field_name, field, value, *args)

    class Listed(BaseSettings):
        numbers: list[int] = []

        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:  # type: ignore[override]
            return (Commas(settings_cls),)

    monkeypatch.setenv("NUMBERS", "1,2")
    told = effective(Listed, {"NUMBERS": "1,2"}, {"numbers": [3]})
    assert (told.values.numbers, told.overrides) == ([1, 2], ("numbers",))


def test_secret_files_come_below_what_was_delivered(tmp_path: Path) -> None:
    class Filed(BaseSettings):
        model_config = SettingsConfigDict(secrets_dir=tmp_path)
        token: SecretStr = SecretStr("default")
        key: str = ""

    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "KEY").write_text(SECRET)
    alone = effective(Filed)
    assert (alone.values.token.get_secret_value(), alone.values.key) == (SECRET, SECRET)
    assert alone.overrides == ()
    assert str(alone.explanations["token"]) == "token = '********': from a secret file (token)"
    assert SECRET not in str(alone.explanations)
    assert effective(Filed, {}, {"key": "delivered"}).values.key == "delivered"
    assert effective(Filed, {"KEY": "env"}, {"key": "delivered"}).values.key == "env"


# ── live ───────────────────────────────────────────────────────────────────────────────────────


class Both(BaseSettings):
    """Reads what was delivered at start, and was then opened as it is."""

    model_config = SettingsConfigDict(env_prefix="STT_")
    settings_customise_sources = delivered("stt-worker")
    model: str = "tiny"
    n: int = 0
    token: SecretStr = SecretStr("")


def test_a_class_with_delivered_lives_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG_MANAGER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("STT_N", "3")
    publisher = FakePublisher("stt-worker")
    publisher.set_secrets(token=SECRET)
    state = tmp_path / "state"
    with publisher.open_in_threads(Both, first_wait_s=0, state_dir=state) as config:
        assert publisher.deliver_and_wait(model="base", n=5).applied
        assert (config.current.model, config.current.n) == ("base", 3)
        assert config.current.token.get_secret_value() == SECRET
        assert config.overrides == ("n",)
        assert config.explain("n").name == "STT_N"
        assert publisher.deliver_and_wait(n=6).applied
        assert (config.current.model, config.explain("model").origin) == ("tiny", "default")
    # and at a later start without us
    assert (Both().model, Both().n, Both().token.get_secret_value()) == ("tiny", 3, SECRET)
