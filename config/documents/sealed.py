"""A service's secrets on their way to one instance, signed by a config key."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, members
from config_manager.config.names import Mark


@dataclass(frozen=True, slots=True)
class SealedValue:
    """One secret's version, sealed to one instance (`config.sealing`)."""

    version: int
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A service's secrets for one of its instances. epoch_seq, revision: the service's, when this was
    sealed; a later one never goes back."""

    service: str
    instance: str
    epoch_seq: int
    revision: int
    secrets: Mapping[str, SealedValue]

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch_seq, self.revision)

    def to_bytes(self) -> bytes:
        secrets = {
            name: {
                "version": value.version,
                "ciphertext": base64.b64encode(value.ciphertext).decode(),
            }
            for name, value in self.secrets.items()
        }
        return strict_json.dumps({"format": 1, **members(self), "secrets": secrets, "critical": []})

    @classmethod
    def parse(cls, payload: bytes) -> Sealed:
        return Fields.parse(payload, cls, with_format=True).read(cls, secrets=_secrets)


def _secrets(fields: Fields, name: str) -> dict[str, SealedValue]:
    return {
        secret: Fields.of(item, f"{name}.{secret[:64]}").read(SealedValue, ciphertext=Fields.base64)
        for secret, item in fields.object(name).items()
    }
