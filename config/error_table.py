"""What every error of ours is, and the table that says what the outside sees of each (the tree: `config.errors`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

LogLevel = Literal["info", "warning", "error"]


class FieldError(NamedTuple):
    """What is wrong with one value: an RFC 6901 pointer into the request, and what is allowed."""

    pointer: str
    detail: str


class ConfigManagerError(Exception):
    """An error with a stable name. `internal` is a fault of the server: report it, with the log's lines of its `request_id`."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def description(self) -> Description:
        """Status, exit code, title and level of this error's class."""
        return DESCRIPTIONS[type(self)]

    @property
    def extensions(self) -> Mapping[str, Any]:
        """Members beside the standard ones in the problem document (RFC 9457, section 3.2)."""
        return {}


@dataclass(frozen=True, slots=True)
class Description:
    """What the outside sees of an error class.

    name: stable; the last segment of the problem's `type`, and `error` in the log.
    retry_after_s: sent as `Retry-After` if trying again may help.
    """

    name: str
    title: str
    status: int
    exit_code: int
    level: LogLevel = "info"
    retry_after_s: int | None = None


_DESCRIPTIONS: dict[type[ConfigManagerError], Description] = {
    ConfigManagerError: Description("internal", "Unexpected error", 500, 1, "error"),
}
DESCRIPTIONS: Mapping[type[ConfigManagerError], Description] = MappingProxyType(_DESCRIPTIONS)
"""Of every class whose module is imported; `config.errors` imports all."""


def describe(rows: Mapping[type[ConfigManagerError], Description]) -> None:
    """Add the rows of a module's classes."""
    _DESCRIPTIONS.update(rows)


def the_reason(
    group: BaseExceptionGroup[BaseException], *kinds: type[BaseException]
) -> BaseException:
    """The first exception of these kinds in a group, earlier kinds first; else the group as it is."""
    for kind in kinds:
        found: BaseExceptionGroup[BaseException] | None = group.subgroup(kind)
        while found is not None:
            first = found.exceptions[0]
            if not isinstance(first, BaseExceptionGroup):
                return first
            found = cast("BaseExceptionGroup[BaseException]", first)
    return group
