"""`config-manager devices`: which instances may receive secrets, and which are there no more."""

from __future__ import annotations

from typing import Any

import click

from config_manager.api.commands.remote import Server, asks_a_server, clean, print_json, print_table

_PATH = ("api", "v1", "devices")
_STATUS = ("api", "v1", "status")
_HEADER = ("SERVICE", "INSTANCE", "KEY", "ENROLLED", "BY", "SECRETS", "REVOKED")


@click.group()
def devices() -> None:
    """Let instances in, so that they receive their service's secrets; and out again.

    An instance that will not come back is forgotten, enrolled or not: it leaves `status` and the brokers.

    \b
      config-manager devices token --service stt-worker        # here: shows a one-time token
      config-manager client enroll --state ./state --service stt-worker \\
        --url http://server:8081 --token-file -                # there: asks for it
      config-manager devices forget stt-worker old-kitchen     # gone for good
    """


@devices.command()
@asks_a_server
@click.option("--service", required=True, help="Whose instance may enrol.")
@click.option("--instance", metavar="NAME", help="Only this one. [whichever comes]")
@click.option("--expires", default="1h", show_default=True, metavar="TIME", help="Such as 30m.")
@click.option("--reason", help="Why, for the audit.")
def token(
    server: Server,
    as_json: bool,
    service: str,
    instance: str | None,
    expires: str,
    reason: str | None,
) -> None:
    """Make a token with which one instance enrols, once."""
    body = {"service": service, "instance": instance, "expires": expires}
    made = server.ask(
        "POST", *_PATH, "tokens", holds="token expires_at", body=body, query={"reason": reason}
    ).value
    if as_json:
        print_json(made)
        return
    who = f"{service}/{instance}" if instance else f"one instance of {service}"
    click.echo(f"{clean(who)} may enrol with it until {clean(made['expires_at'])}, once:")
    click.echo(f"\n  {clean(made['token'])}\n")
    click.echo(
        "on its machine: config-manager client enroll --state DIR --service "
        f"{clean(service)} --url URL --token-file -"
    )


@devices.command("list")
@asks_a_server
def list_devices(server: Server, as_json: bool) -> None:
    """Show every instance that enrolled, and which secrets it can read."""
    answer = server.get(*_PATH, holds="devices")
    if as_json:
        print_json(answer)
        return
    print_table(_HEADER, [_row(one) for one in answer["devices"]])


@devices.command()
@asks_a_server
@click.argument("service")
@click.argument("instance")
@click.option("--reason", help="Why, for the audit.")
def revoke(server: Server, as_json: bool, service: str, instance: str, reason: str | None) -> None:
    """Deliver nothing more to an instance, and mark what it could read."""
    answer = server.ask(
        "DELETE", *_PATH, service, instance, holds="secrets", query={"reason": reason}
    ).value
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{clean(service)}/{clean(instance)} is revoked: no secret is delivered to it any more"
    )
    for name in answer["secrets"]:
        click.echo(
            f"  it could read {clean(name)}: config-manager secret set {clean(service)} {clean(name)}"
        )


@devices.command()
@asks_a_server
@click.argument("service")
@click.argument("instance")
@click.option("--reason", help="Why, for the audit.")
def forget(server: Server, as_json: bool, service: str, instance: str, reason: str | None) -> None:
    """Forget an instance that will not come back.

    It leaves `config-manager status`, and the brokers no longer retain what it said. It stays enrolled:
    `devices revoke` ends that. Should it run again, it is shown again.

    An instance that is still heard is not forgotten (exit 7). It is heard until it says that it ends, or
    its broker says it for one that died. One that died together with its broker is no longer heard once
    it has left a change of its service unanswered for 5 minutes, or has said nothing for a day.
    """
    answer = server.ask(
        "DELETE", *_STATUS, service, instance, holds="away", query={"reason": reason}
    ).value
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{clean(service)}/{clean(instance)} is forgotten; should it run again, it is shown again"
    )
    for broker in answer["away"]:
        click.echo(f"  {clean(broker)} is away: what it retains of it is emptied once it is back")


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
