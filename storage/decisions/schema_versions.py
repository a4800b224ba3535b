"""The versions of a service's JSON Schema: which come with the server, and which counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from config_manager.config.catalogue import Catalogue, ModelShape, schema_text
from config_manager.config.errors import SchemaInvalid
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_comparison import compare
from config_manager.storage.state import SchemaActivation, SchemaVersion


class AtStart(NamedTuple):
    """What a start keeps of the catalogue's models."""

    versions: list[SchemaVersion]
    activations: list[SchemaActivation]


def at_start(
    newest: Iterable[SchemaVersion],
    active: Iterable[SchemaActivation],
    catalogue: Catalogue,
    at: str,
    revision: int,
) -> AtStart:
    """newest: of each service and source. active: the newest activation of each service. at: RFC 3339.
    revision: the newest one.

    A model that says something else than before is a new version. It counts where nobody has put or adopted
    another. A service that left the catalogue keeps its versions, and goes on counting if it comes back.
    """
    known: dict[str, dict[int, SchemaVersion]] = {}
    for one in newest:
        known.setdefault(one.service, {})[one.version] = one
    counts = {one.service: one.version for one in active}
    done = AtStart([], [])
    for service in dict.fromkeys((*catalogue.services, *counts)):
        versions, shape = known.get(service, {}), catalogue.shape(service)
        mine = [one for one in versions.values() if one.source == "catalogue"]
        before = mine[-1] if mine else None
        number = None if before is None else before.version
        if shape is None:
            number = None
        elif before is None or before.digest != shape.digest:
            number = max(versions, default=0) + 1
            made = SchemaVersion(
                service,
                number,
                shape.digest,
                schema_text(shape.schema).decode(),
                at,
                revision=revision,
                differences=None if before is None else _differences(before, shape),
            )
            done.versions.append(made)
        now = counts.get(service)
        overruled = now is not None and (now not in versions or versions[now].source != "catalogue")
        if now != number and not overruled:
            done.activations.append(SchemaActivation(service, revision + 1, number))
    return done


def _differences(before: SchemaVersion, shape: ModelShape) -> str | None:
    """See `SchemaVersion`; None if one of the two is none that could be put."""
    try:
        old, new = CompiledSchema(orjson.loads(before.schema)), CompiledSchema(shape.schema)
    except SchemaInvalid:
        return None
    return orjson.dumps([one.to_json() for one in compare(old, new)]).decode()
