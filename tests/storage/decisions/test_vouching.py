"""Nothing that is kept can be edited past the server, whoever has the database's key: each cell is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config.audit import Head
from config_manager.config.names import Mark
from config_manager.config.secret import Secret
from config_manager.storage.decisions import accepting, taking_back
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.devices import (
    AllowEnrolment,
    Delivery,
    Device,
    KeepDelivery,
    RevokeDevice,
    devices,
)
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.intents import (
    Delete,
    DeleteSecret,
    Intent,
    NewEpoch,
    Patch,
    Put,
    SetSecret,
)
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.replay import Replay
from config_manager.storage.decisions.rollback import Rollback
from config_manager.storage.decisions.schema_changes import PutSchema
from config_manager.storage.decisions.schema_outlook import outlook
from config_manager.storage.decisions.tokens import (
    AcceptAdminToken,
    CreateToken,
    NoteTokenUses,
    RevokeToken,
)
from config_manager.storage.decisions.vouching import Judgement, Vouching, without
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.sql import database
from config_manager.storage.sql.database import SqlConnection
from config_manager.storage.sql.sql_store import SqlStore
from config_manager.storage.state import AuditEntry, Committed, HistoryQuery
from config_manager.storage.store import Store
from tests.kit import stores as m
from tests.kit.stores import STEADY, VOUCHING, Hand

AT = "2027-01-15T09:00:00.000Z"
ADA = m.equipped(correlation_id="id-of-ada")
DEVICE = Device("door", "ada", b"s" * 32, b"e" * 32, AT, "ada")


def administer(store: Store, what: Decidable[Any]) -> None:
    before = m.committed_in(store)
    store.commit([what.decide(before, ADA).change])


class _Enrolled:
    """A device's row, without the proof that enrolling takes."""

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        return administered(before, on, "device.enrol", {}, (DEVICE.to_row(),), None)


def fill(store: Store) -> None:
    """Something of every kind."""
    hand = Hand(store)
    administer(store, AcceptAdminToken("bootstrap", "a" * 64))
    administer(store, CreateToken("eve", "b" * 64, "read", ("*",), None))
    administer(store, CreateToken("bob", "c" * 64, "write", ("door",), None))
    administer(store, RevokeToken("bob"))
    administer(store, NoteTokenUses({"b" * 64: AT}))
    administer(store, AllowEnrolment("d" * 64, "door", None, "2030-01-01T00:00:00.000Z"))
    administer(store, _Enrolled())
    hand.write(Put(service="door", values={"volume": 3, "greeting": None}), reason="because")
    hand.write(Patch(service="door", patch={"volume": 4}))
    hand.write(SetSecret(service="door", name="pin", value=Secret("1234")))
    hand.write(NewEpoch(services={"a": {"x": [1, 2.5, {"y": True}]}, "b": {}}))
    hand.write(SetSecret(service="gone", name="key", value=Secret("k")))
    hand.write(SetSecret(service="gone", name="other", value=Secret("o")))
    hand.write(DeleteSecret(service="gone", name="other"))
    hand.write(Delete(service="gone"))
    put_schema(store, "b", {"type": "object", "properties": {"x": {"type": "integer"}}})
    made = Delivery(b'{"sealed": 1}', {"pin": 1}, DEVICE.sign_keyid)
    mac = VOUCHING.delivery_mac("door/ada", made)
    administer(
        store, KeepDelivery(DEVICE, Delivery(made.payload, {"pin": 1}, made.sign_keyid, mac))
    )


def put_schema(store: Store, service: str, schema: dict[str, Any], **asked: Any) -> None:
    shape, before = CompiledSchema(schema), m.committed_in(store)
    then = outlook(before, m.SHAPES, service, shape)
    what = PutSchema(service=service, shape=shape, outlook=then, **asked)
    store.commit([what.decide(before, replace(ADA, reason="why", stored=store)).change])


def judged(store: Store, cached: Committed | None = None) -> Judgement:
    with store.snapshot() as snapshot:
        return VOUCHING.judge(snapshot, cached=cached)


def reasons(store: Store) -> list[str]:
    return [one.reason for one in judged(store).not_audited]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = m.open_sql(tmp_path / "config.db")
    fill(store)
    yield store
    store.close()


@pytest.fixture
def stranger(store: SqlStore, tmp_path: Path) -> Iterator[SqlConnection]:
    """Somebody with the database's key, and no other."""
    with closing(database.connect(tmp_path / "config.db", m.DB_KEY)) as connection:
        yield connection


# ── what was written is vouched for ────────────────────────────────────────────────────────────


def test_everything_of_every_kind_is_vouched_for(store: SqlStore) -> None:
    judgement = judged(store)
    assert (judgement.verdict.problem, judgement.foreign, judgement.is_silent) == (None, (), False)


SERVICES = st.sampled_from(["door", "a", "gone"])
VALUES = st.dictionaries(
    st.sampled_from(["volume", "greeting", "x"]),
    st.one_of(st.none(), st.integers(0, 10), st.text(max_size=3), st.floats(0, 1)),
)
INTENTS = st.one_of(
    st.builds(lambda s, v: Put(service=s, values=v), SERVICES, VALUES),
    st.builds(lambda s, v: Patch(service=s, patch=v), SERVICES, VALUES),
    st.builds(lambda s: Delete(service=s), SERVICES),
    st.builds(lambda s: SetSecret(service=s, name="pin", value=Secret("1")), SERVICES),
    st.builds(lambda s: DeleteSecret(service=s, name="pin"), SERVICES),
    st.builds(lambda v: NewEpoch(services={"a": v, "gone": {}}), VALUES),
)


@STEADY
@given(st.lists(INTENTS, max_size=12))
def test_no_sequence_of_writes_is_foreign_and_the_replay_is_what_is_there(
    intents: list[Intent],
) -> None:
    from config_manager.config.errors import Refusal

    memory = MemoryStore(m.FIRST_EPOCH, VOUCHING)
    hand = Hand(memory)
    for intent in intents:
        try:
            hand.write(intent)
        except Refusal:
            continue
    judgement = judged(memory)
    assert judgement.not_audited == ()
    committed = m.committed_in(memory)
    assert {
        name: (one.stored, one.secrets, one.deleted, one.version, one.revision)
        for name, one in judgement.replay.services.items()
    } == {
        name: (state.stored, dict(state.secrets), state.deleted, state.version, state.revision)
        for name, state in committed.services.items()
    }


# ── what was edited is not ─────────────────────────────────────────────────────────────────────

EDITS = {
    "counters": ["revision", "epoch_seq", "epoch_id", "audit_seq", "audit_head", "audit_seal"],
    "configurations": [
        "service",
        "revision",
        "version",
        "epoch_seq",
        "epoch_id",
        "stored",
        "effective",
        "defaulted",
        "secrets",
        "deleted",
        "updated_at",
        "updated_by",
        "correlation_id",
    ],
    "outbox": ["payload"],
    "history": [
        "service",
        "revision",
        "version",
        "epoch_seq",
        "epoch_id",
        "at",
        "by",
        "action",
        "reason",
        "correlation_id",
        "changes",
    ],
    "audit": ["seq", "revision", "body", "hash"],
}
"""Every cell that is served, signed or decides who may enter."""
OTHER = {
    "stored": '{"volume":9}',
    "effective": '{"volume":9,"greeting":null}',
    "defaulted": '["volume"]',
    "secrets": '{"pin":9}',
    "changes": '[["volume",null,9]]',
    "deleted": 1,
}
WHICH = {
    "counters": "one = 1",
    "configurations": "service = 'door'",
    "outbox": "service = 'door'",
    "history": "service = 'door' AND revision = 2",
    "audit": "seq = 9",
}
CELLS = [(table, column) for table, columns in EDITS.items() for column in columns]


def test_the_list_of_cells_is_whole(stranger: SqlConnection) -> None:
    not_judged = {
        "counters": {"one", "boot_seq"},  # brokers know better
        "outbox": {"service", "revision", "confirmed_revision"},  # a join; for who looks into it
    }
    for table, columns in EDITS.items():
        there = {row[1] for row in stranger.execute(f"PRAGMA table_info({table})")}
        assert there - not_judged.get(table, set()) == set(columns)


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_each_cell_that_is_edited_is_found(
    store: SqlStore, stranger: SqlConnection, table: str, column: str
) -> None:
    where = WHICH[table]
    ((old,),) = stranger.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchall()
    new: object = OTHER.get(column)
    if new is None:
        new = {int: lambda: old + 40, str: lambda: old + "x", bytes: lambda: old + b" "}.get(
            type(old), lambda: "x"
        )()
    stranger.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (new,))
    assert reasons(store), f"{table}.{column} {old!r} → {new!r}"


@pytest.mark.parametrize("service", ["door", "gone", "b"])
@pytest.mark.parametrize("table", ["configurations", "outbox", "history"])
def test_a_row_that_is_removed_is_found(
    store: SqlStore, stranger: SqlConnection, table: str, service: str
) -> None:
    stranger.execute(f"DELETE FROM {table} WHERE service = ?", (service,))
    wanted = f"not-audited: {'history ' if table == 'history' else ''}{service}"
    assert reasons(store) == [wanted]


def test_the_secrets_of_a_deleted_service_are_vouched_for(
    store: SqlStore, stranger: SqlConnection
) -> None:
    stranger.execute("UPDATE configurations SET secrets = '{\"key\":7}' WHERE service = 'gone'")
    assert reasons(store) == ["not-audited: gone"]


KINDS = [
    ("token", "eve"),
    ("device", "door/ada"),
    ("enrolment", "d" * 64),
    ("schema", "b"),
    ("delivery", "door/ada"),
]


@pytest.mark.parametrize(("kind", "key"), KINDS)
def test_a_registry_row_that_is_edited_is_found(
    store: SqlStore, stranger: SqlConnection, kind: str, key: str
) -> None:
    ((value,),) = stranger.execute(
        "SELECT value FROM registry WHERE kind = ?  AND key = ?", (kind, key)
    )
    for old, new in (
        ("read", "admin"),
        ("c3Nz", "c3Nx"),
        ("2030", "2040"),
        ("sealed", "mended"),
        ("integer", "string"),
    ):
        edited = value.replace(old, new)
        if edited != value:
            break
    assert edited != value
    stranger.execute(
        "UPDATE registry SET value = ? WHERE kind = ? AND key = ?", (edited, kind, key)
    )
    assert reasons(store) == [f"not-audited: registry {kind}/{key}"]
    left = without(m.committed_in(store), judged(store).foreign)
    assert key not in left.registered(kind)


@pytest.mark.parametrize(("kind", "key"), KINDS[:4])
def test_a_registry_row_that_is_removed_or_comes_from_nowhere_is_found(
    store: SqlStore, stranger: SqlConnection, kind: str, key: str
) -> None:
    stranger.execute("UPDATE registry SET key = 'mallory' WHERE kind = ? AND key = ?", (kind, key))
    assert reasons(store) == [
        f"not-audited: registry {kind}/mallory",
        f"not-audited: registry {kind}/{key}",
    ]


def test_a_delivery_of_another_device_is_not_ours_there(
    store: SqlStore, stranger: SqlConnection
) -> None:
    stranger.execute("UPDATE registry SET key = 'door/eve' WHERE kind = 'delivery'")
    assert reasons(store) == ["not-audited: registry delivery/door/eve"]


def test_what_nobody_decides_may_change(store: SqlStore, stranger: SqlConnection) -> None:
    stranger.execute(
        "UPDATE registry SET value = json_set(value, '$.last_used_at', '2031-01-01T00:00:00.000Z')"
        " WHERE kind = 'token'"
    )
    assert reasons(store) == []


def test_a_row_that_somebody_appends_with_every_hash_right_moves_an_end_that_is_sealed(
    store: SqlStore, stranger: SqlConnection
) -> None:
    before = m.committed_in(store)
    forged = m.decide(before, Put(service="door", values={"volume": 9}), by="ada").change
    forger = SqlStore.open(
        Path(store._path),  # noqa: SLF001  the file that a stranger opens
        m.DB_KEY,
        vouching=Vouching(b"m" * 32),
        epoch_id="x",
        at=AT,
        fresh=False,
    )
    forger.commit([forged])
    forger.close()
    judgement = judged(store)
    assert (judgement.verdict.problem, judgement.replay.services["door"].stored) == (
        None,
        {"volume": 9},
    )
    assert reasons(store) == [f"not-audited: audit {before.audit_seq + 1}"]


def test_a_seal_that_is_taken_away_is_missed(store: SqlStore, stranger: SqlConnection) -> None:
    stranger.execute("UPDATE counters SET audit_seal = NULL")
    assert reasons(store) == [f"not-audited: audit {m.committed_in(store).audit_seq}"]


def test_rows_that_an_audit_must_hold_are_looked_for(store: SqlStore) -> None:
    with store.snapshot() as snapshot:
        judgement = VOUCHING.judge(snapshot, [Head(3, "0" * 64, "instance.json")])
    assert judgement.problem is not None
    assert (judgement.problem.seq, judgement.problem.kind) == (3, "head")


def test_who_no_longer_waits_ends_it(store: SqlStore) -> None:
    class Left(Exception):
        pass

    def look_up() -> None:
        raise Left

    with pytest.raises(Left), store.snapshot() as snapshot:
        VOUCHING.judge(snapshot, look_up=look_up)


# ── what an earlier version wrote ──────────────────────────────────────────────────────────────


def forget_digests(stranger: SqlConnection) -> None:
    """The database as 0.2.0 would have written it: rows that name no digests, and no seal."""
    from config_manager.config import strict_json
    from config_manager.config.audit import GENESIS, chain

    head = GENESIS
    for seq, body in stranger.execute("SELECT seq, body FROM audit ORDER BY seq").fetchall():
        value = strict_json.loads_object(body)
        for name in ("digests", "registry", "secrets", "config_epoch"):
            value.pop(name, None)
        data = strict_json.dumps({**value, "previous": head})
        head = chain(head, data)
        stranger.execute("UPDATE audit SET body = ?, hash = ? WHERE seq = ?", (data, head, seq))
    stranger.execute("UPDATE counters SET audit_head = ?, audit_seal = NULL", (head,))
    stranger.execute("UPDATE registry SET value = json_remove(value, '$.mac')")


def test_an_earlier_version_named_nothing_and_one_row_begins_to_vouch_for_all(
    store: SqlStore, stranger: SqlConnection
) -> None:
    forget_digests(stranger)
    before = m.committed_in(store)
    assert reasons(store) == [f"not-audited: audit {before.audit_seq}"], "nobody knows of it"
    judgement = judged(store, before)
    assert (judgement.not_audited, judgement.is_silent) == ((), True)
    store.commit([VOUCHING.begin(before, before, ADA)])
    judgement = judged(store)
    assert (judgement.not_audited, judgement.is_silent) == ((), False)
    row = store.audit(after=before.audit_seq)[0]
    for state in before.services.values():
        assert state.digest.encode() in row.body
    stranger.execute(
        "UPDATE registry SET value = replace(value, 'read', 'admin') WHERE key = 'eve'"
    )
    stranger.execute("UPDATE outbox SET payload = (SELECT payload FROM outbox WHERE service = 'a')")
    told = reasons(store)
    assert {"not-audited: door", "not-audited: b", "not-audited: registry token/eve"} <= {*told}


def test_what_an_earlier_version_wrote_is_compared_with_its_rows_as_far_as_they_say(
    store: SqlStore, stranger: SqlConnection
) -> None:
    forget_digests(stranger)
    before = m.committed_in(store)
    stranger.execute("UPDATE configurations SET stored = '{\"volume\":9}' WHERE service = 'door'")
    stranger.execute("UPDATE history SET by = 'mallory' WHERE service = 'a'")
    told = [one.reason for one in judged(store, before).not_audited]
    assert told == ["not-audited: door", "not-audited: history a"]


@pytest.mark.parametrize("before", ["a configuration", "a token"])
def test_what_is_written_before_anybody_vouches_makes_nothing_of_the_earlier_version_foreign(
    store: SqlStore, stranger: SqlConnection, before: str
) -> None:
    """The row that begins may not have come to the disk at the first start, and others did."""
    forget_digests(stranger)
    if before == "a token":
        administer(store, CreateToken("later", "e" * 64, "read", ("*",), None))
    else:
        Hand(store).write(Put(service="door", values={"volume": 1}))
    judgement = judged(store, m.committed_in(store))
    assert (judgement.not_audited, judgement.is_silent) == ((), True)
    store.commit([VOUCHING.begin(m.committed_in(store), m.committed_in(store), ADA)])
    judgement = judged(store)
    assert (judgement.not_audited, judgement.is_silent) == ((), False)


def test_an_earlier_versions_delivery_that_is_none_is_not_vouched_for(
    store: SqlStore, stranger: SqlConnection
) -> None:
    forget_digests(stranger)
    cached = m.committed_in(store)
    stranger.execute("UPDATE registry SET value = '{}' WHERE kind = 'delivery'")
    store.commit([VOUCHING.begin(m.committed_in(store), cached, ADA)])
    assert m.committed_in(store).registered("delivery") == {}, "it is sealed anew"
    assert reasons(store) == []


def test_an_earlier_versions_token_or_payload_is_vouched_for_as_its_cache_has_it(
    store: SqlStore, stranger: SqlConnection
) -> None:
    forget_digests(stranger)
    cached = m.committed_in(store)
    stranger.execute(
        "UPDATE registry SET value = replace(value, 'read', 'admin') WHERE key = 'eve'"
    )
    stranger.execute(
        "INSERT INTO registry SELECT kind, 'mallory', value FROM registry WHERE key = 'eve'"
    )
    stranger.execute(
        "UPDATE outbox SET payload = CAST(replace(payload, '4', '9') AS BLOB) WHERE service = 'door'"
    )
    told = {one.reason for one in judged(store, cached).not_audited}
    assert told == {
        "not-audited: door",
        "not-audited: registry token/eve",
        "not-audited: registry token/mallory",
    }


def test_a_chain_that_pretends_to_be_an_earlier_versions_must_hold_the_caches_own_row(
    store: SqlStore, stranger: SqlConnection
) -> None:
    cached = m.committed_in(store)
    forget_digests(stranger)
    stranger.execute(
        "INSERT INTO registry SELECT kind, 'mallory', value FROM registry WHERE key = 'eve'"
    )
    assert f"not-audited: audit {cached.audit_seq}" in [
        one.reason for one in judged(store, cached).not_audited
    ]
    assert accept(store, cached=cached).by_cache
    assert "mallory" not in m.committed_in(store).registered("token")
    assert reasons(store) == []


def test_a_service_of_rows_that_were_not_accepted_is_expected_no_more(
    store: SqlStore, stranger: SqlConnection
) -> None:
    cached = m.committed_in(store)
    forged = m.decide(cached, Put(service="evil", values={"x": "EVIL"})).change
    store.commit([forged])
    stranger.execute("UPDATE counters SET audit_seal = 'x'")
    for _ in range(2):
        accept(store, cached=cached)
        assert reasons(store) == []
        assert "evil" not in m.committed_in(store).services
    Hand(store).write(Put(service="evil", values={"x": "ours"}))
    assert reasons(store) == []
    stranger.execute("UPDATE history SET by = 'mallory' WHERE service = 'evil'")
    accept(store)
    assert reasons(store) == []


def test_the_row_that_accepts_is_judged_itself(store: SqlStore, stranger: SqlConnection) -> None:
    stranger.execute(BROKEN["a row edited"])
    accept(store)
    row = m.committed_in(store).audit_seq
    stranger.execute("UPDATE audit SET revision = 7777 WHERE seq = ?", (row,))
    assert reasons(store) == [f"not-audited: audit {row}"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE registry SET value = json_remove(value, '$.revoked_at') WHERE kind = 'device'",
        "UPDATE registry SET value = json_remove(value, '$.instance') WHERE kind = 'enrolment'",
        "UPDATE registry SET value = '{}' WHERE kind = 'sent'",
    ],
)
def test_what_no_digest_tells_apart_is_read_all_the_same(
    store: SqlStore, stranger: SqlConnection, statement: str
) -> None:
    stranger.execute(statement)
    assert reasons(store) == []
    assert [device.instance for device in devices(m.committed_in(store))] == ["ada"]
    administer(store, RevokeDevice("door", "ada"))
    assert reasons(store) == []


def test_nothing_may_be_there_without_a_row_of_the_audit(
    store: SqlStore, stranger: SqlConnection
) -> None:
    for table in ("audit", "history", "configurations", "outbox"):
        stranger.execute(f"DELETE FROM {table}")
    stranger.execute(
        "UPDATE counters SET audit_seq = 0, audit_head = ?, audit_seal = NULL", ("0" * 64,)
    )
    assert {"not-audited: registry token/eve", "not-audited: counters revision"} <= {
        *reasons(store)
    }
    assert without(m.committed_in(store), judged(store).foreign).registered("token") == {}


def test_rows_that_were_accepted_as_they_lay_are_held_to_that(
    store: SqlStore, stranger: SqlConnection
) -> None:
    stranger.execute(BROKEN["a row edited"])
    accept(store)
    assert reasons(store) == []
    stranger.execute(
        "UPDATE audit SET body = CAST(replace(body, 'eve', 'bob') AS BLOB) WHERE seq = 9"
    )
    assert reasons(store)[0] == "not-audited: audit 9"


def test_rows_before_one_that_accepted_a_whole_audit_are_not_forgiven_anything(
    store: SqlStore, stranger: SqlConnection
) -> None:
    accept(store)
    stranger.execute(BROKEN["a row edited"])
    assert reasons(store)[0] == "not-audited: audit 9"


def test_where_the_audit_is_not_whole_the_cache_is_accepted(
    store: SqlStore, stranger: SqlConnection
) -> None:
    cached = m.committed_in(store)
    stranger.execute("UPDATE configurations SET stored = '{\"volume\":9}' WHERE service = 'door'")
    stranger.execute(
        "INSERT INTO registry SELECT kind, 'mallory', value FROM registry WHERE key = 'eve'"
    )
    stranger.execute(BROKEN["a row edited"])
    what = accept(store, cached=cached)
    assert (what.as_it_lies, what.by_cache) == (True, True)
    after = m.committed_in(store)
    assert after.services["door"].stored == cached.services["door"].stored
    assert after.registered("token") == cached.registered("token")
    assert reasons(store) == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON history BEGIN SELECT RAISE(ABORT, 'no'); END",
        "UPDATE configurations SET stored = '{' WHERE service = 'door'",
        "UPDATE configurations SET secrets = '[1]' WHERE service = 'door'",
        "UPDATE registry SET value = '[1]' WHERE key = 'eve'",
        "UPDATE audit SET body = x'ff' WHERE seq = 3",
        "UPDATE audit SET seq = -5 WHERE seq = 3",
        "UPDATE history SET by = CAST(x'ff' AS TEXT) WHERE service = 'a'",
        "UPDATE counters SET boot_seq = 9223372036854775807",
        "INSERT INTO history_keys VALUES ('door', 'volume', 99)",
    ],
)
def test_whatever_was_written_there_can_be_accepted_and_gone_on_from(
    store: SqlStore, stranger: SqlConnection, statement: str
) -> None:
    stranger.execute(statement)
    accept(store)
    store.note_boot(7)
    assert reasons(store) == []
    Hand(store).write(Put(service="door", values={"volume": 2}))
    assert reasons(store) == []


def test_a_deleted_secrets_number_that_somebody_edited_is_put_back(
    store: SqlStore, stranger: SqlConnection
) -> None:
    stranger.execute(
        "UPDATE registry SET value = json_set(value, '$.version', 0) WHERE kind = 'secret-retired'"
    )
    accept(store)
    row = m.committed_in(store).registered("secret-retired")["gone/other"]
    assert row["version"] == 1


# ── accepting ──────────────────────────────────────────────────────────────────────────────────


NO_WITNESS = Mark(1, 0)


def here(judgement: Judgement) -> Mark:
    """As the command has it, without a witness."""
    if any(one.table == "audit" for one in judgement.not_audited):
        return judgement.committed.mark
    return Mark(judgement.replay.epoch_seq, judgement.replay.revision)


def accept(
    store: SqlStore, highest: Mark = NO_WITNESS, cached: Committed | None = None
) -> accepting.Acceptance:
    judgement = judged(store, cached=cached)
    what = accepting.weigh(judgement, cached, here(judgement))
    store.repair(what.repair)
    change = accepting.accept(
        what,
        judged(store, cached=cached),
        highest=highest,
        highest_revision=highest.revision,
        epoch_id=f"00000000-0000-4000-8000-{judgement.committed.audit_seq:012}",
        shapes=m.SHAPES,
        on=ADA,
    )
    store.commit([change])
    return what


def test_a_schema_that_nobody_put_is_let_go_and_a_migration_is_vouched_for(
    store: SqlStore, stranger: SqlConnection
) -> None:
    pause = {"type": "number", "x-unit": "ms"}
    put_schema(store, "a", {"type": "object", "properties": {"x": {}, "pause": pause}})
    m.Hand(store).write(Put(service="a", values={"pause": 300}))
    moved = {"type": "number", "x-unit": "s", "x-was": {"key": "pause", "multiply": [1, 1000]}}
    schema = {"type": "object", "properties": {"wait": moved}}
    put_schema(store, "a", schema, allow_breaking=True)
    assert m.committed_in(store).services["a"].stored == {"wait": 0.3}
    assert reasons(store) == []
    stranger.execute(
        "UPDATE registry SET value = replace(value, '1000', '10') WHERE kind = 'schema' AND key = 'a'"
    )
    assert reasons(store) == ["not-audited: registry schema/a"]
    accept(store)
    after = m.committed_in(store)
    assert set(after.registered("schema")) == {"b"}
    assert after.services["a"].stored == {"wait": 0.3}
    assert reasons(store) == []
    assert store.schema_as_of("a", after.revision) is None
    assert store.schema_as_of("a", after.revision - 1) is not None


def test_what_is_accepted_is_above_all_that_anybody_has_seen(store: SqlStore) -> None:
    before = m.committed_in(store)
    accept(store, Mark(7, 4_000))
    after = m.committed_in(store)
    assert (after.epoch.seq, after.revision) == (8, 4_001)
    assert {state.revision for state in after.services.values()} == {4_001}
    assert {n: (s.stored, s.deleted, dict(s.secrets)) for n, s in after.services.items()} == {
        n: (s.stored, s.deleted, dict(s.secrets)) for n, s in before.services.items()
    }
    assert reasons(store) == []
    assert judged(store).replay.accepted_epoch == 8
    (newest, *_) = store.history(HistoryQuery("door")).entries
    assert (newest.action, newest.changes, newest.version) == ("restore", (), 4)


FOREIGN = {
    "a payload": "UPDATE outbox SET payload = (SELECT payload FROM outbox WHERE service = 'a')"
    " WHERE service = 'door'",
    "stored values": "UPDATE configurations SET stored = '{\"volume\":9}' WHERE service = 'door'",
    "a service that is gone": "DELETE FROM configurations WHERE service = 'door'",
    "its secrets": "UPDATE configurations SET secrets = '{}' WHERE service = 'door'",
    "its deletion": "UPDATE configurations SET deleted = 1 WHERE service = 'door'",
    "history": "UPDATE history SET by = 'mallory', changes = '[]' WHERE service = 'door'",
    "history that is gone": "DELETE FROM history WHERE service = 'door' AND revision = 3",
}


@pytest.mark.parametrize("statement", FOREIGN.values(), ids=FOREIGN)
def test_what_the_audit_does_not_vouch_for_is_put_back_as_it_says(
    store: SqlStore, stranger: SqlConnection, statement: str
) -> None:
    before = m.committed_in(store).services["door"]
    entries = store.history(HistoryQuery("door")).entries
    stranger.execute(statement)
    accept(store)
    after = m.committed_in(store).services["door"]
    assert (after.stored, after.secrets, after.deleted, after.version) == (
        before.stored,
        before.secrets,
        before.deleted,
        before.version + 1,
    )
    assert after.effective == before.effective
    assert store.history(HistoryQuery("door")).entries[1:] == entries
    assert reasons(store) == []


def test_a_service_and_a_token_from_nowhere_are_gone(
    store: SqlStore, stranger: SqlConnection
) -> None:
    for table in ("configurations", "outbox", "history"):
        stranger.execute(f"CREATE TEMP TABLE t AS SELECT * FROM {table} WHERE service = 'a'")
        stranger.execute("UPDATE t SET service = 'mallory'")
        stranger.execute(f"INSERT INTO {table} SELECT * FROM t")
        stranger.execute("DROP TABLE t")
    stranger.execute(
        "INSERT INTO registry SELECT kind, 'mallory', value FROM registry WHERE key = 'eve'"
    )
    accept(store)
    after = m.committed_in(store)
    assert ("mallory" in after.services, "mallory" in after.registered("token")) == (False, False)
    assert "eve" in after.registered("token")
    assert store.history(HistoryQuery("mallory")).entries == ()
    assert reasons(store) == []


BROKEN = {
    "a row edited": "UPDATE audit SET body = CAST(replace(body, 'ada', 'eve') AS BLOB) WHERE seq = 9",
    "a row gone": "DELETE FROM audit WHERE seq = 9",
    "the last row gone": "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
    "every row gone": "DELETE FROM audit",
    "another end": "UPDATE counters SET audit_head = 'x'",
    "no seal": "UPDATE counters SET audit_seal = NULL",
}


@pytest.mark.parametrize("statement", BROKEN.values(), ids=BROKEN)
def test_without_a_whole_audit_it_is_accepted_as_it_lies_and_vouched_for_from_then_on(
    store: SqlStore, stranger: SqlConnection, statement: str
) -> None:
    stranger.execute("UPDATE configurations SET stored = '{\"volume\":9}' WHERE service = 'door'")
    stranger.execute(statement)
    assert reasons(store)
    assert accept(store).as_it_lies
    assert m.committed_in(store).services["door"].stored == {"volume": 9}
    assert reasons(store) == []
    Hand(store).write(Put(service="door", values={"volume": 1}))
    Hand(store).write(Delete(service="a"))
    administer(store, RevokeToken("eve"))
    assert reasons(store) == []
    stranger.execute("UPDATE history SET by = 'mallory' WHERE service = 'door'")
    assert reasons(store) == ["not-audited: history door"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE counters SET revision = 9007199254740991",
        "UPDATE counters SET epoch_seq = 9007199254740991",
        "UPDATE counters SET revision = 1",
        "UPDATE counters SET epoch_id = 'x'",
        "UPDATE configurations SET revision = 9007199254740991 WHERE service = 'door'",
        "UPDATE configurations SET version = 9007199254740991 WHERE service = 'door'",
    ],
)
def test_numbers_that_somebody_wrote_are_not_gone_on_from(
    store: SqlStore, stranger: SqlConnection, statement: str
) -> None:
    before = m.committed_in(store)
    stranger.execute(statement)
    assert reasons(store)
    accept(store)
    after = m.committed_in(store)
    assert (after.epoch.seq, after.revision) == (before.epoch.seq + 1, before.revision + 1)
    assert after.services["door"].version == before.services["door"].version + 1
    assert reasons(store) == []


def test_no_version_of_a_secret_is_used_again_that_what_was_given_up_may_have_used(
    store: SqlStore,
) -> None:
    """An instance that has the value of the other one would go on with that."""
    accept(store, Mark(1, 40))
    hand = Hand(store)
    for service, name in (("door", "pin"), ("gone", "other"), ("a", "never was here")):
        hand.write(SetSecret(service=service, name=name.replace(" ", "_"), value=Secret("new")))
        assert m.committed_in(store).services[service].secrets[name.replace(" ", "_")] > 40
    hand.write(DeleteSecret(service="door", name="pin"))
    hand.write(SetSecret(service="door", name="pin", value=Secret("newer")))
    assert m.committed_in(store).services["door"].secrets["pin"] > 41
    assert reasons(store) == []
    accept(store)
    assert reasons(store) == []


def test_an_epoch_that_somebody_wrote_in_advance_is_in_nobodys_way(
    store: SqlStore, stranger: SqlConnection
) -> None:
    for _ in range(2):
        next_one = m.committed_in(store).epoch.seq + 1
        stranger.execute("INSERT INTO epochs VALUES (?, 'x', 3, 'then', 'why')", (next_one,))
        Hand(store).write(NewEpoch(services={"a": {}}))
        stranger.execute("INSERT INTO epochs VALUES (?, 'y', 3, 'then', 'why')", (next_one + 1,))
        accept(store)
    assert reasons(store) == []


@pytest.mark.parametrize("value", ["[]", "{}", "7", '"read"'])
def test_a_token_that_is_none_is_named_and_gone(
    store: SqlStore, stranger: SqlConnection, value: str
) -> None:
    stranger.execute("UPDATE registry SET value = ? WHERE key = 'eve'", (value,))
    assert reasons(store) == ["not-audited: registry token/eve"]
    accept(store)
    assert "eve" not in m.committed_in(store).registered("token")
    assert reasons(store) == []


def test_history_that_was_accepted_as_it_lay_is_accepted_so_again(
    store: SqlStore, stranger: SqlConnection
) -> None:
    """What the audit lost then, it can't put back later."""
    edited = "UPDATE history SET by = ? WHERE service = 'door' AND revision = 2"
    stranger.execute("UPDATE audit SET body = CAST(replace(body, 'ada', 'eve') AS BLOB)")
    assert accept(store).as_it_lies
    Hand(store).write(Put(service="door", values={"volume": 1}))
    for by in ("mallory", "trudy"):
        stranger.execute(edited, (by,))
        assert reasons(store) == ["not-audited: history door"]
        what = accept(store)
        assert (what.as_it_lies, set(what.repair.history)) == (False, {"door"})
        assert reasons(store) == []
    store.verify()


def test_history_that_was_accepted_with_holes_is_no_reason_not_to_open_it_again(
    store: SqlStore, stranger: SqlConnection
) -> None:
    stranger.execute("DELETE FROM audit WHERE seq = 9")
    stranger.execute("DELETE FROM history WHERE service = 'door' AND revision = 2")
    assert accept(store).as_it_lies
    assert reasons(store) == []
    store.verify()


def test_a_row_that_is_none_of_ours_says_nothing() -> None:
    replay = Replay()
    for body in (b"", b"[]", b"{}", b'{"action": 1, "revision": "x", "epoch_seq": []}', b"\xff"):
        replay.take(AuditEntry(1, 0, body, "0"))
    assert replay.services == {}


def test_the_audit_names_what_was_decided_and_leaves_bookkeeping_out(store: SqlStore) -> None:
    judgement = judged(store)
    assert set(judgement.replay.registry) >= {"token", "device", "enrolment"}
    assert not {"delivery", "sent"} & set(judgement.replay.registry)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE schemas SET schema = replace(schema, 'integer', 'number') WHERE service = 'b'",
        "UPDATE schemas SET digest = 'x', source = 'catalogue' WHERE service = 'b'",
        "UPDATE schemas SET version = 7 WHERE service = 'b'",
        "INSERT INTO schemas SELECT service, 2, digest, schema, at, source, by, '', '', '', 1 FROM schemas",
    ],
)
def test_a_schema_that_is_edited_is_found_and_goes_when_the_rest_is_accepted(
    store: SqlStore, stranger: SqlConnection, edit: str
) -> None:
    assert reasons(store) == []
    stranger.execute(edit)
    [found] = reasons(store)
    assert found.startswith("not-audited: schemas b/")
    judgement = judged(store)
    store.repair(accepting.weigh(judgement, None, Mark(99, 99)).repair)
    assert not [one for one in reasons(store) if "schemas" in one]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE schema_activations SET version = NULL",
        "UPDATE schema_activations SET revision = 3",
        "DELETE FROM schema_activations",
        "INSERT INTO schema_activations VALUES ('b', 2, 1)",
        "UPDATE taken_back SET upto = 9",
        "UPDATE taken_back SET keys = 'nonsense'",
        "DELETE FROM taken_back",
        "INSERT INTO taken_back VALUES ('door', 2, 1, 2, NULL)",
    ],
)
def test_which_schema_counted_and_what_was_taken_back_is_put_back_as_the_audit_says(
    store: SqlStore, stranger: SqlConnection, edit: str
) -> None:
    before = m.committed_in(store)
    target = taking_back.as_of(store, before, m.SHAPES, "door", 1)
    assert target is not None
    on = replace(ADA, stored=store)
    store.commit([Rollback(service="door", target=target).decide(before, on).change])
    tables = ("schema_activations", "taken_back")
    kept = [stranger.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
    assert all(kept)
    assert reasons(store) == []
    stranger.execute(edit)
    judgement = judged(store)
    assert judgement.not_audited
    store.repair(accepting.weigh(judgement, None, Mark(99, 99)).repair)
    assert kept == [stranger.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
