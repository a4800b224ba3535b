"""`config-manager watch`: what happens, a line each, for as long as somebody looks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from config_manager.api.commands.options import asks_a_server
from config_manager.api.commands.output import clean
from config_manager.api.commands.remote import Server
from config_manager.api.commands.states import in_words
from config_manager.config.errors import ServerSays, ServerUnreachable

_SILENCE_S = 40.0
"""A server says something every 15 s."""
_PAUSE_S = 1.0
_AGAIN = (429, 502, 503, 504)
"""Statuses that may be others soon."""


@click.command()
@asks_a_server
@click.argument("service", required=False)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="REVISION",
    help="First the revisions after this one, at most 1,000.",
)
def watch(server: Server, as_json: bool, service: str | None, after: int | None) -> None:
    """Show what happens while it happens, a line each, until Ctrl-C.

    Every change, of every service or of one; drift, when it begins and when it ends; and the server's health. A server that
    is away is asked again until it is back, and what was missed meanwhile is shown then.

    \b
      config-manager watch
      config-manager watch stt-worker --after 412      # first what came after revision 412
      config-manager watch --json | jq -c 'select(.type == "drift")'
    """
    try:
        for event in _events(server, service, after):
            click.echo(json.dumps({"type": event.kind, **event.data}) if as_json else _line(event))
    except KeyboardInterrupt:
        return  # the way to end it


class Event(NamedTuple):
    kind: str
    data: dict[str, Any]


def _events(server: Server, service: str | None, after: int | None) -> Iterator[Event]:
    """Those of one connection after the other. Raises ServerSays, and ServerUnreachable if it never was there."""
    place = _Place("" if after is None else str(after))
    is_silent = has_answered = False
    while True:
        headers = {"Last-Event-ID": place.id} if place.id else {}
        lines = server.stream(
            *("api", "v1", "watch"),
            query={"service": service},
            headers=headers,
            silence_s=_SILENCE_S,
        )
        try:
            for event in place.read(lines):
                is_silent, has_answered = False, True
                yield event
        except ValueError:
            raise server.another_program() from None
        except (ServerUnreachable, ServerSays) as error:
            if not has_answered or (isinstance(error, ServerSays) and error.status not in _AGAIN):
                raise
            if not is_silent:  # said once
                click.echo(f"config-manager: {error.detail}; trying again", err=True)
            is_silent = True
        time.sleep(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311  so that not all come back at once


class _Place:
    """How far we are. id: the newest that the server named."""

    def __init__(self, event_id: str) -> None:
        self.id = event_id

    def read(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events in these lines, as the HTML standard reads them. Raises ValueError if their data is not JSON."""
        kind, data, event_id = "", list[str](), self.id
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.id = event_id
                if data:
                    yield Event(kind, json.loads("\n".join(data)))
                kind, data = "", []
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                event_id = value


def _line(event: Event) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    data = event.data
    match event.kind:
        case "revision":
            at, why = data["at"][:19].replace("T", " "), data["reason"]
            said = f"{', '.join(data['services'])}: {data['action']} by {data['by']}"
            return clean(f"{at}  r{data['revision']}  {said}" + (f" ({why})" if why else ""))
        case "drift":
            wanted = "" if data["revision"] is None else f", r{data['revision']} is wanted"
            said = f"{data['service']}/{data['instance']} {in_words(data['state'])}{wanted}"
            return clean(f"{now}  drift {data['event']}  {said}")
        case "health":
            said = "ok" if data["ok"] else f"not ok, {data['mode']}"
            return clean(f"{now}  health  " + "; ".join([said, *data["reasons"]]))
        case "behind":
            missed = f"too much was missed between r{data['from']} and r{data['to']} to show it"
            return f"{now}  {missed}: config-manager changes"
        case other:
            return clean(f"{now}  {other}  {json.dumps(data)}")
