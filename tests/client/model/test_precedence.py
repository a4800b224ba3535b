"""Environment, `.env`, delivered, default: who wins, and what is said about it."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import os
import pathlib
import pickle
import uuid
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyUrl,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ImportString,
    Json,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from config_manager.client.drivers.opening import read_layers
from config_manager.client.model import quoted
from config_manager.client.model.judging import DoesNotFit
from config_manager.client.model.overrides import env_prefix
from config_manager.client.model.precedence import Layers, Merged
from config_manager.client.model.words import MOST_READ
from config_manager.config.errors import SettingsInvalid
from tests.kit import documents as m
from tests.kit.client_story import Story, disk_with

SECRET = "hunter2"


class Settings(BaseModel):
    """What a service's author writes."""

    whisper_model: str = "tiny"
    vad_threshold: float = Field(default=0.5, ge=0, le=1)
    n: int = 0


def layers(
    environment: dict[str, str] | None = None, env_file: dict[str, str | None] | None = None
) -> Layers[Settings]:
    return read_layers(Settings, "STT_WORKER_", environment=environment or {}, env_file=env_file)


def delivered(*defaulted: str, **config: Any) -> Any:
    return m.make_update(7, config=config, defaulted=defaulted)


def threshold(effective: Merged[Settings]) -> tuple[float, str]:
    why = effective.explanations["vad_threshold"]
    assert why.value == effective.values.vad_threshold
    return effective.values.vad_threshold, why.origin


NAME = "STT_WORKER_VAD_THRESHOLD"


@pytest.mark.parametrize(
    ("environment", "env_file", "config", "winner"),
    [
        ({NAME: "0.9"}, {NAME: "0.8"}, {"vad_threshold": 0.7}, (0.9, "environment")),
        ({}, {NAME: "0.8"}, {"vad_threshold": 0.7}, (0.8, ".env")),
        ({}, {}, {"vad_threshold": 0.7}, (0.7, "delivered")),
        ({}, {}, {}, (0.5, "default")),
        ({NAME: "0.9"}, {}, {}, (0.9, "environment")),
        ({NAME: "0.5"}, {}, {"vad_threshold": 0.7}, (0.5, "environment")),  # as the default
        ({NAME.lower(): "0.9"}, {}, {}, (0.9, "environment")),  # as pydantic-settings has it
        ({}, {NAME.lower(): "0.8"}, {}, (0.8, ".env")),
        ({}, {NAME: None}, {"vad_threshold": 0.7}, (0.7, "delivered")),  # a bare name in .env
        ({"VAD_THRESHOLD": "0.9"}, {}, {}, (0.5, "default")),  # not ours: no prefix
        ({"TTS_WORKER_VAD_THRESHOLD": "0.9"}, {}, {}, (0.5, "default")),
    ],
)
def test_environment_beats_env_file_beats_delivered_beats_default(
    environment: dict[str, str],
    env_file: dict[str, str | None],
    config: dict[str, Any],
    winner: tuple[float, str],
) -> None:
    assert threshold(layers(environment, env_file).merge(delivered(**config))) == winner


def test_before_anything_was_delivered_overrides_and_defaults_stand() -> None:
    assert threshold(layers().merge(None)) == (0.5, "default")
    assert threshold(layers({NAME: "0.9"}).merge(None)) == (0.9, "environment")


def test_a_key_that_only_the_server_filled_in_is_the_services_own_default() -> None:
    effective = layers().merge(delivered("vad_threshold", vad_threshold=0.1, n=3))
    assert threshold(effective) == (0.5, "default")
    assert effective.explanations["vad_threshold"].server_default == 0.1
    assert (effective.values.n, effective.explanations["n"].server_default) == (3, None)


def test_what_the_server_filled_in_need_not_even_fit() -> None:
    assert threshold(layers().merge(delivered("vad_threshold", vad_threshold="x")))[0] == 0.5


def test_a_key_the_model_does_not_know_is_passed_over() -> None:
    effective = layers().merge(delivered(newer_than_this_service=1, n=2))
    assert effective.values == Settings(n=2)
    assert set(effective.explanations) == {"whisper_model", "vad_threshold", "n"}


def test_explain_says_value_origin_revision_and_when() -> None:
    update = delivered("whisper_model", vad_threshold=0.7, whisper_model="base", n=5)
    explanations = layers({NAME: "0.9"}).merge(update).explanations
    told = explanations["n"]
    assert (told.key, told.value, told.origin) == ("n", 5, "delivered")
    assert (told.revision, told.at, told.correlation_id) == (7, update.issued_at, "id-7")
    assert str(told) == "n = 5: delivered in revision 7 of 2026-01-01T00:00:00.000Z"
    shadowing = explanations["vad_threshold"]
    assert (shadowing.name, shadowing.shadowed, shadowing.revision) == (NAME, 0.7, 7)
    assert str(shadowing) == (
        f"vad_threshold = 0.9: from the environment ({NAME}); it shadows 0.7 of revision 7"
    )
    assert str(explanations["whisper_model"]) == (
        "whisper_model = 'tiny': the model's default; nobody set it"
    )
    in_file = layers(None, {NAME: "0.9"}).merge(None).explanations["vad_threshold"]
    assert str(in_file) == f"vad_threshold = 0.9: from .env ({NAME})"


def test_overrides_are_names_sorted_from_both_places() -> None:
    both = layers({"STT_WORKER_WHISPER_MODEL": "x"}, {"STT_WORKER_N": "1", NAME: "0.9"})
    expected = ("n", "vad_threshold", "whisper_model")
    assert both.merge(delivered(n=3)).overrides == expected
    assert layers().merge(delivered(n=3)).overrides == ()


def test_an_empty_prefix_takes_the_bare_key() -> None:
    bare = read_layers(Settings, "", environment={"VAD_THRESHOLD": "0.9"})
    assert threshold(bare.merge(None)) == (0.9, "environment")
    assert env_prefix("stt-worker") == "STT_WORKER_"


def test_an_empty_text_is_a_value_not_an_absence() -> None:
    assert layers({"STT_WORKER_WHISPER_MODEL": ""}).merge(None).values.whisper_model == ""


def test_the_environment_is_read_once() -> None:
    environment = {NAME: "0.9"}
    read = layers(environment)
    environment[NAME] = "0.1"
    assert threshold(read.merge(None)) == (0.9, "environment")


# ── the copy that can't be changed ─────────────────────────────────────────────────────────────


def test_current_is_the_callers_own_model_but_frozen() -> None:
    values = layers().merge(delivered(n=3)).values
    assert isinstance(values, Settings)
    assert (type(values).__name__, type(values).__doc__) == ("Settings", Settings.__doc__)
    with pytest.raises(ValidationError, match="frozen"):
        values.n = 4
    assert (values, Settings(n=3)) == (Settings(n=3), values)
    assert values != Settings(n=4)
    assert hash(values) == hash(layers().merge(delivered(n=3)).values)
    Settings().n = 4  # the caller's own class stays as he wrote it


def test_a_model_that_is_frozen_already_is_taken_as_it_is() -> None:
    class Frozen(BaseModel):
        model_config = ConfigDict(frozen=True)
        n: int = 0

    values = read_layers(Frozen, "X_", environment={}).merge(delivered(n=3)).values
    assert type(values) is Frozen


def test_validators_and_methods_of_the_model_come_along() -> None:
    class Clever(BaseModel):
        n: int = 0

        @field_validator("n")
        @classmethod
        def double(cls, n: int) -> int:
            return 2 * n

        def tripled(self) -> int:
            return 3 * self.n

    assert read_layers(Clever, "X_", environment={}).merge(delivered(n=2)).values.tripled() == 12


class Judging(BaseModel):
    """Its defaults are judged too, and some of them are no JSON."""

    model_config = ConfigDict(validate_default=True, strict=True)
    token: SecretStr = SecretStr("")
    where: pathlib.Path = pathlib.Path("models")
    day: dt.date = dt.date(2026, 1, 1)


def test_defaults_that_are_judged_need_be_no_json() -> None:
    values = read_layers(Judging, "S_", environment={}).merge(delivered(day="2026-02-01")).values
    assert (values.where, values.day) == (pathlib.Path("models"), dt.date(2026, 2, 1))
    assert values.model_fields_set == {"day"}
    with pytest.raises(DoesNotFit, match="^day: "):  # as strict as its author wanted it
        read_layers(Judging, "S_", environment={}).merge(delivered(day=5, token="x"))


def test_a_validator_that_changes_what_it_gets_changes_nothing_that_was_delivered() -> None:
    class Greedy(Judging):
        tags: Any = None

        @field_validator("tags", mode="before")
        @classmethod
        def grow(cls, tags: Any) -> Any:
            tags = [] if tags is None else tags
            tags.append("mine")
            return tags

    layers = read_layers(Greedy, "S_", environment={})
    update = delivered(tags=["a"])
    for _ in range(2):
        assert layers.merge(update).values.tags == ["a", "mine"]
    assert update.config == {"tags": ["a"]}


# ── from text to value ─────────────────────────────────────────────────────────────────────────


class Mode(enum.Enum):
    FAST = "fast"


class Level(enum.IntEnum):
    LOW = 1


class Part(BaseModel):
    a: int = 1
    day: dt.date | None = None


KINDS: list[tuple[Any, str, Any]] = [
    (int, "5", 5),
    (float, "0.5", 0.5),
    (bool, "true", True),
    (bool, "0", False),
    (str, "5", "5"),
    (str, "true", "true"),
    (str, '"quoted"', '"quoted"'),
    (str, "Grüße\n", "Grüße\n"),
    (str | None, "null", "null"),
    (int | None, "null", None),
    (int | None, "7", 7),
    (int | str, "x", "x"),
    (Mode, "fast", Mode.FAST),
    (Level, "1", Level.LOW),
    (Literal[1, 2], "2", 2),
    (Literal["a"], "a", "a"),
    (list[int], "[1,2]", [1, 2]),
    (tuple[int, str], '[1,"a"]', (1, "a")),
    (set[int], "[1]", {1}),
    (dict[str, int], '{"a":1}', {"a": 1}),
    (Part, '{"a":2,"day":"2026-01-01"}', Part(a=2, day=dt.date(2026, 1, 1))),
    (list[Part], '[{"a":3}]', [Part(a=3)]),
    (dt.datetime, "2026-01-01T00:00:00Z", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    (dt.date, "2026-01-01", dt.date(2026, 1, 1)),
    (dt.time, "10:00", dt.time(10)),
    (dt.timedelta, "PT5S", dt.timedelta(seconds=5)),
    (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
    (uuid.UUID, "00000000-0000-4000-8000-000000000000", uuid.UUID(int=0x4000_8000 << 48)),
    (pathlib.Path, "/models/x", pathlib.Path("/models/x")),
    (ipaddress.IPv4Address, "10.0.0.1", ipaddress.IPv4Address("10.0.0.1")),
    (AnyUrl, "http://a/b", AnyUrl("http://a/b")),
    (bytes, "abc", b"abc"),
    (ByteSize, "5MB", 5_000_000),
    (Json[list[int]], "[1]", [1]),
    (SecretStr, SECRET, SecretStr(SECRET)),
    (SecretBytes, SECRET, SecretBytes(SECRET.encode())),
    (list[SecretStr], f'["{SECRET}"]', [SecretStr(SECRET)]),
    (Annotated[int, Field(strict=True, ge=1)], "5", 5),
]


@pytest.mark.parametrize("strict", [False, True], ids=["lax", "strict"])
@pytest.mark.parametrize(("kind", "text", "value"), KINDS, ids=lambda x: str(x)[:40])
def test_every_kind_of_field_is_read_from_a_variable(
    kind: Any, text: str, value: Any, *, strict: bool
) -> None:
    made = create_model("Made", x=(kind, None), __config__=ConfigDict(strict=strict))
    for environment, env_file in (({"S_X": text}, None), ({}, {"S_X": text})):
        layered: Layers[Any] = read_layers(made, "S_", environment=environment, env_file=env_file)
        read = layered.merge(None).values.x
        assert read == value
        assert isinstance(read, type(value))
        # a model is an immutable one's, as the whole is; an int may be a ByteSize
        assert type(read) is type(value) or isinstance(value, int | BaseModel)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "five"),
        (int, ""),
        (Annotated[int, Field(ge=6)], "5"),
        (bool, "perhaps"),
        (list[int], "1,2"),
        (list[int], '["x"]'),
        (Mode, "slow"),
        (float, "nan"),
        (str, os.fsdecode(b"not UTF-8: \xff")),
    ],
)
def test_a_variable_that_does_not_fit_stops_the_start_and_is_named(kind: Any, text: str) -> None:
    made = create_model("Made", x=(kind, None))
    with pytest.raises(SettingsInvalid, match="^S_X: "):
        read_layers(made, "S_", environment={"S_X": text})


# ── what does not fit ──────────────────────────────────────────────────────────────────────────


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Loose(BaseModel):
    """Validators by somebody who prints what he got."""

    token: str = "x"
    port: int = 1

    @field_validator("token")
    @classmethod
    def check(cls, token: str) -> str:
        if token == "long-hunter2":
            raise PydanticCustomError("mine", "bad token: {token}", {"token": token})
        if token == SECRET:
            raise ValueError(f"the token {token} (or {token!r}) is too easy")
        return token

    @model_validator(mode="after")
    def together(self) -> Loose:
        if self.port == 4711:
            raise ValueError(f"together: never {self.port} with {self.token}")
        return self


UNFIT: list[tuple[Any, Any]] = [
    (int, SECRET),
    (bool, SECRET),
    (uuid.UUID, SECRET),
    (dt.datetime, SECRET),
    (decimal.Decimal, SECRET),
    (Mode, SECRET),
    (AnyUrl, SECRET),
    (list[int], [1, SECRET]),
    (dict[str, int], {"a": SECRET}),
    (Annotated[str, Field(pattern="^[a-z]+$")], SECRET),
    (Annotated[str, Field(max_length=2)], SECRET),
    (ImportString, SECRET + ".x"),
    (Json, SECRET),
    (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": SECRET}),
    (int, None),
    (int, {"deep": [SECRET]}),
]


@pytest.mark.parametrize(("kind", "value"), UNFIT, ids=lambda x: str(x)[:40])
def test_what_does_not_fit_names_the_key_and_never_the_value(kind: Any, value: Any) -> None:
    made = create_model("Made", x=(kind, ...))
    with pytest.raises(DoesNotFit, match=r"^x[:.]") as caught:
        read_layers(made, "S_", environment={}).merge(delivered(x=value))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"token": SECRET}, "token: the token … (or …) is too easy"),
        ({"token": "long-hunter2"}, "token: bad token: …"),
        ({"token": SECRET + "!", "port": 4711}, "together: never … with …"),
    ],
)
def test_a_validators_own_words_are_passed_on_without_the_value(
    config: dict[str, Any], said: str
) -> None:
    with pytest.raises(DoesNotFit) as caught:
        read_layers(Loose, "S_", environment={}).merge(delivered(**config))
    assert str(caught.value) == said


class Wordy(BaseModel):
    """A validator by somebody who prints all that he got."""

    ports: list[Any] = []
    text: str = ""

    @field_validator("ports")
    @classmethod
    def few(cls, ports: list[Any]) -> list[Any]:
        if len(ports) > 10:
            raise ValueError(f"at most ten ports, not {ports}")
        return ports

    @field_validator("text")
    @classmethod
    def short(cls, text: str) -> str:
        raise ValueError(f"{'why ' * (len(text) % 7)}not {text}, no")


def words_about(**config: Any) -> str:
    with pytest.raises(DoesNotFit) as caught:
        read_layers(Wordy, "S_", environment={}).merge(delivered(**config))
    return str(caught.value)


def test_words_that_quote_a_large_value_are_gone_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[int] = []
    end_of_one = quoted._Quoted._end_of_one

    def counting(self: Any, read: str, starts: Any, at: int) -> int:
        looked_up.append(at)
        return end_of_one(self, read, starts, at)

    monkeypatch.setattr(quoted._Quoted, "_end_of_one", counting)
    said = words_about(ports=list(range(10_000, 26_000)))
    assert said.startswith("ports: at most ten ports, not […, …, …")
    assert not any(character.isdigit() for character in said)
    assert len(looked_up) == len(set(looked_up)) <= MOST_READ


@pytest.mark.parametrize("kind", ["a word", "words", "lines", "signs"])
@pytest.mark.parametrize("size", [40, 300, MOST_READ - 20, MOST_READ - 3, 30_000, 30_001])
def test_no_long_text_is_quoted_wherever_the_words_are_cut(kind: str, size: int) -> None:
    unit = {"a word": "zq", "words": "zq xj ", "lines": "zq\n\t'xj\"", "signs": "#+"}[kind]
    said = words_about(text=(unit * size)[:size])
    assert not set("zqxj#+") & set(said.removeprefix("text: "))


def test_each_scalar_is_found_between_its_neighbours_and_not_within_a_word() -> None:
    said = quoted.without(
        [7, 70, "a-b", "ä", -3.5, {"x": "it's", "y": [None]}, "."],
        "7, 70, 700, x7, a-b, a-bc, ä, äh, -3.5, 1-3.5, it's, \"it's\", None. '.' end.",
    )
    assert said == "…, …, 700, x7, …, a-bc, …, äh, …, 1-3.5, …, …, … … end."


def test_of_a_value_with_too_many_parts_no_words_are_said() -> None:
    assert "left out" in words_about(ports=[0] * 200_000)
    endless: list[Any] = []
    endless.append(endless)
    assert "left out" in quoted.without(endless, "never 7")


def test_no_more_errors_are_put_in_words_than_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def without(value: object, words: str) -> str:
        asked.append(value)
        return words

    def refuse(_: int) -> int:
        raise ValueError("x" * 1_000)

    class Many(BaseModel):
        numbers: list[Annotated[int, AfterValidator(refuse)]]

    monkeypatch.setattr(quoted, "without", without)
    with pytest.raises(DoesNotFit):
        read_layers(Many, "S_", environment={}).merge(delivered(numbers=[1] * 5_000))
    assert 1 <= len(asked) <= MOST_READ / 1_000 + 1


def test_every_key_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(DoesNotFit, match=r"^vad_threshold: .*; n: ") as caught:
        layers().merge(delivered(vad_threshold=7777, n="4711"[:2] + "x"))
    assert "7777" not in str(caught.value)


def test_a_required_key_that_nobody_gave_is_named() -> None:
    class Needy(BaseModel):
        url: str

    needy = read_layers(Needy, "S_", environment={})
    with pytest.raises(DoesNotFit, match=r"^url: Field required$"):
        needy.merge(None)
    assert needy.merge(delivered(url="x")).values.url == "x"


def test_an_override_saves_a_configuration_that_would_not_fit() -> None:
    """It shadows the bad value like any other."""
    effective = layers({NAME: "0.9"}).merge(delivered(vad_threshold=7777))
    assert threshold(effective) == (0.9, "environment")


# ── in general ─────────────────────────────────────────────────────────────────────────────────

KEYS = [f"key_{letter}" for letter in "abcdef"]
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
some = st.dictionaries(st.sampled_from(KEYS), numbers)


@given(
    st.lists(st.sampled_from(KEYS), unique=True, min_size=1), some, some, some, some, st.booleans()
)
def test_for_any_layers_the_winner_of_every_key_is_the_documented_one(
    keys: list[str],
    environment: dict[str, int],
    env_file: dict[str, int],
    set_by_operator: dict[str, int],
    filled_in: dict[str, int],
    anything: bool,
) -> None:
    fields: dict[str, Any] = {key: (int, -index) for index, key in enumerate(keys)}
    read: Layers[Any] = read_layers(
        create_model("Made", **fields),
        "S_",
        environment={f"S_{key.upper()}": str(value) for key, value in environment.items()},
        env_file={f"S_{key.upper()}": str(value) for key, value in env_file.items()},
    )
    filled_in = {key: value for key, value in filled_in.items() if key not in set_by_operator}
    update = delivered(*filled_in, **set_by_operator, **filled_in) if anything else None
    effective = read.merge(update)
    layered: list[tuple[str, dict[str, int]]] = [
        ("environment", environment),
        (".env", env_file),
        ("delivered", set_by_operator if anything else {}),
        ("default", {key: -index for index, key in enumerate(keys)}),
    ]
    for key in keys:
        origin, layer = next((name, layer) for name, layer in layered if key in layer)
        why = effective.explanations[key]
        assert getattr(effective.values, key) == why.value == layer[key]
        assert why.origin == origin
    assert effective.overrides == tuple(
        sorted(key for key in keys if key in environment or key in env_file)
    )


# ── aliases, and other processes ───────────────────────────────────────────────────────────────


class Aliased(BaseModel):
    whisper_model: str = Field("tiny", alias="whisperModel")
    n: int = Field(0, validation_alias=AliasChoices("count", "how_many"))


class AliasedAndFrozen(Aliased):
    model_config = ConfigDict(frozen=True)


@pytest.mark.parametrize("model", [Aliased, AliasedAndFrozen])
@pytest.mark.parametrize("names", [("whisper_model", "n"), ("whisperModel", "how_many")])
def test_a_field_with_an_alias_goes_by_its_own_name_too_and_is_explained(
    model: type[Aliased], names: tuple[str, str]
) -> None:
    update = m.make_update(6, config=dict(zip(names, ("base", 3), strict=True)))
    delivered = read_layers(model, "P_", environment={}).merge(update)
    assert (delivered.values.whisper_model, delivered.values.n) == ("base", 3)
    assert delivered.explanations["n"].origin == "delivered"
    overridden = read_layers(model, "P_", environment={"P_N": "4"}).merge(update)
    assert (overridden.values.whisper_model, overridden.values.n) == ("base", 4)
    assert overridden.explanations["n"].shadowed == 3


def test_what_the_server_filled_in_under_an_alias_counts_as_not_delivered() -> None:
    update = m.make_update(6, config={"whisperModel": "base"}, defaulted=("whisperModel",))
    effective = read_layers(Aliased, "P_", environment={}).merge(update)
    assert effective.values.whisper_model == "tiny"
    assert effective.explanations["whisper_model"].server_default == "base"


def test_current_may_be_sent_to_another_process() -> None:
    current = read_layers(Settings, "P_", environment={}).merge(None).values
    received = pickle.loads(pickle.dumps(current))
    assert received == current
    assert isinstance(received, Settings)
    with pytest.raises(ValidationError, match="frozen"):
        received.n = 4


# ── what the service may do with its values ────────────────────────────────────────────────────


class Voice(BaseModel):
    pitch: float = 1.0
    tags: list[str] = []


class Speaking(BaseModel):
    voice: Voice = Voice()
    voices: list[Voice] = []
    by_name: dict[str, Voice] = {}
    pair: tuple[Voice, ...] = ()


def test_models_within_the_configuration_are_immutable_too() -> None:
    one = {"pitch": 2.0}
    delivered = {"voice": one, "voices": [one], "by_name": {"a": one}, "pair": [one]}
    layers = read_layers(Speaking, "", environment={})
    values = layers.merge(m.make_update(1, config=delivered)).values
    for voice in (values.voice, values.voices[0], values.by_name["a"], values.pair[0]):
        assert isinstance(voice, Voice)
        assert voice == Voice(pitch=2.0)
        with pytest.raises(ValidationError, match="frozen"):
            voice.pitch = 3.0
    assert values.model_dump(mode="json") == Speaking(**delivered).model_dump(mode="json")  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(values)) == values
    with pytest.raises(ValidationError, match="frozen"):
        layers.merge(None).values.voice.pitch = 3.0
    mine = Voice()
    mine.pitch = 3.0  # the service's own class is as it was
    assert Speaking().voice.pitch == 1.0


def test_a_list_that_the_service_changes_hides_no_change() -> None:
    story = Story(disk_with(5, config={"voice": {"tags": ["a"]}}), model=Speaking)
    story.current.values.voice.tags.append("b")
    story.gets(6, config={"voice": {"tags": ["a", "b"]}})
    assert [change.keys for change in story.calls] == [{"voice"}]
