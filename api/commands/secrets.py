"""`config-manager secret`: set, list, reveal, delete, and a new key for all. A value never stands on the command line."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from config_manager.api.commands.remote import Server, asks_a_server, clean, print_json, print_table
from config_manager.config.dumps import forbid_dumps
from config_manager.config.errors import Conflict, SettingsInvalid

_PATH = ("api", "v1", "secrets")
_MOST_BYTES = 16 * 1024
"""What the server takes; a pipe that never ends must not fill the memory."""
_LOOK_EVERY_S = 0.2
_ROTATION = "state done total correlation_id"
_UNTIL = ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h"), (float("inf"), 86_400, "d"))
"""Up to how many seconds an age is told in which unit."""


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
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read the value from this file, byte for byte (UTF-8).",
)
@click.option("--reason", help="Why, for the history.")
@asks_a_server
def set_secret(
    server: Server, as_json: bool, service: str, name: str, path: Path | None, reason: str | None
) -> None:
    """Store a value as the next version.

    It comes from --file, from a pipe, or is asked for; one newline at the end of a pipe is not part
    of it. It is no argument, because every user of a machine sees every command line.
    """
    body = {"service": service, "name": name, "value": _value(path)}
    answer = server.ask(
        "POST", *_PATH, holds="version revision", query={"reason": reason}, body=body
    ).value
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{service}/{name} is now version {answer['version']} (revision {answer['revision']})\n"
        f"enrolled instances of {service} get it sealed; nobody else does"
    )


@secret.command("list")
@click.option("--service", metavar="NAME", help="Only this service's.")
@asks_a_server
def list_secrets(server: Server, as_json: bool, service: str | None) -> None:
    """Show names, versions and ages; never a value."""
    answer = server.get(*_PATH, holds="secrets", service=service)
    if as_json:
        print_json(answer)
        return
    if not answer["secrets"]:
        click.echo("no secrets yet; `config-manager secret set SERVICE NAME` stores one")
        return
    print_table(
        ("SERVICE", "NAME", "VERSION", "KEPT", "SET", "ROTATE"),
        [
            (
                entry["service"],
                entry["name"],
                str(entry["version"]),
                str(entry["kept"]),
                f"{_age(entry['age_s'])} ago",
                _why(entry["rotate"]),
            )
            for entry in answer["secrets"]
        ],
    )


@secret.command()
@click.argument("service")
@click.argument("name")
@asks_a_server
def versions(server: Server, as_json: bool, service: str, name: str) -> None:
    """Show when each version of a secret was set; never a value."""
    answer = server.get(*_PATH, service, name, holds="versions rotate")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("VERSION", "SET", "AGE"),
        [(str(v["version"]), v["updated_at"], _age(v["age_s"])) for v in answer["versions"]],
    )
    if answer["rotate"]:
        click.echo(f"\nset it anew: {clean(_why(answer['rotate']))}")


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
    answer = server.ask("POST", *_PATH, service, name, "reveal", holds="value", body=body).value
    if as_json:
        print_json(answer)
    elif sys.stdout.isatty():
        click.echo(clean(answer["value"], keep="\n"))
    else:
        click.echo(answer["value"].encode(), nl=False)  # byte for byte, for a pipe


@secret.command("rotate-key")
@click.option("--reason", help="Why, for the audit.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is done.")
@asks_a_server
def rotate_key(server: Server, as_json: bool, reason: str | None, wait: bool) -> None:
    """Seal every secret anew under a new key, while everything goes on.

    The server makes the key, writes it beside the old one, seals every version anew in the background
    and then lets the old key go. Meanwhile both open, so nothing is unreadable at any moment; a server
    that dies goes on at its next start, and this command can be given again: there is one rotation at
    a time, and whoever asks for another is shown the one that runs. Needs an admin's token.

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
    report = server.ask(
        "POST", *_PATH, "rotate-key", holds=_ROTATION, query={"reason": reason}
    ).value
    if wait:
        report = _followed(server, report)
    if as_json:
        print_json(report)
    else:
        click.echo(_told(report))
    if report["state"] == "blocked":
        raise Conflict(clean(report["to_do"]))


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


def _told(report: dict[str, Any]) -> str:
    if report["state"] == "idle":
        said = f"all {report['done']} versions are sealed under a new key ({report['key_id']})"
        if report["unreadable"]:
            said += f"; {report['unreadable']} more open with no key that is here"
        said += f"\nto do: {report['to_do']}" if report["to_do"] else "; the old one is gone"
        return said
    by, at = clean(report["by"]), report["started_at"]
    return (
        f"{report['done']} of {report['total']} versions are sealed under the new key (begun by {by}, "
        f"{at}); the server goes on by itself, GET /api/v1/secrets/rotate-key says how far"
    )


@secret.command()
@click.argument("service")
@click.argument("name")
@click.option("--reason", help="Why, for the history.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@asks_a_server
def delete(
    server: Server, as_json: bool, service: str, name: str, reason: str | None, yes: bool
) -> None:
    """Delete every version of a secret; the service's next revision no longer names it."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("say --yes where nobody can be asked")
        click.confirm(f"delete every version of {service}/{name}? It can't be undone", abort=True)
    answer = server.ask(
        "DELETE", *_PATH, service, name, holds="revision", query={"reason": reason}
    ).value
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{service}/{name} is deleted (revision {answer['revision']}); whoever has read it still "
        "knows it: make it worthless where it was used"
    )


def _value(path: Path | None) -> str:
    """The value from a file, a pipe or a prompt; raises SettingsInvalid."""
    if path is None and sys.stdin.isatty():
        asked: str = click.prompt("value", hide_input=True, confirmation_prompt="again", err=True)
        return asked
    try:
        if path is not None:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        else:
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
            data = data.removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise SettingsInvalid(f"--file: {path}: {error.strerror}") from None
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


def _age(seconds: float) -> str:
    unit_s, unit = next((unit_s, unit) for limit, unit_s, unit in _UNTIL if seconds < limit)
    return f"{int(seconds // unit_s)} {unit}"
