"""The console script's first moment: what must stand before anything else is imported."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from config_manager.config.ending import ENDING


def begin() -> None:
    """Any number of times; only what runs until a signal is ended by one with 0."""
    _stand_in_for_closed()
    if sys.argv[1:2] == ["serve"] or sys.argv[1:3] == ["client", "run"]:
        ENDING.begin()


def _stand_in_for_closed() -> None:
    """Standard descriptors that were closed (`>&-`) become /dev/null.

    Else the next files that are opened get their numbers, and what writes to 1 or 2 writes to the
    database.
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
    except KeyboardInterrupt:  # what main() makes of it
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
