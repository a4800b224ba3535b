"""The store on a real SQLCipher file: races, files pulled away from under it, and full disks."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_manager.config.errors import DatabaseUnopenable, Refusal, RevisionConflict
from config_manager.config.secret import Secret
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.intents import Delete, Intent, NewEpoch, Patch, Put, SetSecret
from config_manager.storage.decisions.terms import Precondition
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.sql import database, drifts
from config_manager.storage.sql.sql_store import SqlStore
from config_manager.storage.state import Commit, HistoryQuery
from config_manager.storage.store import DatabaseUnavailable, DiskFull, Odd, Store
from tests.kit import stores as m
from tests.kit.stores import DB_KEY, Hand

AT_1 = (Precondition(frozenset({1})),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    store = m.open_sql(path)
    yield store
    store.close()


@pytest.fixture
def hand(store: SqlStore) -> Hand:
    return Hand(store)


def read_elsewhere(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What somebody else with the key sees: only what is committed."""
    with closing(database.connect(path, DB_KEY, read_only=True)) as connection:
        rows: list[tuple[object, ...]] = connection.execute(sql).fetchall()
        return rows


# ── many at once ───────────────────────────────────────────────────────────────────────────────


def test_of_a_hundred_simultaneous_writers_with_one_expected_revision_one_wins(hand: Hand) -> None:
    hand.write(Put(service="a", values={"winner": None}))
    store, turn, together = hand.store, threading.Lock(), threading.Barrier(100)

    def write(number: int) -> bool:
        together.wait()
        with turn:  # the port promises one call at a time
            intent = Put(service="a", values={"winner": number}, preconditions=AT_1)
            try:
                store.commit([hand.decide(m.committed_in(store), intent).change])
            except RevisionConflict as conflict:
                assert conflict.current_revision == 2
                return False
            return True

    with ThreadPoolExecutor(100) as pool:
        won = list(pool.map(write, range(100)))
    assert won.count(True) == 1
    assert m.committed_in(store).revision == 2
    assert m.committed_in(store).services["a"].stored == {"winner": won.index(True)}
    assert len(store.history(HistoryQuery("a")).entries) == 2


def test_of_stores_that_share_a_file_against_the_rules_one_wins_and_the_rest_stop(
    hand: Hand, path: Path
) -> None:
    """The lock on the data directory forbids it; here is what holds if it fails."""
    before = hand.write(Put(service="a", values={})).change.after
    stores = [m.open_sql(path, fresh=False) for _ in range(8)]
    together = threading.Barrier(len(stores))

    def write(index: int) -> bool:
        change = m.decide(before, Put(service="a", values={"winner": index})).change
        together.wait()
        try:
            stores[index].commit([change])
        except RuntimeError:
            return False
        return True

    with ThreadPoolExecutor(len(stores)) as pool:
        won = list(pool.map(write, range(len(stores))))
    for store in stores:
        store.close()
    assert won.count(True) == 1
    after = m.committed_in(hand.store)
    assert (after.revision, after.services["a"].stored) == (2, {"winner": won.index(True)})
    assert m.broken_link(list(hand.store.audit()), after.audit_head) is None


# ── one commit ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def statements(store: SqlStore) -> Iterator[list[str]]:
    seen = list[str]()
    store._writer.set_trace_callback(seen.append)
    yield seen
    store._writer.set_trace_callback(None)


def test_writes_that_waited_together_are_one_transaction(hand: Hand, store: SqlStore) -> None:
    with statements(store) as seen:
        hand.batch(*(Put(service=f"s{n}", values={"n": n}) for n in range(20)))
    assert [s for s in seen if s.startswith(("BEGIN", "COMMIT", "ROLLBACK"))] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]
    assert m.committed_in(store).revision == 20


def test_a_batch_whose_last_write_can_not_be_stored_leaves_none_of_it(
    hand: Hand, store: SqlStore
) -> None:
    before = m.committed_in(store)
    first = hand.decide(before, Put(service="a", values={})).change
    last = hand.decide(first.after, Put(service="b", values={})).change
    # its audit row is there already
    broken = Commit(last.before, last.after, last.services, last.history, first.audit, None)
    with pytest.raises(DatabaseUnavailable):
        store.commit([first, broken])
    assert m.committed_in(store) == before
    assert list(store.audit()) == []
    hand.write(Put(service="c", values={}))


def test_others_see_nothing_of_what_is_begun(hand: Hand, path: Path, store: SqlStore) -> None:
    change = hand.decide(m.committed_in(store), Put(service="a", values={})).change
    finish = store.begin([change])
    assert read_elsewhere(path, "SELECT revision FROM counters") == [(0,)]
    assert read_elsewhere(path, "SELECT * FROM outbox") == []
    finish()
    assert read_elsewhere(path, "SELECT revision FROM counters") == [(1,)]
    assert len(read_elsewhere(path, "SELECT * FROM outbox")) == 1


def test_what_is_begun_and_never_finished_is_gone(hand: Hand, path: Path) -> None:
    hand.write(Put(service="a", values={"x": 1}))
    twin = m.open_sql(path, fresh=False)
    committed = m.committed_in(twin)
    twin.begin([m.decide(committed, Put(service="a", values={"x": 2})).change])
    twin.close()
    assert m.committed_in(hand.store) == committed
    hand.write(Put(service="a", values={"x": 3}))


def test_a_copy_of_the_files_taken_after_a_commit_holds_it(
    hand: Hand, path: Path, tmp_path: Path
) -> None:
    """As after a kill -9: nothing that was acknowledged waits in the process's memory."""
    hand.write(Put(service="a", values={"x": 1}))
    expected = hand.write(Put(service="a", values={"x": 2})).change.after
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.db", "config.db-wal"):
        shutil.copy(path.with_name(name), copy / name)
    again = m.open_sql(copy / "config.db", fresh=False)
    assert m.committed_in(again) == expected
    again.close()


# ── the file under us ──────────────────────────────────────────────────────────────────────────


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def replaced(path: Path) -> None:
    other = path.with_name("other.db")
    shutil.copy(path, other)
    other.replace(path)


def laid_over(path: Path) -> None:
    """As cp does it: the same file, here even of the same bytes; a later time is all that tells."""
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def moved(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 32)


DISTURBANCES: dict[str, Callable[[Path], object]] = {
    "replaced": replaced,
    "removed": Path.unlink,
    "moved away": moved,
    "overwritten in place": overwritten,
    "emptied": lambda path: os.truncate(path, 0),
    "an older copy laid over it": laid_over,
    "its log cut": lambda path: os.truncate(log_of(path), 4096),
    "its log emptied": lambda path: os.truncate(log_of(path), 0),
    "its log removed": lambda path: log_of(path).unlink(),
    "its log replaced": lambda path: replaced(log_of(path)),
}


@pytest.mark.parametrize("what", DISTURBANCES)
def test_a_file_that_changes_under_us_is_noticed_before_the_next_commit(
    path: Path, what: str
) -> None:
    """SQLite itself would go on from its page cache and acknowledge into nowhere."""
    store = m.open_sql(path)
    hand = Hand(store)
    state = hand.write(Put(service="a", values={"x": 1})).change.after
    DISTURBANCES[what](path)
    left = {p.name: p.stat().st_size for p in path.parent.iterdir()}
    with pytest.raises(DatabaseUnavailable):
        store.commit([hand.decide(state, Put(service="a", values={"x": 2})).change])
    with pytest.raises(DatabaseUnavailable):
        store.probe()
    assert {p.name: p.stat().st_size for p in path.parent.iterdir()} == left
    store.close()  # never raises


@pytest.mark.parametrize("how", ["close", "abandon"])
def test_the_log_beside_a_damaged_file_outlives_the_store_and_makes_the_file_good_again(
    path: Path, how: str
) -> None:
    """SQLite would put it into the damaged file and delete it."""
    m.open_sql(path).close()
    good = path.read_bytes()
    store = m.open_sql(path, fresh=False)
    expected = Hand(store).write(Put(service="a", values={"x": 1})).change.after
    log = log_of(path).read_bytes()
    path.write_bytes(b"\xa5" * len(good))
    getattr(store, how)()
    assert log_of(path).read_bytes() == log
    for _ in range(2):
        with pytest.raises((DatabaseUnopenable, DatabaseUnavailable)):
            m.open_sql(path, fresh=False)
        assert log_of(path).read_bytes() == log, "nor does a start touch it"
    path.write_bytes(good)
    again = m.open_sql(path, fresh=False)
    assert m.committed_in(again) == expected
    again.verify()
    again.close()
    assert [p.name for p in path.parent.iterdir()] == ["config.db"]


def test_a_store_that_is_given_up_costs_the_next_one_of_the_same_file_no_lock(path: Path) -> None:
    """Without it an operator's shell would believe that it is the last, and delete the log."""
    first = m.open_sql(path)
    second = m.open_sql(path, fresh=False)
    first.abandon()
    inode = f":{path.stat().st_ino} "
    locks = [line for line in Path("/proc/locks").read_text().splitlines() if inode in line]
    assert any("POSIX" in line and "READ" in line for line in locks), locks
    Hand(second).write(Put(service="a", values={}))
    second.close()
    assert open_files(path.parent) == set()


def test_a_store_put_together_from_two_states_is_told_from_one(path: Path) -> None:
    store = m.open_sql(path)
    hand = Hand(store)
    hand.write(Put(service="a", values={"x": 1}))
    hand.write(Put(service="a", values={"x": 2}))
    store._writer.execute("DELETE FROM history WHERE revision = 1")
    with store.snapshot() as snapshot:
        assert [one.reason for one in m.VOUCHING.judge(snapshot).foreign] == [
            "not-audited: history a"
        ]
    store._writer.execute("UPDATE configurations SET stored = substr(stored, 2)")
    with store.snapshot() as snapshot:
        assert snapshot.kept().odd == (Odd("", "a"),)
    store._writer.execute("UPDATE history SET changes = substr(changes, 2)")
    with pytest.raises(DatabaseUnavailable, match="never written"):
        store.history(HistoryQuery("a"))
    store.close()


def test_a_file_that_comes_back_as_it_was_is_written_again(path: Path, hand: Hand) -> None:
    state = hand.write(Put(service="a", values={"x": 1})).change.after
    moved(path)
    with pytest.raises(DatabaseUnavailable):
        hand.store.commit([hand.decide(state, Put(service="a", values={"x": 2})).change])
    path.with_name("moved.db").rename(path)
    hand.store.probe()
    hand.write(Put(service="a", values={"x": 3}))
    assert m.committed_in(hand.store).revision == 2


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.history(HistoryQuery("a")),
        lambda store: store.idempotency("key", since=0),
        lambda store: store.secrets("a"),
        lambda store: store.secret_versions("a"),
        lambda store: store.count_secrets("key"),
        lambda store: store.probe(),
        lambda store: m.committed_in(store),
    ],
    ids=["history", "idempotency", "secrets", "versions", "count", "probe", "load"],
)
def test_a_first_page_that_is_damaged_while_open_is_no_wrong_key(
    path: Path, use: Callable[[SqlStore], object]
) -> None:
    """Reads go on from memory then; a key that never fitted would end the start."""
    store = m.open_sql(path)
    Hand(store).write(Put(service="a", values={"x": 1}))
    with closing(database.connect(path, m.DB_KEY)) as another:
        another.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3000)
    with pytest.raises(DatabaseUnavailable):
        use(store)
    store.close()


def test_probing_finds_damage_that_the_page_cache_hides(path: Path) -> None:
    store = m.open_sql(path)
    Hand(store).write(Put(service="a", values={"x": "v" * 50_000}))
    store.close()
    store = m.open_sql(path, fresh=False)
    m.committed_in(store)
    store.probe()
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for number in range(1, pages):
            file.seek(number * 4096 + 100)
            file.write(b"\0" * 16)
    with pytest.raises(DatabaseUnavailable):
        store.probe()
    store.close()


def test_an_open_store_holds_its_locks_though_others_open_and_close_the_file(
    hand: Hand, path: Path, store: SqlStore
) -> None:
    """Closing any descriptor of a file drops the process's POSIX locks on it; SQLite knows of its
    own connections, so a probe in the middle of a transaction must not cost the lock."""
    change = hand.decide(m.committed_in(store), Put(service="a", values={})).change
    finish = store.begin([change])
    store.probe()
    with closing(database.connect(path, DB_KEY)) as stranger:
        stranger.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(Exception, match="locked"):
            stranger.execute("BEGIN IMMEDIATE")
    finish()


def test_somebody_elses_lock_is_waited_for_in_finish_alone(
    hand: Hand, path: Path, store: SqlStore
) -> None:
    change = hand.decide(m.committed_in(store), Put(service="a", values={})).change
    with closing(database.connect(path, DB_KEY)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        finish = store.begin([change])
        assert not store._writer.in_transaction
        stranger.execute("ROLLBACK")
    finish()
    assert m.committed_in(store).revision == 1


# ── no space ───────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_refuses_the_write_keeps_the_rest_and_goes_on_when_there_is_space(
    hand: Hand, store: SqlStore
) -> None:
    before = hand.write(Put(service="a", values={"x": 1})).change.after
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        store.commit([hand.decide(before, Put(service="a", values={"x": "v" * 50_000})).change])
    assert m.committed_in(store) == before
    store.probe()
    store._writer.execute("PRAGMA max_page_count = 1000000")
    hand.write(Put(service="a", values={"x": "v" * 50_000}))
    assert m.committed_in(store).revision == 2


# ── what only SQL keeps ────────────────────────────────────────────────────────────────────────


def test_items_hold_the_live_keys_and_the_revision_that_last_changed_each(
    hand: Hand, path: Path
) -> None:
    hand.write(Put(service="a", values={"x": 1, "y": 1, "z": 1}))
    hand.write(Patch(service="a", patch={"x": 1.0, "z": None}))
    hand.write(Put(service="a", values={"x": 1.0, "y": 2}))
    items = "SELECT key, value, revision FROM items ORDER BY key"
    assert read_elsewhere(path, items) == [("x", "1.0", 2), ("y", "2", 3)]
    hand.write(Delete(service="a"))
    assert read_elsewhere(path, items) == []


def test_each_epoch_is_noted_with_its_reason(hand: Hand, path: Path) -> None:
    change = hand.write(NewEpoch(services={"a": {}}), reason="spring").change
    assert read_elsewhere(path, "SELECT seq, id, revision, at, reason FROM epochs") == [
        (1, m.FIRST_EPOCH.id, 0, rfc3339(m.START), "first start"),
        (2, change.after.epoch.id, 1, rfc3339(m.START + 1), "spring"),
    ]


def test_older_versions_of_a_secret_stay_sealed_in_the_database(hand: Hand, path: Path) -> None:
    for value in ("1", "2", "3"):
        hand.write(SetSecret(service="door", name="pin", value=Secret(value)))
    assert read_elsewhere(path, "SELECT version FROM secrets ORDER BY version") == [
        (1,),
        (2,),
        (3,),
    ]


def test_idempotency_rows_older_than_a_day_are_swept_by_the_next(hand: Hand, path: Path) -> None:
    day = 24 * 3600
    for key, at in (("old", 0.0), ("edge", 1.0), ("new", day + 1.0)):
        change = hand.decide(m.committed_in(hand.store), Put(service="a", values={})).change
        record = m.record(key, m.START + at)
        hand.store.commit([replace(change, idempotency=record)])
    assert read_elsewhere(path, "SELECT key FROM idempotency ORDER BY at") == [("edge",), ("new",)]


def test_the_first_epoch_is_the_one_of_the_first_start(path: Path) -> None:
    first = m.open_sql(path)
    first.close()
    again = SqlStore.open(
        path,
        DB_KEY,
        vouching=m.VOUCHING,
        epoch_id="00000000-0000-4000-8000-00000000ffff",
        at=rfc3339(m.START + 9),
        fresh=False,
    )
    assert m.committed_in(again).epoch == m.FIRST_EPOCH
    again.close()


def test_a_page_of_history_is_found_without_walking_it(store: SqlStore) -> None:
    """At 50,000 rows a scan or a sort takes 30 ms a page."""
    with statements_of_pages(store) as seen:
        store.history(HistoryQuery("a", before=9))
        store.history(HistoryQuery("a", key="k"))
    for sql in seen:
        plan = [row[3] for row in store._reader.execute("EXPLAIN QUERY PLAN " + sql)]
        assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], plan
    assert len(seen) == 2


def test_the_start_and_the_pruning_look_at_receipts_by_their_index_alone(store: SqlStore) -> None:
    """At 200,000 receipts a walk through their envelopes takes 2 s."""
    with statements_of_pages(store) as seen:
        store.newest_receipts()
    pruning = drifts._INSIDE_A_SEGMENT.replace("?1", "1").replace("?2", "1")
    for sql in (*seen, pruning):
        plan = [row[3] for row in store._reader.execute("EXPLAIN QUERY PLAN " + sql)]
        assert "SCAN receipts USING COVERING INDEX receipts_of_instance" in plan, plan


@contextmanager
def statements_of_pages(store: SqlStore) -> Iterator[list[str]]:
    seen = list[str]()
    assert store._pages is not None
    store._pages.set_trace_callback(seen.append)
    yield seen
    store._pages.set_trace_callback(None)


def test_closing_leaves_one_file_and_no_descriptor(path: Path) -> None:
    store = m.open_sql(path)
    Hand(store).write(Put(service="a", values={}))
    assert open_files(path.parent) >= {"config.db", "config.db-wal"}
    store.close()
    assert open_files(path.parent) == set()
    assert [p.name for p in path.parent.iterdir()] == ["config.db"]


def test_a_failed_open_leaves_no_descriptor(path: Path) -> None:
    m.open_sql(path).close()
    with pytest.raises(DatabaseUnopenable):
        m.open_sql(path, key=bytes(32))
    assert open_files(path.parent) == set()


def open_files(directory: Path) -> set[str]:
    found = set[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that listed them
            target = descriptor.readlink()
            if target.parent == directory:
                found.add(target.name)
    return found


# ── the two stores ─────────────────────────────────────────────────────────────────────────────

_values = st.dictionaries(
    st.sampled_from(["x", "y"]),
    st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
    | st.lists(st.booleans(), max_size=2),
    max_size=2,
)  # fmt: skip
_services = st.sampled_from(["a", "b"])
_intents: st.SearchStrategy[Intent] = st.one_of(
    st.builds(Put, service=_services, values=_values),
    st.builds(Patch, service=_services, patch=_values),
    st.builds(Delete, service=_services),
    st.builds(NewEpoch, services=st.dictionaries(_services, _values, max_size=2)),
    st.builds(SetSecret, service=_services, name=st.just("s"), value=st.just(Secret("v"))),
)


@settings(m.STEADY, max_examples=30)
@given(st.lists(st.tuples(_intents, st.booleans()), max_size=15))
def test_no_sequence_of_writes_tells_the_two_stores_apart(
    sequence: list[tuple[Intent, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.db"
        hands = [Hand(m.open_sql(path)), Hand(MemoryStore(m.FIRST_EPOCH, m.VOUCHING))]
        for intent, confirm in sequence:
            for hand in hands:
                try:
                    state = hand.write(intent).change.after
                except Refusal:
                    continue
                if confirm:
                    hand.store.mark_confirmed([("a", state.revision - 1), ("b", state.revision)])
        sql, memory = (seen_from_outside(hand.store) for hand in hands)
        hands[0].store.close()
        again = m.open_sql(path, fresh=False)
        sql_again = seen_from_outside(again)
        again.close()
    assert sql == memory == sql_again


def seen_from_outside(store: Store) -> list[str]:
    """As text, because 1 and true are equal to Python."""
    state = m.committed_in(store)
    return [
        repr((state.epoch, state.revision, state.audit_head)),
        *(repr(state.services[name]) for name in sorted(state.services)),
        *(repr(store.history(HistoryQuery(name, limit=7))) for name in "ab"),
        *(repr(store.history(HistoryQuery(name, key="x"))) for name in "ab"),
        *(repr(list(store.secrets(name))) for name in "ab"),
        repr(list(store.audit(after=2))),
        repr(sorted(store.pending())),
    ]


def test_a_probe_without_a_descriptor_to_spare_does_not_blame_the_database(
    store: SqlStore, path: Path
) -> None:
    Hand(store).write(Put(service="a", values={"k": "v" * 20_000}))
    with no_more_files():
        with pytest.raises(OSError, match="Too many open files"):
            path.open()
        store.probe()
        path.rename(path.with_name("elsewhere"))
        with pytest.raises(DatabaseUnavailable):
            store.probe()
    path.with_name("elsewhere").rename(path)
    store.probe()


@contextmanager
def no_more_files() -> Iterator[None]:
    """What is open stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ── pages beside the writer ────────────────────────────────────────────────────────────────────


def test_a_page_is_read_beside_a_transaction_and_shows_what_was_committed(hand: Hand) -> None:
    store = hand.store
    assert isinstance(store, SqlStore)
    hand.write(Put(service="a", values={"k": 1}))
    finish = store.begin(
        [hand.decide(m.committed_in(store), Put(service="a", values={"k": 2})).change]
    )
    with ThreadPoolExecutor(1) as reader:
        assert len(reader.submit(store.history, HistoryQuery("a")).result(10).entries) == 1
        assert len(reader.submit(store.audit).result(10)) == 1
        finish()
        assert len(reader.submit(store.history, HistoryQuery("a")).result(10).entries) == 2


def test_a_page_of_a_store_that_is_closed_is_no_crash(path: Path) -> None:
    store = m.open_sql(path)
    store.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        store.history(HistoryQuery("a"))
    with pytest.raises(DatabaseUnavailable, match="closed"):
        store.audit()
