"""A trace, drawn for people."""

from __future__ import annotations

from typing import Any

from config_manager.api.commands.waterfall import heading, waterfall

BROKER = "mqtt://b:1883"


def step(name: str, after_ms: float, broker: str | None = None) -> dict[str, Any]:
    return {"step": name, "broker": broker, "at": "2026-01-01T12:00:00.000Z", "after_ms": after_ms}


def stage(name: str, after_ms: float, seconds: int = 0, **more: Any) -> dict[str, Any]:
    """seconds: how far the instance's clock is ahead."""
    at = f"2026-01-01T12:00:{30 + seconds:02}.000Z"
    received = "2026-01-01T12:00:30.000Z"
    return {
        "stage": name, "at": at, "received_at": received, "after_ms": after_ms, "reason": None, **more
    }  # fmt: skip


def instance(*steps: Any, state: str = "in-line", name: str = "one") -> dict[str, Any]:
    return {"service": "a", "instance": name, "state": state, "why": "so", "steps": list(steps)}


def trace(*instances: Any, steps: Any = None) -> dict[str, Any]:
    done = [
        step("asked", 0),
        step("committed", 10),
        step("signed", 12, BROKER),
        step("published", 15, BROKER),
        step("confirmed", 20, BROKER),
    ]
    return {
        "revision": 7, "correlation_id": "id-7", "at": "2026-01-01T12:00:00.000Z", "by": "ada", "action": "put",
        "reason": "why\x1b[2J", "services": ["a"], "state": "settled", "others": [3],
        "steps": done if steps is None else steps, "instances": list(instances),
    }  # fmt: skip


def drawn(told: Any, width: int = 75) -> list[str]:
    return list(waterfall(told, width, "#"))


def test_bars_stand_below_each_other_each_where_the_one_before_it_ended() -> None:
    told = trace(instance(stage("received", 30), stage("applied", 40)))
    assert drawn(told) == [
        "WHERE          STEP         AFTER     TOOK                     ITS CLOCK",
        "server         asked       0.0 ms           #",
        "               committed  10.0 ms  10.0 ms  #####",
        "mqtt://b:1883  signed     12.0 ms   2.0 ms      ##",
        "               published  15.0 ms   3.0 ms       ##",
        "               confirmed  20.0 ms   5.0 ms        ###",
        "a/one          received   30.0 ms  15.0 ms        #######      12:00:30.000",
        "               applied    40.0 ms  10.0 ms              #####  12:00:30.000",
    ]


def test_what_was_on_its_way_is_dots_and_a_wait_for_health_does_not_hide_the_rest() -> None:
    told = trace(
        instance(stage("applied", 40, took_ms=10), stage("healthy", 10_040, took_ms=10_010))
    )
    assert drawn(told)[-2:] == [
        "a/one          applied    40.0 ms  25.0 ms        ......#####  12:00:30.000",
        "               healthy     10.0 s   10.0 s                  >  12:00:30.000",
    ]


def test_a_clock_that_is_over_a_second_off_is_said_and_decides_nothing() -> None:
    told = trace(
        instance(stage("applied", 40, seconds=-1), name="near"),
        instance(stage("applied", 40, seconds=20), name="ahead"),
        instance(stage("applied", 40, seconds=-20), name="behind"),
    )
    said = drawn(told)
    assert "a/ahead: its clock is 20.0 s ahead of the server's" in said
    assert "a/behind: its clock is 20.0 s behind the server's" in said
    assert not any("near: its clock" in line for line in said)
    assert sum(" 40.0 ms " in line for line in said) == 3


def test_who_does_not_follow_comes_first_with_the_reason_and_many_are_cut() -> None:
    many = [instance(stage("applied", 40), name=f"i-{n:03}") for n in range(60)]
    refusing = instance(stage("refused", 30, reason="model: no"), state="refused", name="zulu")
    said = drawn(trace(*many, refusing))
    assert said[6].startswith("a/zulu")
    assert "a/zulu: refused, so" in said
    assert "a/zulu: refused: model: no" in said
    assert said[-1] == "and 21 more instances: --json shows all"


def test_a_reason_is_said_once_and_of_an_earlier_step_by_the_steps_name() -> None:
    refused = stage("refused", 30, reason="so")
    assert drawn(trace(instance(refused, state="refused")))[7:] == ["a/one: refused, so"]
    late = instance(stage("deferred", 20, reason="not now"), state="pending")
    assert drawn(trace(late))[7:] == ["a/one: on the way, so", "a/one: deferred: not now"]


def test_of_a_change_whose_times_are_not_kept_that_is_said() -> None:
    (line,) = drawn(trace(steps=[]))
    assert line.startswith("when its steps were done is not known")


def test_a_narrow_terminal_and_text_of_others_break_nothing() -> None:
    assert len(drawn(trace(), width=1)) == 6
    told = list(heading(trace()))
    assert told == [
        'revision 7: put of a by ada at 2026-01-01 12:00:00 "why\\x1b[2J"',
        "settled; id id-7",
        "the same id also has: revision 3",
    ]
