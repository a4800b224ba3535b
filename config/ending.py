"""How a command that runs until a signal ends: by one SIGTERM or SIGINT, at any moment, with exit 0.

Our handler takes signals from the first moment, Trio's receiver while the command runs. Once it is
over, further signals are ignored. Without a handler a process dies by the signal, and as pid 1 it
does not even get it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""In the order in which they get their handlers. Python heeds SIGINT by itself from its first moment, with
a traceback; so SIGINT comes first: a process that heeds SIGTERM heeds both in our way."""


class _Ending:
    def __init__(self) -> None:
        self._heeded = False

    def begin(self) -> None:
        """From now on, until Trio's receiver takes over, a signal ends the process at once: nothing has begun yet."""
        for number in SIGNALS:
            signal.signal(number, self._at_once)

    def heed(self) -> None:
        """A signal came and ends the command; further ones change nothing."""
        self._heeded = True

    def over(self) -> None:
        """The command has ended. The interpreter's own end follows, which would restore the handlers."""
        if self._heeded:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def _at_once(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self._heeded:
            os._exit(0)


ENDING = _Ending()
"""Of this process."""
