"""Secrets over REST: in; named and counted; out only to a caller who says why, once that is on record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from config_manager.actors.messages import Write
from config_manager.api.rest.models import (
    KEY,
    NAME,
    NO_NUL,
    Body,
    Member,
    Name,
    Time,
    about,
    read,
    text,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE, Path, service_in_query
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    WRITE,
    WriteAnswer,
    propagation_of,
    write_terms_of,
)
from config_manager.config import secret
from config_manager.config.errors import NotFound
from config_manager.config.names import parse_service
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.intents import DeleteSecret, SetSecret
from config_manager.storage.decisions.secret_values import RevealSecret
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import SealedSecret

_MAX_REASON = 500
_MAX_VERSION = 2**53 - 1


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class SecretRequest(Body):
    REFUSED: ClassVar[str] = "a secret is a service, a name and a value"

    service: Annotated[str, Member(text, NAME)]
    name: Annotated[str, Member(text, KEY)]
    value: Annotated[
        secret.Secret,
        Member(lambda value: secret.Secret(text(value)), {**NO_NUL, "minLength": 1}),
    ]


class Secret(WriteAnswer):
    service: Name
    name: str
    version: int
    revision: int
    updated_at: Time


class SecretDeleted(WriteAnswer):
    service: Name
    name: str
    deleted: Literal[True]
    revision: int
    updated_at: Time


class _Age(TypedDict):
    updated_at: Time
    age_s: Annotated[int, about("since it was set, in seconds")]


class SecretEntry(_Age):
    service: Name
    name: str
    version: Annotated[int, about("the newest")]
    kept: Annotated[int, about("how many versions are kept")]
    rotate: Annotated[Mapping[str, Any] | None, about("why it should be set anew, if it should")]


class SecretList(TypedDict):
    secrets: list[SecretEntry]


class SecretVersion(_Age):
    version: int


class SecretVersions(SecretEntry):
    versions: list[SecretVersion]


def _parse_reason(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_REASON:
        raise ValueError(f"say why, for the audit: text of 1 to {_MAX_REASON} characters")
    return value


def _parse_version(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 1 <= value <= _MAX_VERSION):
        raise ValueError("expected a version's number, from 1")
    return value


class RevealRequest(Body):
    REFUSED: ClassVar[str] = "a secret is shown only for a reason"

    reason: Annotated[
        str,
        Member(
            _parse_reason,
            {
                "type": "string",
                "maxLength": _MAX_REASON,
                "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
            },
        ),
    ]
    version: Annotated[
        int | None,
        Member(
            _parse_version, {"type": ["integer", "null"], "minimum": 1, "maximum": _MAX_VERSION}
        ),
    ] = None


class SecretValue(TypedDict):
    service: Name
    name: str
    version: int
    updated_at: Time
    value: str


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_OF_SERVICE = service_in_query("only this service's secrets")
_NAME = Path("name", "the secret's name", KEY, str)


@operation(
    "Store a secret; no answer ever shows it",
    answers={200: Secret, 201: Secret},
    problems=(412,),
    takes=WRITE,
    body=SecretRequest,
)
async def set_secret(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, SecretRequest)
    service = parse_service(body.service)
    request.grant.require("secrets", service)
    terms, wait_s = write_terms_of(request)
    change = SetSecret(service=service, name=body.name, value=body.value)
    written = await api.system.storing.ask(Write(change, terms), request.context)
    state = written.state
    answer: Secret = {
        "service": service,
        "name": body.name,
        "version": state.secrets[body.name],
        "revision": state.revision,
        "updated_at": state.updated_at,
    }
    if terms.dry_run:
        answer |= {"dry_run": True}
        return json_response(answer)
    answer = {**answer, **await propagation_of(api, [state], wait_s)}
    return json_response(answer, 201)


@operation(
    "Names, versions and ages; never a value",
    answers={200: SecretList},
    problems=(503, 504),
    takes=(_OF_SERVICE,),
)
async def list_secrets(request: ApiRequest, api: Api) -> ApiResponse:
    """Every secret of the services that the caller may see; never a value."""
    request.allow_query()
    service = _OF_SERVICE.of(request)
    if service is not None:
        request.grant.require("secrets", service)
    kept = await api.system.reading.secrets(request.context, service)
    visible = [sealed for sealed in kept if request.grant.covers(sealed.service)]
    answer: SecretList = {"secrets": [_entry(api, versions) for versions in _by_name(visible)]}
    return json_response(answer)


@operation(
    "One secret's versions and their ages; never a value",
    answers={200: SecretVersions},
    problems=(404, 503, 504),
    takes=(_NAME,),
)
async def get_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """One secret's versions, newest last; never a value."""
    request.allow_query()
    service, name = SERVICE.of(request), _NAME.of(request)
    kept = await api.system.reading.secrets(request.context, service, name)
    if not kept:
        raise NotFound(f"{service} has no secret of this name")
    versions: list[SecretVersion] = [{"version": s.version, **_age(api, s)} for s in kept]
    answer: SecretVersions = {**_entry(api, kept), "versions": versions}
    return json_response(answer)


@operation(
    "A secret's value, once the audit has who asked and why",
    answers={200: SecretValue},
    problems=(404, 409),
    takes=(_NAME,),
    body=RevealRequest,
)
async def reveal_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """The storing actor answers after it has committed the audit row."""
    request.allow_query()
    service, name = SERVICE.of(request), _NAME.of(request)
    body = read(request, RevealRequest)
    reveal = RevealSecret(service=service, name=name, version=body.version)
    write = Write(reveal, Terms(request.by, body.reason))
    revealed = await api.system.storing.ask(write, request.context)
    answer: SecretValue = {
        "service": service,
        "name": name,
        "version": revealed.version,
        "updated_at": revealed.updated_at,
        "value": revealed.value.reveal(),  # this call's purpose
    }
    return json_response(answer, headers=NO_STORE)


@operation(
    "Delete every version of a secret; a revision of the service",
    answers={200: SecretDeleted},
    problems=(404,),
    takes=(_NAME, *WRITE),
)
async def delete_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """Every version goes; a revision of the service, which no longer names it."""
    service, name = SERVICE.of(request), _NAME.of(request)
    terms, wait_s = write_terms_of(request)
    change = DeleteSecret(service=service, name=name)
    written = await api.system.storing.ask(Write(change, terms), request.context)
    state = written.state
    answer: SecretDeleted = {
        "service": service,
        "name": name,
        "deleted": True,
        "revision": state.revision,
        "updated_at": state.updated_at,
    }
    if terms.dry_run:
        answer |= {"dry_run": True}
    else:
        answer = {**answer, **await propagation_of(api, [state], wait_s)}
    return json_response(answer)


def _by_name(kept: Sequence[SealedSecret]) -> Iterable[Sequence[SealedSecret]]:
    """All versions of one secret together; they come in the order of service, name and version."""
    for _, versions in groupby(kept, key=lambda sealed: (sealed.service, sealed.name)):
        yield list(versions)


def _entry(api: Api, versions: Sequence[SealedSecret]) -> SecretEntry:
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


def _age(api: Api, sealed: SealedSecret) -> _Age:
    age_s = api.system.world.clock.now() - parse_rfc3339(sealed.updated_at)
    return {"updated_at": sealed.updated_at, "age_s": max(0, int(age_s))}
