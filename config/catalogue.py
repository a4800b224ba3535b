"""What a service's settings look like: a pydantic model per service, with metadata per field.

A model's fields are its keys; see `setting` for what a field tells the person who sets it. A service
without a model takes any JSON object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from config_manager.config.strict_json import JsonObject

Level = Literal["simple", "advanced"]


class ServiceSettings(BaseModel):
    """Base of the catalogue's models: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    SERVICE: ClassVar[str]


class Effective(NamedTuple):
    """What a service runs: stored values over defaults, without secrets. defaulted: filled-in keys."""

    config: JsonObject
    defaulted: tuple[str, ...]


class Catalogue:
    """The known services. Pure and immutable: pass it in."""

    def __init__(self, models: Iterable[type[ServiceSettings]] = ()) -> None:
        self._models: Mapping[str, type[ServiceSettings]] = {m.SERVICE: m for m in models}

    def __contains__(self, service: str) -> bool:
        return service in self._models

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(sorted(self._models))

    def secret_keys(self, service: str) -> frozenset[str]:
        """The keys that the service's model marks as secret; none for an unknown service."""
        raise NotImplementedError

    def check(self, service: str, stored: JsonObject) -> None:
        """Raise InvalidValues with one entry per wrong field and what would be allowed.

        `stored` holds no secret keys. A service without a model takes anything.
        """
        raise NotImplementedError

    def check_secret(self, service: str, name: str, value: str) -> None:
        """Raise InvalidValues (pointer /name or /value) unless the model has this secret and takes
        this value. The message never contains the value."""
        raise NotImplementedError

    def effective(self, service: str, stored: JsonObject) -> Effective:
        """Stored values over the model's defaults, in the model's order, secret keys left out.

        The secret keys themselves count as defaulted nowhere: the REST view adds them masked.
        """
        raise NotImplementedError

    def json_schema(self, service: str) -> dict[str, Any] | None:
        """JSON Schema (2020-12) of the service's settings with our metadata, or None."""
        raise NotImplementedError
