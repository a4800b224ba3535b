"""A trace, put together from what was noted: steps at brokers, stages of instances, and how a change stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.storage.decisions.tracing import Step, joined, state_of, steps
from config_manager.storage.drifts import State
from config_manager.storage.trace import (
    BROKER_STEPS,
    BrokerTimes,
    ChangeTimes,
    StageTime,
    earliest,
    reach,
)
from tests.kit.stores import STEADY

HERE, THERE = "mqtt://here:1883", "mqtt://there:1883"


def test_steps_stand_in_the_order_of_time_broker_by_broker() -> None:
    times = ChangeTimes(
        7, 10.0, 10.5,
        brokers=(
            BrokerTimes("a", HERE, 11.0, 11.5, 13.0, 12.5),
            BrokerTimes("a", THERE, 11.25),
        ),
    )  # fmt: skip
    assert steps(times, ["a"], {"a": 7}) == [
        Step("asked", None, 10.0),
        Step("committed", None, 10.5),
        Step("signed", HERE, 11.0),
        Step("signed", THERE, 11.25),
        Step("published", HERE, 11.5),
        Step("confirmed", HERE, 12.5),
        Step("acknowledged", HERE, 13.0),
    ]


def test_a_step_of_a_change_of_several_services_is_done_with_the_last_of_them() -> None:
    brokers = (BrokerTimes("a", HERE, 11.0, 12.0), BrokerTimes("b", HERE, 11.5))
    times = ChangeTimes(7, None, 10.0, brokers=brokers)
    both = {"a": 7, "b": 7}
    assert steps(times, ["a", "b"], both)[1:] == [Step("signed", HERE, 11.5)]
    written_again = {"a": 7, "b": 8}
    assert steps(times, ["a", "b"], written_again)[1:] == [
        Step("signed", HERE, 11.5),
        Step("published", HERE, 12.0),
    ]
    assert steps(times, ["b"], both)[1:] == [Step("signed", HERE, 11.5)], "it sees b alone"


@pytest.mark.parametrize(
    ("is_drifting", "is_confirmed", "states", "stands"),
    [
        (False, True, (), "settled"),
        (False, True, ("in-line", "overridden", "silent", "claimed"), "settled"),
        (False, True, ("in-line", "pending"), "pending"),
        (False, True, ("waiting",), "pending"),
        (False, True, ("refused",), "pending"),
        (False, False, ("in-line",), "pending"),
        (True, True, ("in-line",), "drifting"),
        (True, False, (), "drifting"),
    ],
)
def test_how_a_change_stands(
    is_drifting: bool, is_confirmed: bool, states: tuple[State, ...], stands: str
) -> None:
    found = state_of(
        is_drifting=is_drifting, is_confirmed=is_confirmed, states=frozenset[State](states)
    )
    assert found == stands


def test_what_is_kept_and_what_was_heard_is_told_once() -> None:
    received, applied, healthy = (
        StageTime(stage, at, at + 1) for stage, at in [("received", 1.0), ("applied", 2.0), ("healthy", 3.0)]
    )  # fmt: skip
    again = StageTime("healthy", 9.0, 9.0)  # after a restart
    pair, other = ("a", "one"), ("a", "two")
    assert joined(
        {pair: [received, applied], other: [applied]}, {pair: [applied, healthy, again]}
    ) == {pair: [received, applied, healthy], other: [applied]}


def test_an_instance_that_defers_without_end_is_told_so_often_and_no_more() -> None:
    stages: list[StageTime] = []
    for n in range(100):
        reach(stages, StageTime("deferred", n, n, reason=str(n)))
    assert len(stages) == 32


times_of_a_step = st.none() | st.floats(0, 100)
brokers = st.builds(
    BrokerTimes, st.sampled_from("ab"), st.sampled_from([HERE, THERE]), *[times_of_a_step] * 4
)
changes = st.builds(
    ChangeTimes,
    st.just(1),
    st.none() | st.floats(0, 100),
    st.floats(0, 100),
    brokers=st.lists(brokers, unique_by=lambda one: one[:2], max_size=4).map(tuple),
)


@STEADY
@given(changes, changes)
def test_from_two_places_nothing_is_lost_and_the_first_place_wins(
    one: ChangeTimes, other: ChangeTimes
) -> None:
    both = earliest(one, other)
    assert both[:5] == one[:5]
    first, second, told = ({at[:2]: at for at in times.brokers} for times in (one, other, both))
    assert told.keys() == first.keys() | second.keys()
    for pair, at in told.items():
        for step in BROKER_STEPS:
            places = [getattr(known[pair], step) for known in (first, second) if pair in known]
            known = [time for time in places if time is not None]
            assert getattr(at, step) == (known[0] if known else None)
