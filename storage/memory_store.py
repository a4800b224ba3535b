"""The store in memory: the same port, for tests, simulations and a service that keeps nothing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from config_manager.config.audit import Head
from config_manager.config.names import Epoch
from config_manager.storage.decisions.changes import empty
from config_manager.storage.decisions.vouching import Vouching
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
    HistoryEntry,
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
    up_to_bytes,
)
from config_manager.storage.store import (
    PLANS_KEPT,
    DatabaseUnavailable,
    Finish,
    KeptEntry,
    KeptSchema,
    KeptState,
    Store,
)
from config_manager.storage.trace import (
    Change,
    ChangesQuery,
    ChangeTimes,
    earliest,
)


class MemoryStore(Store):
    """The `Store` port without a disk. fail_next: what the next call raises, for drills."""

    def __init__(self, epoch: Epoch, vouching: Vouching | None = None) -> None:
        """vouching: seals the end of the audit; by default under a fixed key."""
        self.vouching = vouching or Vouching(bytes(32))
        self._boot_seq = 0
        self._committed = empty(epoch)
        self._history: list[HistoryRow] = []
        self._audit: list[AuditEntry] = []
        self._secrets: dict[tuple[str, str, int], SealedSecret] = {}
        self._idempotency: dict[str, IdempotencyRecord] = {}
        self._confirmed: dict[str, int] = {}
        self._schemas: list[SchemaVersion] = []
        self._checkpoints: list[Checkpoint] = []
        self._taken_back: list[TakenBack] = []
        self._plans: dict[str, KeptPlan] = {}
        self._times: dict[int, ChangeTimes] = {}
        self._epochs = [(epoch, 0)]
        """each with its first revision"""
        self._activations: dict[tuple[str, int], SchemaActivation] = {}
        self._receipts: list[KeptReceipt] = []
        self._drifts: dict[int, Drift] = {}
        self.fail_next: DatabaseUnavailable | None = None

    def begin(self, changes: Sequence[Commit]) -> Finish:
        self._maybe_fail()
        before, ours = changes[0].before, self._committed
        if (before.revision, before.audit_head) != (ours.revision, ours.audit_head):
            raise RuntimeError(
                f"the store is not at revision {before.revision}: somebody else wrote to it"
            )
        return lambda: self._keep(changes)

    def _keep(self, changes: Sequence[Commit]) -> None:
        for change in changes:
            self._history += change.history
            self._checkpoints += change.checkpoints
            self._taken_back += change.taken_back
            self._keep_plans(change)
            if change.after.epoch != change.before.epoch:
                self._epochs.append((change.after.epoch, change.after.revision))
            if change.audit is not None:
                self._audit.append(change.audit)
            if change.forgotten is not None:
                for place in [place for place in self._secrets if place[:2] == change.forgotten]:
                    del self._secrets[place]
            if change.secret is not None:
                self._secrets[_place(change.secret)] = change.secret
            if change.idempotency is not None:
                self._idempotency[change.idempotency.key] = change.idempotency
            self._keep_schemas(change.schemas, change.activations)
        self._committed = changes[-1].after

    def _keep_plans(self, change: Commit) -> None:
        plans = self._plans | {one.id: one for one in change.plans}
        newest = sorted(plans.values(), key=lambda one: one.seq)[-PLANS_KEPT:]
        self._plans = {one.id: one for one in newest if one.id not in change.plans_gone}

    def plan(self, plan_id: str) -> KeptPlan | None:
        self._maybe_fail()
        return self._plans.get(plan_id)

    def plan_beside(self, plan_id: str) -> KeptPlan | None:
        return self.plan(plan_id)

    def plans(self, *, before: int | None = None) -> Sequence[KeptPlan]:
        self._maybe_fail()
        return [
            one._replace(result="", shown="")
            for one in reversed(self._plans.values())
            if before is None or one.seq < before
        ]

    def history(self, query: HistoryQuery) -> HistoryPage:
        self._maybe_fail()
        entries = [
            row.entry
            for row in reversed(self._history)
            if row.service == query.service
            and (query.before is None or row.entry.revision < query.before)
            and (query.since is None or row.entry.at >= query.since)
            and (query.until is None or row.entry.at <= query.until)
            and (query.key is None or any(c.key == query.key for c in row.entry.changes))
        ]
        page = tuple(
            up_to_bytes(entries[: query.limit], lambda e: len(_changes(e)), query.most_bytes)
        )
        more = len(entries) > len(page)
        return HistoryPage(query.service, page, page[-1].revision if more else None)

    def checkpoints(
        self, service: str, revision: int
    ) -> tuple[Checkpoint | None, Checkpoint | None]:
        self._maybe_fail()
        of_it = [one for one in self._checkpoints if one.service == service]
        below = [one for one in of_it if one.revision <= revision]
        above = [one for one in of_it if one.revision > revision]
        return (below[-1] if below else None), (above[0] if above else None)

    def taken_back(self, service: str) -> Sequence[TakenBack]:
        self._maybe_fail()
        return [one for one in reversed(self._taken_back) if one.service == service]

    def epoch_as_of(self, revision: int) -> Epoch:
        self._maybe_fail()
        return [epoch for epoch, first in self._epochs if first <= revision][-1]

    def find_in_history(self, query: HistorySearch) -> tuple[Sequence[HistoryRow], bool]:
        self._maybe_fail()
        text = query.text.lower()
        rows = sorted(self._history, key=lambda row: (-row.entry.revision, row.service))
        found = [
            row
            for row in rows
            if (query.services is None or row.service in query.services)
            and (query.start is None or (-row.entry.revision, row.service) >= _falling(query.start))
            and any(text in one.lower() for one in _texts(row.entry))
        ]
        return found[: query.limit], len(found) > query.limit

    def changes(self, query: ChangesQuery) -> Sequence[Change]:
        self._maybe_fail()
        rows = [
            row
            for row in sorted(self._history, key=lambda row: (row.entry.revision, row.service))
            if query.visible is None or row.service in query.visible
        ]
        wanted = {row.entry.revision for row in rows if _is_wanted(row, query)}
        chosen = sorted(wanted, reverse=query.after is None)[: query.limit]
        return [_change([row for row in rows if row.entry.revision == one]) for one in chosen]

    def change_times(self, revision: int) -> ChangeTimes | None:
        self._maybe_fail()
        return self._times.get(revision)

    def attempts(self, service: str, revision: int) -> Sequence[KeptReceipt]:
        self._maybe_fail()
        return [
            one for one in self._receipts if (one.service, one.attempted) == (service, revision)
        ]

    def receipts(self, query: ReceiptsQuery) -> Sequence[KeptReceipt]:
        self._maybe_fail()
        return [
            one
            for one in self._receipts
            if (one.service, one.instance) == (query.service, query.instance)
            and (query.since is None or one.received_at >= query.since)
            and (query.until is None or one.received_at <= query.until)
        ]

    def newest_receipts(self) -> Sequence[KeptReceipt]:
        self._maybe_fail()
        there = {one[:2]: one for one in self._receipts if not one.gone}
        newest = {one[:2]: one for one in self._receipts}
        found = [one for one in self._receipts if one in (there.get(one[:2]), newest[one[:2]])]
        return sorted(found, key=lambda one: one[:2])

    def drifts(self, query: DriftQuery) -> Sequence[Drift]:
        self._maybe_fail()
        found = [one for _, one in sorted(self._drifts.items(), reverse=True) if query.matches(one)]
        return found[: query.limit]

    def open_drifts(self) -> tuple[Sequence[Drift], int]:
        self._maybe_fail()
        last = max((max(one.seq, one.ended_seq or 0) for one in self._drifts.values()), default=0)
        return [one for _, one in sorted(self._drifts.items()) if one.ended is None], last

    def keep_observed(self, observed: Observed) -> None:
        self._maybe_fail()
        self._receipts = [one for one in self._receipts if one[:2] not in observed.forgotten]
        self._receipts += observed.receipts
        self._drifts |= {one.seq: one for one in observed.drifts}

    def prune_observed(self, before: float, limit: int) -> int:
        self._maybe_fail()
        inside = _insides(self._receipts, before)[:limit]
        self._receipts = [one for i, one in enumerate(self._receipts) if i not in inside]
        drifts = sorted(self._drifts.items())
        ended = [seq for seq, one in drifts if one.ended is not None and one.ended < before][:limit]
        for seq in ended:
            del self._drifts[seq]
        past = [rev for rev in sorted(self._times)[:limit] if self._times[rev].committed < before]
        for revision in past:
            del self._times[revision]
        return max(len(inside), len(ended), len(past))

    def idempotency(self, key: str, *, since: float) -> IdempotencyRecord | None:
        self._maybe_fail()
        record = self._idempotency.get(key)
        return record if record is not None and record.at >= since else None

    def secrets(self, service: str) -> Sequence[SealedSecret]:
        newest = {sealed.name: sealed for sealed in self.secret_versions(service)}
        return list(newest.values())

    def secret(self, service: str, name: str, version: int) -> SealedSecret | None:
        self._maybe_fail()
        return self._secrets.get((service, name, version))

    def secret_versions(
        self, service: str | None = None, name: str | None = None
    ) -> Sequence[SealedSecret]:
        self._maybe_fail()
        return [
            sealed
            for _, sealed in sorted(self._secrets.items())
            if service in (None, sealed.service) and name in (None, sealed.name)
        ]

    def secrets_under_other_keys(
        self, key_id: str, *, after: tuple[str, str, int] = ("", "", 0), limit: int
    ) -> Sequence[SealedSecret]:
        return [
            sealed
            for place, sealed in sorted(self._secrets.items())
            if place > after and sealed.key_id != key_id
        ][:limit]

    def count_secrets(self, key_id: str) -> tuple[int, int]:
        under = sum(sealed.key_id == key_id for sealed in self._secrets.values())
        return under, len(self._secrets)

    def reseal(self, sealed: Sequence[SealedSecret]) -> None:
        self._maybe_fail()
        self._secrets |= {_place(s): s for s in sealed if _place(s) in self._secrets}

    def schemas(self, service: str) -> Sequence[SchemaVersion]:
        return self.newest_schemas(service)

    def newest_schemas(self, service: str | None = None) -> Sequence[SchemaVersion]:
        self._maybe_fail()
        newest = {
            (one.service, one.source): one
            for one in self._schemas
            if service in (None, one.service)
        }
        return sorted(newest.values())

    def schema_versions(
        self, service: str, *, before: int | None = None, limit: int, most_bytes: int | None = None
    ) -> Sequence[SchemaVersion]:
        self._maybe_fail()
        found = [
            one
            for one in reversed(self._schemas)
            if one.service == service and (before is None or one.version < before)
        ]
        return list(up_to_bytes(found[:limit], lambda one: len(one.schema), most_bytes))

    def schema_version(self, service: str, which: int | str) -> SchemaVersion | None:
        self._maybe_fail()
        found = (one for one in reversed(self._schemas) if one.service == service)
        return next((one for one in found if which in (one.version, one.digest)), None)

    def schema_as_of(self, service: str, revision: int) -> SchemaVersion | None:
        self._maybe_fail()
        found = [
            one
            for (name, since), one in sorted(self._activations.items())
            if name == service and since <= revision
        ]
        version = found[-1].version if found else None
        return None if version is None else self.schema_version(service, version)

    def activations(self) -> Sequence[SchemaActivation]:
        self._maybe_fail()
        newest = {name: one for (name, _), one in sorted(self._activations.items())}
        return list(newest.values())

    def keep_schemas(
        self, versions: Sequence[SchemaVersion], activations: Sequence[SchemaActivation] = ()
    ) -> None:
        self._maybe_fail()
        self._keep_schemas(versions, activations)

    def _keep_schemas(
        self, versions: Sequence[SchemaVersion], activations: Sequence[SchemaActivation]
    ) -> None:
        self._schemas += versions
        self._activations |= {(one.service, one.revision): one for one in activations}

    def audit(
        self, *, after: int = 0, limit: int | None = None, most_bytes: int | None = None
    ) -> Sequence[AuditEntry]:
        self._maybe_fail()
        rows = [entry for entry in self._audit if entry.seq > after][:limit]
        return list(up_to_bytes(rows, lambda row: len(row.body), most_bytes))

    def has_audit_row(self, row_hash: str) -> bool:
        self._maybe_fail()
        return any(entry.hash == row_hash for entry in self._audit)

    @contextmanager
    def snapshot(self) -> Generator[MemorySnapshot]:
        self._maybe_fail()
        now = self._committed
        seal = self.vouching.seal(now.audit_seq, now.audit_head, self._boot_seq)
        rows = (
            tuple(self._audit),
            tuple(self._history),
            tuple(self._schemas),
            tuple(self._activations.values()),
            tuple(self._taken_back),
        )
        yield MemorySnapshot(now, *rows, seal, self._boot_seq)

    def note_boot(self, boot_seq: int) -> None:
        self._boot_seq = max(self._boot_seq, boot_seq)

    def mark_confirmed(
        self,
        revisions: Sequence[tuple[str, int]],
        times: Sequence[ChangeTimes] = (),
    ) -> None:
        for service, revision in revisions:
            if service in self._committed.services:
                self._confirmed[service] = max(self._confirmed.get(service, 0), revision)
        for one in times:
            kept = self._times.get(one.revision)
            self._times[one.revision] = one if kept is None else earliest(kept, one)

    def pending(self) -> Sequence[tuple[str, int]]:
        return [
            (name, state.revision)
            for name, state in self._committed.services.items()
            if self._confirmed.get(name, 0) < state.revision
        ]

    def probe(self) -> None:
        self._maybe_fail()

    def try_writing(self) -> None:
        pass

    def verify(self) -> None:
        """What is in memory does not contradict itself."""

    def close(self) -> None:
        """Nothing to release."""

    def abandon(self) -> None:
        """Nothing to release."""

    def _maybe_fail(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """The `Snapshot` of what was there when it was taken."""

    _committed: Committed
    _audit: tuple[AuditEntry, ...]
    _history: tuple[HistoryRow, ...]
    _schemas: tuple[SchemaVersion, ...]
    _activations: tuple[SchemaActivation, ...]
    _taken_back: tuple[TakenBack, ...]
    seal: str | None
    boot_seq: int

    @property
    def head(self) -> Head:
        return Head(self._committed.audit_seq, self._committed.audit_head, "the store's counter")

    def kept(self) -> KeptState:
        return KeptState(self._committed)

    def audit(self) -> Generator[AuditEntry]:
        yield from self._audit

    def history(self) -> Generator[KeptEntry]:
        for row in self._history:
            *about, _ = row.entry
            yield KeptEntry._make((row.service, *about, _changes(row.entry)))

    def schemas(self) -> Generator[KeptSchema]:
        for one in self._schemas:
            yield KeptSchema(one.service, one.version, one.digest, one.source, one.schema)

    def activations(self) -> Generator[SchemaActivation]:
        yield from self._activations

    def taken_back(self) -> Generator[TakenBack]:
        yield from self._taken_back


def _changes(entry: HistoryEntry) -> bytes:
    return orjson.dumps([change.to_list() for change in entry.changes])


def _texts(entry: HistoryEntry) -> Sequence[str]:
    values = [value for change in entry.changes for value in (change.key, change.old, change.new)]
    texts = [one if isinstance(one, str) else orjson.dumps(one).decode() for one in values]
    return [*texts, entry.reason or ""]


def _insides(receipts: Sequence[KeptReceipt], before: float) -> list[int]:
    """Where the old receipts stand that are neither the first nor the last of their segment."""
    end = next((i for i, one in enumerate(receipts) if one.received_at >= before), len(receipts))
    inside: list[int] = []
    for name in {one[:2] for one in receipts[:end]}:
        mine = [i for i, one in enumerate(receipts[:end]) if one[:2] == name]
        inside += (
            around[1]
            for around in zip(mine, mine[1:], mine[2:], strict=False)
            if len({(receipts[i].revision, receipts[i].state) for i in around}) == 1
        )
    return sorted(inside)


def _is_wanted(row: HistoryRow, query: ChangesQuery) -> bool:
    entry = row.entry
    return (
        (query.after is None or entry.revision > query.after)
        and (query.before is None or entry.revision < query.before)
        and query.service in (None, row.service)
        and query.by in (None, entry.by)
        and (query.since is None or entry.at >= query.since)
        and (query.until is None or entry.at <= query.until)
        and query.correlation_id in (None, entry.correlation_id)
    )


def _change(rows: Sequence[HistoryRow]) -> Change:
    entry = rows[0].entry
    return Change(
        revision=entry.revision,
        correlation_id=entry.correlation_id,
        epoch_seq=entry.epoch_seq,
        config_epoch=entry.config_epoch,
        at=entry.at,
        by=entry.by,
        action=entry.action,
        reason=entry.reason,
        services=tuple(row.service for row in rows),
    )


def _falling(place: tuple[int, str]) -> tuple[int, str]:
    """Sorts by revision, the newest first, then by service."""
    return -place[0], place[1]


def _place(sealed: SealedSecret) -> tuple[str, str, int]:
    return sealed.service, sealed.name, sealed.version
