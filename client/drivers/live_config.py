"""What a service holds in its hand: the same for Trio, asyncio and threads."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar
from weakref import WeakSet

from pydantic import BaseModel

from config_manager.client.model.words import spelt
from config_manager.client.state.log import say
from config_manager.config.errors import ConfigurationStale, ForkedAway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from config_manager.client.model.precedence import Explanation
    from config_manager.client.rules.events import Event
    from config_manager.client.rules.instance import InstanceRules
    from config_manager.client.rules.todo import Change

M = TypeVar("M", bound=BaseModel)

UNREAD_CHANGES = 256


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


class Changes(Generic[M]):
    """One reader of what changes, until the configuration is closed. Past 256 unread the oldest are
    dropped; dropped itself, it is forgotten: no generator, which a loop would have to close."""

    def __init__(self, next_news: Callable[[], Awaitable[None]]) -> None:
        self.unread: deque[Change[M]] = deque(maxlen=UNREAD_CHANGES)
        self.has_ended = False
        self._next_news = next_news

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[M]:
        while not self.unread:
            if self.has_ended:
                raise StopAsyncIteration
            await self._next_news()
        return self.unread.popleft()


class OpenConfig(Generic[M]):
    """A service's configuration while it is open."""

    def __init__(self, instance: InstanceRules[M]) -> None:
        self._instance = instance
        self._current: M = instance.effective.values
        self._readers: WeakSet[Changes[M]] = WeakSet()
        self._has_ended = False
        self._failure: str | None = None
        self._is_forked_away = False
        _followed_here.add(self)

    @property
    def service(self) -> str:
        return self._instance.service

    @property
    def instance(self) -> str:
        """This instance's name, as receipts and `config-manager status` show it."""
        return self._instance.instance

    @property
    def current(self) -> M:
        """The configuration to run with: validated, immutable, replaced as a whole.

        After `on_stale="stop"`, or if the driver failed, this raises ConfigurationStale: nothing
        follows the publisher any more. After a fork it raises ForkedAway.
        """
        self._check_followed()
        return self._current

    def explain(self, key: str) -> Explanation:
        """Where a key's value comes from, since when, and what it shadows; KeyError for no key."""
        return self._instance.effective.explanations[key]

    @property
    def source(self) -> Literal["broker", "last-known-good", "defaults"]:
        """Where the current configuration came from; `defaults`: nothing was ever delivered."""
        return self._instance.source

    @property
    def freshness(self) -> str:
        """`fresh`, `stale (reason)`, `clock-unknown`, or `unknown` while it is too early to say.
        `stale (ended)` once it is closed, `stale (forked)` in a child of the process that opened it."""
        if self._is_forked_away:
            return "stale (forked)"
        return "stale (ended)" if self._has_ended else self._instance.freshness

    @property
    def overrides(self) -> tuple[str, ...]:
        """The keys that environment or `.env` decide, whatever an operator sets."""
        return self._instance.effective.overrides

    @property
    def refusals(self) -> Counter[str]:
        """How many messages were refused, by reason."""
        return Counter({str(k): v for k, v in self._instance.subscriber.refusals.items()})

    def _check_followed(self) -> None:
        """Raises if `current` is not kept up to date any more."""
        if self._is_forked_away:
            raise ForkedAway(
                f"{self.service}: this was opened before a fork, and only the parent process follows "
                "it: open it in each worker instead (gunicorn: in post_worker_init; Celery: at "
                "worker_process_init; uWSGI: at postfork), or don't preload"
            )
        if self._failure is not None:
            raise ConfigurationStale(self._failure)

    def _end(self) -> None:
        self._has_ended = True

    def _fail(self, error: BaseException) -> None:
        """Its driver ended, and not on purpose: reading `current` raises from now on."""
        self._end()
        if not isinstance(error, ConfigurationStale):
            hidden = self._instance.effective.hidden
            say(
                logging.ERROR,
                "driver failed",
                service=self.service,
                detail=hidden.traceback_of(error),
            )
        self._failure = (
            error.detail
            if isinstance(error, ConfigurationStale)
            else spelt(f"{self.service}: its driver ended with {type(error).__name__}; see the log")
        )

    def _swap(self, values: M, change: Change[M] | None) -> None:
        self._current = values
        if change is not None:
            for reader in self._readers:
                reader.unread.append(change)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.service}, {self.source}, {self.freshness}>"


_followed_here: WeakSet[OpenConfig[Any]] = WeakSet()
"""Opened in this process; a forked child marks them all."""


def _forked() -> None:
    for config in list(_followed_here):
        config._is_forked_away = True  # noqa: SLF001
    _followed_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class LiveConfig(OpenConfig[M]):
    """What `open_config` gives, under asyncio and Trio alike."""

    def __init__(self, instance: InstanceRules[M], new_event: Callable[[], LoopEvent]) -> None:
        super().__init__(instance)
        self._news = Wakeup(new_event)
        self._released: Callable[[], None] = lambda: None
        """called when nobody holds any more: the driver applies what waited"""

    def changes(self) -> AsyncIterator[Change[M]]:
        """Every change from now on, each once, after it became `current`; ends with the block."""
        self._check_followed()
        # from this call on, not from the first wait: what happens in between must not be lost
        changes: Changes[M] = Changes(self._news.wait)
        changes.has_ended = self._has_ended
        self._readers.add(changes)
        return changes

    def _close(self) -> None:
        """No change comes any more: every reader of changes ends."""
        self._end()
        for reader in self._readers:
            reader.has_ended = True
        self._news.wake()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """While this block runs nothing changes: the middle of a sentence is no time for it."""
        if self._is_forked_away:
            self._check_followed()
        self._instance.hold()
        try:
            yield
        finally:
            self._instance.unhold()
            self._released()

    def _swap(self, values: M, change: Change[M] | None) -> None:
        super()._swap(values, change)
        self._news.wake()

    def _tell(self, event: Event) -> None:
        """The log has it."""
