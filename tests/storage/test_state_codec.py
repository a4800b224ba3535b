"""Committed state as JSON and back: what the last-known-good cache keeps is what was committed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config import wire
from config_manager.config.names import Epoch
from config_manager.config.secret import Secret
from config_manager.storage import state_codec
from config_manager.storage.state import Committed, ServiceState
from config_manager.storage.writes import Delete, NewEpoch, Put, SetSecret
from tests.storage import makers as m

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
committed = st.builds(
    Committed,
    epoch=epochs,
    revision=counts,
    audit_seq=counts,
    audit_head=texts,
    services=st.lists(states, max_size=3).map(lambda found: {s.service: s for s in found}),
    registry=st.dictionaries(texts, st.dictionaries(texts, json_objects, max_size=2), max_size=2),
)


@m.STEADY
@given(committed)
def test_what_is_encoded_decodes_to_what_it_was(state: Committed) -> None:
    back = state_codec.decode(state_codec.encode(state))
    assert back == state
    assert repr(back) == repr(state)  # 1, 1.0 and True are equal, but not the same
    assert list(back.services) == list(state.services)


@m.STEADY
@given(states)
def test_one_service_alone_decodes_to_what_it_was(state: ServiceState) -> None:
    """The way of a replayed answer."""
    kept = json.loads(json.dumps(state_codec.encode_service(state)))
    assert repr(state_codec.decode_service(kept)) == repr(state)


def test_what_writes_lead_to_comes_back_with_the_payloads_to_the_byte() -> None:
    state = m.after(
        Put(service="door", values={"volume": 3, "greeting": "Grüß Gott"}),
        SetSecret(service="door", name="pin", value=Secret("1234")),
        NewEpoch(services={"a": {"x": [1, 1.0, -0.0, None]}, "b": {}}),
        Delete(service="b"),
    )
    data = state_codec.encode(state)
    back = state_codec.decode(data)
    assert back == state
    assert back.live("b") is None
    assert b"1234" not in data


def test_a_digest_is_worked_out_anew_and_never_believed() -> None:
    value = json.loads(state_codec.encode(m.after(Put(service="a", values={}))))
    value["services"][0]["digest"] = "0" * 64
    (state,) = state_codec.decode(json.dumps(value).encode()).services.values()
    assert state.digest == wire.digest(state.payload)


@pytest.mark.parametrize("found", [0, 1, "2", None])
def test_another_format_is_refused_and_named(found: object) -> None:
    value = json.loads(state_codec.encode(m.empty()))
    value["format"] = found
    with pytest.raises(ValueError, match=r"expected 2$"):
        state_codec.decode(json.dumps(value).encode())
