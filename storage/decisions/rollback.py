"""What a service's values were at an earlier revision, and what differs since, told from its history. Pure.

History names the old value of each key that a revision changed. Undoing the newest entries, newest first, leads
back. Secrets are in none of these values: a change of one takes its key out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from config_manager.config.errors import NotFound

Values = dict[str, Any]  # not `strict_json.JsonObject`: commands import this module, and no orjson

NOT_THERE: Final = object()
"""Stands for the value of a key that was not there, or is a secret."""


class Step(NamedTuple):
    """What one revision did to a service. before: key → its value until then, or NOT_THERE."""

    revision: int
    is_deletion: bool
    before: Mapping[str, object]


def undone(now: Values, steps: Iterable[Step]) -> Values:
    """The values before these steps. steps: the newest ones, newest first."""
    values = dict(now)
    for step in steps:
        for key, value in step.before.items():
            if value is NOT_THERE:
                values.pop(key, None)
            else:
                values[key] = value
    return values


def as_of(service: str, now: Values, at: int, revision: int, history: Iterable[Step]) -> Values:
    """The values at a revision. now: the values at revision `at` (0: of a service that is not there).

    history: newest first, read only as far back as needed. It may begin with steps that are newer than `at`.
    Raises NotFound if the service was deleted then, or not yet written.
    """
    later: list[Step] = []
    for step in history:
        if step.revision <= revision:
            if step.is_deletion:
                raise NotFound(f"{service} was deleted as of revision {revision}")
            return undone(now, later)
        if at == 0 or step.revision <= at:
            later.append(step)
    raise NotFound(f"nobody had written {service} as of revision {revision}")
