"""A variable's text, and a model that has its own idea of it."""

from __future__ import annotations

import logging
import traceback
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    SecretStr,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from config_manager.client.drivers.misspelt import say_unknown
from config_manager.client.drivers.opening import read_layers
from config_manager.config.errors import SettingsInvalid

SECRET = "hunter2-hunter2"


def read(model: type[BaseModel], **variables: str) -> Any:
    return read_layers(model, "S_", environment=variables).merge(None).values


def refusal(model: type[BaseModel], **variables: str) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        read(model, **variables)
    said = "".join(traceback.format_exception(caught.value, chain=False))
    assert caught.value.__context__ is None
    assert SECRET not in said
    return str(caught.value)


# ── the model's own validators ─────────────────────────────────────────────────────────────────


class Hosts(BaseModel):
    """As the web's tutorials have it: a list with commas, cut by a validator."""

    hosts: list[str] = []
    port: int = 1

    @field_validator("hosts", mode="before")
    @classmethod
    def cut(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


def test_a_text_that_only_the_models_own_validator_takes_is_taken() -> None:
    assert read(Hosts, S_HOSTS="a,b").hosts == ["a", "b"]
    assert read(Hosts, S_HOSTS='["a","b"]', S_PORT="5") == Hosts(hosts=["a", "b"], port=5)
    layers = read_layers(Hosts, "S_", environment={"S_HOSTS": "a,b"})
    assert layers.merge(None).overrides == ("hosts",)


def length(value: Any) -> Any:
    return len(value) if isinstance(value, str) else value


def length_around(value: Any, handler: Any) -> Any:
    return handler(length(value))


@pytest.mark.parametrize(
    ("mode", "validator"), [("before", length), ("wrap", length_around), ("plain", length)]
)
def test_every_kind_of_validator_may_take_it(mode: Any, validator: Any) -> None:
    judge: Any = field_validator("n", mode=mode)
    made = create_model("Made", n=(int, 0), __validators__={"judged": judge(validator)})
    assert read(made, S_N="abc").n == 3


def test_a_validator_of_the_whole_model_may_take_it() -> None:
    class Whole(BaseModel):
        tags: list[str] = []

        @model_validator(mode="before")
        @classmethod
        def cut(cls, data: Any) -> Any:
            tags = data.get("tags")
            return {**data, "tags": tags.split()} if isinstance(tags, str) else data

    assert read(Whole, S_TAGS="a b").tags == ["a", "b"]


def test_a_validator_that_expects_a_text_gets_one_though_the_type_would_take_a_number() -> None:
    class Stripping(BaseModel):
        port: int = 1

        @field_validator("port", mode="before")
        @classmethod
        def strip(cls, value: Any) -> Any:
            return value.strip()  # a number has no such thing

    assert read(Stripping, S_PORT="5").port == 5


def test_a_validator_that_looks_at_another_override_has_it() -> None:
    class Cut(BaseModel):
        by: str = ","
        items: list[str] = []

        @field_validator("items", mode="before")
        @classmethod
        def cut(cls, value: Any, info: Any) -> Any:
            return value.split(info.data["by"]) if isinstance(value, str) else value

    assert read(Cut, S_BY=";", S_ITEMS="a;b").items == ["a", "b"]


def test_what_the_validator_refuses_is_refused_in_its_words_with_the_variables_name() -> None:
    class Picky(BaseModel):
        hosts: list[str] = []

        @field_validator("hosts", mode="before")
        @classmethod
        def cut(cls, value: Any) -> Any:
            raise ValueError(f"no host in {value!r}, nor in {value[:-1]}")

    said = refusal(Picky, S_HOSTS=SECRET)
    assert said.startswith("S_HOSTS: no host in ")


@pytest.mark.parametrize(
    ("kind", "text", "hint"),
    [
        (list[str], "a,b", '; write JSON, such as ["a","b"]'),
        (set[int], "1,2", '; write JSON, such as ["a","b"]'),
        (tuple[int, str], "1,a", '; write JSON, such as ["a","b"]'),
        (list[str] | None, "a,b", '; write JSON, such as ["a","b"]'),
        (dict[str, int], "a=1", '; write JSON, such as {"a": 1}'),
        (Hosts, "a,b", '; write JSON, such as {"a": 1}'),
    ],
)
def test_who_writes_no_json_for_a_list_is_shown_some(kind: Any, text: str, hint: str) -> None:
    made = create_model("Made", x=(kind, None))
    said = refusal(made, S_X=text)
    assert said.startswith("S_X: ")
    assert said.endswith(hint)


def test_of_a_list_that_is_json_the_item_that_does_not_fit_is_named() -> None:
    made = create_model("Made", x=(list[int], []))
    assert refusal(made, S_X='[1,"x"]').startswith("S_X: 1: Input should be a valid integer")


# ── whatever the user's code does ──────────────────────────────────────────────────────────────


class BadWords(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error", [KeyError, TypeError, StopIteration, ZeroDivisionError, OSError, BadWords, RecursionError]
)  # fmt: skip
@pytest.mark.parametrize("where", ["validator", "annotated", "whole model"])
def test_whatever_a_validator_raises_the_variable_is_named_and_only_the_type_said(
    error: type[Exception], where: str
) -> None:
    def wild(value: Any) -> Any:
        raise error(SECRET)

    class Base(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        y: int = 0

    if where == "validator":

        class Wild(Base):
            x: list[str] = []
            _wild = field_validator("x", mode="before")(lambda cls, value: wild(value))
    elif where == "annotated":

        class Wild(Base):  # type: ignore[no-redef]
            x: Annotated[list[str], BeforeValidator(wild)] = []
    else:

        class Wild(Base):  # type: ignore[no-redef]
            x: list[str] = []

            @model_validator(mode="before")
            @classmethod
            def _wild(cls, data: Any) -> Any:
                return wild(data) if "x" in data else data

    assert refusal(Wild, S_X=SECRET, S_Y="3") == f"S_X: {error.__name__}"


class Unlike:
    """Compared by identity, as classes are if nobody says otherwise; says how it looks."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


class Array(Unlike):
    """`==` gives one truth for each element, and no truth for the whole, as numpy's."""

    def __eq__(self, other: object) -> Any:
        return Array("")

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Incomparable(Unlike):
    def __eq__(self, other: object) -> bool:
        raise KeyError(SECRET)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Unlike, Array, Incomparable])
def test_values_that_cannot_be_compared_are_read_all_the_same(kind: type[Unlike]) -> None:
    made = create_model("Made", x=(kind, None), xs=(list[kind], []))  # type: ignore[valid-type]
    values = read(made, S_X="abc", S_XS='["d"]')
    assert (values.x.text, values.xs[0].text) == ("abc", "d")


class Sulking:
    """Its schema can't be had outside of its model."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> Any:
        if handler.field_name is None:
            raise RuntimeError(SECRET)
        return core_schema.no_info_plain_validator_function(lambda text: f"<{text}>")


def test_a_type_that_makes_no_adapter_is_left_to_the_model() -> None:
    class Wild(BaseModel):
        x: Sulking | None = None

    assert read(Wild, S_X="abc").x == "<abc>"


class Late(BaseModel):
    parts: list[Part] = []
    numbers: dict[str, Part] = {}


class Part(BaseModel):
    a: int = 1


def test_a_reference_that_nobody_resolved_yet_is_read_as_pydantic_reads_it() -> None:
    assert not Late.__pydantic_complete__
    values = read(Late, S_PARTS='[{"a": 2}]')
    assert values.parts == [Part(a=2)]


def test_a_secret_in_a_variable_is_never_said_whatever_is_wrong_with_it() -> None:
    class Guarded(BaseModel):
        token: SecretStr = SecretStr("")
        port: int = 0

        @field_validator("token")
        @classmethod
        def long(cls, value: SecretStr) -> SecretStr:
            raise ValueError(f"{value.get_secret_value()} is too short")

    refusal(Guarded, S_PORT=SECRET)
    with pytest.raises(Exception, match="too short") as caught:
        read(Guarded, S_TOKEN=SECRET)
    assert SECRET not in str(caught.value)


# ── variables that no field has ────────────────────────────────────────────────────────────────


class Stt(BaseModel):
    vad_threshold: float = 0.5
    voice: Hosts = Hosts()


def warned(
    caplog: pytest.LogCaptureFixture, prefix: str, environment: dict[str, str], **lines: str
) -> list[dict[str, Any]]:
    with caplog.at_level(logging.WARNING):
        say_unknown(Stt, prefix, environment, lines)
    assert SECRET not in caplog.text
    return [record.fields for record in caplog.records]  # type: ignore[attr-defined]


def test_a_misspelt_variable_is_said_once_with_the_name_that_may_be_meant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {
        "STT_WORKER_VAD_TRESHOLD": SECRET,
        "STT_WORKER_VAD_THRESHOLD": "0.5",
        "PATH": "x",
    }
    (said,) = warned(caplog, "STT_WORKER_", environment)
    assert (said["name"], said["place"]) == ("STT_WORKER_VAD_TRESHOLD", "environment")
    assert said["detail"] == "no field has it; is STT_WORKER_VAD_THRESHOLD meant?"


def test_so_is_one_in_env_file_and_one_that_reaches_into_a_field(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = warned(caplog, "S_", {"S_VOICE__PORT": "1"}, s_zzzzzzzz=SECRET)
    assert [(said["name"], said["place"]) for said in told] == [
        ("S_VOICE__PORT", "environment"),
        ("s_zzzzzzzz", ".env"),
    ]
    assert "S_VOICE is written as one JSON object" in told[0]["detail"]
    assert told[1]["detail"] == "no field has it"


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("", ["VAD_TRESHOLD", "PATH"]),
        ("CONFIG_", ["CONFIG_MANAGER_MQTT_URL"]),
        ("CONFIG_MANAGER_UI_", ["CONFIG_MANAGER_URL"]),
        # what Kubernetes tells everybody in the namespace of a service `stt`
        ("STT_", ["STT_SERVICE_HOST", "STT_SERVICE_PORT", "STT_SERVICE_PORT_HTTP", "STT_PORT"]),
        ("STT_", ["STT_SERVICE_HOST", "STT_PORT_80_TCP", "STT_PORT_80_TCP_ADDR"]),
    ],
)
def test_variables_that_are_not_meant_for_the_service_are_passed_over(
    caplog: pytest.LogCaptureFixture, prefix: str, names: list[str]
) -> None:
    assert warned(caplog, prefix, dict.fromkeys(names, "x")) == []


@pytest.mark.parametrize("url", ["tcp://172.17.0.5:8080", "udp://172.17.0.5:53"])
def test_what_docker_tells_of_a_linked_container_is_passed_over(
    caplog: pytest.LogCaptureFixture, url: str
) -> None:
    names = ["PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR", "PORT_53_UDP", "NAME", "ENV_FOO"]
    environment = {f"STT_WORKER_{name}": "x" for name in names}
    assert len(warned(caplog, "STT_WORKER_", environment)) == len(names)
    caplog.clear()
    environment |= {"STT_WORKER_PORT": url, "STT_WORKER_VAD_TRESHOLD": SECRET}
    (said,) = warned(caplog, "STT_WORKER_", environment)
    assert said["name"] == "STT_WORKER_VAD_TRESHOLD"


def test_of_a_value_that_json_has_not_it_is_said_what_to_do() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(create_model("Made", x=(float, 0.0)), S_X="nan")
    assert str(caught.value) == (
        "S_X: JSON has no value for this (NaN or infinity, say); leave the variable out, or write "
        "another value"
    )
