"""What a service's values look like, and which description of it is active. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from config_manager.config.catalogue import Catalogue, Effective
from config_manager.config.errors import FieldError, NotFound
from config_manager.config.strict_json import JsonObject
from config_manager.storage.state import Committed


class Shape(Protocol):
    """What a service's values look like. Values are without secrets."""

    @property
    def schema(self) -> JsonObject:
        """As JSON Schema (2020-12), an object."""
        ...

    @property
    def digest(self) -> str:
        """Of the schema: `config.catalogue.schema_digest`."""
        ...

    @property
    def keys(self) -> Collection[str]:
        """All of them, secrets' names too."""
        ...

    @property
    def secrets(self) -> frozenset[str]:
        """The keys that hold secrets."""
        ...

    @property
    def defaults(self) -> JsonObject:
        """key → the value of a key that nobody has set."""
        ...

    @property
    def restart_required(self) -> frozenset[str]:
        """The keys that only a restart changes."""
        ...

    def errors(self, stored: JsonObject) -> list[FieldError]:
        """What is wrong with these values once defaults are filled in. Pointers begin at the values."""
        ...

    def effective(self, stored: JsonObject) -> Effective:
        """Stored values over defaults."""
        ...

    def check_secret(self, name: str, value: str) -> None:
        """Raises InvalidValues (pointer /name or /value), which never contains the value."""
        ...


class Shapes:
    """Which shape of a service is active. A service without one takes any JSON object."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def of(self, committed: Committed, service: str) -> Shape | None:  # noqa: ARG002
        """The service's active shape as of this state."""
        return self.catalogue.shape(service)

    def services(self, committed: Committed) -> frozenset[str]:  # noqa: ARG002
        """The services that have a shape as of this state."""
        return frozenset(self.catalogue.services)

    def is_known(self, committed: Committed, service: str) -> bool:
        """Whether there is such a service: it has a shape, or somebody has written it and not deleted it."""
        return committed.live(service) is not None or self.of(committed, service) is not None

    def secret_keys(self, committed: Committed, service: str) -> frozenset[str]:
        """The keys of a service that hold secrets: by its shape, or because one was stored."""
        shape, known = self.of(committed, service), committed.services.get(service)
        declared = frozenset[str]() if shape is None else shape.secrets
        return declared if known is None else declared | known.secrets.keys()


def unknown(service: str) -> NotFound:
    """The refusal of a service that is not there."""
    return NotFound(f"{service} has no schema, and nobody has written it")


def effective(shape: Shape | None, stored: JsonObject) -> Effective:
    """Stored values over the shape's defaults."""
    return Effective(dict(stored), ()) if shape is None else shape.effective(stored)
