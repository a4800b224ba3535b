"""What `follow` gives: a service's configuration as it was delivered, without a model, and its news."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

import trio
from pydantic import BaseModel, ConfigDict

from config_manager.client.drivers.loops import Wakeup
from config_manager.client.rules.events import Applied, Event, Moved, News
from config_manager.client.rules.todo import Change
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject

_UNREAD_EVENTS = 256


class Anything(BaseModel):
    """The model of a caller that takes whatever is delivered."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Delivered:
    """What a driver finds out, kept for a `Follower`."""

    def __init__(self, secrets: Callable[[], Mapping[str, Secret]]) -> None:
        self.secrets = secrets
        self.running: Applied | None = None
        self.unread: deque[News] = deque(maxlen=_UNREAD_EVENTS)
        self.news = Wakeup(trio.Event)

    def tell(self, event: Event) -> None:
        if isinstance(event, Applied):
            self.running = event
        if isinstance(event, Moved) and self.running is not None:
            self.running = replace(self.running, update=event.update, envelope=event.envelope)
        if isinstance(event, News):
            self.unread.append(event)
            self.news.wake()

    def swap(self, values: Anything, change: Change[Anything] | None) -> None:
        """Nothing to do: `tell` has kept what was delivered, and there is no model."""

    def fail(self, error: BaseException) -> None:
        """Nothing to do: the block raises the error."""


class Follower:
    """An async iterator of events, and the configuration that runs.

    A service that only looks at `current` may leave the events unread: past 256 of them the oldest
    are dropped, never the newest.
    """

    def __init__(self, service: str, instance: str, delivered: Delivered) -> None:
        self.service = service
        self.instance = instance
        self._delivered = delivered

    @property
    def running(self) -> Applied | None:
        """What was applied last; None while nothing ever was."""
        return self._delivered.running

    @property
    def current(self) -> JsonObject | None:
        """The configuration to run with; None while none was ever applied."""
        return self.running.update.config if self.running is not None else None

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """What was delivered sealed with the running configuration."""
        return self._delivered.secrets()

    def __aiter__(self) -> AsyncIterator[News]:
        return self

    async def __anext__(self) -> News:
        while not self._delivered.unread:
            await self._delivered.news.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._delivered.unread.popleft()
