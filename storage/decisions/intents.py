"""What a caller wants written: the intents that `storage.decisions.changes.decide` decides on."""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.terms import Precondition


@dataclass(frozen=True, kw_only=True)
class Put:
    """Replace a service's stored values. preconditions: each has to hold."""

    service: str
    values: JsonObject
    preconditions: tuple[Precondition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Merge into a service's stored values (RFC 7396)."""

    service: str
    patch: JsonObject
    preconditions: tuple[Precondition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete: a revision of its own, published as a tombstone."""

    service: str
    preconditions: tuple[Precondition, ...] = ()


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
