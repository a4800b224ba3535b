"""A fleet made up of rows of the audit and signed receipts, and reports of it as a server makes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nacl.signing import SigningKey

from config_manager.client.testing.signed_documents import EPOCH, make_beacon, make_snapshot
from config_manager.config import strict_json, wire
from config_manager.config.audit import GENESIS
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.documents.report import AuditRow, Evidence, Report, evidence_sha256
from config_manager.config.documents.root import Root
from config_manager.config.names import Epoch, Mark
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.changes import Occasion, audit_row, empty
from config_manager.storage.decisions.compliance import Compliance, Said
from config_manager.storage.decisions.ledger import Ledger, Period, Row
from tests.kit import documents as m

T0 = 1_800_000_000.0
"""2027-01-15T08:00:00Z, when a fleet begins."""
SERVICE = "stt-worker"
KITCHEN, HALL, NEW_KITCHEN = (SigningKey(bytes([n]) * 32) for n in (21, 22, 23))
STAGES = ("received", "applied", "healthy")


def digest_of(service: str, revision: int) -> str:
    return wire.digest(f"{service} {revision}".encode())


def public_of(key: SigningKey) -> bytes:
    return key.verify_key.encode()


@dataclass
class Fleet:
    """Times are seconds after T0."""

    rows: list[AuditRow] = field(default_factory=list)
    receipts: list[Envelope] = field(default_factory=list)
    keys: dict[str, bytes] = field(default_factory=dict)
    updates: list[Envelope] = field(default_factory=list)
    roots: list[Envelope] = field(default_factory=lambda: [signed_root(m.make_root())])
    mark: Mark = Mark(1, 0)
    _before: Any = field(default_factory=lambda: empty(Epoch(1, EPOCH)))

    # ── what happens ────────────────────────────────────────────────────────────────────────────

    def row(self, at: float, action: str, **rest: Any) -> int:
        """Its number."""
        on = Occasion("ada", "why not", T0 + at, f"id-{len(self.rows) + 1}")
        entry = audit_row(self._before, on, action, self.mark, rest)
        self._before = replace(
            self._before, audit_seq=entry.seq, audit_head=entry.hash, revision=entry.revision
        )
        self.rows.append(AuditRow(entry.seq, entry.body, entry.hash))
        return entry.seq

    def change(
        self,
        at: float,
        service: str = SERVICE,
        *,
        action: str = "put",
        epoch_seq: int | None = None,
    ) -> int:
        """The revision."""
        revision = self.mark.revision + 1
        self.mark = Mark(epoch_seq or self.mark.epoch_seq, revision)
        digests = {service: digest_of(service, revision)}
        self.row(at, action, services={service: []}, config_epoch=EPOCH, digests=digests)
        return revision

    def enrol(self, at: float, instance: str, key: SigningKey, service: str = SERVICE) -> int:
        self.keys[m.key_id(key)] = public_of(key)
        details = {"service": service, "instance": instance, "sign_keyid": m.key_id(key)}
        return self.row(at, "device.enrol", details=details)

    def revoke(self, at: float, instance: str, service: str = SERVICE) -> int:
        return self.row(at, "device.revoke", details={"service": service, "instance": instance})

    def says(
        self,
        at: float,
        instance: str,
        key: SigningKey,
        order: tuple[int, int],
        revision: int | None,
        *,
        attempt: tuple[int, str] | None = None,
        **fields: Any,
    ) -> Envelope:
        """A receipt. attempt: what was tried, and how far it came."""
        service = fields.pop("service", SERVICE)
        epoch_seq = fields.pop("epoch_seq", self.mark.epoch_seq)
        running = revision and Running(epoch_seq, revision, digest_of(service, revision))
        receipt = replace(
            m.RECEIPT,
            service=service,
            instance=instance,
            boot_seq=order[0],
            seq=order[1],
            running=running or None,
            last_attempt=None if attempt is None else Attempt(attempt[0], attempt[1]),  # type: ignore[arg-type]
            freshness="fresh",
            overrides=(),
            correlation_id=None,
            gone=False,
            at=rfc3339(T0 + at),
        )
        envelope = m.sign(wire.RECEIPT, replace(receipt, **fields).to_bytes(), key)
        self.receipts.append(envelope)
        return envelope

    # ── the report of it ────────────────────────────────────────────────────────────────────────

    def evidence(self, made_at: float, *, first: int = 1) -> Evidence:
        beacon = make_beacon(
            make_snapshot({}, 0, m.BEACON_KEY),
            1,
            key=m.BEACON_KEY,
            audit_head=self.rows[-1].hash if self.rows else GENESIS,
            issued_at=rfc3339(T0 + made_at),
        )
        return Evidence(
            self.roots,
            self.updates,
            self.receipts,
            self.keys,
            self.rows[first - 1 :],
            [beacon.to_object()],
        )

    def claims(
        self, begin: float, end: float, made_at: float = 10_000, service: str | None = None
    ) -> JsonObject:
        """What can be said of it."""
        return claimed(self.evidence(made_at), begin, end, made_at, service)

    def report(
        self,
        begin: float,
        end: float,
        *,
        made_at: float = 10_000,
        service: str | None = None,
        key: SigningKey = m.CONFIG_KEY,
        first: int = 1,
    ) -> bytes:
        """The file, as a server makes it that holds this."""
        evidence = self.evidence(made_at, first=first)
        services = claimed(evidence, begin, end, made_at, service)
        return file_of(evidence.to_object(), begin, end, made_at, services, key)


def claimed(
    evidence: Evidence, begin: float, end: float, made_at: float, service: str | None
) -> JsonObject:
    rows = [Row(row.seq, json.loads(row.body)) for row in evidence.rows]
    said = [
        Said(Receipt.parse(one.payload), one.signatures[0].keyid, one.digest)
        for one in evidence.receipts
    ]
    span = Period(T0 + begin, T0 + end)
    services = None if service is None else (service,)
    return Compliance(Ledger(rows, T0 + made_at), said, span, services).claims()


def file_of(
    evidence: Mapping[str, Any],
    begin: float,
    end: float,
    made_at: float,
    services: JsonObject,
    key: SigningKey = m.CONFIG_KEY,
) -> bytes:
    report = Report(
        rfc3339(T0 + begin),
        rfc3339(T0 + end),
        rfc3339(T0 + made_at),
        "ada",
        evidence_sha256(evidence),
        services,
    )
    envelope = m.sign(wire.REPORT, report.to_bytes(), key)
    return strict_json.dumps({"report": envelope.to_object(), "evidence": evidence})


def signed_root(root: Root, *keys: SigningKey) -> Envelope:
    return m.sign(wire.ROOT, root.to_bytes(), *(keys or (m.ROOT_KEY,)))


def pinned(fleet: Fleet) -> bytes:
    return fleet.roots[0].to_bytes()


def in_base64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def segments(told: JsonObject, instance: str, service: str = SERVICE) -> list[tuple[Any, ...]]:
    """(from, to, revision, state, proof), times in seconds after T0."""
    return [
        (
            seconds(one["from"]),
            seconds(one["to"]),
            one["revision"],
            one["state"],
            one["proof"],
        )
        for one in told[service]["instances"][instance]["segments"]
    ]


def seconds(text: str) -> float:
    from config_manager.config.world import parse_rfc3339

    return round(parse_rfc3339(text) - T0, 3)


def story() -> Fleet:
    """Two changes, two instances: the kitchen's runs both, the hall's is refused the second and then goes."""
    fleet = Fleet()
    fleet.enrol(10, "kitchen-pi", KITCHEN)
    fleet.enrol(11, "hall-pi", HALL)
    one = fleet.change(100)
    fleet.says(101, "kitchen-pi", KITCHEN, (1, 2), one, attempt=(one, "applied"))
    fleet.says(102, "kitchen-pi", KITCHEN, (1, 3), one, attempt=(one, "healthy"))
    fleet.says(101, "hall-pi", HALL, (7, 2), one, attempt=(one, "applied"))
    two = fleet.change(1000)
    fleet.says(1001, "kitchen-pi", KITCHEN, (1, 4), one, attempt=(two, "received"))
    fleet.says(1002, "kitchen-pi", KITCHEN, (1, 5), two, attempt=(two, "applied"))
    fleet.says(1061, "kitchen-pi", KITCHEN, (1, 6), two, attempt=(two, "healthy"))
    fleet.says(1001, "hall-pi", HALL, (7, 3), one, attempt=(two, "refused"))
    fleet.says(2000, "hall-pi", HALL, (7, 4), one, attempt=(two, "refused"), gone=True)
    return fleet
