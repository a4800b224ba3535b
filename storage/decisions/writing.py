"""Whether a write makes values worse: only for errors that it adds is it refused. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from config_manager.config.errors import FieldError
from config_manager.config.schema_words import MOST_ERRORS, first
from config_manager.config.strict_json import JsonObject, same


class Judging(Protocol):
    """What is asked of a `Shape`."""

    @property
    def keys(self) -> Collection[str]: ...

    def errors(self, stored: JsonObject, most: int | None = MOST_ERRORS) -> list[FieldError]: ...


def judge(
    shape: Judging, before: JsonObject | None, after: JsonObject
) -> tuple[list[FieldError], list[FieldError]]:
    """The errors that a write adds, for which it is refused, and those that it leaves as they were: warnings. Of
    each the first 50, and how many more.

    before, after: stored values, without secrets; before is None if there were none. An error stays as it was if
    the same was said before, and the write does not touch the key that it points at.
    """
    found = shape.errors(after)
    if not found or not before:
        return found, []
    left = {key for key, value in after.items() if key in before and same(before[key], value)}
    unknown = left.difference(shape.keys)
    # without those, because a model asks its rules only if no key is unknown
    known = {key: value for key, value in before.items() if key in shape.keys}
    there = set(shape.errors(known, None))
    added: list[FieldError] = []
    stayed: list[FieldError] = []
    for error in shape.errors({k: v for k, v in after.items() if k not in unknown}, None):
        key = _key_of(error)
        touches = key in before if key not in after else key not in left
        (stayed if error in there and not touches else added).append(error)
    if unknown:
        of_unknown = shape.errors({k: v for k, v in after.items() if k in unknown}, None)
        stayed = [*(error for error in of_unknown if _key_of(error) in unknown), *stayed]
    return first(added), first(stayed)


def _key_of(error: FieldError) -> str:
    return error.pointer[1:].partition("/")[0].replace("~1", "/").replace("~0", "~")
