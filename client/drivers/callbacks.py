"""A service's callbacks: told apart before they are called, and judged by what they answer.

A function that never runs must not count as one that accepts: a coroutine that is not awaited, a generator
that is not iterated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def check_plain(callback: Callable[..., Any], role: str) -> None:
    """Raises TypeError for a callback that a program without an event loop can't run."""
    if any(inspect.iscoroutinefunction(function) for function in _called(callback)):
        raise TypeError(f"{role}: a plain function, because there is no event loop of yours here")
    check_runs(callback, role)


def check_runs(callback: Callable[..., Any], role: str) -> None:
    """Raises TypeError for what is no callback, or a generator, of which a call runs nothing."""
    if not callable(callback):
        raise TypeError(f"{role}: expected a function, not {type(callback).__name__}")
    for function in _called(callback):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{role}: a function without yield, because a generator is never run")


def _called(callback: Callable[..., Any]) -> tuple[object, object]:
    """The callback, and its class's `__call__`, which may be async although the object is not a coroutine function."""
    return callback, getattr(type(callback), "__call__", None)  # noqa: B004


def check_answer(answer: object, role: str) -> None:
    """Raises TypeError if a call only made something that never runs, and closes that."""
    if inspect.iscoroutine(answer) or inspect.isgenerator(answer):
        answer.close()
    elif not (inspect.isawaitable(answer) or inspect.isasyncgen(answer)):
        return
    kind = type(answer).__name__
    raise TypeError(
        f"{role} returned a {kind}, which nobody runs here; it must be a plain function"
    )


def callback_name(callback: Callable[..., Any]) -> str:
    """As the log names it: as its author does."""
    return str(getattr(callback, "__qualname__", None) or type(callback).__name__)
