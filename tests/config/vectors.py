"""Makes docs/vectors.json: `python -m tests.config.vectors` writes it, the tests compare it.

Everything is fixed, the sealing's ephemeral keys too: the same bytes in every run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_box
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.config import roots, strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.documents.root import Root
from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.enrolment import Enrolment
from config_manager.config.wire import Envelope, Signature

PATH = Path(__file__).resolve().parents[2] / "docs" / "vectors.json"

KEYS = {
    name: SigningKey(bytes([n]) * 32)
    for n, name in enumerate(("root", "config", "beacon", "instance", "root-2", "config-2"), 1)
}
SEAL_KEY = PrivateKey(bytes([0x11]) * 32)
OTHER_SEAL_KEY = PrivateKey(bytes([0x12]) * 32)
SERVICE, INSTANCE = "stt-worker", "kitchen"
TOPIC = wire.config_topic(SERVICE)
EPOCH = "11111111-2222-4333-8444-555555555555"
NOW = "2026-01-02T03:04:10.000Z"
AFTER_ROTATION = "2026-01-10T00:00:00.000Z"
AFTER_OLD_KEY = "2026-03-01T00:00:00.000Z"
TOKEN = "cm-example-one-time-token"


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
    last_attempt=Attempt(7, "healthy"),
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
    freshness="stale (withheld)",
    correlation_id="req-3",
    at="2026-01-02T03:06:00.000Z",
)
WILL = replace(RECEIPT, seq=8, gone=True, at="2026-01-02T03:03:59.000Z")


def ephemeral(name: str, version: int) -> PrivateKey:
    """A real sender draws one at random for each value, and forgets it."""
    return PrivateKey(hashlib.sha256(f"ephemeral {name} {version}".encode()).digest())


def sealing(
    sealed: Sealed, name: str, version: int, value: str, to: PrivateKey = SEAL_KEY
) -> dict[str, Any]:
    """crypto_box_seal, step by step, as the page says it."""
    sender = ephemeral(name, version)
    inside = {
        "service": sealed.service,
        "instance": sealed.instance,
        "name": name,
        "version": version,
        "epoch_seq": sealed.epoch_seq,
        "revision": sealed.revision,
        "value": value,
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
SEALED_TOPIC = wire.sealed_topic(SERVICE, INSTANCE)
STATUS_TOPIC = wire.status_topic(SERVICE, INSTANCE)

Signed = tuple[str, bytes, tuple[str, ...], str | None]
DOCUMENTS: dict[str, tuple[str, bytes, tuple[str, ...], str, str | None]] = {
    "root": (wire.ROOT, ROOT.to_bytes(), ("root",), wire.root_topic(1), None),
    "root-2": (wire.ROOT, ROOT_2.to_bytes(), ("root",), wire.root_topic(2), None),
    "root-3": (wire.ROOT, ROOT_3.to_bytes(), ("root", "root-2"), wire.root_topic(3), None),
    "root-4": (wire.ROOT, ROOT_4.to_bytes(), ("root", "root-2"), wire.root_topic(4), None),
    "config-update": (wire.CONFIG_UPDATE, UPDATE.to_bytes(), ("config",), TOPIC, "req-1"),
    "tombstone": (wire.CONFIG_UPDATE, TOMBSTONE.to_bytes(), ("config",), TOPIC, "req-2"),
    "sealed": (wire.SEALED, SEALED.to_bytes(), ("config",), SEALED_TOPIC, None),
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


# ── whole messages ─────────────────────────────────────────────────────────────────────────────


def messages() -> dict[str, dict[str, Any]]:
    beacon = envelope("beacon").to_object()
    snapshot = {**envelope("snapshot").to_object(), "beacon": beacon}
    keepalive = {
        "id": "3f0c6f5e-0000-4000-8000-000000000001",
        "type": "health.keepalive",
        "ts": "2026-01-02T03:04:06.000Z",
        "source": "config-manager",
        "data": {"beacon": beacon},
    }
    return {
        "snapshot": {
            "topic": wire.SNAPSHOT_TOPIC,
            "message": strict_json.dumps(snapshot).decode(),
        },
        "keepalive": {
            "topic": wire.KEEPALIVE_TOPIC,
            "message": strict_json.dumps(keepalive).decode(),
        },
    }


# ── how messages are judged ────────────────────────────────────────────────────────────────────

SEEN = {"epoch_seq": 1, "revision": 7, "digest": DIGEST}
STOLEN = {"epoch_seq": 1, "revision": 2**53 - 1, "digest": "f" * 64}


def update(*by: str, **fields: Any) -> str:
    payload = replace(UPDATE, **fields).to_bytes()
    return sign(wire.CONFIG_UPDATE, payload, *by).to_bytes().decode()


def flipped(name: str, member: str) -> str:
    """One bit of the payload's or the signature's base64, and base64 still."""
    made = json.loads(envelope(name).to_bytes())
    holder = made if member == "payload" else made["signatures"][0]
    text = holder[member]
    holder[member] = text[:7] + ("A" if text[7] != "A" else "B") + text[8:]
    return strict_json.dumps(made).decode()


def cases() -> list[dict[str, Any]]:
    good = envelope("config-update").to_bytes().decode()
    critical = json.loads(UPDATE.to_bytes()) | {"critical": ["rollout"], "rollout": "10%"}
    unknown = sign(wire.CONFIG_UPDATE, strict_json.dumps(critical), "config").to_bytes().decode()
    twice = json.loads(update("config", revision=9))
    twice["signatures"] *= 2

    def case(name: str, message: str, reason: str | None, **how: Any) -> dict[str, Any]:
        usual = {"topic": TOPIC, "under": "root", "now": NOW, "seen": None}
        return {"name": name, **usual, **how, "message": message, "reason": reason}

    old_key, new_key = update("config", revision=9), update("config-2", revision=9)
    return [
        case("good, first", good, None),
        case("good, again: a duplicate, no error", good, None, seen=SEEN),
        case("empty: never a deletion", "", "malformed"),
        case("not JSON", "{", "malformed"),
        case("one bit of the payload", flipped("config-update", "payload"), "bad-signature"),
        case("one bit of the signature", flipped("config-update", "sig"), "bad-signature"),
        case("signed by nobody we know", update("instance"), "unknown-key"),
        case("the right key in the wrong role", update("beacon"), "unknown-key"),
        case("another kind of document", document("snapshot")["envelope"], "wrong-type"),
        case("another service's", update("config", service="router"), "wrong-service"),
        case(
            "moved to another topic", good, "wrong-topic", topic=wire.config_topic("tts-worker")
        ),
        case("older than what was seen", update("config", revision=6), "rolled-back", seen=SEEN),
        case(
            "the same revision with other content",
            update("config", config={}),
            "equivocation",
            seen=SEEN,
        ),
        case(
            "an older epoch, whatever its revision",
            update("config", epoch_seq=0, revision=99),
            "rolled-back",
            seen=SEEN,
        ),
        case("critical names what we do not know", unknown, "unsupported-critical"),
        case("a number of 2^53", update("config", revision=2**53), "malformed"),
        case("a new key before its root came", new_key, "unknown-key", seen=SEEN),
        case("a new key, rotated in", new_key, None, seen=SEEN, under="root-2", now=AFTER_ROTATION),
        case(
            "the old key before its not_after",
            old_key, None, seen=SEEN, under="root-2", now=AFTER_ROTATION,
        ),
        case(
            "the old key past its not_after",
            old_key, "unknown-key", seen=SEEN, under="root-2", now=AFTER_OLD_KEY,
        ),
        case(
            "the old key once it is revoked",
            old_key, "unknown-key", seen=SEEN, under="root-4", now=AFTER_ROTATION,
        ),
        case(
            "the old key signs twice", json.dumps(twice), None,
            seen=SEEN, under="root-2", now=AFTER_ROTATION,
        ),
        case("behind a thief's mark, while his key is listed", old_key, "rolled-back", seen=STOLEN),
    ]  # fmt: skip


def root_cases() -> list[dict[str, Any]]:
    """trusted: the newest version that is; each case is about the next."""

    def signed(root: Root, *by: str) -> str:
        return sign(wire.ROOT, root.to_bytes(), *by).to_bytes().decode()

    def case(name: str, trusted: str, version: int, message: str, reason: str | None) -> Any:
        topic = wire.root_topic(version)
        return {
            "name": name, "trusted": trusted, "topic": topic, "now": AFTER_ROTATION,
            "message": message, "reason": reason,
        }  # fmt: skip

    lonely = replace(ROOT_3, roles={**ROOT_3.roles, "root": ROOT.roles["root"]})
    no_beacon = {name: role for name, role in ROOT_2.roles.items() if name != "beacon"}
    return [
        case("a configuration key rotated", "root", 2, signed(ROOT_2, "root"), None),
        case("two of two root keys", "root-2", 3, signed(ROOT_3, "root", "root-2"), None),
        case("the old configuration key revoked", "root-3", 4,
             signed(ROOT_4, "root-2", "root"), None),
        case("enough for the version before, not for its own", "root-2", 3,
             signed(ROOT_3, "root"), "unknown-key"),
        case("enough for its own, not for the version before", "root", 2,
             signed(replace(ROOT_2, roles={**ROOT_2.roles, "root": replace(
                 ROOT_2.roles["root"], keyids=(keyid("config-2"),))}), "config-2"), "unknown-key"),
        case("one key twice is one key", "root-3", 4,
             json.dumps(_doubled(json.loads(signed(ROOT_4, "root")))), "unknown-key"),
        case("signed by a key of another role", "root", 2, signed(ROOT_2, "config"), "unknown-key"),
        case("not signed by who it says", "root", 2, flipped("root-2", "sig"), "bad-signature"),
        case("on another version's topic", "root", 3, signed(ROOT_2, "root"), "wrong-topic"),
        case("a version left out", "root", 3, signed(lonely, "root"), "rolled-back"),
        case("a role is missing", "root", 2,
             signed(replace(ROOT_2, roles=no_beacon), "root"), "malformed"),
        case("another kind of document", "root", 2, document("sealed")["envelope"], "wrong-type"),
    ]  # fmt: skip


def _doubled(made: Any) -> Any:
    return {**made, "signatures": made["signatures"] * 2}


def sealed_cases() -> list[dict[str, Any]]:
    """kept: the highest (epoch_seq, revision) that was delivered before."""
    good = envelope("sealed").to_bytes().decode()
    seven = {"epoch_seq": 1, "revision": 7}

    def signed(sealed: Sealed, by: str = "config", kind: str = wire.SEALED) -> str:
        return sign(kind, sealed.to_bytes(), by).to_bytes().decode()

    def case(name: str, message: str, reason: str | None, **how: Any) -> dict[str, Any]:
        usual = {"under": "root", "now": NOW, "kept": seven}
        opens = {} if reason is not None else {"opens": _opened(message)}
        return {"name": name, **usual, **how, "message": message, "reason": reason, **opens}

    swapped = replace(
        SEALED,
        secrets={
            "api_key": replace(SEALED.secrets["password"], version=2),
            "password": replace(SEALED.secrets["api_key"], version=1),
        },
    )
    relabelled = replace(
        SEALED,
        secrets={**SEALED.secrets, "password": replace(SEALED.secrets["password"], version=2)},
    )
    newer = {**SECRETS, "password": (2, "correct horse")}
    later = replace(SEALED, revision=9)  # its values say revision 7 inside
    return [
        case("good, first", good, None, kept=None),
        case("sealed anew for the same revision", good, None),
        case("a newer version of one", signed(make_sealed(9, newer)), None),
        case("none left", signed(make_sealed(9, {})), None),
        case("signed by the key rotated in", signed(make_sealed(9), "config-2"), None,
             under="root-2", now=AFTER_ROTATION),
        case("signed by a revoked key", signed(make_sealed(9)), "unknown-key",
             under="root-4", now=AFTER_ROTATION),
        case("older than what was delivered", signed(make_sealed(6)), "rolled-back"),
        case("for another instance", signed(make_sealed(instance="cellar")), "wrong-service"),
        case("sealed to another key", signed(make_sealed(to=OTHER_SEAL_KEY)), "malformed"),
        case("two secrets in each other's place", signed(swapped), "malformed"),
        case("another version than was sealed", signed(relabelled), "malformed"),
        case("moved to a later revision", signed(later), "malformed"),
        case("signed by the beacon's key", signed(SEALED, "beacon"), "unknown-key"),
        case("one bit of the payload", flipped("sealed", "payload"), "bad-signature"),
        case("another kind of document", signed(SEALED, kind=wire.CONFIG_UPDATE), "wrong-type"),
        case("not JSON", "{", "malformed"),
    ]  # fmt: skip


def _opened(message: str) -> dict[str, str]:
    sealed = Sealed.parse(wire.parse_envelope(message.encode()).payload)
    known = {**SECRETS, "password@2": (2, "correct horse")}
    return {
        name: known[f"{name}@{held.version}" if f"{name}@{held.version}" in known else name][1]
        for name, held in sealed.secrets.items()
    }


# ── enrolment ──────────────────────────────────────────────────────────────────────────────────


def enrolment() -> dict[str, Any]:
    made = Enrolment(
        hashlib.sha256(TOKEN.encode()).hexdigest(),
        SERVICE,
        INSTANCE,
        public("instance"),
        bytes(SEAL_KEY.public_key),
    )
    statement = strict_json.dumps(
        {
            "token_sha256": made.token_sha256,
            "service": SERVICE,
            "instance": INSTANCE,
            "sign_public": base64.b64encode(made.sign_public).decode(),
            "seal_public": base64.b64encode(made.seal_public).decode(),
        }
    )
    proof = made.prove(bytes(KEYS["instance"]))
    body = {
        "token": TOKEN,
        "service": SERVICE,
        "instance": INSTANCE,
        "sign_public": base64.b64encode(made.sign_public).decode(),
        "seal_public": base64.b64encode(made.seal_public).decode(),
        "proof": base64.b64encode(proof).decode(),
    }
    other = base64.b64encode(bytes(OTHER_SEAL_KEY.public_key)).decode()
    by_another = base64.b64encode(made.prove(bytes(KEYS["config-2"]))).decode()
    return {
        "token": TOKEN,
        "token_sha256": made.token_sha256,
        "statement": statement.decode(),
        "pae_hex": wire.signed_bytes(wire.ENROLMENT, statement).hex(),
        "proof_hex": proof.hex(),
        "body": body,
        "cases": [
            {"name": "good", "proved": True, "body": body},
            {
                "name": "another token than was proved",
                "proved": False,
                "body": {**body, "token": TOKEN + "x"},
            },
            {
                "name": "another service",
                "proved": False,
                "body": {**body, "service": "tts-worker"},
            },
            {"name": "another instance", "proved": False, "body": {**body, "instance": "cellar"}},
            {
                "name": "somebody else's sealing key",
                "proved": False,
                "body": {**body, "seal_public": other},
            },
            {
                "name": "proved by another key",
                "proved": False,
                "body": {**body, "proof": by_another},
            },
        ],
    }


def make() -> dict[str, Any]:
    return {
        "comment": "Test vectors of docs/wire.md, made by tests/config/vectors.py. Seeds are Ed25519 "
        "seeds (RFC 8032); every signature is deterministic.",
        "seeds_hex": {name: bytes(key).hex() for name, key in KEYS.items()},
        "public_hex": {name: public(name).hex() for name in KEYS},
        "keyids": {name: keyid(name) for name in KEYS},
        "seal": {
            "private_hex": bytes(SEAL_KEY).hex(),
            "public_hex": bytes(SEAL_KEY.public_key).hex(),
        },
        "documents": {name: document(name) for name in DOCUMENTS},
        "sealings": [
            sealing(SEALED, name, version, value) for name, (version, value) in SECRETS.items()
        ],
        "messages": messages(),
        "enrolment": enrolment(),
        "cases": cases(),
        "root_cases": root_cases(),
        "sealed_cases": sealed_cases(),
    }


def to_text() -> str:
    return json.dumps(make(), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(to_text(), "utf-8")
