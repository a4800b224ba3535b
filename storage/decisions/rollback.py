"""Taking back: a service, everything, one change, or the newest one, as a new revision. Pure.

What was there is read from the history (`taking_back`) before it is decided. History stays as it is: a rollback is a
revision like any other, and says which changes it took back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from config_manager.config.errors import (
    Conflict,
    FieldError,
    InvalidValues,
    NothingToTakeBack,
    Refusal,
    RollbackRefused,
)
from config_manager.config.names import Epoch, pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.changes import Beside, Decided, Revision
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.intents import EpochWritten, Written, check_preconditions
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.taking_back import Target, nothing_left
from config_manager.storage.decisions.terms import Precondition
from config_manager.storage.decisions.writing import judge
from config_manager.storage.state import Committed, KeyChange, TakenBack, changed_keys


class Moved(Conflict):
    """What the past was read for has changed meanwhile: reading it again helps."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused before it came here. Only the repetition of what was done is answered."""

    error: Refusal

    def decide(self, before: Committed, on: Equipped) -> Decided[Any]:  # noqa: ARG002
        raise self.error


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Write again what a service had as of a revision. keys: only these; None: all. preview: what today's schema
    does not take is part of the answer. Raises Moved if the schema is another than the target's."""

    service: str
    target: Target
    keys: tuple[str, ...] | None = None
    preconditions: tuple[Precondition, ...] = ()
    preview: bool = False

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        service, target, shapes = self.service, self.target, on.tools.shapes
        check_preconditions(before, service, self.preconditions)
        _demand_same_schema(before, shapes, {service: target})
        then = _without_secrets(before, shapes, service, target.values)
        if self.keys is not None:
            then = _with_keys(_stored(before, service), then, self.keys)
        errors, warnings = _judged(before, shapes, service, target, then)
        if errors and not self.preview:
            raise RollbackRefused(
                f"{service} does not take any more what it had as of revision {target.after}; "
                "nothing was written",
                errors,
            )
        revision = Revision(before, on, shapes, before.epoch, before.revision + 1)
        state = revision.next(service, then)
        taken = TakenBack(service, revision.number, target.after, before.revision, self.keys)
        change = revision.commit({service: state}, "rollback", beside=Beside(taken_back=(taken,)))
        written = Written(
            state,
            before.live(service) is None,
            _effect(before, service, state.effective),
            warnings=warnings,
            errors=errors,
        )
        return Decided(written, change, repeatable=True)


class WorkedOut(NamedTuple):
    """What taking back several services comes to. wanted: service → the values to store. errors: what today's schema
    does not take of them; warnings: and does not take today either. kept: see `RollbackEpoch`."""

    wanted: Mapping[str, JsonObject]
    kept: tuple[str, ...]
    errors: tuple[FieldError, ...]
    warnings: tuple[FieldError, ...]

    @property
    def refusal(self) -> RollbackRefused:
        """For its errors."""
        return RollbackRefused(
            "some services do not take any more what they had; nothing was written", self.errors
        )


@dataclass(frozen=True, kw_only=True)
class RollbackEpoch:
    """Take back one revision (undone), or everything after one (to_revision), as an epoch.

    targets: by service. kept: services that were not there, and stay as they are. read_at: the newest revision when
    both were read. preview: as of `Rollback`. Raises Moved if what was written since may count, and
    NothingToTakeBack.
    """

    targets: Mapping[str, Target]
    kept: tuple[str, ...]
    read_at: int
    undone: int | None = None
    to_revision: int | None = None
    preview: bool = False

    def decide(self, before: Committed, on: Equipped) -> Decided[EpochWritten]:
        worked_out = self.worked_out(before, on.tools.shapes)
        if worked_out.errors and not self.preview:
            raise worked_out.refusal
        return self._written(before, on, worked_out)

    def worked_out(self, before: Committed, shapes: Shapes) -> WorkedOut:
        """What it comes to. Raises Moved and NothingToTakeBack."""
        targets = self.targets
        if self.to_revision is None and before.revision != self.read_at:
            raise Moved("somebody else wrote meanwhile")
        _demand_same_schema(before, shapes, targets)
        kept = self.kept
        if (
            self.to_revision is not None
        ):  # what was there then stays true, whatever was written since
            live = (name for name, state in before.services.items() if not state.deleted)
            kept = tuple(sorted(name for name in live if name not in targets))
        wanted = dict(_that_differ(before, targets, shapes))
        if not wanted:
            raise NothingToTakeBack(nothing_left(kept))
        errors, warnings = list[FieldError](), list[FieldError]()
        for name, values in wanted.items():
            added, stayed = _judged(before, shapes, name, targets[name], values)
            errors += (_within(name, error) for error in added)
            warnings += (_within(name, error) for error in stayed)
        return WorkedOut(wanted, kept, tuple(errors), tuple(warnings))

    def taken_back(self, service: str, revision: int) -> TakenBack:
        """What it takes back of a service as this revision."""
        target = self.targets[service]
        upto = revision - 1 if self.undone is None else target.upto
        return TakenBack(service, revision, target.after, upto, target.keys)

    def _written(
        self, before: Committed, on: Equipped, worked_out: WorkedOut
    ) -> Decided[EpochWritten]:
        epoch = Epoch(before.epoch.seq + 1, on.tools.new_id())
        revision = Revision(before, on, on.tools.shapes, epoch, before.revision + 1)
        states = {name: revision.next(name, one) for name, one in worked_out.wanted.items()}
        taken = tuple(self.taken_back(name, revision.number) for name in states)
        change = revision.commit(states, "rollback", beside=Beside(taken_back=taken))
        answer = EpochWritten(
            config_epoch=epoch.id,
            epoch_seq=epoch.seq,
            revision=revision.number,
            services=change.services,
            correlation_id=on.correlation_id,
            warnings=worked_out.warnings,
            kept=worked_out.kept,
            undone=self.undone,
            changes={n: _effect(before, n, state.effective) for n, state in states.items()},
            errors=worked_out.errors,
        )
        return Decided(answer, change, repeatable=True)


def _demand_same_schema(before: Committed, shapes: Shapes, targets: Mapping[str, Target]) -> None:
    """Raises Moved."""
    for name, target in targets.items():
        shape = shapes.of(before, name)
        if (None if shape is None else shape.digest) != target.digest:
            raise Moved(f"the schema of {name} was changed meanwhile")


def _that_differ(
    before: Committed, targets: Mapping[str, Target], shapes: Shapes
) -> Iterator[tuple[str, JsonObject]]:
    for name, target in sorted(targets.items()):
        values = _without_secrets(before, shapes, name, target.values)
        is_gone = before.live(name) is None and target.written
        if is_gone or changed_keys(_stored(before, name), values):
            yield name, values


def _judged(
    before: Committed, shapes: Shapes, service: str, target: Target, values: JsonObject
) -> tuple[tuple[FieldError, ...], tuple[FieldError, ...]]:
    """What today's schema does not take, and warnings: what it does not take of today's values either."""
    shape, live = shapes.of(before, service), before.live(service)
    if shape is None:
        return target.impossible, ()
    added, warnings = judge(shape, None if live is None else live.stored, values)
    return (*target.impossible, *added), tuple(warnings)


def _with_keys(now: JsonObject, then: JsonObject, keys: Sequence[str]) -> JsonObject:
    """Today's values, with these keys as they were."""
    strange = [n for n, key in enumerate(keys) if key not in now and key not in then]
    if strange:
        raise InvalidValues(
            "some keys are not stored, neither now nor then; nothing was written",
            [FieldError(pointer("keys", n), "stored neither now nor then") for n in strange],
        )
    kept = {key: value for key, value in now.items() if key not in keys}
    return {**kept, **{key: then[key] for key in keys if key in then}}


def _without_secrets(
    before: Committed, shapes: Shapes, service: str, values: JsonObject
) -> JsonObject:
    """What was plain then and is a secret by now is not written."""
    secrets = shapes.secret_keys(before, service)
    return {key: value for key, value in values.items() if key not in secrets}


def _stored(before: Committed, service: str) -> JsonObject:
    live = before.live(service)
    return {} if live is None else live.stored


def _effect(before: Committed, service: str, effective: JsonObject) -> tuple[KeyChange, ...]:
    """What changes of the effective values. A service that is not there runs what it ran."""
    live = before.live(service)
    return changed_keys({} if live is None else live.effective, effective)


def _within(service: str, error: FieldError) -> FieldError:
    return FieldError(pointer("services", service) + error.pointer, error.detail)
