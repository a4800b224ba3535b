"""Every message beside the reply it gets, in the order in which one PUT meets them.

An actor answers with the reply type named here or refuses with a `config.errors.Refusal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from config_manager.actors.actor import Request
from config_manager.config.audit import GENESIS
from config_manager.config.documents.root import Root
from config_manager.config.names import Mark
from config_manager.config.roots import Needs
from config_manager.config.secret import Secret
from config_manager.config.wire import Envelope
from config_manager.storage.decisions import intents
from config_manager.storage.decisions.administration import Administration
from config_manager.storage.decisions.devices import Device
from config_manager.storage.decisions.intents import Delete, Patch, Put
from config_manager.storage.decisions.terms import Idempotency, Terms
from config_manager.storage.state import (
    AuditEntry,
    HistoryPage,
    HistoryQuery,
    KeyChange,
    SealedSecret,
    ServiceState,
)

R = TypeVar("R")
_DELIVERING = Terms("delivering")


# ── storing ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Write(Request[R]):
    """A write: what is wanted (an intent of `storage.decisions.intents`), and on which terms."""

    terms: Terms

    @property
    def by(self) -> str:
        return self.terms.by

    @property
    def reason(self) -> str | None:
        return self.terms.reason

    @property
    def idempotency(self) -> Idempotency | None:
        return self.terms.idempotency

    @property
    def dry_run(self) -> bool:
        return self.terms.dry_run


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


@dataclass(frozen=True, kw_only=True)
class PutConfig(Put, Write[Written]): ...


@dataclass(frozen=True, kw_only=True)
class PatchConfig(Patch, Write[Written]): ...


@dataclass(frozen=True, kw_only=True)
class DeleteConfig(Delete, Write[Written]): ...


@dataclass(frozen=True, kw_only=True)
class SetSecret(intents.SetSecret, Write[Written]): ...


@dataclass(frozen=True, kw_only=True)
class DeleteSecret(intents.DeleteSecret, Write[Written]): ...


@dataclass(frozen=True, slots=True)
class Revealed:
    """A secret's value, for the one who asked; the audit row that says so is committed."""

    version: int
    updated_at: str
    value: Secret


@dataclass(frozen=True, kw_only=True)
class RevealSecret(Write[Revealed]):
    """Show a secret's value: a write, because the audit has it first. version: None is the newest."""

    service: str
    name: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ReadSecrets(Request[Sequence[SealedSecret]]):
    """Every version that is kept, sealed; of one service, of one name, or of all."""

    service: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class CountSecrets(Request[tuple[int, int]]):
    """(versions sealed under this key, all versions)."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Resealed:
    """A page. unreadable: versions that don't open and stay as they are. last: where it ended."""

    done: int
    unreadable: int
    last: tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ResealSecrets(Request["Resealed | None"]):
    """Seal a page of versions under the key that seals now; None where none is left beyond `after`."""

    after: tuple[str, str, int]
    limit: int


@dataclass(frozen=True, slots=True)
class EpochWritten:
    """All services of a new epoch, as of its one revision."""

    config_epoch: str
    epoch_seq: int
    revision: int
    services: tuple[ServiceState, ...]
    correlation_id: str
    replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class NewEpoch(intents.NewEpoch, Write[EpochWritten]): ...


@dataclass(frozen=True, kw_only=True)
class Administer(Write[R]):
    """Anything decided that is no configuration; answers what the administration answers."""

    what: Administration[R]


@dataclass(frozen=True, kw_only=True)
class Deliver(Write[None]):
    """Seal a service's secrets for one of its devices, and keep that."""

    device: Device
    terms: Terms = _DELIVERING


@dataclass(frozen=True, slots=True)
class ReadHistory(Request[HistoryPage]):
    query: HistoryQuery


@dataclass(frozen=True, slots=True)
class ReadAudit(Request[Sequence[AuditEntry]]):
    """Rows of the audit in order, from the one after this number; see `Store.audit`."""

    after: int
    limit: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class NotDoneYet(Request[None]):
    """Refused with Conflict where this key stands for an administration that was done, and with
    IdempotencyMismatch where it stands for another request."""

    idempotency: Idempotency


@dataclass(frozen=True, slots=True)
class Confirmed(Request[None]):
    """A broker was seen to hold these (service, revision): the outbox may forget them."""

    revisions: tuple[tuple[str, int], ...]


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
