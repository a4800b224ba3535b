"""`config-manager token`: who may do what, made, listed and revoked."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from config_manager.api.commands.options import AUDIT_REASON, FILE, file_of, shows_an_answer
from config_manager.api.commands.output import Shown, age, clean, table
from config_manager.api.commands.remote import Server

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
@shows_an_answer
@click.option("--name", required=True, help="Stands in history, logs and audit: who did it.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["read", "write", "secrets", "admin"]),
    help="What it may do.",
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
    type=FILE,
    help="Write the token to this new file, which only you can read, and don't show it.",
)
def create(
    server: Server,
    name: str,
    role: str,
    services: tuple[str, ...],
    expires: str | None,
    out: Path | None,
) -> Shown:
    """Make a token. It is shown this once; only its hash is kept.

    \b
      config-manager token create --name ci --role write --services 'tts-*' --expires 90d
    """
    patterns = [p.strip() for given in services for p in given.split(",")]
    body = {"name": name, "role": role, "services": patterns or ["*"], "expires": expires}
    with _new_file(out) as file:  # before there is a token to lose
        made = server.post(*_PATH, holds="name role services expires_at token", body=body)
        text = made["token"]
        if file is not None:
            file.write(made.pop("token") + "\n")
    until = f"until {made['expires_at']}" if made["expires_at"] else "for ever"
    lines = [f"{clean(made['name'])} may {made['role']} {_services(made)} {until}"]
    if out is not None:
        lines.append(f"its token is in {out}: hand it over for --token-file")
    else:
        lines += (
            f"\n  {clean(text)}\n",
            "This is the only time it is shown. Hand it over as CONFIG_MANAGER_TOKEN, or in",
            f"a file for --token-file; `config-manager token revoke {name}` ends it at once.",
        )
    return Shown(made, lines)


@token.command("list")
@shows_an_answer
def list_tokens(server: Server) -> Shown:
    """Show every token: what it may do, until when, and when it was last used."""
    answer = server.get(*_PATH, holds="tokens")
    now = datetime.now(UTC).timestamp()
    return Shown(answer, table(_HEADER, (_row(one, now) for one in answer["tokens"])))


@token.command()
@shows_an_answer
@click.argument("name")
@AUDIT_REASON
def revoke(server: Server, name: str, reason: str | None) -> Shown:
    """End a token at once: the next request with it is refused."""
    answer = server.delete(*_PATH, name, holds="name", reason=reason)
    lines = [f"{clean(name)} is revoked: the next request with its token is refused"]
    if name == "bootstrap":
        lines.append("the next start accepts it again while CONFIG_MANAGER_BOOTSTRAP_TOKEN is set")
    return Shown(answer, lines)


@contextmanager
def _new_file(path: Path | None) -> Generator[IO[str] | None]:
    """A file for its owner alone, which is gone again if the block raises; None if there is no path."""
    if path is None:
        yield None
        return
    with file_of("--out: ", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise


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
    return f"{age(now - datetime.fromisoformat(time).timestamp())} ago"
