"""What a service was at an earlier revision or time, told from its history. Pure: what is kept is passed in.

History names the old and the new value of each key that a revision changed. From the nearest checkpoint a few
entries lead there. A database of before 0.6.0 has no checkpoints of its past: then the way is back from the
oldest one, or from now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import orjson

from config_manager.config.catalogue import Effective
from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.shapes import Shape, Shapes
from config_manager.storage.state import (
    VERSIONS_A_CHECKPOINT,
    AuditEntry,
    Checkpoint,
    Committed,
    HistoryEntry,
    HistoryPage,
    HistoryQuery,
    KeyChange,
    SchemaVersion,
    ServiceState,
    TakenBack,
)

_PAGE_BYTES = 1024 * 1024
_SECRET, _SECRET_DELETE = "secret", "secret-delete"
OF_SECRETS: Final = (_SECRET, _SECRET_DELETE)
"""Actions that change no value. What they show of a change is a mask."""
_SILENT = (_SECRET_DELETE, "restore")
"""Actions that do not say whether the service is deleted."""

ABSENT: Final = object()
"""Stands for the value of a key that is not there."""


class Kept(Protocol):
    """What is asked of a store. Each may raise DatabaseUnavailable."""

    def history(self, query: HistoryQuery) -> HistoryPage: ...

    def checkpoints(
        self, service: str, revision: int
    ) -> tuple[Checkpoint | None, Checkpoint | None]: ...

    def taken_back(self, service: str) -> Sequence[TakenBack]: ...

    def epoch_as_of(self, revision: int) -> Epoch: ...

    def schema_as_of(self, service: str, revision: int) -> SchemaVersion | None: ...

    def schema_version(self, service: str, which: int | str) -> SchemaVersion | None: ...

    def audit(
        self, *, after: int = 0, limit: int | None = None, most_bytes: int | None = None
    ) -> Sequence[AuditEntry]: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A service as GET shows it, now or as of a revision.

    stored, config (effective): both may hold keys that are secrets by now. secrets: names of all of them, those
    that count now too. unset: of those that nobody has stored. revision: 0 if nobody had written it; then
    `at` and `by` are None.
    """

    stored: JsonObject
    config: JsonObject
    defaulted: tuple[str, ...]
    secrets: frozenset[str]
    unset: frozenset[str]
    version: int
    revision: int
    epoch: Epoch
    at: str | None
    by: str | None


@dataclass(frozen=True, slots=True)
class Then:
    """A service as of its newest revision then. entry: what made that. secrets: names of those that were stored."""

    service: str
    entry: HistoryEntry
    stored: JsonObject
    secrets: frozenset[str]
    deleted: bool


def old_of(change: KeyChange) -> object:
    """The value before, or ABSENT."""
    return ABSENT if change.old is None and "old" not in change.nulls else change.old


def new_of(change: KeyChange) -> object:
    """The value after, or ABSENT."""
    return ABSENT if change.new is None and "new" not in change.nulls else change.new


def entries(
    kept: Kept,
    service: str,
    *,
    below: int | None = None,
    key: str | None = None,
    page: int = VERSIONS_A_CHECKPOINT,
) -> Iterator[HistoryEntry]:
    """The service's history, newest first, read a page at a time. below: only revisions below this one. key: only
    those that changed it."""
    while True:
        query = HistoryQuery(service, limit=page, before=below, key=key, most_bytes=_PAGE_BYTES)
        found = kept.history(query)
        yield from found.entries
        if found.next_before is None:
            return
        below = found.next_before


def revision_at(kept: Kept, at: str, newest_row: int) -> int:
    """The newest revision as of a time (RFC 3339 in UTC, with milliseconds). newest_row: the number of the audit's.

    If the server's clock went back, several are the newest as of one time; this is one of them.
    """
    revision, low, high = 0, 0, newest_row + 1
    while high - low > 1:  # the row at `low` was there, none from `high` on was
        middle = (low + high) // 2
        rows = kept.audit(after=middle - 1, limit=1)
        if rows and _at(rows[0]) <= at:
            revision, low = rows[0].revision, middle
        else:
            high = middle
    return revision


def newest_entry(kept: Kept, service: str, revision: int) -> HistoryEntry | None:
    """What made the service's newest revision as of this one."""
    found = kept.history(HistoryQuery(service, limit=1, before=revision + 1)).entries
    return found[0] if found else None


def as_of(kept: Kept, service: str, revision: int, now: ServiceState | None) -> Then | None:
    """The service then, deleted or not; None if nobody had written it yet. now: its newest state."""
    entry = newest_entry(kept, service, revision)
    if entry is None:
        return None
    below, above = kept.checkpoints(service, entry.revision)
    start = below or Checkpoint(service, 0, 0, True, {}, ())
    if entry.version - start.version <= VERSIONS_A_CHECKPOINT:
        return _forward(kept, start, entry)
    if above is None:
        assert now is not None, "what has a history has a state"
        above = Checkpoint.of(now)
    return _backward(kept, above, entry)


# ── as GET shows it ────────────────────────────────────────────────────────────────────────────


def seen_now(committed: Committed, shapes: Shapes, service: str) -> Seen | None:
    """None if there is no such service."""
    state, shape = committed.live(service), shapes.of(committed, service)
    declared = frozenset[str]() if shape is None else shape.secrets
    if state is None:
        return None if shape is None else _unwritten(shape.effective({}), declared, committed.epoch)
    return Seen(
        stored=state.stored,
        config=state.effective,
        defaulted=state.defaulted,
        secrets=declared | state.secrets.keys(),
        unset=declared - state.secrets.keys(),
        version=state.version,
        revision=state.revision,
        epoch=state.epoch,
        at=state.updated_at,
        by=state.updated_by,
    )


def seen(
    kept: Kept, committed: Committed, shapes: Shapes, service: str, revision: int
) -> Seen | None:
    """As of a revision. None if there was no such service then. A value whose key is a secret by now is one."""
    state = committed.services.get(service)
    then = as_of(kept, service, revision, state)
    active = shapes.of(committed, service)
    described = _described(kept, service, revision, active)
    declared = frozenset[str]() if described is None else described.secrets
    if then is None or then.deleted:
        if described is None:
            return None
        one = _unwritten(described.effective({}), declared, kept.epoch_as_of(revision))
    else:
        config, defaulted = _shaped(kept, then, state, active)
        one = Seen(
            stored=then.stored,
            config=config,
            defaulted=defaulted,
            secrets=declared | then.secrets,
            unset=declared - then.secrets,
            version=then.entry.version,
            revision=then.entry.revision,
            epoch=Epoch(then.entry.epoch_seq, then.entry.config_epoch),
            at=then.entry.at,
            by=then.entry.by,
        )
    by_now = shapes.secret_keys(committed, service) & one.config.keys()
    return replace(one, secrets=one.secrets | by_now)


def _shaped(kept: Kept, then: Then, now: ServiceState | None, active: Shape | None) -> Effective:
    """What was effective from that very revision on."""
    if now is not None and now.revision == then.entry.revision:
        return Effective(now.effective, now.defaulted)
    version = kept.schema_as_of(then.service, then.entry.revision)
    if version is None:
        return Effective(then.stored, ())
    return _by(version, active).effective(then.stored)


def _unwritten(config: Effective, secrets: frozenset[str], epoch: Epoch) -> Seen:
    return Seen({}, *config, secrets, secrets, 0, 0, epoch, None, None)


def by_schema(version: SchemaVersion, epoch: Epoch) -> Seen:
    """A service that stores nothing, with this schema."""
    described = Described.by(version)
    return _unwritten(described.effective({}), described.secrets, epoch)


@dataclass(frozen=True, slots=True)
class Described:
    """What a version of a schema says of values that are not stored."""

    defaults: JsonObject
    secrets: frozenset[str]

    @classmethod
    def by(cls, version: SchemaVersion) -> Described:
        keys: dict[str, JsonObject] = orjson.loads(version.schema).get("properties", {})
        secrets = frozenset(name for name, one in keys.items() if one.get("x-secret"))
        with_default = {name: one for name, one in keys.items() if "default" in one}
        return cls(
            {name: one["default"] for name, one in with_default.items() if name not in secrets},
            secrets,
        )

    def effective(self, stored: JsonObject) -> Effective:
        defaulted = tuple(key for key in self.defaults if key not in stored)
        return Effective({**self.defaults, **stored}, defaulted)


def _by(version: SchemaVersion, active: Shape | None) -> Described | Shape:
    """The active shape if it is this one: it has its keys in their own order, while a version is kept sorted."""
    if active is not None and active.digest == version.digest:
        return active
    return Described.by(version)


def _described(
    kept: Kept, service: str, revision: int, active: Shape | None
) -> Described | Shape | None:
    """By the schema that was active until the next revision. A schema that came without a revision counts from
    the next one on, and so does one that came with it and changed the service's values."""
    following = newest_entry(kept, service, revision + 1)
    came_with_it = (
        following is not None
        and following.revision == revision + 1
        and following.action == "schema"
    )
    version = kept.schema_as_of(service, revision if came_with_it else revision + 1)
    return None if version is None else _by(version, active)


# ── one by one ─────────────────────────────────────────────────────────────────────────────────


def _forward(kept: Kept, start: Checkpoint, entry: HistoryEntry) -> Then:
    """From a checkpoint at or below the entry."""
    steps: list[HistoryEntry] = []
    for step in entries(kept, start.service, below=entry.revision + 1):
        if step.revision <= start.revision:
            break
        steps.append(step)
    stored, secrets, deleted = dict(start.stored), set(start.secrets), start.deleted
    for step in reversed(steps):
        if step.action == _SECRET:
            secrets.add(step.changes[0].key)
        elif step.action == _SECRET_DELETE:
            secrets.discard(step.changes[0].key)
        else:
            _set(stored, [(change.key, new_of(change)) for change in step.changes])
        deleted = _deletes(step, before=deleted)
    return Then(start.service, entry, stored, frozenset(secrets), deleted)


def _backward(kept: Kept, start: Checkpoint, entry: HistoryEntry) -> Then:
    """From a checkpoint above the entry."""
    stored, secrets = dict(start.stored), set(start.secrets)
    older: list[HistoryEntry] = []
    for step in entries(kept, start.service, below=start.revision + 1):
        if step.revision <= entry.revision:
            older.append(step)
            if step.action not in _SILENT:
                break
        elif step.action == _SECRET_DELETE:
            secrets.add(step.changes[0].key)
        elif step.action != _SECRET:
            _set(stored, [(change.key, old_of(change)) for change in step.changes])
        elif old_of(step.changes[0]) is ABSENT:
            secrets.discard(step.changes[0].key)
    deleted = True
    for step in reversed(older):
        deleted = _deletes(step, before=deleted)
    return Then(start.service, entry, stored, frozenset(secrets), deleted)


def _deletes(step: HistoryEntry, *, before: bool) -> bool:
    """Whether the service is deleted after this. A deletion of a secret leaves a deleted service as it is, and so
    does `restore`, unless it puts values back."""
    if step.action not in _SILENT:
        return step.action == "delete"
    values = () if step.action == _SECRET_DELETE else step.changes
    return before and all(new_of(change) is ABSENT for change in values)


def _at(row: AuditEntry) -> str:
    """A row that is none of ours counts as one that was always there."""
    try:
        return str(orjson.loads(row.body)["at"])
    except (ValueError, LookupError, TypeError):
        return ""


def _set(stored: JsonObject, values: Sequence[tuple[str, object]]) -> None:
    for key, value in values:
        if value is ABSENT:
            stored.pop(key, None)
        else:
            stored[key] = value
