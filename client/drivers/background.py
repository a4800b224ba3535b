"""Threads of our own for what blocks: the disk, a broker's name, a caller's callback.

The loop's default executor belongs to the service. If the service keeps it full, a change would wait; and it
takes no work once the interpreter begins to end, when the farewell is still to be said. These threads are
daemons: a thread that hangs in a sick disk keeps no process from ending.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

from config_manager.client.drivers.loops import waker

_ENDS_WITHIN_S = 1.0
"""An idle thread ends at once, but on a busy machine."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of some work: a value, or what it raised. A future takes no StopIteration."""

    value: Any = None
    error: BaseException | None = None


Work = Callable[[], object]
Done = Callable[[Result], object]


class Worker:
    """One thread that does one piece of work after the other, in order."""

    def __init__(self, name: str, *, at_most: int | None = None) -> None:
        """at_most: pieces that wait; of more the oldest are dropped. The thread starts at once: it
        can't any more while the interpreter ends."""
        self._waiting: deque[tuple[Work, Done]] = deque(maxlen=at_most)
        self._news = threading.Condition()
        self._pid = os.getpid()
        self._is_closed = False
        self._is_busy = False
        self._is_at_work = False
        self.done = 0
        self.thread = threading.Thread(target=self._run, name=f"config-manager {name}", daemon=True)
        self.thread.start()
        _workers.add(self)

    def submit(self, work: Work, done: Done) -> None:
        """Do it when its turn comes; `done` is called in this worker's thread, and must not raise."""
        with self._news:
            if self._is_closed:
                return
            self._waiting.append((work, done))
            self._news.notify()

    @property
    def is_at_work(self) -> bool:
        """Whether some work is under way, or waits; what came of the last may still have to be told."""
        with self._news:
            return self._is_at_work or bool(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether everything that was submitted is done, and told."""
        with self._news:
            return not self._is_busy and not self._waiting

    def close(self) -> None:
        """Take nothing more; what is under way, and what waits, is done. Does not wait for that."""
        with self._news:
            self._is_closed = True
            self._news.notify()
            ends_now = not self._is_busy and not self._waiting
        if ends_now and self.thread is not threading.current_thread():
            self.thread.join(_ENDS_WITHIN_S)

    def _run(self) -> None:
        while True:
            with self._news:
                self._is_busy = False
                while not self._waiting:
                    if self._is_closed:
                        return
                    self._news.wait()
                work, done = self._waiting.popleft()
                self._is_busy = self._is_at_work = True
            result = _result_of(work)
            # the work forked, and this is the child: it ends as it wants
            if os.getpid() != self._pid:
                raise result.error or SystemExit(0)
            self._is_at_work = False
            done(result)
            self.done += 1
            # while this thread waits, these would keep the caller's objects alive
            del work, done, result


_workers: WeakSet[Worker] = WeakSet()


def work_done() -> int | None:
    """How many pieces of work are done so far; None while some worker has anything to do.

    A test in virtual time lets time pass only if that was the same before and after it waited: what came
    of the last piece may still have to be taken.
    """
    workers = list(_workers)
    return sum(one.done for one in workers) if all(one.is_idle for one in workers) else None


def _result_of(work: Work) -> Result:
    try:
        return Result(work())
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the asker's
        return Result(error=error)


async def run_in(worker: Worker, work: Work) -> Result:
    """What came of it, under asyncio or Trio. Cancelled, it leaves the work to itself."""
    return await _awaited(partial(worker.submit, work))


async def run_in_own_thread(work: Work, name: str) -> Result:
    """The same in a thread for this alone. Raises RuntimeError while the interpreter ends."""

    def start(done: Done) -> None:
        threading.Thread(
            target=lambda: done(_result_of(work)), name=f"config-manager {name}", daemon=True
        ).start()

    return await _awaited(start)


async def _awaited(start: Callable[[Done], None]) -> Result:
    wake, woken = waker()
    results: list[Result] = []

    def done(result: Result) -> None:
        results.append(result)
        wake()

    start(done)
    await woken()
    return results[0]
