"""Configurations over REST: read, list, put, patch, delete, and a new epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, cast

from config_manager.actors.messages import Write
from config_manager.api.rest.conditions import (
    CONDITIONS,
    PRECONDITIONS,
    is_known,
    is_other,
    preconditions_of,
)
from config_manager.api.rest.models import (
    NAME,
    NO_NUL,
    Answer,
    Body,
    Name,
    Reader,
    SeveralWrong,
    Time,
    Values,
    read,
)
from config_manager.api.rest.operations import operation, undescribed
from config_manager.api.rest.parameters import SERVICE, one_of
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    MAX_REASON,
    WRITE,
    WriteAnswer,
    WriteTerms,
    outcome_of,
    with_outcome,
    write_terms_of,
)
from config_manager.config.errors import FieldError, InvalidName, NotFound, RevisionConflict
from config_manager.config.names import ServiceName, parse_service, pointer
from config_manager.config.secret import MASK
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.intents import Delete, NewEpoch, Patch, Put
from config_manager.storage.state import Committed, ServiceState

MERGE_PATCH = "application/merge-patch+json"


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class _Shown(Answer):
    service: Name
    config: dict[str, Any]
    defaulted: list[str]


class _Deleted(Answer):
    service: Name
    deleted: Literal[True]


class _Stamp(Answer):
    version: int
    revision: int
    config_epoch: str
    epoch_seq: int
    updated_at: Time | None
    updated_by: str | None


class ConfigAnswer(WriteAnswer, _Stamp, _Shown): ...


class DeletedAnswer(WriteAnswer, _Stamp, _Deleted): ...


class ListEntry(Answer):
    service: Name
    revision: int
    version: int
    updated_at: Time | None


class ConfigList(Answer):
    services: list[ListEntry]


def _parse_services(value: Any) -> dict[str, JsonObject]:
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


def _parse_reason(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_REASON):
        raise ValueError(f"expected text of at most {MAX_REASON} characters")
    return value


class EpochRequest(Body):
    REFUSED: ClassVar[str] = "the epoch is not as it should be; nothing was written"

    services: Annotated[
        dict[str, JsonObject],
        Reader(
            _parse_services,
            {
                "type": "object",
                "propertyNames": NAME,
                "additionalProperties": {"$ref": "#/components/schemas/Values"},
                "minProperties": 1,
            },
        ),
    ]
    reason: Annotated[
        str | None,
        Reader(_parse_reason, {**NO_NUL, "type": ["string", "null"], "maxLength": MAX_REASON}),
    ] = None


class _Epoch(Answer):
    config_epoch: str
    epoch_seq: int
    revision: int
    services: list[Name]


class EpochAnswer(WriteAnswer, _Epoch): ...


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_VIEW = one_of("view", "stored: exactly what PUT takes", "effective", "stored")


@operation("Every service", answers={200: ConfigList})
async def list_configs(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    committed = api.system.view.committed
    live = {name: state for name, state in committed.services.items() if not state.deleted}
    names = sorted(filter(request.grant.covers, {*live, *api.system.catalogue.services}))
    entries = [_list_entry(name, live.get(name)) for name in names]
    return json_response(ConfigList(services=entries))


@operation(
    "A service's effective configuration; secrets are masked",
    answers={200: ConfigAnswer, 304: None},
    problems=(404, 412),
    takes=(*CONDITIONS, _VIEW),
)
async def get_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    committed = api.system.view.committed
    if request.raw_query:
        request.allow_query()
        if _VIEW.of(request) == "stored":
            stored = _config_response(_existing(api, committed, service, stored=True))
            return _unless_known(request, service, stored, committed)
    # the answer for a service without values (never written, or deleted) depends on the epoch
    key = committed.live(service) or committed.epoch
    cached = api.bodies.get(service)
    if cached is not None and cached[0] is key:
        return _unless_known(request, service, cached[1], committed)
    response = _config_response(_existing(api, committed, service))
    api.bodies[service] = (key, response)
    return _unless_known(request, service, response, committed)


@operation(
    "Replace a service's stored values",
    answers={200: ConfigAnswer, 201: ConfigAnswer},
    problems=(412,),
    takes=(*PRECONDITIONS, *WRITE),
    body=Values,
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
)
async def new_epoch(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, EpochRequest)
    for service in body.services:
        request.grant.require("write", service)
    write_terms = write_terms_of(request)
    terms = write_terms.terms
    if body.reason is not None:
        terms = replace(terms, reason=body.reason)
    epoch = NewEpoch(services=body.services)
    written = await api.system.storing.ask(Write(epoch, terms), request.context)
    answer = EpochAnswer.of(written, services=[state.service for state in written.services])
    return json_response(await with_outcome(answer, api, written.services, write_terms))


async def _write(
    request: ApiRequest, api: Api, what: Put | Patch, write_terms: WriteTerms
) -> ApiResponse:
    written = await api.system.storing.ask(Write(what, write_terms.terms), request.context)
    state = written.state
    answer = _view(api, state.service, state)
    answer |= await outcome_of(api, [state], write_terms, written.changes)
    if write_terms.terms.dry_run:
        return json_response(answer)
    return _config_response(answer, 201 if written.first else 200)


# ── what is shown ──────────────────────────────────────────────────────────────────────────────

# A `ConfigAnswer` is made as a dictionary, because a model would cost each PUT 30 µs.
# tests/api/rest/test_models.py holds it to the model.


def _existing(
    api: Api, committed: Committed, service: ServiceName, *, stored: bool = False
) -> JsonObject:
    state = committed.live(service)
    if state is None and service not in api.system.catalogue:
        raise NotFound(f"{service} is not in the catalogue and nobody has written it")
    answer = _view(api, service, state)
    if stored:
        answer |= {"config": state.stored if state else {}, "defaulted": []}
    return answer


def _view(api: Api, service: str, state: ServiceState | None) -> JsonObject:
    """A service as GET shows it: effective values, secrets masked."""
    catalogue = api.system.catalogue
    if state is None:
        effective, defaulted = catalogue.effective(service, {})
        epoch, secrets = api.system.view.committed.epoch, dict[str, int]()
    else:
        effective, defaulted, epoch = state.effective, state.defaulted, state.epoch
        secrets = dict(state.secrets)
    declared = catalogue.secret_keys(service)
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


def _config_response(answer: JsonObject, status: int = 200) -> ApiResponse:
    return json_response(answer, status, ((b"etag", b'"%d"' % answer["revision"]),))


def _unless_known(
    request: ApiRequest, service: ServiceName, response: ApiResponse, committed: Committed
) -> ApiResponse:
    """304 if the reader has it already. Raises RevisionConflict if it wants another revision.

    A service that nobody has written is always sent in full: under revision 0 its defaults and epoch may change.
    """
    state = committed.live(service)
    revision = state.revision if state else 0
    tag = f'"{revision}"'
    if (wanted := is_other(request, tag)) is not None:
        raise RevisionConflict(service, wanted, revision)
    if revision and is_known(request, tag):
        return ApiResponse(304, b"", response.headers)
    return response


def _list_entry(name: str, state: ServiceState | None) -> ListEntry:
    if state is None:
        return ListEntry(service=name, revision=0, version=0, updated_at=None)
    return ListEntry.of(state)


@undescribed
async def reserved_name(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    """A path with `epoch` as the service's name, which is reserved."""
    raise InvalidName("'epoch' is reserved: POST makes a new epoch, and no service is called that")
