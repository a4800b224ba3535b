"""One structlog chain for the server's process: JSON lines for machines, columns for people.

Every line has `timestamp`, `level`, `event`, `actor`; within a request's chain `request_id` and
`correlation_id`. A client has no structlog: what works without it is in `config/json_lines.py`.
"""

from __future__ import annotations

import logging
import sys
from typing import IO, Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from config_manager.config.colours import wants_colours
from config_manager.config.descriptors import never_waiting
from config_manager.config.json_lines import Timestamps, encode_line, say_missing
from config_manager.config.lines import LineWriter, TextLines

LogFormat = Literal["json", "console"]
LogLevelName = Literal["debug", "info", "warning", "error"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_timestamps = Timestamps()
_straight: LineWriter | None = None
"""Where lines without bound context go directly; None while structlog has to format them."""
_written: list[LineWriter] = []
"""What this process writes to: its log, and the stand-in for standard error."""


def log_request(**fields: Any) -> None:
    """The access line. Every request writes one and nothing is bound around it, so JSON lines bypass
    structlog's context and processors (11 µs → 4)."""
    if _straight is None:
        structlog.get_logger().info("request", **fields)
        return
    line = {"timestamp": _timestamps.now(), "level": "info", "event": "request", **fields}
    _straight.msg(encode_line(line))


def configure(
    log_format: LogFormat, level: LogLevelName, stream: IO[str] | None = None
) -> LineWriter:
    """Set up logging for the process; returns where the lines go.

    stream: standard output, unless the caller needs that for something else.
    """
    global _straight  # noqa: PLW0603  the process has one log
    target: Any = stream or sys.stdout  # None if that was closed before we began
    lines = LineWriter(never_waiting(target), say_missing if log_format == "json" else _say_missing)
    _written[:] = [lines]
    if isinstance(sys.stderr, TextLines):
        _written.append(sys.stderr.lines)
    to: LineWriter | _ForPeople = lines
    processors: list[Processor] = [_as_json_line]
    if log_format == "json":
        _straight = lines if _LEVELS[level] <= _LEVELS["info"] else None
    else:
        to = _ForPeople(lines, getattr(target, "encoding", None) or "utf-8")
        processors = _columns(colors=wants_colours(target))
        _straight = None
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: to,
        cache_logger_on_first_use=True,
    )
    # libraries log through the standard library; only their errors get into our log
    logging.basicConfig(
        level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    return lines


def flush() -> None:
    for lines in _written:
        lines.flush()


def troubles() -> list[str]:
    """What is wrong with the log itself, for operators; empty while everything is written."""
    return [trouble for lines in _written if (trouble := lines.trouble()) is not None]


def _columns(*, colors: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_actor,
        _printable,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            # rich's would print local variables, and with them secrets
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


class _ForPeople:
    """Text as lines, for structlog."""

    def __init__(self, lines: LineWriter, encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding

    def msg(self, text: str) -> None:
        self._lines.msg(f"{text}\n".encode(self._encoding, "backslashreplace"))

    debug = info = warning = warn = error = exception = critical = msg


def _say_missing(lines: int) -> bytes:
    return f"{_timestamps.now()} [warning  ] log lines dropped: {lines}\n".encode()


def _add_actor(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.setdefault("actor", "main")
    return event


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape line breaks and control sequences of terminals, as columns have no encoding of their own."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return event


def _as_json_line(_: WrappedLogger, level: str, event: EventDict) -> bytes:
    """structlog's own processors in one step, because every request pays for each of them."""
    line = structlog.contextvars.get_contextvars()
    line["timestamp"] = _timestamps.now()
    line["level"] = "warning" if level == "warn" else "error" if level == "exception" else level
    line.setdefault("actor", "main")
    line |= event
    if line.get("exc_info"):
        line = dict(structlog.processors.format_exc_info(None, level, line))
    return encode_line(line)
