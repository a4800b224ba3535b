"""What the log says of a service's configuration: a line for each event of the rules."""

from __future__ import annotations

import logging

from config_manager.client.rules.events import (
    Applied,
    Deleted,
    Event,
    Fresh,
    Moved,
    Offered,
    Refused,
    Resigned,
    RootTrusted,
    Stale,
)
from config_manager.client.state.log import say

_COMPLAINT_PERIOD_S = 60.0


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
        case Moved(update):
            say(
                logging.INFO,
                "moved",
                service=service,
                correlation_id=update.correlation_id,
                request_id=update.correlation_id,
                epoch_seq=update.epoch_seq,
                revision=update.revision,
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
            pass  # not said: what comes of it is


class OnceAMinute:
    """Logs a trouble that lasts: at once, and then once a minute."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._again_at = float("-inf")

    def cannot_keep(self, error: OSError, now: float) -> None:
        """now: monotonic."""
        if now >= self._again_at:
            self._again_at = now + _COMPLAINT_PERIOD_S
            say(logging.ERROR, "cannot keep", service=self._service, error=str(error))
