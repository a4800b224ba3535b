"""What a JSON Schema takes, in words for a person: "a number from 0 to 1 (s)"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from config_manager.config.errors import FieldError
from config_manager.config.strict_json import is_list, is_object

_TYPES = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
MOST_ERRORS = 50
"""Named in one answer, which must not be many times larger than its request."""
_MOST_EXPLAINED = 10
"""Unknown keys that are compared with every known one: each comparison may take some ms."""
_MOST_NAMED = 40
"""Choices or keys that one message names; a message stays shorter than what it is about."""


def in_words(schema: Any) -> str:
    """What a schema takes, such as "one of fast, slow" or "a string of 1 to 50 characters or null".

    `x-allowed` says it in its author's words. schema: without `$ref`. Limits of what is in a list or an
    object are not told.
    """
    if not is_object(schema):
        return "a value" if schema is True else "nothing"
    if "x-allowed" in schema:
        return str(schema["x-allowed"])
    unit = f" ({schema['x-unit']})" if "x-unit" in schema else ""
    return _kinds(schema) + unit


def unknown_keys(
    unknown: Iterable[str], keys: Sequence[str], shown: Iterable[str]
) -> Iterator[str]:
    """What is said of each key that is none of `keys`. shown: those of them to name."""
    named = listed(shown)
    for number, key in enumerate(unknown):
        if number >= _MOST_EXPLAINED:
            yield "unknown key"
            continue
        close = difflib.get_close_matches(key[:80], keys, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        yield f"unknown key{hint} The keys: {named}"


def first(errors: list[FieldError], most: int | None = MOST_ERRORS) -> list[FieldError]:
    """The first errors, and how many more there are. most: None is all."""
    if most is None or len(errors) <= most:
        return errors
    return [*errors[:most], FieldError("", f"and {len(errors) - most} more")]


def listed(names: Iterable[object]) -> str:
    """Names with commas; of many the first ones and how many more."""
    known = list(names)
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return ", ".join(map(_short, known[:_MOST_NAMED])) + more


def _kinds(schema: Mapping[str, Any]) -> str:
    branches: Any = schema.get("anyOf", schema.get("oneOf"))
    if is_list(branches) and branches:
        return " or ".join(dict.fromkeys(in_words(branch) for branch in branches))
    if "const" in schema:
        return _choices([schema["const"]])
    if is_list(choices := schema.get("enum")):
        return _choices(choices)
    if is_list(whole := schema.get("allOf")) and len(whole) == 1 and "type" not in schema:
        return in_words(whole[0])
    types = schema.get("type", ())
    names = [types] if isinstance(types, str) else types
    words = [_TYPES.get(name, "a value") + _limits(name, schema) for name in names]
    return " or ".join(words) or "a value"


def _choices(values: list[Any]) -> str:
    plain = [value for value in values if value is not None]
    null = " or null" if len(plain) < len(values) else ""
    if not plain:
        return "null"
    words = [_said(value) for value in plain]
    return f"one of {listed(words)}{null}"


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 63 else f"{text[:60]}…"  # noqa: PLR2004  a key has 63


def _limits(kind: str, schema: Mapping[str, Any]) -> str:
    match kind, schema:
        case ("string", {"minLength": int(least), "maxLength": int(most)}):
            return f" of {least} to {most} characters"
        case ("string", {"maxLength": int(most)}):
            return f" of at most {most} characters"
        case ("string", {"minLength": int(least)}):
            return f" of at least {least} characters"
        case ("integer" | "number", {"minimum": least, "maximum": most}):
            return f" from {least} to {most}{_steps(schema)}"
        case ("integer" | "number", _):
            words = {
                "minimum": "at least",
                "exclusiveMinimum": "over",
                "maximum": "at most",
                "exclusiveMaximum": "under",
            }
            parts = [f"{words[name]} {schema[name]}" for name in words if name in schema]
            return (" " + " and ".join(parts) if parts else "") + _steps(schema)
        case _:
            return ""


def _steps(schema: Mapping[str, Any]) -> str:
    return f", a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
