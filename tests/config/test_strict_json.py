"""JSON that all readers agree on: a table of what is refused, and what must not be."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.strict_json import NotStrictJson, dumps, loads, loads_object
from tests.kit.documents import STEADY, json_values

LIMIT = 2**53 - 1


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


REFUSED: dict[str, tuple[bytes, str]] = {
    "NaN": (b'{"a":NaN}', "NaN is not JSON"),
    "Infinity": (b'{"a":Infinity}', "Infinity is not JSON"),
    "-Infinity": (b"[-Infinity]", "-Infinity is not JSON"),
    "an exponent that overflows": (b"[1e309]", "too large for a double"),
    "an exponent that overflows downwards": (b"[-1E+999]", "too large for a double"),
    "an exponent of a million digits": (b"[1e" + b"9" * 1_000_000 + b"]", "too large for a double"),
    "2^53": (b"[9007199254740992]", "beyond ±(2^53 - 1)"),
    "-2^53": (b"[-9007199254740992]", "beyond ±(2^53 - 1)"),
    "2^53, far down": (b'{"a":[{"b":9007199254740992}]}', "beyond ±(2^53 - 1)"),
    "2^63": (b"[9223372036854775808]", "beyond ±(2^53 - 1)"),
    "17 digits": (b"[10000000000000000]", "beyond ±(2^53 - 1)"),
    "a million digits": (b"9" * 1_000_000, "beyond ±(2^53 - 1)"),
    "a duplicate key": (b'{"a":1,"a":1}', "'a' stands twice"),
    "a duplicate key, once escaped": (b'{"a":1,"\\u0061":2}', "'a' stands twice"),
    "a duplicate key far down": (b'[{"b":{"a":1,"c":2,"a":3}}]', "'a' stands twice"),
    "an empty key twice": (b'{"":1,"":2}', "'' stands twice"),
    "a lone high surrogate": (b'["\\ud800"]', "a lone surrogate"),
    "a lone low surrogate": (b'["\\udc00x"]', "a lone surrogate"),
    "surrogates the wrong way round": (b'["\\udc00\\ud800"]', "a lone surrogate"),
    "a lone surrogate in a key": (b'{"a":{"\\uD800":1}}', "a lone surrogate"),
    "a surrogate in raw bytes": (b'["\xed\xa0\x80"]', "not UTF-8 at byte 2"),
    "an escaped NUL": (b'["a\\u0000b"]', "a NUL character"),
    "an escaped NUL in a key": (b'{"\\u0000":1}', "a NUL character"),
    "a raw NUL in a string": (b'["a\0b"]', "not JSON"),
    "a raw NUL outside": (b'["a"]\0', "not JSON"),
    "a raw newline in a string": (b'["a\nb"]', "not JSON"),
    "a byte that is not UTF-8": (b'["\xff"]', "not UTF-8 at byte 2"),
    "an overlong slash": (b'["\xc0\xaf"]', "not UTF-8 at byte 2"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "33 levels of lists": (nested(33), "nested deeper than 32"),
    "33 levels of objects": (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper than 32"),
    "33 levels, mixed": (b'[{"a":' * 16 + b"[" + b"]" + b"}]" * 16, "nested deeper than 32"),
    "33 levels beside a string of brackets": (
        b'["]]]]]]]]",' + nested(32) + b"]",
        "nested deeper than 32",
    ),
    "100,000 levels": (nested(100_000), "nested deeper than 32"),
    "100,000 levels that never close": (b"[" * 100_000, "nested deeper than 32"),
    "100,000 objects that never close": (b'{"a":' * 100_000, "nested deeper than 32"),
    "nothing": (b"", "not JSON"),
    "white space alone": (b" \n", "not JSON"),
    "two values": (b"{}{}", "not JSON"),
    "a comma at the end": (b'{"a":1,}', "not JSON"),
    "single quotes": (b"{'a':1}", "not JSON"),
    "a comment": (b"{} // why", "not JSON"),
    "a leading zero": (b"[01]", "not JSON"),
    "a leading plus": (b"[+1]", "not JSON"),
    "a number that ends in its point": (b"[1.]", "not JSON"),
    "hexadecimal": (b"[0x10]", "not JSON"),
    "a string that never ends": (b'{"a', "not JSON"),
    "a bad escape": (b'["\\x41"]', "not JSON"),
}


@pytest.mark.parametrize("story", REFUSED)
def test_what_readers_disagree_on_is_refused_and_named(story: str) -> None:
    data, message = REFUSED[story]
    with pytest.raises(NotStrictJson) as caught:
        loads(data)
    assert message in str(caught.value)


TAKEN: dict[str, tuple[bytes, object]] = {
    "2^53 - 1": (b"[9007199254740991]", [LIMIT]),
    "-(2^53 - 1)": (b"[-9007199254740991]", [-LIMIT]),
    "2^53 + 1 as a double": (b"[9007199254740993.0]", [2.0**53]),
    "the largest double": (b"[1.7976931348623157e308]", [1.7976931348623157e308]),
    "an exponent that underflows": (b"[1e-999]", [0.0]),
    "a fraction of a million digits": (b"[0." + b"1" * 1_000_000 + b"]", [1 / 9]),
    "32 levels": (nested(32), None),
    "32 levels and 40 brackets in a string": (b'["' + b"[{" * 20 + b'",' + nested(31) + b"]", None),
    "brackets behind escaped quotes": (b'["\\"' + b"[" * 40 + b'\\\\"]', ['"' + "[" * 40 + "\\"]),
    "many lists side by side": (b"[" + b",".join([b"[]"] * 5_000) + b"]", [[]] * 5_000),
    "a pair of surrogates": (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
    "an escaped backslash before u0000": (b'["\\\\u0000"]', ["\\u0000"]),
    "the same key in two objects": (b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
    "the largest code point": (b'["\xf4\x8f\xbf\xbf"]', ["\U0010ffff"]),
    "a value that is no object": (b" null ", None),
}


@pytest.mark.parametrize("story", TAKEN)
def test_what_all_readers_agree_on_is_taken(story: str) -> None:
    data, expected = TAKEN[story]
    value = loads(data)
    if expected is None:
        expected = json.loads(data)
    assert value == expected


def test_the_place_of_a_mistake_is_counted_in_bytes() -> None:
    with pytest.raises(NotStrictJson, match="at byte 8$"):
        loads('["é€"x]'.encode())
    with pytest.raises(NotStrictJson, match="not UTF-8 at byte 7$"):
        loads('["é€'.encode() + b"\xff")


def test_minus_zero_keeps_its_sign_and_a_whole_float_stays_a_float() -> None:
    minus, whole = loads(b"[-0.0,1e2]")
    assert math.copysign(1, minus) == -1
    assert (whole, type(whole)) == (100.0, float)


@pytest.mark.parametrize("depth", [1, 5, 200])
def test_the_depth_may_be_chosen_by_the_caller(depth: int) -> None:
    loads(nested(depth), max_depth=depth)
    with pytest.raises(NotStrictJson, match=f"deeper than {depth}$"):
        loads(nested(depth + 1), max_depth=depth)


@pytest.mark.parametrize("data", [b"[]", b"null", b'"a"', b"1"])
def test_an_object_is_asked_for_where_one_is_needed(data: bytes) -> None:
    with pytest.raises(NotStrictJson, match="expected a JSON object"):
        loads_object(data)
    assert loads_object(b"{}") == {}


@pytest.mark.parametrize(
    "piece",
    [b'\\"', b'"', b"\\", b"[", b"{", b'["', b'{"":', b'"\\"[', b"\\u0000", b"[]", b"1,", b"\xff"],
)
def test_a_hostile_mebibyte_takes_no_more_than_a_friendly_one(piece: bytes) -> None:
    """Each input would take hours where anything is tried again from each byte: seconds are much."""
    data = (b"[" * 33 + b'"' + piece * (2**20 // len(piece)))[: 2**20]
    began = time.process_time()
    with pytest.raises(NotStrictJson):
        loads(data)
    assert time.process_time() - began < 5


@STEADY
@given(json_values)
def test_what_is_written_is_read_back_as_it_was(value: object) -> None:
    assert loads(dumps(value)) == value
    assert dumps(loads(dumps(value))) == dumps(value)


@STEADY
@given(st.binary() | st.text().map(str.encode) | json_values.map(dumps).flatmap(
    lambda data: st.integers(0, len(data)).map(lambda at: data[:at] + b"\\" + data[at + 1 :])
))  # fmt: skip
def test_any_bytes_are_read_or_refused_never_a_crash(data: bytes) -> None:
    try:
        value = loads(data)
    except NotStrictJson as error:
        assert str(error)
    else:
        assert loads(dumps(value)) == value
