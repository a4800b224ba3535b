"""`config-manager restore`: accept an old or edited data directory, or one that lost its instance.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from config_manager.api.commands.local import (
    disk_explained,
    has_database,
    on_a_data_dir,
    run_alone,
)
from config_manager.api.commands.output import clean, print_json
from config_manager.config.errors import DatabaseUnopenable, NotFound, SettingsInvalid

if TYPE_CHECKING:
    from config_manager.actors.restoring import Restored
    from config_manager.config.settings import Settings


@click.command()
@on_a_data_dir
@click.option(
    "--mqtt-url",
    metavar="URL[,URL]",
    help="Every broker that the server has published to. [CONFIG_MANAGER_MQTT_URL]",
)
@click.option("--accept", is_flag=True, help="Yes, this data directory counts from now on.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--reason", help="Why; history and audit show it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def restore(
    settings: Settings, accept: bool, dry_run: bool, reason: str | None, as_json: bool
) -> None:
    """Accept an old or edited data directory, and go on with it.

    For a server that says rollback-suspected or not-audited, or does not start without its instance.json.
    If there is a newer backup, put that in place instead: less is lost then. Stop the server first, and
    every other one that runs on a copy of this data directory.

    \b
    What it does:
    - Each service gets a new revision, in a new epoch, with the values that it
      has here. Both numbers are above all that this directory, the brokers and
      the receipts on them know; so services take it.
    - Configurations and histories that were edited past the server are put back
      as the audit says. Tokens and devices that were edited or added are removed.
    - If the audit is not whole, nothing can be put back: what the last-known-good
      cache has is accepted, or without it all as it lies. The command says so.
    - It lists who may enter from now on.
    - One row of the audit, `restore`, says what was done.

    Name every broker that the server has published to, with --mqtt-url or CONFIG_MANAGER_MQTT_URL: they know
    how far it had come. A broker of the server's own (auto:) keeps nothing and is not asked.

    Tokens and devices that were revoked after this directory was copied are good again. Start the server with
    --mqtt-url none: first, and revoke them once more.

    \b
      config-manager restore --accept --dry-run --mqtt-url mqtt://broker
      config-manager restore --accept --mqtt-url mqtt://broker \\
        --reason "the disk was lost"

    Exit code 3 if the database can't be opened or is gone, 4 if a server uses it, 5 if a broker holds a newer
    trust root whose keys are not here, 6 if there never was a database. docs/security.md has a walk-through (An
    old data directory).
    """
    if not accept:
        raise SettingsInvalid(
            "say --accept: it makes the data directory as it is the truth; with --dry-run it only says "
            "what it would do"
        )
    with disk_explained(settings.data_dir, is_in_use=True):
        _demand_a_database(settings.data_dir)
        restored = _run(settings, reason, dry_run=dry_run)
    for url, why in restored.unreachable.items():
        click.echo(
            f"warning: {url} could not be asked ({clean(why)}): if it knows of more, the server will say "
            "rollback-suspected again, and this can be repeated",
            err=True,
        )
    if as_json:
        print_json(restored.to_object())
    else:
        _tell(restored, settings.data_dir, dry_run=dry_run)


def _demand_a_database(data_dir: Path) -> None:
    """Raises DatabaseUnopenable if there was one, NotFound if there never was."""
    if has_database(data_dir):
        return
    if (data_dir / "instance.json").exists():
        raise DatabaseUnopenable(
            "config.db is missing or empty, but instance.json says there was one; restore it from a backup"
        )
    raise NotFound(f"{data_dir} has no database")


def _run(settings: Settings, reason: str | None, *, dry_run: bool) -> Restored:
    async def work() -> Restored:
        from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
        from config_manager.actors.restoring import accept_what_is_here
        from config_manager.config.services import SAMPLE_CATALOGUE
        from config_manager.config.world import World

        return await accept_what_is_here(
            settings,
            catalogue=SAMPLE_CATALOGUE,
            transport=AiomqttTransport(),
            world=World(),
            reason=reason,
            dry_run=dry_run,
        )

    return run_alone(work)


def _tell(restored: Restored, data_dir: Path, *, dry_run: bool) -> None:
    if not restored.asked:
        click.echo(
            "warning: no broker was asked how far it had come; name those that the server has published to "
            "(--mqtt-url)",
            err=True,
        )
    for line in restored.put_back:
        click.echo(f"{clean(line)}: put back as the audit says")
    for line in restored.dropped:
        click.echo(f"{clean(line)}: let go")
    if restored.as_it_lies:
        click.echo(
            "the audit is not whole, so it can't tell what was written: "
            + (
                "what the last-known-good cache holds is accepted"
                if restored.by_cache
                else "everything is accepted as it lies"
            )
            + ". Look at each configuration once the server runs"
        )
    for name in restored.not_allowed:
        click.echo(
            f"warning: {clean(name)} has values that its model does not allow any more: they go on as they "
            "are; set it anew",
            err=True,
        )
    verb = "would get" if dry_run else "got"
    services = "1 service" if restored.services == 1 else f"{restored.services} services"
    click.echo(
        f"{services} {verb} revision {restored.revision} in epoch {restored.epoch_seq}"
        f" (was revision {restored.revision_before} in epoch {restored.epoch_seq_before})"
    )
    click.echo("who may enter now; revoke again what was revoked since:")
    for line in restored.access or ("nobody: the next start makes an admin token",):
        click.echo(f"  {clean(line)}")
    if not dry_run:
        click.echo(f"start it: config-manager serve --data-dir {data_dir}")
