"""A file system of a test's own, to fill up or to make read-only. Only root can mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def file_system(at: Path, size: str = "16m") -> Iterator[Path]:
    """A file system of its own, gone afterwards with whatever is in it."""
    at.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(at)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def remount(at: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(at)], check=True)


def fill(directory: Path, leave_kib: int = 0) -> Path:
    """Take all the space there is but this."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 1024)
        except OSError:
            file.truncate(file.tell() - leave_kib * 1024)
    return ballast
