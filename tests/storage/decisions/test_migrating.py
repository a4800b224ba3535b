"""Values go up with a version and come back down for older code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.catalogue import Effective
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.migrating import Impossible, Move, down, moves, up, variant


def service(properties: dict[str, Any], **more: Any) -> CompiledSchema:
    return CompiledSchema({"type": "object", "properties": properties, **more})


INTEGER, NUMBER, TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}
OLD = service({"vad": NUMBER, "timeout_ms": INTEGER, "mode": TEXT})
NEW = service(
    {
        "vad_threshold": {**NUMBER, "x-was": {"key": "vad"}},
        "timeout_sec": {**NUMBER, "x-was": {"key": "timeout_ms", "multiply": [1, 1000]}},
        "mode": {**TEXT, "x-was": {"map": {"fast": "turbo"}}},
        "added": {**TEXT, "default": "x"},
    }
)
FACTORS = [(1, 1000), (1000, 1), (1, 60), (60, 1), (1, 100), (9, 5), (1, 3)]


def times(numerator: int, denominator: int, old: str, new: str) -> Move:
    return Move("k", "k", {"multiply": [numerator, denominator]}, old, new)


@given(
    value=st.integers(-(10**6), 10**6),
    factor=st.sampled_from(FACTORS),
    kind=st.sampled_from(["integer", "number"]),
)
def test_a_product_comes_back_exactly_where_it_is_called_reversible(
    value: int, factor: tuple[int, int], kind: str
) -> None:
    move = times(*factor, "integer", kind)
    try:
        there = move.up(value)
    except Impossible:
        assert kind == "integer" and value * factor[0] % factor[1] != 0
        return
    try:
        back = move.down(there)
    except Impossible:
        back = None
    assert (back == value) == move.is_reversible(value)
    if factor in FACTORS[:2] + FACTORS[3:5]:
        assert back == value


@given(
    mapping=st.dictionaries(st.sampled_from("abc"), st.sampled_from("abcd"), min_size=1),
    value=st.sampled_from("abcde"),
)
def test_a_choice_comes_back_exactly_where_it_is_called_reversible(
    mapping: dict[str, str], value: str
) -> None:
    move = Move("k", "k", {"map": mapping}, "number", "number")
    assert (move.down(move.up(value)) == value) == move.is_reversible(value)
    one_to_one = len({*mapping.values()}) == len(mapping)
    if one_to_one and not {*mapping.values()} - {*mapping}:
        assert move.is_reversible(value)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "vad": st.floats(0, 1),
            "timeout_ms": st.integers(0, 10**6),
            "mode": st.sampled_from(["fast", "slow"]),
        },
    )
)
def test_several_keys_move_at_once_and_come_back(values: JsonObject) -> None:
    there = up(values, OLD, NEW)
    assert (there.lossy, there.impossible) == ((), ())
    assert NEW.errors(there.values) == []
    assert down(there.values, OLD, NEW) == values
    taken = variant({**there.values, "added": "y"}, [NEW], OLD)
    assert taken is not None
    assert {key: taken.config[key] for key in values} == values


def test_an_integer_that_would_get_a_fraction_is_never_migrated() -> None:
    old = service({"t": {**INTEGER, "x-unit": "ms"}})
    new = service({"t": {**INTEGER, "x-unit": "s", "x-was": {"multiply": [1, 1000]}}})
    assert up({"t": 3000}, old, new).values == {"t": 3}
    [error] = up({"t": 300}, old, new).impossible
    assert error == ("/t", "t: an integer can't be 0.3")


def test_a_value_that_becomes_the_same_as_another_is_lossy() -> None:
    old = service({"m": TEXT})
    new = service({"m": {**TEXT, "x-was": {"map": {"fast": "turbo", "faster": "turbo"}}}})
    assert up({"m": "fast"}, old, new).lossy == ()
    [error] = up({"m": "faster"}, old, new).lossy
    assert error.pointer == "/m"
    assert up({"m": "turbo"}, old, new).lossy != ()


def test_a_migration_is_done_once() -> None:
    """The keyword stays in the schema, and so it does in every later version."""
    later = service({**NEW.schema["properties"], "more": TEXT})
    assert moves(NEW, later) == {}
    plain = service({"t": {**NUMBER, "x-unit": "s"}})
    again = service({"t": {**NUMBER, "x-unit": "s", "x-was": {"multiply": [1, 1000]}}})
    assert moves(plain, again) == {}


def test_an_instance_of_three_versions_ago_gets_its_own_names() -> None:
    first, second, third = (
        service({"a": INTEGER}, additionalProperties=False),
        service({"b": {**INTEGER, "x-was": {"key": "a"}}}),
        service({"c": {**INTEGER, "x-was": {"key": "b"}}, "extra": INTEGER}),
    )
    assert variant({"c": 5, "extra": 1}, [third, second, first], first) == Effective({"a": 5}, ())


def test_closed_code_gets_no_key_that_it_does_not_know_and_open_code_keeps_it() -> None:
    active = service({"a": INTEGER, "c": INTEGER})
    stored = {"a": 1, "c": 2}
    closed = service({"a": INTEGER}, additionalProperties=False)
    assert variant(stored, [active], closed) == Effective({"a": 1}, ())
    assert variant(stored, [active], service({"a": INTEGER})) == Effective(stored, ())


def test_a_default_of_the_active_schema_reaches_code_that_needs_the_key() -> None:
    active = service({"a": {**INTEGER, "default": 3}, "b": {**INTEGER, "default": 4}})
    older = service({"a": INTEGER, "b": {**INTEGER, "default": 9}}, required=["a"])
    assert variant({}, [active], older) == Effective({"b": 9, "a": 3}, ("b",))


@pytest.mark.parametrize("stored", [{"a": 11}, {"a": 1, "b": "x"}])
def test_code_that_takes_nothing_of_it_gets_no_variant(stored: JsonObject) -> None:
    active = service({"a": INTEGER, "b": TEXT})
    older = service({"a": {**INTEGER, "maximum": 10}, "b": INTEGER})
    assert variant(stored, [active], older) is None
