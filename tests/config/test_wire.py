"""Envelopes and what they sign, against vectors that this project did not make."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from config_manager.actors.signing import sign as sign_as_the_server
from config_manager.config import wire
from config_manager.config.trust import Distrust, judge_update, verify
from config_manager.config.wire import Envelope, NotAnEnvelope, Signature, parse_envelope
from tests.kit import documents as m

GOLDEN = Path(__file__).parent / "golden" / "envelope.json"


@pytest.mark.parametrize(
    ("payload_type", "payload", "encoded"),
    [
        # the vector of the DSSE specification (protocol.md)
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("", b"", b"DSSEv1 0  0 "),
        ("é", b"\xff\0", b"DSSEv1 2 \xc3\xa9 2 \xff\0"),  # lengths count bytes
        ("a", b" 1 b", b"DSSEv1 1 a 4  1 b"),
    ],
)
def test_what_is_signed_is_dsse_s_encoding(
    payload_type: str, payload: bytes, encoded: bytes
) -> None:
    assert wire.signed_bytes(payload_type, payload) == encoded


@m.STEADY
@given(m.texts, st.binary(), m.texts, st.binary())
def test_no_two_documents_share_their_signed_bytes(a: str, b: bytes, c: str, d: bytes) -> None:
    assert (wire.signed_bytes(a, b) == wire.signed_bytes(c, d)) == ((a, b) == (c, d))


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [  # RFC 8032, section 7.1, tests 1 and 3
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
                "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ],
)
def test_our_ed25519_is_rfc_8032_s(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.verify_key.encode().hex() == public
    assert key.sign(bytes.fromhex(message)).signature.hex() == signature
    VerifyKey(bytes.fromhex(public)).verify(bytes.fromhex(message), bytes.fromhex(signature))


def test_a_signature_whose_s_is_beyond_the_group_s_order_does_not_verify() -> None:
    """RFC 8032, section 5.1.7: else every signature would have a twin."""
    message = m.CONFIG_KEY.sign(b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(message.signature[32:], "little") + order
    twin = message.signature[:32] + s.to_bytes(32, "little")
    with pytest.raises(BadSignatureError):
        m.CONFIG_KEY.verify_key.verify(b"x", twin)


def test_a_key_id_is_the_sha_256_of_the_raw_public_key() -> None:
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert wire.keyid(public) == "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"


def test_a_digest_is_the_sha_256_of_the_payload_and_of_nothing_else() -> None:
    assert wire.digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    one = m.sign(wire.CONFIG_UPDATE, b"abc", m.CONFIG_KEY)
    other = Envelope(wire.SNAPSHOT, b"abc", (Signature("k", b"s"),), "id")
    assert one.digest == other.digest == wire.digest(b"abc")


def test_every_topic_is_spelled_as_the_contract_does() -> None:
    assert [
        wire.config_topic("s"),
        wire.sealed_topic("s", "i"),
        wire.status_topic("s", "i"),
        wire.root_topic(7),
        wire.SNAPSHOT_TOPIC,
        wire.HEALTH_TOPIC,
        wire.KEEPALIVE_TOPIC,
        wire.CONFIG_FILTER,
        wire.ROOTS_FILTER,
    ] == [
        "system/config/s",
        "system/config-sealed/s/i",
        "system/config-status/s/i",
        "system/trust/roots/7",
        "system/config-snapshot/config-manager",
        "system/health/config-manager",
        "system/keepalive/config-manager",
        "system/config/+",
        "system/trust/roots/+",
    ]


def test_every_payload_type_is_spelled_as_the_contract_does() -> None:
    kinds = ["config-update", "beacon", "snapshot", "root", "sealed", "receipt"]
    ours = [wire.CONFIG_UPDATE, wire.BEACON, wire.SNAPSHOT, wire.ROOT, wire.SEALED, wire.RECEIPT]
    assert ours == [f"application/vnd.config-manager.{kind}.v1+json" for kind in kinds]


def sign_by_hand(payload_type: str, payload: bytes, key: SigningKey) -> bytes:
    """The contract's words and nothing of ours: what a publisher in another language would do."""
    public = bytes(key.verify_key)
    covered = f"DSSEv1 {len(payload_type)} {payload_type} {len(payload)} ".encode() + payload
    envelope = {
        "signatures": [
            {
                "sig": base64.b64encode(key.sign(covered).signature).decode(),
                "keyid": hashlib.sha256(public).hexdigest(),
            }
        ],
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
    }
    return json.dumps(envelope, indent=2).encode()


def check_by_hand(envelope: bytes, public: bytes) -> bytes:
    """The contract's words and nothing of ours: what a client in another language would do."""
    value = json.loads(envelope)
    payload = base64.b64decode(value["payload"])
    kind = value["payloadType"].encode()
    covered = b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    )
    [signature] = value["signatures"]
    assert signature["keyid"] == hashlib.sha256(public).hexdigest()
    VerifyKey(public).verify(covered, base64.b64decode(signature["sig"]))
    return payload


def test_what_another_publisher_signed_is_accepted_here() -> None:
    data = sign_by_hand(wire.CONFIG_UPDATE, m.UPDATE.to_bytes(), m.CONFIG_KEY)
    accepted = judge_update(
        data, topic=m.TOPIC, service=m.SERVICE, root=m.make_root(), seen=None, now=m.NOW
    )
    assert accepted.update == m.UPDATE


@pytest.mark.parametrize("correlation_id", [None, "req-1"])
def test_what_the_server_signed_is_verified_by_another_client(correlation_id: str | None) -> None:
    payload = m.UPDATE.to_bytes()
    envelope = sign_as_the_server(bytes(m.CONFIG_KEY), wire.CONFIG_UPDATE, payload, correlation_id)
    assert check_by_hand(envelope.to_bytes(), bytes(m.CONFIG_KEY.verify_key)) == payload
    assert verify(envelope, wire.CONFIG_UPDATE, "config", m.make_root(), m.NOW) == payload


def test_the_golden_envelope_is_what_we_write_and_what_we_read() -> None:
    golden = GOLDEN.read_bytes()
    envelope = m.sign(wire.CONFIG_UPDATE, m.UPDATE.to_bytes(), m.CONFIG_KEY)
    assert envelope.to_bytes() == golden
    assert parse_envelope(golden) == envelope
    assert check_by_hand(golden, bytes(m.CONFIG_KEY.verify_key)) == m.UPDATE.to_bytes()


def verifies(envelope: Envelope) -> bool:
    try:
        verify(envelope, envelope.payload_type, "config", m.make_root(), m.NOW)
    except Distrust:
        return False
    return True


def flip(data: bytes, bit: int) -> bytes:
    at, shift = divmod(bit % (len(data) * 8), 8)
    return data[:at] + bytes([data[at] ^ 1 << shift]) + data[at + 1 :]


@m.STEADY
@given(st.binary(min_size=1, max_size=200), st.integers(0, 2**16), st.data())
def test_no_bit_of_payload_type_or_signature_can_be_flipped(
    payload: bytes, bit: int, data: st.DataObject
) -> None:
    good = m.sign(wire.CONFIG_UPDATE, payload, m.CONFIG_KEY)
    assert verifies(good)
    [(key_id, sig)] = good.signatures
    kind = wire.CONFIG_UPDATE.encode()
    ascii_bit = data.draw(st.integers(0, len(kind) - 1)) * 8 + data.draw(st.integers(0, 6))
    for bad in (
        Envelope(good.payload_type, flip(payload, bit), good.signatures),
        Envelope(flip(kind, ascii_bit).decode(), payload, good.signatures),
        Envelope(good.payload_type, payload, (Signature(key_id, flip(sig, bit)),)),
        Envelope(
            good.payload_type, payload, (Signature(flip(bytes.fromhex(key_id), bit).hex(), sig),)
        ),
    ):
        assert not verifies(bad)


@m.STEADY
@given(st.binary(max_size=100))
def test_a_signature_of_any_other_bytes_does_not_verify(sig: bytes) -> None:
    assert not verifies(
        Envelope(wire.CONFIG_UPDATE, b"{}", (Signature(m.key_id(m.CONFIG_KEY), sig),))
    )


@m.STEADY
@given(
    m.texts,
    st.binary(),
    st.lists(st.builds(Signature, m.texts, st.binary(max_size=64)), min_size=1, max_size=4),
    st.none() | m.texts,
)
def test_an_envelope_survives_the_wire(
    kind: str, payload: bytes, signatures: list[Signature], correlation_id: str | None
) -> None:
    envelope = Envelope(kind, payload, tuple(signatures), correlation_id)
    assert parse_envelope(envelope.to_bytes()) == envelope


@pytest.mark.parametrize("correlation_id", ["a", "x" * 64])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 1001])
def test_the_size_of_an_envelope_is_known_before_it_is_signed(
    size: int, correlation_id: str
) -> None:
    """A change that would not fit is refused before it is committed."""
    seed = bytes(m.CONFIG_KEY)
    envelope = sign_as_the_server(seed, wire.CONFIG_UPDATE, b"x" * size, correlation_id)
    assert wire.envelope_size(size, correlation_id) == len(envelope.to_bytes())


def test_members_that_nobody_knows_are_ignored() -> None:
    value = m.sign(wire.CONFIG_UPDATE, b"{}", m.CONFIG_KEY).to_object()
    value["signatures"][0]["hint"] = 1
    plain = wire.envelope_from_object(value)
    assert wire.envelope_from_object({**value, "beacon": {}, "correlation_id": 7}) == plain


def with_(**changes: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        value = m.sign(wire.CONFIG_UPDATE, b"{}", m.CONFIG_KEY).to_object()
        value.update(changes)
        return json.dumps({k: v for k, v in value.items() if v is not ...}).encode()

    return make


GOOD = {"keyid": "0" * 64, "sig": "AAAA"}
NO_ENVELOPES: dict[str, tuple[Callable[[], bytes], str]] = {
    "not JSON": (lambda: b"{", "not JSON"),
    "a list": (lambda: b"[]", "expected a JSON object"),
    "a key twice": (lambda: b'{"payload":"","payload":"e30="}', "stands twice"),
    "no type": (with_(payloadType=...), "payloadType: expected a string"),
    "a type that is a number": (with_(payloadType=1), "payloadType: expected a string"),
    "no payload": (with_(payload=...), "payload: expected base64"),
    "a payload that is an object": (with_(payload={}), "payload: expected base64"),
    "URL-safe base64": (with_(payload="_-8="), "payload: not base64"),
    "base64 without its padding": (with_(payload="e30"), "payload: not base64"),
    "base64 with a line break": (with_(payload="e3\n0="), "payload: not base64"),
    "base64 that goes on after its end": (with_(payload="e30=e30="), "payload: not base64"),
    "base64 in another alphabet": (with_(payload="é30="), "payload: not base64"),
    "no signatures": (with_(signatures=...), "signatures: expected 1 to 4"),
    "an empty list of signatures": (with_(signatures=[]), "signatures: expected 1 to 4"),
    "five signatures": (with_(signatures=[GOOD] * 5), "signatures: expected 1 to 4"),
    "signatures as an object": (with_(signatures=GOOD), "signatures: expected 1 to 4"),
    "a signature that is a string": (with_(signatures=["AAAA"]), "objects with keyid and sig"),
    "a signature without its key": (with_(signatures=[{"sig": "AAAA"}]), "with keyid and sig"),
    "a key id that is a number": (with_(signatures=[{**GOOD, "keyid": 1}]), "with keyid and sig"),
    "a signature that is null": (with_(signatures=[{**GOOD, "sig": None}]), "sig: expected base64"),
    "a signature in hex": (with_(signatures=[{**GOOD, "sig": "abc"}]), "sig: not base64"),
}


@pytest.mark.parametrize("story", NO_ENVELOPES)
def test_what_is_no_envelope_says_where_it_departs(story: str) -> None:
    make, message = NO_ENVELOPES[story]
    with pytest.raises(NotAnEnvelope) as caught:
        parse_envelope(make())
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_an_envelope_inside_another_document_is_an_object(value: object) -> None:
    with pytest.raises(NotAnEnvelope, match="expected an object"):
        wire.envelope_from_object(value)


@m.STEADY
@given(m.json_values)
def test_any_json_is_an_envelope_or_is_not(value: object) -> None:
    with pytest.raises(NotAnEnvelope):
        wire.envelope_from_object(value)
    with pytest.raises(NotAnEnvelope):
        wire.envelope_from_object({"payloadType": value, "payload": value, "signatures": [value]})
