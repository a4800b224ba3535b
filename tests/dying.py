"""A process that dies by SIGKILL at one line of its work, at each in turn.

`python -m tests.dying rekey TEMPLATE DIRECTORY`: copies TEMPLATE to DIRECTORY/1, /2, … and in each
changes the database's key, dying at the 1st, 2nd, … line that runs in the modules that do it. Ends
when the work got through; prints how many copies died.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from config_manager.config import world
from config_manager.config.world import World
from config_manager.storage import keys, recovery, rekeying


def dies_at(line: int, modules: Iterable[ModuleType], work: Callable[[], None]) -> bool:
    """Work in a process of its own that is killed before this line (from 1); whether it was."""
    files = {module.__file__ for module in modules}
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(None)
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def rekey(data_dir: Path) -> None:
    """As `config-manager rotate-db-key` does it."""
    ring = keys.KeyRing.open(data_dir, World())
    sealed = recovery.Recovery(ring, World())
    rekeying.rekey(data_dir / "config.db", ring.db, new_key_is_there=sealed.refresh)
    sealed.refresh()


def main(template: Path, directory: Path) -> int:
    line = 0
    while True:
        line += 1
        data_dir = directory / str(line)
        shutil.copytree(template, data_dir)
        if not dies_at(line, (rekeying, world), functools.partial(rekey, data_dir)):
            return line - 1


if __name__ == "__main__":
    print(main(Path(sys.argv[2]), Path(sys.argv[3])))  # noqa: T201
