"""Schemas over REST: made active, with what each would break, and taken out of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from config_manager.actors.messages import Write
from config_manager.api.resources.schemas import (
    DIGEST,
    DifferenceAnswer,
    JsonSchema,
    SchemaDigest,
    SchemaNumber,
    SchemaOrigin,
    comparing,
    instance_schema,
    live,
    parse_digest,
)
from config_manager.api.rest.forecasts import forecast_of
from config_manager.api.rest.models import (
    KEY,
    Answer,
    Body,
    Name,
    Reader,
    about,
    read,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE, Query, flag
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    ADMINISTRATION,
    WRITE,
    ReasonInBody,
    WarningAnswer,
    WriteAnswer,
    WriteTerms,
    administer,
    propagation,
    write_terms_of,
)
from config_manager.config.errors import Conflict, NotFound, Refusal
from config_manager.config.names import ServiceName, is_key
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.changes import Occasion, Revision
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.rollback import Refused
from config_manager.storage.decisions.schema_changes import (
    DeleteSchema,
    PutSchema,
)
from config_manager.storage.decisions.schema_outlook import (
    Outlook,
    basis,
    outlook,
)
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import SchemaSource, changed_keys

_TRIES = 3


class StoredBreak(Answer):
    """Something stored that the schema does not take."""

    layer: Annotated[str, about("where it is stored: base")]
    service: Name
    key: str
    pointer: Annotated[str, about("RFC 6901, into the values")]
    why: str


class InstanceBreak(Answer):
    """An instance that would turn down what is effective then."""

    service: Name
    instance: Name
    enrolled: Annotated[bool, about("if not, it is only a claim")]
    why: str


class Breaks(Answer):
    """What is there and breaks."""

    stored: list[StoredBreak]
    instances: list[InstanceBreak]


class RefusedAs(Answer):
    """The refusal of the same request without `dry_run`."""

    type: Annotated[str, about("the problem's name")]
    detail: str


class _Put(Answer):
    service: Name
    version: Annotated[int | None, about("of a dry run: the number that it would get")]
    digest: SchemaDigest
    differences: Annotated[
        list[DifferenceAnswer], about("from what was active; none if nothing was")
    ]
    breaks: Breaks
    migrated: Annotated[list[Name], about("the services whose stored values were changed with it")]
    revision: Annotated[int, about("the newest one: a new one if stored values were changed")]
    lossy: Annotated[
        Sequence[WarningAnswer], about("values that can't be told apart afterwards")
    ] = ()
    unchanged: Annotated[bool, about("true: this schema is active already")] = False
    refused: Annotated[
        RefusedAs | None, about("of a dry run: how it would be refused; left out if not")
    ] = None


class SchemaPut(WriteAnswer, _Put):
    """A schema is active, or of a dry run would be."""


class SchemaDeleted(Answer):
    """The schema that was put is out of use. What is active now; nulls: nothing is."""

    service: Name
    version: SchemaNumber | None
    digest: SchemaDigest | None
    source: SchemaOrigin | None
    revision: Annotated[int, about("the newest one; it is as before")]


class AdoptRequest(Body):
    """Which instances' schema shall be the service's."""

    REFUSED: ClassVar[str] = "that names no schema; nothing was changed"

    digest: Annotated[
        str,
        Reader(parse_digest, {**DIGEST, "description": "of the schema, as instances say it"}),
    ]
    reason: ReasonInBody = None


# ── changing ───────────────────────────────────────────────────────────────────────────────────


def _parse_keys(text: str) -> tuple[str, ...]:
    keys = text.split(",")
    if not all(map(is_key, keys)):
        raise ValueError("expected keys with commas between")
    return tuple(dict.fromkeys(keys))


ALLOW_BREAKING = flag(
    "allow_breaking", "make it active although it breaks something; with a `reason`"
)
ALLOW_LOSSY = flag("allow_lossy", "let values be lost that `x-was` does not keep apart")
_DROP = Query(
    "drop",
    "keys with commas between: what is stored there goes",
    {"type": "string", "pattern": f"^{KEY['pattern'][1:-1]}(,{KEY['pattern'][1:-1]})*$"},
    _parse_keys,
)
_CHANGING = (ALLOW_BREAKING, ALLOW_LOSSY, _DROP, *WRITE)
_HOW = (
    "409 `schema-breaking` if it breaks stored values, code that is built with it, or an instance that runs; "
    "`differences` and `breaks` say what. Stored values are moved as `x-was` says, in the same transaction. If "
    "none changes there is no revision, and what is published stays. 200 if it is active already, and of a dry run, "
    "which answers all of it and changes nothing."
)


@operation(
    "Make a schema the active one of a service",
    answers={200: SchemaPut, 201: SchemaPut},
    problems=(409, 503, 504),
    takes=_CHANGING,
    body=JsonSchema,
    description=_HOW,
)
async def put_schema(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    schema = request.json_object()
    write_terms = write_terms_of(request)
    return await _put(request, api, service, schema, write_terms, "put")


@operation(
    "Make a schema that instances were built with the active one of their service",
    answers={200: SchemaPut, 201: SchemaPut},
    problems=(404, 409, 503, 504),
    takes=_CHANGING,
    body=AdoptRequest,
    description=f"As PUT of that schema. {_HOW}",
)
async def adopt_schema(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    body = read(request, AdoptRequest)
    write_terms = write_terms_of(request).because(body.reason)
    schema = instance_schema(api, service, body.digest)
    return await _put(request, api, service, schema, write_terms, "instance")


@operation(
    "Take the schema that was put out of use",
    answers={200: SchemaDeleted},
    problems=(404,),
    takes=ADMINISTRATION,
    description="What the catalogue or an instance had newest is active again, else none is. Every version stays, "
    "and so do stored values.",
)
async def delete_schema(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    answer = await administer(request, api, DeleteSchema(service=service))
    return json_response(answer)


async def _put(
    request: ApiRequest,
    api: Api,
    service: ServiceName,
    schema: JsonObject | None,
    write_terms: WriteTerms,
    source: SchemaSource,
) -> ApiResponse:
    """schema: None if no instance was heard with it."""
    terms = write_terms.terms
    try:
        if schema is None:
            raise NotFound(
                f"no instance of {service} was heard with this schema; GET /api/v1/schemas/{service} lists "
                "those that were"
            )
        what, answer = await _decided(request, api, service, schema, terms, source)
    except Refusal as error:
        if terms.idempotency is None or terms.dry_run:
            raise
        # the repetition of what was done is answered all the same
        answer = await api.system.storing.ask(Write(Refused(error), terms), request.context)
    else:
        if terms.dry_run:
            return json_response({**answer, **_forecast(request, api, what), "dry_run": True})
    told: JsonObject = {}
    if answer["migrated"]:
        revisions = [(service, answer["revision"])]
        told["propagation"] = await propagation(api, revisions, write_terms)
    return json_response({**answer, **told}, 200 if "unchanged" in answer else 201)


async def _decided(
    request: ApiRequest,
    api: Api,
    service: ServiceName,
    schema: JsonObject,
    terms: Terms,
    source: SchemaSource,
) -> tuple[PutSchema, JsonObject]:
    """Compared anew if somebody writes the service meanwhile."""
    drop, tries = _DROP.of(request) or (), _TRIES
    while True:
        shape, then = await _compared(request, api, service, schema, drop)
        what = PutSchema(
            service=service,
            shape=shape,
            outlook=then,
            source=source,
            allow_breaking=bool(ALLOW_BREAKING.of(request)),
            allow_lossy=bool(ALLOW_LOSSY.of(request)),
            drop=drop,
            only_compare=terms.dry_run,
        )
        try:
            return what, await api.system.storing.ask(Write(what, terms), request.context)
        except Conflict:
            tries -= 1
            if (
                not tries
                or basis(api.system.view.committed, api.system.shapes, service) == then.basis
            ):
                raise


def _forecast(request: ApiRequest, api: Api, what: PutSchema) -> JsonObject:
    """What would change of stored values, and what instances would make of it."""
    before, values = api.system.view.committed, what.outlook.values
    live = before.live(what.service)
    if values is None or live is None or not changed_keys(live.stored, values):
        return {"changes": [], "effective": [], "instances": []}  # no revision
    on = Occasion(
        request.by, None, api.system.world.clock.now(), correlation_id=request.correlation_id
    )
    revision = Revision(before, on, api.system.shapes, before.epoch, before.revision + 1)
    state = revision.shaped(what.shape, what.service, values)
    told = forecast_of(api, [state], {what.service: what.shape})
    del told["unchanged"]  # says of a schema that it is active already
    return told


async def _compared(
    request: ApiRequest, api: Api, service: str, schema: JsonObject, drop: Sequence[str]
) -> tuple[CompiledSchema, Outlook]:
    """Raises SchemaInvalid, InvalidValues, TooSlowError."""
    committed, shapes, instances = api.system.view.committed, api.system.shapes, live(api, service)

    def compare() -> tuple[CompiledSchema, Outlook]:
        shape = CompiledSchema(schema)
        return shape, outlook(committed, shapes, service, shape, drop=drop, instances=instances)

    return await comparing(request, compare)
