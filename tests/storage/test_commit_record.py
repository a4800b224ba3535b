"""A commit as a record: what it is read back to is what it was, for every change that can be made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.config.enrolment import Enrolment
from config_manager.config.errors import Refusal
from config_manager.config.secret import Secret
from config_manager.storage.commit_record import (
    NoDifference,
    OtherState,
    RecordRefused,
    UnknownRecord,
    changes_nothing,
    decode,
    difference,
    encode,
)
from config_manager.storage.decisions import administration
from config_manager.storage.decisions.devices import (
    AllowEnrolment,
    Delivery,
    Enrol,
    KeepDelivery,
    RevokeDevice,
    devices,
)
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.forgotten import Forgotten, rows_after
from config_manager.storage.decisions.intents import (
    Delete,
    DeleteSecret,
    NewEpoch,
    Patch,
    Put,
    SetSecret,
)
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.planning import Wish, planned
from config_manager.storage.decisions.plans import MakePlan
from config_manager.storage.decisions.rollback import Rollback
from config_manager.storage.decisions.schema_changes import DeleteSchema, PutSchema
from config_manager.storage.decisions.schema_outlook import outlook
from config_manager.storage.decisions.secret_rotation import (
    BeginRotation,
    FinishRotation,
    under_way,
)
from config_manager.storage.decisions.taking_back import Target
from config_manager.storage.decisions.tokens import (
    AcceptAdminToken,
    CreateToken,
    NoteTokenUses,
    RevokeToken,
)
from config_manager.storage.state import Commit, Committed, RegistryRow
from tests.kit import stores as m
from tests.storage.test_state_codec import json_objects, json_values, texts

NOW = 1_800_000_000.0
SIGN, SEAL = SigningKey(b"1" * 32), PrivateKey(b"2" * 32)
ENROLMENT_TOKEN = "ab" * 32

Step = Callable[[Committed], Commit]
"""Something that somebody does; raises Refused where it can't be done now."""


def written(state: Committed, intent: Any, reason: str | None) -> Commit:
    return m.decide(state, intent, reason=reason).change


def administered(state: Committed, what: Decidable[Any], reason: str | None) -> Commit:
    return what.decide(state, m.equipped(now=NOW, reason=reason)).change


def enrolling() -> Enrol:
    what = Enrolment(
        ENROLMENT_TOKEN, "door", "kitchen", SIGN.verify_key.encode(), bytes(SEAL.public_key)
    )
    return Enrol(what, what.prove(bytes(SIGN)))


def delivered(state: Committed, payload: str) -> Commit:
    kept = KeepDelivery(devices(state)[0], Delivery(payload.encode(), {"pin": 1}, "f" * 64))
    return administered(state, kept, None)


def forgotten(state: Committed, until: float) -> Commit:
    rows = rows_after(state, "door", "attic", Forgotten("f" * 64, 1, 2, until))
    on = m.equipped(now=NOW)
    return administration.administered(state, on, "instance.forget", {}, rows, None).change


def schema_put(state: Committed, maximum: int) -> Commit:
    volume = {"type": "integer", "maximum": maximum, "x-unit": "dB"}
    volume["x-was"] = {"multiply": [1, 3]}
    shape = CompiledSchema({"type": "object", "properties": {"volume": volume}})
    then = outlook(state, m.SHAPES, "door", shape)
    what = PutSchema(service="door", shape=shape, outlook=then, allow_breaking=True)
    return administered(state, what, "narrower")


def rolled_back(state: Committed, values: dict[str, Any]) -> Commit:
    shape = m.SHAPES.of(state, "door")
    digest = None if shape is None else shape.digest
    target = Target(values, digest, (), after=0, upto=state.revision)
    return written(state, Rollback(service="door", target=target, keys=("volume",)), "as it was")


def plan_kept(state: Committed) -> Commit:
    wish = Wish(services={"door": {"volume": 1}})
    comes_to = planned(state, m.equipped(), m.SHAPES, wish, {})
    return MakePlan(planned=comes_to).decide(state, m.equipped()).change


def plan_gone(state: Committed) -> Commit:
    return replace(plan_kept(state), plans=(), plans_gone=("p-0",))


def rotation_finished(state: Committed) -> Commit:
    rotation = under_way(state)
    if rotation is None:
        raise IndexError
    return administered(state, FinishRotation(rotation, 1), None)


keys = st.sampled_from(["volume", "greeting", "x", "y_2"])
services = st.sampled_from(["door", "bell", "lift"])
of_the_model = st.fixed_dictionaries(
    {}, optional={"volume": st.integers(0, 10), "greeting": st.none() | texts}
)
configurations = of_the_model | st.dictionaries(keys, json_values, max_size=3)
reasons = st.none() | texts
intents = st.one_of(
    st.builds(Put, service=services, values=configurations),
    st.builds(Patch, service=services, patch=configurations),
    st.builds(Delete, service=services),
    st.builds(
        NewEpoch, services=st.dictionaries(services, configurations, min_size=1, max_size=3)
    ),
    st.builds(
        SetSecret, service=services, name=st.sampled_from(["pin", "key"]),
        value=st.builds(Secret, st.text("0123456789", min_size=1, max_size=8)),
    ),
    st.builds(DeleteSecret, service=services, name=st.sampled_from(["pin", "key"])),
)  # fmt: skip
names = st.sampled_from(["phone", "tablet"])
administrations: st.SearchStrategy[Any] = st.one_of(
    st.just(AcceptAdminToken("bootstrap", "0" * 64)),
    st.builds(
        CreateToken, names, st.just("1" * 64), st.sampled_from(["read", "write", "admin"]),
        st.lists(texts, max_size=2).map(tuple), st.none() | st.just("2030-01-01T00:00:00.000Z"),
    ),
    st.builds(RevokeToken, names),
    st.just(NoteTokenUses({"1" * 64: "2029-01-01T00:00:00.000Z"})),
    st.just(AllowEnrolment(ENROLMENT_TOKEN, "door", None, "2030-01-01T00:00:00.000Z")),
    st.just(enrolling()),
    st.just(RevokeDevice("door", "kitchen")),
    st.just(BeginRotation("old", "new", 3)),
)  # fmt: skip
idempotency = st.none() | st.builds(m.record, texts, st.floats(0, 1e10), st.binary(max_size=20))
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda i, r: partial(written, intent=i, reason=r), intents, reasons),
    st.builds(lambda a, r: partial(administered, what=a, reason=r), administrations, reasons),
    st.builds(lambda p: partial(delivered, payload=p), texts),
    st.builds(lambda t: partial(forgotten, until=t), st.floats(0, 1e10)),
    st.just(rotation_finished),
)
stories = st.lists(st.tuples(steps, idempotency), max_size=12)


def changes_of(story: Sequence[tuple[Step, Any]]) -> list[Commit]:
    state, made = m.empty(), list[Commit]()
    for step, record in story:
        try:
            change = step(state)
        except (Refusal, IndexError):  # nobody enrolled; no rotation
            continue
        made.append(replace(change, idempotency=record))
        state = change.after
    return made


EVERYTHING: tuple[Step, ...] = (
    partial(written, intent=Put(service="door", values={"volume": 3}), reason="loud"),
    partial(written, intent=Patch(service="door", patch={"greeting": "Grüß Gott"}), reason=None),
    partial(written, intent=SetSecret(service="door", name="pin", value=Secret("1234")), reason=""),
    partial(written, intent=NewEpoch(services={"a": {"x": [1, 1.0, -0.0, None]}, "b": {}}), reason="all"),
    partial(written, intent=Delete(service="b"), reason=None),
    partial(administered, what=AcceptAdminToken("bootstrap", "0" * 64), reason=None),
    partial(administered, what=CreateToken("phone", "1" * 64, "read", ("a", "b*"), None), reason="x"),
    partial(administered, what=NoteTokenUses({"1" * 64: "2029-01-01T00:00:00.000Z"}), reason=None),
    partial(administered, what=AllowEnrolment(ENROLMENT_TOKEN, "door", None, "2030-01-01T00:00:00.000Z"), reason=None),
    partial(administered, what=enrolling(), reason=None),
    partial(delivered, payload="sealed"),
    partial(administered, what=RevokeDevice("door", "kitchen"), reason=None),
    partial(administered, what=RevokeToken("phone"), reason=None),
    partial(written, intent=DeleteSecret(service="door", name="pin"), reason=None),
    partial(administered, what=BeginRotation("old", "new", 3), reason=None),
    rotation_finished,
    partial(forgotten, until=1.5),
    partial(schema_put, maximum=5),
    partial(administered, what=DeleteSchema(service="door"), reason=None),
    partial(rolled_back, values={"volume": 2}),
    plan_kept,
    plan_gone,
)  # fmt: skip


def everything() -> list[Commit]:
    """A change of each kind, one upon the other; each with an Idempotency-Key."""
    made = changes_of([(step, m.record("k", 1.5, b"\xff")) for step in EVERYTHING])
    assert len(made) == len(EVERYTHING)
    return made


def same(one: Commit, other: Commit) -> None:
    assert one == other
    assert repr(one) == repr(other)  # 1, 1.0 and True are equal, but not the same


@m.STEADY
@given(stories)
def test_what_is_encoded_decodes_to_what_it_was(story: list[tuple[Step, Any]]) -> None:
    for change in changes_of(story):
        same(decode(encode(change), change.before), change)


@pytest.mark.parametrize("number", range(len(EVERYTHING)))
def test_so_does_a_change_of_every_kind(number: int) -> None:
    change = everything()[number]
    same(decode(encode(change), change.before), change)


def test_every_member_of_a_change_is_in_some_record() -> None:
    """Who adds one to `Commit` adds it to the record."""
    unset = {
        field.name
        for field in fields(Commit)
        if not any(getattr(change, field.name) for change in everything())
    }
    assert unset == set()
    members = {name for change in everything() for name in json.loads(encode(change))}
    in_record = {field.name for field in fields(Commit)} | {"v", "kind", "at"}
    assert members == in_record


def test_what_a_change_has_nothing_of_is_left_out() -> None:
    change = m.decide(m.empty(), Put(service="a", values={})).change
    assert json.loads(encode(change)).keys() == {
        "v", "kind", "at", "before", "after", "services", "history", "audit"
    }  # fmt: skip


def test_a_record_says_when_it_was_decided_and_between_which_states() -> None:
    change = everything()[1]
    value = json.loads(encode(change))
    assert value["at"] == "2027-01-15T08:00:00.000Z"
    assert value["before"] == [1, 1, change.before.audit_head]
    assert value["after"] == [1, m.FIRST_EPOCH.id, 2, 2, change.after.audit_head]


def test_a_secret_is_in_it_as_it_lies_in_the_database() -> None:
    change = everything()[2]
    assert change.secret is not None
    assert b"1234" not in encode(change)


@pytest.mark.parametrize(
    "other", [{"v": 2}, {"v": 0}, {"v": "1"}, {"kind": "reseal"}, {"kind": None}]
)
def test_another_kind_or_version_is_refused_by_name(other: dict[str, object]) -> None:
    change = everything()[0]
    value = json.loads(encode(change)) | other
    with pytest.raises(UnknownRecord, match=repr(next(iter(other.values())))):
        decode(json.dumps(value).encode(), change.before)


def test_a_record_applies_to_the_state_before_it_alone() -> None:
    made = everything()
    for change in made[:5]:
        for state in (other.before for other in made[:5] if other is not change):
            with pytest.raises(OtherState):
                decode(encode(change), state)


@pytest.mark.parametrize(
    "record",
    [b"", b"[]", b"null", b"{}", b'{"v":1}', b'{"v":1,"kind":"change"}', b"\xff", b'{"v":1,"kind":'],
)  # fmt: skip
def test_what_is_no_record_is_refused(record: bytes) -> None:
    with pytest.raises(RecordRefused):
        decode(record, m.empty())


@m.STEADY
@given(st.dictionaries(st.sampled_from(["services", "history", "audit", "registry", "secret",
    "forgotten", "idempotency", "after", "before", "v", "kind"]), json_values, min_size=1))  # fmt: skip
def test_members_of_another_shape_are_refused_and_never_raise_anything_else(
    wrong: dict[str, object],
) -> None:
    change = everything()[2]
    value = json.loads(encode(change)) | wrong
    try:
        decode(json.dumps(value).encode(), change.before)
    except RecordRefused:
        pass


# ── what lies between two states ───────────────────────────────────────────────────────────────


@m.STEADY
@given(stories, st.integers(0, 12), st.integers(0, 12))
def test_a_difference_leads_from_the_one_state_to_the_other(
    story: list[tuple[Step, Any]], one: int, other: int
) -> None:
    states = [m.empty(), *(change.after for change in changes_of(story))]
    first, second = sorted((one % len(states), other % len(states)))
    a, b = states[first], states[second]
    made = difference(a, b)
    assert made.after == b
    back = decode(encode(made), a)
    assert back.after == b
    assert repr(back.after.services) == repr(decode(encode(back), a).after.services)
    assert (made.history, made.audit, made.secret, made.idempotency) == ((), None, None, None)
    assert changes_nothing(made) == (a == b)


def test_it_holds_what_changed_and_nothing_else() -> None:
    made = everything()
    before = made[3].after
    after = m.decide(before, Put(service="a", values={"x": 2})).change.after
    assert [state.service for state in difference(before, after).services] == ["a"]
    assert difference(before, after).registry == ()
    token = made[6].after
    (row,) = difference(token, made[7].after).registry
    assert (row.kind, row.key) == ("token", "phone")
    (gone,) = difference(made[11].after, made[12].after).registry
    assert gone == RegistryRow("token", "phone", None)


def test_a_state_that_was_read_anew_differs_in_nothing() -> None:
    """After a restart no object is the same."""
    state = everything()[-1].after
    again = replace(
        state,
        services={name: replace(one) for name, one in state.services.items()},
        registry={
            k: {key: dict(v) for key, v in rows.items()} for k, rows in state.registry.items()
        },
    )
    assert changes_nothing(difference(state, again))


def test_a_service_that_is_gone_is_no_change() -> None:
    state = m.after(Put(service="a", values={}), Put(service="b", values={}))
    only_a = replace(state, services={"a": state.services["a"]})
    with pytest.raises(NoDifference):
        difference(state, only_a)
    renamed = {"a": state.services["a"], "c": replace(state.services["b"], service="c")}
    with pytest.raises(NoDifference):
        difference(state, replace(state, services=renamed))


@m.STEADY
@given(
    st.dictionaries(texts, st.dictionaries(texts, json_objects, min_size=1, max_size=3), max_size=3),
    st.dictionaries(texts, st.dictionaries(texts, json_objects, min_size=1, max_size=3), max_size=3),
)  # fmt: skip
def test_any_registry_leads_to_any_other(before: Any, after: Any) -> None:
    a, b = (replace(m.empty(), registry=registry) for registry in (before, after))
    assert decode(encode(difference(a, b)), a).after == b


def test_what_did_not_change_is_the_same_object_after_it() -> None:
    """Else each record would cost the size of all, in memory."""
    before = everything()[4].after
    after = m.decide(before, Put(service="a", values={"x": 2})).change.after
    back = decode(encode(difference(before, after)), before).after
    assert back.services["door"] is before.services["door"]
    assert back.registry is before.registry
