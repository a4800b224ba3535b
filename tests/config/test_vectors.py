"""docs/vectors.json, from both sides: what we write is what it says, and we judge as it says.

The writer's side uses nothing of ours but the bytes: SHA-256, Ed25519 and the PAE spelled out, as
somebody would who writes a client in another language.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey, VerifyKey

from config_manager.config import wire
from config_manager.config.documents import Beacon, ConfigUpdate, Receipt, Root, Snapshot
from config_manager.config.names import Mark
from config_manager.config.trust import Distrust, Seen, judge_root, judge_update

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "vectors.json").read_text("utf-8")
)
DOCUMENTS = VECTORS["documents"]
NOW = 1_800_000_000.0


@pytest.mark.parametrize("role", VECTORS["seeds_hex"])
def test_a_key_id_is_the_digest_of_the_public_key(role: str) -> None:
    public = SigningKey(bytes.fromhex(VECTORS["seeds_hex"][role])).verify_key.encode()
    assert public.hex() == VECTORS["public_hex"][role]
    assert hashlib.sha256(public).hexdigest() == VECTORS["keyids"][role]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_can_be_made_from_the_page_alone(name: str) -> None:
    document = DOCUMENTS[name]
    kind, payload = document["payload_type"].encode(), document["payload"].encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    assert pae.hex() == document["pae_hex"]
    key = SigningKey(bytes.fromhex(VECTORS["seeds_hex"][document["signed_by"]]))
    assert key.sign(pae).signature.hex() == document["signature_hex"]
    assert hashlib.sha256(payload).hexdigest() == document["digest"]
    envelope = json.loads(document["envelope"])
    assert base64.b64decode(envelope["payload"]) == payload
    VerifyKey(bytes.fromhex(VECTORS["public_hex"][document["signed_by"]])).verify(
        pae, base64.b64decode(envelope["signatures"][0]["sig"])
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("root", Root),
        ("config-update", ConfigUpdate),
        ("tombstone", ConfigUpdate),
        ("snapshot", Snapshot),
        ("beacon", Beacon),
        ("receipt", Receipt),
    ],
)
def test_we_write_and_read_the_very_bytes(name: str, kind: Any) -> None:
    payload = DOCUMENTS[name]["payload"].encode()
    assert kind.parse(payload).to_bytes() == payload
    raw = DOCUMENTS[name]["envelope"].encode()
    assert wire.parse_envelope(raw).to_bytes() == raw


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_each_case_is_judged_as_the_page_says(case: dict[str, Any]) -> None:
    root = judge_root(DOCUMENTS["root"]["envelope"].encode(), None, NOW)
    given = case["seen"]
    seen = (
        None
        if given is None
        else Seen(Mark(given["epoch_seq"], given["revision"]), given["digest"])
    )
    reason: str | None = None
    try:
        judge_update(
            case["message"].encode(),
            topic=case["topic"],
            service="stt-worker",
            root=root,
            seen=seen,
            now=NOW,
        )
    except Distrust as verdict:
        reason = verdict.reason
    assert reason == case["reason"]
