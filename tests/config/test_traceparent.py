"""W3C Trace Context in one header."""

from __future__ import annotations

import pytest

from config_manager.config.traceparent import Traceparent, own_traceparent, parse_traceparent

TEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_it_says_whose_span_asked_and_whether_that_is_recorded() -> None:
    read = parse_traceparent(TEXT)
    assert read == Traceparent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
    unrecorded = parse_traceparent(TEXT[:-2] + "00")
    assert unrecorded is not None
    assert not unrecorded.is_sampled


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.upper(),
        TEXT + "-x",
        "01" + TEXT[2:],
        TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
    ],
)
def test_what_is_none_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_our_own_is_the_same_for_the_same_id_and_reads_as_one() -> None:
    one = own_traceparent("id-1")
    assert one == own_traceparent("id-1") != own_traceparent("id-2")
    read = parse_traceparent(one)
    assert read is not None
    assert read.is_sampled
