"""Whether another config-manager is alive on a broker. If we may not publish, we leave the health to it.

A forgotten copy of a data directory, or a backup that is too old, suspects a rollback and publishes no
configuration. Its health would overwrite that of the server that does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from config_manager.config import strict_json

_ALIVE_S = 300.0
"""After its last sign of life. Longer than any sensible heartbeat."""
_LISTEN_S = 15.0
"""For a keepalive, one of which comes every 10 s, if the retained health says that another one lives."""
_LAST_WORDS = ("shutdown", "offline")
_OWN = 16


class Company:
    """What is known of other config-managers on one broker. It tells our own keepalives from theirs."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._own: deque[bytes] = deque(maxlen=_OWN)
        self._alive_until = 0.0
        self._listen_until = 0.0

    def sends(self, keepalive: bytes) -> None:
        """Note a keepalive that we send."""
        self._own.append(keepalive)

    def keepalive(self, payload: bytes) -> None:
        """Note a keepalive that came from the broker, our own or another's."""
        if payload not in self._own:
            self._alive_until = self._clock() + _ALIVE_S

    def health(self, payload: bytes, *, retained: bool) -> None:
        """Note that the health of another config-manager came."""
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
        """As `is_there`, and also True while it is too early to tell."""
        return self._clock() < max(self._alive_until, self._listen_until)


def _event(payload: bytes) -> str | None:
    try:
        event = strict_json.loads_object(payload)["data"]["event"]
    except (ValueError, LookupError, TypeError):
        return None
    return event if isinstance(event, str) else None
