"""Commands on a stopped data directory: `init`, `recover`, `rotate-db-key`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from config_manager.api.commands.local import disk_explained, on_a_data_dir, run_alone
from config_manager.api.commands.options import AS_JSON, DIRECTORY, FILE
from config_manager.api.commands.output import Shown
from config_manager.config.dumps import forbid_dumps
from config_manager.config.errors import Conflict, NotFound, SettingsInvalid

if TYPE_CHECKING:
    from config_manager.config.secret import Secret
    from config_manager.config.settings import Settings

_MOST_CHARACTERS = 4096


@click.command()
@on_a_data_dir
@click.option(
    "--recovery-key-file",
    type=FILE,
    help="Write the recovery key to this new file, instead of showing it.",
)
@click.option(
    "--new-recovery-key", is_flag=True, help="Replace the recovery key; the old one opens no more."
)
@AS_JSON
def init(
    settings: Settings, recovery_key_file: Path | None, new_recovery_key: bool, as_json: bool
) -> None:
    """Make a data directory ready, without serving: keys, trust root, database, admin token.

    Shows a recovery key, once. Every key is sealed to it in <data>/recovery.sealed, again whenever
    one changes; with it, a backup of the data directory without keys/ can be brought back
    (config-manager recover). Keep it off this machine, on paper or in a password manager: anybody
    with that key and that file has everything.

    \b
      config-manager init --data-dir /var/lib/config-manager
    """
    from config_manager.config.world import World
    from config_manager.storage.keys.key_ring import KeyRing
    from config_manager.storage.keys.recovery import Recovery
    from config_manager.storage.witness import lock_data_dir

    if recovery_key_file is not None and recovery_key_file.exists():
        raise SettingsInvalid(f"--recovery-key-file: {recovery_key_file} is there already")
    world = World()
    with disk_explained(settings.data_dir):
        made = not (settings.data_dir / "instance.json").exists()
        if made:
            _make_everything(settings)
        with lock_data_dir(settings.data_dir):
            keys = KeyRing.of(settings, world)
            recovery = Recovery(keys, world)
            key = recovery.begin() if new_recovery_key or not recovery.exists else None
    told = _where(settings, keys.directory / "admin.token") | {"made": made}
    lines = _where_lines(told, is_new_key=key is not None)
    if key is not None:
        told |= _handed_over(key, recovery_key_file) | {"recovery_sealed": str(recovery.path)}
        lines += _key_lines(told, settings.data_dir)
    Shown(told, lines).show(as_json=as_json)


def _where(settings: Settings, token: Path) -> dict[str, Any]:
    return {
        "data_dir": str(settings.data_dir),
        "trust_root": str(settings.data_dir / "trust" / "root.json"),
        "admin_token_file": str(token) if token.exists() else None,  # else a token was given
    }


def _where_lines(told: dict[str, Any], *, is_new_key: bool) -> list[str]:
    data_dir, token = told["data_dir"], told["admin_token_file"]
    if not told["made"]:
        but = " but the recovery key" if is_new_key else ""
        lines = [f"{data_dir} was ready already; nothing in it changed{but}"]
    else:
        lines = [
            f"{data_dir} is ready: config-manager serve --data-dir {data_dir}",
            f"  trust root for your services  {told['trust_root']}",
        ]
        lines += [f"  admin token                   {token}"] if token else []
    if not is_new_key:
        lines.append("its recovery key was shown when it was made; --new-recovery-key replaces it")
    return lines


def _make_everything(settings: Settings) -> None:
    """What a first start makes, by the same code; then it stops, before it serves."""

    async def start_and_stop() -> None:
        from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
        from config_manager.actors.system import running_system
        from config_manager.config.services import SAMPLE_CATALOGUE
        from config_manager.config.world import World

        async with running_system(
            settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
        ):
            pass

    run_alone(start_and_stop)


def _handed_over(key: Secret, file: Path | None) -> dict[str, Any]:
    """In the file, else to be shown: its only time on a screen."""
    from config_manager.config.world import SystemDisk

    shown = key.reveal()
    if file is None:
        return {"recovery_key": shown}
    SystemDisk().write_atomic(file, shown.encode() + b"\n")
    return {"recovery_key_file": str(file)}


def _key_lines(told: dict[str, Any], data_dir: Path) -> list[str]:
    file = told.get("recovery_key_file")
    return [
        f"\nThe recovery key is in {file}: take it off this machine."
        if file
        else f"\nThe recovery key, shown this once:\n\n    {told['recovery_key']}\n",
        f"""Every key is sealed to it in {told["recovery_sealed"]}, which belongs into your backups.
Keep the recovery key where neither this machine nor its backups are: on paper, in a password
manager. When the keys are lost: restore the backup, then
    config-manager recover --data-dir {data_dir}
Without it, and without keys/, the data can't be read by anybody, you included.""",
    ]


@click.command()
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True, readable=False),
    help="The restored data directory.",
)
@click.option(
    "--recovery-key-file",
    type=FILE,
    help="Holds the recovery key. [asks for it, or reads a pipe]",
)
@click.option("--to", type=DIRECTORY, help="Where the key files go. [<data>/keys]")
@AS_JSON
def recover(data_dir: Path, recovery_key_file: Path | None, to: Path | None, as_json: bool) -> None:
    """Bring the keys of a data directory back with its recovery key.

    Opens <data>/recovery.sealed and writes the key files that are missing. A file that holds another
    key is left alone, and named. The recovery key is no argument, because every user of a machine
    sees every command line.
    """
    forbid_dumps()
    from config_manager.config.world import World
    from config_manager.storage.keys.key_file import KeyFile
    from config_manager.storage.keys.recovery import FILE, open_sealed, put_back
    from config_manager.storage.sql import rekeying
    from config_manager.storage.witness import lock_data_dir

    world = World()
    keys = to or data_dir / "keys"
    with disk_explained(data_dir, is_in_use=True), lock_data_dir(data_dir):
        try:
            sealed = world.disk.read(data_dir / FILE)
        except FileNotFoundError:
            raise NotFound(
                f"{data_dir} has no {FILE}: no recovery key was ever made for it (config-manager "
                "init makes one), or the backup left it out"
            ) from None
        contents = open_sealed(sealed, _ask_for_key(recovery_key_file))
        put = put_back(contents, keys, world)
        database = data_dir / "config.db"
        if database.exists():
            file = KeyFile(keys / "db.key", world)
            rekeying.settle(database, file, file.read())
    lines = [
        f"put back in {keys}: {', '.join(sorted(put))}",
        f"start it: config-manager serve --data-dir {data_dir}",
        (
            "if the keys were stolen rather than lost, change them now: config-manager rotate-db-key, "
            "then secret rotate-key and trust rotate once it runs"
        ),
    ]
    nothing = [f"every key was in {keys} already; nothing changed"]
    told = {"keys_dir": str(keys), "put_back": sorted(put)}
    Shown(told, lines if put else nothing).show(as_json=as_json)


def _ask_for_key(file: Path | None) -> str:
    if file is not None:
        try:
            with file.open() as opened:
                return opened.read(_MOST_CHARACTERS)
        except (OSError, UnicodeDecodeError):
            raise SettingsInvalid(f"--recovery-key-file: {file} can't be read") from None
    if sys.stdin.isatty():
        asked: str = click.prompt("recovery key", hide_input=True, err=True)
        return asked
    return sys.stdin.read(_MOST_CHARACTERS)


@click.command("rotate-db-key")
@on_a_data_dir
@AS_JSON
def rotate_db_key(settings: Settings, as_json: bool) -> None:
    """Put the whole database under a new key; the server must be stopped.

    Every page is written anew. This may be cut off at any moment: the next start finds the key that
    opens the database, and this command, given again, goes on from where it stood. It needs as much
    free space as the database has.
    """
    from config_manager.config.world import World
    from config_manager.storage.keys.key_ring import KeyRing
    from config_manager.storage.keys.recovery import Recovery
    from config_manager.storage.sql import rekeying
    from config_manager.storage.witness import lock_data_dir

    database = settings.data_dir / "config.db"
    world = World()
    with disk_explained(settings.data_dir, is_in_use=True):
        if not database.exists():  # before there is a lock: an empty directory stays empty
            raise NotFound(f"{settings.data_dir} has no database")
        with lock_data_dir(settings.data_dir):
            keys = KeyRing.of(settings, world)
            recovery = Recovery(keys, world)
            if not rekeying.rekey(database, keys.db, new_key_is_there=recovery.refresh):
                raise Conflict(
                    f"the database is under the key in {keys.db.successor}, but it can't take the place "
                    f"of {keys.db.path}: put it there by hand; until then both are needed"
                )
            recovery.refresh()
    lines = [
        f"the database is under a new key, in {keys.db.path}",
        "backups from before still open with the old one: keep it with them, or let both go",
    ]
    Shown({"db_key_file": str(keys.db.path)}, lines).show(as_json=as_json)
