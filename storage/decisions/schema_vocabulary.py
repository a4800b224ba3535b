"""The keywords of a schema that may describe a service, and its limits. Pure.

The limits make every schema cheap: to read, to validate with, and to compare. A `$ref` names one of the
schema's own `$defs` and never leads back to itself. What counts is the size with every `$ref` followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from config_manager.config.strict_json import is_list, is_object

MAX_BYTES = 64 * 1024
"""Of a schema as compact JSON."""
MAX_KEYS = 500
"""Names in `properties`, at any depth."""
MAX_WEIGHT = 4_000
"""Subschemas, and entries of lists in them, once every `$ref` is followed."""
MAX_ELEMENT_WEIGHT = 500
"""The same of what every element of a list, or every member of an object, has to satisfy."""
MAX_SIZE = 512 * 1024
"""Characters of all that, once every `$ref` is followed: so much of it is in memory, several times."""
MAX_PATTERN = 500
"""Characters of one regular expression."""
MAX_PATTERNS = 3
"""Regular expressions that judge the same text."""
MAX_REGEX_BYTES = 128 * 1024
"""Of one regular expression, compiled."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OF_ONE = frozenset(
    {"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"}
    | {"propertyNames", "then"}
)
OF_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED = frozenset({"dependentSchemas", "patternProperties", "properties"})
OF_ELEMENTS = frozenset(
    {"additionalProperties", "contains", "items", "patternProperties", "propertyNames"}
)
ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$comment", "discriminator"}
)
"""Keywords that take no value away."""
_PLAIN = frozenset(
    {"$ref", "const", "contentEncoding", "contentMediaType", "dependentRequired", "enum"}
    | {"exclusiveMaximum", "exclusiveMinimum", "format", "maxContains", "maxItems", "maxLength"}
    | {"maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties"}
    | {"minimum", "multipleOf", "pattern", "required", "type", "uniqueItems"}
)
ANYWHERE = frozenset({"x-allowed", "x-level", "x-unit"})
OF_A_KEY = ANYWHERE | {"x-restart-required", "x-secret", "x-was"}
WITHIN = OF_ONE | OF_MANY | NAMED | ANNOTATIONS | _PLAIN
TOP = frozenset(
    {"$comment", "$defs", "$id", "$schema", "additionalProperties", "allOf", "dependentRequired"}
    | {"deprecated", "description", "else", "examples", "if", "patternProperties", "properties"}
    | {"required", "then", "title", "type", "x-approvals", "x-compare"}
)
RULE = frozenset({"$comment", "description", "else", "if", "then", "title"})

REFERENCE = re.compile(r"#/\$defs/([A-Za-z0-9._-]{1,200})")
A_REFERENCE = "a schema's own `$defs`: #/$defs/NAME, NAME of letters, digits, '.', '_' and '-'"


def referenced(schema: Mapping[str, Any]) -> str | None:
    """The name in `$defs` that a subschema's `$ref` names."""
    found = REFERENCE.fullmatch(str(schema.get("$ref", "")))
    return found[1] if found else None


def subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    """The schemas right within a schema: keyword, path, schema. `$defs` are none of them."""
    for keyword, value in schema.items():
        if keyword in OF_ONE:
            yield keyword, (keyword,), value
        elif keyword in OF_MANY and is_list(value):
            for index, item in enumerate(value):
                yield keyword, (keyword, index), item
        elif keyword in NAMED and is_object(value):
            for name, item in value.items():
                yield keyword, (keyword, name), item


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
