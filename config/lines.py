"""Lines on their way to a descriptor that may pause, be full or be gone.

Whatever the descriptor does, logging neither waits nor fails. Lines that can't be written now are kept,
up to `MOST_KEPT`, and tried again at each flush (at each line while none are held). Further ones are
counted, and a line in their place says how many are missing.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any, Protocol

MOST_KEPT = 1000
DRAIN_S = 1.0
"""How long an ending process waits for a reader."""

_AT_ONCE = 64 * 1024
_PAUSES = "its reader pauses"


class Descriptor(Protocol):
    """Takes bytes without ever waiting (`config/descriptors.py`)."""

    def write(self, data: bytes) -> int:
        """How many it took. Raises BlockingIOError if it takes none now, OSError if it can't."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until it may take some, at most so long."""
        ...

    def is_empty_file(self) -> bool:
        """Whether it is an empty file: somebody may have emptied it to make room."""
        ...

    def empty_if_only(self, written: int) -> bool:
        """Empty a file that holds no more than the bytes that were written last; whether it was so."""
        ...


def _missing(lines: int) -> bytes:
    return f"log lines dropped: {lines}\n".encode()


class LineWriter:
    """Writes lines at once, or, while `held`, together when `flush` is called.

    An event loop holds them for one pass: sixteen answers then cost one write instead of sixteen.
    say_missing: makes the line that says how many are missing. Any thread may write and flush.
    """

    def __init__(
        self, to: Descriptor, say_missing: Callable[[int], bytes] = _missing, *, what: str = "log"
    ) -> None:
        self._to = to
        self._say_missing = say_missing
        self._what = what
        self._waiting: deque[bytes] = deque()
        self._begun = b""  # joined lines, perhaps written in part
        self._begun_lines = 0
        self._torn = b""  # the written part of the line with whose rest `_begun` starts
        self._flushing = threading.Lock()
        self._missing_here = 0  # dropped since the last kept line
        self._dropped = 0  # since everything was last written
        self._why: str | None = None  # why the last flush did not write everything
        self.held = False

    def msg(self, line: bytes) -> None:
        """A line with its line feed."""
        if len(self._waiting) + self._begun_lines >= MOST_KEPT and not self._has_room():
            self._missing_here += 1
            self._dropped += 1
            return
        if self._missing_here:
            self._say_how_many_are_missing()
        self._waiting.append(line)
        if not self.held:
            self.flush()

    # structlog calls the method named like the level
    debug = info = warning = warn = error = exception = critical = msg

    def flush(self) -> None:
        """Write what the descriptor takes now."""
        # if another thread, or this one further up, holds the lock, it looks again when it is done
        while self._is_behind() and self._flushing.acquire(blocking=False):
            try:
                self._write()
            except BlockingIOError:
                self._why = _PAUSES
            except Exception as error:  # noqa: BLE001  logging never fails
                self._why = str(getattr(error, "strerror", None) or error)
            else:
                self._why = None
                self._dropped = 0
            finally:
                self._flushing.release()
            if self._why is not None:
                return

    def drain(self, seconds: float = DRAIN_S) -> None:
        """Before the end: write everything, and wait at most so long for a reader that pauses."""
        until = time.monotonic() + seconds
        self.flush()
        while self._why == _PAUSES and (left := until - time.monotonic()) > 0:
            self._to.wait(left)
            self.flush()

    def trouble(self) -> str | None:
        """Why not everything is written, for operators; None while nothing is missing."""
        if self._why is None or (self._why == _PAUSES and not self._dropped):
            return None
        wait = len(self._waiting) + self._begun_lines
        return f"{self._what} lines dropped: {self._dropped}; {wait} wait: {self._why}"

    def _is_behind(self) -> bool:
        return bool(self._waiting or self._begun or self._missing_here)

    def _has_room(self) -> bool:
        if self._why is None or not self.held:  # a pass with many lines must not lose any
            self.flush()
        return len(self._waiting) + self._begun_lines < MOST_KEPT

    def _say_how_many_are_missing(self) -> None:
        missing, self._missing_here = self._missing_here, 0
        self._waiting.append(self._say_missing(missing))

    def _write(self) -> None:
        if self._torn and self._to.is_empty_file():
            self._begun, self._torn = self._torn + self._begun, b""
        while self._next():
            taken = self._to.write(self._begun)
            if self._torn and self._to.empty_if_only(taken):  # emptied since we looked
                self._begun, self._torn = self._torn + self._begun, b""
                continue
            whole = self._begun.rfind(b"\n", 0, taken) + 1
            self._torn = self._begun[whole:taken] if whole else self._torn + self._begun[:taken]
            self._begun = self._begun[taken:]

    def _next(self) -> bool:
        """Whether there is something to write; it is in `_begun`."""
        if self._begun:
            return True
        if self._missing_here and not self._waiting:
            self._say_how_many_are_missing()
        pieces: list[bytes] = []
        size = 0
        while self._waiting and size < _AT_ONCE:
            pieces.append(self._waiting.popleft())
            size += len(pieces[-1])
        self._begun, self._begun_lines = b"".join(pieces), len(pieces)
        return bool(pieces)


class TextLines(io.TextIOWrapper):
    """A text stream over `LineWriter` in place of `sys.stderr`, so that printing there never blocks either.
    instead_of: the stream whose encoding and descriptor it shows."""

    def __init__(self, lines: LineWriter, instead_of: IO[str]) -> None:
        encoding = getattr(instead_of, "encoding", None) or "utf-8"
        raw: Any = _Raw(lines, instead_of)
        super().__init__(raw, encoding, "backslashreplace", line_buffering=True)
        self.lines = lines


class _Raw(io.RawIOBase):
    def __init__(self, lines: LineWriter, instead_of: IO[str]) -> None:
        self._lines = lines
        self._instead_of = instead_of

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        text = bytes(data)
        if text:
            self._lines.msg(text)
        return len(text)

    def isatty(self) -> bool:
        return self._instead_of.isatty()

    def fileno(self) -> int:
        return self._instead_of.fileno()
