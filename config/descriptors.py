"""Standard output and error, written to without ever waiting: a pipe, a terminal, a socket, a file.

`O_NONBLOCK` on a descriptor that we were given would also change it for those who share it: the shell,
other programs of a pipeline. So a pipe or a terminal is opened anew for us alone, and each call to a
socket says that it must not wait. A regular file takes bytes or refuses them.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import select
import socket
import stat
import sys
from contextlib import suppress
from typing import Any

from config_manager.config.lines import Descriptor, LineWriter, TextLines

_PIPE_BYTES = 1024 * 1024
"""What a pipe may hold, if the system allows it: a reader that is late by a second misses nothing."""


def never_waiting(stream: Any) -> Descriptor:
    """What a text stream writes to. stream: None if it was closed before we began."""
    if stream is None:
        return _Nowhere()
    with suppress(OSError, ValueError):
        stream.flush()
    try:
        number: int = stream.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return _Stream(stream)
    if stat.S_ISSOCK(mode):
        return _Socket(number)
    if stat.S_ISFIFO(mode) or os.isatty(number):
        return _Pipe(number)
    return _File(number)


def guard_stderr() -> None:
    """From here on nothing that Python and libraries print to standard error blocks the process."""
    given = sys.stderr
    if given is not None and not isinstance(given, TextLines):
        lines = LineWriter(never_waiting(given), what="stderr")
        sys.stderr = TextLines(lines, given)
        atexit.register(lines.drain)


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)

    def wait(self, seconds: float) -> None:
        pass

    def is_empty_file(self) -> bool:
        return False

    def empty_if_only(self, written: int) -> bool:  # noqa: ARG002
        return False


class _Stream(_Nowhere):
    """A stream without a descriptor: a test's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        binary = getattr(self._stream, "buffer", None)
        if binary is None:
            self._stream.write(data.decode(errors="backslashreplace"))
        else:
            binary.write(data)
        self._stream.flush()
        return len(data)


class _File(_Nowhere):
    """A regular file, or a device such as /dev/null."""

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, data: bytes) -> int:
        return os.write(self._number, data)

    def is_empty_file(self) -> bool:
        about = os.fstat(self._number)
        return stat.S_ISREG(about.st_mode) and about.st_size == 0

    def empty_if_only(self, written: int) -> bool:
        about = os.fstat(self._number)
        if not stat.S_ISREG(about.st_mode) or about.st_size != written:
            return False
        with suppress(OSError):  # a file that may only grow
            os.ftruncate(self._number, 0)
            return True
        return False


class _Polled(_Nowhere):
    def __init__(self, number: int) -> None:
        self._number = number
        self._poll = select.poll()
        self._poll.register(number, select.POLLOUT)

    def wait(self, seconds: float) -> None:
        self._poll.poll(max(1, round(seconds * 1000)))


class _Pipe(_Polled):
    """A pipe or a terminal."""

    def __init__(self, given: int) -> None:
        with suppress(OSError, AttributeError):
            if fcntl.fcntl(given, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
                fcntl.fcntl(given, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._ours = True
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            number = os.open(f"/proc/self/fd/{given}", flags)
        except OSError:  # another user's pipe, or no /proc
            self._ours = False
            number = given
        super().__init__(number)

    def write(self, data: bytes) -> int:
        if self._ours:
            return os.write(self._number, data)
        # a ready one takes PIPE_BUF bytes without waiting, unless another process writes to it in
        # between; a terminal promises less
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self._number, data[: select.PIPE_BUF])


class _Socket(_Polled):
    """A socket, such as journald's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._socket = socket.socket(fileno=os.dup(number))

    def write(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def __del__(self) -> None:
        self._socket.close()
