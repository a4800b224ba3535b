"""The trust root: which keys sign what."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from config_manager.config import strict_json
from config_manager.config.documents.fields import Fields, NotADocument, members
from config_manager.config.public_keys import KEY_BYTES
from config_manager.config.wire import keyid

ROLES = ("root", "config", "beacon")


@dataclass(frozen=True, slots=True)
class RootKey:
    """A public key in the root; past `not_after` (RFC 3339, or never) it is as good as absent."""

    public: bytes
    not_after: str | None = None


@dataclass(frozen=True, slots=True)
class KeyRole:
    """Who may sign for a role: `threshold` distinct keys of `keyids`."""

    keyids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class Root:
    """Version n is signed by n's and n-1's root keys."""

    version: int
    issued_at: str
    keys: Mapping[str, RootKey]
    roles: Mapping[str, KeyRole] = field(default_factory=dict[str, KeyRole])

    def to_bytes(self) -> bytes:
        keys = {
            key_id: {
                "keytype": "ed25519",
                "public": base64.b64encode(key.public).decode(),
                "not_after": key.not_after,
            }
            for key_id, key in self.keys.items()
        }
        return strict_json.dumps({**members(self), "keys": keys, "roles": dict(self.roles)})

    @classmethod
    def parse(cls, payload: bytes) -> Root:
        return Fields.parse(payload, cls).read(cls, keys=_keys, roles=_roles)


def _keys(fields: Fields, name: str) -> dict[str, RootKey]:
    keys: dict[str, RootKey] = {}
    for key_id, item in fields.object(name).items():
        key = Fields.of(item, f"{name}.{key_id[:16]}")
        if key.text("keytype") != "ed25519":
            continue  # leave out a key whose type this version can't check
        keys[key_id] = key.read(RootKey, public=Fields.base64)
        public = keys[key_id].public
        if len(public) != KEY_BYTES:
            raise NotADocument(f"{name}: public is not 32 bytes")
        if keyid(public) != key_id:
            raise NotADocument(f"{name}: {key_id[:16]} is not the digest of its key")
    return keys


def _roles(fields: Fields, name: str) -> dict[str, KeyRole]:
    roles: dict[str, KeyRole] = {}
    for role, item in fields.object(name).items():
        where = f"{name}.{role[:16]}"
        roles[role] = signers = Fields.of(item, where).read(KeyRole)
        if not 1 <= signers.threshold <= len(set(signers.keyids)):
            raise NotADocument(
                f"{where}: threshold {signers.threshold} of {len(signers.keyids)} keys"
            )
    if missing := [role for role in ROLES if role not in roles]:
        raise NotADocument(f"{name}: {', '.join(missing)} missing")
    return roles
