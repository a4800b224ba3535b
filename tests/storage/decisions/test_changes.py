"""The decisions, pure: what a write comes to, what is refused, and how the audit chain is made."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config_manager.api.rest.conditions import absent, at_one_of
from config_manager.config import wire
from config_manager.config.audit import GENESIS, chain
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.errors import (
    InvalidValues,
    NotFound,
    Refusal,
    RevisionConflict,
    TooLarge,
    UseSecrets,
)
from config_manager.config.secret import MASK, Secret
from config_manager.config.wire import Envelope, Signature
from config_manager.storage import state_codec
from config_manager.storage.decisions.changes import merge_patch
from config_manager.storage.decisions.intents import (
    Delete,
    DeleteSecret,
    Intent,
    NewEpoch,
    Patch,
    Put,
    SetSecret,
)
from config_manager.storage.decisions.terms import Precondition
from config_manager.storage.state import AuditEntry, Committed, KeyChange
from tests.kit import stores as m
from tests.kit.stores import after, decide

# ── RFC 7396 ───────────────────────────────────────────────────────────────────────────────────

RFC_7396_APPENDIX_A: list[tuple[str, str, str]] = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396_APPENDIX_A)
def test_the_appendix_of_rfc_7396(target: str, patch: str, result: str) -> None:
    """Also the rows that are no objects: inside one key, where a null takes the key away."""
    one, other, expected = json.loads(target), json.loads(patch), json.loads(result)
    if isinstance(one, dict) and isinstance(other, dict):
        assert merge_patch(one, other) == expected
    inside = {} if expected is None else {"k": expected}
    assert merge_patch({"k": one}, {"k": other}) == inside


def rfc_merge(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7396, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name in patch:
        if patch[name] is None:
            if name in target:
                del target[name]
        else:
            target[name] = rfc_merge(target.get(name), patch[name])
    return target


few_keys = st.sampled_from(["a", "b", "c", "d"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(few_keys, inner, max_size=3),
    max_leaves=10,
)
json_objects = st.dictionaries(few_keys, json_values, max_size=4)


@m.STEADY
@given(json_objects, json_objects)
def test_merge_patch_does_what_the_rfc_says_and_leaves_its_arguments_alone(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    kept = copy.deepcopy((target, patch))
    merged = merge_patch(target, patch)
    assert repr_sorted(merged) == repr_sorted(rfc_merge(target, patch))
    assert (target, patch) == kept


@m.STEADY
@given(json_objects, json_objects)
def test_a_patch_applied_twice_is_the_patch_applied_once(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    once = merge_patch(target, patch)
    assert repr_sorted(merge_patch(once, patch)) == repr_sorted(once)


def repr_sorted(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # 1, 1.0 and true are told apart


# ── what a caller gets back ────────────────────────────────────────────────────────────────────


def test_stored_is_what_was_sent_and_effective_is_over_the_defaults() -> None:
    decision = decide(m.empty(), Put(service="door", values={"volume": 5}))
    (state,) = decision.change.services
    assert state.stored == {"volume": 5}
    assert state.effective == {"volume": 5, "greeting": None}
    assert state.defaulted == ("greeting",)  # volume was chosen, though it is the default
    assert decision.first
    assert decision.changes == (KeyChange("volume", None, 5),)


def test_the_payload_is_the_document_that_clients_check() -> None:
    state = after(Put(service="a", values={"x": 1}))
    before = state.services["a"]
    decision = decide(
        state, Put(service="a", values={"x": 2}), correlation_id="abc", now=m.START + 7
    )
    update = ConfigUpdate.parse(decision.change.services[0].payload)
    assert update == ConfigUpdate(
        service="a",
        topic="system/config/a",
        config_epoch=m.FIRST_EPOCH.id,
        epoch_seq=1,
        revision=2,
        previous=hashlib.sha256(before.payload).hexdigest(),
        issued_at="2027-01-15T08:00:07.000Z",
        config={"x": 2},
        defaulted=(),
        secrets={},
        deleted=False,
        correlation_id="abc",
        content="2",
    )


def test_a_deletion_is_a_tombstone_that_says_what_went() -> None:
    state = after(
        Put(service="a", values={"x": 1}), SetSecret(service="a", name="s", value=Secret("v"))
    )
    decision = decide(state, Delete(service="a"))
    update = ConfigUpdate.parse(decision.change.services[0].payload)
    assert (update.deleted, update.config, dict(update.secrets)) == (True, {}, {})
    assert decision.changes == (KeyChange("x", 1, None),)


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), (1, True), (0, False), ([1], [1.0])])
def test_values_that_python_calls_equal_are_changes_all_the_same(old: object, new: object) -> None:
    decision = decide(
        after(Put(service="a", values={"x": old})), Put(service="a", values={"x": new})
    )
    assert decision.changes == (KeyChange("x", old, new),)


def test_a_dry_decision_leaves_the_state_as_it_was() -> None:
    state = after(Put(service="a", values={"x": {"y": 1}}))
    before = list(state_codec.encode(state))
    decide(state, Patch(service="a", patch={"x": {"y": 2}}))
    decide(state, Delete(service="a"))
    assert list(state_codec.encode(state)) == before


# ── If-Match ───────────────────────────────────────────────────────────────────────────────────

ONCE = after(Put(service="a", values={}), Put(service="b", values={}), Put(service="a", values={}))
DELETED = after(Put(service="a", values={}), Delete(service="a"))


@pytest.mark.parametrize(
    ("state", "if_match", "accepted"),
    [
        (ONCE, '"3"', True),
        (ONCE, "3", True),
        (ONCE, '"1", "3"', True),
        (ONCE, ' "3" ', True),
        (ONCE, "*", True),
        (ONCE, '"1"', False),
        (ONCE, '"2"', False),  # b's
        (ONCE, '"4"', False),
        (ONCE, '"33"', False),
        (ONCE, '"03"', False),
        (ONCE, 'W/"3"', False),  # If-Match compares strongly (RFC 9110, section 13.1.1)
        (ONCE, "", False),
        (ONCE, '"0"', False),
        (m.empty(), '"0"', True),
        (m.empty(), "*", False),
        (m.empty(), '"1"', False),
        (DELETED, '"0"', True),
        (DELETED, '"2"', False),
        (DELETED, "*", False),
    ],
)
@pytest.mark.parametrize("verb", ["put", "patch", "delete"])
def test_if_match(state: Committed, if_match: str, accepted: bool, verb: str) -> None:
    intent: Intent
    match verb:
        case "put":
            intent = Put(service="a", values={"x": 1}, preconditions=(at_one_of(if_match),))
        case "patch":
            intent = Patch(service="a", patch={"x": 1}, preconditions=(at_one_of(if_match),))
        case _:
            intent = Delete(service="a", preconditions=(at_one_of(if_match),))
    if not accepted:
        with pytest.raises(RevisionConflict) as caught:
            decide(state, intent)
        live = state.live("a")
        assert caught.value.current_revision == (live.revision if live else 0)
    elif state.live("a") is None and verb != "put":
        with pytest.raises(NotFound):
            decide(state, intent)
    else:
        assert decide(state, intent).change.after.revision == state.revision + 1


@pytest.mark.parametrize(
    ("state", "tag", "accepted"),
    [
        (m.empty(), "*", True),
        (DELETED, "*", True),
        (ONCE, "*", False),
        (ONCE, '"4"', False),
        (m.empty(), "rubbish", False),
    ],
)
def test_what_is_to_be_new_replaces_nothing(state: Committed, tag: str, accepted: bool) -> None:
    intent = Put(service="a", values={"x": 1}, preconditions=(absent(tag),))
    if accepted:
        assert decide(state, intent).change.after.services["a"].stored == {"x": 1}
    else:
        with pytest.raises(RevisionConflict, match="If-None-Match"):
            decide(state, intent)


def test_of_a_hundred_writers_who_read_the_same_revision_one_wins() -> None:
    state = after(Put(service="a", values={"winner": None}))
    lost = 0
    for number in range(100):
        intent = Put(service="a", values={"winner": number}, preconditions=(at_one_of('"1"'),))
        try:
            state = decide(state, intent).change.after
        except RevisionConflict as conflict:
            assert conflict.current_revision == 2
            lost += 1
    assert lost == 99
    assert state.services["a"].stored == {"winner": 0}


# ── refusals ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("intent", "error", "pointers"),
    [
        (Put(service="door", values={"volume": 11}), InvalidValues, ["/volume"]),
        (Put(service="door", values={"volume": "5"}), InvalidValues, ["/volume"]),
        (Put(service="door", values={"volumes": 5}), InvalidValues, ["/volumes"]),
        (
            Put(service="door", values={"volume": 11, "Bad": 1}),
            InvalidValues,
            ["/volume", "/Bad"],
        ),
        (Put(service="a", values={"Bad": 1, "ok": 1, "a/b": 1}), InvalidValues, ["/Bad", "/a~1b"]),
        (Put(service="a", values={"": 1}), InvalidValues, ["/"]),
        (Put(service="a", values={"k" * 64: 1}), InvalidValues, ["/" + "k" * 64]),
        (Patch(service="door", patch={"volume": 11}), InvalidValues, ["/volume"]),
        (Patch(service="door", patch={"_": 1}), InvalidValues, ["/_"]),
        (NewEpoch(services={}), InvalidValues, ["/services"]),
        (
            NewEpoch(services={"a": {"B": 1}, "door": {"volume": -1}, "b": {}}),
            InvalidValues,
            ["/services/a/B", "/services/door/volume"],
        ),
        (NewEpoch(services={"door": {"pin": "1"}}), UseSecrets, ["/services/door/pin"]),
        (
            NewEpoch(services={"door": {"pin": "1"}, "a": {"B": 1}}),
            InvalidValues,
            ["/services/door/pin", "/services/a/B"],
        ),
        (SetSecret(service="a", name="Bad", value=Secret("v")), InvalidValues, ["/name"]),
        (SetSecret(service="door", name="volume", value=Secret("v")), InvalidValues, ["/name"]),
        (SetSecret(service="door", name="other", value=Secret("v")), InvalidValues, ["/name"]),
        (SetSecret(service="door", name="pin", value=Secret("v" * 9)), InvalidValues, ["/value"]),
    ],
    ids=repr,
)
def test_what_is_not_allowed_is_named_with_its_place(
    intent: Intent, error: type[InvalidValues], pointers: list[str]
) -> None:
    with pytest.raises(InvalidValues) as caught:
        decide(m.empty(), intent)
    assert type(caught.value) is error
    assert [e.pointer for e in caught.value.errors] == pointers


@pytest.mark.parametrize("service", ["a", "door"])
@pytest.mark.parametrize("state", ["never written", "deleted"])
def test_only_what_is_there_can_be_deleted(service: str, state: str) -> None:
    before = m.empty()
    if state == "deleted":
        before = after(Put(service=service, values={}), Delete(service=service))
    with pytest.raises(NotFound):
        decide(before, Delete(service=service))


def test_a_patch_needs_a_service_or_its_model() -> None:
    with pytest.raises(NotFound):
        decide(m.empty(), Patch(service="a", patch={}))
    decision = decide(m.empty(), Patch(service="door", patch={"volume": 1}))
    assert decision.first
    assert decision.change.services[0].stored == {"volume": 1}


def test_what_clients_would_not_take_is_too_large_to_the_byte() -> None:
    """The largest accepted one makes an envelope within the limit; three characters more do not
    fit into it (base64 counts in threes)."""

    def write(size: int) -> Envelope:
        decision = decide(m.empty(), Put(service="a", values={"x": "v" * size}))
        payload = decision.change.services[0].payload
        return Envelope(wire.CONFIG_UPDATE, payload, (Signature("0" * 64, bytes(64)),), "id")

    fits, over = 0, wire.MAX_ENVELOPE_BYTES
    while over - fits > 1:
        middle = (fits + over) // 2
        try:
            write(middle)
            fits = middle
        except TooLarge:
            over = middle
    largest = write(fits)
    assert wire.MAX_ENVELOPE_BYTES - 4 < len(largest.to_bytes()) <= wire.MAX_ENVELOPE_BYTES
    with pytest.raises(TooLarge):
        write(fits + 1)


def test_one_service_too_large_refuses_the_whole_epoch() -> None:
    with pytest.raises(TooLarge):
        decide(m.empty(), NewEpoch(services={"a": {}, "b": {"x": "v" * 300_000}}))


# ── secrets ────────────────────────────────────────────────────────────────────────────────────

WITH_PIN = after(
    Put(service="door", values={"volume": 1}),
    SetSecret(service="door", name="pin", value=Secret("1234")),
)


@pytest.mark.parametrize(
    "intent",
    [
        Put(service="door", values={"volume": 2}),
        Put(service="door", values={"volume": 2, "pin": MASK}),
        Patch(service="door", patch={"volume": 2}),
        Patch(service="door", patch={"volume": 2, "pin": MASK}),
        NewEpoch(services={"door": {"volume": 2, "pin": MASK}}),
    ],
    ids=repr,
)
def test_a_secret_that_is_left_out_or_masked_stays(intent: Intent) -> None:
    (state,) = decide(WITH_PIN, intent).change.services
    assert (state.stored, state.secrets) == ({"volume": 2}, {"pin": 1})
    assert "pin" not in state.effective
    assert dict(ConfigUpdate.parse(state.payload).secrets) == {"pin": 1}


@pytest.mark.parametrize("value", ["5678", "*******", "*********", "", None, 0, [MASK], {"a": 1}])
@pytest.mark.parametrize("state", [m.empty(), WITH_PIN], ids=["never set", "set"])
def test_any_other_value_of_a_secret_belongs_elsewhere(value: object, state: Committed) -> None:
    for intent in (
        Put(service="door", values={"pin": value}),
        Patch(service="door", patch={"pin": value}),
        NewEpoch(services={"door": {"pin": value}}),
    ):
        with pytest.raises(UseSecrets) as caught:
            decide(state, intent)
        assert caught.value.description.name == "use-secrets"
        assert "5678" not in str(caught.value) + repr(caught.value.errors)


def test_a_secret_of_a_service_without_a_model_is_one_from_when_it_is_stored() -> None:
    state = after(Put(service="a", values={"token": "plain"}))
    with pytest.raises(InvalidValues, match="plain key"):
        decide(state, SetSecret(service="a", name="token", value=Secret("v")))
    state = after(SetSecret(service="a", name="token", value=Secret("v")))
    with pytest.raises(UseSecrets):
        decide(state, Put(service="a", values={"token": "plain"}))


def test_a_secret_outlives_a_deletion_and_stays_a_secret() -> None:
    state = decide(WITH_PIN, Delete(service="door")).change.after
    assert state.services["door"].secrets == {"pin": 1}
    with pytest.raises(UseSecrets):
        decide(state, Put(service="door", values={"pin": "1"}))
    (again,) = decide(state, Put(service="door", values={})).change.services
    assert dict(ConfigUpdate.parse(again.payload).secrets) == {"pin": 1}
    decision = decide(state, SetSecret(service="door", name="pin", value=Secret("2")))
    assert decision.change.services[0].secrets == {"pin": 2}


def test_the_mask_is_an_ordinary_string_where_no_secret_is() -> None:
    (state,) = decide(m.empty(), Put(service="a", values={"x": MASK})).change.services
    assert state.stored == {"x": MASK}


def test_a_secret_alone_makes_its_service_live() -> None:
    decision = decide(m.empty(), SetSecret(service="door", name="pin", value=Secret("1")))
    assert decision.first
    (state,) = decision.change.services
    assert (state.stored, state.effective) == ({}, {"volume": 5, "greeting": None})


def test_a_refused_secret_value_is_not_repeated() -> None:
    with pytest.raises(InvalidValues) as caught:
        decide(m.empty(), SetSecret(service="door", name="pin", value=Secret("distinctive")))
    assert "distinctive" not in str(caught.value) + repr(caught.value.errors)


def test_deleting_a_secret_takes_its_name_out_of_the_message_and_out_of_the_database() -> None:
    decision = decide(WITH_PIN, DeleteSecret(service="door", name="pin"))
    change, (state,) = decision.change, decision.change.services
    assert change.forgotten == ("door", "pin")
    assert change.secret is None
    assert dict(ConfigUpdate.parse(state.payload).secrets) == {}
    assert decision.changes == (KeyChange("pin", MASK, None),)
    assert change.after.registered("secret-retired")["door/pin"]["version"] == 1
    (again,) = decide(
        change.after, SetSecret(service="door", name="pin", value=Secret("2"))
    ).change.services
    assert again.secrets == {"pin": 2}


def test_only_a_secret_that_is_there_can_be_deleted() -> None:
    for service, name in (("door", "volume"), ("door", "other"), ("nobody", "pin")):
        with pytest.raises(NotFound):
            decide(WITH_PIN, DeleteSecret(service=service, name=name))


# ── the audit chain ────────────────────────────────────────────────────────────────────────────


def test_a_link_is_sha256_over_the_hash_before_and_the_body() -> None:
    """A golden vector: whoever recomputes a chain elsewhere gets this."""
    assert chain(GENESIS, b'{"revision":1}') == (
        hashlib.sha256(b"0" * 64 + b'{"revision":1}').hexdigest()
    )
    assert GENESIS == "0" * 64


def test_an_audit_row_says_everything_about_its_change() -> None:
    before = after(Put(service="a", values={"x": 1}))
    decision = decide(
        before,
        NewEpoch(services={"a": {"x": 2}, "b": {}}),
        by="bob",
        reason="why",
        correlation_id="abc",
        now=m.START + 7,
    )
    audit = decision.change.audit
    assert audit is not None
    assert json.loads(audit.body) == {
        "seq": 2,
        "previous": before.audit_head,
        "revision": 2,
        "epoch_seq": 2,
        "at": "2027-01-15T08:00:07.000Z",
        "by": "bob",
        "action": "epoch",
        "reason": "why",
        "correlation_id": "abc",
        "services": {"a": [["x", 1, 2]], "b": []},
        "config_epoch": decision.change.after.epoch.id,
        "digests": {name: state.digest for name, state in decision.change.after.services.items()},
    }


def rows_of(count: int) -> tuple[list[AuditEntry], str]:
    state, rows = m.empty(), list[AuditEntry]()
    for number in range(count):
        change = decide(state, Put(service="a", values={"x": number})).change
        state = change.after
        assert change.audit is not None
        rows.append(change.audit)
    return rows, state.audit_head


CHAIN, HEAD = rows_of(6)
indices = st.integers(0, len(CHAIN) - 1)


def test_the_chain_is_whole() -> None:
    assert m.broken_link(CHAIN, HEAD) is None


@m.STEADY
@given(indices, st.data())
def test_an_altered_row_is_noticed(index: int, data: st.DataObject) -> None:
    body = bytearray(CHAIN[index].body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    rows = [*CHAIN]
    rows[index] = replace(rows[index], body=bytes(body))
    assert m.broken_link(rows, HEAD) == index


@m.STEADY
@given(indices)
def test_an_altered_row_with_its_hash_made_to_fit_is_noticed_at_the_next(index: int) -> None:
    rows = [*CHAIN]
    before = rows[index - 1].hash if index else GENESIS
    body = rows[index].body.replace(b'"ada"', b'"eve"')
    rows[index] = replace(rows[index], body=body, hash=chain(before, body))
    assert m.broken_link(rows, HEAD) == index + 1


@m.STEADY
@given(indices)
def test_a_removed_row_is_noticed_the_last_one_too(index: int) -> None:
    assert m.broken_link([*CHAIN[:index], *CHAIN[index + 1 :]], HEAD) == index


@m.STEADY
@given(indices, indices)
def test_an_inserted_or_repeated_row_is_noticed(index: int, where: int) -> None:
    assert m.broken_link([*CHAIN[:where], CHAIN[index], *CHAIN[where:]], HEAD) is not None


@m.STEADY
@given(st.permutations(CHAIN))
def test_reordered_rows_are_noticed(rows: list[AuditEntry]) -> None:
    assume(rows != CHAIN)
    assert m.broken_link(rows, HEAD) is not None


# ── any sequence of writes ─────────────────────────────────────────────────────────────────────


SECRET_TEXT = "Geheim77"

small = st.none() | st.integers(0, 3) | st.just(MASK) | st.dictionaries(few_keys, st.integers(0, 1))
door_values = st.fixed_dictionaries(
    {},
    optional={
        "volume": st.integers(0, 11),  # 11 is one too many
        "greeting": st.none() | st.just("hello"),
        "pin": st.sampled_from([MASK, MASK, "1234"]),
    },
)
free_values = st.dictionaries(st.sampled_from(["x", "y", "z"]), small, max_size=3)
named_values = st.one_of(
    st.tuples(st.just("door"), door_values), st.tuples(st.sampled_from(["a", "b"]), free_values)
)
preconditions = st.sampled_from(
    [(), (), (), *((at_one_of(if_match),) for if_match in ("*", "1", "2"))]
)


def of_service(
    kind: Callable[[str, dict[str, Any], tuple[Precondition, ...]], Intent],
) -> st.SearchStrategy[Intent]:
    return st.builds(lambda nv, match: kind(nv[0], nv[1], match), named_values, preconditions)


intents: st.SearchStrategy[Intent] = st.one_of(
    of_service(lambda name, values, match: Put(service=name, values=values, preconditions=match)),
    of_service(lambda name, values, match: Patch(service=name, patch=values, preconditions=match)),
    of_service(lambda name, _, match: Delete(service=name, preconditions=match)),
    st.builds(NewEpoch, services=st.lists(named_values, max_size=3).map(dict)),
    st.builds(
        SetSecret,
        service=st.sampled_from(["a", "b", "door"]),
        name=st.sampled_from(["pin", "x"]),
        value=st.just(Secret(SECRET_TEXT)),
    ),
    st.builds(
        DeleteSecret,
        service=st.sampled_from(["a", "b", "door"]),
        name=st.sampled_from(["pin", "x"]),
    ),
)


@dataclass
class Followed:
    """What the sequence should have come to, kept the plain way."""

    stored: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    secrets: set[tuple[str, str]] = field(default_factory=lambda: {("door", "pin")})
    used: dict[tuple[str, str], int] = field(default_factory=dict)
    kept: dict[tuple[str, str], int] = field(default_factory=dict)
    rows: list[AuditEntry] = field(default_factory=list)

    def follow(self, intent: Intent) -> set[str]:
        """Note an accepted write; the services that it touched."""
        match intent:
            case Put(service=service, values=new):
                written: dict[str, Any] = {service: new}
            case Patch(service=service, patch=patch):
                written = {service: rfc_merge(self.stored.get(service) or {}, patch)}
            case Delete(service=service):
                written = {service: None}
            case NewEpoch(services=several):
                written = dict(several)
            case SetSecret(service=service, name=name):
                self.secrets.add((service, name))
                self.used[service, name] = self.used.get((service, name), 0) + 1
                self.kept[service, name] = self.used[service, name]
                written = {service: self.stored.get(service) or {}}
            case DeleteSecret(service=service, name=name):
                del self.kept[service, name]
                self.secrets -= {(service, name)} - {("door", "pin")}
                written = {service: self.stored[service]}
        for service, new_values in written.items():
            self.versions[service] = self.versions.get(service, 0) + 1
            self.stored[service] = new_values and {
                key: value
                for key, value in new_values.items()
                if (service, key) not in self.secrets
            }
        return set(written)


@m.STEADY
@given(st.lists(intents, min_size=6, max_size=20))
def test_any_sequence_of_writes_keeps_the_invariants(sequence: list[Intent]) -> None:
    state, followed = m.empty(), Followed()
    for intent in sequence:
        before = list(state_codec.encode(state))
        try:
            decision = decide(state, intent)
        except Refusal:
            assert list(state_codec.encode(state)) == before
            continue
        change = decision.change
        touched = followed.follow(intent)
        assert change.audit is not None
        followed.rows.append(change.audit)
        check_step(state, change.after, touched, isinstance(intent, NewEpoch))
        assert change.before is state
        assert {row.service for row in change.history} == touched
        assert {s.service for s in change.services} == touched
        for row in change.history:
            check_changes(state, change.after, row.service, row.entry.changes)
        state = change.after
        for service, stored in followed.stored.items():
            ours = state.services[service]
            assert (ours.stored, ours.deleted) == (stored or {}, stored is None)
            assert ours.version == followed.versions[service]
            assert ours.secrets == {
                name: version for (of, name), version in followed.kept.items() if of == service
            }
    assert m.broken_link(followed.rows, state.audit_head) is None
    assert state.revision == len(followed.rows)
    everything = b"".join([*state_codec.encode(state), *(row.body for row in followed.rows)])
    assert SECRET_TEXT.encode() not in everything


def check_step(old: Committed, new: Committed, touched: set[str], is_epoch: bool) -> None:
    assert new.revision == old.revision + 1
    assert (new.epoch.seq, new.epoch == old.epoch) == (old.epoch.seq + is_epoch, not is_epoch)
    assert new.services.keys() == old.services.keys() | touched
    for name, state in new.services.items():
        known = old.services.get(name)
        if name not in touched:
            assert state is known
            continue
        update = ConfigUpdate.parse(state.payload)
        assert state.digest == wire.digest(state.payload)
        assert update.previous == (known.digest if known else None)
        assert update.mark == state.mark == new.mark
        assert (update.config, update.defaulted) == (state.effective, state.defaulted)
        assert dict(update.secrets) == ({} if state.deleted else state.secrets)
        assert not state.stored.keys() & m.SHAPES.secret_keys(new, name)
        for secret, version in (known.secrets if known else {}).items():
            assert state.secrets.get(secret, version) >= version


def check_changes(
    old: Committed, new: Committed, service: str, noted: tuple[KeyChange, ...]
) -> None:
    """History names each stored key that differs, and no other."""
    live = old.live(service)
    before, now = (live.stored if live else {}), new.services[service].stored
    differing = {
        key
        for key in before.keys() | now.keys()
        if (key in before, repr_sorted(before.get(key))) != (key in now, repr_sorted(now.get(key)))
    }
    secrets = new.services[service].secrets
    once = old.services[service].secrets.keys() if service in old.services else set[str]()
    assert {c.key for c in noted if c.key not in secrets.keys() | once} == differing
    for c in noted:
        if c.key in differing:
            assert (c.old, c.new) == (before.get(c.key), now.get(c.key))
            assert ("old" in c.nulls) == (c.key in before and c.old is None)
            assert ("new" in c.nulls) == (c.key in now and c.new is None)
        else:
            assert c.old == (MASK if c.key in once else None)
            assert c.new == (MASK if c.key in secrets else None)


def test_a_secret_is_at_most_16_kib() -> None:
    """Eight of that size fit into the one message that delivers them."""
    biggest = Secret("ü" * (8 * 1024))
    assert m.after(SetSecret(service="shed", name="pin", value=biggest)).revision == 1
    with pytest.raises(TooLarge, match="16385 bytes"):
        m.after(SetSecret(service="shed", name="pin", value=Secret("x" * 16_385)))
