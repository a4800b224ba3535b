"""JSON that every parser reads alike; whatever parsers read differently is refused.

Refused: depth over 32, duplicate keys, NaN and Infinity (also as an overflowing `1e999`), integers
beyond ±(2^53 - 1) (RFC 7493 section 2.2), lone surrogates, NUL, bytes that are not UTF-8. A number that is
written with a fraction or an exponent is a double, not an integer.
"""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeGuard

import orjson

JsonObject: TypeAlias = dict[str, Any]

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
"""The largest magnitude that a reader with doubles still tells from its neighbours."""
MAX_INTEGER_ONCE_SIGNED = MAX_INTEGER + 1
"""Servers before 0.5.0 took ±2^53 in a configuration. Readers of signed documents take it still."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# The closing quote is optional and nothing is tried twice: otherwise a string that never ends, full of
# escaped quotes, would be searched again from each of them.
_MAX_INTEGER_DIGITS = 17  # 16 and a sign; int() of a megabyte of digits would take seconds


class NotStrictJson(ValueError):
    """Not JSON that every parser reads alike; the message says where."""


def loads(data: bytes, *, max_depth: int = MAX_DEPTH, max_integer: int = MAX_INTEGER) -> Any:
    """The value of `data`. Raises NotStrictJson. Cost: one pass of the C scanner, a second for escapes."""
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(data, max_depth)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=partial(_integer, max_integer),
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode())
        raise NotStrictJson(f"not JSON: {error.msg} at byte {at}") from None
    except RecursionError:
        raise NotStrictJson(f"nested deeper than {max_depth}") from None
    if "\\u" in text:  # only an escape can make a NUL or a lone surrogate out of valid UTF-8
        _check_strings(value)
    return value


def loads_object(
    data: bytes, *, max_depth: int = MAX_DEPTH, max_integer: int = MAX_INTEGER
) -> JsonObject:
    """As `loads`, for an object. Raises NotStrictJson for any other value."""
    value = loads(data, max_depth=max_depth, max_integer=max_integer)
    if not is_object(value):
        raise NotStrictJson("expected a JSON object")
    return value


def most_values(data: bytes) -> int:
    """`data` has so many values at most, counted without parsing it: each may take 50 times its bytes of memory."""
    bare = _STRING.sub(b"", data)
    return 1 + sum(map(bare.count, (b",", b"[", b"{")))


def is_object(value: object) -> TypeGuard[JsonObject]:
    """Whether this value out of `loads` is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether this value out of `loads` is a list."""
    return isinstance(value, list)


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON of a value from `loads`, or of one that we made."""
    return orjson.dumps(value)


def dumps_sorted(value: Any) -> bytes:
    """As `dumps`, with the members of each object in the order of their names: an object in any order is the same
    bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def same(one: object, other: object) -> bool:
    """Whether two values are the same JSON, the order of members included: 1, 1.0 and true are three."""
    return dumps(one) == dumps(other)


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"[{":
            depth += 1
            if depth > max_depth:
                raise NotStrictJson(f"nested deeper than {max_depth}")
        elif byte in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotStrictJson(f"the key {key[:80]!r} stands twice in one object")
            seen.add(key)
    return value


def _constant(text: str) -> NoReturn:
    raise NotStrictJson(f"{text} is not JSON")


def _integer(largest: int, text: str) -> int:
    if len(text) <= _MAX_INTEGER_DIGITS:
        value = int(text)
        if -largest <= value <= largest:
            return value
    raise NotStrictJson(
        "an integer beyond ±(2^53 - 1) reads differently elsewhere; send it as a string"
    )


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotStrictJson("a number too large for a double")
    return value


def _check_strings(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise NotStrictJson("a NUL character")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise NotStrictJson("a lone surrogate") from None
    elif is_object(value):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
    elif is_list(value):
        for item in value:
            _check_strings(item)
