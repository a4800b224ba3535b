"""What a service's values look like, and which description of it is active. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from config_manager.config.catalogue import Catalogue, Effective, schema_digest
from config_manager.config.errors import FieldError, NotFound, SchemaInvalid
from config_manager.config.schema_words import MOST_ERRORS
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.state import Committed, SchemaVersion

SCHEMA = "schema"
"""Registry kind: service → the version of its schema that somebody made active, with the schema itself."""
INSTANCE_SCHEMA = "instance-schema"
"""Registry kind: `service/digest` → a schema that an instance said it was built with, and when it was seen."""
_MOST_COMPILED = 2_000
_NONE: Mapping[str, JsonObject] = MappingProxyType({})

Versions = Callable[[str], Sequence[SchemaVersion]]
"""Of a service's schema, newest first, as many as are looked at. Raises DatabaseUnavailable."""


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

    def errors(self, stored: JsonObject, most: int | None = MOST_ERRORS) -> list[FieldError]:
        """What is wrong with these values once defaults are filled in. Pointers begin at the values. most: of
        them, and how many more; None: all."""
        ...

    def effective(self, stored: JsonObject) -> Effective:
        """Stored values over defaults."""
        ...

    def check_secret(self, name: str, value: str) -> None:
        """Raises InvalidValues (pointer /name or /value), which never contains the value."""
        ...


class Shapes:
    """Which shape of a service is active, and what its instances were built with. A service without a shape takes any
    JSON object."""

    def __init__(self, catalogue: Catalogue, versions: Versions = lambda _service: ()) -> None:
        self.catalogue = catalogue
        self.versions = versions
        self._compiled: dict[str, CompiledSchema] = {}
        self.chains: dict[tuple[str, str, str], tuple[CompiledSchema, ...]] = {}
        """the way from one schema to another, worked out once (`storage.decisions.variants`)"""
        self._of_instances: tuple[object, Mapping[str, Mapping[str, JsonObject]]] = (None, {})

    def of(self, committed: Committed, service: str) -> Shape | None:
        """The service's active shape as of this state: what was put or adopted, else the catalogue's model."""
        put = row(committed, service)
        if put is None:
            return self.catalogue.shape(service)
        return self.compiled(put["schema"], put["digest"])

    def schema_of(self, committed: Committed, service: str) -> CompiledSchema | None:
        """The active shape as its schema alone says it, for comparing: see `as_schema`."""
        return self.as_schema(self.of(committed, service))

    def as_schema(self, shape: Shape | None) -> CompiledSchema | None:
        """What a shape's schema alone says; None if it is a model's that says more than a schema may."""
        if shape is None or isinstance(shape, CompiledSchema):
            return shape
        return self.fit(shape.schema, shape.digest)

    def compiled(self, schema: JsonObject, digest: str) -> CompiledSchema:
        """The shape of a schema whose digest is known to be this. Raises SchemaInvalid."""
        known = self._compiled.get(digest)
        if known is None:
            if len(self._compiled) >= _MOST_COMPILED:
                self._compiled.clear()
            known = self._compiled[digest] = CompiledSchema(schema)
        return known

    def fit(self, schema: JsonObject, digest: str) -> CompiledSchema | None:
        """As `compiled`; None if the schema is none that a service can have."""
        try:
            return self.compiled(schema, digest)
        except SchemaInvalid:
            return None

    def of_instances(self, committed: Committed, service: str) -> Mapping[str, JsonObject]:
        """Digest → row of each schema that instances of the service were built with, as far as they are kept."""
        rows = committed.registered(INSTANCE_SCHEMA)
        if not rows:
            return _NONE
        kept, found = self._of_instances
        if kept is not rows:
            by_service: dict[str, dict[str, JsonObject]] = {}
            for key, row in rows.items():
                name, _, digest = key.partition("/")
                by_service.setdefault(name, {})[digest] = row
            found = by_service
            self._of_instances = (rows, found)
        return found.get(service, _NONE)

    def of_instance(self, committed: Committed, service: str, digest: str) -> CompiledSchema | None:
        """The schema with this digest that instances of the service were built with; None if none is kept, or it is
        not what its digest says."""
        row = self.of_instances(committed, service).get(digest)
        if row is None:
            return None
        known = self._compiled.get(digest)
        if known is not None:
            return known
        if schema_digest(row["schema"]) != digest:
            return None
        return self.fit(row["schema"], digest)

    def services(self, committed: Committed) -> frozenset[str]:
        """The services that have a shape as of this state."""
        return frozenset(self.catalogue.services) | committed.registered(SCHEMA).keys()

    def is_known(self, committed: Committed, service: str) -> bool:
        """Whether there is such a service: it has a shape, or somebody has written it and not deleted it."""
        return committed.live(service) is not None or self.of(committed, service) is not None

    def secret_keys(self, committed: Committed, service: str) -> frozenset[str]:
        """The keys of a service that hold secrets: by its shape, or because one was stored."""
        shape, known = self.of(committed, service), committed.services.get(service)
        declared = frozenset[str]() if shape is None else shape.secrets
        return declared if known is None else declared | known.secrets.keys()


def row(committed: Committed, service: str) -> JsonObject | None:
    """What was put or adopted for this service: the row of its active schema."""
    return committed.registered(SCHEMA).get(service)


def unknown(service: str) -> NotFound:
    """The refusal of a service that is not there."""
    return NotFound(f"{service} has no schema, and nobody has written it")


def effective(shape: Shape | None, stored: JsonObject) -> Effective:
    """Stored values over the shape's defaults."""
    return Effective(dict(stored), ()) if shape is None else shape.effective(stored)
