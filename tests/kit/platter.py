"""What a power cut would leave: in which order files and directories were made durable and names given.

SIGKILL can't show it, because the kernel keeps what it was told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

REPLACED = ["file", "replace", "directory"]
"""What one file has to have gone through."""


@contextmanager
def platter() -> Iterator[list[str]]:
    """The calls within the block, as they come; each is done for real."""
    done: list[str] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("directory" if is_directory else "file")
        fsync(descriptor)

    def noted(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            done.append("replace" if name == "rename" else name)
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        for name in ("replace", "rename", "link"):
            patch.setattr(os, name, noted(name))
        yield done
