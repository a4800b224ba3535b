"""A value that one schema takes and another does not, if one is found among values at their edges. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from config_manager.config.strict_json import dumps, is_object
from config_manager.storage.decisions.validators import compiled

_TRIED = 200
_LONGEST = 200
"""Characters of a text, and bytes of an example as JSON."""
_DEEPEST = 3
_TEXTS = ("", "a", "ab", "abc", "A", "1", "a b", "a\n", "zz1", "x/y")
_DATES = ("2026-01-01", "2026-01-01T00:00:00Z", "http://a.b", "a@b.c", "1.2.3.4", "/a")


class Found(NamedTuple):
    value: Any


def taken_by_one_only(old: Any, new: Any) -> Found | None:
    """A value that `old` takes and `new` refuses. Both: without `$ref`. Where None is found there may be one."""
    takes, refuses = compiled(old).is_valid, compiled(new).is_valid
    for value in islice(_candidates(old, new), _TRIED):
        if takes(value) and not refuses(value) and len(dumps(value)) <= _LONGEST:
            return Found(value)
    return None


def _candidates(old: Any, new: Any) -> Iterator[Any]:
    yield from edges(old)
    yield from edges(new)
    yield from (None, True, False, 0, 1, -1, 0.5, 10**9, "", "a", [], {}, [1], {"a": 1})


def edges(schema: Any, depth: int = 0) -> Iterator[Any]:
    """Values near each limit of a schema; some are taken and some are not."""
    if not is_object(schema) or depth > _DEEPEST:
        return
    yield from islice(schema.get("enum", ()), 50)
    if "const" in schema:
        yield schema["const"]
    for keyword in ("anyOf", "oneOf", "allOf"):
        for branch in schema.get(keyword, ())[:8]:
            yield from edges(branch, depth + 1)
    types = schema.get("type", ())
    for kind in [types] if isinstance(types, str) else types:
        yield from _of_type(kind, schema, depth)


def _of_type(kind: str, schema: Any, depth: int) -> Iterator[Any]:
    match kind:
        case "null":
            yield None
        case "boolean":
            yield from (True, False)
        case "integer" | "number":
            yield from _numbers(kind, schema)
        case "string":
            yield from _texts(schema)
        case "array":
            yield from _lists(schema, depth)
        case "object":
            yield from _objects(schema, depth)
        case _:
            return


def _numbers(kind: str, schema: Any) -> Iterator[Any]:
    ends: list[float] = [0, 1, 5]
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if name in schema:
            ends += [schema[name] - 1, schema[name], schema[name] + 1]
    if "multipleOf" in schema:
        ends += [schema["multipleOf"] * n for n in (-2, -1, 1, 2, 3)]
    for end in ends:
        if float(end).is_integer() and abs(end) < 2**53:
            yield int(end)
        else:
            yield float(end)
        if kind == "number":
            yield from (end + 0.5, end + 0.1)


def _texts(schema: Any) -> Iterator[str]:
    least, most = (
        int(schema.get("minLength", 0)),
        int(schema.get("maxLength", 4)),
    )  # 1e15 is one, too
    for length in sorted({least, least + 1, most, most + 1}):
        if length <= _LONGEST:
            yield from ("a" * length, "1" * length, ("ab" + "c" * length)[:length], "ü" * length)
    yield from _TEXTS
    yield from _DATES


def _lists(schema: Any, depth: int) -> Iterator[list[Any]]:
    items = list(islice(edges(schema.get("items", {}), depth + 1), 12)) or [1, 2]
    least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 2))
    for length in sorted({0, 1, 2, least, most, most + 1}):
        if length <= _LONGEST // 2:
            yield [items[0]] * length
            yield (items * (length // len(items) + 1))[:length]
    yield from ([item] for item in items)


def _objects(schema: Any, depth: int) -> Iterator[dict[str, Any]]:
    members = schema.get("properties", {})
    each = {
        name: list(islice(edges(one, depth + 1), 12)) or [1]
        for name, one in islice(members.items(), 12)
    }
    required = {name: each.get(name, [1])[0] for name in schema.get("required", ())[:12]}
    yield required
    yield {**required, "zzz": 1}
    yield {name: values[0] for name, values in each.items()}
    for name, values in each.items():
        for value in values:
            yield {**required, name: value}
    for missing in required:
        yield {name: value for name, value in required.items() if name != missing}
