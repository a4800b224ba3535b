"""docs/vectors.json, from both sides: what we write is what it says, and we judge as it says.

The writer's side uses nothing of ours but the bytes: SHA-256, Ed25519, the PAE and the sealing spelled
out, as somebody would who writes a client in another language.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from nacl.public import PrivateKey, SealedBox
from nacl.signing import SigningKey, VerifyKey

from config_manager.api.conformance.vectors import chain, message_of
from config_manager.client.rules.deliveries import Deliveries
from config_manager.client.rules.root_chain import RootChain, Turned
from config_manager.config import wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Receipt
from config_manager.config.documents.root import Root
from config_manager.config.documents.sealed import Sealed
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.enrolment import Enrolment
from config_manager.config.names import Mark
from config_manager.config.sealing import open_sealed
from config_manager.config.trust import Distrust, Seen, judge_update
from config_manager.config.wire import Envelope
from tests.config import vectors

TEXT = vectors.PATH.read_text("utf-8")
VECTORS: dict[str, Any] = json.loads(TEXT)
DOCUMENTS = VECTORS["documents"]
SEAL_PRIVATE = bytes.fromhex(VECTORS["seal"]["private_hex"])
KINDS: dict[str, Any] = {
    wire.ROOT: Root,
    wire.CONFIG_UPDATE: ConfigUpdate,
    wire.SEALED: Sealed,
    wire.SNAPSHOT: Snapshot,
    wire.BEACON: Beacon,
    wire.RECEIPT: Receipt,
}


def by_name(cases: Iterable[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["name"])


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def root(name: str) -> Root:
    return chain(name)[-1].root


def test_the_file_is_what_its_program_makes() -> None:
    assert vectors.to_text() == TEXT, "write it anew with `python -m tests.config.vectors`"


@pytest.mark.parametrize("name", VECTORS["seeds_hex"])
def test_a_key_id_is_the_digest_of_the_public_key(name: str) -> None:
    public = SigningKey(bytes.fromhex(VECTORS["seeds_hex"][name])).verify_key.encode()
    assert public.hex() == VECTORS["public_hex"][name]
    assert hashlib.sha256(public).hexdigest() == VECTORS["keyids"][name]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_can_be_made_from_the_page_alone(name: str) -> None:
    document = DOCUMENTS[name]
    kind, payload = document["payload_type"].encode(), document["payload"].encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    assert pae.hex() == document["pae_hex"]
    assert hashlib.sha256(payload).hexdigest() == document["digest"]
    envelope = json.loads(document["envelope"])
    assert base64.b64decode(envelope["payload"]) == payload
    assert len(document["signed_by"]) == len(document["signatures_hex"])
    for by, signature, carried in zip(
        document["signed_by"], document["signatures_hex"], envelope["signatures"], strict=True
    ):
        key = SigningKey(bytes.fromhex(VECTORS["seeds_hex"][by]))
        assert key.sign(pae).signature.hex() == signature
        assert carried == {
            "keyid": VECTORS["keyids"][by],
            "sig": base64.b64encode(bytes.fromhex(signature)).decode(),
        }
        VerifyKey(bytes.fromhex(VECTORS["public_hex"][by])).verify(pae, bytes.fromhex(signature))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_we_write_and_read_the_very_bytes(name: str) -> None:
    payload = DOCUMENTS[name]["payload"].encode()
    kind = KINDS[DOCUMENTS[name]["payload_type"]]
    assert kind.parse(payload).to_bytes() == payload
    raw = DOCUMENTS[name]["envelope"].encode()
    assert wire.parse_envelope(raw).to_bytes() == raw


@by_name(VECTORS["cases"])
def test_an_update_is_judged_as_the_page_says(case: dict[str, Any]) -> None:
    given = case["seen"]
    seen = (
        None
        if given is None
        else Seen(Mark(given["epoch_seq"], given["revision"]), given["digest"])
    )
    reason: str | None = None
    try:
        judge_update(
            message_of(case),
            topic=case["topic"],
            service=case["service"],
            root=root(case["under"]),
            seen=seen,
            now=seconds(case["now"]),
        )
    except Distrust as verdict:
        reason = verdict.reason
    assert reason == case["reason"]
    assert (case["before"] is None) == (seen is None)
    if seen is not None:
        before = ConfigUpdate.parse(DOCUMENTS[case["before"]]["payload"].encode())
        assert seen == Seen(before.mark, DOCUMENTS[case["before"]]["digest"])


@by_name(VECTORS["root_cases"])
def test_a_newer_root_is_judged_as_the_page_says(case: dict[str, Any]) -> None:
    roots = RootChain(chain(case["trusted"]))
    steps = roots.offer(case["topic"], message_of(case), seconds(case["now"]))
    refused = [step.verdict.reason for step in steps if isinstance(step, Turned)]
    assert refused == ([] if case["reason"] is None else [case["reason"]])
    assert roots.newest.version == case["trusts"]


# ── secrets ────────────────────────────────────────────────────────────────────────────────────


@by_name(VECTORS["sealings"])
def test_a_value_can_be_sealed_from_the_page_alone(case: dict[str, Any]) -> None:
    ephemeral = PrivateKey(bytes.fromhex(case["ephemeral_private_hex"]))
    assert bytes(ephemeral.public_key).hex() == case["ephemeral_public_hex"]
    to = bytes.fromhex(VECTORS["seal"]["public_hex"])
    nonce = hashlib.blake2b(bytes(ephemeral.public_key) + to, digest_size=24).hexdigest()
    assert nonce == case["nonce_hex"]
    # libsodium opens it, though we drew the ephemeral key ourselves to get the same bytes each time
    opened = SealedBox(PrivateKey(SEAL_PRIVATE)).decrypt(base64.b64decode(case["ciphertext"]))
    assert opened == case["plaintext"].encode()
    assert json.loads(opened)["value"] == case["value"]
    sealed = Sealed.parse(DOCUMENTS["sealed"]["payload"].encode())
    assert open_sealed(sealed, case["name"], SEAL_PRIVATE).reveal() == case["value"]


@by_name(VECTORS["sealed_cases"])
def test_sealed_secrets_are_judged_as_the_page_says(case: dict[str, Any]) -> None:
    before: tuple[Envelope, ...] = ()
    if case["kept"] is not None:
        before = (wire.parse_envelope(DOCUMENTS[case["before"]]["envelope"].encode()),)
        assert Sealed.parse(before[0].payload).mark == Mark(**case["kept"])
    roots = [link.root for link in chain(case["under"])]
    held = Deliveries(case["service"], case["instance"], SEAL_PRIVATE, before, roots)
    assert held.topic == case["topic"]
    reason: str | None = None
    try:
        held.receive(message_of(case), roots[-1], seconds(case["now"]))
    except Distrust as verdict:
        reason = verdict.reason
    assert reason == case["reason"]
    if reason is None:
        named = {name: value["version"] for name, value in sealed_in(case["message"]).items()}
        update = ConfigUpdate.parse(DOCUMENTS["config-update"]["payload"].encode())
        values = held.values(replace(update, secrets=named), roots[-1])
        assert values is not None
        assert {name: value.reveal() for name, value in values.items()} == case["opens"]


def sealed_in(message: str) -> dict[str, Any]:
    payload = json.loads(base64.b64decode(json.loads(message)["payload"]))
    found: dict[str, Any] = payload["secrets"]
    return found


# ── enrolment ──────────────────────────────────────────────────────────────────────────────────


def test_an_enrolment_can_be_proved_from_the_page_alone() -> None:
    given = VECTORS["enrolment"]
    assert hashlib.sha256(given["token"].encode()).hexdigest() == given["token_sha256"]
    assert json.loads(given["statement"])["token_sha256"] == given["token_sha256"]
    kind, statement = wire.ENROLMENT.encode(), given["statement"].encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)
    assert pae.hex() == given["pae_hex"]
    key = SigningKey(bytes.fromhex(VECTORS["seeds_hex"]["instance"]))
    assert key.sign(pae).signature.hex() == given["proof_hex"]
    assert base64.b64decode(given["body"]["proof"]).hex() == given["proof_hex"]


@by_name(VECTORS["enrolment"]["cases"])
def test_an_enrolments_proof_is_judged_as_the_page_says(case: dict[str, Any]) -> None:
    body = case["body"]
    asked = Enrolment(
        hashlib.sha256(body["token"].encode()).hexdigest(),
        body["service"],
        body["instance"],
        base64.b64decode(body["sign_public"]),
        base64.b64decode(body["seal_public"]),
    )
    assert asked.is_proved_by(base64.b64decode(body["proof"])) is case["proved"]


# ── whole messages ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", VECTORS["messages"])
def test_a_whole_message_carries_the_documents_above(name: str) -> None:
    message = json.loads(VECTORS["messages"][name]["message"])
    beacon = message["beacon"] if name == "snapshot" else message["data"]["beacon"]
    assert beacon == json.loads(DOCUMENTS["beacon"]["envelope"])
    if name == "snapshot":
        rest = {key: value for key, value in message.items() if key != "beacon"}
        assert rest == json.loads(DOCUMENTS["snapshot"]["envelope"])
    assert beacon["signatures"][0]["keyid"] == VECTORS["keyids"]["beacon"]
