"""Configurations over REST: read, list, put, patch, delete, and a new epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from config_manager.actors.messages import Write
from config_manager.api.resources.history import KeyChange, key_change
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
    Body,
    Member,
    Name,
    Time,
    Values,
    Wrong,
    as_object,
    read,
)
from config_manager.api.rest.operations import operation, undescribed
from config_manager.api.rest.parameters import SERVICE, one_of
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    MAX_REASON,
    WRITE,
    WriteAnswer,
    propagation_of,
    write_terms_of,
)
from config_manager.config.errors import FieldError, InvalidName, NotFound, RevisionConflict
from config_manager.config.names import ServiceName, parse_service, pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.changes import MASK
from config_manager.storage.decisions.intents import Delete, NewEpoch, Patch, Put, Written
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import Committed, ServiceState

MERGE_PATCH = "application/merge-patch+json"


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class _Stamp(TypedDict):
    service: Name
    version: int
    revision: int
    config_epoch: str
    epoch_seq: int
    updated_at: Time | None
    updated_by: str | None


class Config(_Stamp, WriteAnswer):
    config: dict[str, Any]
    defaulted: list[str]


class Deleted(_Stamp, WriteAnswer):
    deleted: Literal[True]


class ListEntry(TypedDict):
    service: Name
    revision: int
    version: int
    updated_at: Time | None


class ConfigList(TypedDict):
    services: list[ListEntry]


def _parse_services(value: Any) -> dict[str, JsonObject]:
    services: dict[str, JsonObject] = {}
    wrong: list[FieldError] = []
    for name, values in as_object(value, "expected an object: service → its values").items():
        if isinstance(values, dict):
            services[parse_service(name)] = values
        else:
            wrong.append(FieldError(pointer(name), "expected a JSON object"))
    if wrong:
        raise Wrong(wrong)
    return services


def _parse_reason(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_REASON):
        raise ValueError(f"expected text of at most {MAX_REASON} characters")
    return value


class EpochRequest(Body):
    REFUSED: ClassVar[str] = "the epoch is not as it should be; nothing was written"

    services: Annotated[
        dict[str, JsonObject],
        Member(
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
        Member(_parse_reason, {**NO_NUL, "type": ["string", "null"], "maxLength": MAX_REASON}),
    ] = None


class Epoch(WriteAnswer):
    config_epoch: str
    epoch_seq: int
    revision: int
    services: list[Name]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_VIEW = one_of("view", "stored: exactly what PUT takes", "effective", "stored")


@operation("Every service", answers={200: ConfigList})
async def list_configs(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    committed = api.system.view.committed
    live = {name: state for name, state in committed.services.items() if not state.deleted}
    names = sorted(filter(request.grant.covers, {*live, *api.system.catalogue.services}))
    answer: ConfigList = {"services": [_list_entry(name, live.get(name)) for name in names]}
    return json_response(answer)


@operation(
    "A service's effective configuration; secrets are masked",
    answers={200: Config, 304: None},
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
    # what a service that nobody wrote, or that was deleted, shows depends on the epoch
    key = committed.live(service) or committed.epoch
    cached = api.bodies.get(service)
    if cached is not None and cached[0] is key:
        return _unless_known(request, service, cached[1], committed)
    response = _config_response(_existing(api, committed, service))
    api.bodies[service] = (key, response)
    return _unless_known(request, service, response, committed)


@operation(
    "Replace a service's stored values",
    answers={200: Config, 201: Config},
    problems=(412,),
    takes=(*PRECONDITIONS, *WRITE),
    body=Values,
)
async def put_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    values = request.json_object()
    terms, wait_s = write_terms_of(request)
    put = Put(service=service, values=values, preconditions=preconditions_of(request))
    written = await api.system.storing.ask(Write(put, terms), request.context)
    return await _written(api, written, terms, wait_s)


@operation(
    "Merge into a service's stored values (RFC 7396)",
    answers={200: Config, 201: Config},
    problems=(404, 412),
    takes=(*PRECONDITIONS, *WRITE),
    body=Values,
    media_type=MERGE_PATCH,
)
async def patch_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    patch = request.json_object(MERGE_PATCH)
    terms, wait_s = write_terms_of(request)
    merge = Patch(service=service, patch=patch, preconditions=preconditions_of(request))
    written = await api.system.storing.ask(Write(merge, terms), request.context)
    return await _written(api, written, terms, wait_s)


@operation(
    "Delete a service's configuration; its history stays",
    answers={200: Deleted},
    problems=(404, 412, 415),
    takes=(*PRECONDITIONS, *WRITE),
)
async def delete_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    terms, wait_s = write_terms_of(request)
    delete = Delete(service=service, preconditions=preconditions_of(request))
    written = await api.system.storing.ask(Write(delete, terms), request.context)
    state = written.state
    answer: Deleted = {
        "service": service,
        "deleted": True,
        "version": state.version,
        "revision": state.revision,
        "config_epoch": state.epoch.id,
        "epoch_seq": state.epoch.seq,
        "updated_at": state.updated_at,
        "updated_by": state.updated_by,
    }
    if terms.dry_run:
        answer |= {"dry_run": True, "changes": _changes(written)}
    else:
        answer = {**answer, **await propagation_of(api, [state], wait_s)}
    return json_response(answer)


@operation(
    "Change several services at once, all or none, in a new epoch",
    answers={200: Epoch},
    problems=(412,),
    takes=WRITE,
    body=EpochRequest,
)
async def new_epoch(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, EpochRequest)
    for service in body.services:
        request.grant.require("write", service)
    terms, wait_s = write_terms_of(request)
    if body.reason is not None:
        terms = replace(terms, reason=body.reason)
    epoch = NewEpoch(services=body.services)
    written = await api.system.storing.ask(Write(epoch, terms), request.context)
    answer: Epoch = {
        "config_epoch": written.config_epoch,
        "epoch_seq": written.epoch_seq,
        "revision": written.revision,
        "services": [state.service for state in written.services],
    }
    if terms.dry_run:
        answer |= {"dry_run": True}
    else:
        answer = {**answer, **await propagation_of(api, written.services, wait_s)}
    return json_response(answer)


async def _written(api: Api, written: Written, terms: Terms, wait_s: float | None) -> ApiResponse:
    state = written.state
    answer = _view(api, state.service, state)
    if terms.dry_run:
        answer |= {"dry_run": True, "changes": _changes(written)}
        return json_response(answer)
    answer = {**answer, **await propagation_of(api, [state], wait_s)}
    return _config_response(answer, 201 if written.first else 200)


# ── what is shown ──────────────────────────────────────────────────────────────────────────────


def _existing(
    api: Api, committed: Committed, service: ServiceName, *, stored: bool = False
) -> Config:
    state = committed.live(service)
    if state is None and service not in api.system.catalogue:
        raise NotFound(f"{service} is not in the catalogue and nobody has written it")
    value = _view(api, service, state)
    if stored:
        value |= {"config": state.stored if state else {}, "defaulted": []}
    return value


def _view(api: Api, service: str, state: ServiceState | None) -> Config:
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


def _config_response(value: Config, status: int = 200) -> ApiResponse:
    return json_response(value, status, ((b"etag", b'"%d"' % value["revision"]),))


def _unless_known(
    request: ApiRequest, service: ServiceName, response: ApiResponse, committed: Committed
) -> ApiResponse:
    """304 if the reader has it already. Raises RevisionConflict if it wants another revision.

    What nobody has written is always shown: its defaults and epoch may change under revision 0.
    """
    state = committed.live(service)
    revision = state.revision if state else 0
    tag = f'"{revision}"'
    if (wanted := is_other(request, tag)) is not None:
        raise RevisionConflict(service, wanted[:64], revision)
    if revision and is_known(request, tag):
        return ApiResponse(304, b"", response.headers)
    return response


def _list_entry(name: str, state: ServiceState | None) -> ListEntry:
    return {
        "service": name,
        "revision": state.revision if state else 0,
        "version": state.version if state else 0,
        "updated_at": state.updated_at if state else None,
    }


def _changes(written: Written) -> list[KeyChange]:
    return [key_change(change) for change in written.changes]


@undescribed
async def reserved_name(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    """A path with `epoch` as the service's name, which is reserved."""
    raise InvalidName("'epoch' is reserved: POST makes a new epoch, and no service is called that")
