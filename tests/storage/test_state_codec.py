"""Committed state as JSON and back: what the last-known-good cache keeps is what was committed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.names import Epoch
from config_manager.config.secret import Secret
from config_manager.storage import state_codec
from config_manager.storage.decisions.intents import Delete, NewEpoch, Put, SetSecret
from config_manager.storage.state import Committed, ServiceState
from tests.kit import stores as m

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
counts = st.integers(0, 2**53)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
json_objects = st.dictionaries(texts, json_values, max_size=4)
epochs = st.builds(Epoch, counts, texts)
states = st.builds(
    ServiceState,
    service=texts,
    revision=counts,
    version=counts,
    epoch=epochs,
    stored=json_objects,
    effective=json_objects,
    defaulted=st.lists(texts, max_size=3).map(tuple),
    secrets=st.dictionaries(texts, counts, max_size=3),
    deleted=st.booleans(),
    updated_at=texts,
    updated_by=texts,
    correlation_id=texts,
    payload=st.binary(max_size=50),
    digest=st.just(""),
).map(lambda state: replace(state, digest=wire.digest(state.payload)))


def with_payload(state: ServiceState, differing: dict[str, Any]) -> ServiceState:
    """Its payload says what it is, but for what `differing` names."""
    update = ConfigUpdate(
        service=state.service, topic="t", config_epoch=state.epoch.id, epoch_seq=state.epoch.seq,
        revision=state.revision, previous=None, issued_at=state.updated_at, config=state.effective,
        defaulted=state.defaulted, secrets=state.secrets, deleted=state.deleted,
        correlation_id=state.correlation_id,
    )  # fmt: skip
    payload = replace(update, **differing).to_bytes()
    return replace(state, payload=payload, digest=wire.digest(payload))


updated = st.builds(
    with_payload,
    states,
    st.fixed_dictionaries(
        {},
        optional={
            "service": texts, "config_epoch": texts, "epoch_seq": counts, "revision": counts,
            "issued_at": texts, "config": json_objects, "defaulted": st.just(("x",)),
            "secrets": st.just({"pin": 1}), "deleted": st.booleans(), "correlation_id": texts,
        },
    ),
)  # fmt: skip
committed = st.builds(
    Committed,
    epoch=epochs,
    revision=counts,
    audit_seq=counts,
    audit_head=texts,
    services=st.lists(states | updated, max_size=3).map(
        lambda found: {s.service: s for s in found}
    ),
    registry=st.dictionaries(texts, st.dictionaries(texts, json_objects, max_size=2), max_size=2),
)


def decoded(pieces: Iterable[bytes]) -> Committed:
    return state_codec.decode(iter(pieces))


def same(one: object, other: object) -> None:
    assert one == other
    assert repr(one) == repr(other)  # 1, 1.0 and True are equal, but not the same


@m.STEADY
@given(committed)
def test_what_is_encoded_decodes_to_what_it_was(state: Committed) -> None:
    back = decoded(state_codec.encode(state))
    same(back, state)
    assert list(back.services) == list(state.services)


@m.STEADY
@given(states | updated)
def test_one_service_alone_decodes_to_what_it_was(state: ServiceState) -> None:
    """The way of a replayed answer, and of a record."""
    kept = json.loads(json.dumps(state_codec.encode_service(state)))
    same(state_codec.decode_service(kept), state)


STATE = m.after(
    Put(service="door", values={"volume": 3, "greeting": "Grüß Gott"}),
    SetSecret(service="door", name="pin", value=Secret("1234")),
    NewEpoch(services={"a": {"x": [1, 1.0, -0.0, None]}, "b": {}}),
    Delete(service="b"),
    Put(service="door", values={"greeting": "Servus"}),
)


def test_what_writes_lead_to_comes_back_with_the_payloads_to_the_byte() -> None:
    pieces = list(state_codec.encode(STATE))
    back = decoded(pieces)
    same(back, STATE)
    assert back.live("b") is None
    assert b"1234" not in b"".join(pieces)


def test_what_the_payload_says_is_not_said_again() -> None:
    kept = {name: state_codec.encode_service(state) for name, state in STATE.services.items()}
    said = {"text", "version", "updated_by"}
    assert {name: value.keys() - said for name, value in kept.items()} == {
        "a": set(),
        "b": set(),
        "door": set(),  # its defaults are named in the payload
    }
    assert kept["door"]["text"].encode() == STATE.services["door"].payload


def test_a_deleted_services_secrets_are_not_in_its_payload_and_are_kept_beside_it() -> None:
    state = m.after(
        SetSecret(service="door", name="pin", value=Secret("1234")), Delete(service="door")
    ).services["door"]
    assert state.secrets == {"pin": 1}
    value = state_codec.encode_service(state)
    assert value["secrets"] == {"pin": 1}
    same(state_codec.decode_service(value), state)


def test_many_services_are_many_pieces_and_a_large_one_is_one() -> None:
    services = {f"s{n}": {"text": "x" * 1_000} for n in range(300)} | {
        "big": {"text": "y" * 150_000}
    }
    state = m.after(NewEpoch(services=services))
    pieces = list(state_codec.encode(state))
    assert decoded(pieces) == state
    sizes = sorted(map(len, pieces[1:]))
    assert len(sizes) > 3
    assert sizes[-1] > 150_000
    assert sizes[-2] < 70_000


def test_it_takes_its_own_pieces_and_leaves_what_is_behind_them() -> None:
    pieces = iter([*state_codec.encode(STATE), b"the first record"])
    assert state_codec.decode(pieces) == STATE
    assert list(pieces) == [b"the first record"]
    pieces = iter([*state_codec.encode(m.empty()), b"the first record"])
    assert state_codec.decode(pieces) == m.empty()
    assert list(pieces) == [b"the first record"]


def test_pieces_that_are_missing_are_said() -> None:
    pieces = list(state_codec.encode(STATE))
    with pytest.raises(ValueError, match="0 services of 3"):
        decoded(pieces[:-1])
    with pytest.raises(ValueError, match="format None"):
        decoded([])


def test_a_digest_is_worked_out_anew_and_never_believed() -> None:
    head, services = state_codec.encode(m.after(Put(service="a", values={})))
    value = json.loads(services)
    value[0]["digest"] = "0" * 64
    (state,) = decoded([head, json.dumps(value).encode()]).services.values()
    assert state.digest == wire.digest(state.payload)


@pytest.mark.parametrize("found", [0, 1, 2, "3", None])
def test_another_format_is_refused_and_named(found: object) -> None:
    (head,) = state_codec.encode(m.empty())
    value = json.loads(head) | {"format": found}
    with pytest.raises(ValueError, match=r"expected 3$"):
        decoded([json.dumps(value).encode()])


def in_one_piece(committed: Committed) -> dict[str, Any]:
    """As 0.1.0 and 0.2.0 kept it."""
    return {
        "format": 2,
        "epoch": [committed.epoch.seq, committed.epoch.id],
        "revision": committed.revision,
        "audit": [committed.audit_seq, committed.audit_head],
        "services": [
            {k: v for k, v in asdict(state).items() if k != "digest"}
            | {
                "epoch": [state.epoch.seq, state.epoch.id],
                "payload": base64.b64encode(state.payload).decode(),
            }
            for state in committed.services.values()
        ],
        "registry": committed.registry,
    }


@m.STEADY
@given(committed)
def test_what_an_earlier_version_kept_in_one_piece_is_read(state: Committed) -> None:
    same(state_codec.decode_whole(json.dumps(in_one_piece(state)).encode()), state)


@pytest.mark.parametrize("found", [0, 1, 3, "2", None])
def test_another_format_in_one_piece_is_refused_and_named(found: object) -> None:
    value = in_one_piece(m.empty()) | {"format": found}
    with pytest.raises(ValueError, match=r"expected 2$"):
        state_codec.decode_whole(json.dumps(value).encode())


@given(states)
def test_the_same_state_is_the_same_bytes_in_every_process(state: ServiceState) -> None:
    assert [
        name for name in state_codec.encode_service(state) if name not in ("epoch", "text")
    ] == (
        "service revision version stored effective defaulted secrets deleted updated_at updated_by "
        "correlation_id payload"
    ).split()
