"""The one maker of signed documents for what plays a publisher: the fake one, the conformance kit, tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nacl.signing import SigningKey

from config_manager.config import wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import KeyRole, Root, RootKey
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.wire import Envelope, Signature

EPOCH = "00000000-0000-4000-8000-000000000000"
_SOME_TIME = "2026-01-01T00:00:00.000Z"


def key_id(key: SigningKey) -> str:
    return wire.keyid(key.verify_key.encode())


def sign(
    payload_type: str, payload: bytes, *keys: SigningKey, correlation_id: str | None = None
) -> Envelope:
    """An envelope with a signature by each key, in this order; no signature if no key is given."""
    signed = wire.signed_bytes(payload_type, payload)
    signatures = tuple(Signature(key_id(k), k.sign(signed).signature) for k in keys)
    return Envelope(payload_type, payload, signatures, correlation_id)


def make_root(
    version: int,
    roles: Mapping[str, Sequence[SigningKey]],
    *,
    thresholds: Mapping[str, int] | None = None,
    not_after: Mapping[str, str] | None = None,
) -> Root:
    """thresholds: by role, 1 if it has none. not_after: dates by key id."""
    dates = not_after or {}
    return Root(
        version,
        _SOME_TIME,
        {
            key_id(key): RootKey(key.verify_key.encode(), dates.get(key_id(key)))
            for keys in roles.values()
            for key in keys
        },
        {
            name: KeyRole(tuple(map(key_id, keys)), (thresholds or {}).get(name, 1))
            for name, keys in roles.items()
        },
    )


def make_update(service: str, revision: int, **fields: Any) -> ConfigUpdate:
    """fields: of `ConfigUpdate`."""
    values: dict[str, Any] = {
        "service": service,
        "topic": wire.config_topic(service),
        "config_epoch": EPOCH,
        "epoch_seq": 1,
        "revision": revision,
        "previous": None,
        "issued_at": _SOME_TIME,
        "config": {"n": revision},
        "defaulted": (),
        "secrets": {},
        "deleted": False,
        "correlation_id": f"id-{revision}",
    }
    return ConfigUpdate(**{**values, **fields})


def make_snapshot(
    services: Mapping[str, tuple[int, str]], revision: int, key: SigningKey
) -> Envelope:
    """services: name → revision and digest."""
    return sign(wire.SNAPSHOT, Snapshot(EPOCH, 1, revision, dict(services)).to_bytes(), key)


def make_beacon(snapshot: Envelope, seq: int, *, key: SigningKey, **fields: Any) -> Envelope:
    """fields: of `Beacon`."""
    values: dict[str, Any] = {
        "config_epoch": EPOCH,
        "epoch_seq": 1,
        "revision": 0,
        "snapshot": snapshot.digest,
        "root_version": 1,
        "audit_head": "0" * 64,
        "boot_seq": 1,
        "seq": seq,
        "issued_at": _SOME_TIME,
        "valid_s": 30,
    }
    return sign(wire.BEACON, Beacon(**{**values, **fields}).to_bytes(), key)


def snapshot_message(snapshot: Envelope, beacon: Envelope) -> bytes:
    """As it is retained: the snapshot, and beside it the beacon that names it."""
    return json.dumps({**snapshot.to_object(), "beacon": beacon.to_object()}).encode()


def keepalive_message(beacon: Envelope) -> bytes:
    frame = {"type": "health.keepalive", "data": {"beacon": beacon.to_object()}}
    return json.dumps(frame).encode()
