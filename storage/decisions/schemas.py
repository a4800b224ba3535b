"""The versions of a service's JSON Schema: a new one whenever its model says something else. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from config_manager.config.catalogue import Catalogue, schema_text
from config_manager.config.wire import digest
from config_manager.storage.state import SchemaVersion


def new_versions(
    newest: Iterable[SchemaVersion], catalogue: Catalogue, at: str
) -> list[SchemaVersion]:
    """The versions to keep beside those that are kept. newest: of each service. at: RFC 3339.

    A service that left the catalogue keeps its last version, and goes on counting if it comes back.
    """
    known = {one.service: one for one in newest}
    versions: list[SchemaVersion] = []
    for service in catalogue.services:
        shape = catalogue.shape(service)
        assert shape is not None
        text = schema_text(shape.schema)
        before = known.get(service)
        if before is None or before.digest != digest(text):
            number = 1 if before is None else before.version + 1
            versions.append(SchemaVersion(service, number, digest(text), text.decode(), at))
    return versions
