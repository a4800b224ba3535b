"""`config-manager changes` and `config-manager trace`: what was changed, and what became of it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from config_manager.api.commands.options import SINCE, UNTIL, asks_a_server, moment, shows_an_answer
from config_manager.api.commands.output import Shown, print_json, table
from config_manager.api.commands.remote import Server
from config_manager.api.commands.waterfall import heading, waterfall

_EVERY_S = 0.5
_WIDTH = 100
_HOLDS = "revision correlation_id state steps instances others"
_HEADER = ("REVISION", "AT", "BY", "ACTION", "SERVICES", "STATE", "ID", "REASON")


# ── the list ───────────────────────────────────────────────────────────────────────────────────


@click.command("changes")
@shows_an_answer
@click.option("--service", metavar="NAME", help="Only what touched this service.")
@click.option("--by", metavar="TOKEN", help="Only by the token of this name.")
@SINCE
@UNTIL
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Rows.")
@click.option("--before", type=click.IntRange(0), metavar="REVISION", help="Only older ones.")
def list_changes(
    server: Server,
    service: str | None,
    by: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    before: int | None,
) -> Shown:
    """Show what was changed of all services, newest first, and how it stands.

    STATE is `pending` if no broker holds it yet or an instance has not followed, `drifting` if an instance does not get
    there, and else `settled`. An instance that is silent or unproven is not waited for. Nor is anybody, if something
    newer was written over it. `trace ID` shows one of them.

    \b
      config-manager changes --service stt-worker
      config-manager changes --since 12h --json | jq '.changes[] | select(.state != "settled")'
    """
    answer = server.get(
        *("api", "v1", "changes"),
        holds="changes",
        service=service,
        by=by,
        since=moment("--since", since),
        until=moment("--until", until),
        limit=str(limit),
        before=None if before is None else str(before),
    )
    found = answer["changes"]
    return Shown(answer, table(_HEADER, map(_row, found)) if found else ["no changes"])


def _row(change: Any) -> tuple[str, ...]:
    return (
        str(change["revision"]),
        change["at"][:19].replace("T", " "),
        change["by"],
        change["action"],
        ",".join(change["services"]),
        change["state"],
        change["correlation_id"],
        change["reason"] or "",
    )


# ── one of them ────────────────────────────────────────────────────────────────────────────────


@click.command("trace")
@asks_a_server
@click.argument("change", metavar="ID")
@click.option("--follow", is_flag=True, help="Go on until it is settled, or Ctrl-C.")
def trace(server: Server, as_json: bool, change: str, follow: bool) -> None:
    """Show when each step of a change was done, on which broker, and how far each instance got.

    ID is the X-Request-ID of the change, which logs, messages and receipts have too, or its revision. AFTER counts from
    the request, TOOK from the step before, both by the server's clock; ITS CLOCK is the instance's own. `confirmed`: the
    broker gave back what was published. Dots in an instance's bar are its message's way, the rest is its own work. With
    --follow and --json there is one line a change.

    \b
      config-manager set stt-worker vad_threshold=0.4
      config-manager changes --limit 1
      config-manager trace 17 --follow
      config-manager trace 17 --json | jq '.steps[] | [.step, .broker, .after_ms]'
    """
    redraws = follow and sys.stdout.isatty() and not as_json
    shown: Any = None
    try:
        while True:
            answer = server.get("api", "v1", "changes", change, holds=_HOLDS)
            is_last = not follow or answer["state"] == "settled"
            if answer != shown:
                if redraws:
                    click.clear()
                if as_json:
                    print_json(answer)
                elif redraws or is_last:
                    _draw(answer)
                shown = answer
            if is_last:
                return
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        if shown is not None and not (redraws or as_json):
            _draw(shown)


def _draw(answer: Any) -> None:
    for line in [*heading(answer), "", *_lines(answer)]:
        click.echo(line)


def _lines(answer: Any) -> Iterator[str]:
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_WIDTH, 0)).columns if is_terminal else _WIDTH
    return waterfall(answer, width, _block())


def _block() -> str:
    """What a bar is made of, in an alphabet that the output has."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"
