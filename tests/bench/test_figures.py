"""What the benchmark says is what it measured."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cache import Kept, written
from bench.figures import as_json, at_most, line, median, percentile, ratio
from bench.load import request, whole

numbers = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(numbers)
def test_a_median_has_as_many_above_as_below(values: list[float]) -> None:
    middle = median(values)
    assert sum(v < middle for v in values) <= len(values) / 2
    assert sum(v > middle for v in values) <= len(values) / 2


@given(numbers, st.floats(1, 100))
def test_a_percentile_is_one_of_the_values_that_enough_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(v <= found for v in values) >= len(values) * percent / 100 - 1e-9


def test_a_missed_goal_is_said_and_a_reached_one_too() -> None:
    assert "MISSED" in line(ratio("a", 0.79, goal=80))
    assert "reached" in line(ratio("a", 0.8, goal=80))
    assert "MISSED" in line(at_most("a", 2.1, "ms", 2.0, p99=3))
    assert "goal" not in line(ratio("a", 0.5))
    assert json.loads(as_json([at_most("a", 1, "s", 2)]))[0]["met"] is True


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", None),
        (b"HTTP/1.1 412 X\r\nx: y\r\nCONTENT-LENGTH: 0\r\n\r\n", 412),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-", None),
    ],
)
def test_an_answer_counts_once_it_is_whole(answer: bytes, status: int | None) -> None:
    assert whole(answer) == status


def test_a_request_is_sent_as_it_is_written() -> None:
    sent = request("PUT", "/a", b"{}", host="h:1", headers={"X": "y"})
    assert sent.startswith(b"PUT /a HTTP/1.1\r\nHost: h:1\r\n")
    assert sent.endswith(b"Content-Length: 2\r\nX: y\r\n\r\n{}")


@pytest.mark.parametrize(
    ("before", "after", "size"),
    [((1, 900), (1, 1_000), 100), ((1, 900), (2, 300), 300), ((1, 900), (1, 900), 0)],
    ids=["appended", "written again", "nothing"],
)
def test_what_was_written_is_what_was_appended_or_all_of_another_file(
    before: tuple[int, int], after: tuple[int, int], size: int
) -> None:
    assert written(Kept(*before), Kept(*after)) == size
