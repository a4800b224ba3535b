"""A line of the client's log.

It goes through the standard `logging`, whose handlers and levels are the service's: the process is its own.
A line reads `applied service=stt-worker revision=7 …`; the same fields are on the record as
`record.fields`, for a handler that writes JSON (`config_manager.config.json_lines.JsonLines` does).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from config_manager.client.model.guarded import attempt

_log = logging.getLogger("config_manager.client")


def say(level: int, event: str, **fields: Any) -> None:
    """One line; `fields` must not hold values of the configuration."""
    text = " ".join(f"{name}={_on_one_line(value)}" for name, value in fields.items())
    told = {"fields": {"event": event, "actor": "client", **fields}}
    # the logging is the service's: its filters and its record factory may raise, or have `fields` of their own
    for extra in (told, None):
        if attempt(partial(_log_line, level, event, text, extra), False):
            return


def _log_line(level: int, event: str, text: str, extra: dict[str, Any] | None) -> bool:
    if _log.isEnabledFor(level):
        _log.log(level, "%s %s", event, text, extra=extra)
    return True


def _on_one_line(value: Any) -> str:
    """A text whose further lines (of a traceback) are indented, so that none of them looks like a line of the log."""
    return str(value).replace("\r", "\\r").rstrip("\n").replace("\n", "\n    ")
