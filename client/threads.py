"""Following one service from plain threads: the asyncio driver in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack

from pydantic import BaseModel

from config_manager.client.aio import AsyncioConfig, Connect, open_config
from config_manager.client.instance import Change
from config_manager.config.errors import ConfigManagerError

if TYPE_CHECKING:
    from config_manager.client.opening import OptionArguments
    from config_manager.client.precedence import Explanation
    from config_manager.config.world import World

M = TypeVar("M", bound=BaseModel)

_STOP_WITHIN_S = 5.0


class Config(Generic[M]):
    """A service's typed, live configuration, for programs without an event loop.

    apply: asked before a change, in a thread that is ours; raising refuses it, raising NotNow is
    asked again. on_change callbacks run there too, after the change. options: see
    `opening.Options`. Entering raises what `aio.open_config` raises.

        with Config(SttSettings, service="stt-worker") as config:
            config.on_change(lambda change: print(change.keys))
            use(config.current)
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
        if apply is not None and inspect.iscoroutinefunction(apply):
            raise TypeError("apply: a plain function, because there is no event loop of yours here")
        self._model = model
        self._options = options
        self._seams: dict[str, Any] = {"connect": connect, "world": world}
        self._apply = apply
        self._callbacks: list[Callable[[Change[M]], None]] = []
        self._opened: Future[AsyncioConfig[M]] = Future()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("a Config is opened once; make another")
        self._thread = threading.Thread(
            target=self._run, name=f"config-manager {self._model.__name__}", daemon=True
        )
        self._thread.start()
        self._opened.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_WITHIN_S)
        if error is None and self._failure is not None:
            raise self._failure

    # ── as in the other drivers ────────────────────────────────────────────────────────────────

    @property
    def current(self) -> M:
        """The configuration to run with; after `on_stale="stop"` this raises ConfigurationStale."""
        if self._failure is not None:
            raise self._failure
        return self._config.current

    def explain(self, key: str) -> Explanation:
        """Where a key's value comes from, since when, and what it shadows; KeyError for no key."""
        return self._config.explain(key)

    @property
    def source(self) -> Literal["broker", "last-known-good", "defaults"]:
        """Where the current configuration came from; `defaults`: nothing was ever delivered."""
        return self._config.source

    @property
    def freshness(self) -> str:
        """`fresh`, `stale (reason)`, `clock-unknown`, or `unknown` while it is too early to say."""
        return self._config.freshness

    @property
    def service(self) -> str:
        return self._config.service

    @property
    def instance(self) -> str:
        return self._config.instance

    @property
    def overrides(self) -> tuple[str, ...]:
        """The keys that environment or `.env` decide, whatever an operator sets."""
        return self._config.overrides

    @property
    def refusals(self) -> Counter[str]:
        """How many messages were refused, by reason."""
        return self._config.refusals

    def on_change(self, callback: Callable[[Change[M]], None]) -> None:
        """Call this after each change; an exception in it is logged and changes nothing."""
        self._callbacks.append(callback)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """While this block runs nothing changes: the middle of a sentence is no time for it.

        What `apply` is being asked about just then becomes current after the block.
        """
        hold = self._config.hold()
        self._do(hold.__enter__)
        try:
            yield
        finally:
            self._do(lambda: hold.__exit__(None, None, None))

    def _do(self, step: Callable[[], object]) -> None:
        """In the loop's thread, and back when it is done."""
        assert self._loop is not None
        done: Future[None] = Future()

        def run() -> None:
            step()
            done.set_result(None)

        with suppress(RuntimeError, TimeoutError):  # it has ended: nothing changes any more
            self._loop.call_soon_threadsafe(run)
            done.result(_STOP_WITHIN_S)

    # ── the thread ─────────────────────────────────────────────────────────────────────────────

    @property
    def _config(self) -> AsyncioConfig[M]:
        if not self._opened.done():
            raise RuntimeError("not open: use it inside `with Config(…) as config:`")
        return self._opened.result()

    def _run(self) -> None:
        try:
            # named, because a process that imported trio-asyncio gets another one from asyncio.run()
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._failure = error
            if not self._opened.done():
                self._failure = None
                self._opened.set_exception(error)
            elif not isinstance(error, ConfigManagerError):
                raise

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        apply = None if self._apply is None else self._apply_in_thread
        async with open_config(self._model, apply=apply, **self._seams, **self._options) as config:
            calling = asyncio.create_task(self._call_back(config))
            await asyncio.sleep(0)  # it listens before anything can change
            self._opened.set_result(config)
            try:
                await self._stop.wait()
            finally:
                calling.cancel()
                await asyncio.gather(calling, return_exceptions=True)

    async def _apply_in_thread(self, change: Change[M]) -> None:
        assert self._apply is not None
        await asyncio.to_thread(self._apply, change)

    async def _call_back(self, config: AsyncioConfig[M]) -> None:
        import logging

        async for change in config.changes():
            for callback in list(self._callbacks):
                try:
                    await asyncio.to_thread(callback, change)
                except Exception:  # one listener's bug is not the others'
                    logging.getLogger("config_manager.client").exception("on_change callback")
