"""Asking code of the user's for an answer that may also be a raised anything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(ask: Callable[[], T], otherwise: T) -> T:
    """What code of the user's answers; `otherwise` if it raises."""
    try:
        return ask()
    except BaseException as error:
        if ends_the_program(error):
            raise
        return otherwise


def ends_the_program(error: BaseException) -> bool:
    """Ctrl-C, or what a signal's handler raises: in the main thread only, whatever runs there."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and isinstance(error, KeyboardInterrupt | SystemExit)
