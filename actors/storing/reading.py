"""Pages of history and audit, read beside the writer: nobody's write waits for who reads much.

One at a time, in the order in which they were asked. Who no longer waits has left the queue.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from config_manager.actors.actor import Context, Request
from config_manager.actors.messages import ReadAudit, ReadHistory
from config_manager.storage.decisions.vouching import Judgement

R = TypeVar("R")

ReadPage = Callable[[ReadHistory | ReadAudit], Awaitable[Any]]
JudgeAudit = Callable[[str | None, Callable[[], None]], Awaitable[Judgement]]


class Pages:
    """read: one page. judge: the whole audit, beside the pages. Both raise Refusal."""

    def __init__(self, read: ReadPage, judge: JudgeAudit) -> None:
        self._read = read
        self._judge = judge
        self._turn = trio.Lock()
        self._judging = trio.Lock()

    async def ask(self, request: Request[R], context: Context) -> R:
        """Raises Refusal, and TooSlowError at the context's deadline."""
        assert isinstance(request, ReadHistory | ReadAudit)
        with trio.fail_at(context.deadline):
            async with self._turn:
                page: R = await self._read(request)
                return page

    async def judge(self, contains: str | None, context: Context) -> Judgement:
        """One at a time, because each takes a core. Raises Refusal, and TooSlowError at the context's
        deadline."""
        with trio.fail_at(context.deadline):
            async with self._judging:
                return await self._judge(contains, trio.from_thread.check_cancelled)
