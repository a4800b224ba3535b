"""Sealed records behind each other: each opens in its place alone, and what a power cut leaves is told from
what somebody did."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.storage.sealed_records import (
    MAGIC,
    NONCE_BYTES,
    PLACE_BYTES,
    Damaged,
    Seals,
    Torn,
)
from tests.kit import stores as m

KEY = b"k" * 32
SEALS = Seals(KEY, "test")
NONCES = m.Counting()
BEGIN = MAGIC + b"i" * PLACE_BYTES
CONTENTS = (b"first", b"", b"third of them", b"x" * 300, b"last")


def sealed(*contents: bytes, begin: bytes = BEGIN, seals: Seals = SEALS) -> list[bytes]:
    """What a file begins with, and its records."""
    parts = [begin]
    for content in contents:
        parts.append(seals.seal(content, b"".join(parts)[-PLACE_BYTES:], NONCES.token(NONCE_BYTES)))
    return parts


def opened(raw: bytes, seals: Seals = SEALS) -> tuple[list[bytes], str]:
    """What opens, and how it ended."""
    found: list[bytes] = []
    try:
        for record in seals.opened(raw):
            found.append(record.content)
    except Torn:
        return found, "torn"
    except Damaged:
        return found, "damaged"
    return found, "whole"


PARTS = sealed(*CONTENTS)
RAW = b"".join(PARTS)
ENDS = [len(b"".join(PARTS[: n + 1])) for n in range(len(PARTS))]


@m.STEADY
@given(st.lists(st.binary(max_size=100), max_size=5))
def test_what_is_sealed_opens(contents: list[bytes]) -> None:
    assert opened(b"".join(sealed(*contents))) == (contents, "whole")


def test_what_is_sealed_shows_nowhere() -> None:
    assert not any(content and content in RAW for content in CONTENTS)


def test_each_says_where_it_ends() -> None:
    assert [record.end for record in SEALS.opened(RAW)] == ENDS[1:]


def test_cut_anywhere_it_is_torn_and_what_was_whole_before_opens() -> None:
    for cut in range(len(BEGIN), len(RAW)):
        whole = sum(end <= cut for end in ENDS) - 1
        wanted = (list(CONTENTS[:whole]), "whole" if cut in ENDS else "torn")
        assert opened(RAW[:cut]) == wanted, cut


def test_zeros_that_a_file_system_put_behind_it_are_torn_too() -> None:
    for zeros in (1, 11, 12, 13, 4096):
        assert opened(RAW + bytes(zeros)) == (list(CONTENTS), "torn")
        assert opened(RAW[: ENDS[2]] + bytes(zeros)) == (list(CONTENTS[:2]), "torn")


def test_no_bit_behind_the_begin_can_be_flipped_and_none_looks_like_a_power_cut() -> None:
    for place in range(len(BEGIN), len(RAW)):
        raw = bytearray(RAW)
        raw[place] ^= 1 << place % 8
        before = sum(end <= place for end in ENDS) - 1
        assert opened(bytes(raw)) == (list(CONTENTS[:before]), "damaged"), place


@m.STEADY
@given(st.integers(0, len(BEGIN) - 1), st.integers(0, 7))
def test_nor_one_of_the_begin(place: int, bit: int) -> None:
    raw = bytearray(RAW)
    raw[place] ^= 1 << bit
    assert opened(bytes(raw)) == ([], "damaged")


@pytest.mark.parametrize(
    ("order", "opens"),
    [
        ([0, 2, 1, 3, 4, 5], 0),  # swapped
        ([0, 1, 2, 2, 3, 4, 5], 2),  # repeated
        ([0, 1, 3, 4, 5], 1),  # one taken out
        ([0, 2, 3, 4, 5], 0),
        ([0, 1, 2, 3, 4, 5, 1], 5),  # the first once more, behind the last
        ([1, 2], 0),  # no begin
    ],
)
def test_a_record_opens_in_its_place_alone(order: list[int], opens: int) -> None:
    assert opened(b"".join(PARTS[n] for n in order)) == (list(CONTENTS[:opens]), "damaged")


def test_nor_does_its_content_behind_the_length_of_another() -> None:
    """The check is of the length alone."""
    begin, one, other, last = sealed(b"same length", b"as this one", b"and another")
    assert len(one) == len(other) == len(last)
    head = 12
    mixed = begin + one + other[:head] + last[head:] + last[:head] + other[head:]
    assert opened(mixed) == ([b"same length"], "damaged")
    assert opened(begin + one[:head] + other[head:]) == ([], "damaged")


def test_no_record_opens_behind_another_file_even_of_the_same_content() -> None:
    other = sealed(*CONTENTS, begin=MAGIC + b"j" * PLACE_BYTES)
    for number in range(1, len(PARTS)):
        mixed = b"".join([*PARTS[:number], *other[number:]])
        assert opened(mixed) == (list(CONTENTS[: number - 1]), "damaged")


def test_what_went_another_way_from_the_same_record_on_does_not_fit_behind_the_first() -> None:
    """Somebody puts an older file back, the server writes on, and he puts his newer end behind that."""
    again = PARTS[:3]
    again.append(SEALS.seal(CONTENTS[2], b"".join(again)[-PLACE_BYTES:], NONCES.token(NONCE_BYTES)))
    assert opened(b"".join(again)) == (list(CONTENTS[:3]), "whole")
    assert opened(b"".join([*again, *PARTS[4:]])) == (list(CONTENTS[:3]), "damaged")


def test_the_same_content_is_never_sealed_the_same_way_twice() -> None:
    assert sealed(b"same")[1] != sealed(b"same")[1]


@pytest.mark.parametrize("seals", [Seals(b"x" * 32, "test"), Seals(KEY, "another")])
def test_another_key_or_purpose_opens_nothing(seals: Seals) -> None:
    assert opened(RAW, seals) == ([], "damaged")


@m.STEADY
@given(st.binary(max_size=100), st.booleans())
def test_no_bytes_of_others_open_and_none_crash(raw: bytes, begins_well: bool) -> None:
    found, how = opened(BEGIN * begins_well + raw)
    assert found == []
    assert how in ("torn", "damaged") or (begins_well and not raw)
