"""What a broker still retains of ours, read while no server runs: the witnesses that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import trio

from config_manager.actors.mqtt.port import (
    BrokerUnavailable,
    Connection,
    Message,
    Transport,
    broken_as_itself,
)
from config_manager.actors.statuses import SignKey, StatusBoard
from config_manager.config import strict_json, trust, wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.trust import Distrust
from config_manager.config.world import World

_WITHIN_S = 20.0
_LOOK_S = 0.01
_MOST_BYTES = 256 * 1024 * 1024
_MOST_ROOTS = 10_000
_FAR = 1_000_000
"""Claims may be that many revisions beyond what is proved."""
_NOTHING = Mark(0, 0)


@dataclass
class Retained:
    """What was found. root: the newest of the chain; roots: those that are not here, by version. mark, revision:
    the highest that our keys signed. claims: what instances say they run. boot_seq: of the newest start."""

    root: Root
    roots: dict[int, bytes] = field(default_factory=dict[int, bytes])
    mark: Mark = _NOTHING
    revision: int = 0
    claims: list[Mark] = field(default_factory=list[Mark])
    boot_seq: int = 0

    def note_signed(self, mark: Mark) -> None:
        """Note a mark that our keys signed."""
        self.mark = max(self.mark, mark)
        self.revision = max(self.revision, mark.revision)

    def highest(self, *known: Mark) -> tuple[Mark, int]:
        """(the highest mark, the highest revision), with what is known here. An instance may have seen a
        revision that is lost everywhere else."""
        marks = [self.mark, *known]
        marks += [claim for claim in self.claims if self.may_be_true(claim, *known)]
        return max(marks), max([self.revision, *(mark.revision for mark in marks)])

    def may_be_true(self, claim: Mark, *known: Mark) -> bool:
        """No server comes that far beyond what others know; a false claim must not use the numbers up."""
        epoch_seq = max(self.mark, *known).epoch_seq
        revision = max([self.revision, *(mark.revision for mark in known)])
        return claim.epoch_seq <= epoch_seq + _FAR and claim.revision <= revision + _FAR


async def look(
    addresses: Sequence[BrokerAddress],
    transport: Transport,
    *,
    root: Root,
    sign_key: SignKey,
    world: World,
) -> tuple[Retained, dict[str, str]]:
    """What these brokers retain, and for each broker that could not be read to its end, why. root: the newest
    here."""
    found, board, unread = Retained(root), StatusBoard(sign_key), dict[str, str]()
    for address in addresses:
        reader = _Reader(str(address), found, board, world)
        try:
            with broken_as_itself(), trio.fail_after(_WITHIN_S):
                await reader.read(address, transport)
        except BrokerUnavailable as error:
            unread[str(address)] = str(error)
        except trio.TooSlowError:
            unread[str(address)] = f"it was not read to its end within {_WITHIN_S:.0f} s"
    for status in board.statuses():
        if (running := status.receipt.running) is not None:
            found.claims.append(Mark(running.epoch_seq, running.revision))
    return found, unread


class _Reader:
    """One broker's retained messages, judged as they come: only what they show is kept."""

    def __init__(self, name: str, found: Retained, board: StatusBoard, world: World) -> None:
        self._name = name
        self._found = found
        self._board = board
        self._world = world
        self._roots: dict[str, bytes] = {}
        self._snapshot = b""
        self._bytes = 0

    async def read(self, address: BrokerAddress, transport: Transport) -> None:
        """Roots and snapshot first: they say which keys sign. A broker that answers the next subscription has
        sent everything that it retains for the one before."""
        client_id = f"config-manager-restore-{self._world.randomness.uuid()[:8]}"
        async with (
            transport.connect(address, client_id=client_id) as connection,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._take_all, connection)
            await self._ask(connection, wire.ROOTS_FILTER, wire.SNAPSHOT_TOPIC)
            await self._walk(connection)
            self._judge_snapshot()
            await self._ask(connection, wire.CONFIG_FILTER, wire.STATUS_FILTER)
            nursery.cancel_scope.cancel()

    async def _ask(self, connection: Connection, *filters: str) -> None:
        """Until everything was read that is retained under these."""
        await connection.subscribe(*filters, qos=0)
        await connection.subscribe(wire.HEALTH_TOPIC, qos=0)
        while True:  # no event says that everything was read
            await trio.sleep(_LOOK_S)
            if not connection.has_unread:
                return

    async def _take_all(self, connection: Connection) -> None:
        async with aclosing(connection.messages()) as messages:
            async for message in messages:
                self._bytes += len(message.payload)
                if self._bytes > _MOST_BYTES:
                    raise BrokerUnavailable(f"it sends more than {_MOST_BYTES >> 20} MiB")
                if message.retained:
                    self._take(message)

    def _take(self, message: Message) -> None:
        now = self._world.clock.now()
        if message.topic.startswith(wire.STATUS_PREFIX):
            self._board.take(self._name, message.topic, message.payload, retained=True, now=now)
        elif message.topic == wire.SNAPSHOT_TOPIC:
            self._snapshot = message.payload
        elif message.topic.startswith(wire.config_topic("")):
            with suppress(Distrust):
                envelope = trust.open_envelope(message.payload)
                root = self._found.root
                body = trust.verify(envelope, wire.CONFIG_UPDATE, "config", root, now)
                self._found.note_signed(trust.parse_verified(body, ConfigUpdate.parse).mark)
        elif len(self._roots) < _MOST_ROOTS and len(message.payload) <= wire.MAX_ENVELOPE_BYTES:
            self._roots[message.topic] = message.payload

    async def _walk(self, connection: Connection) -> None:
        """From the newest root here to the newest that follows from it."""
        found, now = self._found, self._world.clock.now()
        while True:
            topic, *ahead = wire.next_root_topics(found.root.version)
            if topic not in self._roots:
                await self._ask(connection, topic, *ahead)
            if topic not in self._roots:
                return
            try:
                found.root = trust.judge_root(self._roots[topic], found.root, now, topic=topic)
            except Distrust:
                return
            found.roots[found.root.version] = self._roots[topic]

    def _judge_snapshot(self) -> None:
        found, now = self._found, self._world.clock.now()
        with suppress(Distrust, ValueError):
            snapshot, _ = trust.judge_snapshot(self._snapshot, found.root, now)
            found.note_signed(Mark(snapshot.epoch_seq, snapshot.revision))
            value = strict_json.loads_object(self._snapshot).get("beacon")
            beacon = trust.judge_beacon(value, found.root, now)
            found.note_signed(Mark(beacon.epoch_seq, beacon.revision))
            found.boot_seq = max(found.boot_seq, beacon.boot_seq)
