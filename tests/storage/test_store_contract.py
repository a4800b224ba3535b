"""What every store does: one suite over the SQLCipher file and the store in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from config_manager.config.catalogue import Catalogue, ServiceSettings, schema_text
from config_manager.config.errors import RevisionConflict
from config_manager.config.names import Epoch, Mark
from config_manager.config.secret import Secret
from config_manager.config.wire import digest
from config_manager.config.world import rfc3339
from config_manager.storage.commit_record import decode, encode
from config_manager.storage.decisions.administration import administered, noted
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.intents import (
    Delete,
    DeleteSecret,
    NewEpoch,
    Patch,
    Put,
    SetSecret,
)
from config_manager.storage.decisions.planning import Planned
from config_manager.storage.decisions.plans import DeletePlan, MakePlan
from config_manager.storage.decisions.schema_versions import at_start
from config_manager.storage.decisions.terms import Precondition
from config_manager.storage.drifts import (
    Drift,
    DriftQuery,
    KeptReceipt,
    Observed,
    ReceiptsQuery,
    State,
)
from config_manager.storage.keys.secret_box import SecretBox
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.state import (
    VERSIONS_A_CHECKPOINT,
    Checkpoint,
    Commit,
    Committed,
    HistoryQuery,
    HistorySearch,
    KeptPlan,
    KeyChange,
    RegistryRow,
    SchemaActivation,
    SchemaSource,
    SchemaVersion,
    TakenBack,
)
from config_manager.storage.store import DatabaseUnavailable, Store
from config_manager.storage.trace import BrokerTimes, Change, ChangesQuery, ChangeTimes
from tests.kit import stores as m
from tests.kit.stores import Hand

AT_1 = (Precondition(frozenset({1})),)


@dataclass
class Kind:
    """One of the stores, and how it comes back after a restart."""

    store: Store
    reopen: Callable[[], Store]


@pytest.fixture(params=["sql", "memory"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    if request.param == "memory":
        memory = MemoryStore(m.FIRST_EPOCH, m.VOUCHING)
        yield Kind(memory, lambda: memory)  # it lives as long as its process
        return
    path = tmp_path / "config.db"
    opened = [m.open_sql(path)]

    def reopen() -> Store:
        opened.pop().close()
        opened.append(m.open_sql(path, fresh=False))
        return opened[0]

    yield Kind(opened[0], reopen)
    opened.pop().close()


@pytest.fixture
def store(kind: Kind) -> Store:
    return kind.store


@pytest.fixture
def hand(store: Store) -> Hand:
    return Hand(store)


# ── a new one ──────────────────────────────────────────────────────────────────────────────────


def test_a_new_store_is_the_empty_state_and_has_nothing_of_anything(store: Store) -> None:
    assert m.committed_in(store) == m.empty()
    assert store.history(HistoryQuery("door")).entries == ()
    assert store.history(HistoryQuery("door")).next_before is None
    assert store.idempotency("k", since=0) is None
    assert list(store.secrets("door")) == []
    assert list(store.audit()) == []
    assert list(store.pending()) == []
    store.probe()


# ── writes ─────────────────────────────────────────────────────────────────────────────────────


def test_what_load_gives_is_what_was_decided(hand: Hand) -> None:
    change = hand.write(Put(service="door", values={"volume": 3})).change
    assert m.committed_in(hand.store) == change.after
    state = m.committed_in(hand.store).services["door"]
    assert (state.revision, state.version, state.mark) == (1, 1, Mark(1, 1))
    assert state.stored == {"volume": 3}
    assert state.effective == {"volume": 3, "greeting": None}
    assert state.defaulted == ("greeting",)
    assert state.digest == digest(state.payload)


def test_revisions_count_all_writes_and_versions_those_of_one_service(hand: Hand) -> None:
    for service in ("a", "b", "a", "a", "b"):
        hand.write(Put(service=service, values={}))
    state = m.committed_in(hand.store)
    assert state.revision == 5
    assert [(s.service, s.revision, s.version) for s in map(state.services.__getitem__, "ab")] == [
        ("a", 4, 3),
        ("b", 5, 2),
    ]


def test_a_put_that_changes_nothing_is_a_revision_with_no_changes(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1}))
    hand.write(Put(service="a", values={"x": 1}))
    (newest, _) = hand.store.history(HistoryQuery("a")).entries
    assert (newest.revision, newest.version, newest.changes) == (2, 2, ())


def test_put_replaces_and_patch_merges(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1, "y": {"deep": 1, "gone": 2}}))
    hand.write(Patch(service="a", patch={"y": {"gone": None}, "z": [1]}))
    assert m.committed_in(hand.store).services["a"].stored == {"x": 1, "y": {"deep": 1}, "z": [1]}
    hand.write(Put(service="a", values={"only": True}))
    assert m.committed_in(hand.store).services["a"].stored == {"only": True}


def test_a_deleted_service_stays_as_a_tombstone_and_its_version_goes_on(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1}))
    hand.write(Delete(service="a"))
    state = m.committed_in(hand.store)
    assert state.live("a") is None
    assert (state.services["a"].deleted, state.services["a"].version) == (True, 2)
    assert m.committed_in(hand.store).services["a"].stored == {}
    again = hand.write(Put(service="a", values={"x": 2}))
    assert again.first
    assert m.committed_in(hand.store).services["a"].version == 3
    actions = [entry.action for entry in hand.store.history(HistoryQuery("a")).entries]
    assert actions == ["put", "delete", "put"]


def test_an_epoch_is_one_revision_of_all_its_services(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1}))
    hand.write(Put(service="stays", values={"x": 1}))
    change = hand.write(NewEpoch(services={"a": {"x": 2}, "b": {}}), reason="spring").change
    state = m.committed_in(hand.store)
    assert state == change.after
    assert state.epoch == change.after.epoch != m.FIRST_EPOCH
    assert (state.epoch.seq, state.revision) == (2, 3)
    assert {s.service: (s.revision, s.epoch.seq) for s in state.services.values()} == {
        "a": (3, 2),
        "b": (3, 2),
        "stays": (2, 1),
    }
    for service in "ab":
        (entry, *_) = hand.store.history(HistoryQuery(service)).entries
        assert (entry.action, entry.epoch_seq, entry.reason) == ("epoch", 2, "spring")


def test_a_secret_is_a_revision_that_names_its_version_and_keeps_its_value_sealed(
    hand: Hand,
) -> None:
    hand.write(Put(service="door", values={"volume": 3}))
    hand.write(SetSecret(service="door", name="pin", value=Secret("1234")))
    hand.write(SetSecret(service="door", name="pin", value=Secret("5678")))
    state = m.committed_in(hand.store).services["door"]
    assert (state.revision, state.secrets, state.stored) == (3, {"pin": 2}, {"volume": 3})
    (sealed,) = hand.store.secrets("door")
    assert (sealed.name, sealed.version) == ("pin", 2)
    assert hand.box.open(sealed).reveal() == "5678"
    assert list(hand.store.secrets("other")) == []


def test_secrets_come_in_the_order_of_their_names_and_only_the_services_own(hand: Hand) -> None:
    for service, name in (("a", "zeta"), ("b", "beta"), ("a", "alpha")):
        hand.write(SetSecret(service=service, name=name, value=Secret(name)))
    assert [sealed.name for sealed in hand.store.secrets("a")] == ["alpha", "zeta"]


def test_every_version_is_kept_until_the_secret_is_deleted_and_its_number_goes_on(
    hand: Hand,
) -> None:
    for value in ("one", "two"):
        hand.write(SetSecret(service="door", name="pin", value=Secret(value)))
    hand.write(SetSecret(service="a", name="key", value=Secret("k")))

    def kept(*of: str) -> list[tuple[str, str, int]]:
        return [(s.service, s.name, s.version) for s in hand.store.secret_versions(*of)]

    assert kept() == [("a", "key", 1), ("door", "pin", 1), ("door", "pin", 2)]
    assert kept("door") == kept("door", "pin") == [("door", "pin", 1), ("door", "pin", 2)]
    assert kept("door", "other") == []
    assert [hand.store.secret("door", "pin", number) for number in (1, 2, 3)] == [
        *hand.store.secret_versions("door", "pin"),
        None,
    ]
    change = hand.write(DeleteSecret(service="door", name="pin")).change
    assert m.committed_in(hand.store) == change.after
    assert change.after.services["door"].secrets == {}
    assert kept() == [("a", "key", 1)]
    hand.write(SetSecret(service="door", name="pin", value=Secret("three")))
    assert kept("door") == [("door", "pin", 3)]
    assert m.committed_in(hand.store).registered("secret-retired") == {}


def test_one_version_of_a_secret_is_found_by_its_number(hand: Hand) -> None:
    for value in ("one", "two"):
        hand.write(SetSecret(service="door", name="pin", value=Secret(value)))
    one, two = hand.store.secret_versions("door", "pin")
    assert [hand.store.secret("door", "pin", number) for number in (1, 2, 3)] == [one, two, None]
    assert hand.store.secret("door", "other", 1) is None


def test_a_secret_that_is_deleted_and_set_in_one_batch_is_the_new_one(hand: Hand) -> None:
    hand.write(SetSecret(service="door", name="pin", value=Secret("1")))
    hand.batch(
        DeleteSecret(service="door", name="pin"),
        SetSecret(service="door", name="pin", value=Secret("2")),
    )
    (sealed,) = hand.store.secret_versions("door")
    assert (sealed.version, hand.box.open(sealed).reveal()) == (2, "2")
    hand.batch(
        SetSecret(service="door", name="pin", value=Secret("3")),
        DeleteSecret(service="door", name="pin"),
    )
    assert hand.store.secret_versions("door") == []


def test_what_is_sealed_under_other_keys_comes_in_pages_and_is_sealed_anew(hand: Hand) -> None:
    for service in ("a", "b", "c"):
        for value in ("1", "2"):
            hand.write(SetSecret(service=service, name="s", value=Secret(value)))
    old = hand.box.key_id
    new_box = SecretBox(b"n" * 32, hand.world.randomness)
    assert hand.store.count_secrets(old) == (6, 6)
    assert list(hand.store.secrets_under_other_keys(old, limit=10)) == []
    page = hand.store.secrets_under_other_keys(new_box.key_id, limit=4)
    assert [(s.service, s.version) for s in page] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    rest = hand.store.secrets_under_other_keys(new_box.key_id, after=("b", "s", 1), limit=10)
    assert [(s.service, s.version) for s in rest] == [("b", 2), ("c", 1), ("c", 2)]
    gone = page[0]._replace(version=9)
    before = m.committed_in(hand.store)
    hand.store.reseal(
        [
            new_box.seal(s.service, s.name, s.version, hand.box.open(s), s.updated_at)
            for s in page[:2]
        ]
        + [gone._replace(key_id=new_box.key_id)]
    )
    assert hand.store.count_secrets(new_box.key_id) == (2, 6)
    assert m.committed_in(hand.store) == before
    (one, two) = hand.store.secret_versions("a")
    assert [new_box.open(s).reveal() for s in (one, two)] == ["1", "2"]
    left = hand.store.secrets_under_other_keys(new_box.key_id, limit=10)
    assert [(s.service, s.version) for s in left] == [("b", 1), ("b", 2), ("c", 1), ("c", 2)]


def test_if_match_lets_one_of_two_through(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1}))
    hand.write(Put(service="a", values={"x": 2}, preconditions=AT_1))
    with pytest.raises(RevisionConflict) as caught:
        hand.write(Put(service="a", values={"x": 3}, preconditions=AT_1))
    assert caught.value.current_revision == 2
    assert m.committed_in(hand.store).services["a"].stored == {"x": 2}


@pytest.mark.parametrize(
    "value",
    [0, -0.0, 1.0, 1e-320, 2**53, -(2**53), True, None, "", "ü\U0001f600\t", [], {}, [[None]]],
    ids=repr,
)
def test_any_json_value_comes_back_as_it_was(hand: Hand, value: object) -> None:
    hand.write(Put(service="a", values={"k": value}))
    back = m.committed_in(hand.store).services["a"].stored["k"]
    assert repr(back) == repr(value)  # 1, 1.0 and True are equal, but not the same
    (entry,) = hand.store.history(HistoryQuery("a")).entries
    nulls = ("new",) if value is None else ()
    assert repr(entry.changes) == repr((KeyChange("k", None, value, nulls),))


# ── all or none ────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_committed_whole_and_in_order(hand: Hand) -> None:
    hand.batch(
        Put(service="a", values={"x": 1}),
        Patch(service="a", patch={"x": 2}),
        SetSecret(service="door", name="pin", value=Secret("1")),
        Delete(service="a"),
    )
    state = m.committed_in(hand.store)
    assert state.revision == 4
    assert [row.revision for row in hand.store.audit()] == [1, 2, 3, 4]
    assert [e.revision for e in hand.store.history(HistoryQuery("a")).entries] == [4, 2, 1]


def test_nobody_sees_what_is_begun_until_it_is_finished(hand: Hand) -> None:
    store = hand.store
    before = m.committed_in(store)
    decision = hand.decide(before, SetSecret(service="door", name="pin", value=Secret("1")))
    change = replace(decision.change, idempotency=m.record("k", m.START))
    finish = store.begin([change])
    assert m.committed_in(store) == before
    assert store.history(HistoryQuery("door")).entries == ()
    assert store.idempotency("k", since=0) is None
    assert (list(store.secrets("door")), list(store.audit()), list(store.pending())) == ([], [], [])
    finish()
    assert m.committed_in(store) == change.after
    assert store.idempotency("k", since=0) == change.idempotency
    assert len(store.secrets("door")) == len(store.audit()) == len(store.pending()) == 1


def test_a_change_decided_on_an_older_state_is_refused_and_leaves_nothing(hand: Hand) -> None:
    stale = hand.decide(m.committed_in(hand.store), Put(service="a", values={"x": "stale"}))
    hand.write(Put(service="b", values={}))
    committed = m.committed_in(hand.store)
    with pytest.raises(RuntimeError, match="somebody else wrote"):
        hand.store.commit([stale.change])
    assert m.committed_in(hand.store) == committed
    hand.write(Put(service="a", values={"x": "next"}))
    assert [entry.revision for entry in hand.store.audit()] == [1, 2]


def test_a_change_decided_on_a_twin_of_the_same_revision_is_refused(hand: Hand) -> None:
    """The count alone would not tell two histories apart; the audit chain does."""
    twin = m.after(Put(service="a", values={"x": "twin"}))
    hand.write(Put(service="a", values={"x": "ours"}))
    stranger = hand.decide(twin, Put(service="a", values={"x": "twin again"}))
    assert stranger.change.before.revision == m.committed_in(hand.store).revision
    with pytest.raises(RuntimeError):
        hand.store.commit([stranger.change])
    assert m.committed_in(hand.store).services["a"].stored == {"x": "ours"}


# ── history ────────────────────────────────────────────────────────────────────────────────────


def at(revision: int) -> str:
    """When the hand wrote a revision, if it did nothing else."""
    return rfc3339(m.START + revision)


@pytest.fixture
def written(hand: Hand) -> Store:
    """Revisions 1 to 7, a second apart: `a` at all but the 4th; the odd ones change x, the even y."""
    hand.write(Put(service="a", values={"x": 1, "y": 1}))
    for revision in range(2, 8):
        service, key = ("b" if revision == 4 else "a"), ("x" if revision % 2 else "y")
        if service == "b":
            hand.write(Put(service="b", values={"y": revision}))
        else:
            hand.write(Patch(service="a", patch={key: revision}))
    return hand.store


def test_history_says_who_when_what_and_why(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1, "y": 2}), by="ada", reason="first")
    hand.write(Put(service="a", values={"x": 3, "z": None}), by="bob")
    newest, oldest = hand.store.history(HistoryQuery("a")).entries
    assert (oldest.by, oldest.at, oldest.reason, oldest.action) == ("ada", at(1), "first", "put")
    assert (newest.by, newest.at, newest.reason) == ("bob", at(2), None)
    assert (newest.correlation_id, newest.config_epoch) == ("id-2", m.FIRST_EPOCH.id)
    assert newest.changes == (
        KeyChange("x", 1, 3),
        KeyChange("y", 2, None),
        KeyChange("z", None, None, nulls=("new",)),
    )


def test_history_masks_secrets_whether_new_or_replaced(hand: Hand) -> None:
    for value in ("hunter2", "hunter3"):
        hand.write(SetSecret(service="door", name="pin", value=Secret(value)))
    entries = hand.store.history(HistoryQuery("door")).entries
    assert [entry.changes for entry in entries] == [
        (KeyChange("pin", "********", "********"),),
        (KeyChange("pin", None, "********"),),
    ]


@pytest.mark.parametrize(
    ("query", "revisions", "next_before"),
    [
        (HistoryQuery("a"), [7, 6, 5, 3, 2, 1], None),
        (HistoryQuery("a", limit=6), [7, 6, 5, 3, 2, 1], None),
        (HistoryQuery("a", limit=5), [7, 6, 5, 3, 2], 2),
        (HistoryQuery("a", limit=1), [7], 7),
        (HistoryQuery("a", before=5), [3, 2, 1], None),
        (HistoryQuery("a", before=4, limit=1), [3], 3),
        (HistoryQuery("a", before=1), [], None),
        (HistoryQuery("a", key="x"), [7, 5, 3, 1], None),
        (HistoryQuery("a", key="y"), [6, 2, 1], None),
        (HistoryQuery("a", key="x", limit=2), [7, 5], 5),
        (HistoryQuery("a", key="x", before=5, limit=2), [3, 1], None),
        (HistoryQuery("a", key="nobody"), [], None),
        (HistoryQuery("a", since=at(3)), [7, 6, 5, 3], None),
        (HistoryQuery("a", until=at(3)), [3, 2, 1], None),
        (HistoryQuery("a", since=at(2), until=at(5)), [5, 3, 2], None),
        (HistoryQuery("a", since=at(4), until=at(4)), [], None),
        (HistoryQuery("a", since=at(2), until=at(6), key="x", limit=1), [5], 5),
        (HistoryQuery("b"), [4], None),
        (HistoryQuery("nobody"), [], None),
    ],
)
def test_a_page_of_history(
    written: Store, query: HistoryQuery, revisions: list[int], next_before: int | None
) -> None:
    page = written.history(query)
    assert [entry.revision for entry in page.entries] == revisions
    assert (page.service, page.next_before) == (query.service, next_before)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 50])
def test_pages_put_together_are_the_whole_history_once(written: Store, limit: int) -> None:
    seen, before = list[int](), None
    while True:
        page = written.history(HistoryQuery("a", limit=limit, before=before))
        assert len(page.entries) <= limit
        seen += [entry.revision for entry in page.entries]
        before = page.next_before
        if before is None:
            break
    assert seen == [7, 6, 5, 3, 2, 1]


def test_a_page_of_history_ends_with_the_entry_that_makes_it_large(hand: Hand) -> None:
    for text in "abcd":
        hand.write(Put(service="a", values={"x": text * 1000}))

    def page(most_bytes: int, **more: Any) -> tuple[list[int], int | None]:
        found = hand.store.history(HistoryQuery("a", most_bytes=most_bytes, **more))
        return [entry.revision for entry in found.entries], found.next_before

    assert page(1) == ([4], 4), "never none"
    assert page(2_001) == ([4], 4)
    assert page(3_000) == ([4, 3], 3)
    assert page(3_000, before=3) == ([2, 1], None), "the last one needs no further page"
    assert page(3_000, before=2) == ([1], None)
    assert page(1_000_000, limit=3) == ([4, 3, 2], 2)


# ── the audit chain ────────────────────────────────────────────────────────────────────────────


def test_the_audit_chain_recomputes_and_ends_in_the_head(written: Store) -> None:
    rows = list(written.audit())
    assert [row.revision for row in rows] == list(range(1, 8))
    assert m.broken_link(rows, m.committed_in(written).audit_head) is None


@pytest.mark.parametrize(
    ("after", "left"), [(0, [1, 2, 3, 4, 5, 6, 7]), (5, [6, 7]), (7, []), (99, [])]
)
def test_the_audit_goes_on_after_a_revision(written: Store, after: int, left: list[int]) -> None:
    assert [row.revision for row in written.audit(after=after)] == left


@pytest.mark.parametrize(("rows", "count"), [(0, 1), (1, 1), (1.5, 2), (2, 2), (99, 7)])
def test_the_audit_ends_with_the_row_that_reaches_the_size(
    written: Store, rows: float, count: int
) -> None:
    everything = list(written.audit())
    size = sum(len(row.body) for row in everything[: int(rows)])
    most_bytes = size if rows == int(rows) else size + 1
    assert list(written.audit(most_bytes=most_bytes)) == everything[:count]
    assert list(written.audit(after=3, limit=2, most_bytes=10**9)) == everything[3:5]


# ── idempotency ────────────────────────────────────────────────────────────────────────────────


def remember(hand: Hand, key: str, at: float, answer: bytes = b"{}") -> None:
    change = hand.decide(m.committed_in(hand.store), Put(service="a", values={})).change
    hand.store.commit([replace(change, idempotency=m.record(key, at, answer))])


def test_an_idempotency_record_is_kept_with_its_write_and_found_by_its_key(hand: Hand) -> None:
    remember(hand, "k", m.START, b"answer")
    assert hand.store.idempotency("k", since=m.START) == m.record("k", m.START, b"answer")
    assert hand.store.idempotency("other", since=0) is None


DAY_S = 24 * 3600


@pytest.mark.parametrize(("age_s", "found"), [(0, True), (DAY_S, True), (DAY_S + 0.001, False)])
def test_an_idempotency_record_counts_for_24_hours(hand: Hand, age_s: float, found: bool) -> None:
    remember(hand, "k", m.START)
    now = m.START + age_s
    remember(hand, "another, whose write may sweep", now)
    assert (hand.store.idempotency("k", since=now - DAY_S) is not None) is found


def test_a_key_used_again_after_its_day_stands_for_the_new_request(hand: Hand) -> None:
    remember(hand, "k", m.START, b"old")
    later = m.START + 2 * DAY_S
    remember(hand, "k", later, b"new")
    assert hand.store.idempotency("k", since=later - DAY_S) == m.record("k", later, b"new")


# ── schemas ────────────────────────────────────────────────────────────────────────────────────


class Louder(m.DoorSettings):
    bass: int = 0


class Window(ServiceSettings):
    SERVICE: ClassVar[str] = "window"


def test_a_models_schema_is_kept_once_and_again_when_it_changes(kind: Kind) -> None:
    """By whatever store: which number a version bears is no store's to say."""
    store, found = kind.store, list[list[tuple[str, int, str]]]()
    days: list[list[type[ServiceSettings]]]
    days = [[m.DoorSettings], [m.DoorSettings], [Louder], [Window], [Louder]]
    for day, models in enumerate(days):
        known, active = store.newest_schemas(), store.activations()
        store.keep_schemas(*at_start(known, active, Catalogue(models), str(day), revision=day))
        store = kind.reopen()
        found.append([(one.service, one.version, one.at) for one in store.newest_schemas()])
    assert found == [
        [("door", 1, "0")],
        [("door", 1, "0")],
        [("door", 2, "2")],
        [("door", 2, "2"), ("window", 1, "3")],
        [("door", 2, "2"), ("window", 1, "3")],
    ]
    door, _ = store.newest_schemas()
    assert door.digest == digest(door.schema.encode())
    assert list(json.loads(door.schema)["properties"]) == ["bass", "greeting", "pin", "volume"]
    was_active = [store.schema_as_of("door", revision) for revision in range(7)]
    assert [one and one.version for one in was_active] == [None, 1, 1, 2, None, 2, 2]
    assert list(store.activations()) == [("door", 5, 2), ("window", 5, None)]
    assert door.differences is not None
    assert [one["change"] for one in json.loads(door.differences)] == ["key added"]


def put_schema(number: int, source: SchemaSource = "put", revision: int = 0) -> SchemaVersion:
    text = schema_text({"type": "object", "title": str(number)}).decode()
    return SchemaVersion(
        service="door",
        version=number,
        digest=digest(text.encode()),
        schema=text,
        at=f"at {number}",
        source=source,
        by="ada",
        reason="why",
        correlation_id="id",
        differences="[]",
        revision=revision,
    )


def test_the_versions_of_a_schema_are_read_by_number_by_digest_and_in_pages(kind: Kind) -> None:
    made = [put_schema(1, "catalogue"), put_schema(2), put_schema(3, "instance"), put_schema(4)]
    kind.store.keep_schemas(made)
    store = kind.reopen()
    assert [one.version for one in store.newest_schemas()] == [1, 3, 4]
    assert [one.version for one in store.schemas("door")] == [1, 3, 4]
    assert list(store.schemas("window")) == []
    assert list(store.schema_versions("door", limit=2)) == [made[3], made[2]]
    assert list(store.schema_versions("door", before=3, limit=9)) == [made[1], made[0]]
    assert list(store.schema_versions("door", limit=9, most_bytes=1)) == [made[3]]
    assert (
        store.schema_version("door", 2) == store.schema_version("door", made[1].digest) == made[1]
    )
    assert store.schema_version("door", 5) is store.schema_version("window", 1) is None


def test_a_change_keeps_a_schema_and_from_which_revision_it_counts(kind: Kind) -> None:
    hand = Hand(kind.store)
    for number in (1, 2):
        put = Put(service="door", values={"volume": number})
        change = replace(
            hand.decide(m.committed_in(kind.store), put).change,
            schemas=(put_schema(number, revision=number - 1),),
            activations=(SchemaActivation("door", number, number),),
        )
        assert decode(encode(change), change.before) == change
        kind.store.commit([change])
    store = kind.reopen()
    assert store.schema_version("door", 2) == put_schema(2, revision=1)
    assert [one and one.version for one in (store.schema_as_of("door", at) for at in range(4))] == [
        *(None, 1, 2, 2)
    ]


def test_what_was_put_stays_active_when_the_model_changes() -> None:
    put = put_schema(2)
    first = at_start([], [], Catalogue([m.DoorSettings]), "monday", 0)
    later = at_start(
        [*first.versions, put], [SchemaActivation("door", 7, 2)], Catalogue([Louder]), "today", 9
    )
    assert [(one.version, one.source, one.revision) for one in later.versions] == [
        (3, "catalogue", 9)
    ]
    assert later.activations == []


# ── the outbox ─────────────────────────────────────────────────────────────────────────────────


def test_every_write_is_pending_until_its_own_revision_is_confirmed(hand: Hand) -> None:
    store = hand.store
    hand.write(Put(service="a", values={"x": 1}))
    hand.write(Put(service="b", values={"x": 1}))
    assert sorted(store.pending()) == [("a", 1), ("b", 2)]
    store.mark_confirmed([("a", 1)])
    assert list(store.pending()) == [("b", 2)]
    hand.write(Delete(service="a"))
    store.mark_confirmed([("a", 1), ("b", 2)])  # the news of the write before came late
    assert list(store.pending()) == [("a", 3)]
    store.mark_confirmed([("a", 3)])
    assert list(store.pending()) == []


def test_an_older_confirmation_does_not_take_back_a_newer_one(hand: Hand) -> None:
    for number in range(3):
        hand.write(Put(service="a", values={"x": number}))
    hand.store.mark_confirmed([("a", 3)])
    hand.store.mark_confirmed([("a", 2)])
    assert list(hand.store.pending()) == []


def test_confirming_a_service_that_nobody_wrote_says_nothing_about_its_first_write(
    hand: Hand,
) -> None:
    hand.store.mark_confirmed([("a", 9)])
    assert list(hand.store.pending()) == []
    hand.write(Put(service="a", values={}))
    assert list(hand.store.pending()) == [("a", 1)]


def test_a_batch_leaves_only_the_newest_of_each_service_pending(hand: Hand) -> None:
    hand.batch(*(Put(service="a", values={"x": n}) for n in range(4)))
    assert list(hand.store.pending()) == [("a", 4)]


# ── the registry ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Keeps:
    """An administration that keeps one row, or removes it."""

    key: str
    value: dict[str, Any] | None
    audited: bool = True

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        row = RegistryRow("thing", self.key, self.value)
        if not self.audited:
            return noted(before, on, (row,))
        return administered(before, on, "thing.keep", {"key": self.key}, (row,), None)


def administer(hand: Hand, what: Keeps) -> Commit:
    before = m.committed_in(hand.store)
    change = what.decide(before, m.equipped(reason="because")).change
    hand.store.commit([change])
    return change


def test_a_registry_row_is_kept_replaced_and_removed(hand: Hand) -> None:
    administer(hand, Keeps("a", {"n": 1}))
    administer(hand, Keeps("b", {"n": 2}))
    administer(hand, Keeps("a", {"n": 3}))
    assert m.committed_in(hand.store).registered("thing") == {"a": {"n": 3}, "b": {"n": 2}}
    hand.write(Put(service="door", values={}))
    administer(hand, Keeps("b", None))
    assert m.committed_in(hand.store).registered("thing") == {"a": {"n": 3}}


def test_an_administration_is_a_row_of_the_same_chain_and_no_revision(hand: Hand) -> None:
    hand.write(Put(service="a", values={}))
    administer(hand, Keeps("x", {}))
    hand.write(Put(service="a", values={}))
    rows = list(hand.store.audit())
    assert [(row.seq, row.revision) for row in rows] == [(1, 1), (2, 1), (3, 2)]
    assert m.broken_link(rows, m.committed_in(hand.store).audit_head) is None
    assert json.loads(rows[1].body)["details"] == {"key": "x"}


def test_bookkeeping_leaves_the_chain_alone(hand: Hand) -> None:
    administer(hand, Keeps("x", {"used": 1}, audited=False))
    assert list(hand.store.audit()) == []
    assert m.committed_in(hand.store).registered("thing") == {"x": {"used": 1}}


# a change decided on a state that has moved on since is a second writer's
def test_an_administration_decided_on_an_older_state_is_not_committed(hand: Hand) -> None:
    decided = hand.decide(m.committed_in(hand.store), Put(service="a", values={}))
    administer(hand, Keeps("x", {}))
    with pytest.raises(RuntimeError, match="somebody else wrote"):
        hand.store.commit([decided.change])


# ── a restart ──────────────────────────────────────────────────────────────────────────────────


def test_a_restart_changes_nothing(kind: Kind) -> None:
    hand = Hand(kind.store)
    hand.write(Put(service="door", values={"volume": 3, "greeting": "Grüß Gott"}))
    hand.write(SetSecret(service="door", name="pin", value=Secret("1234")))
    hand.write(NewEpoch(services={"a": {"z": 1, "a": {"deep": [1.0, None]}}, "b": {}}))
    hand.write(Delete(service="b"))
    administer(hand, Keeps("admin", {"hash": "1" * 64}))
    kind.store.mark_confirmed([("a", 3)])
    remember(hand, "k", m.START)

    def everything(store: Store) -> tuple[object, ...]:
        return (
            m.committed_in(store),
            [list(state.effective) for state in m.committed_in(store).services.values()],
            [store.history(HistoryQuery(name)) for name in ("door", "a", "b")],
            list(store.audit()),
            [list(store.secrets(name)) for name in ("door", "a")],
            sorted(store.pending()),
            store.idempotency("k", since=0),
        )

    before = everything(kind.store)
    again = kind.reopen()
    assert everything(again) == before
    next_write = Hand(again).write(Put(service="a", values={})).change
    assert (next_write.after.revision, next_write.services[0].version) == (6, 3)


# ── a store that fails ─────────────────────────────────────────────────────────────────────────


def make_fail(store: Store) -> None:
    """Make the next writing call fail, as a disk that went away would."""
    if isinstance(store, MemoryStore):
        store.fail_next = DatabaseUnavailable("drill")
    else:
        store._writer.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]


def make_well(store: Store) -> None:
    if not isinstance(store, MemoryStore):
        store._writer.execute("PRAGMA query_only = OFF")  # type: ignore[attr-defined]


def test_a_commit_that_fails_keeps_nothing_and_the_next_one_works(hand: Hand) -> None:
    hand.write(Put(service="a", values={"x": 1}))
    before = m.committed_in(hand.store)
    make_fail(hand.store)
    with pytest.raises(DatabaseUnavailable):
        hand.store.commit([hand.decide(before, Put(service="a", values={"x": 2})).change])
    make_well(hand.store)
    assert m.committed_in(hand.store) == before
    assert len(hand.store.audit()) == len(hand.store.history(HistoryQuery("a")).entries) == 1
    hand.write(Put(service="a", values={"x": 3}))
    assert m.committed_in(hand.store).services["a"].stored == {"x": 3}


def test_the_epoch_of_a_store_is_the_one_it_was_made_with(store: Store) -> None:
    assert m.committed_in(store).epoch == Epoch(1, m.FIRST_EPOCH.id)


# ── plans ──────────────────────────────────────────────────────────────────────────────────────


def plan_kept(store: Store, *services: str) -> KeptPlan:
    before = m.committed_in(store)
    made = MakePlan(
        planned=Planned(services, '{"revisions":{},"schemas":{}}', "{}", '{"services":[]}')
    )
    number = f"00000000-0000-4000-8000-{before.audit_seq:012}"
    change = made.decide(before, m.equipped(epoch_id=number, reason="why")).change
    store.commit([change])
    assert decode(encode(change), change.before) == change
    return change.plans[0]


def test_a_plan_is_kept_over_a_restart_until_it_is_used_or_let_go(kind: Kind) -> None:
    first, second = plan_kept(kind.store, "door"), plan_kept(kind.store, "a", "b")
    store = kind.reopen()
    assert store.plan(first.id) == store.plan_beside(first.id) == first
    assert store.plan("p-ffffffffffff") is None
    light = [one._replace(result="", shown="") for one in (second, first)]
    assert list(store.plans()) == light
    assert list(store.plans(before=second.seq)) == light[1:]
    used = first._replace(outcome='{"revision":1}')
    before = m.committed_in(store)
    change = administered(before, m.equipped(), "plan.apply", {}, (), None).change
    store.commit([replace(change, plans=(used,))])
    assert store.plan(first.id) == used
    gone = replace(m.equipped(), stored=store)
    store.commit([DeletePlan(id=second.id).decide(m.committed_in(store), gone).change])
    assert [one.id for one in store.plans()] == [first.id]


def test_the_newest_hundred_plans_are_kept(store: Store) -> None:
    made = [plan_kept(store, "door").id for _ in range(102)]
    assert [one.id for one in store.plans()] == made[:1:-1]
    assert store.plan(made[0]) is None


# ── the past ───────────────────────────────────────────────────────────────────────────────────


def test_every_64th_version_of_a_service_is_kept_as_a_whole_and_found_from_either_side(
    kind: Kind,
) -> None:
    hand = Hand(kind.store)
    puts = [Put(service="a", values={"n": n}) for n in range(1, 2 * VERSIONS_A_CHECKPOINT + 1)]
    hand.batch(
        Put(service="b", values={}), SetSecret(service="a", name="pin", value=Secret("x")), *puts
    )
    first, second = (  # the secret was version 1, and revision 2
        Checkpoint("a", n + 1, n, deleted=False, stored={"n": n - 1}, secrets=("pin",))
        for n in (VERSIONS_A_CHECKPOINT, 2 * VERSIONS_A_CHECKPOINT)
    )
    for is_again in (False, True):
        store = kind.reopen() if is_again else kind.store
        assert store.checkpoints("a", first.revision - 1) == (None, first)
        assert store.checkpoints("a", first.revision) == (first, second)
        assert store.checkpoints("a", second.revision - 1) == (first, second)
        assert store.checkpoints("a", second.revision) == (second, None)
        assert store.checkpoints("b", first.revision) == (None, None)


def test_what_was_taken_back_of_a_service_comes_newest_first(kind: Kind) -> None:
    hand = Hand(kind.store)
    kept = [
        TakenBack("a", 2, after=0, upto=1, keys=None),
        TakenBack("a", 3, after=1, upto=2, keys=("x", "ÿ")),
        TakenBack("b", 4, after=3, upto=3, keys=()),
    ]
    hand.write(Put(service="a", values={"x": 1}))
    for one in kept:
        change = hand.decide(m.committed_in(hand.store), Put(service=one.service, values={})).change
        hand.store.commit([replace(change, taken_back=(one,))])
    for is_again in (False, True):
        store = kind.reopen() if is_again else kind.store
        assert list(store.taken_back("a")) == [kept[1], kept[0]]
        assert list(store.taken_back("b")) == [kept[2]]
        assert list(store.taken_back("c")) == []


def test_the_epoch_of_a_revision_is_the_newest_that_had_begun(hand: Hand) -> None:
    store = hand.store
    assert store.epoch_as_of(0) == m.FIRST_EPOCH
    hand.write(Put(service="a", values={}))
    second = hand.write(NewEpoch(services={"a": {}})).change.after.epoch
    hand.write(Put(service="a", values={}))
    third = hand.write(NewEpoch(services={"a": {}})).change.after.epoch
    epochs = [store.epoch_as_of(revision) for revision in range(6)]
    assert epochs == [m.FIRST_EPOCH, m.FIRST_EPOCH, second, second, third, third]
    assert [epoch.seq for epoch in epochs[1:5]] == [1, 2, 2, 3]


@pytest.fixture
def searched(hand: Hand) -> Store:
    hand.write(Put(service="a", values={"host": "Alpha.example"}))
    hand.write(Put(service="b", values={"peer": "alpha.example"}))
    hand.write(NewEpoch(services={"a": {"host": "beta"}, "b": {"peer": "x"}, "c": {"alpha": 1}}))
    hand.write(Put(service="a", values={"host": "100%"}), reason="back from ALPHA, 5 days")
    hand.write(Put(service="b", values={"peer": 'say "grüß" _x'}))
    return hand.store


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (HistorySearch("alpha", 9), [(4, "a"), (3, "a"), (3, "b"), (3, "c"), (2, "b"), (1, "a")]),
        (HistorySearch("ALPHA.ex", 9), [(3, "a"), (3, "b"), (2, "b"), (1, "a")]),
        (HistorySearch("alpha", 2), [(4, "a"), (3, "a")]),
        (HistorySearch("alpha", 9, services=("b", "c")), [(3, "b"), (3, "c"), (2, "b")]),
        (HistorySearch("alpha", 9, services=()), []),
        (HistorySearch("alpha", 9, start=(3, "b")), [(3, "b"), (3, "c"), (2, "b"), (1, "a")]),
        (HistorySearch("alpha", 2, ("a",), start=(3, "b")), [(1, "a")]),
        (HistorySearch("0%", 9), [(4, "a")]),
        (HistorySearch("%", 9), [(4, "a")]),
        (HistorySearch("_", 9), [(5, "b")]),
        (HistorySearch('"grüß"', 9), [(5, "b")]),
        (HistorySearch("days", 9), [(4, "a")]),
        (HistorySearch("nowhere", 9), []),
    ],
)
def test_what_a_search_of_history_finds(
    searched: Store, search: HistorySearch, found: list[tuple[int, str]]
) -> None:
    rows, _more = searched.find_in_history(search)
    assert [(row.entry.revision, row.service) for row in rows] == found
    for row in rows:
        assert row.entry in searched.history(HistoryQuery(row.service)).entries


# ── changes of all services ────────────────────────────────────────────────────────────────────


def test_changes_come_in_the_order_of_revisions_and_an_epoch_is_one_of_several_services(
    hand: Hand,
) -> None:
    hand.write(Put(service="b", values={"x": 1}), by="ada", reason="first")
    hand.write(Put(service="a", values={"x": 1}), by="bob")
    hand.write(NewEpoch(services={"b": {"x": 2}, "a": {}}), reason="spring")
    hand.write(Delete(service="b"), by="bob")
    store = hand.store

    def revisions(**query: Any) -> list[int]:
        return [one.revision for one in store.changes(ChangesQuery(**query))]

    newest, spring, *_, first = store.changes(ChangesQuery())
    assert (newest.action, newest.services, newest.by) == ("delete", ("b",), "bob")
    assert (spring.services, spring.epoch_seq, spring.reason) == (("a", "b"), 2, "spring")
    assert first == Change(
        revision=1,
        correlation_id="id-1",
        epoch_seq=1,
        config_epoch=m.FIRST_EPOCH.id,
        at=rfc3339(m.START + 1),
        by="ada",
        action="put",
        reason="first",
        services=("b",),
    )
    assert revisions() == [4, 3, 2, 1]
    assert revisions(limit=2) == [4, 3]
    assert revisions(before=3) == [2, 1]
    assert revisions(after=0, limit=3) == [1, 2, 3]
    assert revisions(after=1, before=4) == [2, 3]
    assert revisions(by="bob") == [4, 2]
    assert revisions(service="a") == [3, 2]
    assert revisions(correlation_id="id-2") == [2]
    assert revisions(since=rfc3339(m.START + 2), until=rfc3339(m.START + 3)) == [3, 2]
    assert revisions(service="nobody") == []


def test_of_changes_only_services_that_may_be_seen_are_told(hand: Hand) -> None:
    hand.write(Put(service="a", values={}))
    hand.write(NewEpoch(services={"a": {}, "b": {}, "c": {}}))
    hand.write(Put(service="c", values={}))

    def told(**query: Any) -> list[tuple[int, tuple[str, ...]]]:
        found = hand.store.changes(ChangesQuery(**query))
        return [(one.revision, one.services) for one in found]

    assert told(visible=["a", "b"]) == [(2, ("a", "b")), (1, ("a",))]
    assert told(visible=["a", "b"], service="a", limit=1) == [(2, ("a", "b"))]
    assert told(visible=["a"], service="c") == []
    assert told(visible=[]) == []


def test_the_first_time_of_a_step_stays_whenever_the_others_come(kind: Kind) -> None:
    store, there, here = kind.store, "mqtt://there:1883", "mqtt://here:1883"
    hand = Hand(store)
    hand.write(Put(service="a", values={}))
    first = ChangeTimes(1, 10.0, 10.5, 3, "00-trace", (BrokerTimes("a", there, 11.0, 11.25),))
    store.mark_confirmed([], [first])
    assert store.change_times(1) == first
    later = first._replace(
        asked=99.0,
        brokers=(
            BrokerTimes("a", there, 98.0, 98.0, 12.0, 12.5),
            BrokerTimes("a", here, confirmed=13.0),
        ),
    )
    store.mark_confirmed([("a", 1)], [later])
    store = kind.reopen()
    assert store.change_times(1) == first._replace(
        brokers=(
            BrokerTimes("a", here, confirmed=13.0),
            BrokerTimes("a", there, 11.0, 11.25, 12.0, 12.5),
        )
    )
    assert list(store.pending()) == []
    assert store.change_times(2) is None


def test_times_are_let_go_with_age_and_the_newer_ones_stay(store: Store) -> None:
    steps = (BrokerTimes("a", "mqtt://here:1883", 1.0),)
    times = [ChangeTimes(n, None, float(n), brokers=steps) for n in range(1, 6)]
    store.mark_confirmed([], times)
    assert [store.prune_observed(4.0, 2) for _ in range(3)] == [2, 1, 0]
    kept = [store.change_times(one.revision) for one in times]
    assert kept == [None, None, None, *times[3:]]
    store.mark_confirmed([], [times[0]._replace(brokers=())])
    assert store.change_times(1) == times[0]._replace(brokers=()), "nothing was left of its steps"


def test_receipts_are_found_by_the_revision_that_they_tell_of(store: Store) -> None:
    def receipt(service: str, seq: int, attempted: int | None) -> KeptReceipt:
        return KeptReceipt(
            service, "one", 1, seq, 0.0, 0.0, 1, "applied", "in-line", False, b"e", attempted
        )

    told = [receipt("a", 1, 7), receipt("b", 1, 7), receipt("a", 2, 8), receipt("a", 3, 7)]
    store.keep_observed(Observed([*told, receipt("a", 4, None)]))
    assert store.attempts("a", 7) == [told[0], told[3]]
    assert store.attempts("c", 7) == []


# ── what instances said, and when they drifted ─────────────────────────────────────────────────


def receipt(number: int, instance: str = "hall", **fields: Any) -> KeptReceipt:
    """The n-th, received n seconds after the start."""
    one = KeptReceipt(
        service="door",
        instance=instance,
        boot_seq=1,
        seq=number,
        at=m.START + number - 0.5,
        received_at=m.START + number,
        revision=7,
        stage="healthy",
        state="in-line",
        gone=False,
        envelope=b"{%d}" % number,
    )
    return one._replace(**fields)


def drift(seq: int, **fields: Any) -> Drift:
    one = Drift(
        seq=seq,
        service="door",
        instance="hall",
        state="late",
        why="it has not answered revision 7",
        since=m.START + seq,
        began=m.START + seq + 10,
        revision=7,
        correlation_id="change-7",
    )
    return one._replace(**fields)


def test_receipts_come_back_as_they_were_kept_in_order_after_a_restart_too(kind: Kind) -> None:
    rows = [receipt(n) for n in (1, 2, 3)]
    rows[1] = rows[1]._replace(revision=None, stage=None, state="pending")
    kind.store.keep_observed(Observed(rows[:2]))
    kind.store.keep_observed(Observed([receipt(9, "garden"), rows[2]]))
    store = kind.reopen()

    def found(**query: Any) -> list[KeptReceipt]:
        return list(store.receipts(ReceiptsQuery("door", "hall", **query)))

    assert found() == rows
    assert found(since=m.START + 2) == rows[1:]
    assert found(since=m.START + 2, until=m.START + 2) == [rows[1]]
    assert store.receipts(ReceiptsQuery("door", "cellar")) == []


def test_of_each_instance_the_newest_that_was_there_and_the_end_behind_it(store: Store) -> None:
    store.keep_observed(
        Observed(
            [
                receipt(1),
                receipt(2),
                receipt(1, "gone"),
                receipt(2, "gone"),
                receipt(0, "gone", gone=True),
                receipt(0, "back", gone=True),
                receipt(1, "back"),
                receipt(0, "only-gone", gone=True),
            ]
        )
    )
    assert store.newest_receipts() == [
        receipt(1, "back"),
        receipt(2, "gone"),
        receipt(0, "gone", gone=True),
        receipt(2),
        receipt(0, "only-gone", gone=True),
    ]


def test_what_is_forgotten_goes_and_what_it_says_afterwards_stays(store: Store) -> None:
    store.keep_observed(Observed([receipt(1), receipt(2), receipt(3, "garden")]))
    store.keep_observed(Observed([receipt(4)], forgotten=[("door", "hall")]))
    assert store.newest_receipts() == [receipt(3, "garden"), receipt(4)]


def test_of_old_receipts_the_first_and_the_last_of_each_segment_stay(store: Store) -> None:
    states: list[State] = [*("in-line",) * 4, *("refused",) * 3, "in-line"]
    rows = [receipt(n, state=state) for n, state in enumerate(states, 1)]
    others = [receipt(n, "garden") for n in (1, 2, 3)]
    recent = [receipt(n) for n in range(20, 24)]
    store.keep_observed(Observed([*rows, *others, *recent]))
    assert store.prune_observed(m.START + 20, 1) == 1
    assert store.prune_observed(m.START + 20, 100) == 3
    assert store.prune_observed(m.START + 20, 100) == 0
    left = [one.seq for one in store.receipts(ReceiptsQuery("door", "hall"))]
    assert left == [1, 4, 5, 7, 8, 20, 21, 22, 23]
    assert [one.seq for one in store.receipts(ReceiptsQuery("door", "garden"))] == [1, 3]


def test_drift_that_ends_takes_the_place_of_its_beginning(kind: Kind) -> None:
    assert kind.store.open_drifts() == ([], 0)
    kind.store.keep_observed(Observed(drifts=[drift(1), drift(2, service="bell"), drift(3)]))
    ended = drift(1, ended=m.START + 60, ended_seq=4)
    kind.store.keep_observed(Observed(drifts=[ended]))
    store = kind.reopen()
    assert store.open_drifts() == ([drift(2, service="bell"), drift(3)], 4)

    def seqs(**query: Any) -> list[int]:
        return [one.seq for one in store.drifts(DriftQuery(**query))]

    assert list(store.drifts(DriftQuery())) == [drift(3), drift(2, service="bell"), ended]
    assert seqs(limit=2) == [3, 2]
    assert seqs(before=3) == [2, 1]
    assert seqs(service="bell") == [2]
    assert seqs(covers="door".__eq__) == [3, 1]
    assert seqs(since=m.START + 61) == [3, 2]
    assert seqs(until=m.START + 12) == [2, 1]
    assert store.prune_observed(m.START + 61, 10) == 1
    assert seqs() == [3, 2]


def test_nothing_that_was_seen_is_audited_or_moves_the_revision(hand: Hand) -> None:
    hand.write(Put(service="door", values={}))
    before = m.committed_in(hand.store)
    hand.store.keep_observed(Observed([receipt(1)], [drift(1)]))
    assert m.committed_in(hand.store) == before
    hand.write(Put(service="door", values={}))
