"""Whether a write makes values worse: only for errors that it adds is it refused. Pure."""

from __future__ import annotations

from typing import Protocol

from config_manager.config.errors import FieldError
from config_manager.config.strict_json import JsonObject, same


class Judging(Protocol):
    """What is asked of a `Shape`."""

    def errors(self, stored: JsonObject) -> list[FieldError]: ...


def judge(
    shape: Judging, before: JsonObject | None, after: JsonObject
) -> tuple[list[FieldError], list[FieldError]]:
    """The errors that a write adds, for which it is refused, and those that it leaves as they were: warnings.

    before, after: stored values, without secrets; before is None if there were none. An error stays as it was if
    the same was said before, and the write does not touch the key that it points at.
    """
    found = shape.errors(after)
    if not found or not before:
        return found, []
    there = set(shape.errors(before))
    added: list[FieldError] = []
    stayed: list[FieldError] = []
    for error in found:
        key = error.pointer[1:].partition("/")[0].replace("~1", "/").replace("~0", "~")
        is_old = error in there and not _is_touched(key, before, after)
        (stayed if is_old else added).append(error)
    return added, stayed


def _is_touched(key: str, before: JsonObject, after: JsonObject) -> bool:
    if (key in before) != (key in after):
        return True
    return key in before and not same(before[key], after[key])
