"""One structlog chain for the whole process: JSON lines for machines, columns for people.

Every line has `timestamp`, `level`, `event`, `actor`; within a request's chain `request_id` and
`correlation_id`. Values are JSON-encoded, so that nothing a caller sends can forge a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import IO, Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

LogFormat = Literal["json", "console"]
LogLevelName = Literal["debug", "info", "warning", "error"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


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


_timestamps = Timestamps()
_straight: Lines | None = None
"""Where a line that needs nothing bound goes at once; None while structlog has to format it."""


def log_request(**fields: Any) -> None:
    """The access line. Every request pays for it and nothing is ever bound around it, so it goes
    past structlog's context and processors where lines are JSON (11 µs → 4)."""
    if _straight is None:
        structlog.get_logger().info("request", **fields)
        return
    line = {"timestamp": _timestamps.now(), "level": "info", "event": "request", **fields}
    _straight.msg(_encoded(line))


def configure(log_format: LogFormat, level: LogLevelName, stream: IO[str] | None = None) -> Lines:
    """Set up logging for the process. stream: standard output unless the caller needs that.

    Returns where the JSON lines go (the lines for people are never held).
    """
    global _straight  # noqa: PLW0603  the process has one log
    target: Any = stream or sys.stdout  # a text stream over a binary one
    lines = Lines(target)
    _straight = lines if log_format == "json" and _LEVELS[level] <= _LEVELS["info"] else None
    if log_format == "json":
        structlog.configure(
            processors=[_as_json_line],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            logger_factory=lambda *_: lines,
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _add_actor,
                _printable,
                structlog.dev.ConsoleRenderer(
                    colors=target.isatty(),
                    # rich's would print local variables, and with them secrets
                    exception_formatter=structlog.dev.plain_traceback,
                ),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            logger_factory=structlog.PrintLoggerFactory(target),
            cache_logger_on_first_use=True,
        )
    # libraries log through the standard library; only what is wrong is worth a line of ours
    logging.basicConfig(
        level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    return lines


def _add_actor(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.setdefault("actor", "main")
    return event


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Line breaks and a terminal's control sequences as escapes: columns have no encoding of their own."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return event


def _as_json_line(_: WrappedLogger, level: str, event: EventDict) -> bytes:
    """structlog's own processors in one step: every request pays for each of them."""
    line = structlog.contextvars.get_contextvars()
    line["timestamp"] = _timestamps.now()
    line["level"] = "warning" if level == "warn" else "error" if level == "exception" else level
    line.setdefault("actor", "main")
    line |= event
    if line.get("exc_info"):
        line = dict(structlog.processors.format_exc_info(None, level, line))
    return _encoded(line)


def _encoded(line: EventDict) -> bytes:
    try:
        return orjson.dumps(line, default=repr)
    except TypeError:  # a lone surrogate, an integer over 64 bits, a key that is no string
        return json.dumps(line, default=repr, skipkeys=True).encode()


class JsonLines(logging.Handler):
    """The client's lines (`record.fields`) and any other record as JSON, one object a line."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream: Any = stream

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", None) or {"event": record.getMessage()}
        line = _as_json_line(None, record.levelname.lower(), dict(fields))
        try:
            self._stream.buffer.write(line + b"\n")
            self._stream.buffer.flush()
        except OSError:
            self.handleError(record)
