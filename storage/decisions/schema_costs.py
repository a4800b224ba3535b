"""How much a schema is, once every `$ref` is followed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from config_manager.config.strict_json import MAX_DEPTH, JsonObject, dumps, is_list, is_object
from config_manager.storage.decisions.schema_vocabulary import (
    MAX_ELEMENT_WEIGHT,
    MAX_PATTERN,
    MAX_PATTERNS,
    MAX_SIZE,
    MAX_WEIGHT,
    NAMED,
    OF_ELEMENTS,
    OF_MANY,
    OF_ONE,
    referenced,
    subschemas,
)

_MUCH = 10**9
_OF_A_PATTERN = 2_500


class _Cost(NamedTuple):
    """How much a schema is, once every `$ref` is followed.

    weight: subschemas, and entries of lists in it. element: the weight of what judges one element of a list or one
    member of an object. patterns: that judge the same text. height: schemas within each other. size: characters of
    what is no subschema, about as in JSON; a regular expression counts for what it may be compiled.
    """

    weight: int = 1
    element: int = 0
    patterns: int = 0
    height: int = 1
    size: int = 0


class Costs:
    """Sums up what a schema costs. Each definition is counted once, however often it is named."""

    def __init__(
        self, definitions: JsonObject, say: Callable[[tuple[str | int, ...], str], None]
    ) -> None:
        self._definitions = definitions
        self._say = say
        self._known: dict[str, _Cost | None] = {}

    def check(self, schema: JsonObject) -> None:
        """schema: whose every part has the right form."""
        for name in self._definitions:
            self._definition(name, ("$defs", name), 1)
        cost = self._of(schema, (), 1)
        for limit, spent, what in (
            (MAX_WEIGHT, cost.weight, "subschemas and choices"),
            (MAX_ELEMENT_WEIGHT, cost.element, "subschemas and choices for one element of a list"),
            (MAX_PATTERNS, cost.patterns, "regular expressions for the same text"),
            (MAX_DEPTH, cost.height, "schemas within each other"),
            (MAX_SIZE, cost.size, f"characters, {_OF_A_PATTERN} for a regular expression"),
        ):
            if spent > limit:
                self._say(
                    (),
                    f"at most {limit} {what}, each `$ref` followed; this has {'more' if spent == _MUCH else spent}",
                )

    def _of(self, schema: Any, path: tuple[str | int, ...], depth: int) -> _Cost:
        if not is_object(schema):
            return _Cost()
        if depth > MAX_DEPTH:  # no stack is deep enough for every chain of references
            return _Cost(height=_MUCH)
        weight = 1 + sum(map(_entries, (schema.get("enum"), schema.get("required"))))
        own = _patterns(schema)
        patterns = len(own)
        for pattern in own:
            if len(pattern) > MAX_PATTERN:
                self._say(path, f"a regular expression has at most {MAX_PATTERN} characters")
        element, beside, height = 0, 0, 0
        size = _size(schema) + _OF_A_PATTERN * len(own)
        below: list[tuple[str, _Cost]] = []
        if (name := referenced(schema)) is not None:
            below.append(("$ref", self._definition(name, (*path, "$ref"), depth)))
        for keyword, rest, item in subschemas(schema):
            below.append((keyword, self._of(item, (*path, *rest), depth + 1)))
        for keyword, one in below:
            weight += one.weight
            height = max(height, one.height)
            size += one.size
            element = max(element, one.element, one.weight if keyword in OF_ELEMENTS else 0)
            if keyword == "properties":
                beside = max(beside, one.patterns)
            else:
                patterns += one.patterns
        return _Cost(
            *(min(sum_, _MUCH) for sum_ in (weight, element, patterns + beside, height + 1, size))
        )

    def _definition(self, name: str, path: tuple[str | int, ...], depth: int) -> _Cost:
        if name in self._known:
            known = self._known[name]
            if known is None:
                self._say(path, f"{name} leads back to itself")
                return _Cost()
            return known
        self._known[name] = None
        self._known[name] = one = self._of(self._definitions[name], ("$defs", name), depth)
        return one


def _size(schema: JsonObject) -> int:
    below = OF_ONE | OF_MANY | NAMED
    return sum(len(dumps(value)) for keyword, value in schema.items() if keyword not in below)


def _patterns(schema: JsonObject) -> list[str]:
    own, named = schema.get("pattern"), schema.get("patternProperties")
    return [*([own] if isinstance(own, str) else ()), *(named if is_object(named) else ())]


def _entries(values: Any) -> int:
    """The entries of a list; one that is a list or an object costs as much as five."""
    if not is_list(values):
        return 0
    return sum(5 if is_object(one) or is_list(one) else 1 for one in values)
