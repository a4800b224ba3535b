"""What asyncio and Trio have in common, as far as the client needs it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol


class LoopEvent(Protocol):
    """What `trio.Event` and `asyncio.Event` have in common."""

    def set(self) -> None: ...

    async def wait(self) -> object: ...


class Wakeup:
    """Wakes everyone who waits, each time that there is something new."""

    def __init__(self, new_event: Callable[[], LoopEvent]) -> None:
        self._new_event = new_event
        self._next = new_event()

    def wake(self) -> None:
        self._next.set()
        self._next = self._new_event()

    async def wait(self) -> None:
        await self._next.wait()


def runs_trio() -> bool:
    """Whether the caller runs under Trio; else it runs under asyncio."""
    if "trio" not in sys.modules:
        return False
    import sniffio

    return sniffio.current_async_library() == "trio"


def event_class() -> Callable[[], LoopEvent]:
    """That of the caller's event loop."""
    if runs_trio():
        import trio

        return trio.Event
    import asyncio

    return asyncio.Event


def call_soon_here() -> Callable[[Callable[[], object]], None]:
    """What calls a function in the caller's event loop, from any thread; once that has ended it does nothing."""
    call_soon: Callable[[Callable[[], object]], object]
    if runs_trio():
        import trio

        call_soon = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        import asyncio

        call_soon = asyncio.get_running_loop().call_soon_threadsafe

    def call(function: Callable[[], object]) -> None:
        with suppress(RuntimeError):
            call_soon(function)

    return call


async def checkpoint() -> None:
    """Let the other tasks go on."""
    if runs_trio():
        import trio

        await trio.lowlevel.checkpoint()
    else:
        import asyncio

        await asyncio.sleep(0)


def waker() -> tuple[Callable[[], None], Callable[[], Awaitable[object]]]:
    """What ends a waiting, from any thread, and that waiting, in the caller's event loop."""
    event, call_soon = event_class()(), call_soon_here()
    return partial(call_soon, event.set), event.wait
