"""What a service is told: its configuration, signed by a config key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, members
from config_manager.config.names import Mark
from config_manager.config.strict_json import JsonObject


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """One service's configuration, or its tombstone (`deleted`)."""

    service: str
    topic: str
    config_epoch: str
    epoch_seq: int
    revision: int
    previous: str | None
    issued_at: str
    not_after: str | None = field(default=None, kw_only=True)
    config: JsonObject
    defaulted: tuple[str, ...]
    secrets: Mapping[str, int]
    deleted: bool
    correlation_id: str
    critical: tuple[str, ...] = ()

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch_seq, self.revision)

    def to_bytes(self) -> bytes:
        return strict_json.dumps({"format": 1, **members(self), "secrets": dict(self.secrets)})

    @classmethod
    def parse(cls, payload: bytes) -> ConfigUpdate:
        return Fields.parse(payload, cls, with_format=True).read(cls, secrets=Fields.integers)
