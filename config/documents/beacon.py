"""Proof of life: signed again and again, so that silence shows."""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, members


@dataclass(frozen=True, slots=True)
class Beacon:
    """How far the publisher has come; rising by (boot_seq, seq), good for valid_s seconds.

    snapshot: the digest of the snapshot that goes with it.
    """

    config_epoch: str
    epoch_seq: int
    revision: int
    snapshot: str
    root_version: int
    audit_head: str
    boot_seq: int
    seq: int
    issued_at: str
    valid_s: int

    @property
    def order(self) -> tuple[int, int]:
        return (self.boot_seq, self.seq)

    def to_bytes(self) -> bytes:
        return strict_json.dumps(members(self))

    @classmethod
    def parse(cls, payload: bytes) -> Beacon:
        fields = Fields.parse(payload, cls)
        return cls(
            config_epoch=fields.text("config_epoch"),
            epoch_seq=fields.integer("epoch_seq"),
            revision=fields.integer("revision"),
            snapshot=fields.text("snapshot"),
            root_version=fields.integer("root_version"),
            audit_head=fields.text("audit_head"),
            boot_seq=fields.integer("boot_seq"),
            seq=fields.integer("seq"),
            issued_at=fields.text("issued_at"),
            valid_s=fields.integer("valid_s"),
        )
