"""Asks code of the user's, which may raise anything, for an answer.

What was raised is not told. If an operator has to read it, use `judging`. `signal` and `threading` are
here to tell Ctrl-C from an exit of the user's own code; nothing is waited for.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import TypeVar, cast

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
    """Whether it is Ctrl-C, or what a signal's handler raised. Python runs handlers in the main thread
    only, so an exit in another thread is that thread's own.

    A SystemExit of the user's own code (argparse in a validator, say) is an error of that code: otherwise
    it would end a whole fleet, and again at each start.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    return isinstance(error, SystemExit) and _is_a_handlers(error)


def _is_a_handlers(error: BaseException) -> bool:
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _code_of(handler: object) -> CodeType | None:
    while isinstance(handler, partial):
        handler = cast("partial[object]", handler).func
    own_call = getattr(type(handler), "__call__", None)  # noqa: B004  an object may be a handler
    for function in (handler, getattr(handler, "__func__", None), own_call):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
