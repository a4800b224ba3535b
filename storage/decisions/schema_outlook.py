"""What a schema would do to a service once it is active: what differs, whom that breaks, the values then. Pure.

It may take a second, so it is worked out beside the writer, on a `Basis`. The writer looks whether that still is
what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config_manager.config.catalogue import Effective
from config_manager.config.errors import FieldError, InvalidValues
from config_manager.config.names import pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import migrating
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_comparison import Difference, compare
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.state import Committed

_REMOVED = ("key removed", "required key removed")
_SHOWN = 60
"""Characters of a value in an explanation."""
_MOST_NAMED = 50


class Basis(NamedTuple):
    """What an outlook was worked out on. digest: of the active schema, None if there is none. revision: the
    service's, 0 if it has no values."""

    digest: str | None
    revision: int


class LiveInstance(NamedTuple):
    """schema: the digest of the one that it was built with, as it says."""

    instance: str
    enrolled: bool
    schema: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """differences: from the active schema. values: what is stored then; None if the service has no values.
    lossy: values that can't be told from others any more; impossible: those that have no counterpart; by the
    pointers that they have now. stored, instances: what is there, and breaks. in_the_open: keys that become
    secrets, and whose values are stored in plain."""

    basis: Basis
    differences: tuple[Difference, ...]
    values: JsonObject | None
    lossy: tuple[FieldError, ...]
    impossible: tuple[FieldError, ...]
    stored: tuple[JsonObject, ...]
    instances: tuple[JsonObject, ...]
    in_the_open: tuple[str, ...]

    @property
    def breaks(self) -> JsonObject:
        """As it is answered."""
        return {"stored": list(self.stored), "instances": list(self.instances)}

    @property
    def refusing(self) -> list[FieldError]:
        """Why it is refused unless that is asked for; nothing if it breaks neither stored values nor new
        code. Old code alone does not count: it is sent what it takes."""
        found = [
            *map(_said_of, filter(self._is_refusing, self.differences)),
            *(FieldError(one["pointer"], f"stored: {one['why']}") for one in self.stored),
            *(
                FieldError("", f"instance {one['instance']}: {one['why']}")
                for one in self.instances
            ),
        ]
        more = len(found) - _MOST_NAMED
        return [*found[:_MOST_NAMED], FieldError("", f"and {more} more")] if more > 0 else found

    def _is_refusing(self, one: Difference) -> bool:
        if one.change in _REMOVED and one.pointer not in map(pointer, self.values or ()):
            return False  # nobody has stored it, or it is dropped
        return "breaks" in (one.stored, one.new_code)


def basis(state: Committed, shapes: Shapes, service: str) -> Basis:
    """As of this state."""
    shape, live = shapes.of(state, service), state.live(service)
    return Basis(None if shape is None else shape.digest, live.revision if live else 0)


def outlook(
    state: Committed,
    shapes: Shapes,
    service: str,
    new: CompiledSchema,
    *,
    drop: Collection[str] = (),
    written: Callable[[JsonObject], JsonObject] | None = None,
    instances: Sequence[LiveInstance] = (),
) -> Outlook:
    """drop: keys of which what is stored shall go. written: what is stored together with the schema, from what moved
    with it. Raises InvalidValues if there is no such key."""
    old = shapes.schema_of(state, service)
    live = state.live(service)
    stored = live.stored if live else {}
    _check_drop(drop, stored, old)
    kept = {key: value for key, value in stored.items() if key not in drop}
    migrated = migrating.Migrated(kept) if old is None else migrating.up(kept, old, new)
    values = migrated.values if live else None
    if written is not None:
        values = written(migrated.values)
    secrets: Collection[str] = live.secrets if live else ()
    return Outlook(
        basis=basis(state, shapes, service),
        differences=() if old is None else compare(old, new),
        values=values,
        lossy=migrated.lossy,
        impossible=migrated.impossible,
        stored=tuple(_broken(service, values, secrets, new)) if values is not None else (),
        instances=tuple(_refusing(state, shapes, service, values, new, old, instances)),
        in_the_open=tuple(key for key in values or () if key in new.secrets),
    )


def _check_drop(drop: Collection[str], stored: JsonObject, old: CompiledSchema | None) -> None:
    known = {*stored, *(old.keys if old else ())}
    if unknown := [key for key in drop if key not in known]:
        detail = "no key of the active schema, and nothing is stored there"
        raise InvalidValues(
            "drop names keys that are not there", [FieldError(pointer(k), detail) for k in unknown]
        )


def _broken(
    service: str, values: JsonObject, secrets: Collection[str], new: CompiledSchema
) -> Iterator[JsonObject]:
    """Everything stored that the schema does not take."""
    about: JsonObject = {"layer": "base", "service": service}
    for where, detail in new.errors(values):
        key = where[1:].partition("/")[0]
        is_plain = key in values and key not in new.secrets
        shown = f"{_short(values[key])}: " if is_plain else ""
        yield {**about, "key": key, "pointer": where, "why": f"{shown}{detail}"}
    for name in secrets:
        if name not in new.secrets:
            why = "a secret is set, and the schema has no secret of this name"
            yield {**about, "key": name, "pointer": pointer(name), "why": why}


def _refusing(
    state: Committed,
    shapes: Shapes,
    service: str,
    values: JsonObject | None,
    new: CompiledSchema,
    old: CompiledSchema | None,
    instances: Sequence[LiveInstance],
) -> Iterator[JsonObject]:
    """The instances that would turn down what is effective then, also as a variant."""
    if values is None:
        return
    delivered = new.effective(values)
    for one in instances:
        own = shapes.of_instance(state, service, one.schema)
        if own is None or own.reads(delivered):
            continue
        chain = [new] if old is None or own.digest == old.digest else [new, old]
        if migrating.variant(values, chain, own) is None:
            yield {
                "service": service,
                "instance": one.instance,
                "enrolled": one.enrolled,
                "why": why_not(own, delivered),
            }


def why_not(own: CompiledSchema, delivered: Effective) -> str:
    """Why code that was built with this schema turns down what is delivered: first of a key that it knows, because
    without the others a variant might do."""
    errors = own.errors(
        {k: v for k, v in delivered.given.items() if own.closed or k in own.properties}
    )
    if not errors:
        return "the schema that it was built with does not take the values"
    known = (one for one in errors if one.pointer[1:].partition("/")[0] in own.properties)
    where, detail = next(known, errors[0])
    return f"{where}: {detail}"


def _said_of(one: Difference) -> FieldError:
    whom = [
        words
        for words, verdict in (("stored values", one.stored), ("new code", one.new_code))
        if verdict == "breaks"
    ]
    example = f", such as {_short(one.example)}" if one.has_example else ""
    unproved = "" if one.proof == "proved" else ", as far as can be proved"
    return FieldError(one.pointer, f"{one.change}: breaks {' and '.join(whom)}{example}{unproved}")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
