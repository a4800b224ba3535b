"""The state of an instance: the first of ten that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.api.commands.states import COLOURS, WORDS
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.names import Epoch, Mark
from config_manager.storage.decisions.drift import (
    DRIFTS,
    LATE_S,
    RANK,
    STATES,
    Target,
    is_in_sync,
    judge,
    never_heard,
)
from config_manager.storage.state import ServiceState
from tests.kit.documents import make_receipt
from tests.kit.stores import STEADY

WANTED = ServiceState(
    "door", 7, 3, Epoch(2, "e"), {}, {}, (), {}, False, "at", "ada", "id", b"{}", "d" * 64
)
AS_WANTED = Running(2, 7, "d" * 64)
BEFORE = Running(2, 6, "c" * 64)
CONFIRMED = Target(WANTED, 1.0, is_confirmed=True, digests={Mark(2, 6): "c" * 64})


def receipt(running: Running | None = AS_WANTED, **fields: Any) -> Receipt:
    return make_receipt(running, **{"service": "door", "instance": "hall", **fields})


def tried(stage: Any, reason: str | None = None, revision: int = 7) -> Receipt:
    return receipt(BEFORE, last_attempt=Attempt(revision, stage, reason))


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize(
    ("wanted", "running", "in_sync"),
    [
        (WANTED, AS_WANTED, True),
        (WANTED, Running(2, 6, "d" * 64), False),
        (WANTED, Running(1, 7, "d" * 64), False),
        (WANTED, Running(2, 7, "e" * 64), False),
        (WANTED, None, False),
        (None, AS_WANTED, False),
        (None, None, True),
    ],
)
def test_an_instance_that_is_there_runs_exactly_what_is_wanted(
    wanted: ServiceState | None, running: Running | None, in_sync: bool, gone: bool
) -> None:
    assert is_in_sync(wanted, running, gone=gone) is (in_sync and not gone)


LATE = replace(CONFIRMED, waited_s=LATE_S)
NOWHERE = replace(LATE, is_confirmed=False)
DELETED = replace(LATE, state=replace(WANTED, deleted=True))


@pytest.mark.parametrize(
    ("said", "target", "state", "why"),
    [
        (receipt(), CONFIRMED, "in-line", "it runs what is wanted"),
        (receipt(None), Target(None), "in-line", "it runs what is wanted"),
        (receipt(None), DELETED, "in-line", "it runs what is wanted"),
        (receipt(overrides=("a", "b")), CONFIRMED, "overridden", "environment decides a, b"),
        (receipt(freshness="stale (no-beacon)"), CONFIRMED, "stale", "no beacon of the publ"),
        (receipt(freshness="stale (new-word)"), CONFIRMED, "stale", "(new-word)"),
        (receipt(freshness="stale"), CONFIRMED, "stale", "can't know"),
        (receipt(freshness="clock-unknown"), CONFIRMED, "in-line", ""),
        (tried("refused", "model: no"), CONFIRMED, "refused", "model: no"),
        (tried("poisoned"), LATE, "refused", "poisoned revision 7"),
        (tried("deferred", "on a call"), LATE, "waiting", "on a call"),
        (tried("restart-required"), LATE, "waiting", "takes revision 7 at its next start"),
        (tried("received"), CONFIRMED, "pending", "has revision 7 (received)"),
        (tried("received"), LATE, "late", "has revision 7 (received)"),
        (tried("refused", "model: no", revision=6), LATE, "late", "not answered revision 7"),
        (receipt(BEFORE), CONFIRMED, "pending", "revision 7 is on its way"),
        (receipt(None), CONFIRMED, "pending", "on its way"),
        (receipt(BEFORE), LATE, "late", "has not answered revision 7"),
        (receipt(BEFORE), NOWHERE, "late", "no broker is known to hold revision 7"),
        (receipt(BEFORE), DELETED, "late", "still runs what revision 7 deleted"),
        (receipt(Running(2, 8, "d" * 64)), CONFIRMED, "foreign", "revision 8, which was never"),
        (receipt(Running(3, 1, "d" * 64)), CONFIRMED, "foreign", "revision 1, which was never"),
        (receipt(Running(2, 7, "e" * 64)), CONFIRMED, "foreign", "other content under revision 7"),
        (receipt(Running(2, 6, "e" * 64)), CONFIRMED, "foreign", "other content under revision 6"),
        (receipt(Running(2, 5, "e" * 64)), CONFIRMED, "pending", ""),
        (receipt(), Target(None), "foreign", "never published"),
        (tried("refused"), Target(None), "foreign", "never published"),
    ],
)
def test_each_state_and_its_why(said: Receipt, target: Target, state: str, why: str) -> None:
    found = judge(said, target, gone=False, verified=True)
    assert found.state == state
    assert why in found.why


def test_who_is_gone_or_not_enrolled_is_judged_by_nothing_else() -> None:
    foreign = receipt(Running(9, 9, "e" * 64))
    assert judge(foreign, CONFIRMED, gone=True, verified=True).state == "silent"
    assert judge(foreign, CONFIRMED, gone=True, verified=False).state == "silent"
    assert judge(foreign, CONFIRMED, gone=False, verified=False).state == "claimed"
    assert never_heard("2026-01-31T12:00:00Z") == (
        "silent",
        "it enrolled at 2026-01-31T12:00:00Z and was never heard since",
    )


def test_the_worst_comes_first_and_what_runs_as_wanted_last() -> None:
    assert sorted(STATES, key=RANK.__getitem__) == list(STATES)
    assert STATES[0] == "foreign"
    assert STATES[-1] == "in-line"
    assert len(STATES) == 10


runnings = st.none() | st.builds(
    Running, st.integers(1, 3), st.integers(1, 9), st.sampled_from(["c" * 64, "d" * 64, "e" * 64])
)
receipts = st.builds(
    receipt,
    runnings,
    last_attempt=st.none()
    | st.builds(
        Attempt,
        st.integers(1, 9),
        st.sampled_from(
            ["received", "deferred", "applied", "healthy", "refused", "restart-required"]
            + ["poisoned", "a-later-word"]
        ),
        st.none() | st.text(max_size=5),
    ),
    freshness=st.sampled_from(["fresh", "stale (expired)", "unknown", "clock-unknown"]),
    overrides=st.sampled_from([(), ("a",)]),
)
targets = st.builds(
    Target,
    st.none() | st.builds(replace, st.just(WANTED), deleted=st.booleans()),
    st.floats(0, 100),
    st.booleans(),
    st.just({Mark(2, 6): "c" * 64}),
)


@STEADY
@given(said=receipts, target=targets, gone=st.booleans(), verified=st.booleans())
def test_whatever_is_said_there_is_one_state_and_it_does_not_contradict_what_runs(
    said: Receipt, target: Target, gone: bool, verified: bool
) -> None:
    state, why = judge(said, target, gone=gone, verified=verified)
    assert why
    wanted = None if target.state is None or target.state.deleted else target.state
    runs = is_in_sync(wanted, said.running, gone=False)
    assert (state == "silent") is gone
    assert (state == "claimed") is (not gone and not verified)
    if verified and not gone:
        assert runs is (state in ("stale", "overridden", "in-line"))
        assert (state == "late") <= (target.waited_s >= LATE_S)
        assert (state == "pending") <= (target.waited_s < LATE_S)
        if said.running is not None and target.state is not None:
            is_ahead = (said.running.epoch_seq, said.running.revision) > target.state.mark
            assert is_ahead <= (state == "foreign")


@STEADY
@given(said=receipts, target=targets, more_s=st.floats(0, 100))
def test_time_alone_makes_only_the_late_of_what_is_on_the_way(
    said: Receipt, target: Target, more_s: float
) -> None:
    now = judge(said, target, gone=False, verified=True)
    later = judge(
        said, replace(target, waited_s=target.waited_s + more_s), gone=False, verified=True
    )
    assert later.state == now.state or (now.state, later.state) == ("pending", "late")


def test_commands_have_a_word_for_each_state_in_the_same_order_and_show_drift_in_red() -> None:
    assert tuple(WORDS) == STATES
    assert {state for state in STATES if COLOURS.get(WORDS[state]) == "red"} == DRIFTS
