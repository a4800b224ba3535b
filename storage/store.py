"""The store port: what any store does, the one in SQLCipher and the one in memory alike.

All methods block, except `begin`, which is quick. `history`, `checkpoints`, `taken_back`, `epoch_as_of`,
`find_in_history`, `changes`, `change_times`, `attempts`, `receipts`, `newest_receipts`,
`drifts`, `open_drifts`, `plan_beside`, `plans`, `audit`, `secret_versions`, `count_secrets`, `newest_schemas`, `schema_versions`,
`schema_version`, `schema_as_of` and `snapshot` may be called from any thread, beside another call. The others
are called one at a time, from whichever thread.
A store decides nothing: the pure functions of `storage.decisions` do, and hand over finished rows.

tests/storage/test_store_contract.py holds both stores to the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from config_manager.config.audit import Head
from config_manager.config.names import Epoch
from config_manager.storage.drifts import (
    Drift,
    DriftQuery,
    KeptReceipt,
    Observed,
    ReceiptsQuery,
)
from config_manager.storage.state import (
    AuditEntry,
    Checkpoint,
    Commit,
    Committed,
    HistoryPage,
    HistoryQuery,
    HistoryRow,
    HistorySearch,
    IdempotencyRecord,
    KeptPlan,
    SchemaActivation,
    SchemaVersion,
    SealedSecret,
    TakenBack,
)
from config_manager.storage.trace import Change, ChangesQuery, ChangeTimes

IDEMPOTENCY_KEPT_S = 24 * 3600.0
"""How long an Idempotency-Key stands for its answer. Readers ask for it; a store deletes what is older."""
PLANS_KEPT = 100
"""A store lets go of older ones when it keeps another."""

Finish = Callable[[], None]
"""Blocks until what was begun is durable. Raises DiskFull or DatabaseUnavailable: then nothing of it is
kept; or CommitUnsure."""


class DatabaseUnavailable(Exception):
    """The database opened once but can't be read or written now; nothing of the call was kept."""


class CommitUnsure(DatabaseUnavailable):
    """The commit failed at its last step and may be durable all the same: read again before judging."""


class DiskFull(DatabaseUnavailable):
    """No space left; the database is as it was before the call."""


class KeptEntry(NamedTuple):
    """A row of history as it is kept. changes: JSON."""

    service: str
    revision: int
    version: int
    epoch_id: str
    epoch_seq: int
    at: str
    by: str
    action: str
    reason: str | None
    correlation_id: str
    changes: bytes

    @property
    def about(self) -> tuple[object, ...]:
        """What `storage.decisions.replay.HistoryChain` takes beside its changes."""
        _service, revision, version, _epoch_id, *others, _changes = self
        return (revision, version, *others)


class Odd(NamedTuple):
    """A row that no store ever wrote. table: empty if it is about a service."""

    table: str
    key: str


class KeptState(NamedTuple):
    """What is kept, without the odd rows, which can't be read."""

    committed: Committed
    odd: tuple[Odd, ...] = ()


class KeptSchema(NamedTuple):
    """A version of a service's schema as it is kept."""

    service: str
    version: int
    digest: str
    source: str
    schema: str


class StoreSnapshot(Protocol):
    """Everything that is kept, at one moment and past every cache. Every method raises DatabaseUnavailable."""

    @property
    def head(self) -> Head:
        """The newest row of the audit, by the store's own counter."""
        ...

    @property
    def seal(self) -> str | None:
        """What the last change kept beside it and `boot_seq` (`Vouching.seal`); None if nothing ever did."""
        ...

    @property
    def boot_seq(self) -> int:
        """The number of starts, as last noted; 0 if none ever was."""
        ...

    def kept(self) -> KeptState:
        """The newest state."""
        ...

    def audit(self) -> Generator[AuditEntry]:
        """Every row, in order. To be closed if it is not read to its end."""
        ...

    def history(self) -> Generator[KeptEntry]:
        """Every row as it is kept. Those of one service come in the order of their revisions."""
        ...

    def schemas(self) -> Generator[KeptSchema]:
        """Every version that is kept; none of a database of before 0.6.0."""
        ...

    def activations(self) -> Generator[SchemaActivation]:
        """Every one that is kept; likewise."""
        ...

    def taken_back(self) -> Generator[TakenBack]:
        """Every one that is kept; likewise."""
        ...


class Store(Protocol):
    def begin(self, changes: Sequence[Commit]) -> Finish:
        """Take up all of `changes`, in order, to be kept together or not at all; quick enough for an event
        loop. Nobody sees them before the end of `Finish`, which has to be called next, in any thread.

        Raises as `Finish`, and RuntimeError (both do) if the store is not at the first change's `before`:
        another process wrote to it, which the data directory's lock forbids.
        """
        ...

    def commit(self, changes: Sequence[Commit]) -> None:
        """`begin` and finish. Blocks; raises as they do."""
        self.begin(changes)()

    def history(self, query: HistoryQuery) -> HistoryPage:
        """A page of a service's history, newest first; empty for an unknown service. It has at least one entry if
        there is one, whatever its size."""
        ...

    def checkpoints(
        self, service: str, revision: int
    ) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The service's newest checkpoint at or below this revision, and the oldest above it."""
        ...

    def taken_back(self, service: str) -> Sequence[TakenBack]:
        """What rollbacks took back of a service, the newest first."""
        ...

    def epoch_as_of(self, revision: int) -> Epoch:
        """The epoch in which this revision, or the newest one below it, was made."""
        ...

    def find_in_history(self, query: HistorySearch) -> tuple[Sequence[HistoryRow], bool]:
        """Rows in which the text may stand, newest first: those in which it does not are few. And whether there may be
        more."""
        ...

    def changes(self, query: ChangesQuery) -> Sequence[Change]:
        """Changes of all services: one a revision, whatever it touched."""
        ...

    def change_times(self, revision: int) -> ChangeTimes | None:
        """When each step of a change was done, as far as it was kept."""
        ...

    def attempts(self, service: str, revision: int) -> Sequence[KeptReceipt]:
        """The kept receipts that tell how far instances of a service got with this revision, in the order in which they
        came."""
        ...

    def receipts(self, query: ReceiptsQuery) -> Sequence[KeptReceipt]:
        """The kept receipts of one instance, with their envelopes, in the order in which they came."""
        ...

    def newest_receipts(self) -> Sequence[KeptReceipt]:
        """Of each instance, by service and instance: the newest receipt in which it was there, if one is kept, and behind
        it the will or farewell that came after it, if one did."""
        ...

    def drifts(self, query: DriftQuery) -> Sequence[Drift]:
        """Drift that is kept, the newest first."""
        ...

    def open_drifts(self) -> tuple[Sequence[Drift], int]:
        """All that has not ended; and the highest number of any beginning or end, 0 if there is none."""
        ...

    def keep_observed(self, observed: Observed) -> None:
        """All or none, durable. Raises DiskFull or DatabaseUnavailable."""
        ...

    def prune_observed(self, before: float, limit: int) -> int:
        """Of receipts that were received before (Unix seconds) let those go that are neither the first nor the last of
        their segment, a time in which an instance ran one revision in one state; drift that ended before; and the times
        of changes that were committed before. At most `limit` of each, and answers of how many of the most numerous. Raises DiskFull or DatabaseUnavailable."""
        ...

    def idempotency(self, key: str, *, since: float) -> IdempotencyRecord | None:
        """The record of this key, unless it is older than `since` (Unix seconds)."""
        ...

    def secrets(self, service: str) -> Sequence[SealedSecret]:
        """The newest version of each of the service's secrets, sealed."""
        ...

    def secret(self, service: str, name: str, version: int) -> SealedSecret | None:
        """One version, unless it is not kept."""
        ...

    def secret_versions(
        self, service: str | None = None, name: str | None = None
    ) -> Sequence[SealedSecret]:
        """Every version that is kept, by service, name and version: of all services if none is named. Deleted
        secrets have none."""
        ...

    def secrets_under_other_keys(
        self, key_id: str, *, after: tuple[str, str, int] = ("", "", 0), limit: int
    ) -> Sequence[SealedSecret]:
        """At most `limit` versions that are not sealed under this key, in the order of (service, name, version),
        behind `after`."""
        ...

    def count_secrets(self, key_id: str) -> tuple[int, int]:
        """(Versions sealed under this key, all versions)."""
        ...

    def reseal(self, sealed: Sequence[SealedSecret]) -> None:
        """Replace these versions' ciphertexts, all or none, durable. A version that is gone stays gone. Raises
        DiskFull or DatabaseUnavailable."""
        ...

    def schemas(self, service: str) -> Sequence[SchemaVersion]:
        """The newest version of a service's schema from each source, by version."""
        ...

    def newest_schemas(self, service: str | None = None) -> Sequence[SchemaVersion]:
        """The same beside the writer, by service and version: of all services if none is named."""
        ...

    def schema_versions(
        self, service: str, *, before: int | None = None, limit: int, most_bytes: int | None = None
    ) -> Sequence[SchemaVersion]:
        """Versions of a service's schema, newest first: at most `limit`, below `before`, and none after the
        one with which their schemas reach `most_bytes`."""
        ...

    def schema_version(self, service: str, which: int | str) -> SchemaVersion | None:
        """One version, by its number or (the newest) by its digest."""
        ...

    def schema_as_of(self, service: str, revision: int) -> SchemaVersion | None:
        """The version that shaped the values which the service had from this revision of its own on."""
        ...

    def activations(self) -> Sequence[SchemaActivation]:
        """The newest activation of each service's schema, by service."""
        ...

    def keep_schemas(
        self, versions: Sequence[SchemaVersion], activations: Sequence[SchemaActivation] = ()
    ) -> None:
        """Keep these, all or none, durable. Raises DiskFull or DatabaseUnavailable."""
        ...

    def plan(self, plan_id: str) -> KeptPlan | None:
        """One plan, unless it is not kept."""
        ...

    def plan_beside(self, plan_id: str) -> KeptPlan | None:
        """The same beside the writer."""
        ...

    def plans(self, *, before: int | None = None) -> Sequence[KeptPlan]:
        """Every plan, newest first, without `result` and `shown`. before: those made below this row of the audit."""
        ...

    def audit(
        self, *, after: int = 0, limit: int | None = None, most_bytes: int | None = None
    ) -> Sequence[AuditEntry]:
        """The audit chain in order, from the row after this number: at most `limit` rows, and none after the one
        with which their bytes reach `most_bytes`."""
        ...

    def has_audit_row(self, row_hash: str) -> bool:
        """Whether some row of the audit has this hash. It is cheap, because any broker can make us ask."""
        ...

    def snapshot(self) -> AbstractContextManager[StoreSnapshot]:
        """Read everything. Raises DatabaseUnavailable."""
        ...

    def note_boot(self, boot_seq: int) -> None:
        """Note the number of starts, durably. A lower number than is there changes nothing. Raises DiskFull or
        DatabaseUnavailable."""
        ...

    def mark_confirmed(
        self,
        revisions: Sequence[tuple[str, int]],
        times: Sequence[ChangeTimes] = (),
    ) -> None:
        """Note in the outbox that a broker holds these (service, revision). A newer one that is noted stays.

        times: to keep as well; of each step the first time that was kept stays.
        """
        ...

    def pending(self) -> Sequence[tuple[str, int]]:
        """(Service, revision) in the outbox that no broker was seen to hold."""
        ...

    def probe(self) -> None:
        """Read something from the disk, past every cache, and see whether it still takes writes. Raises
        DatabaseUnavailable."""
        ...

    def try_writing(self) -> None:
        """See whether a write could begin: a file may open and read, and take no write. Changes nothing. Raises
        DatabaseUnavailable."""
        ...

    def verify(self) -> None:
        """Read everything, which takes time. Raises DatabaseUnavailable if it contradicts itself."""
        ...

    def close(self) -> None:
        """Release everything; any further call is an error. Never raises."""
        ...

    def abandon(self) -> None:
        """`close` for a database in doubt: nothing is written, and what is on the disk stays as it is."""
        ...
