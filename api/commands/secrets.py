"""`config-manager secret`: set, list, reveal, delete, and a new key for all. No value is ever an argument."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from config_manager.api.commands.options import (
    AUDIT_REASON,
    FILE,
    HISTORY_REASON,
    asks_a_server,
    file_of,
    shows_an_answer,
)
from config_manager.api.commands.output import Shown, age, clean, print_json, table
from config_manager.api.commands.remote import Server
from config_manager.config.dumps import forbid_dumps
from config_manager.config.errors import Conflict, SettingsInvalid

_PATH = ("api", "v1", "secrets")
_MOST_BYTES = 16 * 1024
"""What the server takes; a pipe that never ends must not fill the memory."""
_LOOK_EVERY_S = 0.2
_ROTATION = "state done total correlation_id"


@click.group()
def secret() -> None:
    """Set, list, reveal and delete secrets; rotate the key they lie under.

    A secret belongs to a service and has a name; each value is a version. Values are encrypted
    under a key of their own and reach only that service's enrolled instances.

    \b
      config-manager secret set tts-worker api_key          # asks for it, or reads a pipe
      config-manager secret list
      config-manager secret reveal tts-worker api_key --reason "moving to the new provider"
      config-manager secret rotate-key
    """
    forbid_dumps()


@secret.command("set")
@click.argument("service")
@click.argument("name")
@click.option(
    "--file", "path", type=FILE, help="Read the value from this file, byte for byte (UTF-8)."
)
@HISTORY_REASON
@shows_an_answer
def set_secret(
    server: Server, service: str, name: str, path: Path | None, reason: str | None
) -> Shown:
    """Store a value as the next version.

    It comes from --file, from a pipe, or is asked for; one newline at the end of a pipe is not part
    of it. It is no argument, because every user of a machine sees every command line.
    """
    body = {"service": service, "name": name, "value": _value(path)}
    answer = server.post(*_PATH, holds="version revision", body=body, reason=reason)
    lines = (
        f"{service}/{name} is now version {answer['version']} (revision {answer['revision']})",
        f"enrolled instances of {service} get it sealed; nobody else does",
    )
    return Shown(answer, lines)


@secret.command("list")
@click.option("--service", metavar="NAME", help="Only this service's.")
@shows_an_answer
def list_secrets(server: Server, service: str | None) -> Shown:
    """Show names, versions and ages; never a value."""
    answer = server.get(*_PATH, holds="secrets", service=service)
    if not answer["secrets"]:
        return Shown(
            answer, ["no secrets yet; `config-manager secret set SERVICE NAME` stores one"]
        )
    rows = (
        (
            entry["service"],
            entry["name"],
            str(entry["version"]),
            str(entry["kept"]),
            f"{age(entry['age_s'])} ago",
            _why(entry["rotate"]),
        )
        for entry in answer["secrets"]
    )
    return Shown(answer, table(("SERVICE", "NAME", "VERSION", "KEPT", "SET", "ROTATE"), rows))


@secret.command()
@click.argument("service")
@click.argument("name")
@shows_an_answer
def versions(server: Server, service: str, name: str) -> Shown:
    """Show when each version of a secret was set; never a value."""
    answer = server.get(*_PATH, service, name, holds="versions rotate")
    return Shown(answer, _version_lines(answer))


def _version_lines(answer: dict[str, Any]) -> Iterator[str]:
    rows = ((str(v["version"]), v["updated_at"], age(v["age_s"])) for v in answer["versions"])
    yield from table(("VERSION", "SET", "AGE"), rows)
    if answer["rotate"]:
        yield f"\nset it anew: {clean(_why(answer['rotate']))}"


@secret.command()
@click.argument("service")
@click.argument("name")
@click.option("--reason", required=True, help="Why; the audit has it before you see the value.")
@click.option("--version", type=click.IntRange(min=1), help="An older one. [the newest]")
@asks_a_server
def reveal(
    server: Server, as_json: bool, service: str, name: str, reason: str, version: int | None
) -> None:
    """Print a value. The audit keeps who saw it, when, and why."""
    body = {"reason": reason, **({} if version is None else {"version": version})}
    answer = server.post(*_PATH, service, name, "reveal", holds="value", body=body)
    if as_json:
        print_json(answer)
    elif sys.stdout.isatty():
        click.echo(clean(answer["value"], keep="\n"))
    else:
        click.echo(answer["value"].encode(), nl=False)  # byte for byte, for a pipe


@secret.command("rotate-key")
@AUDIT_REASON
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is done.")
@shows_an_answer
def rotate_key(server: Server, reason: str | None, wait: bool) -> Shown:
    """Seal every secret anew under a new key, while everything goes on.

    The server makes the key, writes it beside the old one, seals every version anew in the background
    and then lets the old key go. Meanwhile both keys open, so nothing is ever unreadable. A server that
    dies goes on at its next start. There is one rotation at a time: given again, this command shows the
    one that runs. It needs an admin's token.

    \b
    After it:
      - backups from before still need the old key: it is in their own recovery.sealed, so keep the
        recovery key, or let those backups go
      - the values themselves are what they were. If somebody may have read them, set them anew:
        config-manager secret set SERVICE NAME

    A key that comes from elsewhere (--credentials-dir) is not the server's to write; it says what to
    do. `rotate-db-key` changes the key of the whole database, for which the server is stopped.

    \b
      config-manager secret rotate-key --reason "somebody left"
      config-manager secret rotate-key --no-wait --json
    """
    report = server.post(*_PATH, "rotate-key", holds=_ROTATION, reason=reason)
    if wait:
        report = _followed(server, report)
    blocked = Conflict(clean(report["to_do"])) if report["state"] == "blocked" else None
    return Shown(report, _progress(report), blocked)


def _followed(server: Server, report: dict[str, Any]) -> dict[str, Any]:
    """Look until this rotation is over, with its progress on a terminal's stderr."""
    shows = sys.stderr.isatty()
    mine = report["correlation_id"]
    while report["state"] == "running" and report["correlation_id"] == mine:
        if shows:
            click.echo(
                f"\r{report['done']} of {report['total']} versions sealed anew", err=True, nl=False
            )
        time.sleep(_LOOK_EVERY_S)
        report = server.get(*_PATH, "rotate-key", holds=_ROTATION)
    if shows:
        click.echo(err=True)
    return report


def _progress(report: dict[str, Any]) -> Iterator[str]:
    if report["state"] == "idle":
        said = f"all {report['done']} versions are sealed under a new key ({report['key_id']})"
        if report["unreadable"]:
            said += f"; {report['unreadable']} more open with no key that is here"
        yield said + ("" if report["to_do"] else "; the old one is gone")
        if report["to_do"]:
            yield f"to do: {report['to_do']}"
    else:
        by, at = clean(report["by"]), report["started_at"]
        yield (
            f"{report['done']} of {report['total']} versions are sealed under the new key (begun by {by}, "
            f"{at}); the server goes on by itself, GET /api/v1/secrets/rotate-key says how far"
        )


@secret.command()
@click.argument("service")
@click.argument("name")
@HISTORY_REASON
@click.option("--yes", is_flag=True, help="Don't ask.")
@shows_an_answer
def delete(server: Server, service: str, name: str, reason: str | None, yes: bool) -> Shown:
    """Delete every version of a secret; the service's next revision no longer names it."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("say --yes if nobody can be asked")
        click.confirm(f"delete every version of {service}/{name}? It can't be undone", abort=True)
    answer = server.delete(*_PATH, service, name, holds="revision", reason=reason)
    line = (
        f"{service}/{name} is deleted (revision {answer['revision']}); anybody who has read it still "
        "knows it: make it worthless where it was used"
    )
    return Shown(answer, [line])


def _value(path: Path | None) -> str:
    """The value from a file, a pipe or a prompt; raises SettingsInvalid."""
    if path is None and sys.stdin.isatty():
        asked: str = click.prompt("value", hide_input=True, confirmation_prompt="again", err=True)
        return asked
    if path is None:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1).removesuffix(b"\n").removesuffix(b"\r")
    else:
        with file_of("--file: ", path), path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    if not data:
        raise SettingsInvalid("an empty value: send it through a pipe, or say --file FILE")
    if len(data) > _MOST_BYTES:
        raise SettingsInvalid(f"a secret has at most {_MOST_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsInvalid(
            "a secret is text in UTF-8; encode what is not, for example with base64"
        ) from None


def _why(mark: dict[str, Any] | None) -> str:
    return "" if mark is None else str(mark.get("why", "yes"))
