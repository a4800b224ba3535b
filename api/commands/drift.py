"""`config-manager drift`: who does not run what they should, now and before; exit 7 if anybody does not now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from config_manager.api.commands.options import moment, shows_an_answer
from config_manager.api.commands.output import Shown, age, table
from config_manager.api.commands.remote import Server
from config_manager.api.commands.states import COLOURS, in_words
from config_manager.config.errors import OpenDrift

_PATH = ("api", "v1", "drift")
_NOW = ("SERVICE", "INSTANCE", "STATE", "SINCE", "REVISION", "WHY")
_BEFORE = ("SERVICE", "INSTANCE", "STATE", "BEGAN", "LASTED", "REVISION", "WHY")
_PAGE = "500"
_MOST_NAMED = 5


@click.command()
@shows_an_answer
@click.argument("service", required=False)
@click.option(
    "--since", metavar="TIME", help="Also what has ended since: 7d, or 2026-01-31T12:00:00Z."
)
def drift(server: Server, service: str | None, since: str | None) -> Shown:
    """Show which instances do not run what they should, and why: exit 7 if any does not now.

    Drift is what is not ours, refused, late or stale, and has been for 10 s. What is on the way, waits for a
    restart, or is silent is none; `status` shows every instance.

    \b
      config-manager drift                       # now; in a script: 0 is none, 7 is some
      config-manager drift stt-worker --since 7d # and what has ended
      config-manager drift --json | jq -r '.drift[] | "\\(.service)/\\(.instance): \\(.why)"'
    """
    if since is None:
        answer = server.get(*_PATH, holds="drift checked_at", service=service)
        still = answer["drift"]
        lines = _now(still) if still else _none(server, service)
    else:
        answer = _events(server, service, since)
        still = [one for one in answer["drift"] if one["ended"] is None]
        lines = _before(answer["drift"], since, service)
    who = sorted({f"{one['service']}/{one['instance']}" for one in still})
    error = OpenDrift(_told(who)) if who else None
    return Shown(answer, lines, error)


def _events(server: Server, service: str | None, since: str) -> dict[str, Any]:
    """Every page as one. Raises SettingsInvalid."""
    begin = moment("--since", since)
    found: list[Any] = []
    page: dict[str, Any] = {}
    for page in server.pages(
        *(*_PATH, "events"),
        holds="drift checked_at",
        along="next_before",
        service=service,
        since=begin,
        limit=_PAGE,
    ):
        found += page["drift"]
    return {"drift": found, "checked_at": page["checked_at"]}


def _none(server: Server, service: str | None) -> Iterator[str]:
    """A service that nobody runs has no drift either: its name may be mistyped."""
    if service is not None:
        query = {"service": service, "limit": "1"}
        if not server.get("api", "v1", "status", holds="instances", **query)["instances"]:
            yield f"no instance of {service} has reported or enrolled yet"
            return
    yield f"no drift{_of(service)}"


def _now(found: list[Any]) -> Iterator[str]:
    now = time.time()
    rows = (
        (
            one["service"],
            one["instance"],
            in_words(one["state"]),
            age(now - _seconds(one["since"])),
            _revision(one),
            one["why"],
        )
        for one in found
    )
    yield from table(_NOW, rows, {"STATE": COLOURS})


def _before(found: list[Any], since: str, service: str | None) -> Iterator[str]:
    if not found:
        yield f"no drift{_of(service)} since {since}"
        return
    rows = (
        (
            one["service"],
            one["instance"],
            in_words(one["state"]),
            one["began"][:19].replace("T", " "),
            _lasted(one),
            _revision(one),
            one["why"],
        )
        for one in found
    )
    yield from table(_BEFORE, rows)


def _lasted(one: dict[str, Any]) -> str:
    if one["ended"] is None:
        return "still"
    return age(_seconds(one["ended"]) - _seconds(one["since"]))


def _revision(one: dict[str, Any]) -> str:
    return "-" if one["revision"] is None else str(one["revision"])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _of(service: str | None) -> str:
    return f" of {service}" if service else ""


def _told(who: list[str]) -> str:
    more = f" and {len(who) - _MOST_NAMED} more" if len(who) > _MOST_NAMED else ""
    named = f"{', '.join(who[:_MOST_NAMED])}{more}"
    if len(who) == 1:
        return f"{named} does not run what it should"
    return f"{len(who)} instances do not run what they should: {named}"
