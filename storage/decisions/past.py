"""What a service was at an earlier revision or time, told from its history. Pure: what is kept is passed in.

History names the old and the new value of each key that a revision changed. From the nearest checkpoint a few
entries lead there. A database of before 0.6.0 has no checkpoints of its past: then the way is back from the
oldest one, or from now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from config_manager.config.strict_json import JsonObject
from config_manager.storage.state import (
    VERSIONS_A_CHECKPOINT,
    Checkpoint,
    HistoryEntry,
    HistoryPage,
    HistoryQuery,
    KeyChange,
    ServiceState,
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


class Moment(NamedTuple):
    """A revision, or else a time (RFC 3339 in UTC, with milliseconds)."""

    revision: int | None = None
    at: str | None = None

    def holds(self, revision: int, at: str) -> bool:
        """Whether what was made as this revision, at this time, was there then."""
        return revision <= self.revision if self.revision is not None else at <= (self.at or "")

    def __str__(self) -> str:
        return f"as of revision {self.revision}" if self.at is None else f"at {self.at}"


@dataclass(frozen=True, slots=True)
class Then:
    """A service as of its newest revision then. entry: what made that. secrets: names of those that were stored."""

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
    kept: Kept, service: str, *, below: int | None = None, page: int = VERSIONS_A_CHECKPOINT
) -> Iterator[HistoryEntry]:
    """The service's history, newest first, read a page at a time. below: only revisions below this one."""
    while True:
        query = HistoryQuery(service, limit=page, before=below, most_bytes=_PAGE_BYTES)
        found = kept.history(query)
        yield from found.entries
        if found.next_before is None:
            return
        below = found.next_before


def entry_then(kept: Kept, service: str, moment: Moment) -> HistoryEntry | None:
    """What made the newest revision of the service then; None if nobody had written it yet.

    If the server's clock went back, several revisions are the newest as of a time; this is one of them.
    """
    if moment.revision is not None:
        return _newest(kept, service, moment.revision)
    newest = kept.history(HistoryQuery(service, limit=1)).entries
    if not newest or moment.holds(*_made(newest[0])):
        return newest[0] if newest else None
    found, low, high = None, 0, newest[0].revision
    while high - low > 1:  # each entry at or below `low` was there; the one at `high` was not
        middle = (low + high) // 2
        entry = _newest(kept, service, middle)
        if entry is None or moment.holds(*_made(entry)):
            found, low = entry, middle
        else:
            high = entry.revision
    return found


def as_of(kept: Kept, service: str, moment: Moment, now: ServiceState | None) -> Then | None:
    """The service then, deleted or not; None if nobody had written it yet. now: its newest state."""
    entry = entry_then(kept, service, moment)
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


def _newest(kept: Kept, service: str, revision: int) -> HistoryEntry | None:
    found = kept.history(HistoryQuery(service, limit=1, before=revision + 1)).entries
    return found[0] if found else None


def _made(entry: HistoryEntry) -> tuple[int, str]:
    return entry.revision, entry.at


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
    return Then(entry, stored, frozenset(secrets), deleted)


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
    return Then(entry, stored, frozenset(secrets), deleted)


def _deletes(step: HistoryEntry, *, before: bool) -> bool:
    """Whether the service is deleted after this. A deletion of a secret leaves a deleted service as it is, and so
    does `restore`, unless it puts values back."""
    if step.action not in _SILENT:
        return step.action == "delete"
    values = () if step.action == _SECRET_DELETE else step.changes
    return before and all(new_of(change) is ABSENT for change in values)


def _set(stored: JsonObject, values: Sequence[tuple[str, object]]) -> None:
    for key, value in values:
        if value is ABSENT:
            stored.pop(key, None)
        else:
            stored[key] = value
