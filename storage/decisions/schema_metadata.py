"""What `x-` keywords of a key may say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from config_manager.config.names import is_key
from config_manager.config.strict_json import MAX_INTEGER, is_list, is_object


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


METADATA: Mapping[str, Callable[[Any], str]] = {
    "x-allowed": _text(200),
    "x-level": _level,
    "x-restart-required": _flag,
    "x-secret": _flag,
    "x-unit": _text(32),
    "x-was": _was,
}
