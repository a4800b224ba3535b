"""Tokens: 256 random bits each. The registry keeps a hash of each by name, never the token."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from config_manager.config.access import EVERY_SERVICE, Grant, Role
from config_manager.config.errors import Conflict, NotFound
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import Randomness, parse_rfc3339
from config_manager.storage.decisions.administration import administered, noted
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.state import Committed, RegistryRow

KIND = "token"
PREFIX = "cfgmgr_"
"""Secret scanners find a leaked token by `cfgmgr_[0-9a-f]{72}`: 256 bits and their CRC-32."""
_TOKEN_BYTES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RESERVED = frozenset({"anonymous", "dev", "settings", "admin", "bootstrap", "config-manager"})
"""Names that logs and audit use for others than the tokens that operators make."""


def make_token(randomness: Randomness) -> Secret:
    """A new token's text."""
    digits = randomness.token(_TOKEN_BYTES).hex()
    return Secret(f"{PREFIX}{digits}{zlib.crc32(digits.encode()):08x}")


def is_token_name(text: str) -> bool:
    """Whether an operator may give a token this name."""
    return _NAME.fullmatch(text) is not None and text not in _RESERVED


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

    def is_expired(self, now: float) -> bool:
        """now: Unix seconds."""
        return self.expires_at is not None and parse_rfc3339(self.expires_at) <= now

    def to_row(self) -> RegistryRow:
        value = {k: v for k, v in asdict(self).items() if k != "name"}
        return RegistryRow(KIND, self.name, {**value, "services": list(self.services)})

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
    """Accept a token from the settings or the first start: it may do everything, under this name."""

    name: str
    token_hash: str

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        token = Token(self.name, self.token_hash, "admin", EVERY_SERVICE, on.at, "settings")
        details: dict[str, Any] = {"name": self.name, "role": "admin", "services": ["*"]}
        return administered(before, on, "token.accept", details, (token.to_row(),), None)


@dataclass(frozen=True, slots=True)
class CreateToken:
    """Make a token under a free name. Its text never comes here. expires_at: RFC 3339; None: never.

    Refused with Conflict if the name is taken.
    """

    name: str
    token_hash: str
    role: Role
    services: tuple[str, ...]
    expires_at: str | None

    def decide(self, before: Committed, on: Occasion) -> Decided[Token]:
        if self.name in before.registered(KIND):
            raise Conflict(
                f"there is a token {self.name!r} already; revoke it first, or choose another name"
            )
        token = Token(
            self.name,
            self.token_hash,
            self.role,
            self.services,
            on.at,
            on.by,
            self.expires_at,
        )
        details: dict[str, Any] = {
            "name": self.name,
            "role": self.role,
            "services": list(self.services),
            "expires_at": self.expires_at,
        }
        return administered(before, on, "token.create", details, (token.to_row(),), token)


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Make the token unknown from now on.

    Refused with NotFound, and with Conflict if no token would be left that may make tokens.
    """

    name: str

    def decide(self, before: Committed, on: Occasion) -> Decided[JsonObject]:
        known = tokens(before)
        token = known.get(self.name)
        if token is None:
            raise NotFound(f"there is no token {self.name!r}")
        left = [one for one in known.values() if _may_make_tokens(one, on.now)]
        if left == [token]:
            raise Conflict(
                f"{self.name!r} is the last token that may do everything; make another one first, "
                "or nobody can make tokens any more"
            )
        details: dict[str, Any] = {"name": self.name, "role": token.role}
        gone = RegistryRow(KIND, self.name, None)
        return administered(before, on, "token.revoke", details, (gone,), details, repeatable=True)


def _may_make_tokens(token: Token, now: float) -> bool:
    grant = token.grant
    return grant.role == "admin" and not grant.is_narrowed and not token.is_expired(now)


@dataclass(frozen=True, slots=True)
class NoteTokenUses:
    """Note when tokens were last used. uses: the token's hash → RFC 3339. Bookkeeping: not audited."""

    uses: Mapping[str, str]

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        rows = tuple(
            replace(token, last_used_at=self.uses[token.hash]).to_row()
            for token in tokens(before).values()
            if token.hash in self.uses  # one that was revoked meanwhile stays revoked
        )
        return noted(before, on, rows)
