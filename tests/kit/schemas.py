"""Schemas as pydantic writes them, changes that somebody makes to one, and values at their edges."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from config_manager.config.strict_json import same
from config_manager.storage.decisions.counterexamples import edges
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.validators import compiled

KEYS = ("a", "b", "c", "d")


def a_service(r: Random) -> dict[str, Any]:
    """A service's schema of one to three keys, some with a default or rules."""
    schema = _object(r, 0, 3)
    for one in schema["properties"].values():
        if r.random() < 0.3:
            set_default(r, one)
    if r.random() < 0.15:
        add_rule(r, schema)
    return schema


def edited(r: Random, schema: dict[str, Any]) -> dict[str, Any]:
    """The same with one to three changes."""
    new = copy.deepcopy(schema)
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        _edit(r, new)
    return new


def set_default(r: Random, one: dict[str, Any]) -> None:
    """A default that the key takes, if an edge of it is one."""
    taken = compiled({k: v for k, v in one.items() if k != "default"})
    choices = [value for value in edges(one) if taken.is_valid(value)][:8]
    one.pop("default", None)
    if choices:
        one["default"] = r.choice(choices)


def add_rule(r: Random, schema: dict[str, Any]) -> None:
    keys = list(schema["properties"])
    one, other = r.choice(keys), r.choice(keys)
    match r.randrange(3):
        case 0:
            values = list(edges(schema["properties"][one])) or [1]
            condition = {"properties": {one: {"const": r.choice(values)}}}
            schema.setdefault("allOf", []).append({"if": condition, "then": {"required": [other]}})
        case 1:
            schema.setdefault("dependentRequired", {})[one] = [other]
        case _ if one != other:
            schema["x-compare"] = [{"lower": one, "upper": other}]
        case _:
            pass


def objects(r: Random, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Values at every edge of each key; many are not allowed."""
    at = {key: list(edges(one))[:24] or [1] for key, one in schema["properties"].items()}
    required = [key for key in schema.get("required", ()) if key in at]
    made: list[dict[str, Any]] = [{}]
    for _ in range(8):
        chosen = {k: r.choice(v) for k, v in at.items() if k in required or r.random() < 0.7}
        made.append(chosen)
    for key, values in at.items():
        base = {one: r.choice(at[one]) for one in required}
        made += [{**base, key: value} for value in values]
    return made


def independently(schema: CompiledSchema, *, closed: bool) -> Any:
    """Plain validation by the schema as it was written, and nothing of ours."""
    own = {**schema.schema, "additionalProperties": False} if closed else schema.schema
    return compiled(own)


def fits(validator: Any, schema: CompiledSchema, stored: dict[str, Any]) -> bool:
    """What is effective of this is taken, by the rules between keys too."""
    config = {k: v["default"] for k, v in schema.schema["properties"].items() if "default" in v}
    config |= stored
    if not validator.is_valid(config):
        return False
    for rule in schema.schema.get("x-compare", ()):
        lower: Any = config.get(rule["lower"])
        upper: Any = config.get(rule["upper"])
        numbers = all(type(one) in (int, float) for one in (lower, upper))
        if numbers and lower > upper:
            return False
    return True


def _number(r: Random) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "number"}
    if r.random() < 0.5:
        schema[r.choice(("minimum", "exclusiveMinimum"))] = r.choice((0, 0.5, 1))
    if r.random() < 0.5:
        schema[r.choice(("maximum", "exclusiveMaximum"))] = r.choice((1, 1.5, 3))
    if r.random() < 0.15:
        schema["multipleOf"] = r.choice((0.1, 0.25, 0.5, 1))
    return schema


def _integer(r: Random) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    if r.random() < 0.6:
        schema["minimum"] = r.randrange(-2, 4)
    if r.random() < 0.6:
        schema["maximum"] = schema.get("minimum", 0) + r.randrange(5)
    if r.random() < 0.15:
        schema["multipleOf"] = r.choice((2, 3))
    return schema


def _text(r: Random) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if r.random() < 0.4:
        schema["minLength"] = r.randrange(3)
    if r.random() < 0.4:
        schema["maxLength"] = schema.get("minLength", 0) + r.randrange(4)
    if r.random() < 0.3:
        schema["pattern"] = r.choice(("^a", "^ab", "^[a-z]+$", "^\\d+$", "b"))
    if r.random() < 0.1:
        schema["format"] = r.choice(("uri", "date", "ipv4"))
    return schema


def _choices(r: Random) -> dict[str, Any]:
    pool = ["a", "ab", "abc", "1", 1, 2, 1.0, 2.5, True, None, "2026-01-01"]
    chosen: list[Any] = []
    for value in r.sample(pool, r.randrange(1, 5)):
        if not any(same(value, other) or value == other for other in chosen):
            chosen.append(value)
    return {"enum": chosen}


def _leaf(r: Random, depth: int) -> dict[str, Any]:  # noqa: PLR0911
    match r.randrange(11 if depth < 2 else 8):
        case 0:
            return {"type": "boolean"}
        case 1 | 2:
            return _integer(r)
        case 3:
            return _number(r)
        case 4 | 5:
            return _text(r)
        case 6:
            return _choices(r)
        case 7:
            return {"anyOf": [_leaf(r, depth + 1), {"type": "null"}]}
        case 8:
            schema: dict[str, Any] = {"type": "array", "items": _leaf(r, depth + 1)}
            if r.random() < 0.4:
                schema["maxItems"] = r.randrange(3)
            if r.random() < 0.3:
                schema["minItems"] = r.randrange(2)
            if r.random() < 0.2:
                schema["uniqueItems"] = True
            return schema
        case 9:
            return _object(r, depth + 1, 2)
        case _:
            return {"const": r.choice((0, 1, "a", None, False))}


def _object(r: Random, depth: int, most: int) -> dict[str, Any]:
    keys = r.sample(KEYS, r.randrange(1, most + 1))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {key: _leaf(r, depth) for key in keys},
    }
    if required := [key for key in keys if r.random() < 0.25]:
        schema["required"] = required
    if r.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems")


def _edit(r: Random, schema: dict[str, Any], depth: int = 0) -> None:  # noqa: PLR0912
    """One change, in place."""
    keys = schema["properties"]
    key = r.choice(list(keys))
    one = keys[key]
    match r.randrange(12):
        case 0:
            name = r.choice("abcdefg")
            if name not in keys:
                keys[name] = _leaf(r, depth)
                if depth == 0 and r.random() < 0.3:
                    set_default(r, keys[name])
        case 1 if len(keys) > 1 and not _is_mentioned(schema, key):
            del keys[key]
            schema["required"] = [name for name in schema.get("required", ()) if name != key]
        case 2:
            keys[key] = _leaf(r, depth)
        case 3:
            schema["required"] = sorted({*schema.get("required", ())} ^ {key})
        case 4:
            _change_kind(r, one)
        case 5 | 6:
            for name in (*_LIMITS, *_SIZES):
                if name in one and r.random() < 0.8:
                    least = 0 if name in _SIZES else -9
                    one[name] = max(least, one[name] + r.choice((-1, 1, 1)))
        case 7:
            keys[key] = {
                "anyOf": [{k: v for k, v in one.items() if k != "default"}, {"type": "null"}]
            }
        case 8:
            _edit_within(r, schema, one, depth)
        case 9 if depth == 0:
            set_default(r, one)
        case 10 if depth == 0:
            add_rule(r, schema)
        case 11 if depth == 0:
            for name in ("allOf", "dependentRequired", "x-compare"):
                schema.pop(name, None)
        case _:
            pass
    changed = keys.get(key, {})
    if "default" in changed:
        if not compiled(changed).is_valid(changed["default"]):
            del changed["default"]


def _is_mentioned(schema: dict[str, Any], key: str) -> bool:
    return any(key in one.values() for one in schema.get("x-compare", ()))


def _change_kind(r: Random, one: dict[str, Any]) -> None:
    if one.get("type") == "integer":
        one["type"] = "number"
    elif one.get("type") == "number":
        one["type"] = "integer"
    elif "enum" in one:
        if r.random() < 0.5 and len(one["enum"]) > 1:
            one["enum"].pop(r.randrange(len(one["enum"])))
        else:
            one["enum"].append(f"zz{r.randrange(9)}{len(one['enum'])}")


def _edit_within(r: Random, schema: dict[str, Any], one: dict[str, Any], depth: int) -> None:
    items = one.get("items", {})
    if one.get("type") == "object" and "properties" in one:
        _edit(r, one, depth + 1)
    elif isinstance(items, dict) and "properties" in items:
        _edit(r, items, depth + 1)
    elif schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    else:
        schema["additionalProperties"] = False
