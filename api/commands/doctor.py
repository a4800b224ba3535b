"""`config-manager doctor`: looks for what goes wrong in practice, and says what to do about it.

It asks the server over REST, reads the data directory and the broker's configuration if it is given them,
and tries the broker.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource

from config_manager.api.commands.doctor_findings import Finding, Severity, remedy
from config_manager.api.commands.options import asks_a_server
from config_manager.api.commands.output import Shown, clean
from config_manager.api.commands.remote import Server
from config_manager.config.brokers import BrokerAddress, parse_mqtt_urls
from config_manager.config.errors import ConfigManagerError, SettingsInvalid

_MARK = {"ok": "✓", "note": "·", "warning": "!", "failed": "✗"}
_EXIT_FOUND = 5
_MOSQUITTOS_QUEUE = 1_000
"""What Mosquitto keeps for a client if nothing is said."""


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
    help="The server's data directory, if this is its machine.",
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
    """Look for what goes wrong in practice. Exit 5 if something failed, 0 otherwise.

    \b
      config-manager doctor
      config-manager doctor --mqtt-url mqtt://config-manager:…@broker \\
        --service-url mqtt://stt-worker:…@broker --mosquitto-conf /etc/mosquitto/mosquitto.conf \\
        --data-dir /var/lib/config-manager/data
    """
    findings = list(ask_server(server))
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
    findings += try_brokers(_addresses(mqtt_url), _addresses(service_url))
    value = {"findings": [asdict(one) for one in findings]}
    Shown(value, _lines(findings)).show(as_json=as_json)
    sys.exit(_EXIT_FOUND if any(one.level == "failed" for one in findings) else 0)


def try_brokers(ours: list[BrokerAddress], of_services: list[BrokerAddress]) -> list[Finding]:
    if not ours and not of_services:
        return []
    import trio

    from config_manager.api.commands.doctor_broker import try_broker, try_neighbour

    found: list[Finding] = []
    for address in ours:
        found += trio.run(try_broker, address)
    for address in of_services:
        found += trio.run(try_neighbour, address)
    return found


def _lines(findings: list[Finding]) -> Iterator[str]:
    said = ""
    for one in findings:
        yield f"{_MARK[one.level]} {one.check}: {clean(one.detail)}"
        if one.remedy and one.remedy != said:  # a dozen topics may want the same
            yield f"    {one.remedy}"
        said = one.remedy


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


def ask_server(server: Server) -> Iterator[Finding]:
    try:
        health = server.health()
    except ConfigManagerError as error:
        yield Finding("failed", "server", error.detail)
        return
    if health["ok"]:
        detail = f"healthy, revision {health['revision']}, {health['outbox_depth']} to confirm"
        yield Finding("ok", "server", detail)
    elif not health["reasons"]:
        yield Finding("failed", "server", f"{health['mode']}, and it says no reason")
    level: Severity = "warning" if health["ok"] else "failed"
    for reason in health["reasons"]:
        yield Finding(level, "server", reason, remedy(reason))
    for url, state in health["broker"].items():
        is_there = state == "connected"
        yield Finding("ok" if is_there else "failed", "server's broker", f"{url} is {state}")
    if not health["broker"]:
        yield Finding("warning", "server's broker", "none: nothing is delivered")
    if not health["cache_available"]:
        yield Finding("warning", "cache", "no last-known-good cache is written")
    try:
        server.get("api", "v1", "config", holds="services")
    except ConfigManagerError as error:
        yield Finding("failed", "token", error.detail)
    else:
        yield Finding("ok", "token", "it is known, and may read")


# ── files ──────────────────────────────────────────────────────────────────────────────────────


def look_at_data(data_dir: Path) -> Iterator[Finding]:
    """What can be seen from the files alone."""
    keys = data_dir / "keys"
    try:
        found = sorted(keys.iterdir())
    except OSError as error:
        yield Finding("failed", "keys", f"{keys.name}/: {error.strerror}")
        return
    open_ones = [path.name for path in (keys, *found) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_ones:
        yield Finding(
            "failed",
            "keys",
            f"others can reach {', '.join(open_ones)}",
            "chmod 700 on the directory, 600 on the files, and change those keys",
        )
    here = [path.name for path in found if path.suffix == ".key"]
    if "db.key" in here:
        yield Finding(
            "warning",
            "keys beside the data",
            f"{len(here)} key files lie in {keys.name}/: a thief of the whole directory reads "
            "everything; without keys/ it is worth nothing",
            "move them: --db-key-file, systemd's LoadCredential; leave keys/ out of backups",
        )
    if "root.key" in here:
        yield Finding(
            "note",
            "root key",
            "lies here: a thief of it can name new publishers",
            "config-manager trust export-root --to DIR, and keep DIR offline",
        )
    has_admin_token = (keys / "admin.token").exists()
    if has_admin_token:
        yield Finding(
            "note",
            "admin token",
            "keys/admin.token still lies here",
            "make tokens for people (config-manager token create), then revoke `admin`",
        )
    if not (open_ones or has_admin_token or {"db.key", "root.key"} & set(here)):
        yield Finding("ok", "keys", "elsewhere, and out of others' reach")


def read_mosquitto_conf(text: str) -> Iterator[Finding]:
    """What a mosquitto.conf says about what can't be seen from outside."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            said[name] = value.strip()

    def expect(good: bool, check: str, detail: str, remedy: str) -> Finding:
        return Finding("ok" if good else "warning", check, detail, "" if good else remedy)

    persistent = said.get("persistence") == "true"
    yield expect(
        persistent,
        "persistence",
        "retained messages survive a restart" if persistent else "a restart forgets everything",
        "persistence true, autosave_interval 60 (config-manager refills it meanwhile)",
    )
    queued = said.get("max_queued_messages", str(_MOSQUITTOS_QUEUE))
    yield expect(
        queued.isdigit() and int(queued) > _MOSQUITTOS_QUEUE,
        "max_queued_messages",
        f"{queued}; 0 does not mean no limit",
        "max_queued_messages 100000: a new subscriber of more topics misses the rest, silently",
    )
    yield expect(
        said.get("set_tcp_nodelay") == "true",
        "set_tcp_nodelay",
        said.get("set_tcp_nodelay", "not set"),
        "set_tcp_nodelay true: deliveries stall for 40 ms now and then without",
    )
    yield expect(
        said.get("allow_anonymous") == "false" and "acl_file" in said,
        "access",
        f"allow_anonymous {said.get('allow_anonymous', 'not set')}, "
        f"{'an' if 'acl_file' in said else 'no'} acl_file",
        "deploy/mosquitto-acl and deploy/mosquitto-secure.conf show how",
    )
