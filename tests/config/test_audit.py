"""What is wrong with a chain, and where: every way to edit it, told apart and told by number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config_manager.config.audit import GENESIS, AuditFault, ChainCheck, ChainVerdict, Head, chain

STEADY = settings(deadline=None, derandomize=True)


@dataclass(frozen=True)
class Row:
    seq: int
    revision: int
    body: bytes
    hash: str

    @property
    def value(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


def made_of(seq: int, previous: str, **fields: Any) -> Row:
    body = json.dumps({"seq": seq, "previous": previous, "revision": seq // 2, **fields}).encode()
    return Row(seq, seq // 2, body, chain(previous, body))


def rows_of(count: int, **fields: Any) -> list[Row]:
    rows: list[Row] = []
    for seq in range(1, count + 1):
        rows.append(made_of(seq, rows[-1].hash if rows else GENESIS, by=f"who-{seq}", **fields))
    return rows


CHAIN = rows_of(8)
END = Head(8, CHAIN[-1].hash, "the database")
places = st.integers(0, len(CHAIN) - 1)


def judge(
    rows: Sequence[Row], end: Head | None = END, *known: Head, contains: str | None = None
) -> ChainVerdict:
    check = ChainCheck(end, known, contains=contains)
    for row in rows:
        check.take(row.seq, row.revision, row.body, row.hash)
    return check.finish()


def found(rows: Sequence[Row], *known: Head, end: Head | None = END) -> tuple[int, str]:
    problem = judge(rows, end, *known).problem
    assert problem is not None
    return problem.seq, problem.kind


def renumbered(rows: Sequence[Row]) -> list[Row]:
    """As who edits a table would leave it: numbers without a gap."""
    return [replace(row, seq=seq) for seq, row in enumerate(rows, 1)]


def test_a_whole_chain_is_fine_and_its_end_is_named() -> None:
    verdict = judge(CHAIN, END, Head(3, CHAIN[2].hash, "a witness"), contains=CHAIN[4].hash)
    assert verdict == ChainVerdict(8, CHAIN[-1].hash, None)
    assert verdict.ok
    assert judge([], Head(0, GENESIS, "the database")) == ChainVerdict(0, GENESIS, None)


# ── altered ────────────────────────────────────────────────────────────────────────────────────


@STEADY
@given(places, st.data())
def test_an_altered_row_is_named_whatever_byte_it_was(at: int, data: st.DataObject) -> None:
    body = bytearray(CHAIN[at].body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    rows = [*CHAIN]
    rows[at] = replace(rows[at], body=bytes(body))
    assert found(rows) == (at + 1, "altered")


@STEADY
@given(places)
def test_an_altered_row_whose_own_hash_was_made_to_fit_is_the_one_that_is_named(at: int) -> None:
    rows = [*CHAIN]
    rows[at] = made_of(at + 1, rows[at - 1].hash if at else GENESIS, by="somebody else")
    if at + 1 < len(CHAIN):
        assert found(rows) == (at + 1, "altered")
    else:
        assert found(rows) == (at + 1, "head"), "of the last one only who knows the end can tell"


@STEADY
@given(places, st.sampled_from(["", "0" * 64, "nothing", CHAIN[0].hash]))
def test_an_altered_hash_is_the_rows_own_or_that_of_the_next(at: int, other: str) -> None:
    assume(other != CHAIN[at].hash)
    rows = [*CHAIN]
    rows[at] = replace(rows[at], hash=other)
    assert found(rows) == (at + 1, "altered")


@STEADY
@given(places)
def test_a_column_beside_the_bytes_can_not_be_altered_either(at: int) -> None:
    rows = [*CHAIN]
    rows[at] = replace(rows[at], revision=rows[at].revision + 1)
    assert found(rows) == (at + 1, "altered")


# ── removed ────────────────────────────────────────────────────────────────────────────────────


@STEADY
@given(places, st.integers(1, 3), st.booleans())
def test_removed_rows_are_named_by_the_first_also_where_the_rest_was_renumbered(
    at: int, count: int, tidied: bool
) -> None:
    rows = CHAIN[:at] + CHAIN[at + count :]
    assert found(renumbered(rows) if tidied else rows) == (at + 1, "removed")


def test_rows_removed_at_the_end_are_missed_by_who_knows_them() -> None:
    rows = CHAIN[:5]
    assert judge(rows, None).ok, "nobody else knows better"
    assert judge(rows, Head(5, rows[-1].hash, "the database")).ok, "counters that were moved along"
    witness = Head(7, CHAIN[6].hash, "instance.json")
    problem = judge(rows, Head(5, rows[-1].hash, "the database"), witness).problem
    assert problem == AuditFault(
        6, "removed", "row 6 to 7 is not there; instance.json knows 7 rows"
    )


def test_a_chain_that_is_gone_altogether_is_removed_from_row_1() -> None:
    assert found([]) == (1, "removed")


# ── reordered ──────────────────────────────────────────────────────────────────────────────────


@STEADY
@given(st.permutations(CHAIN), st.booleans())
def test_reordered_rows_are_named_by_the_first_place_that_another_took(
    rows: list[Row], tidied: bool
) -> None:
    assume(rows != CHAIN)
    first = next(i for i, (row, right) in enumerate(zip(rows, CHAIN, strict=True)) if row != right)
    assert found(renumbered(rows) if tidied else rows) == (first + 1, "reordered")


@STEADY
@given(places, places)
def test_a_repeated_row_is_no_row_of_its_own(one: int, at: int) -> None:
    rows = [*CHAIN[:at], CHAIN[one], *CHAIN[at:]]
    for these in (rows, renumbered(rows)):
        assert not judge(these).ok


# ── head ───────────────────────────────────────────────────────────────────────────────────────


def rewritten(at: int) -> list[Row]:
    """From one row on everything anew, so that each follows the one before."""
    rows = CHAIN[:at]
    for seq in range(at + 1, len(CHAIN) + 1):
        rows.append(made_of(seq, rows[-1].hash if rows else GENESIS, by="history as we like it"))
    return rows


@STEADY
@given(places, places)
def test_a_chain_that_was_rewritten_consistently_is_not_the_one_that_somebody_knows(
    at: int, witnessed: int
) -> None:
    rows = rewritten(at)
    assert found(rows) == (8, "head")
    ours = Head(8, rows[-1].hash, "the database")
    witness = Head(witnessed + 1, CHAIN[witnessed].hash, "instance.json")
    if witnessed < at:
        assert judge(rows, ours, witness).ok
    else:
        assert found(rows, witness, end=ours) == (witnessed + 1, "head")


def test_a_hash_that_was_kept_must_be_in_the_chain() -> None:
    kept = CHAIN[3].hash
    assert judge(CHAIN, contains=kept).ok
    ours = rewritten(2)
    end = Head(8, ours[-1].hash, "the database")
    assert judge(ours, end, contains=CHAIN[1].hash).ok
    problem = judge(ours, end, contains=kept).problem
    assert problem is not None
    assert (problem.kind, kept[:16] in problem.detail) == ("head", True)


def test_rows_behind_the_last_known_one_are_none_of_ours() -> None:
    assert found(CHAIN, end=Head(6, CHAIN[5].hash, "the database")) == (7, "head")


# ── rows from before they named their place ────────────────────────────────────────────────────


def old_rows(count: int) -> list[Row]:
    rows: list[Row] = []
    for seq in range(1, count + 1):
        body = json.dumps({"revision": seq, "by": f"who-{seq}"}).encode()
        rows.append(Row(seq, seq, body, chain(rows[-1].hash if rows else GENESIS, body)))
    return rows


def test_old_rows_are_held_to_their_hashes() -> None:
    rows = old_rows(4)
    rows.append(made_of(5, rows[-1].hash, revision=2))
    end = Head(5, rows[-1].hash, "the database")
    assert judge(rows, end).ok
    for at in range(4):
        edited = [*rows]
        edited[at] = replace(edited[at], body=edited[at].body.replace(b"who", b"you"))
        assert found(edited, end=end) == (at + 1, "altered")
        assert found(rows[:at] + rows[at + 1 :], end=end) == (at + 1, "removed")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"seq":"a","previous":"\xc3\xa4"}']
)
def test_bytes_that_are_no_row_are_an_altered_one(body: bytes) -> None:
    rows = [*CHAIN]
    rows[2] = replace(rows[2], body=body)
    assert found(rows) == (3, "altered")
    rows[2] = replace(rows[2], hash=chain(CHAIN[1].hash, body))
    assert found(rows) == (3, "altered")
