"""Changing the key of the whole database, so that a death at any moment loses nothing.

    1  the new key lies beside the old one (`db.key.new`), durable
    2  the database is sound, and everything is in its one file (a TRUNCATE checkpoint)
    3  SQLCipher writes every page anew, in one transaction in the WAL, and commits it
    4  a TRUNCATE checkpoint puts the new pages over the old ones; the WAL is empty
    5  the new key's file takes the old one's place

If the process dies before the commit in 3, the database opens with the old key; after it, with the new one. (Until
4 is done the file alone would still open with the old key, but not with its WAL.) So opening tries the new key
first, then the old one. Doing it again resumes wherever it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from config_manager.config.errors import Conflict, DatabaseUnopenable
from config_manager.storage.keys.key_file import KeyFile
from config_manager.storage.sql import database
from config_manager.storage.sql.database import translated


def rekey(path: Path, file: KeyFile, *, new_key_is_there: Callable[[], None]) -> bool:
    """Put the database under a new key. Answers whether the key's file could be exchanged, too.

    Nobody else may have it open. new_key_is_there: called before anything depends on the new key. Raises
    DatabaseUnopenable if neither key opens it or it is damaged, and Conflict if a new key can't be written or
    is the old one: then nothing changed. Raises DatabaseUnavailable and OSError if the disk fails: then it can
    be done again.
    """
    old, new = file.read(), file.begin()
    if new == old:
        raise Conflict(f"{file.successor.name} holds the same key as {file.path.name}")
    new_key_is_there()
    if opening_key(path, (new, old)) == old:
        _check_sound(path, old)
        with translated(path), closing(database.connect(path, old)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.reset_key(database.raw_key(new))
    complete(path, new)
    _check_sound(path, new)
    return file.finish()


def settle(path: Path, file: KeyFile, old: bytes) -> bytes:
    """The key that opens the database, at a start. Finishes a change that was cut off after its commit. old: the
    key in its file. Raises DatabaseUnopenable, DatabaseUnavailable."""
    new = file.read_successor()
    if new is None or new == old or not _has_pages(path):
        return old
    key = opening_key(path, (new, old))
    if key == new:
        complete(path, new)
        file.finish()
    return key


def key_now(path: Path, file: KeyFile, old: bytes) -> bytes:
    """As `settle`, but changes nothing: a change that was cut off stays as it is."""
    new = file.read_successor()
    return old if new is None else opening_key(path, (new, old), read_only=True)


def opening_key(path: Path, keys: Sequence[bytes], *, read_only: bool = False) -> bytes:
    """The first of these keys that opens the database. Raises DatabaseUnopenable if none does, and
    DatabaseUnavailable if the disk fails. read_only: no other process has the file open, and nothing is changed."""
    error: DatabaseUnopenable | None = None
    for key in keys:
        try:
            if _has_pages(path):
                database.connect(path, key, read_only=read_only, is_alone=read_only).close()
                return key
        except DatabaseUnopenable as not_this_one:
            error = not_this_one
    raise error or DatabaseUnopenable(f"{path.name} is missing or empty")


def complete(path: Path, key: bytes) -> None:
    """Everything into the one file: until then the old pages are still in it. Raises DatabaseUnopenable if it is
    open elsewhere."""
    if not database.checkpoint(path, key):
        raise DatabaseUnopenable(f"{path.name} is open elsewhere; stop that and try again")


def _check_sound(path: Path, key: bytes) -> None:
    problems = database.integrity_problems(path, key)
    if problems:
        raise DatabaseUnopenable(
            f"{path.name} is damaged ({problems[0][:120]}); restore it from a backup first"
        )


def _has_pages(path: Path) -> bool:
    """An empty file opens with any key."""
    return path.exists() and path.stat().st_size > 0
