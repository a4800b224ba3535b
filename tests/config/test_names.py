"""Names are parsed once, at the edge: everything else is turned away there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.errors import FieldError, InvalidName, InvalidValues
from config_manager.config.names import (
    RESERVED,
    Mark,
    accept_correlation_id,
    check_keys,
    is_key,
    parse_instance,
    parse_service,
    pointer,
)
from tests.kit.documents import STEADY

BAD_NAMES = {
    "empty": "",
    "a hyphen first": "-a",
    "a hyphen alone": "-",
    "64 characters": "a" * 64,
    "a capital": "Stt",
    "an underscore": "a_b",
    "a dot": "a.b",
    "the directory above": "..",
    "a slash": "a/b",
    "a path": "../../etc/passwd",
    "MQTT's one level": "a+",
    "MQTT's rest": "#",
    "a system topic": "$sys",
    "NUL": "a\0",
    "a line feed at the end": "a\n",
    "CR LF": "a\r\nb",
    "a blank": "a b",
    "a blank around": " a ",
    "an escape": "a%2f",
    "a letter that is not ASCII": "café",
    "a digit that is not ASCII": "a\u0663",
    "a letter that folds to ASCII": "\u212a",  # the Kelvin sign
    "a zero-width space": "a\u200b",
}


@pytest.mark.parametrize("parse", [parse_service, parse_instance])
@pytest.mark.parametrize("story", BAD_NAMES)
def test_a_name_outside_the_grammar_is_refused(parse: type[str], story: str) -> None:
    with pytest.raises(InvalidName, match="1 to 63 of a-z, 0-9 and '-'"):
        parse(BAD_NAMES[story])


@pytest.mark.parametrize("name", ["a", "0", "9-", "a--b", "stt-worker", "a" * 63, "epoch2"])
def test_a_name_inside_the_grammar_is_itself(name: str) -> None:
    assert parse_service(name) == name
    assert parse_instance(name) == name


@pytest.mark.parametrize("name", ["epoch", "search", "config-manager"])
def test_a_reserved_name_is_refused_as_reserved(name: str) -> None:
    with pytest.raises(InvalidName, match="is reserved; choose another service name"):
        parse_service(name)
    with pytest.raises(InvalidName, match="is reserved; choose another instance name"):
        parse_instance(name)


def test_nothing_else_is_reserved() -> None:
    assert {"epoch", "search", "config-manager"} == RESERVED


@STEADY
@given(st.text(max_size=70) | st.from_regex(r"[a-z0-9-]{0,70}\n?", fullmatch=True))
def test_a_name_is_accepted_exactly_where_the_contract_does(text: str) -> None:
    allowed = re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text) and text not in RESERVED
    if allowed:
        assert parse_service(text) == text
    else:
        with pytest.raises(InvalidName):
            parse_service(text)


BAD_KEYS = ["", "1a", "_a", "A", "a-b", "a.b", "a" * 64, "a\n", "a\0", "é", "a/b", "__proto__"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_outside_the_grammar_is_named_by_its_pointer(key: str) -> None:
    assert not is_key(key)
    with pytest.raises(InvalidValues) as caught:
        check_keys({"good": 1, key: 2})
    [error] = caught.value.errors
    assert error.pointer == pointer(key)
    assert "starts with a letter" in error.detail


@pytest.mark.parametrize("key", ["a", "a" * 63, "whisper_model", "a__", "a0"])
def test_a_key_inside_the_grammar_passes(key: str) -> None:
    assert is_key(key)
    check_keys({key: {"Any-Thing": [None]}})


def test_every_bad_key_is_named_in_the_order_they_came() -> None:
    with pytest.raises(InvalidValues) as caught:
        check_keys({"B": 1, "ok": 2, "a b": 3, "~/": 4})
    assert [error.pointer for error in caught.value.errors] == ["/B", "/a b", "/~0~1"]
    assert isinstance(caught.value.errors[0], FieldError)


def test_no_keys_are_fine() -> None:
    check_keys({})


@pytest.mark.parametrize(
    ("segments", "expected"),
    [  # RFC 6901, section 5
        ((), ""),
        (("foo",), "/foo"),
        (("foo", 0), "/foo/0"),
        (("",), "/"),
        (("a/b",), "/a~1b"),
        (("m~n",), "/m~0n"),
        (("~1",), "/~01"),
        ((" ", 'k"l'), '/ /k"l'),
    ],
)
def test_a_pointer_is_rfc_6901_s(segments: tuple[str | int, ...], expected: str) -> None:
    assert pointer(*segments) == expected


@STEADY
@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_places_share_a_pointer(one: list[str], other: list[str]) -> None:
    assert (pointer(*one) == pointer(*other)) == (one == other)


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "x" * 64, "00000000-0000-4000-8000-000000000000"])
def test_a_callers_id_is_taken_as_it_is(text: str) -> None:
    assert accept_correlation_id(text) == text


@pytest.mark.parametrize(
    "text", [None, "", "x" * 65, "a b", "a\n", "a\r\nX-Admin: 1", "é", 'a"', "a/b", "a\0", "{}"]
)
def test_what_is_no_id_is_not_taken_over(text: str | None) -> None:
    assert accept_correlation_id(text) is None


def test_a_mark_compares_by_epoch_first() -> None:
    assert Mark(2, 1) > Mark(1, 99)
    assert Mark(1, 2) > Mark(1, 1)
    assert Mark(1, 1) == Mark(1, 1)
