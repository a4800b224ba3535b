"""Taking back: a service, everything, one change, or the newest one, as a new revision. Pure.

What was there is read from the history (`storage.decisions.past`) before it is decided. What happened is never
undone in the history: a rollback is a revision like any other, and says which changes it took back.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from config_manager.config import strict_json
from config_manager.config.errors import (
    Conflict,
    FieldError,
    InvalidValues,
    NothingToTakeBack,
    RollbackRefused,
    UndoConflict,
)
from config_manager.config.names import Epoch, pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import past
from config_manager.storage.decisions.changes import Beside, Decided, Revision
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.intents import EpochWritten, Written, check_preconditions
from config_manager.storage.decisions.past import ABSENT, Kept
from config_manager.storage.decisions.shapes import Shape, Shapes
from config_manager.storage.decisions.terms import Precondition
from config_manager.storage.state import (
    Committed,
    HistoryEntry,
    KeyChange,
    TakenBack,
    changed_keys,
)

_OF_VALUES = ("put", "patch", "delete", "epoch", "restore")
"""Actions that can be taken back: what people wrote. A schema's migration leads to today's schema, so it can't be."""
_FEW = 8
"""Entries to read at once: mostly the newest few say it all."""


class Moved(Conflict):
    """What the past was read for has changed meanwhile: reading it again helps."""


# ── a service ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Write again what a service had as of a revision. values: then. keys: only these; None: all. preview:
    what today's schema does not take is part of the answer."""

    service: str
    to_revision: int
    values: JsonObject
    keys: tuple[str, ...] | None = None
    preconditions: tuple[Precondition, ...] = ()
    preview: bool = False

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        check_preconditions(before, self.service, self.preconditions)
        service, live = self.service, before.live(self.service)
        now = {} if live is None else live.stored
        secrets = on.tools.shapes.secret_keys(before, service)
        then = {key: value for key, value in self.values.items() if key not in secrets}
        if self.keys is not None:
            then = _with_keys(now, then, self.keys)
        errors = _refused(on.tools.shapes.of(before, service), now, then)
        if errors and not self.preview:
            raise _refusal(f"{service} does not take what it had as of then any more", errors)
        revision = Revision(before, on, on.tools.shapes, before.epoch, before.revision + 1)
        state = revision.next(service, then)
        taken = TakenBack(service, revision.number, self.to_revision, before.revision, self.keys)
        change = revision.commit({service: state}, "rollback", beside=Beside(taken_back=(taken,)))
        effective = changed_keys({} if live is None else live.effective, state.effective)
        written = Written(state, live is None, effective, errors=errors)
        return Decided(written, change, repeatable=True)


def _with_keys(now: JsonObject, then: JsonObject, keys: Sequence[str]) -> JsonObject:
    """Today's values, with these keys as they were."""
    strange = [n for n, key in enumerate(keys) if key not in now and key not in then]
    if strange:
        raise InvalidValues(
            "some keys were neither there then, nor are now; nothing was written",
            [FieldError(pointer("keys", n), "no such key, then or now") for n in strange],
        )
    kept = {key: value for key, value in now.items() if key not in keys}
    return {**kept, **{key: then[key] for key in keys if key in then}}


def _refused(shape: Shape | None, now: JsonObject, then: JsonObject) -> tuple[FieldError, ...]:
    """What the shape does not take, beside what is wrong today already."""
    if shape is None:
        return ()
    wrong = set(shape.errors(now))
    return tuple(error for error in shape.errors(then) if error not in wrong)


def _refusal(what: str, errors: Sequence[FieldError]) -> RollbackRefused:
    return RollbackRefused(f"{what}: today's schema is another; nothing was written", errors)


# ── several services, as an epoch ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Part:
    """What a service shall have again. written: False if nobody had written it then. after, upto, keys: see
    `TakenBack`."""

    values: JsonObject
    after: int
    upto: int
    keys: tuple[str, ...] | None = None
    written: bool = True


@dataclass(frozen=True, kw_only=True)
class RollbackEpoch:
    """Take back a change, or everything since a revision, as one epoch.

    parts: by service. kept: services that were not there, and stay as they are. read_at: the state at which both
    were read. undone: the revision that is taken back; to_revision: or else all after this one. preview: as of
    `Rollback`. Raises Moved if somebody wrote since `read_at` and that may count.
    """

    parts: Mapping[str, Part]
    kept: tuple[str, ...]
    read_at: Committed
    undone: int | None = None
    to_revision: int | None = None
    preview: bool = False

    def decide(self, before: Committed, on: Equipped) -> Decided[EpochWritten]:
        parts, kept = self.parts, self.kept
        if self.to_revision is not None:
            parts, kept = self._of_everything(before, self.to_revision)
        elif before.revision != self.read_at.revision:
            raise Moved("somebody else wrote meanwhile")
        shapes = on.tools.shapes
        epoch = Epoch(before.epoch.seq + 1, on.tools.new_id())
        revision = Revision(before, on, shapes, epoch, before.revision + 1)
        wanted = dict(_that_differ(before, parts, shapes))
        if not wanted:
            raise NothingToTakeBack(_nothing(kept))
        errors = tuple(
            FieldError(pointer("services", name) + e.pointer, e.detail)
            for name, values in wanted.items()
            for e in _refused(shapes.of(before, name), _stored(before, name), values)
        )
        if errors and not self.preview:
            raise _refusal("some services do not take what they had any more", errors)
        states = {name: revision.next(name, values) for name, values in wanted.items()}
        taken = tuple(
            TakenBack(name, revision.number, parts[name].after, parts[name].upto, parts[name].keys)
            for name in states
        )
        change = revision.commit(states, "rollback", beside=Beside(taken_back=taken))
        answer = EpochWritten(
            config_epoch=epoch.id,
            epoch_seq=epoch.seq,
            revision=revision.number,
            services=change.services,
            correlation_id=on.correlation_id,
            kept=kept,
            undone=self.undone,
            changes={
                name: _effect(before, name, state.effective) for name, state in states.items()
            },
            errors=errors,
        )
        return Decided(answer, change, repeatable=True)

    def _of_everything(
        self, before: Committed, to_revision: int
    ) -> tuple[Mapping[str, Part], tuple[str, ...]]:
        """Every service as of then. What was read of then does not change; what was written since it was read is
        taken back as well."""
        parts = dict(self.parts)
        for name, state in self.read_at.services.items():
            if state.revision <= to_revision and not state.deleted:
                parts[name] = Part(state.stored, to_revision, before.revision)
        live = (name for name, state in before.services.items() if not state.deleted)
        return parts, tuple(sorted(name for name in live if name not in parts))


def _that_differ(
    before: Committed, parts: Mapping[str, Part], shapes: Shapes
) -> Iterator[tuple[str, JsonObject]]:
    for name, part in sorted(parts.items()):
        live = before.live(name)
        secrets = shapes.secret_keys(before, name)
        values = {key: value for key, value in part.values.items() if key not in secrets}
        is_gone = live is None and part.written
        if is_gone or changed_keys(_stored(before, name), values):
            yield name, values


def _stored(before: Committed, name: str) -> JsonObject:
    live = before.live(name)
    return {} if live is None else live.stored


def _effect(before: Committed, name: str, effective: JsonObject) -> tuple[KeyChange, ...]:
    live = before.live(name)
    return changed_keys({} if live is None else live.effective, effective)


def _nothing(kept: Sequence[str]) -> str:
    if not kept:
        return "all values are as they were: there is nothing to take back"
    return (
        f"there is nothing to take back: {', '.join(kept[:20])} was not there before, and is kept; "
        "DELETE removes a service"
    )


# ── what to take back, read from what is kept ──────────────────────────────────────────────────


def everything(
    kept: Kept, committed: Committed, shapes: Shapes, to_revision: int
) -> dict[str, Part]:
    """The services that were written since, as of then. One that was not there then is not among them."""
    parts: dict[str, Part] = {}
    for name, state in committed.services.items():
        if state.revision > to_revision:
            seen = past.seen(kept, committed, shapes, name, to_revision)
            if seen is not None:
                written = seen.revision > 0
                parts[name] = Part(seen.stored, to_revision, committed.revision, written=written)
    return parts


def undo(
    kept: Kept, committed: Committed, shapes: Shapes, revision: int, keys: Sequence[str] = ()
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """What taking back one revision comes to, and the services that it made.

    keys: are taken back although they were written since. Raises NothingToTakeBack, and UndoConflict, which
    names each key that was.
    """
    parts: dict[str, Part] = {}
    made: list[str] = []
    moved: list[dict[str, object]] = []
    for name, state in committed.services.items():
        if state.revision < revision:
            continue
        entry = past.newest_entry(kept, name, revision)
        if entry is None or entry.revision != revision or entry.action not in _OF_VALUES:
            continue
        changes = Ledger(kept, name).left(entry)
        before = past.seen(kept, committed, shapes, name, revision - 1)
        if before is None:
            made.append(name)
            continue
        for change in changes:
            by = _written_since(kept, name, change, entry, _stored(committed, name))
            if by is not None and change.key not in keys:
                moved.append({"service": name, "key": change.key, "revision": by})
        if changes or (entry.action == "delete" and committed.live(name) is None):
            values = _without(_stored(committed, name), changes)
            names = tuple(change.key for change in changes)
            parts[name] = Part(values, revision - 1, revision, names)
    if moved:
        raise UndoConflict(
            f"{len(moved)} of the keys that revision {revision} changed were written since; "
            "nothing was written",
            moved,
        )
    return parts, tuple(sorted(made))


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
    raise NothingToTakeBack(_nothing(sorted(made)))


def _left(kept: Kept, service: str) -> Iterator[int]:
    """The revisions of a service of which something is left to be taken back, newest first."""
    ledger = Ledger(kept, service)
    for entry in past.entries(kept, service, page=_FEW):
        if entry.action in _OF_VALUES and (ledger.left(entry) or _is_bare_deletion(entry, ledger)):
            yield entry.revision


def _is_bare_deletion(entry: HistoryEntry, ledger: Ledger) -> bool:
    return entry.action == "delete" and not entry.changes and not ledger.covers(entry.revision, "")


def _without(now: JsonObject, changes: Sequence[KeyChange]) -> JsonObject:
    values = dict(now)
    for change in changes:
        old = past.old_of(change)
        if old is ABSENT:
            values.pop(change.key, None)
        else:
            values[change.key] = old
    return values


def _written_since(
    kept: Kept, service: str, change: KeyChange, entry: HistoryEntry, now: JsonObject
) -> int | None:
    """The newest revision that wrote the key after this entry; None if it holds what the entry left."""
    value, left = now.get(change.key, ABSENT), past.new_of(change)
    is_as_left = value is left or (ABSENT not in (value, left) and strict_json.same(value, left))
    ledger, newest = Ledger(kept, service), None
    for later in past.entries(kept, service, key=change.key, page=_FEW):
        if later.revision <= entry.revision:
            break
        newest = newest or later.revision
        is_written = later.action in _OF_VALUES and not ledger.covers(later.revision, change.key)
        if is_written:
            return newest
    return None if is_as_left else newest or entry.revision


class Ledger:
    """Which changes of a service rollbacks took back. A rollback that was itself taken back counts no more."""

    def __init__(self, kept: Kept, service: str) -> None:
        self._newest_first = kept.taken_back(service)
        self._good: dict[str, list[TakenBack]] = {}

    def left(self, entry: HistoryEntry) -> list[KeyChange]:
        """The changes of an entry that are not taken back."""
        return [one for one in entry.changes if not self.covers(entry.revision, one.key)]

    def covers(self, revision: int, key: str) -> bool:
        """Whether the change of a key in a revision is taken back."""
        return any(
            one.after < revision <= one.upto and one.revision > revision
            for one in self._that_count(key)
        )

    def _that_count(self, key: str) -> list[TakenBack]:
        if key not in self._good:
            good = self._good[key] = []
            for one in self._newest_first:
                is_about_it = one.keys is None or key in one.keys or not key
                if is_about_it and not any(g.after < one.revision <= g.upto for g in good):
                    good.append(one)
        return self._good[key]
