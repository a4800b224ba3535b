"""Configurations over REST: read, list, put, patch, delete, and a new epoch."""

from __future__ import annotations

from dataclasses import replace

from config_manager.actors.messages import (
    DeleteConfig,
    EpochWritten,
    NewEpoch,
    PatchConfig,
    PutConfig,
    Written,
)
from config_manager.api.conditions import is_known, is_other, preconditions_of
from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import MAX_REASON, propagation_of, write_terms_of
from config_manager.config.errors import (
    FieldError,
    InvalidName,
    InvalidValues,
    MalformedRequest,
    NotFound,
    RevisionConflict,
)
from config_manager.config.names import ServiceName, parse_service, pointer
from config_manager.config.strict_json import JsonObject
from config_manager.storage.changes import MASK
from config_manager.storage.state import Committed, KeyChange, ServiceState
from config_manager.storage.terms import Terms

MERGE_PATCH = "application/merge-patch+json"


async def list_configs(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    committed = api.system.view.committed
    live = {name: state for name, state in committed.services.items() if not state.deleted}
    names = sorted(filter(request.grant.covers, {*live, *api.system.catalogue.services}))
    return json_response({"services": [_list_entry(name, live.get(name)) for name in names]})


async def get_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    committed = api.system.view.committed
    if request.raw_query:
        request.allow_query("view")
        view = request.query.get("view", "effective")
        if view not in ("effective", "stored"):
            raise MalformedRequest("view: expected effective or stored")
        if view == "stored":
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


async def put_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    values = request.json_object()
    terms, wait_s = write_terms_of(request)
    message = PutConfig(
        service=service,
        values=values,
        preconditions=preconditions_of(request),
        terms=terms,
    )
    written = await api.system.storing.ask(message, request.context)
    return await _written(api, written, terms, wait_s)


async def patch_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    patch = request.json_object(MERGE_PATCH)
    terms, wait_s = write_terms_of(request)
    message = PatchConfig(
        service=service,
        patch=patch,
        preconditions=preconditions_of(request),
        terms=terms,
    )
    written = await api.system.storing.ask(message, request.context)
    return await _written(api, written, terms, wait_s)


async def delete_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    terms, wait_s = write_terms_of(request)
    message = DeleteConfig(service=service, preconditions=preconditions_of(request), terms=terms)
    written = await api.system.storing.ask(message, request.context)
    state = written.state
    body: JsonObject = {
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
        return json_response({**body, "dry_run": True, "changes": _changes(written.changes)})
    propagation = await propagation_of(api, [state], wait_s)
    return json_response(
        {**body, "correlation_id": state.correlation_id, "propagation": propagation}
    )


async def post_epoch(request: ApiRequest, api: Api) -> ApiResponse:
    body = request.json_object()
    unknown = [key for key in body if key not in ("services", "reason")]
    services, reason = body.get("services"), body.get("reason")
    errors = [FieldError(pointer(key), "unknown; known: services, reason") for key in unknown]
    if not isinstance(services, dict):
        errors.append(FieldError("/services", "expected an object: service → its values"))
        services = {}
    if reason is not None and (not isinstance(reason, str) or len(reason) > MAX_REASON):
        errors.append(FieldError("/reason", f"expected text of at most {MAX_REASON} characters"))
    values: dict[str, JsonObject] = {}
    for name, value in services.items():
        if isinstance(value, dict):
            values[parse_service(name)] = value
        else:
            errors.append(FieldError(pointer("services", name), "expected a JSON object"))
    if errors:
        raise InvalidValues("the epoch is not as it should be; nothing was written", errors)
    for service in values:
        request.grant.require("write", service)
    terms, wait_s = write_terms_of(request)
    if reason is not None:
        terms = replace(terms, reason=reason)
    message = NewEpoch(services=values, terms=terms)
    written: EpochWritten = await api.system.storing.ask(message, request.context)
    answer: JsonObject = {
        "config_epoch": written.config_epoch,
        "epoch_seq": written.epoch_seq,
        "revision": written.revision,
        "services": [state.service for state in written.services],
    }
    if terms.dry_run:
        return json_response({**answer, "dry_run": True})
    propagation = await propagation_of(api, list(written.services), wait_s)
    return json_response(
        {**answer, "correlation_id": written.correlation_id, "propagation": propagation}
    )


async def _written(api: Api, written: Written, terms: Terms, wait_s: float | None) -> ApiResponse:
    state = written.state
    value = _view(api, state.service, state)
    if terms.dry_run:
        return json_response({**value, "dry_run": True, "changes": _changes(written.changes)})
    propagation = await propagation_of(api, [state], wait_s)
    value |= {"correlation_id": state.correlation_id, "propagation": propagation}
    return _config_response(value, 201 if written.first else 200)


# ── what is shown ──────────────────────────────────────────────────────────────────────────────


def _existing(
    api: Api, committed: Committed, service: ServiceName, *, stored: bool = False
) -> JsonObject:
    state = committed.live(service)
    if state is None and service not in api.system.catalogue:
        raise NotFound(f"{service} is not in the catalogue and nobody has written it")
    value = _view(api, service, state)
    if stored:
        value |= {"config": state.stored if state else {}, "defaulted": []}
    return value


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


def _config_response(value: JsonObject, status: int = 200) -> ApiResponse:
    return json_response(value, status, ((b"etag", b'"%d"' % value["revision"]),))


def _unless_known(
    request: ApiRequest, service: ServiceName, response: ApiResponse, committed: Committed
) -> ApiResponse:
    """304 where the reader has it already. Raises RevisionConflict where it wants another one.

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


def _list_entry(name: str, state: ServiceState | None) -> JsonObject:
    return {
        "service": name,
        "revision": state.revision if state else 0,
        "version": state.version if state else 0,
        "updated_at": state.updated_at if state else None,
    }


def _changes(changes: tuple[KeyChange, ...]) -> list[JsonObject]:
    return [change.to_object() for change in changes]


async def reserved_name(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    """`epoch` stands where a service's name would: refused as the reserved name it is."""
    raise InvalidName("'epoch' is reserved: POST makes a new epoch, and no service is called that")
