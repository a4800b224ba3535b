"""What code is given that was built with another schema than the active one: variants, and what it makes of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson

from config_manager.config import strict_json
from config_manager.config.catalogue import Effective
from config_manager.config.documents.config_update import (
    MAX_VARIANT_DEPTH,
    MAX_VARIANTS,
    ConfigUpdate,
    Variant,
)
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions import migrating
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.shapes import Shape, Shapes
from config_manager.storage.state import Committed, ServiceState

REMEMBERED_S = 30 * 24 * 3600.0
"""How long the schema of an instance counts that is not heard any more."""
_MOST_CHAINS = 5_000
_SAYS_VARIANTS = b'"variants":'


def variants(
    shapes: Shapes,
    before: Committed,
    shape: Shape | None,
    service: str,
    stored: JsonObject,
    delivered: Effective,
    *,
    now: float,
) -> tuple[Variant, ...]:
    """For the schemas of instances that do not take these values as they are: values that they do take.

    shape: the active one. stored: its values, without secrets. delivered: what everyone else gets. A schema that can't be
    brought to take any has none; of more than 8 those count that were seen last. now: Unix seconds.
    """
    found = _for_each(shapes, before, shape, service, stored, delivered, now=now)
    return tuple(_together(found))


def missing(
    shapes: Shapes, before: Committed, state: ServiceState, *, now: float
) -> tuple[Variant, ...] | None:
    """The variants of a service's current message, and those that it lacks; None if it lacks none. What instances
    are given already stays as it is. now: Unix seconds."""
    said = ConfigUpdate.parse(state.payload)
    named = {digest for one in said.variants for digest in one.schemas}
    delivered = Effective(state.effective, state.defaulted)
    shape = shapes.of(before, state.service)
    rows = shapes.of_instances(before, state.service)
    stale = {digest for digest in named if digest not in rows or not _counts(rows[digest], now)}
    added = {
        digest: made
        for digest, made in _for_each(
            shapes, before, shape, state.service, state.stored, delivered, now=now
        )
        if digest not in named
    }
    if not added:
        return None
    kept = [
        (digest, Effective(one.config, one.defaulted))
        for one in said.variants
        for digest in one.schemas
        if digest not in stale
    ]
    wanted = tuple(_together([*kept, *added.items()]))
    return None if wanted == said.variants else wanted


def given(state: ServiceState, digest: str) -> Effective:
    """What this message gives code that was built with the schema of this digest."""
    if _SAYS_VARIANTS in state.payload:
        for one in ConfigUpdate.parse(state.payload).variants:
            if digest in one.schemas:
                return Effective(one.config, one.defaulted)
    return Effective(state.effective, state.defaulted)


def best(
    shapes: Shapes,
    before: Committed,
    shape: Shape | None,
    service: str,
    stored: JsonObject,
    own: CompiledSchema,
) -> Effective | None:
    """What code that was built with `own` could be given of these values; None if it can't be brought to take any.
    shape: the active one."""
    active = shapes.as_schema(shape)
    if active is None:
        return migrating.variant(stored, [own], own)
    return migrating.variant(stored, _chain(shapes, before, service, active, own), own)


def _for_each(
    shapes: Shapes,
    before: Committed,
    shape: Shape | None,
    service: str,
    stored: JsonObject,
    delivered: Effective,
    *,
    now: float,
) -> Iterator[tuple[str, Effective]]:
    """(digest, values) of those that do not read what is meant and can be given it; those that were seen last come
    first."""
    rows = shapes.of_instances(before, service)
    for digest in sorted(rows, key=lambda one: rows[one]["last_seen"], reverse=True):
        if not _counts(rows[digest], now):
            return
        own = shapes.of_instance(before, service, digest)
        if own is None or (shape is not None and shape.digest == digest and own.reads(delivered)):
            continue
        made = best(shapes, before, shape, service, stored, own)
        if made is None or (own.reads(delivered) and _known(made, own) == _known(delivered, own)):
            continue
        if _nests_no_deeper(made.config):
            yield digest, made


def _known(values: Effective, own: CompiledSchema) -> JsonObject:
    """What code with this schema has of them. Open code takes a new name or unit without a word, and misses it."""
    return {key: value for key, value in values.given.items() if key in own.properties}


def _counts(row: JsonObject, now: float) -> bool:
    return now - parse_rfc3339(row["last_seen"]) < REMEMBERED_S


def _together(found: Iterable[tuple[str, Effective]]) -> Iterator[Variant]:
    """Equal values share one variant; the first 8."""
    shared: dict[bytes, tuple[Effective, list[str]]] = {}
    for digest, values in found:
        key = orjson.dumps([values.config, values.defaulted], option=orjson.OPT_SORT_KEYS)
        if key in shared or len(shared) < MAX_VARIANTS:
            shared.setdefault(key, (values, []))[1].append(digest)
    for values, digests in shared.values():
        yield Variant(tuple(digests), values.config, values.defaulted)


def _nests_no_deeper(config: JsonObject) -> bool:
    return all(_depth(value, MAX_VARIANT_DEPTH - 1) for value in config.values())


def _depth(value: object, left: int) -> bool:
    if strict_json.is_object(value):
        return left > 0 and all(_depth(one, left - 1) for one in value.values())
    if strict_json.is_list(value):
        return left > 0 and all(_depth(one, left - 1) for one in value)
    return True


# ── the way from one schema to another ─────────────────────────────────────────────────────────


def _chain(
    shapes: Shapes, before: Committed, service: str, active: CompiledSchema, own: CompiledSchema
) -> Sequence[CompiledSchema]:
    """The active schema first, then older versions down to the one that `own` is near."""
    key = (service, active.digest, own.digest)
    found = shapes.chains.get(key)
    if found is None:
        if len(shapes.chains) >= _MOST_CHAINS:
            shapes.chains.clear()
        found = shapes.chains[key] = _way(_older(shapes, before, service, active), active, own)
    return found


def _way(
    older: Sequence[CompiledSchema], active: CompiledSchema, own: CompiledSchema
) -> tuple[CompiledSchema, ...]:
    versions = [active, *older]
    digests = [one.digest for one in versions]
    if own.digest in digests:
        return tuple(versions[: max(1, digests.index(own.digest))])
    nearness = [_nearness(one, own) for one in versions]
    return tuple(versions[: nearness.index(max(nearness)) + 1])


def _nearness(one: CompiledSchema, other: CompiledSchema) -> int:
    """Keys that both have, less those that only one has."""
    return 3 * len(one.properties.keys() & other.properties.keys()) - len(
        one.properties.keys() | other.properties.keys()
    )


def _older(
    shapes: Shapes, before: Committed, service: str, active: CompiledSchema
) -> list[CompiledSchema]:
    """The versions before the active one, newest first. What was active in `before` is one of them, if it is
    another."""
    found: dict[str, CompiledSchema] = {}
    kept = list(shapes.versions(service))
    digests = [one.digest for one in kept]
    # what is newer than the active one was taken out of use
    at = digests.index(active.digest) + 1 if active.digest in digests else 0
    for one in kept[at:]:
        schema = shapes.fit(orjson.loads(one.schema), one.digest)
        if schema is not None:
            found.setdefault(one.digest, schema)
    was = shapes.schema_of(before, service)
    if was is not None and was.digest != active.digest and was.digest not in found:
        return [was, *found.values()]
    return list(found.values())
