"""What a plan comes to: worked out once, beside the writer, and kept with what it was worked out from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from config_manager.config.errors import (
    FieldError,
    InvalidValues,
    NothingToTakeBack,
    SchemaBreaking,
    TooLarge,
)
from config_manager.config.names import check_keys, pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import forecast
from config_manager.storage.decisions.changes import Occasion, Revision, merge_patch
from config_manager.storage.decisions.forecast import Runner
from config_manager.storage.decisions.intents import checked, checked_patch, without_secrets
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.rollback import RollbackEpoch
from config_manager.storage.decisions.schema_changes import PutSchema
from config_manager.storage.decisions.schema_outlook import LiveInstance, Outlook, outlook
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.state import Action, Committed, ServiceState, changed_keys

MAX_PLAN_BYTES = 16 * 1024 * 1024
"""Of what it keeps: its base, its result, and what it shows."""
_REFUSED = "some of the plan can't be done; nothing was kept"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be planned: values that replace the stored ones, patches that are merged into them, schemas that
    become active; or a rollback, by itself. allow_breaking, allow_lossy: of the schemas, as `PutSchema` has them."""

    services: Mapping[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    patch: Mapping[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    schemas: Mapping[str, CompiledSchema] = field(default_factory=dict[str, CompiledSchema])
    rollback: RollbackEpoch | None = None
    allow_breaking: bool = False
    allow_lossy: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The services that it is about."""
        if self.rollback is not None:
            return tuple(sorted(self.rollback.targets))
        return tuple(dict.fromkeys((*self.services, *self.patch, *self.schemas)))


class Planned(NamedTuple):
    """services: those that it is about. base, result: see `storage.decisions.plans`. shown: as it is answered."""

    services: tuple[str, ...]
    base: str
    result: str
    shown: str


class _Part(NamedTuple):
    """What one service would have. stored: None if nothing is written. schema: what becomes active."""

    stored: JsonObject | None
    warnings: tuple[FieldError, ...] = ()
    schema: PutSchema | None = None


def planned(
    before: Committed,
    on: Occasion,
    shapes: Shapes,
    wish: Wish,
    runners: Mapping[str, Sequence[Runner]],
) -> Planned:
    """runners: the live instances, by service. Raises InvalidValues, NotFound, SchemaBreaking, MigrationLossy,
    RollbackRefused, NothingToTakeBack, TooLarge."""
    if wish.rollback is not None:
        return _of_rollback(before, on, shapes, wish.rollback, runners)
    parts = dict(_parts(before, on, shapes, wish, runners))
    values = {name: one.stored for name, one in parts.items() if one.stored is not None}
    new = {name: one.schema for name, one in parts.items() if one.schema is not None}
    action: Action = "epoch" if len(values) > 1 else "put"
    if new.keys() & values.keys():
        action = "schema"  # what was moved can't be taken back by itself
    result: JsonObject = {
        "action": action,
        "epoch": len(values) > 1,
        "values": values,
        "schemas": {name: _schema_result(one) for name, one in new.items()},
        "taken_back": [],
    }
    compiled = {name: one.shape for name, one in new.items()}
    shown = _shown(before, on, shapes, values, compiled, tuple(parts), runners)
    shown["warnings"] = [one._asdict() for part in parts.values() for one in part.warnings]
    if new:
        shown["schemas"] = [_schema_shown(name, one) for name, one in new.items()]
    return _kept(before, shapes, tuple(parts), result, shown)


def _parts(
    before: Committed,
    on: Occasion,
    shapes: Shapes,
    wish: Wish,
    runners: Mapping[str, Sequence[Runner]],
) -> Iterator[tuple[str, _Part]]:
    """Raises InvalidValues, which names all that is wrong, with pointers into the wish."""
    errors: list[FieldError] = []
    kinds: set[type[InvalidValues]] = set()
    for name in wish.names:
        try:
            part = _part(before, on, shapes, wish, name, runners.get(name, ()))
        except SchemaBreaking:
            raise
        except InvalidValues as error:
            kinds.add(type(error))
            errors += [FieldError(_place(wish, name, e), e.detail) for e in error.errors]
        else:
            live = before.live(name)
            is_same = live is not None and not changed_keys(live.stored, part.stored or {})
            yield name, part._replace(stored=None) if is_same else part
    if errors:
        raise (kinds.pop() if len(kinds) == 1 else InvalidValues)(_REFUSED, errors)


def _place(wish: Wish, name: str, error: FieldError) -> str:
    """A pointer into the wish, of one into the values of a service."""
    return pointer(_member(wish, name), name) + error.pointer


def _member(wish: Wish, name: str) -> str:
    return next(
        member for member in ("services", "patch", "schemas") if name in getattr(wish, member)
    )


def _part(
    before: Committed,
    on: Occasion,
    shapes: Shapes,
    wish: Wish,
    name: str,
    running: Sequence[Runner],
) -> _Part:
    new, active = wish.schemas.get(name), shapes.of(before, name)
    if new is not None and (active is None or active.digest != new.digest):
        return _with_schema(before, on, shapes, wish, name, running)
    if name in wish.services:
        stored, warnings = checked(before, name, wish.services[name], shapes)
    elif name in wish.patch:
        stored, warnings = checked_patch(before, name, wish.patch[name], shapes)
    else:  # its schema is active already
        return _Part(None if (live := before.live(name)) is None else live.stored)
    return _Part(stored, tuple(e._replace(pointer=_place(wish, name, e)) for e in warnings))


def _with_schema(
    before: Committed,
    on: Occasion,
    shapes: Shapes,
    wish: Wish,
    name: str,
    running: Sequence[Runner],
) -> _Part:
    """Values are in terms of the new schema: replaced, or merged into what moved with it."""
    new, known = wish.schemas[name], before.services.get(name)
    secrets = new.secrets if known is None else new.secrets | known.secrets.keys()
    given = wish.services.get(name)
    given = None if given is None else without_secrets(given, secrets)
    patch = without_secrets(wish.patch.get(name, {}), secrets)

    def written(moved: JsonObject) -> JsonObject:
        return merge_patch(moved, patch) if given is None else given

    is_written = given is not None or name in wish.patch
    live = before.live(name)
    seen = outlook(
        before,
        shapes,
        name,
        new,
        drop=() if live is None or given is None else tuple(live.stored),
        written=written if is_written else None,
        instances=[LiveInstance(one.instance, one.enrolled, one.schema) for one in running],
    )
    if is_written:
        _demand_allowed(new, seen.values or {}, patch if given is None else None)
    put = PutSchema(
        service=name,
        shape=new,
        outlook=seen,
        allow_breaking=wish.allow_breaking,
        allow_lossy=wish.allow_lossy,
    )
    if (refusal := put.refusal(on.reason)) is not None:
        raise refusal
    return _Part(seen.values, tuple(_warnings(name, seen)), put)


def _demand_allowed(new: CompiledSchema, values: JsonObject, patch: JsonObject | None) -> None:
    """What is written has to be right. patch: None if all of it is. Raises InvalidValues."""
    wrong = [
        error
        for error in new.errors(values)
        if patch is None or error.pointer[1:].partition("/")[0] in patch
    ]
    if wrong:
        raise InvalidValues("the schema does not take these values", wrong)
    check_keys(values)


def _warnings(name: str, seen: Outlook) -> Iterator[FieldError]:
    """What does not refuse the schema, or was allowed."""
    at = pointer("schemas", name)
    for one in seen.stored:
        yield FieldError(at + one["pointer"], f"stored: {one['why']}")
    for lost in seen.lossy:
        yield FieldError(at + lost.pointer, lost.detail)
    for difference in seen.differences:
        if difference.old_code == "breaks":
            detail = f"{difference.change}: breaks code that was built with the schema of before"
            yield FieldError(at + difference.pointer, detail)


def _of_rollback(
    before: Committed,
    on: Occasion,
    shapes: Shapes,
    rollback: RollbackEpoch,
    runners: Mapping[str, Sequence[Runner]],
) -> Planned:
    worked_out = rollback.worked_out(before, shapes)
    if worked_out.errors:
        raise worked_out.refusal
    if not worked_out.wanted:
        raise NothingToTakeBack("there is nothing to take back")
    taken = [rollback.taken_back(name, before.revision + 1) for name in worked_out.wanted]
    result: JsonObject = {
        "action": "rollback",
        "epoch": True,
        "values": worked_out.wanted,
        "schemas": {},
        "taken_back": [
            [one.service, one.after, None if rollback.undone is None else one.upto, one.keys]
            for one in taken
        ],
    }
    shown = _shown(before, on, shapes, worked_out.wanted, {}, tuple(worked_out.wanted), runners)
    shown["warnings"] = [one._asdict() for one in worked_out.warnings]
    shown |= {"kept": list(worked_out.kept), "undone": rollback.undone}
    return _kept(before, shapes, tuple(sorted(rollback.targets)), result, shown)


def _shown(
    before: Committed,
    on: Occasion,
    shapes: Shapes,
    values: Mapping[str, JsonObject],
    new: forecast.NewSchemas,
    names: Sequence[str],
    runners: Mapping[str, Sequence[Runner]],
) -> JsonObject:
    """What would change, and whom that reaches. names: also those of which nothing changes."""
    revision = Revision(before, on, shapes, before.epoch, before.revision + 1)
    states = {
        name: revision.shaped(new.get(name) or shapes.of(before, name), name, stored)
        for name, stored in values.items()
    }
    return {
        "services": [_service(before, name, states.get(name)) for name in names],
        "instances": forecast.instances(before, shapes, list(states.values()), runners, new),
    }


def _service(before: Committed, name: str, state: ServiceState | None) -> JsonObject:
    """state: None if nothing of it is written."""
    if state is not None:
        return forecast.service(before, state)
    live = before.live(name)
    if live is not None:
        return forecast.service(before, live)
    return {"service": name, "changes": [], "effective": [], "unchanged": [], "bytes": 0}


def _schema_result(one: PutSchema) -> JsonObject:
    allowed = {n: True for n in ("allow_breaking", "allow_lossy") if getattr(one, n)}
    differences = one.differences if one.outlook.basis.digest else None
    return {"schema": one.shape.schema, "differences": differences, "allowed": allowed}


def _schema_shown(name: str, one: PutSchema) -> JsonObject:
    return {
        "service": name,
        "digest": one.shape.digest,
        "differences": one.differences,
        "breaks": one.outlook.breaks,
    }


def _kept(
    before: Committed,
    shapes: Shapes,
    names: tuple[str, ...],
    result: JsonObject,
    shown: JsonObject,
) -> Planned:
    """Raises TooLarge."""
    base = {
        "revisions": {name: revision_of(before, name) for name in names},
        "schemas": {name: schema_of(before, shapes, name) for name in names},
        "active": {},  # profile and scenarios in use: there are none yet
    }
    texts = [_text(one) for one in (base, result, shown)]
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_PLAN_BYTES:
        raise TooLarge(
            f"a plan of {size} bytes; at most {MAX_PLAN_BYTES}: plan fewer services at once"
        )
    return Planned(names, *texts)


def revision_of(state: Committed, name: str) -> int:
    """The service's newest revision, also of one that is deleted; 0 if there is none."""
    known = state.services.get(name)
    return 0 if known is None else known.revision


def schema_of(state: Committed, shapes: Shapes, name: str) -> str | None:
    """The digest of the service's active schema."""
    shape = shapes.of(state, name)
    return None if shape is None else shape.digest


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()
