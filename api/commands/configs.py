"""`config-manager get | set | history`: a service's configuration, by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import click

from config_manager.api.commands.changes import change_lines, shown, side
from config_manager.api.commands.options import (
    DRY_RUN,
    HISTORY_REASON,
    SINCE,
    UNTIL,
    WAIT,
    json_object_in,
    moment,
    shows_an_answer,
    waiting,
)
from config_manager.api.commands.output import Shown, clean, table, to_json
from config_manager.api.commands.remote import Server
from config_manager.config.errors import Conflict, NotFound, ServerSays, SettingsInvalid

_PATH = ("api", "v1", "config")
_CONFIG = "config revision"
_HISTORY = "entries next_before"
_NOT_FOUND = 404

Values = dict[str, Any]


# ── get ────────────────────────────────────────────────────────────────────────────────────────


@click.command("get")
@shows_an_answer
@click.argument("service")
@click.argument("key", required=False)
@click.option("--stored", is_flag=True, help="Only what was written, without the defaults.")
@click.option("--revision", type=click.IntRange(0), help="As of this revision of the server's.")
@click.option("--at", metavar="TIME", help="As of this time, such as 2026-01-31T12:00:00Z.")
def get_config(
    server: Server,
    service: str,
    key: str | None,
    stored: bool,
    revision: int | None,
    at: str | None,
) -> Shown:
    """Show a service's configuration, or one KEY's value; as it is, or as it was.

    \b
      config-manager get stt-worker
      config-manager get stt-worker vad_threshold
      config-manager get stt-worker --at 2026-01-31T12:00:00Z
    """
    if revision is not None and at is not None:
        raise SettingsInvalid("--revision and --at: give one of them")
    query = {
        "view": "stored" if stored else None,
        "revision": None if revision is None else str(revision),
        "at": at,
    }
    answer = server.get(*_PATH, service, holds=_CONFIG, **query)
    values: Values = answer["config"]
    if key is None:
        return Shown(answer, _config_lines(answer))
    if key not in values:
        raise NotFound(f"{service} has no key {key!r}")
    return Shown(values[key], _plain(values[key]))


def _config_lines(answer: dict[str, Any]) -> Iterator[str]:
    defaulted = set(answer["defaulted"])
    rows = ((k, shown(v), "default" if k in defaulted else "") for k, v in answer["config"].items())
    yield from table(("KEY", "VALUE", ""), rows)
    at = f", {answer['updated_at']} by {clean(answer['updated_by'])}" if answer["revision"] else ""
    yield f"\nrevision {answer['revision']}{at}"


def _plain(value: Any) -> Iterator[str]:
    """Text as it is, for scripts; everything else as JSON."""
    if not isinstance(value, str):
        yield to_json(value)
    elif sys.stdout.isatty():
        yield clean(value, keep="\n")
    else:
        try:
            value.encode(sys.stdout.encoding)
        except UnicodeEncodeError:
            raise SettingsInvalid(
                f"{sys.stdout.encoding} can't say this value: set PYTHONIOENCODING=utf-8, or take it "
                "with --json"
            ) from None
        yield value


# ── set ────────────────────────────────────────────────────────────────────────────────────────


@click.command("set")
@shows_an_answer
@click.argument("service")
@click.argument("assignments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--unset", multiple=True, metavar="KEY", help="Leave the key to its default.")
@click.option(
    "--file", type=click.File("rb"), help="A JSON object that replaces everything stored; -: stdin."
)
@click.option("--revision", type=click.IntRange(0), help="Only if it is still at this revision.")
@HISTORY_REASON
@WAIT
@DRY_RUN
def set_config(
    server: Server,
    service: str,
    assignments: tuple[str, ...],
    unset: tuple[str, ...],
    file: IO[bytes] | None,
    revision: int | None,
    reason: str | None,
    wait: float | None,
    dry_run: bool,
) -> Shown:
    """Set keys of a service; the others stay as they are.

    A VALUE is JSON if it parses as such, else text: 0.5, true, [1,2], en, '"5"' for the text 5.
    Secrets are set by `config-manager secret set`. If somebody else writes in between, this writes
    nothing: exit 7.

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
        after = json_object_in("--file", file.read())
    else:
        after = {k: v for k, v in before.items() if k not in unset}
        after |= dict(map(assignment, assignments))
    return _put(server, service, before, after, at, reason=reason, wait=wait, dry_run=dry_run)


def assignment(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value is JSON if it parses as such, else text. Raises SettingsInvalid."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise SettingsInvalid(f"{text!r}: expected KEY=VALUE")
    try:
        return key, json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return key, value


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are words like any other


def _stored(server: Server, service: str) -> tuple[Values, int]:
    """What was written of a service, and its revision; nothing, and 0, if it never was."""
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
    reason: str | None,
    wait: float | None,
    dry_run: bool,
) -> Shown:
    """Replace a service's values if it is still at revision `at`, and show what changed."""
    query = {
        "reason": reason,
        **waiting(wait),
        "dry_run": "true" if dry_run else None,
    }
    headers = {"If-Match": f'"{at}"'}
    answer = server.ask(
        "PUT", *_PATH, service, holds="config", query=query, body=after, headers=headers
    ).value

    def lines() -> Iterator[str]:
        yield from change_lines(_changes(before, after))
        for one in answer.get("warnings", ()):
            yield clean(f"warning: {one['pointer'][1:]}: {one['detail']}")
        if dry_run:
            yield f"nothing was changed: {service} stays at revision {at}"
        else:
            held = "a broker holds it" if answer["propagation"] == "confirmed" else "on its way"
            yield f"{service} is at revision {answer['revision']}; {held}"

    return Shown(answer, lines())


# ── history ────────────────────────────────────────────────────────────────────────────────────


@click.command("history")
@shows_an_answer
@click.argument("service")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Rows.")
@click.option("--key", help="Only what changed this key.")
@SINCE
@UNTIL
def show_history(
    server: Server,
    service: str,
    limit: int,
    key: str | None,
    since: str | None,
    until: str | None,
) -> Shown:
    """Show who changed what of a service, when and why, newest first."""
    only = {"key": key, "since": moment("--since", since), "until": moment("--until", until)}
    answer = _newest(server, service, limit, only)
    rows = (
        (
            str(entry["revision"]),
            entry["at"][:19].replace("T", " "),
            entry["by"],
            entry["action"],
            "; ".join(_told(change) for change in entry["changes"]) or "nothing",
            entry["reason"] or "",
        )
        for entry in answer["entries"]
    )
    return Shown(answer, table(("REVISION", "AT", "BY", "ACTION", "WHAT", "REASON"), rows))


def _told(change: Mapping[str, Any]) -> str:
    return f"{change['key']}: {side(change, 'old')} → {side(change, 'new')}"


def _newest(
    server: Server, service: str, limit: int, only: Mapping[str, str | None]
) -> dict[str, Any]:
    """So many entries as one answer: the server sends fewer at once if they are large."""
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
    from config_manager.storage.state import changed_keys  # brings orjson

    return [change.to_object() for change in changed_keys(before, after)]
