"""Values of one schema as another schema has them: up when a version becomes active, down for older code. Pure.

`x-was` on a key says where its value comes from: an earlier name, another unit, other choices. It counts
between two schemas if the older one has that key, and not yet the new one in the same sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any, NamedTuple

from config_manager.config.catalogue import Effective
from config_manager.config.errors import FieldError
from config_manager.config.names import pointer
from config_manager.config.strict_json import MAX_INTEGER, JsonObject, is_object, same
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_vocabulary import subschemas

_DIGITS = 17
"""Decimal digits that tell any two doubles apart."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class Impossible(ValueError):
    """A value has no counterpart: an integer would get a fraction, or a number grow too large."""


class Move(NamedTuple):
    """How one key comes from another: old → new. was: its `x-was`."""

    old: str
    new: str
    was: JsonObject
    old_kind: str
    new_kind: str

    def up(self, value: Any) -> Any:
        """Raises Impossible."""
        if "map" in self.was:
            return self.was["map"].get(value, value) if isinstance(value, str) else value
        if "multiply" in self.was and _is_number(value):
            numerator, denominator = self.was["multiply"]
            return _times(value, numerator, denominator, self.new_kind)
        return value

    def down(self, value: Any) -> Any:
        """The first of several values that have become this one. Raises Impossible."""
        if "map" in self.was:
            back = {new: old for old, new in reversed(self.was["map"].items())}
            return back.get(value, value) if isinstance(value, str) else value
        if "multiply" in self.was and _is_number(value):
            numerator, denominator = self.was["multiply"]
            return _times(value, denominator, numerator, self.old_kind)
        return value

    def is_reversible(self, value: Any) -> bool:
        """Whether older code gets this very value back."""
        try:
            back = self.down(self.up(value))
        except Impossible:
            return False
        return same(back, value) or (_is_number(back) and _is_number(value) and back == value)


@dataclass(frozen=True, slots=True)
class Migrated:
    """values: as the new schema has them. lossy: values that older code would not get back; only if asked for.
    impossible: values that have no counterpart; never. moved: old key → new key, of those that were stored."""

    values: JsonObject
    lossy: tuple[FieldError, ...] = ()
    impossible: tuple[FieldError, ...] = ()
    moved: Mapping[str, str] | None = None


def moves(old: CompiledSchema, new: CompiledSchema) -> Mapping[str, Move]:
    """What `x-was` of the newer schema moves, by the key's earlier name."""
    found: dict[str, Move] = {}
    for key, one in new.properties.items():
        was = one.get("x-was")
        if not is_object(was):
            continue
        source = str(was.get("key", key))
        if source not in old.properties:
            continue
        if not _is_done(source, key, was, one, old):
            kinds = _kind(old.properties[source]), _kind(one)
            found[source] = Move(source, key, was, *kinds)
    return found


def _is_done(source: str, key: str, was: JsonObject, one: JsonObject, old: CompiledSchema) -> bool:
    """Whether values of the old schema are there already."""
    before = old.properties.get(key)
    if before is None:
        return False
    if source != key or _same_sense(was, before.get("x-was")):
        return True
    return "multiply" in was and one.get("x-unit") == before.get("x-unit")


def up(stored: JsonObject, old: CompiledSchema, new: CompiledSchema) -> Migrated:
    """Stored values of the old schema as the new one has them.

    A key that neither moves nor is known to the new schema stays, for the caller to see. A new required key has
    its `default` (effective values have it) or is missing.
    """
    taken = moves(old, new)
    values: JsonObject = {}
    lossy: list[FieldError] = []
    impossible: list[FieldError] = []
    for key, value in stored.items():
        move = taken.get(key)
        if move is None:
            values.setdefault(key, value)
            continue
        try:
            values[move.new] = move.up(value)
        except Impossible as error:
            impossible.append(FieldError(pointer(key), f"{move.new}: {error}"))
            continue
        if not move.is_reversible(value):
            lossy.append(
                FieldError(pointer(key), f"as {move.new} it can't be told from another value")
            )
    moved = {key: move.new for key, move in taken.items() if key in stored}
    return Migrated(values, tuple(lossy), tuple(impossible), moved)


def down(values: JsonObject, old: CompiledSchema, new: CompiledSchema) -> JsonObject | None:
    """Values of the new schema as older code knows them; None if one has no counterpart. What older code
    doesn't know stays."""
    back = {move.new: move for move in moves(old, new).values()}
    try:
        return {
            (back[key].old if key in back else key): back[key].down(value) if key in back else value
            for key, value in values.items()
        }
    except Impossible:
        return None


def variant(
    stored: JsonObject, chain: Sequence[CompiledSchema], instance: CompiledSchema
) -> Effective | None:
    """The values that an instance's own schema takes; None if it can't be brought to take any.

    chain: the active schema first, then older versions down to the one that the instance is near; [active] if
    there is none. stored: of the active schema, without secrets. `defaulted` are the instance's own defaults.
    """
    whole = chain[0].effective(stored).config
    own: JsonObject | None = stored
    all_of_it: JsonObject | None = whole
    for newer, older in [*pairwise(chain), (chain[-1], instance)]:
        if own is None or all_of_it is None:
            return None
        own, all_of_it = down(own, older, newer), down(all_of_it, older, newer)
    if own is None or all_of_it is None:
        return None
    ahead = up(own, chain[-1], instance), up(all_of_it, chain[-1], instance)
    if ahead[0].impossible or ahead[1].impossible:
        return None
    own, all_of_it = ahead[0].values, ahead[1].values
    for key in instance.required - own.keys() - instance.defaults.keys():
        if key in all_of_it:
            own[key] = all_of_it[key]
    known = {k: v for k, v in own.items() if not instance.closed or k in instance.properties}
    effective = instance.effective(known)
    return effective if instance.reads(effective) else None


def shape_after(move: Move, schema: JsonObject) -> JsonObject:
    """A schema that takes all that values of an old key become. schema: the old key's."""
    if "map" in move.was:
        return _mapped(move, schema)
    if "multiply" in move.was:
        return _scaled(move, schema)
    return schema


def shape_before(move: Move, schema: JsonObject) -> JsonObject:
    """A schema that takes all that values of a new key are for older code. schema: the new key's."""
    was = dict(move.was)
    if "map" in was:
        was["map"] = {new: old for old, new in reversed(was["map"].items())}
    if "multiply" in was:
        was["multiply"] = was["multiply"][::-1]
    return shape_after(Move(move.new, move.old, was, move.new_kind, move.old_kind), schema)


def _mapped(move: Move, schema: JsonObject) -> JsonObject:
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        values = {repr(value): value for value in map(move.up, choices)}
        return {"enum": list(values.values())}
    return {"anyOf": [schema, {"enum": sorted(set(move.was["map"].values()))}]}


def _scaled(move: Move, schema: JsonObject) -> JsonObject:
    """As wide as needed: other numbers than those of a plain range are taken for any number."""
    branches = schema.get("anyOf")
    if branches is not None:
        return {"anyOf": [_scaled(move, one) if is_object(one) else one for one in branches]}
    if schema.get("type") == "null":
        return {"type": "null"}
    if schema.get("type") not in ("integer", "number") or next(iter(subschemas(schema)), None):
        return {}
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    try:
        if choices is not None:
            return {"enum": [move.up(value) for value in choices]}
        ends = {name: _end(move, schema[name]) for name in _BOUNDS if name in schema}
    except Impossible:
        return {}
    # the type of what it becomes, as it is: an integer for a new integer, else refused value by value
    return {"type": "integer" if move.new_kind == "integer" else "number", **ends}


def _end(move: Move, value: Any) -> Any:
    numerator, denominator = move.was["multiply"]
    return _times(value, numerator, denominator, "number")


def _times(value: float, numerator: int, denominator: int, kind: str) -> float:
    with localcontext() as context:
        context.prec = _DIGITS
        exact = Decimal(repr(value)) * numerator / denominator
    if kind == "integer":
        if exact != exact.to_integral_value():
            raise Impossible(f"an integer can't be {exact}")
        if abs(exact) > MAX_INTEGER:
            raise Impossible(f"{exact} is too large an integer")
        return int(exact)
    product = float(exact)
    if product in (float("inf"), float("-inf")):
        raise Impossible(f"{exact} is too large a number")
    return product


def _kind(schema: JsonObject) -> str:
    """integer, if numbers of a key have to be integers; else number."""
    branches = [one for one in schema.get("anyOf", [schema]) if is_object(one)]
    types = {kind for one in branches for kind in _types(one)}
    return "integer" if "integer" in types and "number" not in types else "number"


def _types(schema: JsonObject) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


def _same_sense(one: Any, other: Any) -> bool:
    return is_object(other) and same(dict(sorted(one.items())), dict(sorted(other.items())))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
