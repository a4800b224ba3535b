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
from config_manager.api.commands.states import COLOURS, RANK, WORDS, in_words
from config_manager.config.errors import ServerUnreachable

_EVERY_S = 1.0
_PAGE = "500"
_HEADER = ("SERVICE", "INSTANCE", "WANTED", "RUNNING", "STATE", "SINCE", "WHY")


@click.command()
@asks_a_server
@click.option("--service", metavar="NAME", help="Only this service's instances.")
@click.option("--state", type=click.Choice(list(WORDS)), help="Only instances in this state.")
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C; with --json one line a change.")
def status(
    server: Server, as_json: bool, service: str | None, state: str | None, watch: bool
) -> None:
    """Show what each instance says it runs, beside what it should run; the worst first.

    \b
    STATE, the first of these that fits:
      silent      it stopped, lost its connection, or enrolled and was never heard
      unproven    it is not enrolled: what it says is not proved, and counts for nothing
      not ours    it runs what this server never published
      stale       it runs what is wanted, and can't know that this is the newest
      overridden  it runs what is wanted, but its own environment decides some keys
      in line     it runs exactly what is wanted
      refused     it refused what is wanted
      waiting     it takes what is wanted later, or at its next start
      late        it has not answered for 30 s
      on the way  it has not answered yet

    --state takes the names of --json: `claimed` is unproven, `foreign` not ours, `pending` on the way.

    Instances report over MQTT; one that neither did nor enrolled is not listed. One that is gone stays listed until
    it is back, or is forgotten. `drift` shows what has to be looked at, and ends with 7.

    \b
      config-manager status
      config-manager status --service stt-worker --watch
      config-manager status --json | jq '.instances[] | select(.in_sync | not)'
      config-manager devices forget stt-worker old-kitchen     # gone for good
    """
    answer = _ask(server, service, state)
    shown: Any = None
    is_terminal = sys.stdout.isatty()
    try:
        while True:
            if answer is not None and (answer != shown or (is_terminal and not as_json)):
                if watch and is_terminal and not as_json:
                    click.clear()
                Shown(answer, _lines(answer, service, state)).show(as_json=as_json)
                shown = answer
            if not watch:
                return
            time.sleep(_EVERY_S)
            answer = _ask_again(server, service, state, silent=answer is None)
    except KeyboardInterrupt:
        return  # the way to end --watch


def _ask(server: Server, service: str | None, state: str | None) -> dict[str, Any]:
    """Every page as one."""
    found: list[Any] = []
    page: dict[str, Any] = {}
    for page in server.pages(
        *("api", "v1", "status"),
        holds="instances refused",
        along="next_after",
        service=service,
        state=state,
        limit=_PAGE,
    ):
        found += page["instances"]
    return {"instances": found, "refused": page["refused"]}


def _ask_again(server: Server, service: str | None, state: str | None, *, silent: bool) -> Any:
    """None if no answer came, which is said once."""
    try:
        return _ask(server, service, state)
    except ServerUnreachable as error:
        if not silent:
            click.echo(f"config-manager: {error.detail}", err=True)
        return None


def _lines(answer: dict[str, Any], service: str | None, state: str | None) -> Iterator[str]:
    instances = answer["instances"]
    if not instances:
        of = f" of {service}" if service else ""
        word = None if state is None else WORDS[state]
        yield f"no instance{of} is {word}" if word else f"no instance{of} has reported yet"
    else:
        now = datetime.now(UTC).timestamp()
        worst_first = sorted(instances, key=lambda one: RANK.get(one["state"], 0))
        rows = (_row(one, now) for one in worst_first)
        yield from table(_HEADER, rows, {"STATE": COLOURS})
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
        in_words(instance["state"]),
        age(now - datetime.fromisoformat(instance["state_since"]).timestamp()),
        "; ".join(_why(instance)),
    )


def _why(instance: dict[str, Any]) -> list[str]:
    """What keeps it from running what is wanted; of who only claims something, what it claims."""
    is_claim = instance["state"] == "claimed"
    said = [] if is_claim or instance["state"] == "in-line" else [instance["why"]]
    attempt, wanted, running = instance["last_attempt"], instance["wanted"], instance["running"]
    if attempt and attempt.get("deaths"):
        said.append(f"died of {attempt['revision']} within its bake time")
    if is_claim and attempt and attempt["stage"] not in ("received", "applied", "healthy"):
        reason = f": {attempt['reason']}" if attempt["reason"] else ""
        said.append(f"{attempt['stage']} {attempt['revision']}{reason}")
    elif is_claim and not instance["in_sync"]:
        said.append("not there yet" if wanted else "deleted; it keeps what it ran")
    if instance["overrides"] and instance["state"] != "overridden":
        said.append(f"its environment decides {', '.join(instance['overrides'])}")
    if is_claim and instance["freshness"] not in ("fresh", "unknown"):
        said.append(instance["freshness"])
    if instance["source"] == "last-known-good" and instance["freshness"] != "fresh":
        said.append("started from what it kept")
    if instance["source"] == "defaults" and not running:
        said.append("on its own defaults")
    if instance.get("from_before"):
        said.append("not heard since the server's start")
    if not instance["enrolled"]:
        said.append("not enrolled")
    return said
