"""Secrets over REST: in; named and counted; out only to who says why, once that is on record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from config_manager.actors.messages import (
    DeleteSecret,
    ReadSecrets,
    RevealSecret,
    SetSecret,
)
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import propagation_of, write_terms_of
from config_manager.config.errors import FieldError, InvalidValues, NotFound
from config_manager.config.names import parse_service, pointer
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339
from config_manager.storage import secret_rows
from config_manager.storage.state import SealedSecret
from config_manager.storage.terms import Terms

_FIELDS = ("service", "name", "value")
_MAX_REASON = 500
_MAX_VERSION = 2**53 - 1


async def post_secret(request: ApiRequest, api: Api) -> ApiResponse:
    body = request.json_object()
    errors = [
        FieldError(pointer(field), "expected text")
        for field in _FIELDS
        if not isinstance(body.get(field), str)
    ]
    errors += [
        FieldError(pointer(key), f"unknown; known: {', '.join(_FIELDS)}")
        for key in body
        if key not in _FIELDS
    ]
    if errors:
        raise InvalidValues("a secret is a service, a name and a value", errors)
    name: str = body["name"]
    service = parse_service(body["service"])
    request.grant.require("secrets", service)
    terms, wait_s = write_terms_of(request)
    message = SetSecret(service=service, name=name, value=Secret(body["value"]), terms=terms)
    written = await api.system.storing.ask(message, request.context)
    state = written.state
    answer: dict[str, object] = {
        "service": state.service,
        "name": name,
        "version": state.secrets[name],
        "revision": state.revision,
        "updated_at": state.updated_at,
    }
    if terms.dry_run:
        return json_response({**answer, "dry_run": True})
    propagation = await propagation_of(api, [state], wait_s)
    answer |= {"correlation_id": state.correlation_id, "propagation": propagation}
    return json_response(answer, 201)


async def list_secrets(request: ApiRequest, api: Api) -> ApiResponse:
    """Every secret of the services that the caller may see; never a value."""
    request.allow_query("service")
    service = request.query.get("service")
    if service is not None:
        service = parse_service(service)
        request.grant.require("secrets", service)
    kept = await api.system.storing.ask(ReadSecrets(service), request.context)
    visible = [sealed for sealed in kept if request.grant.covers(sealed.service)]
    return json_response({"secrets": [_entry(api, versions) for versions in _by_name(visible)]})


async def get_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """One secret's versions, newest last; never a value."""
    request.allow_query()
    service, name = parse_service(request.params["service"]), request.params["name"]
    kept = await api.system.storing.ask(ReadSecrets(service, name), request.context)
    if not kept:
        raise NotFound(f"{service} has no secret of this name")
    versions = [{"version": s.version, **_age(api, s)} for s in kept]
    return json_response({**_entry(api, kept), "versions": versions})


async def reveal_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """The value, to who says why. The storing actor answers after it has committed the audit row."""
    request.allow_query()
    service, name = parse_service(request.params["service"]), request.params["name"]
    reason, version = _asked_for(request.json_object())
    terms = Terms(request.by, reason)
    message = RevealSecret(service=service, name=name, version=version, terms=terms)
    revealed = await api.system.storing.ask(message, request.context)
    answer = {
        "service": service,
        "name": name,
        "version": revealed.version,
        "updated_at": revealed.updated_at,
        "value": revealed.value.reveal(),  # this call's purpose
    }
    return json_response(answer, headers=NO_STORE)


def _asked_for(body: JsonObject) -> tuple[str, int | None]:
    """Reason and version of a reveal; raises InvalidValues."""
    reason, version = body.get("reason"), body.get("version")
    errors = [
        FieldError(pointer(key), "unknown; known: reason, version")
        for key in body
        if key not in ("reason", "version")
    ]
    if not isinstance(reason, str) or not reason.strip() or len(reason) > _MAX_REASON:
        said = f"say why, for the audit: text of 1 to {_MAX_REASON} characters"
        errors.append(FieldError("/reason", said))
    if version is not None and (type(version) is not int or not 1 <= version <= _MAX_VERSION):
        errors.append(FieldError("/version", "expected a version's number, from 1"))
    if errors:
        raise InvalidValues("a secret is shown only for a reason", errors)
    return str(reason), version


async def delete_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """Every version goes; a revision of the service, which no longer names it."""
    service, name = parse_service(request.params["service"]), request.params["name"]
    terms, wait_s = write_terms_of(request)
    message = DeleteSecret(service=service, name=name, terms=terms)
    written = await api.system.storing.ask(message, request.context)
    state = written.state
    answer: dict[str, Any] = {
        "service": service,
        "name": name,
        "deleted": True,
        "revision": state.revision,
        "updated_at": state.updated_at,
    }
    if terms.dry_run:
        return json_response({**answer, "dry_run": True})
    propagation = await propagation_of(api, [state], wait_s)
    return json_response(
        {**answer, "correlation_id": state.correlation_id, "propagation": propagation}
    )


def _by_name(kept: Sequence[SealedSecret]) -> Iterable[Sequence[SealedSecret]]:
    """All versions of one secret together; they come in the order of service, name and version."""
    for _, versions in groupby(kept, key=lambda sealed: (sealed.service, sealed.name)):
        yield list(versions)


def _entry(api: Api, versions: Sequence[SealedSecret]) -> JsonObject:
    newest = versions[-1]
    marks = secret_rows.marks(api.system.view.committed)
    return {
        "service": newest.service,
        "name": newest.name,
        "version": newest.version,
        "kept": len(versions),
        **_age(api, newest),
        "rotate": marks.get(secret_rows.key_of(newest.service, newest.name)),
    }


def _age(api: Api, sealed: SealedSecret) -> JsonObject:
    age_s = api.system.world.clock.now() - parse_rfc3339(sealed.updated_at)
    return {"updated_at": sealed.updated_at, "age_s": max(0, int(age_s))}
