"""The client's log lines. They go through the standard `logging`, because the process is the service's.

A line reads `applied service=stt-worker revision=7 …`; the same fields are on the record as
`record.fields`, for a handler that writes JSON (`config_manager.config.json_lines.JsonLines` does).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, assert_never

from config_manager.client.model.guarded import attempt
from config_manager.client.rules.events import (
    Applied,
    Deleted,
    Event,
    Fresh,
    Offered,
    Refused,
    Resigned,
    RootTrusted,
    Stale,
)
from config_manager.client.rules.kept import Version

_COMPLAINT_PERIOD_S = 60.0

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
    """Nobody's words begin a line of their own, but a traceback, whose lines are set off."""
    return str(value).replace("\r", "\\r").rstrip("\n").replace("\n", "\n    ")


def say_older_taken(service: str, running: Version | None, why: str) -> None:
    """The newest kept file can't be read, and the one before is taken."""
    revision = running[0].revision if running is not None else None
    say(logging.WARNING, "older kept file taken", service=service, revision=revision, detail=why)


class OnceAMinute:
    """What goes on being wrong, said at once and then once a minute."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._again_at = float("-inf")

    def cannot_keep(self, error: OSError, now: float) -> None:
        """now: monotonic."""
        if now >= self._again_at:
            self._again_at = now + _COMPLAINT_PERIOD_S
            say(logging.ERROR, "cannot keep", service=self._service, error=str(error))


def say_event(service: str, event: Event) -> None:
    """The line of what happened to a service's configuration."""
    match event:
        case Applied(update, _, source, signer_revoked):
            revoked = {"signer_revoked": True} if signer_revoked else {}
            say(
                logging.INFO,
                "applied",
                service=service,
                correlation_id=update.correlation_id,
                request_id=update.correlation_id,
                epoch_seq=update.epoch_seq,
                revision=update.revision,
                source=source,
                **revoked,
            )
        case Refused(reason, detail):
            say(logging.WARNING, "refused", service=service, reason=reason, detail=detail)
        case Deleted(update):
            say(logging.WARNING, "deleted", service=service, correlation_id=update.correlation_id)
        case Resigned():
            say(logging.INFO, "resigned", service=service)
        case RootTrusted(link):
            say(logging.INFO, "root trusted", service=service, root_version=link.root.version)
        case Stale(reason):
            say(logging.WARNING, "stale", service=service, reason=reason)
        case Fresh():
            say(logging.INFO, "fresh", service=service)
        case Offered():
            pass  # what comes of it is said
        case _ as unreachable:
            assert_never(unreachable)
