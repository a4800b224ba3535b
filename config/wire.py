"""DSSE envelopes, digests, and the only place that spells a topic.

Wire format: DSSE v1 (github.com/secure-systems-lab/dsse) with Ed25519 (RFC 8032).
A signature covers `DSSEv1 SP len(type) SP type SP len(body) SP body`; nothing is serialised again to be
checked. Nothing is trusted here: `config_manager.config.trust` decides whom to believe.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from config_manager.config import strict_json
from config_manager.config.names import OUR_ID

MAX_RECEIPT_BYTES = 64 * 1024
MAX_ENVELOPE_BYTES = 256 * 1024
MAX_SIGNATURES = 4

HEALTH_TOPIC = f"system/health/{OUR_ID}"
KEEPALIVE_TOPIC = f"system/keepalive/{OUR_ID}"
SUMMARY_TOPIC = f"system/config-summary/{OUR_ID}"
EVENTS_TOPIC = f"system/config-events/{OUR_ID}"
SNAPSHOT_TOPIC = f"system/config-snapshot/{OUR_ID}"
CONFIG_FILTER = "system/config/+"
ROOTS_PREFIX = "system/trust/roots/"
ROOTS_FILTER = ROOTS_PREFIX + "+"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROOTS_AHEAD = 3
"""A client's SUBSCRIBE has eight filters then; some brokers take no more at once (AWS IoT Core)."""
SEALED_FILTER = "system/config-sealed/+/+"
SCHEMA_PREFIX = "system/config-schema/"
SCHEMA_FILTER = SCHEMA_PREFIX + "+/+"
MAX_SCHEMA_BYTES = 64 * 1024
STATUS_PREFIX = "system/config-status/"
STATUS_FILTER = STATUS_PREFIX + "+/+"


def config_topic(service: str) -> str:
    return f"system/config/{service}"


def sealed_topic(service: str, instance: str) -> str:
    return f"system/config-sealed/{service}/{instance}"


def root_topic(version: int) -> str:
    return f"{ROOTS_PREFIX}{version}"


def next_root_topics(version: int) -> tuple[str, ...]:
    """The topics of the next versions. They are subscribed to by name, beside `ROOTS_FILTER`: some brokers give no
    retained message to a filter with a `+` (RabbitMQ)."""
    return tuple(map(root_topic, range(version + 1, version + 1 + _ROOTS_AHEAD)))


def root_version(topic: str) -> int:
    """The version of a root's topic. Raises ValueError for any other topic."""
    number = int(topic.removeprefix(ROOTS_PREFIX))
    if topic != root_topic(number):
        raise ValueError(f"no root's topic: {topic[:100]!r}")
    return number


def status_topic(service: str, instance: str) -> str:
    return f"{STATUS_PREFIX}{service}/{instance}"


def schema_topic(service: str, digest: str) -> str:
    """Where the instances that were built with this schema publish it."""
    return f"{SCHEMA_PREFIX}{service}/{digest}"


def _payload_type(kind: str) -> str:
    return f"application/vnd.config-manager.{kind}.v1+json"


CONFIG_UPDATE = _payload_type("config-update")
BEACON = _payload_type("beacon")
SNAPSHOT = _payload_type("snapshot")
ROOT = _payload_type("root")
SEALED = _payload_type("sealed")
RECEIPT = _payload_type("receipt")
AUDIT_EXPORT = _payload_type("audit-export")
REPORT = _payload_type("report")
ENROLMENT = _payload_type("enrolment")


class NotAnEnvelope(ValueError):
    """Not a DSSE envelope of ours; the message says why."""


class Signature(NamedTuple):
    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed document as it travels. `correlation_id` is outside the signature."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]
    correlation_id: str | None = None

    @property
    def digest(self) -> str:
        return digest(self.payload)

    @property
    def signers(self) -> frozenset[str]:
        """The keys that the signatures name. Only `trust.verified` says who really signed."""
        return frozenset(signature.keyid for signature in self.signatures)

    def to_object(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode()} for s in self.signatures
            ],
        }
        if self.correlation_id is not None:
            value["correlation_id"] = self.correlation_id
        return value

    def to_bytes(self) -> bytes:
        return strict_json.dumps(self.to_object())


def digest(payload: bytes) -> str:
    """A document's digest: SHA-256, in hex, of its payload bytes."""
    return hashlib.sha256(payload).hexdigest()


def is_digest(text: str) -> bool:
    """Whether this has the form of a digest."""
    return _DIGEST.fullmatch(text) is not None


def keyid(public_key: bytes) -> str:
    """A key's id: SHA-256, in hex, of the 32 raw bytes of the public key."""
    return hashlib.sha256(public_key).hexdigest()


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: exactly what an Ed25519 signature covers."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope_size(payload_bytes: int, correlation_id: str) -> int:
    """Bytes that a configuration's envelope will have, once it has one signature."""
    fixed = len(Envelope(CONFIG_UPDATE, b"", (Signature("0" * 64, bytes(64)),), "").to_bytes())
    return fixed + 4 * -(-payload_bytes // 3) + len(correlation_id)


def parse_envelope(data: bytes, *, least_signatures: int = 1) -> Envelope:
    """An envelope from the wire. Raises NotAnEnvelope. The caller checks the size first.

    least_signatures: 0 for a document that has yet to be signed.
    """
    try:
        value = strict_json.loads_object(data)
    except strict_json.NotStrictJson as error:
        raise NotAnEnvelope(str(error)) from None
    return envelope_from_object(value, least_signatures=least_signatures)


def envelope_from_object(value: Any, *, least_signatures: int = 1) -> Envelope:
    """An envelope from parsed JSON (the snapshot and the keepalive carry one inside)."""
    if not strict_json.is_object(value):
        raise NotAnEnvelope("expected an object")
    payload_type = value.get("payloadType")
    if not isinstance(payload_type, str):
        raise NotAnEnvelope("payloadType: expected a string")
    signatures = value.get("signatures")
    if (
        not strict_json.is_list(signatures)
        or not least_signatures <= len(signatures) <= MAX_SIGNATURES
    ):
        raise NotAnEnvelope(f"signatures: expected {least_signatures} to {MAX_SIGNATURES}")
    correlation_id = value.get("correlation_id")
    return Envelope(
        payload_type,
        _base64(value.get("payload"), "payload"),
        tuple(_signature(item) for item in signatures),
        correlation_id if isinstance(correlation_id, str) else None,
    )


def _signature(value: Any) -> Signature:
    key_id = value.get("keyid") if strict_json.is_object(value) else None
    if not isinstance(key_id, str):
        raise NotAnEnvelope("signatures: expected objects with keyid and sig")
    return Signature(key_id, _base64(value.get("sig"), "sig"))


def _base64(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise NotAnEnvelope(f"{name}: expected base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise NotAnEnvelope(f"{name}: not base64") from None
