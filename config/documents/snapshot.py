"""What the whole fleet should hold, in one retained message, signed by the beacon key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, NotADocument, members


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every service should hold: service → (revision, digest of its payload)."""

    config_epoch: str
    epoch_seq: int
    revision: int
    services: Mapping[str, tuple[int, str]]

    def to_bytes(self) -> bytes:
        return strict_json.dumps({**members(self), "services": dict(self.services)})

    @classmethod
    def parse(cls, payload: bytes) -> Snapshot:
        return Fields.parse(payload, cls).read(cls, services=_services)


def _services(fields: Fields, name: str) -> dict[str, tuple[int, str]]:
    services: dict[str, tuple[int, str]] = {}
    for service, pair in fields.object(name).items():
        match pair:
            case [revision, str(digest)]:
                services[service] = (fields.number(revision, name), digest)
            case _:
                raise NotADocument(f"{name}: expected [revision, digest]")
    return services
