"""Opening SQLCipher so that it neither lies nor leaks, and its errors in our words.

What is undone here was measured with sqlcipher3 0.6.4 (SQLCipher 4.19, SQLite 3.53). A file of 0 bytes opens
with any key; native errors go to stderr; `ATTACH … KEY ''` writes plaintext; a passphrase costs 100 ms, a raw
key 2 ms.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from config_manager.config.errors import DatabaseUnopenable
from config_manager.storage.sql.database_file import files_of, log_of
from config_manager.storage.store import DatabaseUnavailable, DiskFull

if TYPE_CHECKING:  # sqlcipher3 has no types of its own; it is sqlite3 and a key
    import sqlite3 as sqlite

    class SqlConnection(sqlite.Connection):
        """A connection that has a key."""

        def set_key(self, key: bytes) -> None: ...
        def reset_key(self, key: bytes) -> None: ...
else:
    import sqlcipher3 as sqlite

    SqlConnection = sqlite.Connection

Error = sqlite.Error

_PAGE_CACHE_KIB = 4096
_BUSY_MS = 5000
_SALT_BYTES = 16
"""At the beginning of each of our files. A file of a single byte counts as empty with SQLite, and so would open
with any key."""


def connect(
    path: Path, key: bytes, *, read_only: bool = False, is_alone: bool = False
) -> SqlConnection:
    """An open connection, the key checked against the file; usable from any one thread at a time.

    is_alone: with read_only, nobody else uses the file, and nothing may be left beside it. The file must
    exist. Raises DatabaseUnopenable (wrong key, not a database) or DatabaseUnavailable (it is there, but
    can't be read now).
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
    """Whether its log is empty, and the log's index can't or must not be made beside it. Without an index SQLite
    opens only a file that nobody changes, and has to be told so."""
    log = log_of(path)
    has_log = log.exists() and not (is_alone and log.stat().st_size == 0)
    return not has_log and (is_alone or not os.access(path.parent, os.W_OK))


def _demand_writable(path: Path) -> None:
    """SQLite itself would open it for reading, and make a log that takes no writes either."""
    for file in files_of(path):
        if file.exists() and not os.access(file, os.W_OK):
            raise DatabaseUnavailable(_not_writable(file, "it is read-only, or somebody else's"))


def _not_writable(path: Path, why: object) -> str:
    return (
        f"{path.name} can't be written: {why}; make the file, its directory and its file system writable "
        f"for uid {os.geteuid()}"
    )


def waits_for_locks(connection: SqlConnection, waits: bool) -> None:
    """Whether another process's lock is waited for (5 s), or is an error at once."""
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS if waits else 0}")


def is_busy(error: Exception) -> bool:
    """Whether another process holds the lock."""
    return _code(error) == sqlite.SQLITE_BUSY


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 if the error has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def try_writing(connection: SqlConnection, path: Path) -> None:
    """Begin a write of nothing and take it back: in WAL mode that takes a lock and writes no page. It passes if
    another process holds the lock, which is waited for only if the connection waits for locks.

    Raises DatabaseUnavailable if the file opened for reading only. SQLite does that silently, and makes
    BEGIN IMMEDIATE a transaction that reads.
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
    with closing(connect(path, key)) as connection:
        migrate(connection, path)


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
    """What two checks find, each of which misses what the other sees. They need a fresh connection."""
    with translated(path):
        checkpoint(path, key)
        with closing(connect(path, key)) as connection:
            return [
                problem
                for check in ("PRAGMA cipher_integrity_check", "PRAGMA integrity_check")
                for problem in _found(connection, check)
            ]


def checkpoint(path: Path, key: bytes) -> bool:
    """Everything from the log into the one file; False if somebody else has it open."""
    with translated(path), closing(connect(path, key)) as connection:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _found(connection: SqlConnection, check: str) -> list[str]:
    try:
        return [row[0] for row in connection.execute(check) if row[0] != "ok"]
    except sqlite.DatabaseError as error:
        if _code(error) != sqlite.SQLITE_CORRUPT:
            raise
        return [str(error)]  # a page so bad that the check itself can't go on


@contextmanager
def translated(path: Path) -> Generator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite.Error as error:
        code = _code(error)
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        if code == sqlite.SQLITE_NOTADB or "not a database" in str(error):
            raise DatabaseUnopenable(
                f"{path.name} does not open with this key: wrong key, or not our database; "
                "nothing was changed"
            ) from error
        if code == sqlite.SQLITE_FULL or "is full" in str(error):
            raise DiskFull(f"{name}: {error}") from error
        if code == sqlite.SQLITE_READONLY or "readonly database" in str(error):
            raise DatabaseUnavailable(_not_writable(path, error)) from error
        if isinstance(error, sqlite.ProgrammingError):
            raise  # a misuse of ours, not the disk's doing
        raise DatabaseUnavailable(f"{name}: {error}") from error
    except OSError as error:
        raise DatabaseUnavailable(f"{path.name}: {error.strerror or error}") from error


def nonsense(path: Path, error: Exception) -> DatabaseUnavailable:
    """For rows that don't parse: pages of two states, put together, pass every check of SQLCipher's."""
    return DatabaseUnavailable(f"{path.name} holds what was never written to it: {error}")


def _deny_attach(action: int, *_: object) -> int:
    return sqlite.SQLITE_DENY if action == sqlite.SQLITE_ATTACH else sqlite.SQLITE_OK


def _uri_path(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")


def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("config_manager.storage.sql.migrations")
    scripts = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text("utf-8")) for name in scripts]
