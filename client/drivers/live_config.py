"""A service's open configuration: the same for Trio, asyncio and threads."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar
from weakref import WeakSet

from pydantic import BaseModel

from config_manager.client.drivers.loops import LoopEvent, Wakeup
from config_manager.client.model.words import spelt
from config_manager.client.state.log import say
from config_manager.config.errors import ConfigurationStale, ForkedAway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

    from config_manager.client.model.precedence import Explanation
    from config_manager.client.rules.events import Event
    from config_manager.client.rules.instance import InstanceRules
    from config_manager.client.rules.todo import Change

M = TypeVar("M", bound=BaseModel)

UNREAD_CHANGES = 256


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


class LiveState(Generic[M]):
    """What a driver keeps up to date, and a caller's `OpenConfig` shows."""

    def __init__(self, instance: InstanceRules[M], new_event: Callable[[], LoopEvent]) -> None:
        self.instance = instance
        self.current: M = instance.effective.values
        self.is_forked_away = False
        self.released: Callable[[], None] = lambda: None
        """called when the last `hold` ends: the driver then applies what waited"""
        self._readers: WeakSet[Changes[M]] = WeakSet()
        self._news = Wakeup(new_event)
        self._has_ended = False
        self._failure: str | None = None
        _followed_here.add(self)

    @property
    def freshness(self) -> str:
        if self.is_forked_away:
            return "stale (forked)"
        return "stale (ended)" if self._has_ended else self.instance.freshness

    def check_here(self) -> None:
        """Raises ForkedAway in a child of the process that follows."""
        if self.is_forked_away:
            raise ForkedAway(
                f"{self.instance.service}: this was opened before a fork, and only the parent process "
                "follows it: open it in each worker instead (gunicorn: in post_worker_init; Celery: at "
                "worker_process_init; uWSGI: at postfork), or don't preload"
            )

    def check_followed(self) -> None:
        """Raises ForkedAway or ConfigurationStale if `current` is not kept up to date any more."""
        self.check_here()
        if self._failure is not None:
            raise ConfigurationStale(self._failure)

    def changes(self) -> Changes[M]:
        self.check_followed()
        # from this call on, not from the first wait: what happens in between must not be lost
        changes: Changes[M] = Changes(self._news.wait)
        changes.has_ended = self._has_ended
        self._readers.add(changes)
        return changes

    def hold(self) -> None:
        self.check_here()
        self.instance.hold()

    def unhold(self) -> None:
        self.instance.unhold()
        self.released()

    # ── what the driver finds out ──────────────────────────────────────────────────────────────

    def swap(self, values: M, change: Change[M] | None) -> None:
        self.current = values
        if change is not None:
            for reader in self._readers:
                reader.unread.append(change)
        self._news.wake()

    def tell(self, event: Event) -> None:
        """The log has it."""

    def fail(self, error: BaseException) -> None:
        """The driver ended, and not on purpose: reading `current` raises from now on."""
        self._has_ended = True
        if isinstance(error, ConfigurationStale):
            self._failure = error.detail
            return
        service, detail = self.instance.service, self.instance.effective.hidden.traceback_of(error)
        say(logging.ERROR, "driver failed", service=service, detail=detail)
        failed = f"{service}: its driver ended with {type(error).__name__}; see the log"
        self._failure = spelt(failed)

    def close(self) -> None:
        """No change comes any more: every reader of changes ends."""
        self._has_ended = True
        for reader in self._readers:
            reader.has_ended = True
        self._news.wake()


_followed_here: WeakSet[LiveState[Any]] = WeakSet()
"""Opened in this process; a forked child marks them all."""


def _forked() -> None:
    for state in list(_followed_here):
        state.is_forked_away = True
    _followed_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class OpenConfig(Generic[M]):
    """A service's configuration while it is open: the same under asyncio, Trio and in threads."""

    def __init__(self, state: LiveState[M] | None) -> None:
        self._followed: LiveState[M] | None = state

    @property
    def _state(self) -> LiveState[M]:
        if self._followed is None:
            raise RuntimeError(
                "not open: use it inside `with Config(…) as config:`, or after open()"
            )
        return self._followed

    @property
    def service(self) -> str:
        """Whose configuration it is."""
        return self._state.instance.service

    @property
    def instance(self) -> str:
        """This instance's name, as receipts and `config-manager status` show it."""
        return self._state.instance.instance

    @property
    def current(self) -> M:
        """The configuration to run with: validated, immutable, replaced as a whole.

        After `on_stale="stop"`, or if the driver failed, this raises ConfigurationStale: nothing
        follows the publisher any more. After a fork it raises ForkedAway.
        """
        self._state.check_followed()
        return self._state.current

    def explain(self, key: str) -> Explanation:
        """Where a key's value comes from, since when, and what it shadows; KeyError for no key."""
        return self._state.instance.effective.explanations[key]

    @property
    def source(self) -> Literal["broker", "last-known-good", "defaults"]:
        """Where the current configuration came from; `defaults`: nothing was ever delivered."""
        return self._state.instance.source

    @property
    def freshness(self) -> str:
        """`fresh`, `stale (reason)`, `clock-unknown`, or `unknown` while it is too early to say.
        `stale (ended)` once it is closed, `stale (forked)` in a child of the process that opened it."""
        return self._state.freshness

    @property
    def overrides(self) -> tuple[str, ...]:
        """The keys that environment or `.env` decide, whatever an operator sets."""
        return self._state.instance.effective.overrides

    @property
    def refusals(self) -> Counter[str]:
        """How many messages were refused, by reason."""
        return Counter({str(k): v for k, v in self._state.instance.subscriber.refusals.items()})


class LiveConfig(OpenConfig[M]):
    """What `open_config` gives, under asyncio and Trio alike."""

    def changes(self) -> AsyncIterator[Change[M]]:
        """Every change from now on, each once, after it became `current`; ends with the block."""
        return self._state.changes()

    @contextmanager
    def hold(self) -> Generator[None]:
        """While this block runs, `current` does not change: for work that a change must not interrupt."""
        self._state.hold()
        try:
            yield
        finally:
            self._state.unhold()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.service}, {self.source}, {self.freshness}>"
