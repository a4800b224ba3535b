"""`config-manager schema`: what a service's values look like, and what another schema would break."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import click

from config_manager.api.commands.options import (
    AUDIT_REASON,
    WAIT,
    json_object_in,
    shows_an_answer,
    waiting,
)
from config_manager.api.commands.output import Shown, clean, table
from config_manager.api.commands.remote import Server
from config_manager.config.errors import ServerSays, SettingsInvalid

_PATH = ("api", "v1", "schemas")
_PUT = "digest differences breaks migrated revision"
_STATUS = {"schema-breaking": 409}
_REFUSED = 422
_DIGEST = 64
"""Characters of a digest."""
_SHOWN = 12
"""Of these in a table."""


@click.group()
def schema() -> None:
    """Say what a service's values look like, and see first whom that breaks.

    A schema is JSON Schema (2020-12). A service of your own usually has one: its instances publish the schema of
    their model, `schema adopt` makes it the service's. Every write is then checked by it, forms and help come
    from it, and a change of it is compared before it counts: for stored values, for new code, for old code.

    \b
      config-manager schema get stt-worker > stt.json
      config-manager schema check stt-worker stt.json
      config-manager schema put stt-worker stt.json --reason "a lower limit"

    \b
    Metadata of a key, beside what JSON Schema has:
      "x-level": "simple" or "advanced"      "x-unit": "s"
      "x-secret": true                       "x-restart-required": true
      "x-allowed": what it takes, in words   "x-was": where its value comes from:
        {"key": "vad"}                       it was called vad
        {"multiply": [1, 1000]}              it is 1/1000 of what it was (with a new x-unit)
        {"map": {"fast": "turbo"}}           fast is called turbo now
    """


# ── looking ────────────────────────────────────────────────────────────────────────────────────


@schema.command("get")
@shows_an_answer
@click.argument("service", required=False)
@click.option("--version", type=click.IntRange(1), help="This version. [the active one]")
@click.option("--digest", help="The version with this digest.")
def get_schema(
    server: Server, service: str | None, version: int | None, digest: str | None
) -> Shown:
    """Show a service's schema; without SERVICE, which services have one.

    \b
      config-manager schema get
      config-manager schema get stt-worker > stt.json
    """
    if service is None:
        if version is not None or digest is not None:
            raise SettingsInvalid("--version and --digest are of one service: name it")
        return _listed(server)
    number = None if version is None else str(version)
    answer = server.get(*_PATH, service, holds="schema", version=number, digest=digest)
    return Shown(answer, [json.dumps(answer["schema"], indent=2, ensure_ascii=True)])


def _listed(server: Server) -> Shown:
    pages = server.pages(*_PATH, holds="schemas", along="next_after", limit="500")
    entries = [one for page in pages for one in page["schemas"]]
    rows = (
        (one["service"], str(one["version"]), one["source"], one["digest"][:_SHOWN], _when(one))
        for one in entries
    )
    header = ("SERVICE", "VERSION", "SOURCE", "DIGEST", "SINCE")
    return Shown({"schemas": entries}, table(header, rows))


@schema.command("history")
@shows_an_answer
@click.argument("service")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Rows.")
def show_history(server: Server, service: str, limit: int) -> Shown:
    """Show every version of a service's schema: who made it, when and why, and what changed."""
    answer = server.get(*_PATH, service, "history", holds="versions next_before", limit=str(limit))
    rows = (
        (
            str(one["version"]) + ("*" if one["active"] else ""),
            _when(one),
            one["by"],
            one["source"],
            "; ".join(_told(d) for d in one["differences"] or ()) or "-",
            one["reason"] or "",
        )
        for one in answer["versions"]
    )
    return Shown(answer, table(("VERSION", "AT", "BY", "SOURCE", "WHAT", "REASON"), rows))


@schema.command("diff")
@shows_an_answer
@click.argument("service")
@click.argument("old", type=click.IntRange(1), required=False)
@click.argument("new", type=click.IntRange(1), required=False)
def diff_schema(server: Server, service: str, old: int | None, new: int | None) -> Shown:
    """Compare two versions of a service's schema: OLD (the one before) with NEW (the active one).

    A file is compared by `config-manager schema check`.
    """
    query = {"from": None if old is None else str(old), "to": None if new is None else str(new)}
    answer = server.get(*_PATH, service, "diff", holds="differences from to", **query)
    lines = [
        f"version {answer['from']} → {answer['to']}",
        *(difference_lines(answer) or ["no difference that matters"]),
    ]
    return Shown(answer, lines)


# ── changing ───────────────────────────────────────────────────────────────────────────────────


def _terms(command: Callable[..., Shown]) -> Callable[..., Shown]:
    """The options of what may make a schema active."""
    for option in reversed(
        (
            click.option(
                "--allow-breaking",
                is_flag=True,
                help="Although it breaks something; needs --reason.",
            ),
            click.option(
                "--allow-lossy", is_flag=True, help="Although x-was does not keep values apart."
            ),
            click.option(
                "--drop", multiple=True, metavar="KEY", help="Let go of what is stored there."
            ),
            AUDIT_REASON,
            WAIT,
        )
    ):
        command = option(command)
    return command


@schema.command("put")
@shows_an_answer
@click.argument("service")
@click.argument("file", type=click.File("rb"))
@_terms
def put_schema(server: Server, service: str, file: IO[bytes], **terms: Any) -> Shown:
    """Make the schema in FILE (JSON; -: stdin) the active one of a service.

    It is refused (exit 7) if it breaks stored values, code that is built with it, or an instance that runs; each
    is named. Stored values move with it as `x-was` says.

    \b
      config-manager schema put stt-worker stt.json --reason "a lower limit"
      config-manager schema put stt-worker stt.json --drop vad_mode
    """
    body = json_object_in("FILE", file.read())
    answer = server.ask("PUT", *_PATH, service, holds=_PUT, query=_query(terms), body=body).value
    return Shown(answer, _put_lines(service, answer))


@schema.command("adopt")
@shows_an_answer
@click.argument("service")
@click.argument("digest", required=False)
@_terms
def adopt_schema(server: Server, service: str, digest: str | None, **terms: Any) -> Shown:
    """Make the schema that instances were built with the active one of their service.

    DIGEST, or the beginning of it, says which; without it, they are listed. Refused as by `schema put`.
    """
    if digest is None:
        return _adoptable(server, service)
    known = _instance_digests(server, service) if len(digest) < _DIGEST else [digest]
    found = [one for one in known if one.startswith(digest)]
    if len(found) != 1:
        raise SettingsInvalid(
            f"{len(found) or 'no'} schemas of {service}'s instances begin with {digest!r}; "
            f"known: {', '.join(one[:_SHOWN] for one in known) or 'none'}"
        )
    answer = server.ask(
        "POST", *_PATH, service, "adopt", holds=_PUT, query=_query(terms), body={"digest": found[0]}
    ).value
    return Shown(answer, _put_lines(service, answer))


@schema.command("check")
@shows_an_answer
@click.argument("service")
@click.argument("file", type=click.File("rb"))
@click.option("--drop", multiple=True, metavar="KEY", help="As if what is stored there were gone.")
def check_schema(server: Server, service: str, file: IO[bytes], drop: tuple[str, ...]) -> Shown:
    """Say what the schema in FILE would break, and change nothing: exit 7 if it would be refused.

    \b
      config-manager schema check stt-worker stt.json || echo "not this one"
    """
    body = json_object_in("FILE", file.read())
    query = {"dry_run": "true", "drop": ",".join(drop) or None}
    answer = server.ask("PUT", *_PATH, service, holds=_PUT, query=query, body=body).value
    lines = [*difference_lines(answer), *_break_lines(answer)]
    refused, error = answer.get("refused"), None
    if answer.get("unchanged"):
        lines.append(f"version {answer['version']} is the same schema")
    elif refused is None:
        moved = "; stored values would move with it" if answer["migrated"] else ""
        lines.append(clean(f"{service}: it would be version {answer['version']}{moved}"))
    if refused is not None:
        status = _STATUS.get(refused["type"], _REFUSED)
        error = ServerSays(clean(refused["detail"]), clean(refused["type"]), status)
    return Shown(answer, lines, error)


@schema.command("delete")
@shows_an_answer
@click.argument("service")
@AUDIT_REASON
def delete_schema(server: Server, service: str, reason: str | None) -> Shown:
    """Take the schema that was put out of use; stored values and every version stay.

    What the server's catalogue or an instance had newest is active again, else none is.
    """
    answer = server.delete(*_PATH, service, holds="service version source", reason=reason)
    now = (
        f"version {answer['version']} ({answer['source']}) is active"
        if answer["version"] is not None
        else "it has no schema, and takes any values"
    )
    return Shown(answer, [f"{clean(service)}: {now}"])


def _query(terms: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "allow_breaking": "true" if terms["allow_breaking"] else None,
        "allow_lossy": "true" if terms["allow_lossy"] else None,
        "drop": ",".join(terms["drop"]) or None,
        "reason": terms["reason"],
        **waiting(terms["wait"]),
    }


def _adoptable(server: Server, service: str) -> Shown:
    answer = server.get(*_PATH, service, "instances", holds="instance_schemas")
    rows = (
        (
            one["digest"][:_SHOWN],
            "candidate" if one["candidate"] else "active",
            ", ".join(one["instances"]) or "-",
            one["last_seen"][:19].replace("T", " "),
        )
        for one in answer["instance_schemas"]
    )
    return Shown(answer, table(("DIGEST", "STATE", "INSTANCES", "LAST SEEN"), rows))


def _instance_digests(server: Server, service: str) -> list[str]:
    answer = server.get(*_PATH, service, "instances", holds="instance_schemas")
    return [one["digest"] for one in answer["instance_schemas"]]


# ── in words ───────────────────────────────────────────────────────────────────────────────────


def _put_lines(service: str, answer: Mapping[str, Any]) -> Iterator[str]:
    yield from difference_lines(answer)
    yield from _break_lines(answer)
    if answer.get("unchanged"):
        yield f"version {answer['version']} is the same schema; nothing was changed"
        return
    yield f"{clean(service)}: version {answer['version']} is active"
    if answer["migrated"]:
        held = "a broker holds it" if answer.get("propagation") == "confirmed" else "on its way"
        yield f"stored values were moved: revision {answer['revision']}; {held}"


def difference_lines(answer: Mapping[str, Any]) -> list[str]:
    """A table of `differences`; nothing if there are none."""
    rows = [
        (_told(one), one["stored"], one["new_code"], one["old_code"], _example(one))
        for one in answer["differences"]
    ]
    return list(table(("WHAT", "STORED", "NEW CODE", "OLD CODE", ""), rows)) if rows else []


def _told(one: Mapping[str, Any]) -> str:
    key = one["pointer"][1:]
    was = f"{one['was']} → " if one.get("was") else ""
    return f"{was}{key} {one['change']}".strip()


def _example(one: Mapping[str, Any]) -> str:
    if "example" in one:
        return f"such as {json.dumps(one['example'], ensure_ascii=False)}"
    return "" if one["proof"] == "proved" else one["proof"]


def _break_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    for one in answer["breaks"]["stored"]:
        yield clean(f"stored in {one['layer']}: {one['key']} = {one['why']}")
    for one in answer["breaks"]["instances"]:
        claim = "" if one["enrolled"] else " (not enrolled)"
        yield clean(f"instance {one['instance']}{claim}: {one['why']}")
    for one in answer.get("lossy", ()):
        yield clean(f"lost: {one['pointer'][1:]}: {one['detail']}")


def _when(one: Mapping[str, Any]) -> str:
    return (one["at"] or "-")[:19].replace("T", " ")
