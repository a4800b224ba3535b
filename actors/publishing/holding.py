"""What one broker holds, by what it gave back to our own subscription."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from config_manager.actors.actor import Full, Gone
from config_manager.actors.views import BrokerView, Confirmations, about
from config_manager.config import wire
from config_manager.storage.state import ServiceState


class Holding:
    """What one broker holds; kept across connections."""

    def __init__(
        self,
        broker: BrokerView,
        confirmations: Confirmations,
        note_confirmed: Callable[[tuple[tuple[str, int], ...]], Awaitable[None]],
        done: Callable[[ServiceState], None],
    ) -> None:
        """done: told of each state that was read back."""
        self._broker = broker
        self._confirmations = confirmations
        self._note_confirmed = note_confirmed
        self._done = done
        self._news: dict[str, int] = {}

    def confirm(self, state: ServiceState) -> None:
        """Note that a state was read back, and log each new revision. While another client writes to its topic, a
        read-back counts for nothing: it may be overwritten by now."""
        if wire.config_topic(state.service) in self._broker.contested:
            return
        if self._broker.holds.get(state.service) != state.revision:
            self._news[state.service] = state.revision
            self._done(state)
            structlog.get_logger().info("confirmed", broker=self._broker.url, **about(state))
        self._confirmations.note(self._broker, state.service, state.revision)

    def lost(self, service: str) -> None:
        """Another client wrote to the service's topic: until ours is read back, the broker does not hold it."""
        self._broker.holds.pop(service, None)

    async def tell_storing(self) -> None:
        """Tell storing what was read back since the last call, all at once, so that the outbox forgets it."""
        news, self._news = self._news, {}
        if news:
            with suppress(Gone, Full):
                await self._note_confirmed(tuple(news.items()))
