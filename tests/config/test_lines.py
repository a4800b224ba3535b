"""Lines reach a descriptor whole and in order, and one that takes none stops nobody."""

from __future__ import annotations

import errno
import os
import pty
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.descriptors import never_waiting
from config_manager.config.lines import MOST_KEPT, LineWriter
from tests.kit.documents import STEADY


class Taker:
    """A descriptor that takes as many bytes as it is told; None is an error."""

    def __init__(self) -> None:
        self.got = b""
        self.room: int | None = 1 << 30
        self.waits = 0
        self.tries = 0

    def write(self, data: bytes) -> int:
        self.tries += 1
        if self.room is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.room == 0:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)

    def wait(self, seconds: float) -> None:
        self.waits += 1
        self.room = 100  # the reader takes a little

    def is_empty_file(self) -> bool:
        return not self.got

    def empty_if_only(self, written: int) -> bool:
        if len(self.got) != written:
            return False
        self.got = b""
        return True


def numbered(first: int, behind: int) -> list[bytes]:
    return [b"line %d\n" % number for number in range(first, behind)]


def test_lines_are_written_at_once_or_together_when_the_pass_is_over() -> None:
    taker = Taker()
    lines = LineWriter(taker)
    lines.msg(b"one\n")
    assert taker.got == b"one\n"
    lines.held = True
    lines.msg(b"two\n")
    lines.msg(b"three\n")
    assert taker.got == b"one\n"
    lines.flush()
    assert taker.got == b"one\ntwo\nthree\n"
    assert taker.tries == 2


def test_a_pass_that_says_much_loses_nothing() -> None:
    taker = Taker()
    lines = LineWriter(taker)
    lines.held = True
    said = numbered(0, 5 * MOST_KEPT)
    for line in said:
        lines.msg(line)
    lines.flush()
    assert taker.got == b"".join(said)


@STEADY
@given(st.lists(st.integers(0, 30) | st.none()))
def test_whatever_it_takes_and_when_what_is_written_is_the_lines_in_order(
    rooms: list[int | None],
) -> None:
    taker = Taker()
    lines = LineWriter(taker)
    said = numbered(0, len(rooms) + 1)
    lines.msg(said[0])
    for line, room in zip(said[1:], rooms, strict=True):
        taker.room = room
        lines.msg(line)
        assert b"".join(said).startswith(taker.got)
    taker.room = 1 << 30
    lines.flush()
    assert taker.got == b"".join(said)
    assert lines.trouble() is None


def test_what_is_too_much_is_counted_and_said_where_it_is_missing() -> None:
    taker = Taker()
    lines = LineWriter(taker)
    lines.msg(b"before\n")
    taker.room = None
    for line in numbered(0, MOST_KEPT + 7):
        lines.msg(line)
    assert lines.trouble() == f"log lines dropped: 7; {MOST_KEPT} wait: No space left on device"
    taker.room = 1 << 30
    lines.msg(b"after\n")
    got = taker.got.splitlines(keepends=True)
    assert got[: MOST_KEPT + 1] == [b"before\n", *numbered(0, MOST_KEPT)]
    assert got[MOST_KEPT + 1 :] == [b"log lines dropped: 7\n", b"after\n"]
    assert lines.trouble() is None


def test_it_is_said_also_where_nothing_else_is_said_afterwards() -> None:
    taker = Taker()
    taker.room = None
    lines = LineWriter(taker)
    for line in numbered(0, MOST_KEPT + 1):
        lines.msg(line)
    taker.room = 1 << 30
    lines.flush()
    assert taker.got.endswith(b"log lines dropped: 1\n")


def test_while_it_takes_nothing_a_line_costs_no_memory_and_hardly_a_try() -> None:
    taker = Taker()
    taker.room = 0
    lines = LineWriter(taker)
    lines.held = True
    for line in numbered(0, 100_000):
        lines.msg(line)
    lines.flush()
    assert len(lines._waiting) + lines._begun_lines == MOST_KEPT
    assert taker.tries == 2
    assert lines.trouble() is not None


def test_a_reader_that_is_only_late_is_no_trouble() -> None:
    taker = Taker()
    taker.room = 0
    lines = LineWriter(taker)
    lines.msg(b"one\n")
    assert lines.trouble() is None


def test_a_line_that_was_cut_begins_anew_in_a_file_that_was_emptied() -> None:
    taker = Taker()
    taker.room = 12
    lines = LineWriter(taker)
    lines.msg(b"first line\n")
    lines.msg(b"second line\n")
    assert taker.got == b"first line\ns"
    taker.room = 3
    lines.flush()
    taker.got = b""
    taker.room = 1 << 30
    lines.flush()
    assert taker.got == b"second line\n"


def test_it_begins_anew_also_if_the_file_is_emptied_while_the_rest_is_written() -> None:
    class EmptiedBeforeAWrite(Taker):
        def is_empty_file(self) -> bool:
            was_empty, self.got = super().is_empty_file(), b""
            return was_empty

    taker = EmptiedBeforeAWrite()
    taker.room = 12
    lines = LineWriter(taker)
    lines.msg(b"first line\n")
    lines.msg(b"second line\n")
    assert taker.got == b"first line\ns"
    taker.room = 1 << 30
    lines.flush()
    assert taker.got == b"second line\n"


def test_whatever_a_descriptor_raises_who_logs_does_not_hear_of_it() -> None:
    taker = Taker()
    lines = LineWriter(taker)
    taker.write = lambda data: 1 // 0  # type: ignore[method-assign]
    lines.msg(b"one\n")
    assert lines.trouble() == "log lines dropped: 0; 1 wait: integer division or modulo by zero"


def test_the_end_waits_for_a_reader_that_goes_on_but_not_for_one_that_left() -> None:
    taker = Taker()
    taker.room = 0
    lines = LineWriter(taker)
    said = numbered(0, 100)
    for line in said:
        lines.msg(line)
    lines.drain()
    assert taker.got == b"".join(said)
    taker.room = None
    waits = taker.waits
    lines.msg(b"for nobody\n")
    lines.drain()
    assert taker.waits == waits


def test_lines_of_many_threads_are_each_written_once() -> None:
    taker = Taker()
    lines = LineWriter(taker)

    def say(name: int) -> None:
        for number in range(200):
            lines.msg(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.flush()
    got = taker.got.splitlines()
    for name in range(4):
        assert [line for line in got if line.startswith(b"%d " % name)] == [
            b"%d %d" % (name, number) for number in range(200)
        ]
    assert len(got) == 800


def a_pipe() -> tuple[int, int]:
    return os.pipe()


def a_socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.mark.parametrize(
    ("ends", "whose"),
    [
        (a_pipe, "ours"),
        (a_pipe, "another user's"),
        (a_socket, "ours"),
        (pty.openpty, "ours"),  # another user's terminal may make us wait
    ],
)
def test_what_nobody_reads_takes_what_it_can_and_waits_only_for_others_who_share_it(
    ends: Callable[[], tuple[int, int]], whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O_NONBLOCK would be everybody's. What another user made can't be opened anew."""

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(path)

    reader, writer = ends()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as stream:
        with monkeypatch.context() as patch:
            if whose != "ours":
                patch.setattr(os, "open", refuse)
            taker = never_waiting(stream)
        with pytest.raises(BlockingIOError):
            while True:
                taker.write(b"x" * 3000 + b"\n")
        assert os.get_blocking(writer)


FLOOD = """
import sys
from config_manager.config.descriptors import guard_stderr
guard_stderr()
import logging, warnings
logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
for number in range(20_000):
    print("printed", number, "x" * 100, file=sys.stderr)
logging.error("logged")
warnings.warn("warned")
print("through")
"""


@pytest.mark.parametrize("stderr", ["paused", "gone", "full"])
def test_what_is_printed_to_stderr_stops_nobody(stderr: str) -> None:
    reader, writer = os.pipe()
    if stderr == "gone":
        os.close(reader)
    if stderr == "full":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    flood = subprocess.Popen([sys.executable, "-c", FLOOD], stdout=subprocess.PIPE, stderr=writer)
    out, _ = flood.communicate(timeout=60)
    assert (out, flood.returncode) == (b"through\n", 0)


GUARDED = """
import sys
from config_manager.config.descriptors import guard_stderr
guard_stderr(); guard_stderr()
print("no line feed", end="", file=sys.stderr); sys.stderr.flush()
print(" and \\ud800 on", file=sys.stderr)
1 / 0
"""


def test_stderr_that_is_read_misses_nothing() -> None:
    """Text without a line feed among it: a prompt is no line."""
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"no line feed and \\ud800 on\nTraceback")
    assert re.search(rb"ZeroDivisionError: division by zero\n$", done.stderr)
