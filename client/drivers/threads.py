"""Following one service from plain threads: the asyncio driver in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from weakref import WeakSet

from pydantic import BaseModel

from config_manager.client.drivers.asyncio_connection import Connect
from config_manager.client.drivers.asyncio_driver import END_WITHIN_S, AsyncioConfig, open_config
from config_manager.client.drivers.background import Worker, run_in
from config_manager.client.drivers.callbacks import check_answer, check_plain
from config_manager.client.drivers.live_config import OpenConfig
from config_manager.client.drivers.on_change import OnChange
from config_manager.client.model.validating import complete
from config_manager.client.model.words import Secrets
from config_manager.client.rules.todo import Change
from config_manager.client.state.log import say
from config_manager.config.errors import ConfigManagerError

if TYPE_CHECKING:
    from config_manager.client.drivers.opening import OptionArguments
    from config_manager.config.world import World

M = TypeVar("M", bound=BaseModel)

_STOP_WITHIN_S = END_WITHIN_S + 2.0
"""How long leaving waits for the thread: longer than that waits for what it started."""

_LISTENERS_END_WITHIN_S = 1.0
_LOOK_S = 5.0


class Config(OpenConfig[M]):
    """A service's typed, live configuration, for programs without an event loop.

    apply: asked before a change, in a thread of its own; if it raises, the change is refused, and if it
    raises NotNow, it is asked again. on_change callbacks run in a thread each, after the change. options:
    see `opening.Options`. Opening raises what `config_manager.client.open_config` raises. With
    `on_stale="stop"` `current` raises ConfigurationStale, and so does leaving the block.

        with Config(SttSettings, service="stt-worker") as config:
            config.on_change(lambda change: print(change.keys))
            use(config.current)

    A module that a server imports uses `open()` and `close()` instead. A program that ends without
    closing it closes it by itself, but not one that a signal ends. After a fork the child may `open()`
    it anew.
    """

    def __init__(
        self,
        model: type[M],
        *,
        apply: Callable[[Change[M]], None] | None = None,
        connect: Connect | None = None,
        world: World | None = None,
        **options: Unpack[OptionArguments],
    ) -> None:
        super().__init__(None)
        complete(model, frames_up=1)
        if apply is not None:
            check_plain(apply, "apply")
        self._model = model
        self._options = options
        self._connect = connect
        self._world = world
        self._apply = apply
        self._callbacks: list[Callable[[Change[M]], None]] = []
        self._thread: threading.Thread | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        # a fork may happen at any moment, in any thread: what the child looks at must hold no lock
        self._followed = None
        self._pid = os.getpid()
        self._opened: Future[None] = Future()
        self._closes = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._living: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._listeners: list[OnChange[M]] = []
        self._registering = threading.Lock()

    def open(self) -> Self:
        """Start following; returns once there is a configuration to run with. Once, and once more in
        a child process after a fork. If it is interrupted, by Ctrl-C say, it is closed again.

        Raises RuntimeError if it was opened in this process before, and what `open_config` raises.
        """
        if self._thread is not None and not self._is_forked_away:
            raise RuntimeError("a Config is opened once; make another")
        self._begin_anew()  # also if it was made before a fork, and is opened after that
        self._thread = threading.Thread(
            target=self._run, name=f"config-manager {self._model.__name__}", daemon=True
        )
        _close_at_exit(self)
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Say that the service leaves, and stop following; ends within 10 s. Again it does nothing."""
        _open.discard(self)
        if self._thread is None or self._is_forked_away:  # then the parent process goes on
            return
        self._closes.set()
        loop, living = self._loop, self._living
        if loop is not None and living is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(living.cancel)
        self._thread.join(_STOP_WITHIN_S)
        if self._thread.is_alive():
            self._say_did_not_end(self._thread.name, _STOP_WITHIN_S)
        self._end_listeners()

    def _end_listeners(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.worker.close()
        gives_up_at = time.monotonic() + _LISTENERS_END_WITHIN_S
        for listener in listeners:
            thread = listener.worker.thread
            if thread is threading.current_thread():  # a callback closes it
                continue
            thread.join(max(0.0, gives_up_at - time.monotonic()))
            if thread.is_alive():
                self._say_did_not_end(thread.name, _LISTENERS_END_WITHIN_S)

    def _say_did_not_end(self, thread: str, within_s: float) -> None:
        detail = f"it was left alone after {within_s:g} s"
        service = self._options.get("service")
        say(logging.ERROR, "did not end", service=service, thread=thread, detail=detail)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if error is None and self._failure is not None:
            raise self._failure

    def on_change(self, callback: Callable[[Change[M]], None]) -> None:
        """Call this after each change, in a thread of its own; an exception in it is logged and changes
        nothing. Past 256 changes that it has not taken yet the oldest are dropped."""
        check_plain(callback, "on_change")
        if self._is_forked_away:  # heard once it is opened here
            self._callbacks.append(callback)
            return
        with self._registering:
            self._callbacks.append(callback)
            if self._followed is not None and not self._closes.is_set():
                self._listeners.append(OnChange(callback, self._hidden))

    @contextmanager
    def hold(self) -> Generator[None]:
        """While this block runs, `current` does not change: for work that a change must not interrupt.

        What `apply` is being asked about just then becomes current after the block.
        """
        state = self._state
        self._do(state.hold)
        try:
            yield
        finally:
            self._do(state.unhold)

    def _do(self, step: Callable[[], None]) -> None:
        """In the loop's thread, and back when it is done; here if there is no loop any more."""
        self._state.check_here()
        assert self._loop is not None
        done: Future[None] = Future()

        def run() -> None:
            step()
            done.set_result(None)

        with suppress(RuntimeError, TimeoutError):  # the loop has ended: nothing changes any more
            self._loop.call_soon_threadsafe(run)
            done.result(_STOP_WITHIN_S)

    # ── the thread ─────────────────────────────────────────────────────────────────────────────

    @property
    def _is_forked_away(self) -> bool:
        return self._thread is not None and self._pid != os.getpid()

    def _hidden(self) -> Secrets:
        return self._state.instance.effective.hidden

    def _run(self) -> None:
        # named, because a process that imported trio-asyncio gets another one from asyncio.run()
        loop = asyncio.SelectorEventLoop()
        try:
            loop.run_until_complete(self._live())
        except BaseException as error:
            if self._followed is None:
                self._opened.set_exception(error)
                return
            self._failure = error
            self._followed.fail(error)
            if not isinstance(error, ConfigManagerError):
                raise
        finally:
            _close(loop)
            if not self._opened.done():
                self._opened.set_exception(RuntimeError("it was closed while it was being opened"))

    async def _live(self) -> None:
        """Until `close`, which cancels this, whatever it waits for."""
        self._loop = asyncio.get_running_loop()
        self._living = asyncio.current_task()
        try:
            if not self._closes.is_set():
                await self._follow()
        except asyncio.CancelledError:
            if not self._closes.is_set():
                raise

    async def _follow(self) -> None:
        asks = Worker(f"apply {self._model.__name__}") if self._apply is not None else None
        apply = partial(self._apply_in, asks) if asks is not None else None
        telling: asyncio.Task[None] | None = None
        try:
            async with open_config(
                self._model,
                apply=apply,
                connect=self._connect,
                world=self._world,
                **self._options,
            ) as config:
                telling = asyncio.create_task(self._tell_listeners(config))
                await asyncio.sleep(0)  # so that the task listens before anything can change
                with self._registering:
                    self._listeners = [OnChange(one, self._hidden) for one in self._callbacks]
                    self._followed = config._state  # noqa: SLF001  one of its own kind
                self._opened.set_result(None)
                while True:
                    await asyncio.sleep(_LOOK_S)
                    for listener in self._listeners:
                        listener.complain()
        finally:
            if asks is not None:
                asks.close()
            if telling is not None:
                await telling  # the configuration is closed, and with it what this reads

    async def _apply_in(self, asks: Worker, change: Change[M]) -> None:
        result = await run_in(asks, partial(self._ask, change))
        if isinstance(result.error, Exception) and not isinstance(result.error, StopIteration):
            raise result.error
        if result.error is not None:
            # what a coroutine can't raise, or what would end the driver's thread
            raise RuntimeError(_why_not(result.error)) from result.error

    def _ask(self, change: Change[M]) -> None:
        assert self._apply is not None
        check_answer(self._apply(change), "apply")

    async def _tell_listeners(self, config: AsyncioConfig[M]) -> None:
        async for change in config.changes():
            for listener in self._listeners:
                listener.tell(change)


def _why_not(error: BaseException) -> str:
    words = Secrets().words_of(error)
    if isinstance(error, SystemExit):
        return f"{words} (a callback can't end the program; signal.raise_signal(SIGTERM) does)"
    return words


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """As asyncio.Runner does, but for the executor: it would start a thread, which an interpreter that
    ends does not let it."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


# ── the end of the program ─────────────────────────────────────────────────────────────────────

_open: WeakSet[Config[Any]] = WeakSet()
_registered_in: int | None = None


def _close_at_exit(config: Config[Any]) -> None:
    """Also in a child that multiprocessing forked, which runs no atexit handlers, only its own."""
    global _registered_in  # noqa: PLW0603  one handler for all, in each process
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        _open.clear()  # those are the parent's
        atexit.register(_close_all)
        if "multiprocessing.process" in sys.modules:
            from multiprocessing import parent_process
            from multiprocessing.util import Finalize

            if parent_process() is not None:
                Finalize(None, _close_all, exitpriority=0)
    _open.add(config)


def _close_all() -> None:
    for config in list(_open):
        config.close()
