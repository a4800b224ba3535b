"""`config-manager get | set | history | diff | rollback`: a service's configuration, by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, repeat
from typing import IO, Any

import click

from config_manager.api.commands.remote import (
    Server,
    asks_a_server,
    clean,
    print_json,
    print_table,
)
from config_manager.config.errors import Conflict, NotFound, ServerSays, SettingsInvalid
from config_manager.storage.decisions import rollback
from config_manager.storage.decisions.rollback import Step
from config_manager.storage.state import changed_keys

_PATH = ("api", "v1", "config")
_CONFIG = "config revision"
_PAGES = (4, 32, 256, 500)
"""Entries to ask for: mostly the newest few say it all, and each may be large."""
_HISTORY = "entries next_before"
_MASK = "********"
_SHOWN = 60
"""Characters of a value in a table."""
_NOT_FOUND = 404

Values = dict[str, Any]


# ── get ────────────────────────────────────────────────────────────────────────────────────────


@click.command("get")
@asks_a_server
@click.argument("service")
@click.argument("key", required=False)
@click.option("--stored", is_flag=True, help="Only what was written, without the defaults.")
def get_config(server: Server, as_json: bool, service: str, key: str | None, stored: bool) -> None:
    """Show a service's configuration, or one KEY's value.

    \b
      config-manager get stt-worker
      config-manager get stt-worker vad_threshold
    """
    answer = server.get(*_PATH, service, holds=_CONFIG, view="stored" if stored else None)
    values: Values = answer["config"]
    if key is not None:
        if key not in values:
            raise NotFound(f"{service} has no key {key!r}")
        _print_value(values[key], as_json=as_json)
        return
    if as_json:
        print_json(answer)
        return
    defaulted = set(answer["defaulted"])
    rows: list[tuple[str, ...]] = [
        (k, _shown(v), "default" if k in defaulted else "") for k, v in values.items()
    ]
    print_table(("KEY", "VALUE", ""), rows)
    at = f", {answer['updated_at']} by {clean(answer['updated_by'])}" if answer["revision"] else ""
    click.echo(f"\nrevision {answer['revision']}{at}")


def _print_value(value: Any, *, as_json: bool) -> None:
    """Text as it is, for scripts; everything else as JSON."""
    if as_json or not isinstance(value, str):
        print_json(value)
    elif sys.stdout.isatty():
        click.echo(clean(value, keep="\n"))
    else:
        try:
            value.encode(sys.stdout.encoding)
        except UnicodeEncodeError:
            raise SettingsInvalid(
                f"{sys.stdout.encoding} can't say this value: set PYTHONIOENCODING=utf-8, or take it "
                "with --json"
            ) from None
        click.echo(value)


# ── set ────────────────────────────────────────────────────────────────────────────────────────


@click.command("set")
@asks_a_server
@click.argument("service")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--unset", multiple=True, metavar="KEY", help="Leave the key to its default.")
@click.option(
    "--file", type=click.File("rb"), help="A JSON object that replaces everything stored; -: stdin."
)
@click.option("--revision", type=click.IntRange(0), help="Only if it is still at this revision.")
@click.option("--reason", help="Why, for the history.")
@click.option("--wait", type=click.FloatRange(0, 60), metavar="SECONDS", help="For a broker.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
def set_config(
    server: Server,
    as_json: bool,
    service: str,
    assignments: tuple[str, ...],
    unset: tuple[str, ...],
    file: IO[bytes] | None,
    revision: int | None,
    reason: str | None,
    wait: float | None,
    dry_run: bool,
) -> None:
    """Set keys of a service; the others stay as they are.

    A VALUE is JSON where it parses as such, else text: 0.5, true, [1,2], en, '"5"' for the text 5.
    Secrets are set by `config-manager secret set`. Who writes in between is not written over: exit 7.

    \b
      config-manager set stt-worker vad_threshold=0.3 whisper_model=small.en --reason "too many false starts"
      config-manager set stt-worker --unset vad_threshold
      config-manager get stt-worker --stored --json | jq .config | config-manager set stt-worker --file -
    """
    if file is not None and (assignments or unset):
        raise SettingsInvalid("--file replaces everything: give it, or keys, not both")
    if file is None and not assignments and not unset:
        raise SettingsInvalid("nothing to set: give KEY=VALUE, --unset KEY or --file FILE")
    before, at = _stored(server, service)
    if revision is not None and revision != at:
        raise Conflict(f"{service} is at revision {at}, not {revision}")
    if file is not None:
        after = _object(file.read())
    else:
        after = {k: v for k, v in before.items() if k not in unset}
        after |= dict(map(_assignment, assignments))
    _put(
        server,
        service,
        before,
        after,
        at,
        as_json=as_json,
        reason=reason,
        wait=wait,
        dry_run=dry_run,
    )


def _assignment(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise SettingsInvalid(f"{text!r}: expected KEY=VALUE")
    try:
        return key, json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return key, value


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are words like any other


def _object(data: bytes) -> Values:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SettingsInvalid("--file: expected a JSON object, key → value")
    return value


def _stored(server: Server, service: str) -> tuple[Values, int]:
    """What was written of a service, and its revision; nothing, and 0, where nobody wrote it."""
    try:
        answer = server.get(*_PATH, service, holds=_CONFIG, view="stored")
    except ServerSays as error:
        if error.status != _NOT_FOUND:
            raise
        return {}, 0
    return answer["config"], answer["revision"]


def _put(
    server: Server,
    service: str,
    before: Values,
    after: Values,
    at: int,
    *,
    as_json: bool,
    reason: str | None,
    wait: float | None = None,
    dry_run: bool = False,
) -> None:
    query = {
        "reason": reason,
        "wait": "confirmed" if wait is not None else None,
        "timeout": str(wait) if wait is not None else None,
        "dry_run": "true" if dry_run else None,
    }
    headers = {"If-Match": f'"{at}"'}
    answer = server.ask(
        "PUT", *_PATH, service, holds="config", query=query, body=after, headers=headers
    ).value
    if as_json:
        print_json(answer)
        return
    _print_changes(before, after)
    if dry_run:
        click.echo(f"nothing was changed: {service} stays at revision {at}")
        return
    held = "a broker holds it" if answer["propagation"] == "confirmed" else "on its way"
    click.echo(f"{service} is at revision {answer['revision']}; {held}")


# ── history ────────────────────────────────────────────────────────────────────────────────────


@click.command("history")
@asks_a_server
@click.argument("service")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Rows.")
@click.option("--key", help="Only what changed this key.")
@click.option("--since", metavar="TIME", help="Such as 2026-01-31T12:00:00Z.")
@click.option("--until", metavar="TIME", help="As --since.")
def show_history(
    server: Server,
    as_json: bool,
    service: str,
    limit: int,
    key: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """Show who changed what of a service, when and why, newest first."""
    answer = _newest(server, service, limit, {"key": key, "since": since, "until": until})
    if as_json:
        print_json(answer)
        return
    rows: list[tuple[str, ...]] = [
        (
            str(entry["revision"]),
            entry["at"][:19].replace("T", " "),
            entry["by"],
            entry["action"],
            "; ".join(_told(change) for change in entry["changes"]) or "nothing",
            entry["reason"] or "",
        )
        for entry in answer["entries"]
    ]
    print_table(("REVISION", "AT", "BY", "ACTION", "WHAT", "REASON"), rows)


def _told(change: Mapping[str, Any]) -> str:
    old, new = (
        "null" if side in change.get("nulls", ()) else _shown(change[side])
        for side in ("old", "new")
    )
    return f"{change['key']}: {old} → {new}"


def _shown(value: Any) -> str:
    text = "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


# ── diff and rollback ──────────────────────────────────────────────────────────────────────────


@click.command("diff")
@asks_a_server
@click.argument("service")
@click.argument("old", type=click.IntRange(1), required=False)
@click.argument("new", type=click.IntRange(1), required=False)
def diff_config(
    server: Server, as_json: bool, service: str, old: int | None, new: int | None
) -> None:
    """Show what changed from revision OLD to NEW; by default, what the last write changed.

    Secrets are not compared.
    """
    now, at = _stored(server, service)
    if old is None:
        newest = next(_history(server, service), None)
        if newest is None:
            raise NotFound(f"{service} has no history")
        # as of the revision before the newest: of nobody's, where that was the first
        before = rollback.undone(now, [newest])
    else:
        before = rollback.as_of(service, now, at, old, _history(server, service))
    after = now if new is None else rollback.as_of(service, now, at, new, _history(server, service))
    if as_json:
        print_json(
            {"service": service, "from": old, "to": new or at, "changes": _changes(before, after)}
        )
    else:
        _print_changes(before, after)


@click.command("rollback")
@asks_a_server
@click.argument("service")
@click.argument("revision", type=click.IntRange(1))
@click.option("--reason", help="Why, for the history. [rollback to revision N]")
@click.option("--wait", type=click.FloatRange(0, 60), metavar="SECONDS", help="For a broker.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
def rollback_config(
    server: Server,
    as_json: bool,
    service: str,
    revision: int,
    reason: str | None,
    wait: float | None,
    dry_run: bool,
) -> None:
    """Write again what a service had as of REVISION: a new revision, so nothing is lost.

    Secrets stay as they are.
    """
    now, at = _stored(server, service)
    _put(
        server,
        service,
        now,
        rollback.as_of(service, now, at, revision, _history(server, service)),
        at,
        as_json=as_json,
        reason=reason or f"rollback to revision {revision}",
        wait=wait,
        dry_run=dry_run,
    )


def _history(server: Server, service: str) -> Iterator[Step]:
    """Every entry, newest first, a page at a time."""
    for page in _pages(server, service, chain(_PAGES, repeat(_PAGES[-1]))):
        yield from map(_step, page["entries"])


def _step(entry: Mapping[str, Any]) -> Step:
    before = {change["key"]: _before(change) for change in entry["changes"]}
    return Step(entry["revision"], entry["action"] == "delete", before)


def _before(change: Mapping[str, Any]) -> object:
    """`masked`: a server from before 0.3 does not say whether the mask stands for something."""
    was_there = change["old"] is not None or "old" in change.get("nulls", ())
    is_secret = change.get("masked", _MASK in (change["old"], change["new"]))
    return change["old"] if was_there and not is_secret else rollback.NOT_THERE


def _newest(
    server: Server, service: str, limit: int, only: Mapping[str, str | None]
) -> dict[str, Any]:
    """So many entries as one answer: the server sends fewer at once where they are large."""
    entries: list[Any] = []

    def left() -> Iterator[int]:
        while len(entries) < limit:
            yield limit - len(entries)

    answer: dict[str, Any] = {}
    for answer in _pages(server, service, left(), only):
        entries += answer["entries"]
    answer["entries"] = entries
    return answer


def _pages(
    server: Server, service: str, sizes: Iterable[int], only: Mapping[str, str | None] | None = None
) -> Iterator[dict[str, Any]]:
    """The history, newest first, with at most so many entries in each page."""
    before: str | None = None
    for size in sizes:
        query = {**(only or {}), "limit": str(size), "before": before}
        page = server.get(*_PATH, service, "history", holds=_HISTORY, **query)
        yield page
        if page["next_before"] is None:
            return
        before = str(page["next_before"])


def _changes(before: Values, after: Values) -> list[dict[str, Any]]:
    return [{"key": c.key, "old": c.old, "new": c.new} for c in changed_keys(before, after)]


def _print_changes(before: Values, after: Values) -> None:
    changes = _changes(before, after)
    for change in changes:
        key = change["key"]
        if key in before:
            click.echo(f"- {clean(key)} = {clean(_shown(before[key]))}")
        if key in after:
            click.echo(f"+ {clean(key)} = {clean(_shown(after[key]))}")
    if not changes:
        click.echo("no difference")
