"""`config-manager diff | explain | search`: what was there, where it comes from, and where a text stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from config_manager.api.commands.changes import change_lines, shown
from config_manager.api.commands.options import shows_an_answer
from config_manager.api.commands.output import Shown, clean, table
from config_manager.api.commands.remote import Server

_PATH = ("api", "v1", "config")
_ORIGINS = {"variant": "has a variant of", "override": "its environment decides"}
_UNKNOWN = {"claimed": "it is not enrolled", "silent": "it is gone"}


@click.command("diff")
@shows_an_answer
@click.argument("service")
@click.argument("old", metavar="[A]", required=False)
@click.argument("new", metavar="[B]", required=False)
@click.option("--stored", is_flag=True, help="Compare what was written, without the defaults.")
def diff_config(
    server: Server, service: str, old: str | None, new: str | None, stored: bool
) -> Shown:
    """Show what differs from A to B; by default, what the last write changed.

    Each of A and B is a revision, a time, `now`, `service:NAME`, or `schema:N` (the defaults of the schema's version
    N). Without B it is `now`. Secrets are not compared.

    \b
      config-manager diff stt-worker
      config-manager diff stt-worker 12 15
      config-manager diff stt-worker 2026-01-31T12:00:00Z now
      config-manager diff stt-kitchen now service:stt-attic
    """
    query = {"from": old, "to": new, "view": "stored" if stored else None}
    answer = server.get(*_PATH, service, "diff", holds="service changes", **query)
    return Shown(answer, change_lines(answer["changes"]))


@click.command("explain")
@shows_an_answer
@click.argument("service")
@click.argument("key", required=False)
def explain_config(server: Server, service: str, key: str | None) -> Shown:
    """Say of each value, or of one KEY's, where it comes from, who made it so, and what instances make of it.

    Of instances it names only those that do otherwise: its environment decides there, its schema takes a variant, or
    it does not run this yet. `--json` has all of them.

    \b
      config-manager explain stt-worker vad_threshold
    """
    answer = server.get(*_PATH, service, "explain", holds="service keys", key=key)
    return Shown(answer, _explained(answer["keys"]))


def _explained(keys: list[dict[str, Any]]) -> Iterator[str]:
    rows = (
        (
            one["key"],
            shown(one["value"]),
            one["origin"],
            _since(one),
            "; ".join(filter(None, (_shadows(one), one["reason"]))),
        )
        for one in keys
    )
    yield from table(("KEY", "VALUE", "FROM", "SINCE", ""), rows)
    does: dict[str, list[str]] = {}
    for one in keys:
        for instance in one["instances"]:
            if instance["origin"] == "unknown":
                why = _UNKNOWN.get(instance["state"], "it does not run this revision")
                does.setdefault(f"{instance['instance']}: unknown: {why}", [])
            elif instance["origin"] != "delivered":
                told = f"{instance['instance']}: {_ORIGINS[instance['origin']]}"
                does.setdefault(told, []).append(one["key"])
    for told, named in does.items():
        yield clean(f"{told} {', '.join(named)}".rstrip())


def _since(one: Mapping[str, Any]) -> str:
    if one["revision"] is None:
        return "-"
    at = one["at"][:19].replace("T", " ")
    return f"revision {one['revision']}, {at} by {one['by']}"


def _shadows(one: Mapping[str, Any]) -> str:
    return ", ".join(f"hides {shown(s['value'])} ({s['origin']})" for s in one["shadows"])


@click.command("search")
@shows_an_answer
@click.argument("text")
@click.option(
    "--in",
    "places",
    metavar="PLACES",
    help="Some of keys,values,descriptions,history. [keys,values,descriptions]",
)
@click.option(
    "--level",
    type=click.Choice(["simple", "all"]),
    default="all",
    show_default=True,
    help="simple: no advanced keys, unless TEXT is the whole name of one.",
)
@click.option("--limit", type=click.IntRange(1, 500), help="Matches at most. [50]")
@click.option("--after", help="Go on where the page before ended.")
def search_configs(
    server: Server,
    text: str,
    places: str | None,
    level: str,
    limit: int | None,
    after: str | None,
) -> Shown:
    """Find TEXT in keys, values, descriptions, and what was there before. Never in secrets.

    \b
      config-manager search whisper
      config-manager search 192.168.1.7 --in values,history
    """
    query = {"q": text, "in": places, "level": level, "after": after}
    answer = server.get(
        *_PATH, "search", holds="matches", **query, limit=None if limit is None else str(limit)
    )
    return Shown(answer, _found(answer))


def _found(answer: Mapping[str, Any]) -> Iterator[str]:
    rows = (
        (
            one["service"],
            one["key"] or "-",
            shown(one["value"]),
            one["in"],
            str(one["revision"] or "-"),
        )
        for one in answer["matches"]
    )
    if not answer["matches"]:
        yield "nothing found; --in history looks into what was there before"
        return
    yield from table(("SERVICE", "KEY", "VALUE", "IN", "REVISION"), rows)
    if answer["next_after"] is not None:
        yield clean(f"\nmore with --after {answer['next_after']}", keep="\n")
