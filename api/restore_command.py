"""`config-manager restore`: the way back from a rollback, from rows that nobody wrote, from a lost witness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from config_manager.api.data_dir_commands import on_a_data_dir
from config_manager.api.disk_errors import told_of
from config_manager.api.operator import clean, print_json
from config_manager.config.dumps import forbid_dumps
from config_manager.config.errors import NotFound, SettingsInvalid

if TYPE_CHECKING:
    from config_manager.actors.restoring import Restored
    from config_manager.config.settings import Settings


@click.command()
@on_a_data_dir
@click.option(
    "--mqtt-url",
    metavar="URL[,URL]",
    help="Brokers that it has published to; they know how far it had come. "
    "[CONFIG_MANAGER_MQTT_URL]",
)
@click.option("--accept", is_flag=True, help="Accept what is in the data directory.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--reason", help="Why, for history and audit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def restore(accept: bool, dry_run: bool, reason: str | None, as_json: bool, **flags: Any) -> None:
    """Accept the data directory as it is, after a server said rollback-suspected or not-audited.

    The server must be stopped. Every service gets a new revision in a new epoch, above all that
    instance.json, the cache, the brokers and the receipts on them have seen: services take it, and a
    copy of the data directory that runs elsewhere is outdone. What the audit does not vouch for is put
    back as the audit says; tokens and devices that it does not know are gone.

    \b
      config-manager restore --accept --dry-run --mqtt-url mqtt://broker
      config-manager restore --accept --mqtt-url mqtt://broker --reason "restored last night's copy"

    Stop the other one first, if there are two. Exit code 3 where the database can't be opened, 4 where a
    server uses it, 5 where a newer trust root lies on a broker whose keys are not here.
    """
    forbid_dumps()
    if not accept:
        raise SettingsInvalid(
            "say --accept: it makes the data directory as it is the truth; with --dry-run it only says "
            "what it would do"
        )
    from config_manager.config.settings import load_settings

    settings = load_settings(bind="127.0.0.1:0", **flags)
    with told_of(settings.data_dir, is_in_use=True):
        if not (settings.data_dir / "config.db").exists():
            raise NotFound(f"{settings.data_dir} has no database")
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


def _run(settings: Settings, reason: str | None, *, dry_run: bool) -> Restored:
    from config_manager.api.main import import_structlog_alone

    import_structlog_alone()
    import sys

    import trio

    from config_manager.actors.mqtt import AiomqttTransport
    from config_manager.actors.restoring import accept_what_is_here
    from config_manager.config.errors import ConfigManagerError, the_reason
    from config_manager.config.logging import configure
    from config_manager.config.services import SAMPLE_CATALOGUE
    from config_manager.config.world import World
    from config_manager.storage.store import DatabaseUnavailable

    async def work() -> Restored:
        return await accept_what_is_here(
            settings,
            catalogue=SAMPLE_CATALOGUE,
            transport=AiomqttTransport(),
            world=World(),
            reason=reason,
            dry_run=dry_run,
        )

    configure("console", "error", sys.stderr)
    try:
        return trio.run(work, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise the_reason(group, ConfigManagerError, OSError, DatabaseUnavailable) from group


def _tell(restored: Restored, data_dir: Path, *, dry_run: bool) -> None:
    for line in restored.put_back:
        click.echo(f"{clean(line)}: put back as the audit says")
    for line in restored.dropped:
        click.echo(f"{clean(line)}: gone")
    for service in restored.history_as_it_lies:
        click.echo(
            f"not-audited: history {clean(service)}: accepted as it lies, as some of it was once before"
        )
    if restored.as_it_lies:
        click.echo(
            "the audit is not whole, so it can't tell what was written: everything is accepted as it lies. "
            "Look at each configuration once the server runs, and at who may enter:"
        )
        for line in restored.access:
            click.echo(f"  {clean(line)}")
    verb = "would get" if dry_run else "got"
    services = "1 service" if restored.services == 1 else f"{restored.services} services"
    click.echo(
        f"{services} {verb} revision {restored.revision} in epoch {restored.epoch_seq}"
        f" (was revision {restored.revision_before} in epoch {restored.epoch_seq_before})"
    )
    if not dry_run:
        click.echo(f"start it: config-manager serve --data-dir {data_dir}")
