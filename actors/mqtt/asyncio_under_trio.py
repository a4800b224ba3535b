"""An asyncio loop inside Trio, by trio-asyncio, also on a Python that trio-asyncio does not know yet.

trio_asyncio is imported when a loop is opened and not before: importing it changes `asyncio.run()` for the
whole process. Its newest release, 0.16.0, was made for Python up to 3.13. On 3.14

- two base classes that its import names are gone (python-trio/trio-asyncio#152, #160),
- asyncio's policies are deprecated, and `python -W error` ends the import, as it does since 3.12,
- a task runs only in the loop that asyncio's C code knows as the running one.
"""

from __future__ import annotations

import asyncio
import warnings
from _asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]
from asyncio import _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from threading import Lock
from typing import Any

_IMPORTING = Lock()


@asynccontextmanager
async def open_loop() -> AsyncGenerator[asyncio.AbstractEventLoop]:
    """A loop that ends with the block. Under Trio alone."""
    opening: Any = _trio_asyncio().open_loop()
    async with opening as loop:
        _run_tasks_in(loop)
        yield loop


@cache
def _trio_asyncio() -> Any:
    # the filters are the process's: of two threads that put them back, the second would put back the first's
    with _IMPORTING, warnings.catch_warnings(), _names_of_python_3_13():
        warnings.simplefilter("ignore", DeprecationWarning)
        import trio_asyncio
    return trio_asyncio


@contextmanager
def _names_of_python_3_13() -> Generator[None]:
    """Those that are missing here. trio-asyncio itself takes `object` for the first, on Windows."""
    stand_ins: tuple[tuple[Any, str, Callable[[], type]], ...] = (
        (asyncio, "AbstractChildWatcher", lambda: object),
        (asyncio.events, "BaseDefaultEventLoopPolicy", _renamed_policy),
    )
    missing = [one for one in stand_ins if not hasattr(one[0], one[1])]
    for module, name, stand_in in missing:
        setattr(module, name, stand_in())
    try:
        yield
    finally:
        for module, name, _ in missing:
            delattr(module, name)


def _renamed_policy() -> type:
    renamed: type = vars(asyncio.events)["_BaseDefaultEventLoopPolicy"]
    return renamed


def _run_tasks_in(loop: Any) -> None:
    """Every step of a task comes through `call_soon`. trio-asyncio tells Python which loop is running, and
    not the C code of asyncio."""
    call_soon = loop.call_soon

    def run(callback: Callable[..., object], *args: object) -> None:
        before = _get_running_loop()
        _set_running_loop(loop)
        try:
            callback(*args)
        finally:
            _set_running_loop(before)

    def call_soon_as_running(
        callback: Callable[..., object], *args: object, **context: Any
    ) -> asyncio.Handle:
        handle: asyncio.Handle = call_soon(run, callback, *args, **context)
        return handle

    loop.call_soon = call_soon_as_running
