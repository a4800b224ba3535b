"""What taking something back comes to, read from what is kept before it is decided. Pure.

Values of an older schema go up through `x-was` of each version since, as they went when it became active.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import orjson

from config_manager.config import strict_json
from config_manager.config.errors import FieldError, NothingToTakeBack, SchemaInvalid, UndoConflict
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import migrating, past
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.past import ABSENT, Kept
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.state import (
    Committed,
    HistoryEntry,
    KeyChange,
    SchemaVersion,
    TakenBack,
    changed_keys,
)

_OF_VALUES = ("put", "patch", "delete", "epoch", "restore")
"""Actions that can be taken back: what people wrote. Migrated values lead to today's schema, so they can't be."""
_FEW = 8
"""Entries to read at once: mostly the newest few say it all."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a service shall have again.

    values: stored ones, in the terms of the schema with this digest (None: it has no schema). impossible: those
    that have no counterpart there. written: whether the service had been written then. after, upto, keys: the
    changes that this takes back, see `TakenBack`.
    """

    values: JsonObject
    digest: str | None
    impossible: tuple[FieldError, ...]
    after: int
    upto: int
    keys: tuple[str, ...] | None = None
    written: bool = True


# ── everything since a revision ────────────────────────────────────────────────────────────────


def as_of(
    kept: Kept, committed: Committed, shapes: Shapes, service: str, revision: int
) -> Target | None:
    """What the service had as of a revision; None if it was not there."""
    seen = past.seen(kept, committed, shapes, service, revision)
    if seen is None:
        return None
    raised = _Raising(kept, committed, service).up(seen.stored, seen.revision)
    return Target(
        *(raised.values, _digest(committed, shapes, service), raised.impossible),
        after=revision,
        upto=committed.revision,
        written=seen.revision > 0,
    )


def everything(
    kept: Kept, committed: Committed, shapes: Shapes, revision: int
) -> dict[str, Target]:
    """Every service as of a revision. One that was not there is not among them."""
    found: dict[str, Target] = {}
    for name, state in committed.services.items():
        if state.revision > revision:
            target = as_of(kept, committed, shapes, name, revision)
            if target is not None:
                found[name] = target
        elif not state.deleted:
            digest = _digest(committed, shapes, name)
            found[name] = Target(state.stored, digest, (), revision, committed.revision)
    return found


# ── one change ─────────────────────────────────────────────────────────────────────────────────


def undo(
    kept: Kept, committed: Committed, shapes: Shapes, revision: int, keys: Sequence[str] = ()
) -> tuple[dict[str, Target], tuple[str, ...]]:
    """What taking back one revision comes to, and the services that it made.

    keys: are taken back although they were written since. Raises UndoConflict, which names each key that was.
    """
    targets: dict[str, Target] = {}
    made: list[str] = []
    moved: list[dict[str, object]] = []
    for name, state in committed.services.items():
        if state.revision < revision:
            continue
        entry = past.newest_entry(kept, name, revision)
        if entry is None or entry.revision != revision or entry.action not in _OF_VALUES:
            continue
        if past.seen(kept, committed, shapes, name, revision - 1) is None:
            made.append(name)
            continue
        undoing = _Undoing(kept, committed, shapes, entry, name)
        moved += undoing.moved(keys)
        if (target := undoing.target(keys)) is not None:
            targets[name] = target
    if moved:
        names = ", ".join(f"{one['service']} {one['key']}" for one in moved[:20])
        raise UndoConflict(
            f"revision {revision} can't be taken back alone: {names} was written since. To take "
            f"them back all the same, undo revision {revision} with these keys named; nothing was written",
            moved,
        )
    return targets, tuple(sorted(made))


class _Undoing:
    """One service's part in a revision."""

    def __init__(
        self, kept: Kept, committed: Committed, shapes: Shapes, entry: HistoryEntry, service: str
    ) -> None:
        self._kept, self._service, self._entry = kept, service, entry
        self._newest = committed.revision
        self._digest = _digest(committed, shapes, service)
        live = committed.live(service)
        self._is_gone = live is None
        self._now = {} if live is None else live.stored
        self._ledger = Ledger(kept, service)
        self._left = self._ledger.left(entry)
        then = past.as_of(kept, service, entry.revision, committed.services[service])
        assert then is not None, "the entry is there"
        raising = _Raising(kept, committed, service)
        after = raising.up(then.stored, entry.revision)
        before = raising.up(_without(then.stored, self._left), entry.revision)
        self._impossible = before.impossible
        self._changes = changed_keys(before.values, after.values)
        """in today's terms, as the revision made them"""

    def target(self, keys: Sequence[str]) -> Target | None:
        """None if there is nothing to take back. What was written since to one of `keys` goes with it."""
        revives = self._entry.action == "delete" and self._is_gone
        if not self._changes and not revives:
            return None
        return Target(
            *(_without(self._now, self._changes), self._digest, self._impossible),
            after=self._entry.revision - 1,
            upto=self._newest if self._is_beyond(keys) else self._entry.revision,
            keys=tuple(change.key for change in self._left),
        )

    def moved(self, keys: Sequence[str]) -> Iterator[dict[str, object]]:
        for change in self._changes:
            by = None if change.key in keys else self._written_since(change)
            if by is not None:
                yield {"service": self._service, "key": change.key, "revision": by}

    def _is_beyond(self, keys: Sequence[str]) -> bool:
        return any(one.key in keys and self._written_since(one) for one in self._changes)

    def _written_since(self, change: KeyChange) -> int | None:
        """The newest revision that wrote the key after this one; None if it is as this one left it."""
        newest: int | None = None
        for later in past.entries(self._kept, self._service, key=change.key, page=_FEW):
            if later.revision <= self._entry.revision:
                break
            newest = newest or later.revision
            if later.action in _OF_VALUES and not self._ledger.covers(later.revision, change.key):
                return newest
        is_as_left = _same(self._now.get(change.key, ABSENT), past.new_of(change))
        return None if is_as_left else newest or self._entry.revision


# ── the newest change ──────────────────────────────────────────────────────────────────────────


def newest_left(kept: Kept, committed: Committed, shapes: Shapes) -> tuple[int, tuple[str, ...]]:
    """The newest revision that changed values and is not taken back, and the services that newer ones made, which
    are kept. Raises NothingToTakeBack."""
    made: set[str] = set()
    waiting = [(-state.revision, name) for name, state in committed.services.items()]
    heapq.heapify(waiting)
    known: dict[str, Iterator[int]] = {}
    while waiting:
        newest, name = heapq.heappop(waiting)
        if name not in known:  # so far only its newest revision of any kind is known
            known[name] = _left(kept, name)
        elif past.seen(kept, committed, shapes, name, -newest - 1) is not None:
            return -newest, tuple(sorted(made))
        else:
            made.add(name)
        following = next(known[name], None)
        if following is not None:
            heapq.heappush(waiting, (-following, name))
    raise NothingToTakeBack(nothing_left(sorted(made)))


def nothing_left(made: Sequence[str]) -> str:
    """made: services that were not there before."""
    if not made:
        return "no change of values is left that could be taken back"
    names = ", ".join(made[:20])
    return (
        f"nothing is left to take back; not there before, and so kept: {names} (DELETE removes one)"
    )


def _left(kept: Kept, service: str) -> Iterator[int]:
    """The revisions of a service of which something is left to be taken back, newest first."""
    ledger = Ledger(kept, service)
    below: int | None = None
    while True:
        for entry in past.entries(kept, service, below=below, page=_FEW):
            beyond = ledger.beyond(entry.revision)
            if beyond is not None:  # all of it is taken back, and much before it may be
                below = beyond + 1
                break
            if entry.action in _OF_VALUES and ledger.has_left(entry):
                yield entry.revision
        else:
            return


class Ledger:
    """Which changes of a service rollbacks took back. A rollback that was itself taken back counts no more."""

    def __init__(self, kept: Kept, service: str) -> None:
        self._newest_first = kept.taken_back(service)
        self._good: dict[str, list[TakenBack]] = {}

    def left(self, entry: HistoryEntry) -> list[KeyChange]:
        """The changes of an entry that are not taken back."""
        if entry.action not in _OF_VALUES:
            return []
        return [one for one in entry.changes if not self.covers(entry.revision, one.key)]

    def has_left(self, entry: HistoryEntry) -> bool:
        """Whether something of it is not taken back. A deletion of a service that had no values is one, too."""
        if entry.action == "delete" and not entry.changes:
            return not self.covers(entry.revision, "")
        return bool(self.left(entry))

    def covers(self, revision: int, key: str) -> bool:
        """Whether the change of a key in a revision is taken back. key: empty for the whole service."""
        return any(one.after < revision <= one.upto for one in self._that_count(key))

    def beyond(self, revision: int) -> int | None:
        """The revision before all that was taken back together with this one; None if it was not, as a whole."""
        of_keys = max((one.revision for one in self._newest_first if one.keys), default=0)
        wholly = (
            one.after
            for one in self._that_count("")
            if one.keys is None and one.revision > of_keys and one.after < revision <= one.upto
        )
        return min(wholly, default=None)

    def _that_count(self, key: str) -> list[TakenBack]:
        if key not in self._good:
            good = self._good[key] = []
            for one in self._newest_first:
                is_about_it = one.keys is None or key in one.keys or (not key and not one.keys)
                if is_about_it and not any(g.after < one.revision <= g.upto for g in good):
                    good.append(one)
        return self._good[key]


# ── values of an older schema ──────────────────────────────────────────────────────────────────


class _Raising:
    """Brings a service's values of then to its active schema."""

    def __init__(self, kept: Kept, committed: Committed, service: str) -> None:
        self._kept, self._service = kept, service
        self._now = kept.schema_as_of(service, committed.revision + 1)

    def up(self, stored: JsonObject, revision: int) -> migrating.Migrated:
        """stored: as of this revision of the service."""
        then = self._kept.schema_as_of(self._service, revision)
        values, impossible = stored, list[FieldError]()
        for older, newer in pairwise(self._chain(then, revision)):
            step = migrating.up(values, older, newer)
            values = step.values
            impossible += step.impossible
        return migrating.Migrated(values, impossible=tuple(impossible))

    def _chain(self, then: SchemaVersion | None, revision: int) -> list[CompiledSchema]:
        """From the version of then to the active one, by way of those that were active in between. Values that no
        schema shaped are in the terms of the first one that came after them."""
        now = self._now
        if now is None or (then is not None and then.digest == now.digest):
            return []
        if then is None:
            versions = [*self._between(0, now.version, revision), now]
        else:
            versions = [then, *self._between(then.version, now.version, revision), now]
        try:
            return [CompiledSchema(orjson.loads(one.schema)) for one in versions]
        except SchemaInvalid:  # a model's that could not be put: nothing was ever moved by it
            return []

    def _between(self, first: int, last: int, revision: int) -> Iterator[SchemaVersion]:
        """Those that became active at or after a revision."""
        for number in range(first + 1, last):
            one = self._kept.schema_version(self._service, number)
            if one is not None and one.revision >= revision and self._was_active(one):
                yield one

    def _was_active(self, one: SchemaVersion) -> bool:
        """The catalogue's is noted beside one that somebody put; any other is made to be active."""
        if one.source != "catalogue":
            return True
        found = self._kept.schema_as_of(self._service, one.revision + 1)
        return found is not None and found.version == one.version


def _digest(committed: Committed, shapes: Shapes, service: str) -> str | None:
    shape = shapes.of(committed, service)
    return None if shape is None else shape.digest


def _without(values: JsonObject, changes: Sequence[KeyChange]) -> JsonObject:
    """Values with each of these keys as it was before."""
    earlier = dict(values)
    for change in changes:
        old = past.old_of(change)
        if old is ABSENT:
            earlier.pop(change.key, None)
        else:
            earlier[change.key] = old
    return earlier


def _same(one: object, other: object) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    return strict_json.same(one, other)
