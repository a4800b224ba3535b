"""What doctor tries on a broker: what a stranger and a neighbour service could do, and how much it takes.

What is written is under `system/doctor/`, and cleared again. One message more, not retained and not a
configuration, goes to a topic that no service has.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager, aclosing

import trio

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.port import BrokerUnavailable, Connection, Message
from config_manager.actors.publishing.refusals import packet_bytes
from config_manager.api.commands.doctor_findings import Finding
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import the_reason
from config_manager.config.this_machine import is_loopback

_PROBE_PREFIX = "system/doctor/"
_ANSWER_WITHIN_S = 1.0
_QUIET_S = 0.5
_CLEARED_WITHIN_S = 10
_PUBLISHERS = 8
_RETAINED = 1_100
"""More than the 1,020 that Mosquitto as shipped gives a new subscriber."""
_ACL = "deploy/mosquitto-acl"


async def try_broker(address: BrokerAddress) -> list[Finding]:
    """With the server's own login."""
    findings: list[Finding] = []
    try:
        async with _connected(address) as ours:
            findings.append(Finding("ok", "broker", f"{address} takes our login"))
            findings += await _try_anonymous(address, ours)
            findings += await _try_limits(address, ours)
    except* BrokerUnavailable as lost:
        error = the_reason(lost, BrokerUnavailable)
        findings.append(Finding("failed", "broker", f"{address}: {error}"))
    if not address.tls and not is_loopback(address.host):
        findings.append(
            Finding(
                "warning",
                "broker TLS",
                f"{address} is in the clear: configurations can be read on the way (not changed)",
                "mqtts://, see deploy/mosquitto-secure.conf",
            )
        )
    return findings


async def _try_anonymous(address: BrokerAddress, ours: Connection) -> list[Finding]:
    """What somebody without a login gets to do."""
    stranger = BrokerAddress(address.host, address.port, address.tls, ca=address.ca)
    topic = wire.config_topic(f"doctor-{secrets.token_hex(4)}")
    try:
        async with _connected(stranger) as theirs:
            writes = await _reaches(theirs, ours, topic)
    except BrokerUnavailable:
        return [Finding("ok", "anonymous", "the broker turns away clients without a login")]
    acl = f"{_ACL}, and allow_anonymous false"
    if writes:
        detail = "anybody may write on configuration topics: noise, though nobody runs it"
        return [Finding("warning", "anonymous writes", detail, acl)]
    return [Finding("warning", "anonymous", "anybody may connect, but not write there", acl)]


async def _try_limits(address: BrokerAddress, ours: Connection) -> list[Finding]:
    """Whether a big message and a great many retained ones come back."""
    run = f"{_PROBE_PREFIX}{secrets.token_hex(4)}/"
    topics = [f"{run}{number}" for number in range(_RETAINED)]
    findings = await _try_big(address, run + "big")
    waiting = list(topics)

    async def publish() -> None:  # at QoS 1, because no limit holds back what is published at QoS 0
        while waiting:
            await ours.publish(waiting.pop(), b"1", qos=1, retain=True)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(_PUBLISHERS):
                nursery.start_soon(publish)
        for qos in (0, 1):
            async with _connected(address) as reader:
                await reader.subscribe(run + "+", qos=qos)
                got = await _burst(reader)
            retained = sum(message.payload == b"1" for message in got)
            if retained != _RETAINED:
                findings.append(_too_few(retained, qos))
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(_CLEARED_WITHIN_S):
            for topic in topics:
                await ours.publish(topic, b"", qos=0, retain=True)
    if not findings:
        said = f"{_RETAINED} retained messages and one of 256 KiB came back"
        findings.append(Finding("ok", "broker limits", said))
    return findings


def _too_few(retained: int, qos: int) -> Finding:
    said = f"{retained} of {_RETAINED} came at QoS {qos}"
    if retained:
        return Finding("warning", "retained messages", said, "max_queued_messages 100000")
    cure = "allow config-manager's user to read and write system/#"
    return Finding("failed", "retained messages", said, cure)


async def _try_big(address: BrokerAddress, topic: str) -> list[Finding]:
    """On connections of its own: a broker may hang up at what is too large for it."""
    big = b"x" * wire.MAX_ENVELOPE_BYTES
    came = False
    detail = f"a message of {len(big):,} bytes did not come back"
    try:
        async with _connected(address) as ours, _connected(address) as reader:
            limit = ours.maximum_packet_bytes
            if limit is not None and packet_bytes(topic, big) > limit:
                detail = f"the broker takes no more than {limit:,} bytes at once"
            else:
                await ours.publish(topic, big, retain=True)
                await reader.subscribe(topic, qos=0)
                came = any(message.payload == big for message in await _burst(reader, until=big))
                await ours.publish(topic, b"", retain=True)
    except BrokerUnavailable as error:
        detail = f"the broker hangs up at a message of {len(big):,} bytes: {error}"
    if came:
        return []
    return [
        Finding(
            "failed",
            "message size",
            detail,
            "raise its limit (message_size_limit, max_packet_size), or keep every service's "
            "configuration and the number of services small enough",
        )
    ]


async def try_neighbour(address: BrokerAddress) -> list[Finding]:
    """What one service's login gets to do beyond its own topics."""
    who = address.username or "this login"
    findings: list[Finding] = []
    try:
        async with _connected(address) as theirs, _connected(address) as ears:
            other = f"doctor-{secrets.token_hex(4)}"
            for topic, what in (
                (wire.config_topic(other), "configurations"),
                (wire.status_topic(other, "probe"), "another service's status"),
            ):
                if await _reaches(theirs, ears, topic):
                    findings.append(_no_acl(f"{who} may read and write {what}"))
            await ears.subscribe(wire.CONFIG_FILTER, qos=0)
            mine = wire.config_topic(address.username or "")
            seen = {m.topic for m in await _burst(ears) if m.topic != mine}
            if any(topic.startswith(wire.config_topic("")) for topic in seen):
                findings.append(_no_acl(f"{who} may read other services' configurations"))
    except BrokerUnavailable as error:
        return [Finding("failed", "service's login", f"{address}: {error}")]
    return findings or [Finding("ok", "ACL", f"{who} is kept to its own topics")]


def _no_acl(detail: str) -> Finding:
    return Finding("warning", "missing ACL", detail, _ACL)


def _connected(address: BrokerAddress) -> AbstractAsyncContextManager[Connection]:
    client_id = f"config-manager-doctor-{secrets.token_hex(4)}"
    return AiomqttTransport().connect(address, client_id=client_id)


async def _reaches(writer: Connection, reader: Connection, topic: str) -> bool:
    """Whether what one sends on a topic, not retained, comes to the other."""
    marker = secrets.token_bytes(8)
    try:
        await reader.subscribe(topic, qos=0)
        await writer.publish(topic, marker, qos=0)
    except BrokerUnavailable:
        return False
    return any(m.payload == marker for m in await _burst(reader, until=marker))


async def _burst(connection: Connection, until: bytes | None = None) -> list[Message]:
    """What arrives until it has been quiet for half a second, or this payload came."""
    found: list[Message] = []
    async with aclosing(connection.messages()) as messages:
        with trio.move_on_after(_ANSWER_WITHIN_S) as waiting:
            async for message in messages:
                found.append(message)
                waiting.deadline = trio.current_time() + _QUIET_S
                if message.payload == until:
                    break
    return found
