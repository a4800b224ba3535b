"""What the console script does before it imports anything else."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from config_manager.config.ending import ENDING


def begin() -> None:
    """From here on a signal ends `serve` and `client run` with 0. May be called again."""
    _stand_in_for_closed()
    if sys.argv[1:2] == ["serve"] or sys.argv[1:3] == ["client", "run"]:
        ENDING.begin()


def _stand_in_for_closed() -> None:
    """Standard descriptors that were closed (`>&-`) become /dev/null.

    Otherwise the next files to be opened get their numbers, and a write to 1 or 2 goes to the database.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number


def main() -> NoReturn:
    begin()
    try:
        from config_manager.api.main import main as command
    except KeyboardInterrupt:  # the same exit code as from main()
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
