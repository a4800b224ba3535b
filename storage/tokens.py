"""Tokens as the registry keeps them: by name, the hash and never the token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from config_manager.config.access import EVERY_SERVICE, Grant, Role
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.administration import Administered
from config_manager.storage.state import Committed, RegistryRow

KIND = "token"


@dataclass(frozen=True, slots=True)
class Token:
    """hash: SHA-256 (hex) of the token's text, which has 256 random bits, so that no salt is needed.
    Times are RFC 3339; expires_at None means never."""

    name: str
    hash: str
    role: Role
    services: tuple[str, ...]
    created_at: str | None
    created_by: str
    expires_at: str | None = None
    last_used_at: str | None = None

    @property
    def grant(self) -> Grant:
        return Grant(self.name, self.role, self.services)

    def to_row(self) -> RegistryRow:
        value = {k: v for k, v in asdict(self).items() if k != "name"}
        return RegistryRow(KIND, self.name, value)

    @classmethod
    def of(cls, name: str, value: JsonObject) -> Token:
        return cls(
            name=name,
            hash=value["hash"],
            role=cast("Role", value["role"]),
            services=tuple(value["services"]),
            created_at=value["created_at"],
            created_by=value["created_by"],
            expires_at=value.get("expires_at"),
            last_used_at=value.get("last_used_at"),
        )


def tokens(committed: Committed) -> Mapping[str, Token]:
    """Every token that is not revoked, by name; expired ones too."""
    return {name: Token.of(name, row) for name, row in committed.registered(KIND).items()}


def hash_of(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


@dataclass(frozen=True, slots=True)
class AcceptAdminToken:
    """A token from the settings or the first start: for everything, under this name."""

    name: str
    token_hash: str

    def decide(self, _committed: Committed, now: float) -> Administered[None]:
        token = Token(self.name, self.token_hash, "admin", EVERY_SERVICE, rfc3339(now), "settings")
        details: dict[str, Any] = {"name": self.name, "role": "admin", "services": ["*"]}
        return Administered("token.accept", details, (token.to_row(),), None)
