"""Opening SQLCipher: what does not open, what opens as it must, and nothing in plain text."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlcipher3

from config_manager.config.errors import DatabaseUnopenable
from config_manager.config.secret import Secret
from config_manager.storage.decisions.changes import Occasion
from config_manager.storage.decisions.intents import Patch, Put, SetSecret
from config_manager.storage.decisions.tokens import AcceptAdminToken, Token
from config_manager.storage.sql import database
from config_manager.storage.sql.database import SqlConnection
from config_manager.storage.state import HistoryQuery
from config_manager.storage.store import DatabaseUnavailable, DiskFull
from tests.kit import stores as m
from tests.kit.stores import DB_KEY, Hand

OTHER_KEY = b"\xff" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with something in it, closed."""
    path = tmp_path / "config.db"
    store = m.open_sql(path)
    Hand(store).write(Put(service="a", values={"x": "v" * 20_000}))
    store.close()
    assert not (tmp_path / "config.db-wal").exists()
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[SqlConnection]:
    connection = database.connect(path, DB_KEY)
    yield connection
    connection.close()


# ── what does not open ─────────────────────────────────────────────────────────────────────────


def plain_sqlite(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE counters (revision INTEGER)")


def overwrite(offset: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return damage


NOT_OURS: dict[str, Callable[[Path], object]] = {
    "plain SQLite": plain_sqlite,
    "text": lambda path: path.write_text("not a database " * 1000),
    "cut to less than a page": lambda path: os.truncate(path, 4095),
    "cut into its salt": lambda path: os.truncate(path, 15),
    "a single byte, an empty file to SQLite": lambda path: os.truncate(path, 1),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "another salt": overwrite(0, bytes(16)),
    "page 1 damaged": overwrite(100, b"\0\0\0\0"),
    "page 1 damaged in its authentication code": overwrite(4090, b"\0\0\0\0"),
    "the plain header put in front": overwrite(0, b"SQLite format 3\0"),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_our_database_is_refused_and_left_as_it_is(path: Path, name: str) -> None:
    NOT_OURS[name](path)
    before = path.read_bytes()
    with pytest.raises(DatabaseUnopenable, match=r"^config\.db (does not open with|is cut short)"):
        m.open_sql(path, fresh=False)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["config.db"]


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("key", [OTHER_KEY, bytes(32), DB_KEY[::-1]])
def test_a_wrong_key_is_refused_and_nothing_changes(path: Path, key: bytes, fresh: bool) -> None:
    before = path.read_bytes()
    with pytest.raises(DatabaseUnopenable) as caught:
        m.open_sql(path, key=key, fresh=fresh)
    assert caught.value.description.exit_code == 3
    assert key.hex() not in str(caught.value)
    assert path.read_bytes() == before
    m.open_sql(path, fresh=False).close()


def test_no_file_beside_a_witness_is_an_error_and_none_is_made(tmp_path: Path) -> None:
    path = tmp_path / "config.db"
    with pytest.raises(DatabaseUnopenable, match="missing or empty"):
        m.open_sql(path, fresh=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", [DB_KEY, OTHER_KEY])
def test_an_empty_file_beside_a_witness_is_an_error_with_any_key(path: Path, key: bytes) -> None:
    """SQLCipher itself would open it, with any key, as an empty database."""
    path.write_bytes(b"")
    with pytest.raises(DatabaseUnopenable, match="missing or empty"):
        m.open_sql(path, key=key, fresh=False)
    assert path.read_bytes() == b""


def test_at_a_first_start_an_empty_file_and_what_lies_beside_it_are_begun_anew(
    tmp_path: Path,
) -> None:
    """A first start that was killed leaves such files; nothing was ever kept in them."""
    path = tmp_path / "config.db"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"left over" if suffix else b"")
    store = m.open_sql(path)
    assert m.committed_in(store) == m.empty()
    store.close()


def test_connect_never_makes_a_file(tmp_path: Path) -> None:
    for read_only in (True, False):
        with pytest.raises(DatabaseUnavailable):
            database.connect(tmp_path / "none.db", DB_KEY, read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def test_create_never_replaces_a_file(path: Path) -> None:
    with pytest.raises(FileExistsError):
        database.create(path, DB_KEY)
    m.open_sql(path, fresh=False).close()


def test_a_new_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = m.open_sql(tmp_path / "config.db")
        Hand(store).write(Put(service="a", values={}))
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    store.close()
    assert modes == {"config.db": 0o600, "config.db-wal": 0o600, "config.db-shm": 0o600}


@pytest.mark.parametrize("name", ["a b", "50%", "what?", "#", "ä", "x&mode=memory"])
def test_a_path_is_a_path_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    """It travels as a URI."""
    directory = tmp_path / name
    directory.mkdir()
    path = directory / "config.db"
    m.open_sql(path).close()
    assert path.stat().st_size > 0
    assert [p.name for p in tmp_path.iterdir()] == [name]


# ── what is set ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),  # FULL: 2xx means on disk
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("busy_timeout", 0),  # it waits for locks at BEGIN alone: SqlStore._begin
        ("cache_size", -4096),
    ],
)
def test_a_pragma_is_really_set_on_the_connection_that_writes(
    path: Path, pragma: str, value: object
) -> None:
    store = m.open_sql(path, fresh=False)
    try:
        found = store._writer.execute(f"PRAGMA {pragma}").fetchone()
    finally:
        store.close()
    assert found == (value,)


def test_what_does_not_fit_into_memory_never_spills_to_a_plain_temporary_file(
    connection: SqlConnection,
) -> None:
    options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    assert options & {"TEMP_STORE=2", "TEMP_STORE=3"}
    assert connection.execute("PRAGMA temp_store").fetchone() in {(0,), (2,)}


@pytest.mark.parametrize("key_clause", ["KEY ''", "KEY 'other'", ""])
def test_attach_is_denied(path: Path, connection: SqlConnection, key_clause: str) -> None:
    """`ATTACH … KEY ''` would write plain text."""
    other = path.with_name("leak.db")
    with pytest.raises(sqlcipher3.DatabaseError, match="not authorized"):
        connection.execute(f"ATTACH DATABASE '{other}' AS leak {key_clause}")
    assert not other.exists()


def test_the_readers_of_a_store_can_not_write(path: Path) -> None:
    store = m.open_sql(path, fresh=False)
    try:
        with pytest.raises(sqlcipher3.OperationalError, match="readonly"):
            store._reader.execute("DELETE FROM counters")
        with pytest.raises(sqlcipher3.DatabaseError, match="not authorized"):
            store._reader.execute("ATTACH DATABASE ':memory:' AS leak KEY ''")
    finally:
        store.close()


def test_a_read_only_connection_reads_and_writes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with closing(database.connect(path, DB_KEY, read_only=True)) as connection:
        assert connection.execute("SELECT revision FROM counters").fetchone() == (1,)
        with pytest.raises(sqlcipher3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM counters")
    assert path.read_bytes() == before


# ── migrations ─────────────────────────────────────────────────────────────────────────────────


def test_migrating_again_changes_nothing(path: Path, connection: SqlConnection) -> None:
    schema = "SELECT name, sql FROM sqlite_schema ORDER BY name"
    before = connection.execute(schema).fetchall()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    database.migrate(connection, path)
    assert connection.execute(schema).fetchall() == before
    assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    assert version == database._migrations()[-1][0]


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [number for number, _ in database._migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_table_checks_its_types(connection: SqlConnection) -> None:
    tables = connection.execute(
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'"
    ).fetchall()
    assert len(tables) > 10
    assert {strict for _, strict in tables} == {1}


def test_a_database_of_the_first_version_keeps_its_tokens_and_its_chain(tmp_path: Path) -> None:
    path = tmp_path / "config.db"
    path.touch()
    connection = database.connect(path, DB_KEY)
    number, first = database._migrations()[0]
    connection.executescript(first + f"PRAGMA user_version = {number};")
    connection.executescript(
        "INSERT INTO counters VALUES (1, 7, 1, 'e', 'head');"
        "INSERT INTO audit VALUES (5, x'61', 'one'), (7, x'62', 'two');"
        "INSERT INTO tokens VALUES ('admin', 'abc');"
    )
    database.migrate(connection, path)
    rows = connection.execute("SELECT seq, revision, body, hash FROM audit").fetchall()
    assert rows == [(1, 5, b"a", "one"), (2, 7, b"b", "two")]
    assert connection.execute("SELECT audit_seq FROM counters").fetchone() == (2,)
    (kept,) = connection.execute("SELECT kind, key, value FROM registry").fetchall()
    connection.close()
    assert kept[:2] == ("token", "admin")
    token = Token.of("admin", json.loads(kept[2]))
    assert (token.hash, token.role, token.services) == ("abc", "admin", ("*",))


def test_a_database_of_the_second_version_knows_what_it_had_delivered(tmp_path: Path) -> None:
    path = tmp_path / "config.db"
    path.touch()
    with closing(database.connect(path, DB_KEY)) as connection:
        for number, script in database._migrations()[:2]:
            connection.executescript(script + f"PRAGMA user_version = {number};")
        connection.execute(
            "INSERT INTO registry VALUES ('delivery', 'door/ada', ?)",
            ['{"payload": "{}", "versions": {"pin": 3}, "sign_keyid": "k"}'],
        )
        database.migrate(connection, path)
        (sent,) = connection.execute("SELECT key, value FROM registry WHERE kind = 'sent'")
    assert (sent[0], json.loads(sent[1])) == ("door/ada", {"versions": {"pin": 3}})


def test_a_row_of_the_audit_is_found_by_its_hash_without_reading_the_others(
    connection: SqlConnection,
) -> None:
    plan = connection.execute("EXPLAIN QUERY PLAN SELECT 1 FROM audit WHERE hash = 'ab'")
    assert "audit_by_hash" in plan.fetchone()[3]


def test_a_database_that_was_killed_before_its_first_migration_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "config.db"
    path.touch()
    with closing(database.connect(path, DB_KEY)) as connection:
        connection.execute("PRAGMA user_version = 0")
    assert path.stat().st_size > 0
    store = m.open_sql(path)
    assert m.committed_in(store) == m.empty()
    store.close()


# ── both integrity checks ──────────────────────────────────────────────────────────────────────


def test_a_healthy_database_has_no_problems_also_with_a_hot_wal(path: Path) -> None:
    assert database.integrity_problems(path, DB_KEY) == []
    store = m.open_sql(path, fresh=False)
    Hand(store).write(Put(service="b", values={"x": 1}))
    assert (path.with_name("config.db-wal")).stat().st_size > 0
    assert database.integrity_problems(path, DB_KEY) == []
    store.close()


def test_a_healthy_database_has_no_problems_in_the_middle_of_a_change_of_keys(path: Path) -> None:
    """The pages under the new key lie in the WAL; over those in the file the check would stumble."""
    with closing(database.connect(path, DB_KEY)) as connection:
        connection.execute(f"PRAGMA rekey = \"x'{OTHER_KEY.hex()}'\"")
        assert path.with_name("config.db-wal").stat().st_size > 0
        assert database.integrity_problems(path, OTHER_KEY) == []


@pytest.mark.parametrize("page", [3, 8, -1])
def test_a_damaged_page_is_a_problem_not_an_error(path: Path, page: int) -> None:
    """Also where SQLite's own check gives up at it."""
    number = page if page > 0 else path.stat().st_size // 4096
    overwrite((number - 1) * 4096 + 50, b"\0\0\0\0")(path)
    problems = database.integrity_problems(path, DB_KEY)
    assert any(f"page {number}" in problem for problem in problems), problems


def test_rows_that_contradict_each_other_are_a_problem_that_only_sqlite_sees(path: Path) -> None:
    """An index that lost its rows: each page is authentic, the whole is not."""
    with closing(database.connect(path, DB_KEY)) as connection:
        connection.execute("INSERT INTO idempotency VALUES ('k', x'00', x'00', 1.0)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = 'CREATE INDEX idempotency_by_age ON idempotency (key)'"
            " WHERE name = 'idempotency_by_age'"
        )
    problems = database.integrity_problems(path, DB_KEY)
    assert any("idempotency_by_age" in problem for problem in problems), problems


def test_checking_with_a_wrong_key_or_no_file_says_so(path: Path) -> None:
    with pytest.raises(DatabaseUnopenable):
        database.integrity_problems(path, OTHER_KEY)
    with pytest.raises(DatabaseUnavailable):
        database.integrity_problems(path.with_name("none.db"), DB_KEY)


# ── errors in our words ────────────────────────────────────────────────────────────────────────


def test_a_full_disk_is_told_from_one_that_is_gone(path: Path, connection: SqlConnection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull), database.translated(path):
        connection.execute("INSERT INTO audit VALUES (99, 99, zeroblob(1000000), '')")
    with pytest.raises(DatabaseUnavailable) as caught, database.translated(path):
        connection.execute("SELECT * FROM nowhere")
    assert not isinstance(caught.value, DiskFull)


def test_a_misuse_of_ours_is_not_blamed_on_the_disk(path: Path) -> None:
    connection = database.connect(path, DB_KEY)
    connection.close()
    with pytest.raises(sqlcipher3.ProgrammingError), database.translated(path):
        connection.execute("SELECT 1")


def test_a_bug_passes_as_it_is(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), database.translated(path):
        print(1 // 0)


# ── nothing in plain text ──────────────────────────────────────────────────────────────────────


def test_nothing_of_what_was_written_can_be_read_in_the_files(tmp_path: Path) -> None:
    path = tmp_path / "config.db"
    store = m.open_sql(path)
    hand = Hand(store)
    distinctive = {
        "service": "conspicuous-service",
        "key": "conspicuous_key",
        "value": "conspicuous value",
        "secret name": "conspicuous_name",
        "secret": "conspicuous secret",
        "author": "conspicuous author",
        "reason": "conspicuous reason",
        "token hash": "c0ffee" * 10,
    }
    hand.write(
        Put(
            service=distinctive["service"],
            values={distinctive["key"]: distinctive["value"], "long": distinctive["value"] * 2000},
        ),
        by=distinctive["author"],
        reason=distinctive["reason"],
    )
    hand.write(
        SetSecret(
            service=distinctive["service"],
            name=distinctive["secret name"],
            value=Secret(distinctive["secret"]),
        )
    )
    state = m.committed_in(store)
    on = Occasion("settings", None, m.START, "id")
    accepted = AcceptAdminToken("admin", distinctive["token hash"]).decide(state, on)
    store.commit([accepted.change])
    for number in range(20):  # enough for pages to be written again
        hand.write(Patch(service=distinctive["service"], patch={"n": number}))
    history = store.history(HistoryQuery(distinctive["service"]))
    assert history.entries[-1].reason == distinctive["reason"]

    files = [path, path.with_name("config.db-wal"), path.with_name("config.db-shm")]
    open_bytes = {file.name: file.read_bytes() for file in files}
    assert all(open_bytes.values())
    store.close()
    closed_bytes = {"closed " + file.name: file.read_bytes() for file in files if file.exists()}
    assert len(closed_bytes["closed config.db"]) > 40_000
    never = {
        **distinctive,
        "header": "SQLite format 3",
        "table": "idempotency",
        "key": DB_KEY.hex(),
    }
    for name, data in (open_bytes | closed_bytes).items():
        for what, text in never.items():
            assert text.encode() not in data, f"{what} in {name}"
        assert DB_KEY not in data


def test_the_same_writes_make_different_files(tmp_path: Path) -> None:
    """A salt and a nonce per page: nobody can tell by comparing that two hold the same."""
    contents = list[bytes]()
    for name in ("one", "two"):
        store = m.open_sql(tmp_path / name)
        Hand(store).write(Put(service="a", values={"x": "v" * 5000}))
        store.close()
        contents.append((tmp_path / name).read_bytes())
    pages = [{data[i : i + 4096] for i in range(0, len(data), 4096)} for data in contents]
    assert not pages[0] & pages[1]
