"""Every message beside the reply it gets, in the order in which one PUT meets them.

An actor answers with the reply type named here or refuses with a `config.errors.Refusal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from config_manager.actors.actor import Request
from config_manager.config.audit import GENESIS
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.roots import Needs
from config_manager.config.wire import Envelope
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.terms import Idempotency, Terms
from config_manager.storage.drifts import Observed

A = TypeVar("A")


# ── storing ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Write(Request[A]):
    """Decide `what`, and commit it before it is answered."""

    what: Decidable[A]
    terms: Terms


@dataclass(frozen=True, slots=True)
class NotDoneYet(Request[None]):
    """Refused with Conflict if this key stands for a write that was done, and with IdempotencyMismatch if it
    stands for another request."""

    idempotency: Idempotency


@dataclass(frozen=True, slots=True)
class Resealed:
    """A page. unreadable: versions that don't open and stay as they are. last: where it ended."""

    done: int
    unreadable: int
    last: tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ResealSecrets(Request["Resealed | None"]):
    """Seal a page of versions under the key that seals now; None if none is left beyond `after`."""

    after: tuple[str, str, int]
    limit: int


@dataclass(frozen=True, slots=True)
class Confirmed(Request[None]):
    """A broker was seen to hold these (service, revision): the outbox may forget them."""

    revisions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Keep(Request[bool]):
    """Keep what was seen of instances; nothing of it is audited. Whether it was kept."""

    observed: Observed


@dataclass(frozen=True, slots=True)
class Prune(Request[int]):
    """Let go of what was seen before (Unix seconds): see `Store.prune_observed`. Of how many; 0 if it could not be."""

    before: float
    limit: int


@dataclass(frozen=True, slots=True)
class Witnessed(Request[None]):
    """A document that we signed was seen outside.

    where: who still holds it. mark: how far we had come when we signed it; audit_head: the newest row of
    our audit then; audit_epoch: the epoch then. beyond: in words, what it shows that we do not have at
    all. boot_seq: of a start that this one has to count above.
    """

    where: str
    mark: Mark | None = None
    audit_head: str = GENESIS
    audit_epoch: int = 0
    beyond: str | None = None
    boot_seq: int | None = None


# ── rotating the secrets key ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class RotateSecretsKey(Request[None]):
    """Begin, or go on with the rotation under way."""

    terms: Terms


# ── trusting ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RootChange:
    """The version that was asked for. needs: whose signatures it waits for; empty: it counts now."""

    root: Root
    envelope: Envelope
    needs: tuple[Needs, ...]


@dataclass(frozen=True, kw_only=True)
class _ChangesRoot(Request[RootChange]):
    terms: Terms


@dataclass(frozen=True, kw_only=True)
class RotateRole(_ChangesRoot):
    """A new key for a role. overlap_s: how long the old one stays good; 0 drops it at once."""

    role: str
    overlap_s: float


@dataclass(frozen=True, kw_only=True)
class AddSigner(_ChangesRoot):
    """One more root key (raw Ed25519), and how many have to sign from then on (None: as now)."""

    public: bytes
    threshold: int | None


@dataclass(frozen=True, kw_only=True)
class RevokeKey(_ChangesRoot):
    """Drop a key at once. key: its id, or the beginning of it."""

    key: str


@dataclass(frozen=True, kw_only=True)
class TakeRoot(_ChangesRoot):
    """An envelope with signatures that were made elsewhere."""

    envelope: bytes


# ── signing ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sign(Request[Envelope]):
    """Sign exactly these bytes with the key that signs for this role now."""

    role: Literal["config", "beacon"]
    payload_type: str
    payload: bytes
    correlation_id: str | None = None
