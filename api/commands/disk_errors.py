"""Where what a disk says becomes one line and an exit code, for every command."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config_manager.config.disk_errors import is_of_a_disk, reason, what_helps
from config_manager.config.errors import DataDirUnusable, DiskFailed, StartError, the_reason

VARIABLE = "CONFIG_MANAGER_DATA_DIR"


@contextmanager
def told_of(data_dir: Path, *, is_in_use: bool = False) -> Iterator[None]:
    """The work of a command on a data directory.

    is_in_use: the command is for one that was made before. Raises DataDirUnusable (exit 2) where the disk
    refuses and no database is there, DiskFailed (exit 3) where one is, or has to be.
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
        raise kind(f"{VARIABLE}: {said}") from raised


def has_database(data_dir: Path) -> bool:
    """As far as can be seen from here: what nobody may look at is no reason to fear for anything."""
    try:
        return (data_dir / "config.db").stat().st_size > 0
    except OSError as error:
        return error.errno == errno.EIO  # sick, but there


def of_a_file(error: OSError) -> StartError | None:
    """What is left to tell of a file in any command; None where it is no matter of a disk."""
    if not is_of_a_disk(error):
        return None
    path = "the file" if error.filename is None else str(error.filename)
    return DiskFailed(f"{reason(error)}; {what_helps(error, path)}")
