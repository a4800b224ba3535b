"""Which JSON Schemas may describe a service. Pure."""

from __future__ import annotations

import difflib
from typing import Any

from config_manager.config.errors import FieldError
from config_manager.config.names import is_key, pointer
from config_manager.config.schema_words import first
from config_manager.config.strict_json import MAX_DEPTH, JsonObject, dumps, is_list, is_object
from config_manager.storage.decisions.schema_costs import Costs
from config_manager.storage.decisions.schema_metadata import METADATA
from config_manager.storage.decisions.schema_vocabulary import (
    A_REFERENCE,
    ANYWHERE,
    DIALECT,
    MAX_BYTES,
    MAX_KEYS,
    NAMED,
    OF_A_KEY,
    OF_MANY,
    REFERENCE,
    RULE,
    TOP,
    WITHIN,
    is_secret,
    referenced,
    subschemas,
)


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
    return first(_Form(schema).complaints)


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
            Costs(self._definitions, self._say).check(schema)

    def _say(self, path: tuple[str | int, ...], detail: str) -> None:
        self.complaints.append(FieldError(pointer(*path), detail))

    def _check_top(self) -> None:
        schema = self._schema
        self._check_keywords(schema, (), TOP, "at the top of a service's schema")
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
                elif not REFERENCE.fullmatch(f"#/$defs/{name}"):
                    self._say(
                        (keyword, name), "expected a name that a `$ref` can say: " + A_REFERENCE
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
        self._check_keywords(schema, path, WITHIN | OF_A_KEY, "in a key's schema")
        for keyword, check in METADATA.items():
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
        if not isinstance(was.get("key"), str):
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
        for keyword in (OF_A_KEY - ANYWHERE) & schema.keys():
            self._say((*path, keyword), "stands only at a key of the service itself")
        self._check_keywords(schema, path, WITHIN | OF_A_KEY, "here")
        for keyword in ANYWHERE & schema.keys():
            if said := METADATA[keyword](schema[keyword]):
                self._say((*path, keyword), said)
        self._check_below(schema, path)

    def _check_below(self, schema: JsonObject, path: tuple[str | int, ...]) -> None:
        if "$ref" in schema:
            name = referenced(schema)
            if name is None:
                self._say((*path, "$ref"), "expected one of " + A_REFERENCE)
            elif name not in self._definitions:
                self._say((*path, "$ref"), f"there is no {name} in `$defs`")
        for keyword in (OF_MANY | NAMED) & schema.keys():
            expected = is_list if keyword in OF_MANY else is_object
            if not expected(schema[keyword]):
                kind = "a list" if keyword in OF_MANY else "an object"
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
            if is_object(properties) and (not isinstance(name, str) or name not in properties):
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
            self._check_keywords(rule, path, RULE, "in a rule, which has `if`, `then`, `else`")
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
