"""`config-manager secret`: set, list, reveal, delete. A value never stands on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from config_manager.api.operator import Server, asks_a_server, clean, print_json, print_table
from config_manager.config.dumps import forbid_dumps
from config_manager.config.errors import SettingsInvalid

_PATH = ("api", "v1", "secrets")
_MOST_BYTES = 16 * 1024
"""What the server takes; a pipe that never ends must not fill the memory."""
_UNTIL = ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h"), (float("inf"), 86_400, "d"))
"""Up to how many seconds an age is told in which unit."""


@click.group()
def secret() -> None:
    """Set, list, reveal and delete secrets.

    A secret belongs to a service and has a name; each value is a version. Values are encrypted
    under a key of their own and reach only that service's enrolled instances.

    \b
      config-manager secret set tts-worker api_key          # asks for it, or reads a pipe
      config-manager secret list
      config-manager secret reveal tts-worker api_key --reason "moving to the new provider"
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
    answer = server.ask("POST", *_PATH, query={"reason": reason}, body=body).value
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
    answer = server.get(*_PATH, service=service)
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
    answer = server.get(*_PATH, service, name)
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
    answer = server.ask("POST", *_PATH, service, name, "reveal", body=body).value
    if as_json:
        print_json(answer)
    elif sys.stdout.isatty():
        click.echo(clean(answer["value"], keep="\n"))
    else:
        click.echo(answer["value"].encode(), nl=False)  # byte for byte, for a pipe


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
    answer = server.ask("DELETE", *_PATH, service, name, query={"reason": reason}).value
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
