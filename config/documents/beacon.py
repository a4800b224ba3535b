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
        return Fields.parse(payload, cls).read(cls)
