"""Which process of a service writes its last-known-good file: one at a time, by a lock on a file.

Two that overlap for some seconds at a rolling restart, or the workers of one server, are no mistake:
each follows the brokers for itself. But one file can't tell what two of them live with: a trial that
the other is living through would look like one that it died of. So the first to come writes, the
others only read, and when it ends, however it ends, another takes over.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path


class Claim:
    """Held until `close`, or the end of the process: the kernel sees to that. A forked child has none
    of its parent's, and does not keep them when that ends."""

    def __init__(self, state_dir: Path, service: str) -> None:
        self._path = state_dir / f"{service}.lock"
        self._descriptor: int | None = None
        self.is_held = False
        _claims.add(self)

    def take(self) -> bool:
        """Whether it is ours now; never waits. Where files can't be locked, everybody has it."""
        if not self.is_held:
            self.is_held = self._try()
        return self.is_held

    def close(self) -> None:
        self.is_held = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _try(self) -> bool:
        try:
            import fcntl
        except ImportError:  # a system without
            return True
        if self._descriptor is None:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            except OSError:  # nobody writes in a directory like that
                return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a network's file system without locks
            return True
        return True

    def __del__(self) -> None:
        self.close()


_claims = weakref.WeakSet[Claim]()


def _close_all() -> None:
    for claim in list(_claims):
        claim.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
