"""One broker, kept holding what is committed: publish, read back, repair, for as long as we run.

Nothing waits for a broker but a request with `?wait=confirmed`. What a broker should hold is read from the
view, so there is no queue to lose: the newest per service, whatever was in between.

A PUBACK proves nothing (on 3.1.1 Mosquitto acknowledges what its ACL or size limit throws away; a killed
broker forgets what it acknowledged). *Confirmed* means that our own subscription gave the payload back,
signed by a key of our root.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog
import trio

from config_manager.actors.mqtt.port import (
    BrokerUnavailable,
    Message,
    Transport,
    broken_as_itself,
)
from config_manager.actors.publishing.desk import Desk
from config_manager.actors.publishing.session import Session
from config_manager.config.brokers import BrokerAddress
from config_manager.config.world import backoff_s

_BACKOFF_S = (0.5, 5.0)
"""First and longest pause before connecting again; the longest bounds how soon a broker that comes
back is filled: within 10 s (README)."""
_TAKEN_OVER = 142
_TAKEN_OVER_S = (5.0, 60.0)
"""Pauses after another client took the connection over: each of ours takes it from that one."""
_WILL_WITHIN_S = 3600.0
"""How late the will of a connection may come, once the broker finds out that it is gone."""
_LIVED_S = 30.0
"""A connection that held this long was a good one: the next trouble starts with short pauses."""


class Publisher:
    """One broker across connections and its actor's crashes."""

    def __init__(
        self,
        address: BrokerAddress,
        transport: Transport,
        desk: Desk,
        *,
        will: Callable[[], Message],
        client_id: str,
    ) -> None:
        """will: the health that the broker says for us when we are gone, made for each connection."""
        self._address = address
        self._transport = transport
        self._desk = desk
        self._will = will
        self._client_id = client_id
        self._failures = 0
        self._taken_over = 0
        self._was_away = False
        self._connected_at = math.inf

    async def run(self) -> None:
        """Connect, work, and again, for ever."""
        refusals, outlet = self._desk.refusals, self._desk.outlet
        while True:
            self._connected_at = math.inf
            code: int | None = None
            try:
                with broken_as_itself():
                    async with self._transport.connect(
                        self._address, client_id=self._client_id, will=self._last_will()
                    ) as connection:
                        limit = connection.maximum_packet_bytes
                        refusals.connected(limit, after_absence=self._was_away)
                        self._was_away = False
                        await Session(self._desk, connection, self._connected).run()
            except BrokerUnavailable as error:
                code = error.code
                refusals.broke(code)
                self._was_away = self._was_away or self._connected_at == math.inf
                self._disconnected(str(error))
            finally:
                outlet.end()
            await trio.sleep(self._pause(code))

    def _pause(self, code: int | None) -> float:
        if trio.current_time() - self._connected_at > _LIVED_S:
            self._failures = self._taken_over = 0
        (first, longest), failures = _BACKOFF_S, self._failures
        if code == _TAKEN_OVER:
            (first, longest), failures = _TAKEN_OVER_S, self._taken_over
            self._taken_over += 1
        self._failures += 1
        pause = backoff_s(failures, first_s=first, longest_s=longest)
        fraction = self._desk.world.randomness.fraction()
        if code == _TAKEN_OVER:
            return pause * (1 + fraction) / 2
        return 0.05 + pause * fraction

    def _last_will(self) -> Message | None:
        """None where the health is somebody else's."""
        if self._desk.outlet.leaves_health:
            return None
        will = self._will()
        self._desk.echoes.sent(will.topic, will.payload, within_s=_WILL_WITHIN_S)
        return will

    def _connected(self) -> None:
        now, desk = trio.current_time(), self._desk
        self._connected_at = now
        desk.evidence.has_read_starts()
        desk.outlet.connected = True
        view = desk.broker_view
        view.state, view.since, view.last_error = "connected", now, None
        structlog.get_logger().info("broker connected", broker=view.url)

    def _disconnected(self, error: str) -> None:
        view = self._desk.broker_view
        view.leaves_health = False
        if view.state != "disconnected" or view.last_error != error:
            structlog.get_logger().warning("broker disconnected", broker=view.url, error=error)
        if view.state == "connected":
            view.since = trio.current_time()
        view.state, view.last_error = "disconnected", error
        view.holds.clear()  # the broker may lose everything meanwhile: the next session looks again
