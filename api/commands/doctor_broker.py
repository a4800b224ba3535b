"""What doctor tries on a broker: what a stranger and a neighbour service could do, and how much it takes.

What is written is under `system/doctor/`, and cleared again. One message more, not retained and not a
configuration, goes to a topic that no service has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import replace

import trio

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.port import (
    Announced,
    BrokerUnavailable,
    Connection,
    Message,
    Transport,
)
from config_manager.actors.publishing.refusals import packet_bytes
from config_manager.api.commands.doctor_findings import Finding, remedy
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import the_reason
from config_manager.config.this_machine import is_loopback

_PROBE_PREFIX = "system/doctor/"
_ANSWER_WITHIN_S = 1.0
_QUIET_S = 0.5
_BIG_WITHIN_S = 10.0
_SLOW_S = 2.0
"""From here on 256 KiB count as slow."""
_CLEARED_WITHIN_S = 10
_ALL_WITHIN_S = 120.0
_PUBLISHERS = 8
_RETAINED = 1_100
"""More than the 1,020 that Mosquitto as shipped gives a new subscriber."""
_MOST_HEARD, _LONGEST_BURST_S = 10 * _RETAINED, 30.0
"""Of a broker that never stops sending."""
_ACL = "deploy/mosquitto-acl"
_ANOTHER = "let it do so, or take a broker that does (docs/brokers.md)"
_MORE = (
    "let it give a client more: max_queued_messages 100000 (Mosquitto), match_retained_limit and max_queue "
    "(ejabberd)"
)
_REFUSED = 128
"""From here on the code of a SUBACK is a refusal."""


async def try_broker(address: BrokerAddress, transport: Transport | None = None) -> list[Finding]:
    """With the server's own login. transport: the seam for tests."""
    findings: list[Finding] = []
    place = _Place(address, transport or AiomqttTransport())
    with trio.move_on_after(_ALL_WITHIN_S) as whole:
        try:
            async with place.connected() as ours:
                findings.append(Finding("ok", "broker", f"{address} takes our login"))
                findings += _look_at(ours.announced)
                if not any(one.level == "failed" for one in findings):
                    findings += await _try_anonymous(place, ours)
                    findings += await _try_what_is_needed(place, ours)
        except* BrokerUnavailable as lost:
            said = f"{address}: {the_reason(lost, BrokerUnavailable)}"
            findings.append(Finding("failed", "broker", said, remedy(f"broker {said}")))
    if whole.cancelled_caught:
        said = f"{address}: trying it took over {_ALL_WITHIN_S:g} s, which is too slow to be used"
        findings.append(Finding("failed", "broker", said))
    if not address.tls and not is_loopback(address.host):
        findings.append(
            Finding(
                "warning",
                "broker TLS",
                f"{address} is in the clear: configurations can be read on the way (not changed)",
                f"{address.scheme}s://, see deploy/mosquitto-secure.conf",
            )
        )
    return findings


class _Place:
    """A broker, and how it is reached."""

    def __init__(self, address: BrokerAddress, transport: Transport) -> None:
        self.address = address
        self._transport = transport

    def connected(self) -> AbstractAsyncContextManager[Connection]:
        client_id = f"config-manager-doctor-{secrets.token_hex(4)}"
        return self._transport.connect(self.address, client_id=client_id)

    def of_strangers(self) -> _Place:
        """Without a login."""
        nobody = replace(self.address, username=None, password=None, cert=None, key=None)
        return _Place(nobody, self._transport)


def _look_at(announced: Announced) -> Iterator[Finding]:
    """What a broker says that it can't do, and does not know."""
    if announced.protocol != "5":
        said = "it knows 3.1.1 alone: it announces no limits, and gives no reason when it refuses"
        yield Finding("note", "MQTT version", said)
    if not announced.keeps_retained:
        said = "it keeps none: who connects later is given no configuration"
        yield Finding("failed", "retained messages", said, _ANOTHER)
    if not announced.takes_wildcards:
        said = "it takes no filter with a +, by which the server reads what instances say"
        yield Finding("failed", "subscriptions", said, _ANOTHER)
    if announced.maximum_qos < 1:
        said = "it takes QoS 0 alone, so that it acknowledges nothing and messages may get lost"
        yield Finding("failed", "QoS 1", said, _ANOTHER)


async def _try_anonymous(place: _Place, ours: Connection) -> list[Finding]:
    """What somebody without a login gets to do."""
    topic = wire.config_topic(f"doctor-{secrets.token_hex(4)}")
    try:
        async with place.of_strangers().connected() as theirs:
            writes = await _reaches(theirs, ours, topic)
    except BrokerUnavailable:
        return [Finding("ok", "anonymous", "the broker turns away clients without a login")]
    acl = f"{_ACL}, and allow_anonymous false"
    if writes:
        detail = "anybody may write on configuration topics: noise, though nobody runs it"
        return [Finding("warning", "anonymous writes", detail, acl)]
    return [Finding("warning", "anonymous", "anybody may connect, but not write there", acl)]


async def _try_what_is_needed(place: _Place, ours: Connection) -> list[Finding]:
    """What configurations need of a broker, the simplest first: each is pointless without the one before."""
    run = f"{_PROBE_PREFIX}{secrets.token_hex(4)}/"
    try:
        findings = await _try_retained(place, ours, run)
    finally:
        await _clear(ours, [run + "one"])
    if findings:
        return findings
    try:
        findings = await _try_big(place, run + "big")
    finally:
        await _clear(ours, [run + "big"])
    findings += await _try_many(place, ours, run)
    if not findings:
        said = f"{_RETAINED} retained messages and one of 256 KiB came back"
        findings.append(Finding("ok", "broker limits", said))
    return findings


async def _try_retained(place: _Place, ours: Connection, run: str) -> list[Finding]:
    """Whether a message comes to a client that is there, and to one that subscribes later: by name, and by a wildcard."""
    topic, marker = run + "one", secrets.token_bytes(8)
    async with place.connected() as there:
        granted = max(await there.subscribe(topic, qos=1), default=_REFUSED)
        await ours.publish(topic, marker, qos=1, retain=True)
        comes = _has(await _burst(there, until=marker), marker)
    acl = f"allow config-manager's user to read and write system/# ({_ACL})"
    if granted >= _REFUSED:
        said = f"it refuses our subscription under {_PROBE_PREFIX} with code {granted}"
        return [Finding("failed", "subscriptions", said, acl)]
    if not comes:
        said = f"what we write under {_PROBE_PREFIX} does not come back to us"
        return [Finding("failed", "our topics", said, acl)]
    if granted < 1:
        said = "it grants QoS 0 alone, so that messages may get lost"
        return [Finding("failed", "QoS 1", said, _ANOTHER)]
    for one_filter in (topic, run + "+"):
        async with place.connected() as late:
            await late.subscribe(one_filter, qos=1)
            if not _has(await _burst(late, until=marker), marker):
                return [_kept_from_latecomers(one_filter)]
    return []


def _kept_from_latecomers(topic_filter: str) -> Finding:
    if topic_filter.endswith("+"):
        return Finding(
            "warning",
            "retained messages",
            "it gives them to who subscribes by name, and not to a filter with a +: the server sends every "
            "configuration again each minute, and after a start it knows no instance until that speaks",
            "it can be lived with, if all clients are 0.5.0 or newer: older ones never learn of a newer root that "
            "they missed (docs/brokers.md)",
        )
    said = (
        "it keeps none, or gives none to a client that connects later: that gets no configuration"
    )
    return Finding("failed", "retained messages", said, _ANOTHER)


def _has(messages: list[Message], marker: bytes) -> bool:
    return any(message.payload == marker for message in messages)


async def _clear(ours: Connection, topics: list[str]) -> None:
    """Whatever happened before."""
    with (
        trio.CancelScope(shield=True),
        trio.move_on_after(_CLEARED_WITHIN_S),
        suppress(BrokerUnavailable),
    ):
        for topic in topics:
            await ours.publish(topic, b"", qos=0, retain=True)


async def _try_many(place: _Place, ours: Connection, run: str) -> list[Finding]:
    """Whether a great many retained messages come back."""
    topics = [f"{run}{number}" for number in range(_RETAINED)]
    findings: list[Finding] = []
    waiting = list(topics)

    async def publish() -> None:  # at QoS 1, because no limit holds back what is published at QoS 0
        while waiting:
            await ours.publish(waiting.pop(), b"1", qos=1, retain=True)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(_PUBLISHERS):
                nursery.start_soon(publish)
        for qos in (0, 1):
            async with place.connected() as reader:
                await reader.subscribe(run + "+", qos=qos)
                retained = sum(message.payload == b"1" for message in await _burst(reader))
            if retained != _RETAINED:
                said = f"{retained} of {_RETAINED} came at QoS {qos}"
                findings.append(Finding("warning", "retained messages", said, _MORE))
    finally:
        await _clear(ours, topics)
    return findings


async def _try_big(place: _Place, topic: str) -> list[Finding]:
    """On connections of its own: a broker may hang up at what is too large for it."""
    big = b"x" * wire.MAX_ENVELOPE_BYTES
    said = f"a message of {len(big):,} bytes"
    took_s: float | None = None
    detail = f"{said} did not come back"
    try:
        async with place.connected() as ours, place.connected() as reader:
            limit = ours.maximum_packet_bytes
            if limit is not None and packet_bytes(topic, big) > limit:
                detail = f"the broker takes no more than {limit:,} bytes at once"
            else:
                await ours.publish(topic, big, retain=True)
                began = trio.current_time()
                await reader.subscribe(topic, qos=0)
                if _has(await _burst(reader, until=big, within_s=_BIG_WITHIN_S), big):
                    took_s = trio.current_time() - began
    except BrokerUnavailable as error:
        detail = f"the broker hangs up at {said}: {error}"
    if took_s is None:
        cure = (
            "raise its limit (message_size_limit, max_packet_size), or keep every service's configuration and "
            "the number of services small enough"
        )
        return [Finding("failed", "message size", detail, cure)]
    if took_s > _SLOW_S:
        detail = f"{said} took {took_s:.1f} s to come back"
        cure = "mqtt:// instead of ws://, if that is how it is reached: some brokers are slow there (docs/brokers.md)"
        return [Finding("warning", "speed", detail, cure)]
    return []


async def try_neighbour(address: BrokerAddress) -> list[Finding]:
    """What one service's login gets to do beyond its own topics."""
    place = _Place(address, AiomqttTransport())
    who = address.username or "this login"
    findings: list[Finding] = []
    try:
        async with place.connected() as theirs, place.connected() as ears:
            other = f"doctor-{secrets.token_hex(4)}"
            for topic, what in (
                (wire.config_topic(other), "configurations"),
                (wire.status_topic(other, "probe"), "another service's status"),
                (wire.schema_topic(other, "0" * 64), "another service's schemas"),
            ):
                if await _reaches(theirs, ears, topic):
                    findings.append(_no_acl(f"{who} may read and write {what}"))
            await ears.subscribe(wire.CONFIG_FILTER, qos=0)
            mine = wire.config_topic(address.username or "")
            seen = {m.topic for m in await _burst(ears) if m.topic != mine}
            if any(topic.startswith(wire.config_topic("")) for topic in seen):
                findings.append(_no_acl(f"{who} may read other services' configurations"))
    except BrokerUnavailable as error:
        return [
            Finding("failed", "service's login", f"{address}: {error}", remedy(f"broker {error}"))
        ]
    return findings or [Finding("ok", "ACL", f"{who} is kept to its own topics")]


def _no_acl(detail: str) -> Finding:
    return Finding("warning", "missing ACL", detail, _ACL)


async def _reaches(writer: Connection, reader: Connection, topic: str) -> bool:
    """Whether what one sends on a topic, not retained, comes to the other."""
    marker = secrets.token_bytes(8)
    try:
        await reader.subscribe(topic, qos=0)
        await writer.publish(topic, marker, qos=0)
    except BrokerUnavailable:
        return False
    return _has(await _burst(reader, until=marker), marker)


async def _burst(
    connection: Connection, until: bytes | None = None, within_s: float = _ANSWER_WITHIN_S
) -> list[Message]:
    """What arrives until it has been quiet for half a second, or this payload came. within_s: the first of it.
    Raises BrokerUnavailable if it never ends."""
    found: list[Message] = []
    ends_at = trio.current_time() + _LONGEST_BURST_S
    async with aclosing(connection.messages()) as messages:
        with trio.move_on_after(within_s) as waiting:
            async for message in messages:
                found.append(message)
                waiting.deadline = trio.current_time() + _QUIET_S
                if message.payload == until:
                    break
                if len(found) > _MOST_HEARD or trio.current_time() > ends_at:
                    raise BrokerUnavailable("it never stops sending")
    return found
