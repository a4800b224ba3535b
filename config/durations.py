"""Spans of time as people write them: `90d`, `12h`, `30m`."""

from __future__ import annotations

import re

_SPAN = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_S = 3_660 * 86_400


def parse_duration(text: str) -> int:
    """Seconds, from 1 to ten years. Raises ValueError, which says what is expected."""
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError("expected a time such as 30m, 12h, 90d or 52w, at most ten years")
    return seconds
