"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from config_manager.config.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("30m", 1800), ("12h", 43_200), ("90d", 7_776_000), ("52w", 31_449_600)],
)
def test_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "1.5h", "90 d", "90D", "1y", "3661d", "9" * 30 + "d", "٣d"]
)
def test_anything_else_is_none_and_the_error_shows_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="90d"):
        parse_duration(text)
