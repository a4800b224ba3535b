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
    """Across connections."""

    def __init__(
        self,
        broker: BrokerView,
        confirmations: Confirmations,
        note_confirmed: Callable[[tuple[tuple[str, int], ...]], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._confirmations = confirmations
        self._note_confirmed = note_confirmed
        self._news: dict[str, int] = {}

    def confirm(self, state: ServiceState) -> None:
        """It was read back; the log has a line for each new revision. While another client writes there as
        well, a read-back counts for nothing: it may be overwritten by now."""
        if wire.config_topic(state.service) in self._broker.contested:
            return
        if self._broker.holds.get(state.service) != state.revision:
            self._news[state.service] = state.revision
            structlog.get_logger().info("confirmed", broker=self._broker.url, **about(state))
        self._confirmations.note(self._broker, state.service, state.revision)

    def lost(self, service: str) -> None:
        """Another client wrote there: until ours is read back again, the broker holds nothing of ours."""
        self._broker.holds.pop(service, None)

    async def tell_storing(self) -> None:
        """What was read back since the last call: for the outbox, together and at leisure."""
        news, self._news = self._news, {}
        if news:
            with suppress(Gone, Full):
                await self._note_confirmed(tuple(news.items()))
