"""What instances say on one broker; and taking away what it retains of those that were forgotten."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from config_manager.actors.mqtt.port import Connection, Message
from config_manager.actors.publishing.desk import Desk
from config_manager.actors.publishing.repairs import Repairs
from config_manager.actors.statuses import Leftover, NewlyRuns, NotTaken
from config_manager.config import wire
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.forgotten import FORGOTTEN, forgotten, newly_forgotten


class Instances:
    """On one connection."""

    def __init__(self, desk: Desk, connection: Connection, repairs: Repairs) -> None:
        self._desk = desk
        self._connection = connection
        self._repairs = repairs
        # rows of what was emptied here, or is emptied once it is read
        self._forgotten: Mapping[str, JsonObject] = {}
        self._emptied: set[str] = set()  # status topics whose empty message comes back to us

    async def read(self) -> None:
        """Ask for everything retained, again."""
        await self._connection.subscribe(wire.STATUS_FILTER, qos=0)
        # apart: an access list of before 0.6.0 refuses it
        await self._connection.subscribe(wire.SCHEMA_FILTER, qos=0)

    def begin(self) -> None:
        """What was forgotten before is emptied only where it is read: the broker may hold something newer."""
        self._forgotten = self._desk.view.committed.registered(FORGOTTEN)

    def heard(self, message: Message) -> None:
        """The log has a line where an instance runs something else than before."""
        if not message.payload and message.topic in self._emptied:
            self._emptied.discard(message.topic)  # our own; it may come after a newer receipt
            return
        desk, log = self._desk, structlog.get_logger()
        told = desk.statuses.take(
            desk.broker_view.url,
            message.topic,
            message.payload,
            retained=message.retained,
            now=desk.world.clock.now(),
        )
        desk.heard()
        match told:
            case NewlyRuns(receipt, running):
                log.info(
                    "receipt",
                    broker=desk.broker_view.url,
                    service=receipt.service,
                    instance=receipt.instance,
                    revision=running.revision,
                    epoch_seq=running.epoch_seq,
                    correlation_id=receipt.correlation_id,
                    request_id=receipt.correlation_id,
                )
            case NotTaken(reason):
                log.debug("no receipt", topic=message.topic[:256], reason=reason)
            case Leftover(service, instance):
                self._empty(service, instance)
            case None:
                pass

    def heard_schema(self, message: Message) -> None:
        """What some instance was built with."""
        desk = self._desk
        why = desk.schemas.take(message.topic, message.payload, desk.world.clock.now())
        if why is not None:
            structlog.get_logger().debug("no schema", topic=message.topic[:256], reason=why)
        desk.heard()

    def empty_what_was_forgotten(self) -> None:
        """What was forgotten since the last call."""
        rows = self._desk.view.committed.registered(FORGOTTEN)
        if rows is not self._forgotten:
            for service, instance in newly_forgotten(rows, self._forgotten):
                self._empty(service, instance)
            self._forgotten = rows

    def _empty(self, service: str, instance: str) -> None:
        """Take away what this broker retains of an instance. Never at once: a broker may repeat one message
        without end while what it retains is being read."""
        status = wire.status_topic(service, instance)

        def empty() -> None:
            if not self._desk.view.publishable:
                return  # the instance stays forgotten, and is emptied when it is read again
            self._emptied.add(status)
            # the receipt last: while it is there, this is not done
            for topic in (*self._schema_topics(service, instance), status):
                self._connection.hand_over(topic, b"", lambda _code: None)
            structlog.get_logger().info(
                "emptying", broker=self._desk.broker_view.url, service=service, instance=instance
            )

        if self._repairs.has_room_for(status):
            self._repairs.do(status, empty)

    def _schema_topics(self, service: str, instance: str) -> list[str]:
        """That of the schema which a forgotten instance named, unless another instance names it, too."""
        desk = self._desk
        what = forgotten(desk.view.committed, service, instance)
        if what is None or what.schema is None or not wire.is_digest(what.schema):
            return []
        is_shared = desk.statuses.names_schema(service, what.schema, but=instance)
        return [] if is_shared else [wire.schema_topic(service, what.schema)]
