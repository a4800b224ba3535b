"""`config-manager status`: what runs where, and what keeps an instance from what is wanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from config_manager.api.commands.options import asks_a_server
from config_manager.api.commands.output import Shown, age, table
from config_manager.api.commands.remote import Server
from config_manager.config.errors import ServerUnreachable

_EVERY_S = 1.0
_HOLDS = "instances refused"
_HEADER = ("SERVICE", "INSTANCE", "WANTED", "RUNNING", "SINCE", "FRESH", "WHY NOT")


@click.command()
@asks_a_server
@click.option("--service", metavar="NAME", help="Only this service's instances.")
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C; with --json one line a change.")
def status(server: Server, as_json: bool, service: str | None, watch: bool) -> None:
    """Show what each instance says it runs, beside what it should run.

    Instances report over MQTT; one that never did is not listed. WHY NOT says what keeps an instance from
    running what is wanted: it refused that, or is gone, or its own environment decides a key. An instance
    that is gone stays listed until it is back, or is forgotten.

    \b
      config-manager status
      config-manager status --service stt-worker --watch
      config-manager status --json | jq '.instances[] | select(.in_sync | not)'
      config-manager devices forget stt-worker old-kitchen     # gone for good
    """
    answer = server.get("api", "v1", "status", holds=_HOLDS, service=service)
    shown: Any = None
    is_terminal = sys.stdout.isatty()
    try:
        while True:
            if answer is not None and (answer != shown or (is_terminal and not as_json)):
                if watch and is_terminal and not as_json:
                    click.clear()
                Shown(answer, _lines(answer, service)).show(as_json=as_json)
                shown = answer
            if not watch:
                return
            time.sleep(_EVERY_S)
            answer = _ask_again(server, service, silent=answer is None)
    except KeyboardInterrupt:
        return  # the way to end --watch


def _ask_again(server: Server, service: str | None, *, silent: bool) -> Any:
    """None if no answer came, which is said once."""
    try:
        return server.get("api", "v1", "status", holds=_HOLDS, service=service)
    except ServerUnreachable as error:
        if not silent:
            click.echo(f"config-manager: {error.detail}", err=True)
        return None


def _lines(answer: dict[str, Any], service: str | None) -> Iterator[str]:
    instances = answer["instances"]
    if not instances:
        yield f"no instance{f' of {service}' if service else ''} has reported yet"
    else:
        now = datetime.now(UTC).timestamp()
        yield from table(_HEADER, (_row(instance, now) for instance in instances))
        in_sync = sum(instance["in_sync"] for instance in instances)
        yield f"\n{in_sync} of {len(instances)} run what is wanted"
        if gone := sum(instance["gone"] for instance in instances):
            yield (
                f"{gone} gone; for one that will not come back: "
                "config-manager devices forget SERVICE INSTANCE"
            )
    if answer["refused"]:
        yield f"{answer['refused']} messages on the brokers were no receipts"


def _row(instance: dict[str, Any], now: float) -> tuple[str, ...]:
    wanted, running = instance["wanted"], instance["running"]
    return (
        instance["service"],
        instance["instance"],
        str(wanted["revision"]) if wanted else "-",
        str(running["revision"]) if running else "-",
        age(now - datetime.fromisoformat(instance["since"]).timestamp()),
        instance["freshness"],
        "; ".join(_why_not(instance)),
    )


def _why_not(instance: dict[str, Any]) -> list[str]:
    said: list[str] = []
    attempt, wanted, running = instance["last_attempt"], instance["wanted"], instance["running"]
    if instance["gone"]:
        said.append("gone")
    if attempt and attempt["stage"] not in ("received", "applied", "healthy"):
        reason = f": {attempt['reason']}" if attempt["reason"] else ""
        said.append(f"{attempt['stage']} {attempt['revision']}{reason}")
    elif attempt and attempt.get("deaths"):
        said.append(f"died of {attempt['revision']} within its bake time; tried again")
    elif not (instance["in_sync"] or instance["gone"]):
        said.append("not there yet" if wanted else "deleted; it keeps what it ran")
    if instance["overrides"]:
        said.append(f"its environment decides {', '.join(instance['overrides'])}")
    if instance["source"] == "last-known-good" and instance["freshness"] != "fresh":
        said.append("started from what it kept")
    if instance["source"] == "defaults" and not running:
        said.append("on its own defaults")
    if not instance["enrolled"]:
        said.append("not enrolled")
    return said
