"""What somebody wants written, before anybody decided: the inputs of `storage.changes.decide`."""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject


@dataclass(frozen=True, kw_only=True)
class Put:
    """Replace a service's stored values. if_match, if_none_match: the caller's headers, or None."""

    service: str
    values: JsonObject
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Merge into a service's stored values (RFC 7396)."""

    service: str
    patch: JsonObject
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete: a revision of its own, published as a tombstone."""

    service: str
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewEpoch:
    """Replace the stored values of several services at once, all or none."""

    services: dict[str, JsonObject]


@dataclass(frozen=True, kw_only=True)
class SetSecret:
    """Store a secret; a revision of the service that names the secret's new version."""

    service: str
    name: str
    value: Secret


@dataclass(frozen=True, kw_only=True)
class DeleteSecret:
    """Delete every version of a secret; a revision of the service that no longer names it."""

    service: str
    name: str


Intent = Put | Patch | Delete | NewEpoch | SetSecret | DeleteSecret
