"""What a call takes beside its body: each parameter is read, and described for OpenAPI, by one value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from config_manager.api.rest.models import INTEGER, KEY, NAME
from config_manager.api.rest.request import ApiRequest
from config_manager.config.access import Need
from config_manager.config.errors import MalformedRequest
from config_manager.config.names import ServiceName, is_key, parse_instance, parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339, rfc3339

T = TypeVar("T")
_DIGITS = re.compile(r"[0-9]{1,16}")
"""2^53 - 1, the largest integer anywhere in the API, has 16."""


@dataclass(frozen=True, slots=True)
class Path(Generic[T]):
    """A segment of the path. parse: raises a `config.errors.Refusal`."""

    is_in: ClassVar = "path"

    name: str
    description: str
    schema: JsonObject
    parse: Callable[[str], T]

    def of(self, request: ApiRequest) -> T:
        return self.parse(request.params[self.name])


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """A query parameter. parse: raises ValueError, whose words say what was expected, or a `Refusal`. required: in
    words for callers; the handler refuses what lacks it."""

    is_in: ClassVar = "query"

    name: str
    description: str
    schema: JsonObject
    parse: Callable[[str], T]
    required: bool = False

    def of(self, request: ApiRequest) -> T | None:
        """None if it is left out; raises MalformedRequest."""
        text = request.query.get(self.name)
        if text is None:
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            raise MalformedRequest(f"{self.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class Header:
    """A header, described here and read where it is used."""

    is_in: ClassVar = "header"

    name: str
    description: str
    schema: JsonObject


Parameter = Path[Any] | Query[Any] | Header

SERVICE = Path(
    "service",
    "the service's name; epoch, search and config-manager are reserved",
    NAME,
    parse_service,
)
INSTANCE = Path("instance", "the instance's name", NAME, parse_instance)


def number(
    name: str, description: str, *, least: int = 0, most: int = INTEGER["maximum"]
) -> Query[int]:
    """An integer, least ≤ n ≤ most."""

    def parse(text: str) -> int:
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError(f"expected an integer from {least} to {most}")
        return int(text)

    return Query(name, description, {"type": "integer", "minimum": least, "maximum": most}, parse)


def one_of(name: str, description: str, *texts: str) -> Query[str]:
    def parse(text: str) -> str:
        if text not in texts:
            raise ValueError(f"expected {' or '.join(texts)}")
        return text

    schema = {"const": texts[0]} if len(texts) == 1 else {"enum": list(texts)}
    return Query(name, description, {"type": "string", **schema}, parse)


def flag(name: str, description: str) -> Query[bool]:
    def parse(text: str) -> bool:
        if text not in ("true", "false"):
            raise ValueError("expected true or false")
        return text == "true"

    return Query(name, description, {"type": "boolean"}, parse)


def parse_time(text: str) -> str:
    """RFC 3339 in UTC, of a time with any offset; raises ValueError."""
    try:
        return rfc3339(parse_rfc3339(text.replace(" ", "+")))  # an unescaped + reads as a space
    except (ValueError, OverflowError, OSError):
        raise ValueError("expected a time such as 2026-01-31T12:00:00Z") from None


TIME: JsonObject = {"type": "string", "format": "date-time"}


def time(name: str, description: str) -> Query[str]:
    return Query(name, description, TIME, parse_time)


def parse_key(text: str) -> str:
    if not is_key(text):
        raise ValueError("not a key's name")
    return text


def key(description: str) -> Query[str]:
    return Query("key", description, KEY, parse_key)


def service_in_query(description: str) -> Query[ServiceName]:
    return Query("service", description, NAME, parse_service)


def granted(
    service: Query[ServiceName], request: ApiRequest, need: Need = "read"
) -> ServiceName | None:
    """The service in the query; None if it is left out. Raises Forbidden if the token is not for it."""
    found = service.of(request)
    if found is not None:
        request.grant.require(need, found)
    return found
