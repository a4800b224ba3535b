"""`config-manager notifications`: who is told what happens, by webhooks."""

from __future__ import annotations

import sys
from typing import Any

import click

from config_manager.api.commands.options import AUDIT_REASON, shows_an_answer
from config_manager.api.commands.output import Shown, clean, table
from config_manager.api.commands.remote import Server
from config_manager.config.errors import NotDelivered

_PATH = ("api", "v1", "notifications")
_MOST_CHARACTERS = 4096
_EVENTS = ("revision", "rollback", "refused", "drift")
_HEADER = ("NAME", "STATE", "WAITING", "EVENTS", "SERVICES", "URL", "LAST ERROR")


@click.group()
def notifications() -> None:
    """Tell others what happens: a POST to a URL for each event, signed (Standard Webhooks 1.0).

    \b
      revision  a configuration was changed
      rollback  changes were taken back
      refused   an instance refused a configuration
      drift     what runs is not what is wanted, or is again

    \b
      config-manager notifications add chat https://chat.example.org/hook --events drift,refused
      config-manager notifications test chat
      config-manager notifications list
    """


@notifications.command("list")
@shows_an_answer
def list_notifications(server: Server) -> Shown:
    """Show everybody who is told, and how that goes.

    \b
      ok        the last message was delivered, or there was none
      trying    it was not; it is sent again, up to 24 hours long
      failing   24 hours in vain: what is older is given up, and the newest is still tried
    """
    answer = server.get(*_PATH, holds="notifications")
    known = answer["notifications"]
    nobody = "nobody is told; `config-manager notifications add NAME URL` adds somebody"
    return Shown(answer, table(_HEADER, map(_row, known)) if known else [nobody])


@notifications.command()
@shows_an_answer
@click.argument("name")
@click.argument("to", metavar="URL")
@click.option(
    "--events",
    default=",".join(_EVENTS),
    metavar="EVENT[,EVENT]",
    help="Of revision, rollback, refused, drift. [all]",
)
@click.option(
    "--services",
    multiple=True,
    metavar="PATTERN",
    help="Only about these, such as 'tts-*'; may stand several times. [all]",
)
@click.option(
    "--plain",
    is_flag=True,
    help="An http:// URL of another machine is meant: anybody on the way reads it.",
)
@AUDIT_REASON
def add(
    server: Server,
    name: str,
    to: str,
    events: str,
    services: tuple[str, ...],
    plain: bool,
    reason: str | None,
) -> Shown:
    """Tell somebody from now on. The secret is shown this once: the receiver checks the signature with it.

    URL is - to read it from standard input: with many receivers its path is a password, and other users of this
    machine see a command's words.

    \b
      config-manager notifications add chat - --services 'tts-*' < url.txt
      config-manager notifications add hall http://127.0.0.1:8123/hook
    """
    if to == "-":
        to = sys.stdin.read(_MOST_CHARACTERS).strip()
    patterns = [p.strip() for given in services for p in given.split(",")]
    body = {
        "name": name,
        "url": to,
        "events": [event.strip() for event in events.split(",")],
        "services": patterns or ["*"],
        "plain": plain,
    }
    made = server.post(*_PATH, holds="name events secret", body=body, reason=reason)
    lines = (
        f"{clean(made['name'])} is told about: {', '.join(map(clean, made['events']))}. Its secret:",
        f"\n  {clean(made['secret'])}\n",
        "This is the only time it is shown. The receiver needs it to check the signature.",
        f"Try it: config-manager notifications test {clean(name)}",
    )
    return Shown(made, lines)


@notifications.command()
@shows_an_answer
@click.argument("name")
@AUDIT_REASON
def remove(server: Server, name: str, reason: str | None) -> Shown:
    """Tell somebody nothing any more. What waits for it is dropped."""
    answer = server.delete(*_PATH, name, holds="name", reason=reason)
    return Shown(answer, [f"{clean(name)} is told nothing any more"])


@notifications.command()
@shows_an_answer
@click.argument("name")
@AUDIT_REASON
def test(server: Server, name: str, reason: str | None) -> Shown:
    """Send a test now, and say what came back. Exit 1 if it was not delivered.

    What waits for the target is sent at once if it answers.
    """
    answer = server.post(*_PATH, name, "test", holds="delivered status why", reason=reason)
    if answer["delivered"]:
        return Shown(answer, [f"{clean(name)} answered {answer['status']}: it is told"])
    return Shown(answer, [], NotDelivered(f"{name} was not told: {clean(str(answer['why']))}"))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    patterns = one["services"]
    return (
        one["name"],
        one["state"],
        str(one["waiting"]),
        "all" if len(one["events"]) == len(_EVENTS) else ", ".join(one["events"]),
        "all" if patterns == ["*"] else ", ".join(patterns),
        one["url"],
        one["last_error"] or "-",
    )
