"""Asking code of the user's for an answer that may also be a raised anything.

What was raised is not told: `judging` is the way in where an operator has to read it.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any, TypeVar

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
    """Ctrl-C, or what a signal's handler raises. Python runs handlers in the main thread only, whatever runs
    there, so that an exit in another thread is that thread's own.

    A SystemExit of the user's own code (argparse in a validator, say) is an error of that code: it would
    end a whole fleet, and each start again.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    return isinstance(error, SystemExit) and _is_a_handlers(error)


def _is_a_handlers(error: BaseException) -> bool:
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    own_call = getattr(type(handler), "__call__", None)  # noqa: B004  an object may be a handler
    for function in (handler, getattr(handler, "__func__", None), own_call):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
