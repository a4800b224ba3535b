"""Configurations over REST: read, list, put, patch, delete, and a new epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, cast

from config_manager.actors.messages import Write
from config_manager.api.resources.past import moment_of, seen_then, shown
from config_manager.api.rest.conditions import (
    CONDITIONS,
    PRECONDITIONS,
    is_known,
    is_other,
    preconditions_of,
)
from config_manager.api.rest.models import (
    NAME,
    Always,
    Answer,
    Body,
    Effective,
    EpochId,
    EpochSeq,
    Name,
    Reader,
    Revision,
    SeveralWrong,
    Time,
    Values,
    Version,
    about,
    read,
)
from config_manager.api.rest.operations import only_refusing, operation
from config_manager.api.rest.parameters import SERVICE, number, one_of, time
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    WRITE,
    ReasonInBody,
    WriteAnswer,
    WriteTerms,
    outcome_of,
    with_outcome,
    write_terms_of,
)
from config_manager.config.errors import FieldError, InvalidName, RevisionConflict
from config_manager.config.names import ServiceName, parse_service, pointer
from config_manager.config.secret import MASK
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import shapes
from config_manager.storage.decisions.intents import Delete, NewEpoch, Patch, Put
from config_manager.storage.state import Committed, ServiceState

MERGE_PATCH = "application/merge-patch+json"


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


_UpdatedAt = Annotated[Time | None, about("null: nobody has written it")]


class _Shown(Answer):
    service: Name
    config: Effective
    defaulted: Annotated[list[str], about("the keys that nobody has set")]


class _Deleted(Answer):
    service: Name
    deleted: Always


class _Stamp(Answer):
    version: Version
    revision: Annotated[int, about("of its newest change; 0: nobody has written it")]
    config_epoch: EpochId
    epoch_seq: EpochSeq
    updated_at: _UpdatedAt
    updated_by: Annotated[
        str | None, about("the name of the token that wrote it; null: nobody has")
    ]


class ConfigAnswer(WriteAnswer, _Stamp, _Shown):
    """A service's configuration; after a write, how that went."""

    unchanged: Annotated[
        Sequence[str], about("of a dry run: the keys that would stay as they are")
    ] = ()


class DeletedAnswer(WriteAnswer, _Stamp, _Deleted):
    """A service's configuration is deleted: a revision of its own."""


class ListEntry(Answer):
    """A service that somebody has written, or that the catalogue has."""

    service: Name
    revision: Annotated[int, about("of its newest change; 0: nobody has written it")]
    version: Version
    updated_at: _UpdatedAt


class ConfigList(Answer):
    """Every service that the token is for."""

    services: list[ListEntry]


def parse_services(value: Any) -> dict[str, JsonObject]:
    """service → an object. Raises as a `Reader` may."""
    if not isinstance(value, dict):
        raise ValueError("expected an object: service → its values")  # noqa: TRY004  a reader's
    services: dict[str, JsonObject] = {}
    wrong: list[FieldError] = []
    for name, values in cast("JsonObject", value).items():
        if isinstance(values, dict):
            services[parse_service(name)] = values
        else:
            wrong.append(FieldError(pointer(name), "expected a JSON object"))
    if wrong:
        raise SeveralWrong(wrong)
    return services


class EpochRequest(Body):
    """What several services shall be from now on, all or none."""

    REFUSED: ClassVar[str] = "the epoch is not as it should be; nothing was written"

    services: Annotated[
        dict[str, JsonObject],
        Reader(
            parse_services,
            {
                "type": "object",
                "propertyNames": NAME,
                "additionalProperties": {"$ref": "#/components/schemas/Values"},
                "minProperties": 1,
                "description": "service → its values, which replace the stored ones",
            },
        ),
    ]
    reason: ReasonInBody = None


class _Epoch(Answer):
    config_epoch: EpochId
    epoch_seq: EpochSeq
    revision: Revision
    services: Annotated[list[Name], about("those that were written")]


class EpochAnswer(WriteAnswer, _Epoch):
    """A new epoch, which is one revision of every service in it."""


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_VIEW = one_of("view", "stored: exactly what PUT takes", "effective", "stored")
_REVISION = number("revision", "as of this revision of the server's; not with `at`")
_AT = time("at", "as of this time; not with `revision`")


@operation(
    "Every service",
    answers={200: ConfigList},
    description="Every service that the token is for: those of the catalogue, and those that somebody has "
    "written. A deleted one of the catalogue is back at revision 0.",
)
async def list_configs(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    committed = api.system.view.committed
    live = {name: state for name, state in committed.services.items() if not state.deleted}
    names = sorted(
        filter(request.grant.covers, live.keys() | api.system.shapes.services(committed))
    )
    entries = [_list_entry(name, live.get(name)) for name in names]
    return json_response(ConfigList(services=entries))


@operation(
    "A service's effective configuration; secrets are masked",
    answers={200: ConfigAnswer, 304: None},
    problems=(404, 412, 422, 503, 504),
    takes=(*CONDITIONS, _VIEW, _REVISION, _AT),
    tagged=True,
    description="The values as the service runs them: defaults are filled in, and `defaulted` names them. A "
    "service that has a schema and that nobody has written is 200 with revision 0.\n\n"
    "With `revision` or `at` it is what was answered then: 404 `not-there-then` if there was no such service. A "
    "value whose key has become a secret since is masked.\n\n"
    "The `ETag` is the revision: send it in `If-None-Match` to be answered 304 while nothing has changed, "
    "and in `If-Match` of the next write so that nobody else's is lost.",
)
async def get_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    committed = api.system.view.committed
    if request.raw_query:
        request.allow_query()
        is_stored, then = _VIEW.of(request) == "stored", moment_of(request, _REVISION, _AT)
        if then is not None:
            seen = await seen_then(request, api, service, then)
            response = tagged(shown(seen, service, stored=is_stored))
            return _unless_known(request, service, response, seen.revision)
        if is_stored:
            response = tagged(_existing(api, committed, service, stored=True))
            return _unless_known(request, service, response, _revision_of(committed, service))
    # the answer for a service without values (never written, or deleted) depends on the epoch
    key, schema = committed.live(service) or committed.epoch, shapes.row(committed, service)
    cached = api.bodies.get(service)
    if cached is not None and cached[0] is key and cached[1] is schema:
        return _unless_known(request, service, cached[2], _revision_of(committed, service))
    response = tagged(_existing(api, committed, service))
    api.bodies[service] = (key, schema, response)
    return _unless_known(request, service, response, _revision_of(committed, service))


@operation(
    "Replace a service's stored values",
    answers={200: ConfigAnswer, 201: ConfigAnswer},
    problems=(412,),
    takes=(*PRECONDITIONS, *WRITE),
    body=Values,
    tagged=True,
    description="The body is the whole of what is stored from now on; what is left out has its default. 201 if "
    "there was nothing. Every accepted write is a revision, even if nothing changes.\n\n"
    "A secret key that is left out, or holds the mask `********`, stays as it is. Any other value there "
    "is 422 `use-secrets`.",
)
async def put_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    values = request.json_object()
    write_terms = write_terms_of(request)
    put = Put(service=service, values=values, preconditions=preconditions_of(request))
    return await _write(request, api, put, write_terms)


@operation(
    "Merge into a service's stored values (RFC 7396)",
    answers={200: ConfigAnswer, 201: ConfigAnswer},
    problems=(404, 412),
    takes=(*PRECONDITIONS, *WRITE),
    body=Values,
    media_type=MERGE_PATCH,
    tagged=True,
    description="A member of the body is set, `null` removes it (its default is back), an object is merged. "
    "Everything else stays.",
)
async def patch_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    patch = request.json_object(MERGE_PATCH)
    write_terms = write_terms_of(request)
    merge = Patch(service=service, patch=patch, preconditions=preconditions_of(request))
    return await _write(request, api, merge, write_terms)


@operation(
    "Delete a service's configuration; its history stays",
    answers={200: DeletedAnswer},
    problems=(404, 412, 415),
    takes=(*PRECONDITIONS, *WRITE),
    description="A revision of its own, published as a signed tombstone. Instances keep running what they run. "
    "Afterwards a service of the catalogue has its defaults, and any other is 404.",
)
async def delete_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    write_terms = write_terms_of(request)
    delete = Delete(service=service, preconditions=preconditions_of(request))
    written = await api.system.storing.ask(Write(delete, write_terms.terms), request.context)
    state = written.state
    answer = DeletedAnswer.of(
        state, deleted=True, config_epoch=state.epoch.id, epoch_seq=state.epoch.seq
    )
    return json_response(await with_outcome(answer, api, [state], write_terms, written.changes))


@operation(
    "Change several services at once, all or none, in a new epoch",
    answers={200: EpochAnswer},
    problems=(412,),
    takes=WRITE,
    body=EpochRequest,
    description="One transaction, one revision, a new epoch. If one service's values are refused, nothing is "
    "written. The token must be for every service that is named.",
)
async def new_epoch(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, EpochRequest)
    for service in body.services:
        request.grant.require("write", service)
    write_terms = write_terms_of(request).because(body.reason)
    epoch = NewEpoch(services=body.services)
    written = await api.system.storing.ask(Write(epoch, write_terms.terms), request.context)
    answer = EpochAnswer.of(written, services=[state.service for state in written.services])
    shown = await with_outcome(
        answer, api, written.services, write_terms, warnings=written.warnings
    )
    return json_response(shown)


async def _write(
    request: ApiRequest, api: Api, what: Put | Patch, write_terms: WriteTerms
) -> ApiResponse:
    written = await api.system.storing.ask(Write(what, write_terms.terms), request.context)
    state = written.state
    answer = view(api, state.service, state)
    answer |= await outcome_of(api, [state], write_terms, written.changes, written.warnings)
    if write_terms.terms.dry_run:
        return json_response(answer)
    return tagged(answer, 201 if written.first else 200)


# ── what is shown ──────────────────────────────────────────────────────────────────────────────

# A `ConfigAnswer` is made as a dictionary, because a model would cost each PUT 30 µs.
# tests/api/rest/test_models.py holds it to the model.


def _existing(
    api: Api, committed: Committed, service: ServiceName, *, stored: bool = False
) -> JsonObject:
    state = committed.live(service)
    if not api.system.shapes.is_known(committed, service):
        raise shapes.unknown(service)
    answer = view(api, service, state)
    if stored:
        answer |= {"config": state.stored if state else {}, "defaulted": []}
    return answer


def view(api: Api, service: str, state: ServiceState | None) -> JsonObject:
    """A service as GET shows it: effective values, secrets masked."""
    shape = api.system.shapes.of(api.system.view.committed, service)
    if state is None:
        effective, defaulted = shapes.effective(shape, {})
        epoch, secrets = api.system.view.committed.epoch, dict[str, int]()
    else:
        effective, defaulted, epoch = state.effective, state.defaulted, state.epoch
        secrets = dict(state.secrets)
    declared = shape.secrets if shape is not None else frozenset[str]()
    masked = dict.fromkeys(sorted({*declared, *secrets}), MASK)
    unset = [name for name in sorted(declared) if name not in secrets]
    return {
        "service": service,
        "config": {**effective, **masked},
        "defaulted": [*defaulted, *unset],
        "version": state.version if state else 0,
        "revision": state.revision if state else 0,
        "config_epoch": epoch.id,
        "epoch_seq": epoch.seq,
        "updated_at": state.updated_at if state else None,
        "updated_by": state.updated_by if state else None,
    }


def tagged(answer: JsonObject, status: int = 200) -> ApiResponse:
    return json_response(answer, status, ((b"etag", b'"%d"' % answer["revision"]),))


def _unless_known(
    request: ApiRequest, service: ServiceName, response: ApiResponse, revision: int
) -> ApiResponse:
    """304 if the reader has it already. Raises RevisionConflict if it wants another revision.

    A service that nobody has written is always sent in full: under revision 0 its defaults and epoch may change.
    """
    tag = f'"{revision}"'
    if (wanted := is_other(request, tag)) is not None:
        raise RevisionConflict(service, wanted, revision)
    if revision and is_known(request, tag):
        return ApiResponse(304, b"", response.headers)
    return response


def _revision_of(committed: Committed, service: ServiceName) -> int:
    state = committed.live(service)
    return state.revision if state else 0


def _list_entry(name: str, state: ServiceState | None) -> ListEntry:
    if state is None:
        return ListEntry(service=name, revision=0, version=0, updated_at=None)
    return ListEntry.of(state)


@only_refusing
async def reserved_name(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    """A path with `epoch` or `search` as the service's name; both are reserved."""
    raise InvalidName(
        "'epoch' and 'search' are reserved: POST …/epoch makes a new epoch, GET …/search searches, and no "
        "service is called that"
    )
