"""`config-manager token`: who may do what, made, listed and revoked."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from config_manager.api.commands.remote import (
    Server,
    asks_a_server,
    clean,
    print_json,
    print_table,
)
from config_manager.config.errors import SettingsInvalid

_PATH = ("api", "v1", "tokens")
_HEADER = ("NAME", "ROLE", "SERVICES", "CREATED", "BY", "EXPIRES", "LAST USE")


@click.group()
def token() -> None:
    """Give people and programs a token each, with a role and an end.

    \b
      read      look: configurations, history, status
      write     read, and change configurations
      secrets   read, and set, list, reveal and delete secrets
      admin     everything: tokens, devices, the trust root, the audit
    """


@token.command()
@asks_a_server
@click.option("--name", required=True, help="Stands in history, logs and audit: who did it.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["read", "write", "secrets", "admin"]),
    help="May do.",
)
@click.option(
    "--services",
    multiple=True,
    metavar="PATTERN",
    help="Only these services, such as 'tts-*'; may stand several times. [all]",
)
@click.option("--expires", metavar="TIME", help="Such as 30m, 12h, 90d. [never]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this new file, which only you can read, and don't show it.",
)
def create(
    server: Server,
    as_json: bool,
    name: str,
    role: str,
    services: tuple[str, ...],
    expires: str | None,
    out: Path | None,
) -> None:
    """Make a token. It is shown this once; only its hash is kept.

    \b
      config-manager token create --name ci --role write --services 'tts-*' --expires 90d
    """
    patterns = [p.strip() for given in services for p in given.split(",")]
    body = {"name": name, "role": role, "services": patterns or ["*"], "expires": expires}
    descriptor = None if out is None else _new_file(out)  # before there is a token to lose
    try:
        made = server.ask(
            "POST", *_PATH, holds="name role services expires_at token", body=body
        ).value
    except BaseException:
        if out is not None and descriptor is not None:
            os.close(descriptor)
            out.unlink()
        raise
    text = made["token"]
    if descriptor is not None:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
        del made["token"]
    if as_json:
        print_json(made)
        return
    until = f"until {made['expires_at']}" if made["expires_at"] else "for ever"
    click.echo(f"{clean(made['name'])} may {made['role']} {_services(made)} {until}")
    if out is not None:
        click.echo(f"its token is in {out}: hand it over for --token-file")
    else:
        click.echo(f"\n  {clean(text)}\n")
        click.echo("This is the only time it is shown. Hand it over as CONFIG_MANAGER_TOKEN, or in")
        click.echo(
            f"a file for --token-file; `config-manager token revoke {name}` ends it at once."
        )


@token.command("list")
@asks_a_server
def list_tokens(server: Server, as_json: bool) -> None:
    """Show every token: what it may do, until when, and when it was last used."""
    answer = server.get(*_PATH, holds="tokens")
    if as_json:
        print_json(answer)
        return
    now = datetime.now(UTC).timestamp()
    print_table(_HEADER, [_row(one, now) for one in answer["tokens"]])


@token.command()
@asks_a_server
@click.argument("name")
@click.option("--reason", help="Why, for the audit.")
def revoke(server: Server, as_json: bool, name: str, reason: str | None) -> None:
    """End a token at once: the next request with it is refused."""
    answer = server.ask("DELETE", *_PATH, name, holds="name", query={"reason": reason}).value
    if as_json:
        print_json(answer)
        return
    click.echo(f"{clean(name)} is revoked: the next request with its token is refused")
    if name == "bootstrap":
        click.echo("the next start accepts it again while CONFIG_MANAGER_BOOTSTRAP_TOKEN is set")


def _new_file(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsInvalid(f"--out: {path}: {error.strerror}") from None


def _services(token: dict[str, Any]) -> str:
    patterns = token["services"]
    return "every service" if patterns == ["*"] else ", ".join(map(clean, patterns))


def _row(token: dict[str, Any], now: float) -> tuple[str, ...]:
    expires = token["expires_at"]
    return (
        token["name"],
        token["role"],
        _services(token),
        _day(token["created_at"]),
        token["created_by"],
        "never" if expires is None else f"{_day(expires)}{' (over)' if token['expired'] else ''}",
        _ago(token["last_used_at"], now),
    )


def _day(time: str | None) -> str:
    return "-" if time is None else time[:10]


def _ago(time: str | None, now: float) -> str:
    if time is None:
        return "never"
    seconds = max(0.0, now - datetime.fromisoformat(time).timestamp())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"
