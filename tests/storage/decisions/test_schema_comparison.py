"""What is different between two schemas, for whom it breaks something, and whether real validation agrees."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from config_manager.config.catalogue import Effective
from config_manager.config.errors import SchemaInvalid
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.migrating import variant
from config_manager.storage.decisions.schema_comparison import (
    Difference,
    compare,
    verdict,
)
from tests.kit.schemas import a_service, edited, fits, independently, objects

PAIRS, CHUNKS = 10_000, 20


def the_pair(seed: int) -> tuple[Random, CompiledSchema, CompiledSchema] | None:
    r = Random(seed)
    old = a_service(r)
    new = edited(r, old)
    try:
        return r, CompiledSchema(old), CompiledSchema(new)
    except SchemaInvalid:  # a change can leave a rule without its key
        return None


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_that_is_called_ok_is_contradicted_by_real_validation(chunk: int) -> None:
    """Each pair in three directions, with values at every edge of both."""
    size = PAIRS // CHUNKS
    for seed in range(chunk * size, (chunk + 1) * size):
        pair = the_pair(seed)
        if pair is None:
            continue
        r, old, new = pair
        differences = compare(old, new)
        said = {one: verdict(differences, one) for one in ("stored", "new_code", "old_code")}
        values = [*objects(r, old.schema), *objects(r, new.schema)]
        writes_old, writes_new = (independently(one, closed=True) for one in (old, new))
        reads_old, reads_new = (independently(one, closed=False) for one in (old, new))
        context = (seed, old.schema, new.schema, [one.change for one in differences])
        for value in values:
            if (said["stored"] != "breaks" or said["new_code"] != "breaks") and fits(
                writes_old, old, value
            ):
                assert said["stored"] == "breaks" or fits(writes_new, new, value), (value, context)
                assert said["new_code"] == "breaks" or fits(reads_new, new, value), (value, context)
            if said["old_code"] != "breaks" and fits(writes_new, new, value):
                sent = Effective(value, ()) if fits(reads_old, old, value) else None
                sent = sent or variant(value, [new], old)
                assert sent is not None, (value, context)


def service(properties: dict[str, Any], **more: Any) -> CompiledSchema:
    return CompiledSchema({"type": "object", "properties": properties, **more})


INTEGER, NUMBER, TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}
RANGE, NARROWER = {**NUMBER, "minimum": 0, "maximum": 1}, {**NUMBER, "minimum": 0, "maximum": 0.5}
CLOSED: dict[str, Any] = {"additionalProperties": False}
WS = [{"if": {"properties": {"a": {"const": "ws"}}}, "then": {"required": ["url"]}}]
TRIGGERED = [{"if": {"required": ["b"]}, "then": {"required": ["a"]}}]
A, B = {"a": TEXT}, {"a": TEXT, "b": INTEGER}
BOTH = {"lower": "a", "upper": "b"}
NUMBERS = {"a": INTEGER, "b": INTEGER}

# change, old, new, stored, new code, old code
TABLE: list[tuple[str, CompiledSchema, CompiledSchema, str, str, str]] = [
    ("key added", service(A), service(B), "ok", "ok", "ok"),
    ("key added", service(A, **CLOSED), service(B), "ok", "ok", "ok"),
    ("key added", service(A), service({**A, "b": {**INTEGER, "default": 1}}, required=["b"]),
     "ok", "ok", "ok"),
    ("key added", service(A, allOf=TRIGGERED),
     service({**A, "b": {**INTEGER, "default": 1}}, allOf=TRIGGERED), "breaks", "breaks", "breaks"),
    ("required key added", service(A), service(B, required=["b"]), "breaks", "breaks", "ok"),
    ("key removed", service(B), service(A), "breaks", "changes", "changes"),
    ("key removed", service(B), service(A, **CLOSED), "breaks", "breaks", "changes"),
    ("required key removed", service(B, required=["b"]), service(A), "breaks", "changes", "breaks"),
    ("widened", service({"a": INTEGER}), service({"a": NUMBER}), "ok", "ok", "breaks"),
    ("narrowed", service({"a": RANGE}), service({"a": NARROWER}), "breaks", "breaks", "ok"),
    ("changed", service({"a": INTEGER}), service({"a": TEXT}), "breaks", "breaks", "breaks"),
    ("became required", service(A), service(A, required=["a"]), "breaks", "breaks", "ok"),
    ("became optional", service(A, required=["a"]), service(A), "ok", "ok", "breaks"),
    ("default changed", service({"a": {**TEXT, "default": "x"}}), service({"a": {**TEXT, "default": "y"}}),
     "ok", "changes", "ok"),
    ("unit changed", service({"a": {**NUMBER, "x-unit": "ms"}}), service({"a": {**NUMBER, "x-unit": "s"}}),
     "breaks", "breaks", "breaks"),
    ("secret changed", service(A), service({"a": {**TEXT, "x-secret": True}}),
     "breaks", "breaks", "breaks"),
    ("rule added", service({**A, "url": TEXT}), service({**A, "url": TEXT}, allOf=WS),
     "breaks", "breaks", "ok"),
    ("rule removed", service({**A, "url": TEXT}, allOf=WS), service({**A, "url": TEXT}),
     "ok", "ok", "breaks"),
    ("rule added", service(NUMBERS), service(NUMBERS, **{"x-compare": [BOTH]}),
     "breaks", "breaks", "ok"),
    ("rule changed", service(NUMBERS, **{"x-compare": [{**BOTH, "strict": True}]}),
     service(NUMBERS, **{"x-compare": [BOTH]}), "breaks", "breaks", "breaks"),
    ("opened", service(A, **CLOSED), service(A), "ok", "ok", "ok"),
    ("closed", service(A), service(A, **CLOSED), "ok", "ok", "ok"),
    ("renamed", service({"vad": RANGE}), service({"vad_threshold": {**RANGE, "x-was": {"key": "vad"}}}),
     "ok", "ok", "ok"),
    ("renamed", service({"vad": RANGE}), service({"vad_threshold": {**NARROWER, "x-was": {"key": "vad"}}}),
     "breaks", "breaks", "ok"),
    ("converted", service({"t": {**INTEGER, "minimum": 0, "maximum": 9000, "x-unit": "ms"}}),
     service({"t": {**NUMBER, "minimum": 0, "maximum": 9, "x-unit": "s", "x-was": {"multiply": [1, 1000]}}}),
     "ok", "ok", "breaks"),
    ("converted", service({"t": {**NUMBER, "minimum": 0, "maximum": 9001, "x-unit": "ms"}}),
     service({"t": {**NUMBER, "minimum": 0, "maximum": 9, "x-unit": "s", "x-was": {"multiply": [1, 1000]}}}),
     "breaks", "breaks", "ok"),
    ("converted", service({"m": {"enum": ["fast", "slow"]}}),
     service({"m": {"enum": ["turbo", "slow"], "x-was": {"map": {"fast": "turbo"}}}}), "ok", "ok", "ok"),
    ("widened", service({"a": {"anyOf": [{"const": 1}, {"const": 2}]}}), service({"a": {"enum": [2, 1, 3]}}),
     "ok", "ok", "breaks"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "old", "new", "stored", "new_code", "old_code"), TABLE)
def test_each_kind_of_change_breaks_whom_it_breaks(
    change: str,
    old: CompiledSchema,
    new: CompiledSchema,
    stored: str,
    new_code: str,
    old_code: str,
) -> None:
    [found] = [one for one in compare(old, new) if one.change not in ("opened", "closed")] or list(
        compare(old, new)
    )
    assert (found.change, found.stored, found.new_code, found.old_code) == (
        *(change, stored, new_code, old_code),
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (service({"a": {"enum": [1, 2]}}), service({"a": {"anyOf": [{"const": 2}, {"const": 1}]}})),
        (
            service(A),
            service({"a": {**TEXT, "title": "A", "x-level": "simple", "description": "?"}}),
        ),
        (
            service({"a": RANGE}),
            service({"a": {"$ref": "#/$defs/R"}}, **{"$defs": {"R": RANGE}}),
        ),
    ],
)
def test_what_means_the_same_is_no_difference(old: CompiledSchema, new: CompiledSchema) -> None:
    assert compare(old, new) == compare(new, old) == ()


def test_a_narrowed_key_is_shown_a_value_that_is_no_longer_taken() -> None:
    [found] = compare(service({"a": RANGE}), service({"a": NARROWER}))
    assert found == Difference("narrowed", "/a", "breaks", "breaks", "ok", "proved", 1, True)
    assert found.to_json()["example"] == 1


def test_null_is_an_example_like_another() -> None:
    optional = {"anyOf": [TEXT, {"type": "null"}]}
    [found] = compare(service({"a": optional}), service({"a": TEXT}))
    assert found.to_json()["example"] is None
    assert found.proof == "proved"


def test_what_can_not_be_proved_counts_as_breaking_and_says_so() -> None:
    one = {**TEXT, "pattern": "^(ab|cd){1,40}x[0-9]{1,80}$"}
    other = {**TEXT, "pattern": "^(ab|cd){1,41}x[0-9]{1,80}$"}
    [found] = compare(service({"a": one}), service({"a": other}))
    assert (found.change, found.stored, found.proof) == ("changed", "breaks", "not proved")
    assert "example" not in found.to_json()


@pytest.mark.parametrize("keyword", ["minLength", "maxLength", "minItems", "maxItems"])
def test_a_length_that_is_written_as_a_float_is_one(keyword: str) -> None:
    kind = "string" if keyword.endswith("Length") else "array"
    for length in (2.0, 1e15):
        one = service({"a": {"type": kind, keyword: length}})
        assert compare(one, service({"a": {"type": "boolean"}}))[0].change == "changed"
