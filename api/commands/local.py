"""The operator commands' way to a data directory: options, settings, work under Trio, errors of ours.

What is heavy is imported inside the functions, so that a command answers at once.
"""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from config_manager.api.commands.options import DIRECTORY, FILE
from config_manager.config.disk_errors import is_of_a_disk, reason, what_helps
from config_manager.config.dumps import forbid_dumps
from config_manager.config.errors import (
    ConfigManagerError,
    DataDirUnusable,
    DiskFailed,
    StartError,
    the_reason,
)

R = TypeVar("R")

_VARIABLE = "CONFIG_MANAGER_DATA_DIR"


def on_a_data_dir(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the data and its keys are. The command gets `settings`, from these
    options, the environment and `.env`. An option `mqtt_url` counts too; without one, no broker does."""

    @click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False, readable=False),
        help="Database, keys, cache. [CONFIG_MANAGER_DATA_DIR, ./data]",
    )
    @click.option("--db-key-file", type=FILE, help="The database's key. [<data>/keys/db.key]")
    @click.option(
        "--credentials-dir",
        type=DIRECTORY,
        help="Key files from elsewhere. [systemd's $CREDENTIALS_DIRECTORY]",
    )
    @functools.wraps(command)
    def with_settings(
        *,
        data_dir: Path | None,
        db_key_file: Path | None,
        credentials_dir: Path | None,
        mqtt_url: str | None = "none:",
        **options: Any,
    ) -> None:
        forbid_dumps()
        from config_manager.config.settings import load_settings

        settings = load_settings(
            bind="127.0.0.1:0",
            mqtt_url=mqtt_url,
            data_dir=data_dir,
            db_key_file=db_key_file,
            credentials_dir=credentials_dir,
        )
        command(settings=settings, **options)

    return with_settings


def import_structlog_alone() -> None:
    """structlog imports rich if that is installed (amqtt brings it): 0.2 s of every start, for
    tracebacks that show local variables, which must never be printed here."""
    absent = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
    import structlog as _  # noqa: F401

    if absent:
        del sys.modules["rich"]


def run_alone(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Under Trio, with no server around it. Only errors are logged, for people.

    Raises what the work ends with, out of every group.
    """
    import_structlog_alone()
    import trio

    from config_manager.config.logging import configure
    from config_manager.storage.store import DatabaseUnavailable

    configure("console", "error", sys.stderr)
    try:
        return trio.run(work, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise the_reason(group, ConfigManagerError, OSError, DatabaseUnavailable) from group


# ── what a disk says ───────────────────────────────────────────────────────────────────────────


@contextmanager
def disk_explained(data_dir: Path, *, is_in_use: bool = False) -> Generator[None]:
    """Around the work of a command on a data directory: an error of its disk becomes one of ours.

    is_in_use: the command is for a directory that was made before. Raises DataDirUnusable (exit 2) if
    the disk refuses and no database is there, DiskFailed (exit 3) if one is there, or has to be.
    """
    from config_manager.storage.store import DatabaseUnavailable, DiskFull

    try:
        yield
    except (OSError, DatabaseUnavailable, BaseExceptionGroup) as raised:
        error: BaseException = raised
        if isinstance(raised, BaseExceptionGroup):
            error = the_reason(raised, StartError, OSError, DatabaseUnavailable)
        if isinstance(error, OSError) and is_of_a_disk(error):
            said = f"{reason(error)}; {what_helps(error, str(data_dir))}"
        elif isinstance(error, DiskFull):
            said = f"{data_dir / 'config.db'}: {error}; free some space, and start again"
        elif isinstance(error, DatabaseUnavailable):
            said = (
                f"{data_dir / 'config.db'}: {error}; repair that and start again: what was begun goes on "
                "from where it stood"
            )
        else:
            raise
        kind = DiskFailed if is_in_use or has_database(data_dir) else DataDirUnusable
        raise kind(f"{_VARIABLE}: {said}") from raised


def has_database(data_dir: Path) -> bool:
    """Whether one can be seen from here. A place that nobody may look at counts as empty."""
    try:
        return (data_dir / "config.db").stat().st_size > 0
    except OSError as error:
        return error.errno == errno.EIO  # sick, but there


def file_explained(error: OSError) -> StartError | None:
    """The error of ours for an OSError about a file; None if it is about something else."""
    if not is_of_a_disk(error):
        return None
    path = "the file" if error.filename is None else str(error.filename)
    return DiskFailed(f"{reason(error)}; {what_helps(error, path)}")
