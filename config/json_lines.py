"""Lines of JSON, for what is installed everywhere: the client's log, and under structlog the server's.

Values are JSON-encoded, so that nothing a caller or a broker sends can forge a line.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import orjson


class Lines:
    """Where JSON lines go: at once, or, while `held`, together when `flush` is called.

    An event loop holds them for one pass: sixteen answers then cost one write instead of sixteen.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # a text stream over a binary one
        self._waiting: list[bytes] = []
        self.held = False

    def msg(self, line: bytes) -> None:
        self._waiting.append(line)
        if not self.held:
            self.flush()

    # structlog calls the method that is named like the level
    debug = info = warning = warn = error = exception = critical = msg

    def flush(self) -> None:
        if self._waiting:
            text, self._waiting = b"\n".join(self._waiting) + b"\n", []
            self._stream.buffer.write(text)
            self._stream.buffer.flush()


class Timestamps:
    """Now as RFC 3339 in UTC, to the microsecond. A second is formatted once: every line pays."""

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
    """A line without its line feed; what has no JSON is written as its repr."""
    try:
        return orjson.dumps(line, default=repr)
    except TypeError:  # a lone surrogate, an integer over 64 bits, a key that is no string
        return json.dumps(line, default=repr, skipkeys=True).encode()


class JsonLines(logging.Handler):
    """The client's lines (`record.fields`) and any other record as JSON, one object a line."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream: Any = stream
        self._timestamps = Timestamps()

    def emit(self, record: logging.LogRecord) -> None:
        line = {
            "timestamp": self._timestamps.now(),
            "level": record.levelname.lower(),
            "actor": "main",
            **(getattr(record, "fields", None) or {"event": record.getMessage()}),
        }
        try:
            self._stream.buffer.write(encode_line(line) + b"\n")
            self._stream.buffer.flush()
        except OSError:
            self.handleError(record)
