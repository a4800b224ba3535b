"""The schema that a service was built with, published at each broker that does not hold it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from config_manager.client.model.published_schema import PublishedSchema
from config_manager.client.state.log import say
from config_manager.config import wire

GIVEN_WITHIN_S = 1.0
"""How long after the SUBACK a broker may take to give what it holds."""
_TRIES = 3
"""Connections in a row that may break meanwhile. A broker whose access list does not know the topic may hang up
each time, and the configuration must come all the same."""


class SchemaOffer:
    """One instance's. A broker is known by the client id that connects to it."""

    def __init__(
        self, service: str, schema: PublishedSchema, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._service = service
        self._topic = wire.schema_topic(service, schema.digest)
        self._payload = schema.payload
        self._sleep = sleep
        self._held_by = set[str]()
        self._tries = Counter[str]()

    def takes(self, client_id: str, topic: str, payload: bytes) -> bool:
        """Whether a message is about the schema, and so no configuration."""
        if topic != self._topic:
            return False
        if payload == self._payload:
            self._held_by.add(client_id)
        return True

    async def make(
        self,
        subscribe: Callable[..., Awaitable[object]],
        publish: Callable[[str, bytes], Awaitable[None]],
        client_id: str,
    ) -> None:
        """On a new connection, beside everything else."""
        if self._payload is None or self._tries[client_id] >= _TRIES:
            return
        self._tries[client_id] += 1
        if self._tries[client_id] == _TRIES:
            detail = f"the connection broke {_TRIES - 1} times meanwhile: this is the last try"
            say(logging.WARNING, "schema not published", service=self._service, detail=detail)
        self._held_by.discard(client_id)
        await subscribe(self._topic)
        await self._sleep(GIVEN_WITHIN_S)
        if client_id not in self._held_by:
            await publish(self._topic, self._payload)
        self._tries[client_id] = 0
