"""The signed end of an exported audit."""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, members


@dataclass(frozen=True, slots=True)
class AuditExport:
    """The end of the audit when it was exported: row number `rows` has the hash `head`, and with it
    every row before it is what it was."""

    rows: int
    head: str
    config_epoch: str
    epoch_seq: int
    revision: int
    exported_at: str
    exported_by: str

    def to_bytes(self) -> bytes:
        return strict_json.dumps({"format": 1, **members(self)})

    @classmethod
    def parse(cls, payload: bytes) -> AuditExport:
        return Fields.parse(payload, cls, with_format=True).read(cls)
