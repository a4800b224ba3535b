"""`config-manager devices`: instances are enrolled, listed, revoked and forgotten."""

from __future__ import annotations

from typing import Any

import click

from config_manager.api.commands.options import AUDIT_REASON, shows_an_answer
from config_manager.api.commands.output import Shown, clean, table
from config_manager.api.commands.remote import Server

_PATH = ("api", "v1", "devices")
_STATUS = ("api", "v1", "status")
_HEADER = ("SERVICE", "INSTANCE", "KEY", "ENROLLED", "BY", "SECRETS", "REVOKED")


@click.group()
def devices() -> None:
    """Enrol instances, so that they receive their service's secrets; revoke or forget them.

    An instance that will not come back is forgotten, enrolled or not: it leaves `status` and the brokers.

    \b
      config-manager devices token --service stt-worker        # here: shows a one-time token
      config-manager client enroll --state ./state --service stt-worker \\
        --url http://server:8081 --token-file -                # there: asks for it
      config-manager devices forget stt-worker old-kitchen     # gone for good
    """


@devices.command()
@shows_an_answer
@click.option("--service", required=True, help="Whose instance may enrol.")
@click.option("--instance", metavar="NAME", help="Only this one. [whichever comes]")
@click.option("--expires", default="1h", show_default=True, metavar="TIME", help="Such as 30m.")
@AUDIT_REASON
def token(
    server: Server, service: str, instance: str | None, expires: str, reason: str | None
) -> Shown:
    """Make a token with which one instance enrols, once."""
    body = {"service": service, "instance": instance, "expires": expires}
    made = server.post(*_PATH, "tokens", holds="token expires_at", body=body, reason=reason)
    who = f"{service}/{instance}" if instance else f"one instance of {service}"
    how = f"config-manager client enroll --state DIR --service {clean(service)} --url URL --token-file -"
    lines = (
        f"{clean(who)} may enrol with it until {clean(made['expires_at'])}, once:",
        f"\n  {clean(made['token'])}\n",
        f"on its machine: {how}",
    )
    return Shown(made, lines)


@devices.command("list")
@shows_an_answer
def list_devices(server: Server) -> Shown:
    """Show every instance that enrolled, and which secrets it can read."""
    answer = server.get(*_PATH, holds="devices")
    return Shown(answer, table(_HEADER, map(_row, answer["devices"])))


@devices.command()
@shows_an_answer
@click.argument("service")
@click.argument("instance")
@AUDIT_REASON
def revoke(server: Server, service: str, instance: str, reason: str | None) -> Shown:
    """Deliver nothing more to an instance, and mark what it could read."""
    answer = server.delete(*_PATH, service, instance, holds="secrets", reason=reason)
    who = f"{clean(service)}/{clean(instance)}"
    could_read = (
        f"  it could read {name}: config-manager secret set {clean(service)} {name}"
        for name in map(clean, answer["secrets"])
    )
    return Shown(answer, [f"{who} is revoked: no secret is delivered to it any more", *could_read])


@devices.command()
@shows_an_answer
@click.argument("service")
@click.argument("instance")
@AUDIT_REASON
def forget(server: Server, service: str, instance: str, reason: str | None) -> Shown:
    """Forget an instance that will not come back.

    It leaves `config-manager status`, and the brokers no longer retain what it said. It stays enrolled:
    `devices revoke` ends that. Should it run again, it is shown again.

    An instance that is still heard is not forgotten (exit 7). It is heard until it says that it ends, or
    its broker says it for one that died. One that died together with its broker is no longer heard once
    it has left a change of its service unanswered for 5 minutes, or has said nothing for a day.
    """
    answer = server.delete(*_STATUS, service, instance, holds="away", reason=reason)
    who = f"{clean(service)}/{clean(instance)}"
    away = (
        f"  {clean(broker)} is away: what it retains of it is emptied once it is back"
        for broker in answer["away"]
    )
    return Shown(answer, [f"{who} is forgotten; should it run again, it is shown again", *away])


def _row(device: dict[str, Any]) -> tuple[str, ...]:
    return (
        device["service"],
        device["instance"],
        device["sign_keyid"][:16],
        device["enrolled_at"][:19],
        device["enrolled_by"],
        ", ".join(device["secrets"]) or "-",
        (device["revoked_at"] or "-")[:19],
    )
