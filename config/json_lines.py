"""JSON lines without structlog: the client's log, and the last step of the server's.

Values are JSON-encoded, so that nothing a caller or a broker sends can forge a line.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import orjson

from config_manager.config.descriptors import never_waiting
from config_manager.config.lines import LineWriter


class Timestamps:
    """Now as RFC 3339 in UTC, to the microsecond. Every line needs it, so a second is formatted once."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._second = -1
        self._prefix = ""

    def now(self) -> str:
        micros = int(self._now() * 1_000_000)
        second, rest = divmod(micros, 1_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{rest:06d}Z"


def encode_line(line: Mapping[str, Any]) -> bytes:
    """A line with its line feed. A value that JSON does not know is written as its repr."""
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, an integer over 64 bits, a key that is not a string
        return json.dumps(line, default=repr, skipkeys=True).encode() + b"\n"


class JsonLines(logging.Handler):
    """The client's lines (`record.fields`) and any other record as JSON, one object a line."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__()
        self._lines = LineWriter(never_waiting(stream), say_missing)
        self._timestamps = Timestamps()

    def emit(self, record: logging.LogRecord) -> None:
        line = {
            "timestamp": self._timestamps.now(),
            "level": record.levelname.lower(),
            "actor": "main",
            **(getattr(record, "fields", None) or {"event": record.getMessage()}),
        }
        self._lines.msg(encode_line(line))

    def close(self) -> None:
        self._lines.drain()
        super().close()


def say_missing(lines: int) -> bytes:
    """The line that stands for missing ones (`config/lines.py`)."""
    return encode_line(
        {
            "timestamp": Timestamps().now(),
            "level": "warning",
            "actor": "main",
            "event": f"log lines dropped: {lines}",
            "dropped": lines,
        }
    )
