"""Schemas over REST: what a service's values look like, version by version."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
import trio
from pydantic import Field, WithJsonSchema

from config_manager.api.rest.limits import MOST_BYTES_OF_A_PAGE
from config_manager.api.rest.models import (
    NAME,
    Answer,
    By,
    CorrelationId,
    Name,
    Time,
    about,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE, Query, number
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.config.catalogue import schema_digest
from config_manager.config.errors import NotFound
from config_manager.config.names import ServiceName, parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_changes import (
    active_version,
)
from config_manager.storage.decisions.schema_comparison import compare
from config_manager.storage.decisions.schema_outlook import LiveInstance
from config_manager.storage.decisions.shapes import row
from config_manager.storage.state import Committed, SchemaSource, SchemaVersion

T = TypeVar("T")

_PAGE = 50
_MOST = 500
_DIGEST = re.compile(r"[0-9a-f]{64}")
DIGEST: JsonObject = {"type": "string", "pattern": "^[0-9a-f]{64}$"}

_COMPARING = trio.CapacityLimiter(2)
"""Comparisons at once: each may take a second of a core."""


# ── what it looks like ─────────────────────────────────────────────────────────────────────────

JsonSchema = Annotated[dict[str, Any], WithJsonSchema({"$ref": "#/components/schemas/JsonSchema"})]
SchemaNumber = Annotated[int, about("the version's number, counted for this service")]
SchemaDigest = Annotated[str, about("SHA-256, in hex, of the schema as JSON with sorted keys")]
SchemaOrigin = Annotated[
    SchemaSource,
    about("put: somebody put it; catalogue: it comes with the server; instance: an instance's own"),
]
_Active = Annotated[bool, about("whether writes are checked by it now")]


class _Version(Answer):
    service: Name
    version: SchemaNumber
    digest: SchemaDigest
    source: SchemaOrigin
    at: Annotated[Time | None, about("when it was made; null: with the server")]
    by: By
    reason: Annotated[str | None, about("why, if somebody said so")]


class SchemaEntry(_Version):
    """The active schema of a service."""


class SchemaList(Answer):
    """The active schema of every service that has one and that the token is for."""

    schemas: list[SchemaEntry]
    next_after: Annotated[str | None, about("`after` of the next page; null: this is the last")]


class InstanceSchema(Answer):
    """A schema that instances say they were built with."""

    digest: SchemaDigest
    instances: Annotated[list[str], about("those that run now and say so")]
    candidate: Annotated[bool, about("whether it could be adopted: another one is active")]
    first_seen: Time
    last_seen: Time


class SchemaAnswer(_Version):
    """A version of a service's schema."""

    active: _Active
    schema_: Annotated[dict[str, Any], Field(alias="schema", description="as it was put")]
    instance_schemas: Annotated[
        Sequence[InstanceSchema], about("what the service's instances were built with")
    ] = ()


class DifferenceAnswer(Answer):
    """One difference between two schemas, and for whom it breaks something.

    `stored`: values that are stored. `new_code`: instances with the new schema, which read what was written under
    the old one. `old_code`: the other way round.
    """

    change: Annotated[str, about("such as `key added`, `narrowed`, `renamed`")]
    pointer: Annotated[str, about("the key; empty for a rule over several")]
    stored: Literal["ok", "changes", "breaks"]
    new_code: Literal["ok", "changes", "breaks"]
    old_code: Literal["ok", "changes", "breaks"]
    proof: Annotated[Literal["proved", "not proved"], about("not proved: it counts as breaking")]
    example: Annotated[Any, about("a value that shows it")] = None
    was: Annotated[str, about("the key's earlier name")] = ""


class InstanceSchemas(Answer):
    """What the instances of a service were built with."""

    service: Name
    instance_schemas: list[InstanceSchema]


class SchemaDiff(Answer):
    """What is different between two versions of a service's schema."""

    service: Name
    from_: Annotated[int, Field(alias="from", description="the older version's number")]
    to: SchemaNumber
    differences: list[DifferenceAnswer]


class VersionEntry(_Version):
    """A version of a service's schema, without the schema."""

    correlation_id: CorrelationId
    revision: Annotated[int, about("the newest one when it was made")]
    active: _Active
    differences: Annotated[
        list[DifferenceAnswer] | None,
        about("from what was active before; null: nothing was, or it is not known"),
    ]


class SchemaHistory(Answer):
    """A page of the versions of a service's schema."""

    service: Name
    versions: Annotated[list[VersionEntry], about("newest first")]
    next_before: Annotated[int | None, about("`before` of the next page; null: this is the last")]


def parse_digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("expected 64 of 0-9 and a-f")
    return value


# ── reading ────────────────────────────────────────────────────────────────────────────────────

_LIMIT = number("limit", f"entries; {_PAGE}", least=1, most=_MOST)
_AFTER = Query("after", "`next_after` of the page before", NAME, parse_service)
_BEFORE = number("before", "versions below this one")
_FROM = number("from", "the older version; the one before `to`", least=1)
_TO = number("to", "the newer version; the active one", least=1)
_VERSION = number("version", "this version, not the active one", least=1)
_OF_DIGEST = Query("digest", "the version with this digest", DIGEST, parse_digest)


@operation(
    "The active schema of each service",
    answers={200: SchemaList},
    problems=(503, 504),
    takes=(_LIMIT, _AFTER),
    description="By service. A service without one takes any values.",
)
async def list_schemas(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    limit, after = _LIMIT.of(request) or _PAGE, _AFTER.of(request) or ""
    committed = api.system.view.committed
    names = sorted(
        name
        for name in api.system.shapes.services(committed)
        if request.grant.covers(name) and name > after
    )
    newest = await api.system.reading.newest_schemas(request.context)
    shown = names[:limit]
    of_service: dict[str, list[SchemaVersion]] = {}
    for one in newest:
        of_service.setdefault(one.service, []).append(one)
    entries = [
        SchemaEntry.of(_active(api, committed, name, of_service.get(name, []))) for name in shown
    ]
    next_after = shown[-1] if len(names) > limit else None
    return json_response(SchemaList(schemas=entries, next_after=next_after))


@operation(
    "A service's schema: the active one, or one of its versions",
    answers={200: SchemaAnswer},
    problems=(404, 503, 504),
    takes=(_VERSION, _OF_DIGEST),
)
async def get_schema(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    number, digest = _VERSION.of(request), _OF_DIGEST.of(request)
    committed, which = api.system.view.committed, number or digest
    active = await _active_of(request, api, committed, service)
    found = active
    if which is not None and (active is None or which not in (active.version, active.digest)):
        found = await api.system.reading.schema_version(service, which, request.context)
    if found is None or digest not in (None, found.digest):
        what = "no schema" if which is None else f"no schema {which}"
        if number is not None and digest is not None:
            what += f" with the digest {digest}"
        what_to_do = f"PUT one, or look at /api/v1/schemas/{service}/history"
        built_with = [one["digest"] for one in _instance_schemas(api, committed, service)]
        if which is None and built_with:
            what_to_do = (
                f"PUT one, or adopt what its instances were built with: {', '.join(built_with)}"
            )
        raise NotFound(f"{service} has {what}; {what_to_do}")
    answer = {
        **SchemaEntry.of(found).model_dump(),
        "active": active is not None and found.version == active.version,
        "schema": orjson.loads(found.schema),
        "instance_schemas": _instance_schemas(api, committed, service),
    }
    return json_response(answer)


@operation(
    "The versions of a service's schema, newest first, at most 4 MiB of schemas at once",
    answers={200: SchemaHistory},
    problems=(404, 503, 504),
    takes=(_LIMIT, _BEFORE),
    description="Page on with `before=` the answer's `next_before`, until it is null. Versions never change, and "
    "stay when another is active.",
)
async def schema_history(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    before = _BEFORE.of(request)
    committed = api.system.view.committed
    versions = await api.system.reading.schema_versions(
        service,
        request.context,
        before=before,
        limit=_LIMIT.of(request) or _PAGE,
        most_bytes=MOST_BYTES_OF_A_PAGE,
    )
    if not versions and before is None:
        raise NotFound(f"{service} never had a schema")
    active = await _active_of(request, api, committed, service)
    number = None if active is None else active.version
    entries = [
        {
            **one._asdict(),
            "active": one.version == number,
            "differences": None if one.differences is None else orjson.loads(one.differences),
        }
        for one in versions
    ]
    for entry in entries:
        del entry["schema"]
    more = bool(versions) and versions[-1].version > 1
    next_before = versions[-1].version if more else None
    return json_response({"service": service, "versions": entries, "next_before": next_before})


@operation(
    "What is different between two versions of a service's schema, and for whom that breaks something",
    answers={200: SchemaDiff},
    problems=(404, 503, 504),
    takes=(_FROM, _TO),
)
async def schema_diff(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    new = await _version_of(request, api, service, _TO.of(request))
    old = await _version_of(request, api, service, _FROM.of(request) or new.version - 1)

    def compared() -> list[JsonObject]:
        schemas = [CompiledSchema(orjson.loads(one.schema)) for one in (old, new)]
        return [one.to_json() for one in compare(*schemas)]

    differences = await comparing(request, compared)
    return json_response(
        {"service": service, "from": old.version, "to": new.version, "differences": differences}
    )


@operation(
    "The schemas that a service's instances were built with, as they say",
    answers={200: InstanceSchemas},
    description="A candidate is made the service's schema by `POST …/adopt`.",
)
async def instance_schemas(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    known = _instance_schemas(api, api.system.view.committed, service)
    return json_response({"service": service, "instance_schemas": known})


async def comparing(request: ApiRequest, compare: Callable[[], T]) -> T:
    """In a thread, because a comparison may take a second. Raises what it raises, and TooSlowError."""
    with trio.fail_at(request.context.deadline):
        return await trio.to_thread.run_sync(compare, limiter=_COMPARING)


async def _version_of(
    request: ApiRequest, api: Api, service: ServiceName, number: int | None
) -> SchemaVersion:
    """number: None is the active one. Raises NotFound, Refusal, TooSlowError."""
    found = (
        await _active_of(request, api, api.system.view.committed, service)
        if number is None
        else await api.system.reading.schema_version(service, number, request.context)
    )
    if found is None:
        raise NotFound(
            f"{service} has no {'active schema' if number is None else f'schema {number}'}"
        )
    return found


async def _active_of(
    request: ApiRequest, api: Api, committed: Committed, service: ServiceName
) -> SchemaVersion | None:
    """The active version of a service; None if it has no schema. Raises Refusal, TooSlowError."""
    if api.system.shapes.of(committed, service) is None:
        return None
    newest = await api.system.reading.newest_schemas(request.context, service)
    return _active(api, committed, service, newest)


def _active(
    api: Api, committed: Committed, service: str, newest: Sequence[SchemaVersion]
) -> SchemaVersion:
    """newest: of the service's schema from each source."""
    number = active_version(committed, service, newest)
    for one in newest:
        if one.version == number:
            return one
    # the row of a registry that came from a backup or the cache
    put = row(committed, service) or {}
    shape = api.system.shapes.of(committed, service)
    assert shape is not None
    return SchemaVersion(
        service,
        number or 0,
        shape.digest,
        orjson.dumps(shape.schema).decode(),
        put.get("at", ""),
        put.get("source", "catalogue"),
        put.get("by", ""),
        put.get("reason"),
    )


def _instance_schemas(api: Api, committed: Committed, service: str) -> list[JsonObject]:
    """Those that are kept, and those of instances that never enrolled: brokers hold them, and we remember them."""
    shape = api.system.shapes.of(committed, service)
    running: dict[str, list[str]] = {}
    for one in live(api, service):
        running.setdefault(one.schema, []).append(one.instance)
    kept = api.system.shapes.of_instances(committed, service)
    seen = {digest: (row["first_seen"], row["last_seen"]) for digest, row in kept.items()}
    now = rfc3339(api.system.world.clock.now())
    for digest, heard in api.system.schemas.candidates(service).items():
        seen.setdefault(digest, (rfc3339(heard.at), now))
    return [
        {
            "digest": digest,
            "instances": running.get(digest, []),
            "candidate": shape is None or shape.digest != digest,
            "first_seen": first_seen,
            "last_seen": last_seen,
        }
        for digest, (first_seen, last_seen) in seen.items()
    ]


def instance_schema(api: Api, service: str, digest: str) -> JsonObject | None:
    """The schema with this digest that an instance was built with, kept or only heard."""
    kept = api.system.shapes.of_instances(api.system.view.committed, service).get(digest)
    if kept is not None:
        return kept["schema"] if schema_digest(kept["schema"]) == digest else None
    heard = api.system.schemas.candidates(service).get(digest)
    if heard is None:
        return None
    try:
        return heard.parsed()
    except ValueError:
        return None


def live(api: Api, service: str) -> list[LiveInstance]:
    """The instances of a service that are there now, and what each says it was built with."""
    return api.system.statuses.live(service)
