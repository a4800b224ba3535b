"""Which schemas may describe a service, and what is said of values that one does not take."""

from __future__ import annotations

import json
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from config_manager.config.catalogue import Effective, ModelShape, ServiceSettings, setting
from config_manager.config.errors import FieldError, InvalidValues, SchemaInvalid
from config_manager.config.services.llm_worker import LlmSettings
from config_manager.config.services.memory_worker import MemorySettings
from config_manager.config.services.router import RouterSettings
from config_manager.config.services.stt_worker import SttSettings
from config_manager.config.services.tts_worker import TtsSettings
from config_manager.config.services.wake_activation import WakeSettings
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_comparison import compare
from config_manager.storage.decisions.writing import judge
from tests.config.test_catalogue import EDGES
from tests.kit.documents import STEADY, json_values

MODELS = (LlmSettings, MemorySettings, RouterSettings, SttSettings, TtsSettings, WakeSettings)
INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


def service(properties: dict[str, Any], **more: Any) -> CompiledSchema:
    return CompiledSchema({"type": "object", "properties": properties, **more})


def complaints(schema: Any) -> dict[str, str]:
    with pytest.raises(SchemaInvalid) as raised:
        CompiledSchema(schema)
    return dict(raised.value.errors)


STT = service(
    {
        "backend": {"enum": ["whisper", "ws"], "default": "whisper", "x-restart-required": True},
        "ws_url": TEXT,
        "shortest": {**INTEGER, "default": 1, "minimum": 0},
        "longest": {**INTEGER, "default": 3},
        "servers": {"type": "array", "items": {"$ref": "#/$defs/Server"}},
        "threshold": {"type": "number", "minimum": 0, "maximum": 1, "x-unit": "s"},
        "token": {**TEXT, "minLength": 10, "x-secret": True},
    },
    required=["token"],
    allOf=[{"if": {"properties": {"backend": {"const": "ws"}}}, "then": {"required": ["ws_url"]}}],
    dependentRequired={"threshold": ["servers", "token"]},
    **{
        "x-compare": [{"lower": "shortest", "upper": "longest"}],
        "$defs": {
            "Server": {
                "type": "object",
                "properties": {"port": {**INTEGER, "minimum": 1, "maximum": 65535}},
                "required": ["port"],
                "additionalProperties": False,
            }
        },
    },
)


def test_a_schema_says_what_its_keys_are() -> None:
    assert STT.keys[:2] == ("backend", "ws_url")
    assert STT.secrets == {"token"}
    assert STT.restart_required == {"backend"}
    assert STT.defaults == {"backend": "whisper", "shortest": 1, "longest": 3}
    assert STT.effective({"longest": 9, "ws_url": "x"}) == Effective(
        {"backend": "whisper", "shortest": 1, "longest": 9, "ws_url": "x"}, ("backend", "shortest")
    )


def test_the_order_of_members_is_no_other_schema() -> None:
    assert service({"a": INTEGER, "b": TEXT}).digest == service({"b": TEXT, "a": INTEGER}).digest


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({}, {}),
        ({"threshold": 2, "servers": []}, {"/threshold": "expected a number from 0 to 1 (s)"}),
        ({"backend": "piper"}, {"/backend": "expected one of whisper, ws"}),
        ({"backend": "ws"}, {"/ws_url": "required: expected a string, because backend is ws"}),
        ({"shortest": 4}, {"/shortest": "expected at most longest (3)"}),
        ({"threshold": 0.5}, {"/servers": "required: expected a list, because threshold is set"}),
        ({"servers": [{"port": 1}, {"port": 0}]}, {"/servers/1/port": "expected an integer from 1 to 65535"}),
        ({"servers": [{}]}, {"/servers/0/port": "required: expected an integer from 1 to 65535"}),
        ({"servers": 5}, {"/servers": "expected a list"}),
        ({"servers": [{"port": 1, "x": 1}]}, {"/servers/0": "expected an object"}),
        ({"token": "swordfish1"}, {"/token": "a secret: set it with POST /api/v1/secrets"}),
    ],
)  # fmt: skip
def test_an_error_says_what_is_allowed_and_where(
    stored: dict[str, Any], said: dict[str, str]
) -> None:
    assert dict(STT.errors(stored)) == said


def test_a_misspelt_key_is_told_which_one_was_meant() -> None:
    [error] = STT.errors({"treshold": 0.5})
    assert error.detail.startswith("unknown key; did you mean threshold? The keys: backend, ws_url")
    assert "token" not in error.detail


def test_fifty_errors_are_named_and_the_rest_is_counted() -> None:
    errors = STT.errors({f"k{n}": n for n in range(60)})
    assert (len(errors), errors[-1]) == (51, FieldError("", "and 10 more"))


@pytest.mark.parametrize("value", ["short", 5, None])
def test_a_secret_that_is_refused_is_not_repeated(value: Any) -> None:
    with pytest.raises(InvalidValues) as raised:
        STT.check_secret("token", value)
    assert raised.value.errors == (
        FieldError("/value", "expected a string of at least 10 characters"),
    )
    STT.check_secret("token", "long enough")
    with pytest.raises(InvalidValues):
        STT.check_secret("backend", "whisper")


def test_pydantics_secrets_are_secrets() -> None:
    hidden = {"type": "string", "format": "password", "writeOnly": True}
    assert service(
        {"a": hidden, "b": {"anyOf": [hidden, {"type": "null"}], "default": None}}
    ).secrets == {"a", "b"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.SERVICE)
def test_a_model_of_the_catalogue_and_its_schema_say_the_same(model: type[ServiceSettings]) -> None:
    one = CompiledSchema(model.model_json_schema())
    assert one.keys == tuple(model.model_fields)
    kept = {k: v for k, v in model().model_dump(mode="json").items() if k not in one.secrets}
    assert one.effective({}) == Effective(kept, tuple(kept))
    assert one.errors({}) == []
    words = {key: allowed for name, key, *_, allowed in EDGES if name == model.SERVICE}
    assert {*words, *one.secrets} == {*one.keys}
    for key, allowed in words.items():
        assert one.errors({key: {}}) == [FieldError(f"/{key}", f"expected {allowed}")]


def test_a_write_is_refused_only_for_errors_that_it_adds() -> None:
    before = {"gone": 1, "threshold": 2, "servers": []}
    gone, high = FieldError("/gone", ""), FieldError("/threshold", "")
    cases: list[tuple[dict[str, Any], list[FieldError], list[FieldError]]] = [
        ({**before, "ws_url": "x"}, [], [gone, high]),
        ({**before, "gone": 2}, [gone], [high]),
        ({**before, "threshold": 3}, [high], [gone]),
        ({"gone": 1}, [], [gone]),
        ({**before, "shortest": 9}, [FieldError("/shortest", "")], [gone, high]),
    ]
    for after, added, stayed in cases:
        found = judge(STT, before, after)
        assert [[error.pointer for error in part] for part in found] == [
            [error.pointer for error in part] for part in (added, stayed)
        ]
    assert [error.pointer for error in judge(STT, None, before)[0]] == ["/gone", "/threshold"]


def test_many_errors_that_were_there_hide_none_that_a_write_adds() -> None:
    one = service({"level": {"type": "integer", "maximum": 5}, "least": INTEGER})
    removed = {f"k{n}": n for n in range(500)}
    before = {**removed, "level": 9}
    added, stayed = judge(one, before, {**before, "least": 1})
    assert (added, len(stayed), stayed[-1].detail) == ([], 51, "and 451 more")
    assert judge(one, before, {**before, "k1": 0, "least": "x"})[0] == [
        FieldError("/k1", "unknown key. The keys: level, least"),
        FieldError("/least", "expected an integer"),
    ]


def test_a_rule_of_a_model_is_asked_although_a_key_is_stored_that_the_model_lacks() -> None:
    class Range(ServiceSettings):
        SERVICE = "range"
        low: int = setting(1, "the least")
        high: int = setting(2, "the most")

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.low > self.high:
                raise ValueError("low: expected at most high")
            return self

    added, stayed = judge(ModelShape(Range), {"gone": 1}, {"gone": 1, "low": 3})
    assert added == [FieldError("/low", "expected at most high")]
    assert [error.pointer for error in stayed] == ["/gone"]


def test_an_error_of_two_keys_is_new_if_the_other_key_makes_it_another() -> None:
    before = {"shortest": 5, "longest": 4}
    assert judge(STT, before, {**before, "ws_url": "x"})[0] == []
    [error] = judge(STT, before, {**before, "longest": 3})[0]
    assert error == ("/shortest", "expected at most longest (3)")


# ── what is no schema of a service ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schema", "where", "said"),
    [
        ([], "", "expected an object"),
        ({"properties": {}}, "/type", 'expected "object"'),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "2020-12"),
        ({"type": "object", "anyOf": []}, "/anyOf", "no keyword at the top"),
        ({"type": "object", "x-approvals": 2}, "/x-approvals", "not there yet"),
        ({"type": "object", "properties": []}, "/properties", "expected an object"),
        ({"type": "object", "properties": {"A": {}}}, "/properties/A", "a key is 1 to 63"),
        ({"type": "object", "properties": {"a": True}}, "/properties/a", "expected an object"),
        ({"type": "object", "required": ["a"]}, "/required/0", "no key of this schema"),
        ({"type": "object", "patternProperties": 5}, "/patternProperties", ""),
        ({"type": "object", "allOf": 5}, "/allOf", ""),
        ({"type": "object", "allOf": [{"required": ["a"]}]}, "/allOf/0/required", "in a rule"),
        ({"type": "object", "x-compare": [{"lower": "a"}]}, "/x-compare/0", "lower"),
    ],
)  # fmt: skip
def test_what_is_outside_the_form_is_pointed_at(schema: Any, where: str, said: str) -> None:
    assert said in complaints(schema)[where]


@pytest.mark.parametrize(
    ("key", "where", "said"),
    [
        ({"minimun": 1}, "/minimun", "did you mean minimum?"),
        ({"minimum": "a"}, "/minimum", "number"),
        ({"type": "integer", "default": "x"}, "/default", "expected an integer"),
        ({"pattern": "(?=a)"}, "/pattern", "linear time"),
        ({"pattern": "(a)\\1"}, "/pattern", "linear time"),
        ({"pattern": "((\\p{L}{99}){99}){99}"}, "/pattern", "128 KiB"),
        ({"x-levle": "simple"}, "/x-levle", "did you mean x-level?"),
        ({"x-level": "hard"}, "/x-level", "simple or advanced"),
        ({"x-secret": 1}, "/x-secret", "true or false"),
        ({"x-unit": "s", "x-was": {"multiply": [1, 0]}}, "/x-was", "two integers over 0"),
        ({"x-was": {"multiply": [1, 2]}}, "/x-was", "x-unit"),
        ({"x-was": {"key": "b"}}, "/x-was/key", "still a key"),
        ({"x-was": {"map": {"a": 1}}}, "/x-was", "an object of text"),
        ({"items": {"x-secret": True}}, "/items/x-secret", "only at a key"),
        ({"$ref": "file:///etc/passwd"}, "/$ref", "own `$defs`"),
        ({"$ref": "http://127.0.0.1:9/"}, "/$ref", "own `$defs`"),
        ({"$ref": "#/properties/b"}, "/$ref", "own `$defs`"),
        ({"$ref": "#/$defs/Nobody"}, "/$ref", "there is no Nobody"),
        ({"$id": "http://127.0.0.1:9/"}, "/$id", "no keyword"),
        ({"$dynamicRef": "#a"}, "/$dynamicRef", "no keyword"),
    ],
)
def test_what_is_wrong_within_a_key_is_pointed_at(
    key: dict[str, Any], where: str, said: str
) -> None:
    schema = {"type": "object", "properties": {"a": key, "b": {}}}
    assert said in complaints(schema)[f"/properties/a{where}"]


def chain(length: int, times: int) -> dict[str, Any]:
    """Definitions each of which names the next one several times."""
    each = {f"D{n}": {"allOf": [{"$ref": f"#/$defs/D{n + 1}"}] * times} for n in range(length)}
    return {"properties": {"a": {"$ref": "#/$defs/D0"}}, "$defs": {**each, f"D{length}": TEXT}}


def nested(depth: int) -> Any:
    schema: Any = TEXT
    for _ in range(depth):
        schema = {"items": schema}
    return schema


HOSTILE: dict[str, dict[str, Any]] = {
    "deeper than any stack": {"properties": {"a": nested(100_000)}},
    "larger than 64 KiB": {"description": "x" * 70_000},
    "a reference in a loop": {"$defs": {"A": {"not": {"$ref": "#/$defs/B"}}, "B": {"$ref": "#/$defs/A"}}},
    "a reference to itself": {"$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}},
    "references that double forty times": chain(40, 2),
    "references that multiply by hundreds": chain(5, 300),
    "a thousand references behind each other": chain(1_000, 1),
    "the same, the last one first": {
        "properties": {"a": {"$ref": "#/$defs/A0"}},
        "$defs": {f"A{n}": {"not": {"$ref": f"#/$defs/A{n + 1}"}} for n in range(200, -1, -1)} | {"A201": TEXT},
    },
    "501 keys": {"properties": {f"k{n}": {} for n in range(501)}},
    "501 nested keys": {"properties": {"a": {"properties": {f"k{n}": {} for n in range(500)}}}},
    "a thousand judges of each element": {"properties": {"a": {"items": {"allOf": [{}] * 1000}}}},
    "fifty expressions for one text": {"properties": {"a": {"allOf": [{"pattern": f"a{n}"} for n in range(50)]}}},
    "a long text that many keys refer to": {
        "properties": {f"k{n}": {"$ref": "#/$defs/A"} for n in range(500)},
        "$defs": {"A": {"const": "x" * 30_000}},
    },
    "an expression in many places": {
        "properties": {f"k{n}": {"items": {"anyOf": [{"$ref": "#/$defs/A"}] * 4}} for n in range(200)},
        "$defs": {"A": {"pattern": "a{0,900}"}},
    },
    "5,000 choices": {"properties": {"a": {"enum": list(range(5_000))}}},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_no_malice_is_more_than_a_clear_refusal(what: str) -> None:
    assert complaints({"type": "object", **HOSTILE[what]})


@STEADY
@given(
    schema=json_values,
    place=st.sampled_from(
        ["properties", "$defs", "allOf", "if", "required", "x-compare", "dependentRequired"]
        + ["additionalProperties", "patternProperties", "type", "$schema", "key", "items", "enum"]
        + ["$ref", "x-was", "anyOf", "pattern", "default", "dependentSchemas"]
    ),
)
def test_any_json_anywhere_is_a_schema_or_refused(schema: Any, place: str) -> None:
    tops: tuple[str, ...] = (
        "properties",
        "$defs",
        "allOf",
        "if",
        "required",
        "x-compare",
        "dependentRequired",
    )
    tops += ("additionalProperties", "patternProperties", "type", "$schema")
    whole: Any = {"type": "object", "properties": {"a": {"x-unit": "s"}}}
    if place == "key":
        whole["properties"]["a"] = schema
    elif place in tops:
        whole[place] = schema
    else:
        whole["properties"]["a"][place] = schema
    try:
        one = CompiledSchema(whole)
    except SchemaInvalid as refused:
        assert refused.errors
        json.dumps(refused.extensions)
        return
    one.errors({"a": 1})
    assert compare(one, service({"a": INTEGER})) is not None


def test_an_error_deep_in_a_large_value_is_found_without_naming_every_other() -> None:
    """The library's own report of it would have thirteen million entries."""
    each = {"anyOf": [{"type": "string"}] * 100}
    one = service({"a": {"anyOf": [{"type": "array", "items": each}]}})
    assert one.errors({"a": [1] * 60_000}) == [FieldError("/a", "expected a list")]


def test_an_expression_that_explodes_elsewhere_takes_linear_time() -> None:
    one = service({"a": {**TEXT, "pattern": "^(a+)+$"}})
    assert one.errors({"a": "a" * 60_000 + "!"}) == [FieldError("/a", "expected a string")]
