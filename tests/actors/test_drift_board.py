"""Who drifts since when, judged anew where something changed or time makes a difference."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.documents.receipt import Attempt, Running
from config_manager.storage.decisions.drift import DRIFTS, LASTING_S
from config_manager.storage.drifts import Drift
from tests.kit.instances import START, Fleet
from tests.kit.stores import STEADY


@pytest.fixture
def fleet() -> Fleet:
    """Service `a` at revision 1, instance `x` enrolled and running it."""
    fleet = Fleet()
    fleet.commit("a", 1)
    fleet.enrol("a", "x")
    fleet.hear("a", "x", 1)
    return fleet


def test_who_does_not_answer_is_late_30_s_after_a_broker_holds_the_change_and_drifts_10_s_later(
    fleet: Fleet,
) -> None:
    assert fleet.state("a", "x") == "in-line"
    fleet.passed = 100.0
    fleet.commit("a", 2)
    assert fleet.state("a", "x") == "pending"
    fleet.passed = 105.0
    fleet.confirm("a", 2)
    fleet.passed = 134.9
    assert fleet.state("a", "x") == "pending"
    fleet.passed = 135.0
    assert fleet.state("a", "x") == "late"
    fleet.passed = 144.9
    assert fleet.board.open() == []
    fleet.passed = 145.0
    (drift,) = fleet.board.open()
    assert (drift.instance, drift.state, drift.since, drift.began) == (
        "x",
        "late",
        START + 135.0,
        START + 145.0,
    )
    assert (drift.revision, drift.correlation_id) == (2, "change-2")
    fleet.passed = 150.0
    fleet.hear("a", "x", 2)
    assert fleet.board.open() == []
    assert fleet.told == [("began", "x", "late"), ("ended", "x", "late")]
    began, ended = fleet.events()
    assert (ended.since, ended.at, ended.revision) == (began.since, START + 150.0, 2)
    assert ended.seq > began.seq


def test_if_no_broker_takes_the_change_it_is_late_30_s_after_its_commit_and_the_broker_is_why(
    fleet: Fleet,
) -> None:
    fleet.commit("a", 2)
    fleet.passed = 30.0
    judged = fleet.board.one("a", "x")
    assert judged is not None
    assert (judged.state, judged.why) == ("late", "no broker is known to hold revision 2")
    fleet.confirm("a", 2)
    assert fleet.state("a", "x") == "pending"


def test_what_lasts_less_than_10_s_is_no_drift(fleet: Fleet) -> None:
    refused = Attempt(2, "refused", "model: no")
    fleet.commit("a", 2)
    fleet.hear("a", "x", 1, last_attempt=refused)
    fleet.passed = 9.0
    assert fleet.state("a", "x") == "refused"
    fleet.commit("a", 3)
    assert fleet.state("a", "x") == "pending"
    fleet.passed = 18.0
    fleet.hear("a", "x", 1, last_attempt=Attempt(3, "refused", "model: no"))
    assert fleet.state("a", "x") == "refused"
    fleet.passed = 27.0
    fleet.hear("a", "x", 3)
    fleet.passed = 40.0
    assert fleet.state("a", "x") == "in-line"
    assert fleet.events() == [], "twice 9 s are not 10 s"


def test_drift_that_changes_its_kind_ends_and_begins_at_once(fleet: Fleet) -> None:
    fleet.commit("a", 2)
    fleet.passed = 45.0
    fleet.board.catch_up()
    fleet.passed = 60.0
    assert [one.state for one in fleet.board.open()] == ["late"]
    fleet.hear("a", "x", 1, last_attempt=Attempt(2, "refused", "model: no"))
    assert fleet.told == [
        ("began", "x", "late"),
        ("ended", "x", "late"),
        ("began", "x", "refused"),
    ]
    assert [one.since for one in fleet.board.open()] == [START + 60.0]
    assert fleet.board.drifting_services == 1


def test_the_counts_follow_every_change_and_claims_are_counted_apart(fleet: Fleet) -> None:
    fleet.enrol("a", "never")
    fleet.hear("a", "stranger", 1)
    fleet.hear("b", "lost", None)
    assert +fleet.board.counts == {"in-line": 1, "silent": 1, "claimed": 2}
    fleet.commit("a", 2)
    assert +fleet.board.counts == {"pending": 1, "silent": 1, "claimed": 2}
    fleet.hear("a", "x", 2, overrides=("volume",))
    fleet.hear("a", "never", 2, gone=True)
    assert +fleet.board.counts == {"overridden": 1, "silent": 1, "claimed": 2}
    assert [(one.service, one.instance) for one in fleet.board.judged()] == [
        ("a", "never"),
        ("a", "stranger"),
        ("a", "x"),
        ("b", "lost"),
    ]
    assert [one.instance for one in fleet.board.judged("b")] == ["lost"]
    assert [one.instance for one in fleet.board.after(("a", "stranger"))] == ["x", "lost"]
    assert [one.instance for one in fleet.board.after(("a", "stranger"), "a")] == ["x"]


def test_what_was_wanted_before_the_start_is_not_waited_for_anew() -> None:
    fleet = Fleet({"a": 2}, age_s=600.0)
    fleet.enrol("a", "x")
    fleet.hear("a", "x", 1)
    assert fleet.state("a", "x") == "late"
    fleet.confirm("a", 2)
    assert fleet.state("a", "x") == "late"


def test_drift_that_was_open_before_the_start_goes_on_or_ends() -> None:
    fleet = Fleet({"a": 2}, age_s=600.0)
    for instance in ("late", "back"):
        fleet.enrol("a", instance)
    open_then = [
        Drift(seq, "a", who, "late", "why", START - 500, START - 490, 2, "change-2")
        for seq, who in enumerate(("late", "back", "removed"), 1)
    ]
    fleet.board.restore(open_then, 3)
    fleet.hear("a", "late", 1)
    fleet.hear("a", "back", 2)
    (drift,) = fleet.board.open()
    assert (drift.seq, drift.instance, drift.since) == (1, "late", START - 500)
    assert sorted(fleet.told) == [("ended", "back", "late"), ("ended", "removed", "late")]
    saved = fleet.board.unsaved()
    assert sorted((one.seq, one.ended) for one in saved if one.ended) == [(2, START), (3, START)]
    judged = fleet.board.one("a", "late")
    assert judged is not None
    assert judged.since == START - 500


def test_drift_that_is_read_late_ends_and_what_began_meanwhile_stays_open(fleet: Fleet) -> None:
    """The database could not be read at the start."""
    fleet.hear("a", "x", 1, freshness="stale (no-beacon)")
    fleet.passed = LASTING_S
    (now,) = fleet.board.open()
    then = Drift(1, "a", "x", "late", "why", START - 500, START - 490, 1, "change-1")
    fleet.board.restore([then], 1)
    assert fleet.board.open() == [now]
    assert fleet.board.drifting_services == 1
    fleet.hear("a", "x", 1)
    assert fleet.board.open() == []
    assert fleet.board.drifting_services == 0
    assert {one.seq for one in fleet.board.unsaved() if one.ended} == {1, now.seq}


def test_what_is_older_and_of_another_content_is_foreign_if_the_server_published_it(
    fleet: Fleet,
) -> None:
    fleet.commit("a", 2)
    fleet.hear("a", "x", 1, running=Running(1, 1, "f" * 64))
    judged = fleet.board.one("a", "x")
    assert judged is not None
    assert judged.state == "foreign"
    assert "other content under revision 1" in judged.why


def test_who_is_forgotten_leaves_the_board_and_ends_its_drift(fleet: Fleet) -> None:
    told: list[tuple[str, str]] = []
    fleet.board.on_forgotten.append(told.append)
    fleet.board.catch_up()
    fleet.commit("a", 2)
    fleet.passed = 45.0
    fleet.board.catch_up()
    fleet.passed = 60.0
    assert len(fleet.board.open()) == 1
    fleet.forget("a", "x")
    assert fleet.state("a", "x") == "silent", "it is enrolled still"
    assert fleet.board.open() == []
    assert told == [("a", "x")]


def test_a_change_judges_the_instances_of_its_service_alone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("b", "c"):
        fleet.commit(service, 1)
        for number in range(20):
            fleet.hear(service, f"i{number}", 1)
    fleet.board.catch_up()
    judged: list[str] = []
    before = fleet.statuses.status

    def status(service: str, instance: str) -> Any:
        judged.append(service)
        return before(service, instance)

    monkeypatch.setattr(fleet.statuses, "status", status)
    fleet.commit("b", 2)
    fleet.board.catch_up()
    assert judged == ["b"] * 20
    fleet.passed = 1_000.0
    fleet.board.catch_up()
    assert judged == ["b"] * 20, "nobody who is enrolled waits, so time makes no difference"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([0.5, 3.0, 11.0, 31.0])),
        st.tuples(st.just("commit"), st.sampled_from("ab"), st.booleans()),
        st.tuples(st.just("confirm"), st.sampled_from("ab")),
        st.tuples(
            st.just("hear"),
            st.sampled_from("ab"),
            st.sampled_from(["x", "y", "stranger"]),
            st.sampled_from([-1, 0, 1]),
            st.sampled_from(["fresh", "stale (no-beacon)"]),
            st.sampled_from([None, "refused", "deferred"]),
            st.booleans(),
        ),
        st.tuples(st.just("forget"), st.sampled_from("ab"), st.sampled_from("xy")),
    ),
    max_size=30,
)


@STEADY
@given(steps=STEPS)
def test_whatever_happens_counts_order_and_events_agree_with_the_states(steps: list[Any]) -> None:
    fleet, newest = Fleet(), {"a": 0, "b": 0}
    for service in "ab":
        for instance in "xy":
            fleet.enrol(service, instance)
    drifts_since: dict[tuple[str, str], float] = {}
    for step in steps:
        _do(fleet, step, newest)
        judged = fleet.board.judged()
        names = [(one.service, one.instance) for one in judged]
        assert names == sorted(names)
        assert +fleet.board.counts == Counter(one.state for one in judged)
        drifting = {(one.service, one.instance) for one in judged if one.state in DRIFTS}
        drifts_since = {key: drifts_since.get(key, fleet.passed) for key in drifting}
        open_ = {(one.service, one.instance): one for one in fleet.board.open()}
        lasting = {key for key, since in drifts_since.items() if fleet.passed - since >= LASTING_S}
        assert open_.keys() == lasting
        states = dict(zip(names, judged, strict=True))
        assert all(open_[key].state == states[key].state for key in open_)
        assert fleet.board.drifting_services == len({service for service, _ in open_})
    events = fleet.events()
    assert [one.seq for one in events] == sorted({one.seq for one in events})
    for key in {(one.service, one.instance) for one in events}:
        told = [one.event for one in events if (one.service, one.instance) == key]
        assert told == [("began", "ended")[n % 2] for n in range(len(told))]
        assert (told[-1] == "began") is (
            key in {(o.service, o.instance) for o in fleet.board.open()}
        )


def _do(fleet: Fleet, step: Any, newest: dict[str, int]) -> None:
    match step:
        case ("pass", seconds):
            fleet.passed += seconds
        case ("commit", service, deleted):
            newest[service] = max(newest.values()) + 1
            fleet.commit(service, newest[service], deleted=deleted)
        case ("confirm", service):
            fleet.confirm(service, newest[service])
        case ("hear", service, instance, off, freshness, stage, gone):
            runs = newest[service] + off
            tried = None if stage is None else Attempt(newest[service], stage, "no")
            fleet.hear(
                service,
                instance,
                runs if runs > 0 else None,
                freshness=freshness,
                last_attempt=tried,
                gone=gone,
            )
        case ("forget", service, instance):
            if fleet.statuses.status(service, instance) is not None:
                fleet.forget(service, instance)
