"""One `on_change` callback of a program without an event loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from pydantic import BaseModel

from config_manager.client.drivers.background import Result, Worker
from config_manager.client.drivers.callbacks import callback_name, check_answer
from config_manager.client.drivers.live_config import UNREAD_CHANGES
from config_manager.client.model.words import Secrets
from config_manager.client.rules.todo import Change
from config_manager.client.state.log import say

M = TypeVar("M", bound=BaseModel)

_BUSY_AFTER_S = 30.0


class OnChange(Generic[M]):
    """A callback with a thread of its own, so that it keeps no other one waiting."""

    def __init__(
        self, callback: Callable[[Change[M]], None], hidden: Callable[[], Secrets]
    ) -> None:
        self._callback = callback
        self._hidden = hidden
        self._name = callback_name(callback)
        self._began_at: float | None = None
        self.worker = Worker(f"on_change {self._name}", at_most=UNREAD_CHANGES)

    def tell(self, change: Change[M]) -> None:
        self.worker.submit(partial(self._call, change), partial(self._called, change))

    def complain(self) -> None:
        """Log, once, that a call takes very long."""
        began_at = self._began_at
        if began_at is not None and time.monotonic() - began_at > _BUSY_AFTER_S:
            self._began_at = None
            detail = f"it has not returned for {_BUSY_AFTER_S:g} s; later changes wait for it"
            say(logging.WARNING, "on_change busy", callback=self._name, detail=detail)

    def _call(self, change: Change[M]) -> None:
        self._began_at = time.monotonic()
        check_answer(self._callback(change), "on_change")

    def _called(self, change: Change[M], result: Result) -> None:
        self._began_at = None
        if result.error is not None:  # logged alone: the other listeners go on
            hidden = self._hidden() | Secrets.of(change.old, change.new)
            detail = hidden.traceback_of(result.error)
            say(logging.ERROR, "on_change failed", callback=self._name, detail=detail)
