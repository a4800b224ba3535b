"""Whether another config-manager is alive on a broker, for who may not publish: the health is left to it.

A copy of a data directory that was forgotten somewhere, or one that was put back too old, suspects a
rollback. It publishes no configuration then. Its health would go to the topic that is the other's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from config_manager.config import strict_json

_ALIVE_S = 300.0
"""After its last sign of life. Long enough for any heartbeat that is sensible."""
_LISTEN_S = 15.0
"""For a keepalive, if what a broker retains looks as if somebody lived: one comes every 10 s."""
_LAST_WORDS = ("shutdown", "offline")
_OWN = 16


class Company:
    """On one broker. Knows our own keepalives, so that they are nobody else's."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._own: deque[bytes] = deque(maxlen=_OWN)
        self._alive_until = 0.0
        self._listen_until = 0.0

    def sends(self, keepalive: bytes) -> None:
        """It is ours."""
        self._own.append(keepalive)

    def keepalive(self, payload: bytes) -> None:
        """One came by."""
        if payload not in self._own:
            self._alive_until = self._clock() + _ALIVE_S

    def health(self, payload: bytes, *, retained: bool) -> None:
        """Somebody else's health came by."""
        if _event(payload) in (None, *_LAST_WORDS):
            return
        if retained:
            self._listen_until = self._clock() + _LISTEN_S
        else:
            self._alive_until = self._clock() + _ALIVE_S

    @property
    def is_there(self) -> bool:
        return self._clock() < self._alive_until

    @property
    def may_be_there(self) -> bool:
        """Or it is too early to tell."""
        return self._clock() < max(self._alive_until, self._listen_until)


def _event(payload: bytes) -> str | None:
    try:
        event = strict_json.loads_object(payload)["data"]["event"]
    except (ValueError, LookupError, TypeError):
        return None
    return event if isinstance(event, str) else None
