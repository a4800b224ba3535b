"""A start's number: an instance's receipts rise by it, so that those of a later start count as newer.

Several processes may share a state directory. The operator sees them as one instance: the process that writes
the kept file. If another process has started since, its numbers are higher, and its farewell would count as
the newest receipt. So the process that writes then takes a new number.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from config_manager.client.state.claim import Claim
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.world import World


class Boots:
    """Of one process. number: its start's, above every earlier one's of the same state directory."""

    def __init__(self, path: Path, claim: Claim, world: World) -> None:
        self._path = path
        self._claim = claim
        self._world = world
        self.number = self._take_next()

    def take_next_if_overtaken(self) -> int | None:
        """The new number, if this process writes and another one has started since; for the disk's
        thread."""
        if not self._claim.is_held or self._last() <= self.number:
            return None
        self.number = self._take_next()
        return self.number

    def _take_next(self) -> int:
        # the clock if the file is lost or the disk is full: the service starts all the same;
        # the file if the clock was set back
        number = max(1, int(self._world.clock.now()))
        with self._world.disk.lock(self._path.parent):  # two that start at once have two numbers
            before = self._last()
            if before < MAX_INTEGER:
                number = max(number, before + 1)
            with suppress(OSError):
                self._world.disk.write_atomic(self._path, b"%d\n" % number)
        return number

    def _last(self) -> int:
        with suppress(OSError, ValueError):
            return int(self._world.disk.read(self._path))
        return 0
