"""Every message beside the reply it gets, in the order in which one PUT meets them.

An actor answers with the reply type named here or refuses with a `config.errors.Refused`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from config_manager.actors.actor import Request
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope
from config_manager.storage.state import (
    Committed,
    HistoryPage,
    HistoryQuery,
    KeyChange,
    ServiceState,
)

R = TypeVar("R")


# ── storing ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's Idempotency-Key, and a digest of everything else that makes the request."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Request[R]):
    """What every write says. by: who. reason: why, in the operator's words."""

    by: str
    reason: str | None = None
    idempotency: Idempotency | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """An accepted write (or, for a dry run, what it would be).

    first: the service was not there before. replayed: an earlier answer to the same
    Idempotency-Key; then `changes` is empty and `state` is as it was answered.
    """

    state: ServiceState
    first: bool
    changes: tuple[KeyChange, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PutConfig(Write[Written]):
    """Replace a service's stored values. if_match: the revision the caller read, `*`, or None."""

    service: str
    values: JsonObject
    if_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchConfig(Write[Written]):
    """Merge into a service's stored values (RFC 7396)."""

    service: str
    patch: JsonObject
    if_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteConfig(Write[Written]):
    """Delete: a revision of its own, published as a tombstone."""

    service: str
    if_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSecret(Write[Written]):
    """Store a secret; a revision of the service that names the secret's new version."""

    service: str
    name: str
    value: Secret


@dataclass(frozen=True, slots=True)
class EpochWritten:
    """All services of a new epoch, as of its one revision."""

    committed_epoch_id: str
    epoch_seq: int
    revision: int
    services: tuple[ServiceState, ...]
    correlation_id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEpoch(Write[EpochWritten]):
    """Replace the stored values of several services at once, all or none."""

    services: dict[str, JsonObject]


@dataclass(frozen=True, slots=True)
class ReadHistory(Request[HistoryPage]):
    query: HistoryQuery


# ── caching ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class KeepLastKnownGood(Request[None]):
    """Write the server's last-known-good cache and the witness for this state."""

    committed: Committed


# ── signing ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sign(Request[Envelope]):
    """Sign exactly these bytes with this role's key."""

    role: Literal["root", "config", "beacon"]
    payload_type: str
    payload: bytes
    correlation_id: str | None = None
