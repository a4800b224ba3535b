"""Secrets over REST: stored, named and counted. A value is shown only after the audit has who asked and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar

from pydantic import WithJsonSchema

from config_manager.actors.messages import Write
from config_manager.api.rest.models import (
    HIDDEN,
    INTEGER,
    KEY,
    NAME,
    NO_NUL,
    Always,
    Answer,
    Body,
    Name,
    Reader,
    Revision,
    Time,
    about,
    read,
    text,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import SERVICE, Path, granted, service_in_query
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import (
    MAX_REASON,
    WRITE,
    WriteAnswer,
    with_outcome,
    write_terms_of,
)
from config_manager.config import secret
from config_manager.config.errors import NotFound
from config_manager.config.names import OUR_ID, parse_service
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.intents import DeleteSecret, SetSecret
from config_manager.storage.decisions.secret_values import RevealSecret
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import SealedSecret

_MAX_VERSION: int = INTEGER["maximum"]


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class SecretRequest(Body):
    """A secret to be stored."""

    REFUSED: ClassVar[str] = "a secret is a service, a name and a value"

    service: Annotated[str, WithJsonSchema({**NAME, "description": "whose secret it is"})]
    name: Annotated[
        str, WithJsonSchema({**KEY, "description": "the key under which the service finds it"})
    ]
    value: Annotated[
        secret.Secret,
        Reader(
            lambda value: secret.Secret(text(value)),
            {**NO_NUL, "minLength": 1, "description": "text; no answer shows it again"},
        ),
    ]


# Members stand in the order in which earlier versions answered them.


class _OneSecret(Answer):
    service: Name
    name: Annotated[str, about("the key under which the service finds it")]


class _Set(_OneSecret):
    version: Annotated[int, about("the secret's own; 1 is the first")]
    revision: Revision
    updated_at: Time


class SecretAnswer(WriteAnswer, _Set):
    """A secret is stored: a revision of its service."""


class _Deleted(_OneSecret):
    deleted: Always
    revision: Revision
    updated_at: Time


class SecretDeleted(WriteAnswer, _Deleted):
    """Every version of a secret is deleted: a revision of its service."""


_AgeS = Annotated[int, about("since it was set, in seconds")]


class SecretEntry(_OneSecret):
    """What is told of a secret; its value never is."""

    version: Annotated[int, about("the newest")]
    kept: Annotated[int, about("how many versions are kept")]
    updated_at: Time
    age_s: _AgeS
    rotate: Annotated[Mapping[str, Any] | None, about("why it should be set anew, if it should")]


class SecretList(Answer):
    """The secrets of every service that the token is for."""

    secrets: list[SecretEntry]


class SecretVersion(Answer):
    """One kept version of a secret."""

    version: int
    updated_at: Time
    age_s: _AgeS


class SecretVersions(SecretEntry):
    """A secret and its kept versions."""

    versions: Annotated[list[SecretVersion], about("oldest first")]


def _parse_reason(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_REASON:
        raise ValueError(f"say why, for the audit: text of 1 to {MAX_REASON} characters")
    return value


def _parse_version(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 1 <= value <= _MAX_VERSION):
        raise ValueError("expected a version's number, from 1")
    return value


class RevealRequest(Body):
    """Which version to show, and why."""

    REFUSED: ClassVar[str] = "a secret is shown only for a reason"

    reason: Annotated[
        str,
        Reader(
            _parse_reason,
            {
                "type": "string",
                "maxLength": MAX_REASON,
                "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
                "description": "why, for the audit",
            },
        ),
    ]
    version: Annotated[
        int | None,
        Reader(
            _parse_version,
            {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": _MAX_VERSION,
                "description": "null: the newest",
            },
        ),
    ] = None


class SecretValue(_OneSecret):
    """A secret in the open."""

    version: int
    updated_at: Time
    value: Annotated[str, about("the secret itself"), HIDDEN]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_OF_SERVICE = service_in_query("only this service's secrets")
_NAME = Path("name", "the secret's name", KEY, str)


@operation(
    "Store a secret; no answer ever shows it",
    answers={200: SecretAnswer, 201: SecretAnswer},
    problems=(412,),
    takes=WRITE,
    body=SecretRequest,
    description="A new version of the secret, and a revision of its service. The service's message names the "
    "version; the value is sealed to each enrolled instance of the service.",
)
async def set_secret(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, SecretRequest)
    service = parse_service(body.service)
    request.grant.require("secrets", service)
    write_terms = write_terms_of(request)
    change = SetSecret(service=service, name=body.name, value=body.value)
    written = await api.system.storing.ask(Write(change, write_terms.terms), request.context)
    state = written.state
    answer = SecretAnswer.of(
        state, service=service, name=body.name, version=state.secrets[body.name]
    )
    answer = await with_outcome(answer, api, [state], write_terms)
    return json_response(answer, 200 if write_terms.terms.dry_run else 201)


@operation(
    "Names, versions and ages; never a value",
    answers={200: SecretList},
    problems=(503, 504),
    takes=(_OF_SERVICE,),
    description="Secrets of every service that the token is for, or of one.",
)
async def list_secrets(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service = granted(_OF_SERVICE, request, "secrets")
    kept = await api.system.reading.secrets(request.context, service)
    visible = [
        sealed
        for sealed in kept
        if request.grant.covers(sealed.service) and sealed.service != OUR_ID  # of notifications
    ]
    # they come in the order of service, name and version
    by_name = groupby(visible, key=lambda sealed: (sealed.service, sealed.name))
    entries = [_entry(api, list(versions)) for _, versions in by_name]
    return json_response(SecretList(secrets=entries))


@operation(
    "One secret's versions and their ages; never a value",
    answers={200: SecretVersions},
    problems=(404, 503, 504),
    takes=(_NAME,),
    description="`rotate` says why it should be set anew, such as that a device which could read it was revoked.",
)
async def get_secret(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service, name = SERVICE.of(request), _NAME.of(request)
    kept = await api.system.reading.secrets(request.context, service, name)
    if not kept:
        raise NotFound(f"{service} has no secret of this name")
    versions = [SecretVersion.of(one, age_s=_age_s(api, one)) for one in kept]
    return json_response(SecretVersions.of(_entry(api, kept), versions=versions))


@operation(
    "A secret's value, once the audit has who asked and why",
    answers={200: SecretValue},
    problems=(404, 409),
    takes=(_NAME,),
    body=RevealRequest,
    description="The audit's row is on disk before the value is sent. The answer is `no-store`.",
)
async def reveal_secret(request: ApiRequest, api: Api) -> ApiResponse:
    """The storing actor answers after it has committed the audit row."""
    request.allow_query()
    service, name = SERVICE.of(request), _NAME.of(request)
    body = read(request, RevealRequest)
    reveal = RevealSecret(service=service, name=name, version=body.version)
    write = Write(reveal, Terms(request.by, body.reason, client=request.client_host))
    revealed = await api.system.storing.ask(write, request.context)
    shown = revealed.value.reveal()  # this call's purpose
    answer = SecretValue.of(revealed, service=service, name=name, value=shown)
    return json_response(answer, headers=NO_STORE)


@operation(
    "Delete every version of a secret; a revision of the service",
    answers={200: SecretDeleted},
    problems=(404,),
    takes=(_NAME, *WRITE),
    description="The service's next message no longer names it, and its sealed copies are replaced.",
)
async def delete_secret(request: ApiRequest, api: Api) -> ApiResponse:
    service, name = SERVICE.of(request), _NAME.of(request)
    write_terms = write_terms_of(request)
    change = DeleteSecret(service=service, name=name)
    written = await api.system.storing.ask(Write(change, write_terms.terms), request.context)
    state = written.state
    answer = SecretDeleted.of(state, service=service, name=name, deleted=True)
    return json_response(await with_outcome(answer, api, [state], write_terms))


def _entry(api: Api, kept: Sequence[SealedSecret]) -> SecretEntry:
    newest = kept[-1]
    marks = secret_rows.marks(api.system.view.committed)
    return SecretEntry.of(
        newest,
        kept=len(kept),
        age_s=_age_s(api, newest),
        rotate=marks.get(secret_rows.key_of(newest.service, newest.name)),
    )


def _age_s(api: Api, sealed: SealedSecret) -> int:
    age_s = api.system.world.clock.now() - parse_rfc3339(sealed.updated_at)
    return max(0, int(age_s))
