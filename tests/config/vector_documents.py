"""The keys and documents of docs/vectors.json. Everything is fixed, the sealing's ephemeral keys too."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nacl.bindings import crypto_box
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.config import roots, strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.wire import Envelope, Signature

KEYS = {
    name: SigningKey(bytes([n]) * 32)
    for n, name in enumerate(
        ("root", "config", "beacon", "instance", "root-2", "config-2", "beacon-2"), 1
    )
}
SEAL_KEY = PrivateKey(bytes([0x11]) * 32)
OTHER_SEAL_KEY = PrivateKey(bytes([0x12]) * 32)
SERVICE, INSTANCE = "stt-worker", "kitchen"
TOPIC = wire.config_topic(SERVICE)
EPOCH = "11111111-2222-4333-8444-555555555555"
NOW = "2026-01-02T03:04:10.000Z"
AFTER_ROTATION = "2026-01-10T00:00:00.000Z"
AFTER_OLD_KEY = "2026-03-01T00:00:00.000Z"


def public(name: str) -> bytes:
    return KEYS[name].verify_key.encode()


def keyid(name: str) -> str:
    return wire.keyid(public(name))


def sign(kind: str, payload: bytes, *by: str, correlation_id: str | None = None) -> Envelope:
    message = wire.signed_bytes(kind, payload)
    signatures = tuple(Signature(keyid(one), KEYS[one].sign(message).signature) for one in by)
    return Envelope(kind, payload, signatures, correlation_id)


# ── documents ──────────────────────────────────────────────────────────────────────────────────

ROOT = roots.first(
    {role: public(role) for role in ("root", "config", "beacon")}, "2026-01-01T00:00:00.000Z"
)
ROOT_2 = roots.rotated(
    ROOT, "config", keyid("config"), public("config-2"),
    at="2026-01-05T00:00:00.000Z", old_until="2026-02-04T00:00:00.000Z",
)  # fmt: skip
ROOT_3 = roots.with_signer(ROOT_2, public("root-2"), 2, at="2026-01-06T00:00:00.000Z")
ROOT_4 = roots.revoked(ROOT_3, keyid("config"), None, at="2026-01-07T00:00:00.000Z")

DATED = replace(
    ROOT,
    keys={
        **ROOT.keys,
        keyid("root"): replace(ROOT.keys[keyid("root")], not_after="2026-02-01T00:00:00.000Z"),
    },
)
DATED_2 = roots.rotated(
    DATED, "root", keyid("root"), public("root-2"), at="2026-01-05T00:00:00.000Z", old_until=None
)

DATELESS = replace(
    ROOT,
    keys={**ROOT.keys, keyid("config"): replace(ROOT.keys[keyid("config")], not_after="soon")},
)

UPDATE = ConfigUpdate(
    service=SERVICE,
    topic=TOPIC,
    config_epoch=EPOCH,
    epoch_seq=1,
    revision=7,
    previous=None,
    issued_at="2026-01-02T03:04:05.678Z",
    config={"whisper_model": "base.en", "name": "Grüße ☃"},
    defaulted=("whisper_model",),
    secrets={"api_key": 2, "password": 1},
    deleted=False,
    correlation_id="req-1",
)
DIGEST = wire.digest(UPDATE.to_bytes())
STOLEN = replace(UPDATE, revision=2**53 - 1, previous=DIGEST, secrets={}, correlation_id="req-9")
TOMBSTONE = replace(
    UPDATE,
    revision=8,
    previous=DIGEST,
    issued_at="2026-01-02T03:05:00.000Z",
    config={},
    defaulted=(),
    secrets={},
    deleted=True,
    correlation_id="req-2",
)
SNAPSHOT = Snapshot(EPOCH, 1, 7, {SERVICE: (7, DIGEST)})
BEACON = Beacon(
    EPOCH,
    1,
    7,
    wire.digest(SNAPSHOT.to_bytes()),
    1,
    "0" * 64,
    3,
    12,
    "2026-01-02T03:04:06.000Z",
    30,
)
RECEIPT = Receipt(
    service=SERVICE,
    instance=INSTANCE,
    boot_seq=5,
    seq=9,
    running=Running(1, 7, DIGEST),
    last_attempt=Attempt(7, "healthy", at="2026-01-02T03:04:06.000Z", took_ms=12),
    source="broker",
    freshness="fresh",
    overrides=("vad_threshold",),
    schema="0" * 64,
    library="example 1.0",
    correlation_id="req-1",
    gone=False,
    at="2026-01-02T03:04:06.500Z",
)
FIRST_RECEIPT = replace(
    RECEIPT,
    seq=1,
    running=None,
    last_attempt=None,
    source="defaults",
    freshness="unknown",
    overrides=(),
    correlation_id=None,
    at="2026-01-02T03:04:00.000Z",
)
REFUSAL = replace(
    RECEIPT,
    seq=10,
    last_attempt=Attempt(8, "refused", "model: vad_threshold: expected 0 to 1"),
    freshness="fresh",
    correlation_id="req-3",
    at="2026-01-02T03:06:00.000Z",
)
WILL = replace(RECEIPT, seq=8, gone=True, at="2026-01-02T03:03:59.000Z")


def ephemeral(name: str, version: int) -> PrivateKey:
    """A real sender draws one at random for each value, and forgets it."""
    return PrivateKey(hashlib.sha256(f"ephemeral {name} {version}".encode()).digest())


def sealing(
    sealed: Sealed,
    name: str,
    version: int,
    value: str,
    to: PrivateKey = SEAL_KEY,
    *,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """crypto_box_seal, step by step, as the page says it. changes: odd members inside."""
    sender = ephemeral(name, version)
    inside = {
        "service": sealed.service,
        "instance": sealed.instance,
        "name": name,
        "version": version,
        "epoch_seq": sealed.epoch_seq,
        "revision": sealed.revision,
        "value": value,
        **(changes or {}),
    }
    plaintext = strict_json.dumps(inside)
    sender_public, to_public = bytes(sender.public_key), bytes(to.public_key)
    nonce = hashlib.blake2b(sender_public + to_public, digest_size=24).digest()
    boxed = crypto_box(plaintext, nonce, to_public, bytes(sender))
    return {
        "name": name,
        "version": version,
        "value": value,
        "plaintext": plaintext.decode(),
        "ephemeral_private_hex": bytes(sender).hex(),
        "ephemeral_public_hex": sender_public.hex(),
        "nonce_hex": nonce.hex(),
        "ciphertext": base64.b64encode(sender_public + boxed).decode(),
    }


SECRETS = {"api_key": (2, "sk-example ☃"), "password": (1, "hunter2")}


def make_sealed(
    revision: int = 7,
    secrets: Mapping[str, tuple[int, str]] = SECRETS,
    *,
    instance: str = INSTANCE,
    to: PrivateKey = SEAL_KEY,
) -> Sealed:
    empty = Sealed(SERVICE, instance, 1, revision, {})
    return replace(
        empty,
        secrets={
            name: SealedValue(version, base64.b64decode(made["ciphertext"]))
            for name, (version, value) in secrets.items()
            for made in [sealing(empty, name, version, value, to)]
        },
    )


SEALED = make_sealed()
STOLEN_SEALED = make_sealed(2**53 - 1)
SEALED_TOPIC = wire.sealed_topic(SERVICE, INSTANCE)
STATUS_TOPIC = wire.status_topic(SERVICE, INSTANCE)

DOCUMENTS: dict[str, tuple[str, bytes, tuple[str, ...], str, str | None]] = {
    "root": (wire.ROOT, ROOT.to_bytes(), ("root",), wire.root_topic(1), None),
    "root-2": (wire.ROOT, ROOT_2.to_bytes(), ("root",), wire.root_topic(2), None),
    "root-3": (wire.ROOT, ROOT_3.to_bytes(), ("root", "root-2"), wire.root_topic(3), None),
    "root-4": (wire.ROOT, ROOT_4.to_bytes(), ("root", "root-2"), wire.root_topic(4), None),
    "root-dated": (wire.ROOT, DATED.to_bytes(), ("root",), wire.root_topic(1), None),
    "root-dated-2": (wire.ROOT, DATED_2.to_bytes(), ("root", "root-2"), wire.root_topic(2), None),
    "root-dateless": (wire.ROOT, DATELESS.to_bytes(), ("root",), wire.root_topic(1), None),
    "config-update": (wire.CONFIG_UPDATE, UPDATE.to_bytes(), ("config",), TOPIC, "req-1"),
    "tombstone": (wire.CONFIG_UPDATE, TOMBSTONE.to_bytes(), ("config",), TOPIC, "req-2"),
    "stolen": (wire.CONFIG_UPDATE, STOLEN.to_bytes(), ("config",), TOPIC, "req-9"),
    "sealed": (wire.SEALED, SEALED.to_bytes(), ("config",), SEALED_TOPIC, None),
    "stolen-sealed": (wire.SEALED, STOLEN_SEALED.to_bytes(), ("config",), SEALED_TOPIC, None),
    "snapshot": (wire.SNAPSHOT, SNAPSHOT.to_bytes(), ("beacon",), "", None),
    "beacon": (wire.BEACON, BEACON.to_bytes(), ("beacon",), "", None),
    "receipt": (wire.RECEIPT, RECEIPT.to_bytes(), ("instance",), STATUS_TOPIC, "req-1"),
    "first-receipt": (wire.RECEIPT, FIRST_RECEIPT.to_bytes(), ("instance",), STATUS_TOPIC, None),
    "refusal": (wire.RECEIPT, REFUSAL.to_bytes(), ("instance",), STATUS_TOPIC, "req-3"),
    "will": (wire.RECEIPT, WILL.to_bytes(), ("instance",), STATUS_TOPIC, "req-1"),
}


def envelope(name: str) -> Envelope:
    kind, payload, by, _, correlation_id = DOCUMENTS[name]
    return sign(kind, payload, *by, correlation_id=correlation_id)


def document(name: str) -> dict[str, Any]:
    kind, payload, by, topic, _ = DOCUMENTS[name]
    made = envelope(name)
    return {
        **({"topic": topic} if topic else {}),
        "signed_by": by,
        "payload_type": kind,
        "payload": payload.decode(),
        "pae_hex": wire.signed_bytes(kind, payload).hex(),
        "signatures_hex": [signature.sig.hex() for signature in made.signatures],
        "digest": made.digest,
        "envelope": made.to_bytes().decode(),
    }
