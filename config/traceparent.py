"""W3C Trace Context: a request's place in its caller's trace, in one header."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

_FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1


class Traceparent(NamedTuple):
    """trace_id: 32 hex digits; span_id: 16, of the caller's own span. is_sampled: the caller records its trace."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parse_traceparent(text: str) -> Traceparent | None:
    """None if it is none that we know (version 00)."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    return Traceparent(found[1], found[2], bool(int(found[3], 16) & _SAMPLED))


def own_traceparent(correlation_id: str) -> str:
    """For a request that brought none: the same for the same id."""
    digits = hashlib.sha256(correlation_id.encode()).hexdigest()
    return f"00-{digits[:32]}-{digits[32:48]}-01"
