"""One key in a file: 64 hex digits. A server does not start if others could read or plant it.

Our own files lie in `<data>/keys`: 0600, and the directory 0700. A given file (systemd's LoadCredential, a
secret mounted into a container, `--db-key-file`) may also be root's and readable by a group. systemd lets us in
by an ACL, which shows as root:root 0440; Kubernetes by `fsGroup`, which shows as root:<our group> 0440. A file
that everybody can read is refused there too.

A key changes through a second file beside it, `NAME.new`, which takes its place when nothing needs the old one
any more. A death at any moment leaves one file that can be read and one that can be taken up.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from config_manager.config.errors import Conflict, DatabaseUnopenable, KeyFileUnsafe
from config_manager.config.world import World

KEY_BYTES = 32
_ROOT = 0
_SOMEBODY_ELSES = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What writing beside a given file ends in if that place is not ours; anything else is the disk's doing."""
_MOST_BYTES = 4096
"""Of a key file: a device, or a mistake, must not fill the memory."""


class KeyFile:
    """A key, and its successor while it is being changed. It has no repr that shows one."""

    def __init__(self, path: Path, world: World, *, given: bool = False) -> None:
        """given: somebody else put it there; otherwise it is our own and lies in `keys/`."""
        self.path = path
        self.successor = path.with_name(path.name + ".new")
        self._world = world
        self.given = given

    def __repr__(self) -> str:
        return f"KeyFile({self.path.name!r})"

    def make(self) -> None:
        """A random key, durable on return. Raises OSError."""
        _write_new(self.path, self._world)

    def read(self) -> bytes:
        """Raises KeyFileUnsafe or DatabaseUnopenable."""
        return read_key(self.path, self._world, given=self.given)

    def read_successor(self) -> bytes | None:
        """None unless the key is being changed. Raises KeyFileUnsafe or DatabaseUnopenable."""
        if not self._world.disk.exists(self.successor):
            return None
        return read_key(self.successor, self._world, given=self.given)

    def begin(self) -> bytes:
        """The successor: left by a change that was cut off, or else a new one, durable on return.

        Raises Conflict if that place is not ours to write, and OSError if the disk fails.
        """
        kept = self.read_successor()
        if kept is not None:
            return kept
        if self.path.is_symlink():
            raise Conflict(
                f"{self.path.name} is a link: put the next key beside it, where it is mounted, as "
                f"{self.successor.name}, 64 hex digits, and this goes on from that"
            )
        try:
            _write_new(self.successor, self._world)
        except OSError as error:
            if not self.given or error.errno not in _SOMEBODY_ELSES:
                raise
            raise Conflict(
                f"{self.successor.name} can't be written beside {self.path.name} "
                f"({error.strerror or error}): put the next key beside it under that "
                "name, 64 hex digits, and this goes on from that"
            ) from None
        return read_key(self.successor, self._world, given=self.given)

    def finish(self) -> bool:
        """The successor takes the key's place, and the old key is gone. To be called once nothing needs it.

        False if it can't be renamed there: then the operator who puts the files there has to. It is not
        durable by itself: after a power cut it is as before, and is done again.
        """
        if self.path.is_symlink():
            return False
        try:
            self._world.disk.rename(self.successor, self.path)
        except OSError:
            return False
        return True


def check_private(path: Path) -> None:
    """Raises KeyFileUnsafe if others can reach it."""
    status = path.stat()
    if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise KeyFileUnsafe(f"others can reach {path.name}: run chmod {mode} on it")
    _check_owner(path, status)


def check_not_writable(directory: Path) -> None:
    """Raises KeyFileUnsafe if others can exchange what lies in it. The sticky bit keeps them from renaming what
    is not theirs."""
    status = directory.stat()
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise KeyFileUnsafe(f"everybody can write to {directory}: run chmod 700 on it")


def read_key(path: Path, world: World, *, given: bool = False) -> bytes:
    """One key file; raises KeyFileUnsafe or DatabaseUnopenable."""
    no_key = DatabaseUnopenable(f"the key file {path.name} does not hold 64 hex digits")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatabaseUnopenable(f"the key file {path.name} can't be read: it is no file")
        if given:
            _check_given(path, status)
        else:
            _check_ours(path, status)
        if status.st_size > _MOST_BYTES:
            raise no_key
        text = world.disk.read(path).decode("ascii").strip()
        key = bytes.fromhex(text)
    except FileNotFoundError:
        raise DatabaseUnopenable(
            f"the key file {path.name} is missing; put it back from where you keep it"
        ) from None
    except OSError as error:
        raise DatabaseUnopenable(
            f"the key file {path.name} can't be read: {error.strerror or error}"
        ) from None
    except ValueError:
        raise no_key from None  # its own message repeats what is there
    if len(key) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
        raise no_key
    return key


def read_token(path: Path, world: World) -> str:
    """A token that somebody else put there; raises KeyFileUnsafe or DatabaseUnopenable."""
    try:
        _check_given(path, path.stat())
        text = world.disk.read(path)[:_MOST_BYTES].decode("ascii").strip()
    except (OSError, ValueError):
        text = ""
    if not text or not text.isprintable() or " " in text:
        raise DatabaseUnopenable(f"{path.name} holds no token: printable ASCII without spaces")
    return text


def _write_new(path: Path, world: World) -> None:
    world.disk.write_atomic(path, world.randomness.token(KEY_BYTES).hex().encode())


def _check_ours(path: Path, status: os.stat_result) -> None:
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileUnsafe(f"others can read {path.name}: run chmod 600 on it, and change the key")
    _check_owner(path, status)


def _check_given(path: Path, status: os.stat_result) -> None:
    """Root's and readable by our group will do if we are not root. Raises KeyFileUnsafe, OSError."""
    check_not_writable(path.resolve().parent)
    beyond_group_reading = stat.S_IMODE(status.st_mode) & ~(stat.S_IRWXU | stat.S_IRGRP)
    let_in_by_root = (
        status.st_uid == _ROOT != os.geteuid()
        and not beyond_group_reading
        and status.st_gid in {_ROOT, os.getegid(), *os.getgroups()}
    )
    if not let_in_by_root:
        _check_ours(path, status)


def _check_owner(path: Path, status: os.stat_result) -> None:
    ours = {os.geteuid(), _ROOT}
    if os.geteuid() == _ROOT:  # an operator who works on a service's directory
        ours.add(path.parent.stat().st_uid)
    if status.st_uid not in ours:
        raise KeyFileUnsafe(f"{path.name} belongs to another user: run chown on it")
