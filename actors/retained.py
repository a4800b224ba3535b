"""What a broker still retains of ours, looked at while no server runs: the witnesses that it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from config_manager.actors.mqtt import BrokerUnavailable, Message, Transport, broken_as_itself
from config_manager.actors.statuses import SignKey, StatusBoard
from config_manager.config import strict_json, trust, wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.documents import ConfigUpdate, Root
from config_manager.config.names import Mark
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.trust import Distrust
from config_manager.config.world import World

_QUIET_S = 0.5
_WITHIN_S = 20.0
_MOST_ROOTS = 200
_FAR = 1_000_000
"""Revisions that an instance which nobody enrolled may claim beyond all that is proved."""
_MOST = MAX_INTEGER // 2
"""Whatever claims more, be it enrolled, would leave too few numbers to go on with."""


@dataclass
class Retained:
    """What was found. root: the newest that its chain leads to; roots: those that are not here, by version.
    marks: of all that is signed. claims: of instances that nobody enrolled. boot_seq: the newest start."""

    root: Root
    roots: dict[int, bytes] = field(default_factory=dict)
    marks: set[Mark] = field(default_factory=set)
    claims: set[Mark] = field(default_factory=set)
    boot_seq: int = 0

    def highest(self, known: Mark) -> tuple[Mark, int]:
        """(the highest mark, the highest revision) with what is known here. A claim counts as far as it is
        no nonsense: who only claims must not use the numbers up."""
        proved = max([known, *self.marks])
        revision = max(mark.revision for mark in [known, *self.marks])
        near = [
            claim
            for claim in self.claims
            if claim.epoch_seq <= proved.epoch_seq + _FAR and claim.revision <= revision + _FAR
        ]
        return max([proved, *near]), max([revision, *(claim.revision for claim in near)])


async def look(
    addresses: Sequence[BrokerAddress],
    transport: Transport,
    *,
    root: Root,
    sign_key: SignKey,
    world: World,
) -> tuple[Retained, dict[str, str]]:
    """What these brokers retain, and why which of them could not be asked. root: the newest here."""
    found, unreachable = Retained(root), dict[str, str]()
    now = world.clock.now()

    async def read(filters: Sequence[str], take: Callable[[str, Message], None]) -> None:
        for address in addresses:
            if str(address) not in unreachable:
                try:
                    with broken_as_itself():
                        await _read(address, filters, transport, world, partial(take, str(address)))
                except BrokerUnavailable as error:
                    unreachable[str(address)] = str(error)

    roots = _Roots(root.version)
    await read([wire.ROOTS_FILTER], roots.take)
    _walk(found, roots.messages, now)
    board = StatusBoard(sign_key)

    def take(broker: str, message: Message) -> None:
        if message.topic.startswith(wire.STATUS_PREFIX):
            board.take(broker, message.topic, message.payload, retained=True, now=now)
        else:
            _judge(found, message, now)

    await read([wire.SNAPSHOT_TOPIC, wire.CONFIG_FILTER, wire.STATUS_FILTER], take)
    for status in board.statuses():
        if (running := status.receipt.running) is not None:
            mark = Mark(running.epoch_seq, running.revision)
            if max(mark) <= _MOST:
                (found.marks if status.verified else found.claims).add(mark)
    return found, unreachable


class _Roots:
    """Messages that may be versions after the newest here; a broker decides nothing about how many."""

    def __init__(self, version: int) -> None:
        self.messages: list[Message] = []
        self._version = version

    def take(self, _broker: str, message: Message) -> None:
        with suppress(ValueError):
            is_newer = wire.root_version(message.topic) > self._version
            is_small = len(message.payload) <= wire.MAX_ENVELOPE_BYTES
            if is_newer and is_small and len(self.messages) < _MOST_ROOTS:
                self.messages.append(message)


async def _read(
    address: BrokerAddress,
    filters: Sequence[str],
    transport: Transport,
    world: World,
    take: Callable[[Message], None],
) -> None:
    """What is retained there, each as it comes: of what a broker sends nothing is kept in passing."""
    client_id = f"config-manager-restore-{world.randomness.uuid()[:8]}"
    async with transport.connect(address, client_id=client_id) as connection:
        await connection.subscribe(*filters, qos=0)
        incoming = connection.messages()
        with trio.move_on_after(_WITHIN_S):
            while True:
                with trio.move_on_after(_QUIET_S) as quiet:
                    take(await anext(incoming))
                if quiet.cancelled_caught:
                    break


def _walk(found: Retained, messages: Sequence[Message], now: float) -> None:
    """From the newest root here to the newest that follows from it."""
    while True:
        topic = wire.root_topic(found.root.version + 1)
        for message in messages:
            if message.topic == topic:
                with suppress(Distrust):
                    found.root = trust.judge_root(message.payload, found.root, now, topic=topic)
                    found.roots[found.root.version] = message.payload
                    break
        else:
            return


def _judge(found: Retained, message: Message, now: float) -> None:
    if message.topic == wire.SNAPSHOT_TOPIC:
        with suppress(Distrust, ValueError):
            snapshot, _ = trust.judge_snapshot(message.payload, found.root, now)
            found.marks.add(Mark(snapshot.epoch_seq, snapshot.revision))
            value = strict_json.loads_object(message.payload).get("beacon")
            beacon = trust.judge_beacon(value, found.root, now)
            found.marks.add(Mark(beacon.epoch_seq, beacon.revision))
            found.boot_seq = max(found.boot_seq, beacon.boot_seq)
    elif message.topic.startswith(wire.config_topic("")):
        with suppress(Distrust):
            envelope = trust.open_envelope(message.payload)
            body = trust.verify(envelope, wire.CONFIG_UPDATE, "config", found.root, now)
            found.marks.add(trust.parse_verified(body, ConfigUpdate.parse).mark)
