"""How much a schema is, once every `$ref` is followed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from config_manager.config.strict_json import JsonObject, is_list, is_object
from config_manager.storage.decisions.schema_vocabulary import (
    MAX_ELEMENT_WEIGHT,
    MAX_PATTERN,
    MAX_PATTERNS,
    MAX_WEIGHT,
    OF_ELEMENTS,
    referenced,
    subschemas,
)

_MUCH = 10**9


class _Cost(NamedTuple):
    """How much a schema is, once every `$ref` is followed.

    weight: subschemas, and entries of lists in it. element: the weight of what judges one element of a list or one
    member of an object. patterns: that judge the same text.
    """

    weight: int = 1
    element: int = 0
    patterns: int = 0


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
            self._definition(name, ("$defs", name))
        cost = self._of(schema, ())
        for limit, spent, what in (
            (MAX_WEIGHT, cost.weight, "subschemas and choices"),
            (MAX_ELEMENT_WEIGHT, cost.element, "subschemas and choices for one element of a list"),
            (MAX_PATTERNS, cost.patterns, "regular expressions for the same text"),
        ):
            if spent > limit:
                self._say(
                    (),
                    f"at most {limit} {what}, each `$ref` followed; this has {'more' if spent == _MUCH else spent}",
                )

    def _of(self, schema: Any, path: tuple[str | int, ...]) -> _Cost:
        if not is_object(schema):
            return _Cost()
        weight = 1 + sum(map(_entries, (schema.get("enum"), schema.get("required"))))
        own = _patterns(schema)
        patterns = len(own)
        for pattern in own:
            if len(pattern) > MAX_PATTERN:
                self._say(path, f"a regular expression has at most {MAX_PATTERN} characters")
        element, beside = 0, 0
        below: list[tuple[str, _Cost]] = []
        if (name := referenced(schema)) is not None:
            below.append(("$ref", self._definition(name, (*path, "$ref"))))
        for keyword, rest, item in subschemas(schema):
            below.append((keyword, self._of(item, (*path, *rest))))
        for keyword, one in below:
            weight += one.weight
            element = max(element, one.element, one.weight if keyword in OF_ELEMENTS else 0)
            if keyword == "properties":
                beside = max(beside, one.patterns)
            else:
                patterns += one.patterns
        return _Cost(min(weight, _MUCH), min(element, _MUCH), min(patterns + beside, _MUCH))

    def _definition(self, name: str, path: tuple[str | int, ...]) -> _Cost:
        if name in self._known:
            known = self._known[name]
            if known is None:
                self._say(path, f"{name} leads back to itself")
                return _Cost()
            return known
        self._known[name] = None
        self._known[name] = one = self._of(self._definitions[name], ("$defs", name))
        return one


def _patterns(schema: JsonObject) -> list[str]:
    own, named = schema.get("pattern"), schema.get("patternProperties")
    return [*([own] if isinstance(own, str) else ()), *(named if is_object(named) else ())]


def _entries(values: Any) -> int:
    """The entries of a list; one that is a list or an object costs as much as five."""
    if not is_list(values):
        return 0
    return sum(5 if is_object(one) or is_list(one) else 1 for one in values)
