"""Signed documents by fixed keys: roots, configurations, snapshots, beacons, receipts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.client.testing import signed_documents
from config_manager.client.testing.signed_documents import (
    keepalive_message,
    key_id,
    sign,
    snapshot_message,
)
from config_manager.config import wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate, Variant
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.documents.report import Report
from config_manager.config.documents.root import Root
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.wire import Envelope
from config_manager.config.world import rfc3339

__all__ = ["key_id", "sign"]  # from here too, for who makes documents here

STEADY = settings(deadline=None, derandomize=True, max_examples=100)
"""The same examples in every run, however slow the machine."""

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
"""Any text that strict JSON takes: no lone surrogate, no NUL."""

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

json_objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(texts, json_values, max_size=4)

ROOT_KEY, CONFIG_KEY, BEACON_KEY, STRANGER, SECOND_ROOT, SECOND_CONFIG = (
    SigningKey(bytes([n]) * 32) for n in range(1, 7)
)
SERVICE = "stt-worker"
TOPIC = "system/config/stt-worker"
NOW = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""


def make_root(
    version: int = 1,
    *,
    root: tuple[SigningKey, ...] = (ROOT_KEY,),
    config: tuple[SigningKey, ...] = (CONFIG_KEY,),
    beacon: tuple[SigningKey, ...] = (BEACON_KEY,),
    thresholds: Mapping[str, int] | None = None,
    not_after: Mapping[str, str] | None = None,
) -> Root:
    """not_after: dates by key id."""
    roles = {"root": root, "config": config, "beacon": beacon}
    return signed_documents.make_root(version, roles, thresholds=thresholds, not_after=not_after)


UPDATE = ConfigUpdate(
    service=SERVICE,
    topic=TOPIC,
    config_epoch="00000000-0000-4000-8000-000000000001",
    epoch_seq=3,
    revision=17,
    previous="ab" * 32,
    issued_at="2026-01-02T03:04:05.678Z",
    config={"whisper_model": "base.en", "vad_threshold": 0.5, "naïve": [1, None, {"é": True}]},
    defaulted=("vad_threshold",),
    secrets={"api_key": 2},
    deleted=False,
    correlation_id="req-1",
    not_after="2026-06-01T00:00:00.000Z",
)
UPDATE_WITH_VARIANTS = replace(
    UPDATE,
    content="17",
    variants=(Variant(("ab" * 32, "cd" * 32), {"vad": 0.5}, ("vad",)), Variant((), {}, ())),
)
SNAPSHOT = Snapshot("00000000-0000-4000-8000-000000000001", 3, 17, {SERVICE: (17, "cd" * 32)})
REPORT = Report(
    begin="2026-01-01T00:00:00.000Z",
    end="2026-02-01T00:00:00.000Z",
    made_at="2026-02-01T08:00:00.000Z",
    made_by="ada",
    evidence_sha256="ef" * 32,
    services={
        SERVICE: {
            "wanted": [
                {
                    "revision": 17,
                    "digest": "ab" * 32,
                    "from": "2026-01-02T03:04:05.678Z",
                    "to": None,
                    "by": "ci",
                    "reason": "naïve",
                    "approved_by": None,
                    "correlation_id": "r-1",
                }
            ],
            "instances": {
                "kitchen-pi": {
                    "keyid": "cd" * 32,
                    "enrolled_seq": 3,
                    "segments": [
                        {
                            "revision": 17,
                            "digest": "ab" * 32,
                            "state": "in-line",
                            "from": "2026-01-01T00:00:00.000Z",
                            "to": "2026-02-01T00:00:00.000Z",
                            "proof": "between",
                        }
                    ],
                    "missing_seq": 0,
                }
            },
        }
    },
)
BEACON = Beacon(
    "00000000-0000-4000-8000-000000000001", 3, 17, "cd" * 32, 1, "ef" * 32,
    4, 9, "2026-01-02T03:04:05.678Z", 30,
)  # fmt: skip


def make_receipt(running: Running | None, **fields: Any) -> Receipt:
    """The first receipt of an instance that runs this, with nothing else to say."""
    values: dict[str, Any] = {
        "service": SERVICE, "instance": "kitchen", "boot_seq": 1, "seq": 1, "running": running, "last_attempt": None,
        "source": "broker", "freshness": "fresh", "overrides": (), "schema": "0" * 64, "library": "a test",
        "correlation_id": None, "gone": False, "at": rfc3339(NOW),
    }  # fmt: skip
    return Receipt(**{**values, **fields})


RECEIPT = Receipt(
    service=SERVICE,
    instance="kitchen",
    boot_seq=4,
    seq=9,
    running=Running(3, 17, "cd" * 32),
    last_attempt=Attempt(18, "refused", "model"),
    source="broker",
    freshness="fresh",
    overrides=("whisper_model",),
    schema="ab" * 32,
    library="0.1.0",
    correlation_id=None,
    gone=False,
    at="2026-01-02T03:04:05.678Z",
)

RECEIPT_WITH_CONTENT = replace(
    RECEIPT,
    running=Running(3, 17, "cd" * 32, "17"),
    last_attempt=Attempt(18, "poisoned", "died", 2, "18"),
)


def root_bytes(root: Root | None = None) -> bytes:
    return sign(wire.ROOT, (root or make_root()).to_bytes(), ROOT_KEY).to_bytes()


def make_update(revision: int = 1, **fields: Any) -> ConfigUpdate:
    given = {"config": {"whisper_model": "base.en", "n": revision}, **fields}
    return signed_documents.make_update(given.pop("service", SERVICE), revision, **given)


def update_bytes(revision: int = 1, key: SigningKey = CONFIG_KEY, **fields: Any) -> bytes:
    return sign(wire.CONFIG_UPDATE, make_update(revision, **fields).to_bytes(), key).to_bytes()


def raw_update(changes: dict[str, Any], revision: int = 1) -> bytes:
    """Signed, but with fields that the writer's own class would not make."""
    value = {**json.loads(make_update(revision).to_bytes()), **changes}
    return sign(wire.CONFIG_UPDATE, json.dumps(value).encode(), CONFIG_KEY).to_bytes()


def entry(revision: int, **fields: Any) -> tuple[int, str]:
    return (revision, wire.digest(make_update(revision, **fields).to_bytes()))


def make_snapshot(
    services: dict[str, tuple[int, str]], revision: int = 9, key: SigningKey = BEACON_KEY
) -> Envelope:
    return signed_documents.make_snapshot(services, revision, key)


def make_beacon(
    snapshot: Envelope, seq: int, *, key: SigningKey = BEACON_KEY, **fields: Any
) -> Envelope:
    """fields: of `Beacon`."""
    return signed_documents.make_beacon(snapshot, seq, key=key, **{"revision": 9, **fields})


def snapshot_bytes(services: dict[str, tuple[int, str]], seq: int, **fields: Any) -> bytes:
    snapshot = make_snapshot(services, key=fields.get("key", BEACON_KEY))
    return snapshot_message(snapshot, make_beacon(snapshot, seq, **fields))


def keepalive_bytes(services: dict[str, tuple[int, str]], seq: int, **fields: Any) -> bytes:
    """The beacon names the snapshot of the same services, whoever signed that."""
    return keepalive_message(make_beacon(make_snapshot(services), seq, **fields))
