"""`config-manager doctor`: looks for what goes wrong in practice, and says what to do about it.

It asks the server over REST, looks at the data directory where it is given one, and tries on the
broker what a stranger and a neighbour service could try. What it writes there is under
`system/doctor/` (and one message, not retained and not a configuration, on a topic that no service
has), and is cleared again.
"""

from __future__ import annotations

import secrets
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import trio
from click.core import ParameterSource

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.port import BrokerUnavailable, Connection, Message
from config_manager.actors.publishing.refusals import packet_bytes
from config_manager.api.commands.doctor_remedies import remedy
from config_manager.api.commands.remote import Server, asks_a_server, clean, print_json
from config_manager.config import wire
from config_manager.config.brokers import BrokerAddress, parse_mqtt_urls
from config_manager.config.errors import ConfigManagerError, SettingsInvalid, the_reason
from config_manager.config.this_machine import is_loopback

Level = Literal["ok", "note", "warning", "failed"]
_MARK = {"ok": "✓", "note": "·", "warning": "!", "failed": "✗"}
_EXIT_FOUND = 5
_PROBE_PREFIX = "system/doctor/"
_ANSWER_WITHIN_S = 1.0
_QUIET_S = 0.5
_PUBLISHERS = 8
_RETAINED = 1_100
"""More than the 1,020 that Mosquitto as shipped gives a new subscriber."""


@dataclass(frozen=True, slots=True)
class Finding:
    """level: how bad. check: a stable name. detail: what was seen. remedy: what to do, or empty."""

    level: Level
    check: str
    detail: str
    remedy: str = ""


@click.command()
@click.option(
    "--mqtt-url",
    metavar="URL",
    envvar="CONFIG_MANAGER_MQTT_URL",
    show_envvar=True,
    help="The broker, with the server's own user: what config-manager is started with.",
)
@click.option(
    "--service-url",
    metavar="URL",
    envvar="CONFIG_MANAGER_SERVICE_MQTT_URL",
    show_envvar=True,
    help="The same broker with one service's user: is that kept to its own topics?",
)
@click.option(
    "--mosquitto-conf",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The broker's configuration: says what can't be seen from outside (persistence).",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The server's data directory, where this is its machine.",
)
@asks_a_server
def doctor(
    server: Server,
    as_json: bool,
    mqtt_url: str | None,
    service_url: str | None,
    mosquitto_conf: Path | None,
    data_dir: Path | None,
) -> None:
    """Look for what goes wrong in practice. Exit 5 where something failed, 0 otherwise.

    \b
      config-manager doctor
      config-manager doctor --mqtt-url mqtt://config-manager:…@broker \\
        --service-url mqtt://stt-worker:…@broker --mosquitto-conf /etc/mosquitto/mosquitto.conf \\
        --data-dir /var/lib/config-manager/data
    """
    findings = _ask_server(server)
    if data_dir is not None:
        findings += look_at_data(data_dir)
    if mosquitto_conf is not None:
        findings += read_mosquitto_conf(mosquitto_conf.read_text("utf-8", "replace"))
    source = click.get_current_context().get_parameter_source("mqtt_url")
    if source is ParameterSource.ENVIRONMENT and not _brokers(mqtt_url):
        mqtt_url = None  # the server's own setting: it says of itself how that broker is
    if mqtt_url is None:
        findings.append(
            Finding("note", "broker", "not tried", "give --mqtt-url: what the `ready` line says")
        )
    for address in _addresses(mqtt_url):
        findings += trio.run(_try_broker, address)
    for address in _addresses(service_url):
        findings += trio.run(_try_neighbour, address)
    if as_json:
        print_json({"findings": [asdict(one) for one in findings]})
    else:
        said = ""
        for one in findings:
            click.echo(f"{_MARK[one.level]} {one.check}: {clean(one.detail)}")
            if one.remedy and one.remedy != said:  # a dozen topics may want the same
                click.echo(f"    {one.remedy}")
            said = one.remedy
    sys.exit(_EXIT_FOUND if any(one.level == "failed" for one in findings) else 0)


def _brokers(url: str | None) -> list[BrokerAddress]:
    return [place for place in parse_mqtt_urls(url or "none:") if isinstance(place, BrokerAddress)]


def _addresses(url: str | None) -> list[BrokerAddress]:
    found = _brokers(url)
    if url and not found:
        raise SettingsInvalid(
            "doctor needs a broker's own URL: what the server's `ready` line says"
        )
    return found


# ── the server ─────────────────────────────────────────────────────────────────────────────────


def _ask_server(server: Server) -> list[Finding]:
    try:
        health = server.health()
    except ConfigManagerError as error:
        return [Finding("failed", "server", error.detail)]
    findings = []
    if health["ok"]:
        detail = f"healthy, revision {health['revision']}, {health['outbox_depth']} to confirm"
        findings.append(Finding("ok", "server", detail))
    elif not health["reasons"]:
        findings.append(Finding("failed", "server", f"{health['mode']}, and it says no reason"))
    level: Level = "warning" if health["ok"] else "failed"
    findings += [Finding(level, "server", reason, remedy(reason)) for reason in health["reasons"]]
    for url, state in health["broker"].items():
        level = "ok" if state == "connected" else "failed"
        findings.append(Finding(level, "server's broker", f"{url} is {state}"))
    if not health["broker"]:
        findings.append(Finding("warning", "server's broker", "none: nothing is delivered"))
    if not health["cache_available"]:
        findings.append(Finding("warning", "cache", "no last-known-good cache is written"))
    try:
        server.get("api", "v1", "config", holds="services")
    except ConfigManagerError as error:
        findings.append(Finding("failed", "token", error.detail))
    else:
        findings.append(Finding("ok", "token", "it is known, and may read"))
    return findings


# ── the data directory ─────────────────────────────────────────────────────────────────────────


def look_at_data(data_dir: Path) -> list[Finding]:
    """What can be seen from the files alone."""
    keys = data_dir / "keys"
    try:
        found = sorted(keys.iterdir())
    except OSError as error:
        return [Finding("failed", "keys", f"{keys.name}/: {error.strerror}")]
    findings = []
    open_ones = [path.name for path in (keys, *found) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_ones:
        remedy = "chmod 700 on the directory, 600 on the files, and change those keys"
        findings.append(
            Finding("failed", "keys", f"others can reach {', '.join(open_ones)}", remedy)
        )
    here = [path.name for path in found if path.suffix == ".key"]
    if "db.key" in here:
        findings.append(
            Finding(
                "warning",
                "keys beside the data",
                f"{len(here)} key files lie in {keys.name}/: whoever takes the whole directory reads "
                "everything; without keys/ it is worth nothing",
                "move them: --db-key-file, systemd's LoadCredential; leave keys/ out of backups",
            )
        )
    if "root.key" in here:
        findings.append(
            Finding(
                "note",
                "root key",
                "lies here: whoever takes it can name new publishers",
                "config-manager trust export-root --to DIR, and keep DIR offline",
            )
        )
    if (keys / "admin.token").exists():
        findings.append(
            Finding(
                "note",
                "admin token",
                "keys/admin.token still lies here",
                "make tokens for people (config-manager token create), then revoke `admin`",
            )
        )
    return findings or [Finding("ok", "keys", "elsewhere, and out of others' reach")]


# ── the broker's own configuration ─────────────────────────────────────────────────────────────


def read_mosquitto_conf(text: str) -> list[Finding]:
    """What a mosquitto.conf says about what can't be seen from outside."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            said[name] = value.strip()
    findings = []

    def expect(good: bool, check: str, detail: str, remedy: str) -> None:
        findings.append(Finding("ok" if good else "warning", check, detail, "" if good else remedy))

    persistent = said.get("persistence") == "true"
    expect(
        persistent,
        "persistence",
        "retained messages survive a restart" if persistent else "a restart forgets everything",
        "persistence true, autosave_interval 60 (config-manager refills it meanwhile)",
    )
    queued = said.get("max_queued_messages", "1000")
    enough = queued.isdigit() and int(queued) > 1_000  # noqa: PLR2004  Mosquitto's default
    expect(
        enough,
        "max_queued_messages",
        f"{queued}; 0 does not mean no limit",
        "max_queued_messages 100000: a new subscriber of more topics misses the rest, silently",
    )
    expect(
        said.get("set_tcp_nodelay") == "true",
        "set_tcp_nodelay",
        said.get("set_tcp_nodelay", "not set"),
        "set_tcp_nodelay true: deliveries stall for 40 ms now and then without",
    )
    expect(
        said.get("allow_anonymous") == "false" and "acl_file" in said,
        "access",
        f"allow_anonymous {said.get('allow_anonymous', 'not set')}, "
        f"{'an' if 'acl_file' in said else 'no'} acl_file",
        "deploy/mosquitto-acl and deploy/mosquitto-secure.conf show how",
    )
    return findings


# ── the broker, tried ──────────────────────────────────────────────────────────────────────────


async def _try_broker(address: BrokerAddress) -> list[Finding]:
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
        return [Finding("ok", "anonymous", "the broker turns away who has no login")]
    acl = "deploy/mosquitto-acl, and allow_anonymous false"
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

    async def publish() -> None:  # at QoS 1: what was published at QoS 0 no limit holds back
        while waiting:
            await ours.publish(waiting.pop(), b"1", qos=1, retain=True)

    async with trio.open_nursery() as nursery:
        for _ in range(_PUBLISHERS):
            nursery.start_soon(publish)
    try:
        for qos in (0, 1):
            async with _connected(address) as reader:
                await reader.subscribe(run + "+", qos=qos)
                got = await _burst(reader)
            retained = sum(message.payload == b"1" for message in got)
            if retained == _RETAINED:
                continue
            findings.append(
                Finding(
                    "warning" if retained else "failed",
                    "retained messages",
                    f"{retained} of {_RETAINED} came at QoS {qos}",
                    "max_queued_messages 100000"
                    if retained
                    else "allow config-manager's user to read and write system/#",
                )
            )
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            for topic in topics:
                await ours.publish(topic, b"", qos=0, retain=True)
    return findings or [
        Finding(
            "ok", "broker limits", f"{_RETAINED} retained messages and one of 256 KiB came back"
        )
    ]


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


async def _try_neighbour(address: BrokerAddress) -> list[Finding]:
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
                    detail = f"{who} may read and write {what}"
                    findings.append(
                        Finding("warning", "missing ACL", detail, "deploy/mosquitto-acl")
                    )
            await ears.subscribe(wire.CONFIG_FILTER, qos=0)
            mine = wire.config_topic(address.username or "")
            seen = {m.topic for m in await _burst(ears) if m.topic != mine}
            if any(topic.startswith(wire.config_topic("")) for topic in seen):
                detail = f"{who} may read other services' configurations"
                findings.append(Finding("warning", "missing ACL", detail, "deploy/mosquitto-acl"))
    except BrokerUnavailable as error:
        return [Finding("failed", "service's login", f"{address}: {error}")]
    return findings or [Finding("ok", "ACL", f"{who} is kept to its own topics")]


@asynccontextmanager
async def _connected(address: BrokerAddress) -> AsyncIterator[Connection]:
    client_id = f"config-manager-doctor-{secrets.token_hex(4)}"
    async with AiomqttTransport().connect(address, client_id=client_id) as connection:
        yield connection


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
    messages = connection.messages()
    with trio.move_on_after(_ANSWER_WITHIN_S) as waiting:
        async for message in messages:
            found.append(message)
            waiting.deadline = trio.current_time() + _QUIET_S
            if message.payload == until:
                break
    return found
