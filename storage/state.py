"""What is committed: immutable values that readers share without a lock.

After each commit the storing actor replaces one `Committed` by the next. A reader that holds one sees
everything as of one revision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from config_manager.config import strict_json
from config_manager.config.names import OUR_ID, Epoch, Mark
from config_manager.config.strict_json import JsonObject

Action = Literal[
    "put",
    "patch",
    "delete",
    "epoch",
    "secret",
    "secret-delete",
    "restore",
    "rollback",
    "schema",
    "adapt",
]
SchemaSource = Literal["put", "catalogue", "instance"]

Registry = Mapping[str, Mapping[str, JsonObject]]
"""kind → key → what is kept. The module that owns a kind reads and writes its objects."""


@dataclass(frozen=True)
class ServiceState:
    """One service as of its newest revision.

    stored: what its operator wrote (no secrets). effective: with defaults, without secrets; what is
    published. secrets: name → version of each stored secret. payload: the exact bytes that are
    signed; digest: their SHA-256.
    """

    service: str
    revision: int
    version: int
    epoch: Epoch
    stored: JsonObject
    effective: JsonObject
    defaulted: tuple[str, ...]
    secrets: Mapping[str, int]
    deleted: bool
    updated_at: str
    updated_by: str
    correlation_id: str
    payload: bytes
    digest: str

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch.seq, self.revision)


@dataclass(frozen=True)
class Committed:
    """Everything as of one commit. services: deleted ones, too, as tombstones.

    audit_seq, audit_head: number and hash of the newest audit row. registry: what is not a
    configuration (tokens, devices, …), by kind and key.
    """

    epoch: Epoch
    revision: int
    audit_seq: int
    audit_head: str
    services: Mapping[str, ServiceState]
    registry: Registry

    @property
    def mark(self) -> Mark:
        return Mark(self.epoch.seq, self.revision)

    def live(self, service: str) -> ServiceState | None:
        """The service's state, unless nobody wrote it or it was deleted."""
        state = self.services.get(service)
        return None if state is None or state.deleted else state

    def registered(self, kind: str) -> Mapping[str, JsonObject]:
        """Every row of one kind, by key."""
        return self.registry.get(kind, {})


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One top-level key that a revision changed. None means that it was not there, unless `nulls` names this side
    (`old`, `new`): then it is JSON's null."""

    key: str
    old: object
    new: object
    nulls: tuple[str, ...] = ()

    def to_list(self) -> list[object]:
        """As history and audit keep it."""
        return [self.key, self.old, self.new, *([self.nulls] if self.nulls else [])]

    @classmethod
    def from_list(cls, kept: Sequence[Any]) -> KeyChange:
        key, old, new, *nulls = kept
        return cls(key, old, new, tuple(nulls[0]) if nulls else ())

    def to_object(self) -> JsonObject:
        """As REST answers it."""
        told = {"key": self.key, "old": self.old, "new": self.new}
        return {**told, "nulls": list(self.nulls)} if self.nulls else told


def changed_keys(old: JsonObject, new: JsonObject) -> tuple[KeyChange, ...]:
    """The keys whose values differ as JSON: 1, 1.0 and true are three values."""
    return tuple(
        KeyChange(
            key,
            old.get(key),
            new.get(key),
            tuple(s for s, values in (("old", old), ("new", new)) if values.get(key, ...) is None),
        )
        for key in dict.fromkeys((*old, *new))
        if key not in old or key not in new or not strict_json.same(old[key], new[key])
    )


class HistoryEntry(NamedTuple):
    revision: int
    version: int
    config_epoch: str
    epoch_seq: int
    at: str
    by: str
    action: Action
    reason: str | None
    correlation_id: str
    changes: tuple[KeyChange, ...]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Newest first. next_before: the `before` of the next page, or None on the last."""

    service: str
    entries: tuple[HistoryEntry, ...]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """limit: 1 to 500. before: revisions below it. since, until: RFC 3339 in UTC, inclusive.
    most_bytes: no more entries after the one with which their changes reach this size."""

    service: str
    limit: int = 50
    before: int | None = None
    key: str | None = None
    since: str | None = None
    until: str | None = None
    most_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HistorySearch:
    """text: in any case. services: only of these; None: of all. start: (revision, service) of the first row that
    may come, in the order of revisions, the newest first, and then of services. most_bytes: of changes; no row comes
    after the one with which they reach it."""

    text: str
    limit: int
    services: Sequence[str] | None = None
    start: tuple[int, str] | None = None
    most_bytes: int | None = None


class SealedSecret(NamedTuple):
    """A secret as it lies in the database: XChaCha20-Poly1305, see `storage.keys.secret_box`."""

    service: str
    name: str
    version: int
    key_id: str
    nonce: bytes
    ciphertext: bytes
    updated_at: str


class IdempotencyRecord(NamedTuple):
    """What an Idempotency-Key stands for. fingerprint: of the caller's whole request, under a key, because the
    request may hold a secret. at: Unix seconds."""

    key: str
    fingerprint: bytes
    answer: bytes
    at: float


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of the chain: hash = SHA-256(previous hash as ASCII hex + body). seq: from 1, without gaps.
    revision: the newest one when the row was written; several rows may share one."""

    seq: int
    revision: int
    body: bytes
    hash: str


class Checkpoint(NamedTuple):
    """A service as a whole as of one of its revisions, from which its changes lead to others. version: the
    service's own number of that revision. secrets: names of those that were stored."""

    service: str
    revision: int
    version: int
    deleted: bool
    stored: JsonObject
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, state: ServiceState) -> Checkpoint:
        secrets = tuple(sorted(state.secrets))
        return cls(
            state.service, state.revision, state.version, state.deleted, state.stored, secrets
        )


VERSIONS_A_CHECKPOINT = 64
"""A service's version is kept as a whole so often."""


class TakenBack(NamedTuple):
    """What a rollback, the revision, took back of a service: its changes with after < revision ≤ upto.
    keys: only of these; None: of all."""

    service: str
    revision: int
    after: int
    upto: int
    keys: tuple[str, ...] | None

    def to_object(self) -> JsonObject:
        """As the audit says it of its service."""
        return {"after": self.after, "upto": self.upto, "keys": self.keys}


class SchemaVersion(NamedTuple):
    """A version of a service's JSON Schema: from 1, without gaps, whatever its source. It never changes.

    schema: JSON, with its members in order. digest: its SHA-256 (hex). at: when it was made (RFC 3339).
    differences: from the schema that was active before, as JSON; None if there was none, or they are not
    known. revision: the newest one when it was made.
    """

    service: str
    version: int
    digest: str
    schema: str
    at: str
    source: SchemaSource = "catalogue"
    by: str = OUR_ID
    reason: str | None = None
    correlation_id: str = ""
    differences: str | None = None
    revision: int = 0


class SchemaActivation(NamedTuple):
    """From this revision on the service's values are shaped by this version of its schema; None: by none."""

    service: str
    revision: int
    version: int | None


class KeptPlan(NamedTuple):
    """A plan (`storage.decisions.plans`) as it is kept.

    seq: of the row of the audit with which it was made: plans rise by it. services: those that it names. base, result,
    shown: JSON; digest: of the three. outcome: JSON; None until it is applied. Nothing else of it ever changes.
    """

    id: str
    seq: int
    at: str
    expires_at: str
    by: str
    reason: str | None
    services: tuple[str, ...]
    digest: str
    base: str
    result: str
    shown: str
    outcome: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its digest is of what it holds."""
        return self.digest == plan_digest(self.base, self.result, self.shown)


def plan_digest(base: str, result: str, shown: str) -> str:
    """Of three texts in JSON, which has no line ends."""
    return hashlib.sha256(f"{base}\n{result}\n{shown}".encode()).hexdigest()


R = TypeVar("R")


def up_to_bytes(rows: Iterable[R], size: Callable[[R], int], most_bytes: int | None) -> Iterator[R]:
    """The rows up to the one with which their sizes reach this: at least one, if there is one."""
    total = 0
    for row in rows:
        yield row
        total += size(row)
        if most_bytes is not None and total >= most_bytes:
            return


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """One row to keep under its kind and key; None removes it."""

    kind: str
    key: str
    value: JsonObject | None


def with_rows(registry: Registry, rows: tuple[RegistryRow, ...]) -> Registry:
    """The registry after these rows were kept or removed, in order."""
    if not rows:
        return registry
    kinds: dict[str, Mapping[str, JsonObject]] = dict(registry)
    for row in rows:
        kind = dict(kinds.get(row.kind, {}))
        if row.value is None:
            kind.pop(row.key, None)
        else:
            kind[row.key] = row.value
        kinds[row.kind] = kind
    return {kind: rows for kind, rows in kinds.items() if rows}


def rows_between(before: Registry, after: Registry) -> tuple[RegistryRow, ...]:
    """The rows that make the one into the other. What is the same object in both costs a comparison of two
    pointers."""
    rows: list[RegistryRow] = []
    nothing: Mapping[str, JsonObject] = {}
    for kind in dict.fromkeys((*before, *after)):
        old, new = before.get(kind, nothing), after.get(kind, nothing)
        if old is new:
            continue
        rows += (RegistryRow(kind, key, None) for key in old if key not in new)
        rows += (
            RegistryRow(kind, key, value)
            for key, value in new.items()
            if (known := old.get(key)) is not value and known != value
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """What one revision did to one service."""

    service: str
    entry: HistoryEntry


@dataclass(frozen=True, slots=True)
class Commit:
    """One accepted write, ready to be stored: rows to add, and the state after it.

    audit: None only for bookkeeping that nobody decided (a token's last use). secret: a version to add.
    forgotten: (service, name) of a secret of which every version is removed. taken_back: by a rollback.
    schemas: versions to keep. activations: which version of a schema counts from this change on. plans: to keep, also
    in the place of one. plans_gone: ids of plans to let go.
    """

    before: Committed
    after: Committed
    services: tuple[ServiceState, ...]
    history: tuple[HistoryRow, ...]
    audit: AuditEntry | None
    reason: str | None
    registry: tuple[RegistryRow, ...] = ()
    secret: SealedSecret | None = None
    forgotten: tuple[str, str] | None = None
    idempotency: IdempotencyRecord | None = None
    taken_back: tuple[TakenBack, ...] = ()
    schemas: tuple[SchemaVersion, ...] = ()
    activations: tuple[SchemaActivation, ...] = ()
    plans: tuple[KeptPlan, ...] = ()
    plans_gone: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> Iterator[Checkpoint]:
        """The services to keep as a whole. One that `restore` accepted is: its history may not lead there."""
        is_restored = self.history and self.history[0].entry.action == "restore"
        for state in self.services:
            if is_restored or state.version % VERSIONS_A_CHECKPOINT == 0:
                yield Checkpoint.of(state)

    @property
    def at(self) -> str | None:
        """When it was decided (RFC 3339); None for bookkeeping."""
        if self.history:
            return self.history[0].entry.at
        if self.audit is None:
            return None
        at: str = json.loads(self.audit.body)["at"]
        return at
