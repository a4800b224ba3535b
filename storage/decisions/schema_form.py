"""Which JSON Schemas may describe a service: the form, the metadata, the limits. Pure.

The limits make every schema cheap: to read, to validate with, and to compare. A `$ref` names one of the
schema's own `$defs` and never leads back to itself. What counts is the size with every `$ref` followed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from config_manager.config.errors import FieldError
from config_manager.config.names import is_key, pointer
from config_manager.config.strict_json import (
    MAX_DEPTH,
    MAX_INTEGER,
    JsonObject,
    dumps,
    is_list,
    is_object,
)

MAX_BYTES = 64 * 1024
"""Of a schema as compact JSON."""
MAX_KEYS = 500
"""Names in `properties`, at any depth."""
MAX_WEIGHT = 4_000
"""Subschemas, and entries of lists in them, once every `$ref` is followed."""
MAX_ELEMENT_WEIGHT = 500
"""The same of what every element of a list, or every member of an object, has to satisfy."""
MAX_PATTERN = 500
"""Characters of one regular expression."""
MAX_PATTERNS = 4
"""Regular expressions that judge the same text."""
MAX_REGEX_BYTES = 128 * 1024
"""Of one regular expression, compiled."""
_MOST_ERRORS = 50
_MUCH = 10**9

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_OF_ONE = frozenset(
    {"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"}
    | {"propertyNames", "then"}
)
_OF_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"dependentSchemas", "patternProperties", "properties"})
_OF_ELEMENTS = frozenset(
    {"additionalProperties", "contains", "items", "patternProperties", "propertyNames"}
)
_NOTES = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$comment", "discriminator"}
)
_PLAIN = frozenset(
    {"$ref", "const", "contentEncoding", "contentMediaType", "dependentRequired", "enum"}
    | {"exclusiveMaximum", "exclusiveMinimum", "format", "maxContains", "maxItems", "maxLength"}
    | {"maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties"}
    | {"minimum", "multipleOf", "pattern", "required", "type", "uniqueItems"}
)
_ANYWHERE = frozenset({"x-allowed", "x-level", "x-unit"})
_OF_A_KEY = _ANYWHERE | {"x-restart-required", "x-secret", "x-was"}
_WITHIN = _OF_ONE | _OF_MANY | _NAMED | _NOTES | _PLAIN
_TOP = frozenset(
    {"$comment", "$defs", "$id", "$schema", "additionalProperties", "allOf", "dependentRequired"}
    | {"deprecated", "description", "else", "examples", "if", "patternProperties", "properties"}
    | {"required", "then", "title", "type", "x-approvals", "x-compare"}
)
_RULE = frozenset({"$comment", "description", "else", "if", "then", "title"})
ANNOTATIONS = _NOTES
"""Keywords that take no value away."""

_REFERENCE = re.compile(r"#/\$defs/([A-Za-z0-9._-]{1,200})")
_ONLY_SIX = "a schema's own `$defs`: #/$defs/NAME, NAME of letters, digits, '.', '_' and '-'"


def referenced(schema: Mapping[str, Any]) -> str | None:
    """The name in `$defs` that a subschema's `$ref` names."""
    found = _REFERENCE.fullmatch(str(schema.get("$ref", "")))
    return found[1] if found else None


def subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    """The schemas right within a schema: keyword, path, schema. `$defs` are none of them."""
    for keyword, value in schema.items():
        if keyword in _OF_ONE:
            yield keyword, (keyword,), value
        elif keyword in _OF_MANY and is_list(value):
            for index, item in enumerate(value):
                yield keyword, (keyword, index), item
        elif keyword in _NAMED and is_object(value):
            for name, item in value.items():
                yield keyword, (keyword, name), item


def complaints(schema: Any) -> list[FieldError]:
    """What is outside the form, as pointers into the schema; nothing if it may describe a service.

    Whether keywords have values that JSON Schema allows is left to its meta-schema.
    """
    if not is_object(schema):
        return [FieldError("", "expected an object: a JSON Schema")]
    if (deep := _too_deep(schema)) is not None:
        return [FieldError(deep, f"nested deeper than {MAX_DEPTH}")]
    size = len(dumps(schema))
    if size > MAX_BYTES:
        return [FieldError("", f"a schema has at most {MAX_BYTES} bytes, this one {size}")]
    found = _Form(schema).complaints
    if len(found) > _MOST_ERRORS:
        more = len(found) - _MOST_ERRORS
        return [*found[:_MOST_ERRORS], FieldError("", f"and {more} more")]
    return found


def _too_deep(schema: Any) -> str | None:
    """Where it is nested deeper than allowed. Without recursion: it may be of any depth."""
    waiting: list[tuple[Any, int, str]] = [(schema, 1, "")]
    while waiting:
        value, depth, where = waiting.pop()
        items = value.items() if is_object(value) else enumerate(value) if is_list(value) else ()
        for name, item in items:
            if is_object(item) or is_list(item):
                there = where + pointer(name)
                if depth >= MAX_DEPTH:
                    return there
                waiting.append((item, depth + 1, there))
    return None


class _Form:
    """One check of a schema that is neither too deep nor too large."""

    def __init__(self, schema: JsonObject) -> None:
        self.complaints: list[FieldError] = []
        self._schema = schema
        self._keys = 0
        definitions = schema.get("$defs", {})
        self._definitions: JsonObject = definitions if is_object(definitions) else {}
        self._check_top()
        if not self.complaints:
            _Costs(self._definitions, self._say).check(schema)

    def _say(self, path: tuple[str | int, ...], detail: str) -> None:
        self.complaints.append(FieldError(pointer(*path), detail))

    def _check_top(self) -> None:
        schema = self._schema
        self._check_keywords(schema, (), _TOP, "at the top of a service's schema")
        if schema.get("type") != "object":
            self._say(("type",), 'expected "object": a service\'s values are an object')
        if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            self._say(("$schema",), f"expected {DIALECT}")
        if "x-approvals" in schema:
            self._say(("x-approvals",), "approvals are not there yet; leave it out")
        for keyword in ("properties", "$defs"):
            value = schema.get(keyword, {})
            if not is_object(value):
                self._say((keyword,), "expected an object of schemas")
                continue
            for name, item in value.items():
                if keyword == "properties":
                    self._check_key(name, item)
                elif not _REFERENCE.fullmatch(f"#/$defs/{name}"):
                    self._say(
                        (keyword, name), "expected a name that a `$ref` can say: " + _ONLY_SIX
                    )
                else:
                    self._check_within(item, (keyword, name))
        self._check_rules(schema)
        if self._keys > MAX_KEYS:
            self._say(("properties",), f"at most {MAX_KEYS} keys, this has {self._keys}")

    def _check_key(self, name: str, schema: Any) -> None:
        path = ("properties", name)
        self._keys += 1
        if not is_key(name):
            self._say(path, "a key is 1 to 63 of a-z, 0-9 and '_', and starts with a letter")
        if not is_object(schema):
            self._say(path, "expected an object: the schema of this key")
            return
        self._check_keywords(schema, path, _WITHIN | _OF_A_KEY, "in a key's schema")
        for keyword, check in _METADATA.items():
            if keyword in schema and (said := check(schema[keyword])):
                self._say((*path, keyword), said)
        self._check_was(name, schema)
        self._check_below(schema, path)

    def _check_was(self, name: str, schema: JsonObject) -> None:
        was = schema.get("x-was")
        if not is_object(was):
            return
        if "multiply" in was and was.get("key", name) == name and "x-unit" not in schema:
            where = ("properties", name, "x-was")
            self._say(
                where, "multiply needs the `x-unit` of the key, by which it is done only once"
            )
        if "key" not in was:
            return
        path, source = ("properties", name, "x-was", "key"), was["key"]
        keys = self._schema["properties"]
        if source != name and source in keys:
            self._say(path, f"{source} is still a key of this schema")
        elif any(
            other != name
            and is_object(one)
            and is_object(w := one.get("x-was"))
            and w.get("key") == source
            for other, one in keys.items()
        ):
            self._say(path, f"two keys come from {source}")

    def _check_within(self, schema: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(schema, bool):
            return
        if not is_object(schema):
            self._say(path, "expected a schema: an object, true or false")
            return
        for keyword in (_OF_A_KEY - _ANYWHERE) & schema.keys():
            self._say((*path, keyword), "stands only at a key of the service itself")
        self._check_keywords(schema, path, _WITHIN | _OF_A_KEY, "here")
        for keyword in _ANYWHERE & schema.keys():
            if said := _METADATA[keyword](schema[keyword]):
                self._say((*path, keyword), said)
        self._check_below(schema, path)

    def _check_below(self, schema: JsonObject, path: tuple[str | int, ...]) -> None:
        if "$ref" in schema:
            name = referenced(schema)
            if name is None:
                self._say((*path, "$ref"), "expected one of " + _ONLY_SIX)
            elif name not in self._definitions:
                self._say((*path, "$ref"), f"there is no {name} in `$defs`")
        for keyword in (_OF_MANY | _NAMED) & schema.keys():
            expected = is_list if keyword in _OF_MANY else is_object
            if not expected(schema[keyword]):
                kind = "a list" if keyword in _OF_MANY else "an object"
                self._say((*path, keyword), f"expected {kind} of schemas")
        for keyword, below, item in subschemas(schema):
            self._keys += keyword == "properties"
            self._check_within(item, (*path, *below))

    def _check_keywords(
        self, schema: JsonObject, path: tuple[str | int, ...], known: frozenset[str], where: str
    ) -> None:
        for keyword in schema:
            if keyword not in known:
                close = difflib.get_close_matches(keyword[:80], known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                self._say((*path, keyword), f"no keyword {where}{hint}")

    def _check_rules(self, schema: JsonObject) -> None:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        for index, name in enumerate(required if is_list(required) else ()):
            if is_object(properties) and name not in properties:
                self._say(("required", index), "no key of this schema")
        for keyword in ("if", "then", "else", "additionalProperties"):
            if keyword in schema:
                self._check_within(schema[keyword], (keyword,))
        patterned = schema.get("patternProperties", {})
        for name, item in patterned.items() if is_object(patterned) else ():
            self._check_within(item, ("patternProperties", name))
        rules = schema.get("allOf", [])
        for index, rule in enumerate(rules if is_list(rules) else ()):
            path = ("allOf", index)
            if not is_object(rule):
                self._say(path, "expected a rule: an object with `if`, `then`, `else`")
                continue
            self._check_keywords(rule, path, _RULE, "in a rule, which has `if`, `then`, `else`")
            self._check_below(rule, path)
        self._check_comparisons(schema.get("x-compare", []), properties)

    def _check_comparisons(self, comparisons: Any, properties: Any) -> None:
        if not is_list(comparisons):
            self._say(("x-compare",), 'expected a list of {"lower": KEY, "upper": KEY}')
            return
        for index, one in enumerate(comparisons):
            path = ("x-compare", index)
            if not is_object(one) or not {"lower", "upper"} <= one.keys() <= {
                "lower",
                "upper",
                "strict",
            }:
                self._say(path, 'expected {"lower": KEY, "upper": KEY, "strict": true or false}')
                continue
            if not isinstance(one.get("strict", False), bool):
                self._say((*path, "strict"), "expected true or false")
            for end in ("lower", "upper"):
                key = one[end]
                if not isinstance(key, str) or not is_object(properties) or key not in properties:
                    self._say((*path, end), "no key of this schema")
                elif is_secret(properties[key]):
                    self._say((*path, end), "a secret can't be compared")
            if one["lower"] == one["upper"]:
                self._say((*path, "upper"), "expected another key than `lower`")


class _Cost(NamedTuple):
    """How much a schema is, once every `$ref` is followed.

    weight: subschemas, and entries of lists in it. element: the weight of what judges one element of a list or one
    member of an object. patterns: that judge the same text.
    """

    weight: int = 1
    element: int = 0
    patterns: int = 0


class _Costs:
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
                self._say((), f"at most {limit} {what}, each `$ref` followed; this has {spent}")

    def _of(self, schema: Any, path: tuple[str | int, ...]) -> _Cost:
        if not is_object(schema):
            return _Cost()
        weight = 1 + sum(map(_entries, (schema.get("enum"), schema.get("required"))))
        patterns = sum(map(len, (self._own(schema), schema.get("patternProperties", ()))))
        for pattern in (*self._own(schema), *schema.get("patternProperties", ())):
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
            element = max(element, one.element, one.weight if keyword in _OF_ELEMENTS else 0)
            if keyword == "properties":
                beside = max(beside, one.patterns)
            else:
                patterns += one.patterns
        return _Cost(min(weight, _MUCH), min(element, _MUCH), min(patterns + beside, _MUCH))

    @staticmethod
    def _own(schema: JsonObject) -> tuple[str, ...]:
        own = schema.get("pattern")
        return (own,) if isinstance(own, str) else ()

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


def _entries(values: Any) -> int:
    """The entries of a list; one that is a list or an object costs as much as five."""
    if not is_list(values):
        return 0
    return sum(5 if is_object(one) or is_list(one) else 1 for one in values)


def is_secret(schema: Any) -> bool:
    """Whether a key holds a secret: it says `x-secret`, or its model's type is one of pydantic's secrets."""
    if not is_object(schema):
        return False
    branches = schema.get("anyOf", ())
    return (
        schema.get("x-secret") is True
        or (schema.get("writeOnly") is True and schema.get("format") == "password")
        or (is_list(branches) and any(is_secret(branch) for branch in branches))
    )


def _text(longest: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        good = isinstance(value, str) and 0 < len(value) <= longest
        return "" if good else f"expected text of 1 to {longest} characters"

    return check


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "expected true or false"


def _level(value: Any) -> str:
    return "" if value in ("simple", "advanced") else "expected simple or advanced"


def _was(value: Any) -> str:
    if not is_object(value) or not value or value.keys() - {"key", "map", "multiply"}:
        return 'expected an object with "key", "multiply" or "map"'
    if "key" in value and not (isinstance(value["key"], str) and is_key(value["key"])):
        return "key: expected the key's earlier name"
    if {"map", "multiply"} <= value.keys():
        return "expected either multiply or map"
    if "multiply" in value:
        factor: Any = value["multiply"]
        if not (
            is_list(factor)
            and len(factor) == 2  # noqa: PLR2004
            and all(type(n) is int and 0 < n <= MAX_INTEGER for n in factor)
        ):
            return "multiply: expected [NUMERATOR, DENOMINATOR], two integers over 0"
    if "map" in value:
        pairs: Any = value["map"]
        if not (is_object(pairs) and pairs and all(isinstance(new, str) for new in pairs.values())):
            return 'map: expected an object of text, {"OLD": "NEW"}'
    return ""


_METADATA: Mapping[str, Callable[[Any], str]] = {
    "x-allowed": _text(200),
    "x-level": _level,
    "x-restart-required": _flag,
    "x-secret": _flag,
    "x-unit": _text(32),
    "x-was": _was,
}
