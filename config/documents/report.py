"""What a server says of a moment or a span: who wanted what, which instance ran what, and how far that is proved.

A report is a file of two members: the signed report, and the evidence that it is worked out from. With the trust root,
and nothing else, anybody can work it out again (`storage.decisions.report_checks`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config_manager.config import strict_json, wire
from config_manager.config.documents.fields import Fields, NotADocument
from config_manager.config.strict_json import JsonObject, is_object
from config_manager.config.wire import Envelope


class _Members:
    __slots__ = ("evidence_sha256", "from", "made_at", "made_by", "services", "to")


@dataclass(frozen=True, slots=True)
class Report:
    """begin, end: the span (RFC 3339), `from` and `to` in the payload; the same for a moment. evidence_sha256: see
    `evidence_sha256`. services: as `storage.decisions.compliance.claims` works them out."""

    begin: str
    end: str
    made_at: str
    made_by: str
    evidence_sha256: str
    services: JsonObject

    def to_bytes(self) -> bytes:
        return strict_json.dumps(
            {
                "format": 1,
                "from": self.begin,
                "to": self.end,
                "made_at": self.made_at,
                "made_by": self.made_by,
                "evidence_sha256": self.evidence_sha256,
                "services": self.services,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Report:
        fields = Fields.parse(payload, _Members, with_format=True)
        services = fields.object("services")
        if not all(map(is_object, services.values())):
            raise NotADocument("services: expected an object for each service")
        return cls(
            fields.text("from"),
            fields.text("to"),
            fields.text("made_at"),
            fields.text("made_by"),
            fields.text("evidence_sha256"),
            services,
        )


class AuditRow(NamedTuple):
    """A row of the audit as evidence. body: as it was hashed."""

    seq: int
    body: bytes
    hash: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """roots: every version of the trust root, as retained. updates: the configurations whose content is shown. keys: the
    raw public keys of instances, by id. rows: of the audit, without gaps. heads: beacons, one of which signed the hash of
    the last row."""

    roots: Sequence[Envelope]
    updates: Sequence[Envelope]
    receipts: Sequence[Envelope]
    keys: Mapping[str, bytes]
    rows: Sequence[AuditRow]
    heads: Sequence[JsonObject]

    def to_object(self) -> JsonObject:
        return {
            "roots": [one.to_object() for one in self.roots],
            "updates": [one.to_object() for one in self.updates],
            "receipts": [one.to_object() for one in self.receipts],
            "keys": {name: base64.b64encode(key).decode() for name, key in self.keys.items()},
            "audit": {
                "rows": [
                    [row.seq, row.body.decode("utf-8", errors="replace"), row.hash]
                    for row in self.rows
                ],
                "heads": list(self.heads),
            },
        }


def evidence_sha256(evidence: object) -> str:
    """Of the evidence as it is in the file: compact JSON in UTF-8, members in their order. Spaces and line ends of the
    file do not count, so a file that was printed for people verifies as well."""
    return wire.digest(strict_json.dumps(evidence))
