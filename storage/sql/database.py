"""Opening SQLCipher so that it neither lies nor leaks, and its errors in our words.

What is undone here was measured with sqlcipher3 0.6.4 (SQLCipher 4.19, SQLite 3.53): a file of
0 bytes opens with any key; native errors go to stderr; `ATTACH … KEY ''` writes plaintext; a
passphrase costs 100 ms where a raw key costs 2.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from config_manager.config.errors import DatabaseUnopenable
from config_manager.storage.sql.database_file import files_of, log_of
from config_manager.storage.store import DatabaseUnavailable, DiskFull

if TYPE_CHECKING:  # sqlcipher3 has no type stubs, and says that it is as sqlite3 is
    import sqlite3 as sqlite

    class SqlConnection(sqlite.Connection):
        """What sqlcipher3's connection has besides."""

        def set_key(self, key: bytes) -> None: ...
        def reset_key(self, key: bytes) -> None: ...
else:
    import sqlcipher3 as sqlite

    SqlConnection = sqlite.Connection

Error = sqlite.Error

_PAGE_CACHE_KIB = 4096
_BUSY_MS = 5000
_SALT_BYTES = 16
"""What any file of ours begins with. One of a single byte counts as empty with SQLite, and so would
open with any key."""

_SQLITE_BUSY = 5
_SQLITE_READONLY = 8
_SQLITE_CORRUPT = 11
_SQLITE_FULL = 13
_SQLITE_NOTADB = 26
_SQLITE_AUTH_ATTACH = 24  # sqlite3_set_authorizer's action code SQLITE_ATTACH
_SQLITE_DENY = 1
_SQLITE_OK = 0


def connect(
    path: Path, key: bytes, *, read_only: bool = False, is_alone: bool = False
) -> SqlConnection:
    """An open connection, the key checked against the file; usable from any one thread at a time.

    is_alone: with read_only, nobody else uses it, and no file of its own may be left beside it.
    The file must exist. Raises DatabaseUnopenable (wrong key, not a database) or
    DatabaseUnavailable (there, but can't be read now).
    """
    mode = "rw"
    if read_only:
        mode = "ro&immutable=1" if _is_at_rest(path, is_alone=is_alone) else "ro"
    with translated(path):
        if 0 < path.stat().st_size < _SALT_BYTES:
            raise DatabaseUnopenable(f"{path.name} is cut short; nothing was changed")
        if not read_only:
            _demand_writable(path)
        connection = sqlite.connect(
            f"file:{_uri_path(path)}?mode={mode}",
            uri=True,
            factory=SqlConnection,
            check_same_thread=False,
            isolation_level=None,
            cached_statements=256,
        )
        try:
            connection.execute("PRAGMA cipher_log_level = NONE")
            connection.set_key(raw_key(key))
            connection.set_authorizer(_deny_attach)
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"PRAGMA cache_size = -{_PAGE_CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
    return connection


def _is_at_rest(path: Path, *, is_alone: bool) -> bool:
    """Nothing is in its log, and its directory takes no index of one, or is to be left as it is: without
    that SQLite opens nothing but what it is told that nobody changes."""
    log = log_of(path)
    has_log = log.exists() and not (is_alone and log.stat().st_size == 0)
    return not has_log and (is_alone or not os.access(path.parent, os.W_OK))


def _demand_writable(path: Path) -> None:
    """Looked at first: SQLite would open it for reading, and make a log that takes no writes either."""
    for file in files_of(path):
        if file.exists() and not os.access(file, os.W_OK):
            raise DatabaseUnavailable(_not_writable(file, "it is read-only, or somebody else's"))


def _not_writable(path: Path, why: object) -> str:
    return (
        f"{path.name} can't be written: {why}; make the file, its directory and its file system writable "
        f"for uid {os.geteuid()}"
    )


def waits_for_locks(connection: SqlConnection, waits: bool) -> None:
    """Whether a lock that somebody else holds is waited for (5 s) or an error at once."""
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS if waits else 0}")


def is_busy(error: Exception) -> bool:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == _SQLITE_BUSY


def try_writing(connection: SqlConnection, path: Path) -> None:
    """Begin a write of nothing and take it back: in WAL mode a lock, and no page. A lock that somebody
    else holds is no answer, and waited for only where the connection does.

    Raises DatabaseUnavailable where the file opened, but only for reading: SQLite does that without a
    word, and makes of BEGIN IMMEDIATE a transaction that reads.
    """
    with translated(path):
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite.Error as error:
            if is_busy(error):
                return
            raise
        try:
            connection.execute("UPDATE counters SET revision = revision WHERE false")
        finally:
            connection.execute("ROLLBACK")


def raw_key(key: bytes) -> bytes:
    """SQLCipher's spelling of a key that is no passphrase."""
    return b"x'" + key.hex().encode() + b"'"


def create(path: Path, key: bytes) -> None:
    """Make the file (0600) with its first page, so that `connect` finds a database there."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = connect(path, key)
    try:
        migrate(connection, path)
    finally:
        connection.close()


def migrate(connection: SqlConnection, path: Path) -> None:
    """Run the migrations that the file has not seen, each in a transaction of its own."""
    with translated(path):
        (seen,) = connection.execute("PRAGMA user_version").fetchone()
        for number, script in _migrations():
            if number <= seen:
                continue
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )


def integrity_problems(path: Path, key: bytes) -> list[str]:
    """What both checks find, each missing what the other sees; on a connection of their own."""
    with translated(path):
        connection = connect(path, key)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
        connection = connect(path, key)
        try:
            return [
                problem
                for check in ("PRAGMA cipher_integrity_check", "PRAGMA integrity_check")
                for problem in _found(connection, check)
            ]
        finally:
            connection.close()


def _found(connection: SqlConnection, check: str) -> list[str]:
    try:
        return [row[0] for row in connection.execute(check) if row[0] != "ok"]
    except sqlite.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != _SQLITE_CORRUPT:
            raise
        return [str(error)]  # a page so bad that the check itself can't go on


@contextmanager
def translated(path: Path) -> Generator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite.Error as error:
        code = getattr(error, "sqlite_errorcode", None) or 0
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        if code & 0xFF == _SQLITE_NOTADB or "not a database" in str(error):
            raise DatabaseUnopenable(
                f"{path.name} does not open with this key: wrong key, or not our database; "
                "nothing was changed"
            ) from error
        if code & 0xFF == _SQLITE_FULL or "is full" in str(error):
            raise DiskFull(f"{name}: {error}") from error
        if code & 0xFF == _SQLITE_READONLY or "readonly database" in str(error):
            raise DatabaseUnavailable(_not_writable(path, error)) from error
        if isinstance(error, sqlite.ProgrammingError):
            raise  # ours: a misuse, not the disk's doing
        raise DatabaseUnavailable(f"{name}: {error}") from error
    except OSError as error:
        raise DatabaseUnavailable(f"{path.name}: {error.strerror or error}") from error


def nonsense(path: Path, error: Exception) -> DatabaseUnavailable:
    """Pages of two states, put together by somebody, pass every check of SQLCipher's."""
    return DatabaseUnavailable(f"{path.name} holds what was never written to it: {error}")


def _deny_attach(action: int, *_: object) -> int:
    return _SQLITE_DENY if action == _SQLITE_AUTH_ATTACH else _SQLITE_OK


def _uri_path(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")


def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("config_manager.storage.sql.migrations")
    scripts = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text("utf-8")) for name in scripts]
