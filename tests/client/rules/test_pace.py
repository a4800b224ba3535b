from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config_manager.client.rules.pace import CLOCK_DRIFT, MAX_LAG_S, MOST_FORGIVEN, Pace
from config_manager.config import wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.world import rfc3339
from tests.kit import clients
from tests.kit import documents as m
from tests.kit.documents import BEACON

SERVICES = {m.SERVICE: m.entry(5)}


@dataclass(frozen=True)
class Made:
    """A beacon: when it was made, by a perfect clock, and what it says."""

    at: float
    boot_seq: int
    seq: int
    issued_at: str
    valid_s: int = 30

    def beacon(self) -> Beacon:
        return replace(
            BEACON,
            boot_seq=self.boot_seq,
            seq=self.seq,
            issued_at=self.issued_at,
            valid_s=self.valid_s,
        )

    def signed(self) -> bytes:
        return m.keepalive_bytes(
            SERVICES, self.seq, boot_seq=self.boot_seq, issued_at=self.issued_at, valid_s=self.valid_s
        )  # fmt: skip


class Client:
    """It runs what its publisher wants, and hears nothing but beacons."""

    def __init__(self) -> None:
        self.said: list[str | None] = []
        self._subscriber = clients.Taker(
            m.SERVICE, "here", clients.make_chain(), clients.make_kept(5)
        )
        self._subscriber.receive(
            wire.SNAPSHOT_TOPIC, m.snapshot_bytes(SERVICES, 0, boot_seq=0), m.NOW, 0.0
        )

    def hears(self, made: Made, at: float, wall: float = m.NOW) -> str | None:
        self.waits_until(at, wall)
        self._subscriber.receive(wire.KEEPALIVE_TOPIC, made.signed(), wall, at)
        self.said.append(self._subscriber.freshness.status)
        return self._subscriber.freshness.status

    def waits_until(self, at: float, wall: float = m.NOW) -> str | None:
        self._subscriber.tick(at, wall)
        self.said.append(self._subscriber.freshness.status)
        return self._subscriber.freshness.status


def tape(*pauses_s: float, boot_seq: int = 1, clock_error_s: float = 0.0) -> list[Made]:
    """What a publisher makes with these pauses before each."""
    times = list(accumulate(pauses_s))
    return [
        Made(at, boot_seq, seq, rfc3339(m.NOW + clock_error_s + at))
        for seq, at in enumerate(times, 1)
    ]


# ── single stories ─────────────────────────────────────────────────────────────────────────────


def test_beacons_at_their_own_speed_are_fresh_and_at_half_of_it_stale() -> None:
    beacons = tape(*[10.0] * 12)
    honest, crawled = Client(), Client()
    assert {honest.hears(one, one.at) for one in beacons} == {"fresh"}
    assert [crawled.hears(one, 2 * one.at) for one in beacons][-1] == "no-beacon"


def test_an_hour_of_changes_is_no_credit_for_ten_at_a_crawl() -> None:
    client = Client()
    busy = tape(*[1.0] * 60)
    assert [client.hears(one, 10 * one.at) for one in busy][-1] == "no-beacon"


def test_a_recording_that_begins_after_a_pause_is_not_fresh_again() -> None:
    client = Client()
    beacons = tape(*[10.0] * 12)
    for one in beacons[:3]:
        client.hears(one, one.at)
    assert client.waits_until(3600.0) == "no-beacon"
    assert {client.hears(one, 3600.0 + one.at) for one in beacons[3:]} == {"no-beacon"}


def test_who_catches_up_is_fresh_again() -> None:
    client = Client()
    beacons = tape(*[10.0] * 9)
    client.hears(beacons[0], 10.0)
    assert client.hears(beacons[1], 55.0) == "no-beacon"
    assert client.hears(beacons[5], 60.0) == "fresh"


def test_a_leap_of_the_publishers_clock_is_no_credit_for_a_crawl() -> None:
    client = Client()
    first = tape(*[10.0] * 2)
    leapt = [replace(one, issued_at=rfc3339(m.NOW + 86_400 + one.at)) for one in tape(*[10.0] * 12)]
    for one in [*first, *leapt[2:4]]:
        assert client.hears(one, one.at) == "fresh"
    assert [client.hears(one, 3 * one.at) for one in leapt[4:]][-1] == "no-beacon"


@pytest.mark.parametrize("clock", ["2026-01-01T00:00:00.000Z", "soon", ""])
def test_a_publisher_whose_clock_stands_is_measured_by_its_heartbeats(clock: str) -> None:
    beacons = [replace(one, issued_at=clock) for one in tape(*[10.0] * 12)]
    honest, crawled = Client(), Client()
    assert {honest.hears(one, one.at) for one in beacons} == {"fresh"}
    assert [crawled.hears(one, 2 * one.at) for one in beacons][-1] == "no-beacon"


def test_a_slow_heartbeat_is_counted_as_its_validity_says() -> None:
    client = Client()
    minutes = [replace(one, issued_at="", valid_s=180) for one in tape(*[60.0] * 9)]
    assert {client.hears(one, one.at - 59.0) for one in minutes} == {"fresh"}


def test_a_restart_with_an_older_clock_is_measured_from_there() -> None:
    client = Client()
    for one in tape(*[10.0] * 3):
        client.hears(one, one.at)
    again = tape(*[10.0] * 9, boot_seq=2, clock_error_s=-86_400.0)
    assert {client.hears(one, 35.0 + one.at) for one in again} == {"fresh"}
    assert client.hears(again[-1], 900.0) == "no-beacon"


# ── any schedule ───────────────────────────────────────────────────────────────────────────────

JITTER_S = 15.0
RUN = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8)
"""The pauses before each of one boot's beacons: a heartbeat's, or a change's."""


def boots(runs: list[list[float]], clock_steps_s: list[float]) -> list[Made]:
    """A publisher that is started again and again; its clock is set now and then."""
    made: list[Made] = []
    at = error = 0.0
    for boot_seq, pauses in enumerate(runs, 1):
        for seq, pause in enumerate(pauses, 1):
            at += pause
            error += clock_steps_s[len(made) % len(clock_steps_s)] if clock_steps_s else 0.0
            made.append(Made(at, boot_seq, seq, rfc3339(m.NOW + error + at)))
    return made


LONGEST_GAP_S = 29.0


@settings(max_examples=150, deadline=None)
@example([[10.0] * 60] * 2, [], [25.0])
@example([[1.0] * 60] * 2, [], [10.0])
@given(
    st.lists(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60), min_size=1, max_size=4),
    st.lists(st.booleans(), max_size=12),
    st.lists(st.floats(0.01, LONGEST_GAP_S), min_size=1, max_size=12),
)
def test_whatever_replay_falls_further_behind_than_is_forgiven_proves_nothing(
    runs: list[list[float]], dropped: list[bool], gaps_s: list[float]
) -> None:
    recorded = boots(runs, [])
    played = [one for n, one in enumerate(recorded) if not dropped or not dropped[n % len(dropped)]]
    pace, at, least = Pace(), 0.0, float("inf")
    for n, one in enumerate(played):
        at += gaps_s[n % len(gaps_s)]
        pace.heard(one.beacon(), at)
        least = min(least, at - one.at)
        forgiven = MOST_FORGIVEN * (1 + at // 3600) * (MAX_LAG_S + LONGEST_GAP_S)
        if at - one.at - least > forgiven + MAX_LAG_S + CLOCK_DRIFT * at + 0.01:  # milliseconds
            assert not pace.keeps_up


@settings(max_examples=150, deadline=None)
@example([[1.0] * 240], [], [12.0])
@example([[1.0] * 60] * 4, [], [40.0])
@example([[10.0] * 60] * 4, [], [11.0, 40.0])
@given(
    st.lists(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60), min_size=1, max_size=4),
    st.lists(st.booleans(), max_size=12),
    st.lists(st.floats(0.01, 600.0), min_size=1, max_size=12),
)
def test_whoever_replays_is_fresh_for_what_he_recorded_and_a_minute_for_each_that_is_forgiven(
    runs: list[list[float]], dropped: list[bool], gaps_s: list[float]
) -> None:
    recorded = boots(runs, [])
    played = [one for n, one in enumerate(recorded) if not dropped or not dropped[n % len(dropped)]]
    pace, at, fresh_s = Pace(), 0.0, 0.0
    for n, one in enumerate(played):
        pace.heard(one.beacon(), at)
        gap_s = gaps_s[n % len(gaps_s)]
        fresh_s += min(gap_s, one.valid_s) if pace.keeps_up else 0.0
        forgiven = MOST_FORGIVEN * (1 + at // 3600)
        minutes = (1 + forgiven) * (MAX_LAG_S + one.valid_s)
        assert fresh_s <= one.at - played[0].at + minutes + CLOCK_DRIFT * at + 0.1
        at += gap_s


@pytest.mark.parametrize("pause_s", [10.0, 1.0], ids=["idle", "busy"])
@pytest.mark.parametrize("stretched", [1.3, 2.0, 10.0])
def test_a_day_at_a_crawl_is_hardly_ever_fresh(pause_s: float, stretched: float) -> None:
    pace, fresh_s = Pace(), 0.0
    step_s = pause_s * stretched
    day = tape(*[pause_s] * round(86_400 / step_s))
    for one in day:
        pace.heard(one.beacon(), one.at * stretched)
        fresh_s += step_s if pace.keeps_up else 0.0
    assert fresh_s < 24 * 3600 * 0.15


EVENT = st.tuples(
    st.sampled_from(["cut off", "started again"]),
    st.floats(0.0, 1e5),  # for how long it is not heard
    st.floats(-1e8, 0.0) | st.floats(-1000.0, 0.0) | st.floats(0.0, 1e8),  # its clock is set
    st.lists(st.floats(1.0, 10.5), min_size=2, max_size=8),  # then it beats on
)


@settings(max_examples=300, deadline=None)
@example([("cut off", 600.0, -60.0, [10.0] * 3)])
@example([("started again", 120.0, -100.0, [10.0] * 2)] * 3)
@given(st.lists(EVENT, min_size=1, max_size=MOST_FORGIVEN))
def test_a_publisher_is_believed_at_once_after_a_silence_whichever_way_its_clock_was_set(
    events: list[tuple[str, float, float, list[float]]],
) -> None:
    pace, at, seq, boot_seq, error_s = Pace(), 0.0, 0, 1, 0.0
    for kind, silence_s, set_by_s, pauses in [("", 0.0, 0.0, [10.0, 10.0]), *events]:
        at += silence_s
        error_s += set_by_s
        if kind == "started again":
            boot_seq, seq = boot_seq + 1, 0
        else:
            seq += int(silence_s // 10)
        for pause in pauses:
            at, seq = at + pause, seq + 1
            pace.heard(Made(at, boot_seq, seq, rfc3339(m.NOW + error_s + at)).beacon(), at)
            assert pace.keeps_up


@settings(max_examples=150, deadline=None)
@example([[10.0] * 8] * 3, [0.0, 15.0], [0.0], 0.0, [0.0, 1e9, -1e9])
@example([[10.0] * 8] * 3, [0.0], [0.0, 3600.0, 0.0, -3600.0], 0.0, [0.0])
@given(
    st.lists(RUN, min_size=1, max_size=4),
    st.lists(st.floats(0.0, JITTER_S), min_size=1, max_size=12),
    st.lists(
        st.sampled_from([0.0, 0.0, 0.0]) | st.floats(0.0, 1e8) | st.floats(-1e8, -12.0), max_size=8
    ),
    st.floats(-CLOCK_DRIFT, CLOCK_DRIFT * 0.9),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5),
)
def test_no_honest_publisher_is_stale_whatever_is_restarted_and_whichever_clock_is_set(
    runs: list[list[float]],
    delays_s: list[float],
    clock_steps_s: list[float],
    drift: float,
    wall_jumps_s: list[float],
) -> None:
    client, before = Client(), 0.0
    for n, one in enumerate(boots(runs, clock_steps_s)):
        # in order: what a later one overtook says nothing new
        before = max(before, (one.at + delays_s[n % len(delays_s)]) * (1 + drift))
        client.hears(one, before, m.NOW + wall_jumps_s[n % len(wall_jumps_s)])
    assert "no-beacon" not in client.said
