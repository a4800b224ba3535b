"""Which process of a service writes its last-known-good file: one at a time, by a lock on a file.

Several processes may run one service: two overlap at a rolling restart, and a server has workers. Each follows
the brokers for itself. But one file can't record the trials of two processes: a trial that another process
lives through would look like one that killed it. So the first process writes, and the others only read. When
the first ends, however it ends, another takes over.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from config_manager.client.state import places
from config_manager.client.state.log import say
from config_manager.config.files import open_lock

_LOOKS = 50
_LOOK_S = 0.001
"""An `Onlooker` has the lock for some microseconds: `take` looks again so often, so long apart."""


class Claim:
    """Held until `close` or the end of the process. A forked child does not have its parent's claim, nor keep
    it when the parent ends."""

    def __init__(
        self, state_dir: Path, service: str, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._path = _path(state_dir, service)
        self._pause = pause
        self._descriptor: int | None = None
        self.is_held = False
        self.is_barred = False
        """The file exists and can't be opened: whether another process writes is unknown."""
        _claims.add(self)

    def take(self) -> bool:
        """Whether this process has it now; does not wait for another that has it. If files can't be locked, every
        process has it."""
        if not self.is_held:
            self.is_held = self._try()
        return self.is_held

    def close(self) -> None:
        self.is_held = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _try(self) -> bool:
        if self._descriptor is None:
            try:
                self._descriptor = open_lock(self._path)
            except OSError as error:
                if not _is_there(self._path, error):  # no process can write in that directory
                    return True
                self._say_barred(error)
                return False
            self.is_barred = False
        for _ in range(_LOOKS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not _is_only_looked_at(self._descriptor):
                    return False
                self._pause(_LOOK_S)
            except OSError:  # a network's file system without locks
                return True
            else:
                return True
        return False

    def _say_barred(self, error: OSError) -> None:
        """Log it once, because it is tried again all the time."""
        if self.is_barred:
            return
        self.is_barred = True
        denied = isinstance(error, PermissionError)
        why = places.helps_against(self._path) if denied else f"{self._path}: {error.strerror}"
        detail = f"{why}; until then this process keeps nothing on disk"
        say(logging.WARNING, "kept file not ours to write", service=self._path.stem, detail=detail)

    def __del__(self) -> None:
        self.close()


class Onlooker:
    """Reads the claim without taking it; makes no file."""

    is_held = False

    def __init__(self, state_dir: Path, service: str) -> None:
        self._path = _path(state_dir, service)

    def take(self) -> bool:
        """Whether it could be taken."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:  # nobody ever took the claim, or nobody can
            return not _is_there(self._path, error)
        try:
            return _is_only_looked_at(descriptor)
        finally:
            os.close(descriptor)


def _path(state_dir: Path, service: str) -> Path:
    return state_dir / f"{service}.lock"


def _is_there(path: Path, error: OSError) -> bool:
    """Whether others may well lock the file that we can't open."""
    return error.errno != errno.EROFS and os.path.lexists(path)


def _is_only_looked_at(descriptor: int) -> bool:
    """Whether no process has the claim. Looking shares the lock, for a moment."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return True
    return True


_claims = weakref.WeakSet[Claim]()


def _close_all() -> None:
    for claim in list(_claims):
        claim.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
