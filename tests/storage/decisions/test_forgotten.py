"""What was forgotten is told from what has come back, and the rows do not pile up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config_manager.config.documents.receipt import Receipt
from config_manager.storage.decisions.forgotten import (
    FORGOTTEN,
    MOST,
    Forgotten,
    forgotten,
    newly_forgotten,
    rows_after,
)
from config_manager.storage.state import Committed, with_rows
from tests.kit.documents import RECEIPT
from tests.kit.stores import empty

NOW = 1_800_000_000.0
MARK = Forgotten("a", boot_seq=4, seq=9, until=NOW)


def said(boot_seq: int, seq: int, *, gone: bool = False) -> Receipt:
    return replace(RECEIPT, boot_seq=boot_seq, seq=seq, gone=gone)


def retained(receipt: Receipt, *, keyid: str = "a", at: float = NOW - 60) -> bool:
    return MARK.covers(receipt, keyid, at, retained=True)


def live(receipt: Receipt, *, keyid: str = "a", at: float = NOW - 60) -> bool:
    return MARK.covers(receipt, keyid, at, retained=False)


@pytest.mark.parametrize("order", [(4, 9), (4, 8), (3, 99), (1, 1)])
def test_what_a_broker_still_retains_of_it_stays_away(order: tuple[int, int]) -> None:
    assert retained(said(*order))
    assert retained(said(*order, gone=True))


@pytest.mark.parametrize("order", [(4, 10), (5, 1)])
def test_what_it_said_after_that_has_come_back(order: tuple[int, int]) -> None:
    assert not retained(said(*order))


def test_a_broker_that_notices_its_end_late_does_not_bring_it_back() -> None:
    for will in (said(4, 2, gone=True), said(4, 12, gone=True), said(3, 50, gone=True)):
        assert live(will)
        assert retained(will)
    assert not retained(said(5, 1, gone=True)), "it had been back, and has gone again"


def test_who_speaks_right_now_is_there_whatever_he_counts() -> None:
    """A state that was put back from a backup counts from where it was then."""
    assert not live(said(1, 1))
    assert not live(said(4, 9))


def test_a_state_from_a_backup_and_one_made_anew_are_told_by_when_they_speak() -> None:
    assert not retained(said(1, 1), at=NOW + 60)
    assert not retained(said(1, 1), keyid="b", at=NOW + 60)
    assert retained(said(9, 1), keyid="b", at=NOW - 60), "an earlier state of its name"


def test_a_clock_that_is_behind_hides_no_newer_receipt() -> None:
    assert not retained(said(5, 1), at=0.0)


# ── rows ───────────────────────────────────────────────────────────────────────────────────────


def forget(state: Committed, service: str, instance: str, **how: Any) -> Committed:
    rows = rows_after(state, service, instance, replace(MARK, **how))
    return replace(state, registry=with_rows(state.registry, rows))


def test_each_forgetting_keeps_one_row_and_news_are_what_changed() -> None:
    before = forget(forget(empty(), "stt-worker", "kitchen"), "stt-worker", "hall")
    after = forget(before, "stt-worker", "kitchen", boot_seq=7)
    assert forgotten(after, "stt-worker", "kitchen") == replace(MARK, boot_seq=7)
    assert forgotten(after, "stt-worker", "attic") is None
    rows = after.registered(FORGOTTEN)
    assert len(rows) == 2
    assert newly_forgotten(rows, before.registered(FORGOTTEN)) == [("stt-worker", "kitchen")]
    assert newly_forgotten(rows, {}) == [("stt-worker", "kitchen"), ("stt-worker", "hall")]


def test_the_oldest_row_makes_room() -> None:
    state = empty()
    for number in range(MOST):
        state = forget(state, "stt-worker", f"i-{number}", until=NOW + number)
    state = forget(state, "stt-worker", "i-0", until=NOW + MOST)
    assert len(state.registered(FORGOTTEN)) == MOST
    state = forget(state, "stt-worker", "one-more", until=NOW + MOST + 1)
    assert len(state.registered(FORGOTTEN)) == MOST
    assert forgotten(state, "stt-worker", "i-1") is None
    assert forgotten(state, "stt-worker", "i-0") is not None
