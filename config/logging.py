"""One structlog chain for the whole process: JSON lines for machines, columns for people.

Every line has `timestamp`, `level`, `event`, `actor`; within a request's chain `request_id` and
`correlation_id`. Values are JSON-encoded, so that nothing a caller sends can forge a line.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
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


def configure(log_format: LogFormat, level: LogLevelName, stream: IO[str] | None = None) -> Lines:
    """Set up logging for the process. stream: standard output unless the caller needs that.

    Returns where the JSON lines go (the lines for people are never held).
    """
    target: Any = stream or sys.stdout  # a text stream over a binary one
    lines = Lines(target)
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
    line["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    line["level"] = "warning" if level == "warn" else "error" if level == "exception" else level
    line.setdefault("actor", "main")
    line |= event
    if line.get("exc_info"):
        line = dict(structlog.processors.format_exc_info(None, level, line))
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
