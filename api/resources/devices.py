"""Devices over REST: allowed by a one-time token, enrolled by themselves, listed, revoked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from config_manager.actors.messages import Write
from config_manager.api.rest.auth import login_failed
from config_manager.api.rest.models import (
    DURATION,
    HIDDEN,
    KEY_32,
    NAME,
    SIGNATURE,
    Always,
    Answer,
    Body,
    Instance,
    KeyId,
    Name,
    Reader,
    Service,
    Time,
    about,
    in_base64,
    read,
    text,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import INSTANCE, SERVICE
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, administer
from config_manager.config.durations import parse_duration
from config_manager.config.enrolment import Enrolment
from config_manager.config.errors import NotAuthenticated
from config_manager.config.names import InstanceName, parse_instance
from config_manager.config.public_keys import KEY_BYTES, can_be_sealed_to, can_sign
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.devices import (
    AllowEnrolment,
    Enrol,
    RevokeDevice,
    could_read,
    devices,
)
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.decisions.tokens import hash_of, make_token

_DEFAULT_EXPIRES_S = 3600
_SIGNATURE_BYTES = 64


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class EnrolmentTokenRequest(Body):
    """Which instance may enrol, and until when."""

    REFUSED: ClassVar[str] = "nothing was done"

    service: Service
    instance: Annotated[
        InstanceName | None,
        Reader(
            lambda value: None if value is None else parse_instance(text(value)),
            {
                "anyOf": [NAME, {"type": "null"}],
                "description": "only this one; null: whichever of the service comes first",
            },
        ),
    ] = None
    expires: Annotated[
        int,
        Reader(
            lambda value: parse_duration(str(value)) if value else _DEFAULT_EXPIRES_S,
            {**DURATION, "description": "how long it is good, such as 30m; left out: 1h"},
        ),
    ] = _DEFAULT_EXPIRES_S


class EnrolmentToken(Answer):
    """With this token one instance enrols, once."""

    service: Name
    instance: Annotated[Name | None, about("null: whichever comes first")]
    expires_at: Time
    token: Annotated[str, about("shown this once; only its hash is kept"), HIDDEN]


def _key(description: str, is_usable: Callable[[bytes], bool]) -> Reader:
    def parse(value: Any) -> bytes:
        key = in_base64(text(value), KEY_BYTES)
        if not is_usable(key):
            raise ValueError("this is no usable public key: of low order, or not on the curve")
        return key

    return Reader(parse, {**KEY_32, "description": description})


class EnrolmentRequest(Body):
    """What an instance shows to be enrolled."""

    REFUSED: ClassVar[str] = "nothing was done"

    token: Annotated[str, about("the one-time token"), HIDDEN]
    service: Service
    instance: Instance
    sign_public: Annotated[bytes, _key("Ed25519, 32 bytes in base64", can_sign)]
    seal_public: Annotated[bytes, _key("X25519, 32 bytes in base64", can_be_sealed_to)]
    proof: Annotated[
        bytes,
        Reader(
            lambda value: in_base64(text(value), _SIGNATURE_BYTES),
            {**SIGNATURE, "description": "docs/wire.md says what is signed"},
        ),
    ]


class EnrolledDevice(Answer):
    """An instance whose keys the server knows."""

    service: Name
    instance: Name
    sign_keyid: Annotated[KeyId, about("of the key that signs its receipts: SHA-256, in hex")]
    enrolled_at: Time
    enrolled_by: Annotated[str, about("who let it enrol: the name of a token")]
    revoked_at: Annotated[Time | None, about("null: it is not revoked")]
    secrets: Annotated[list[str], about("that it can read, or could")]


class Devices(Answer):
    """Every instance that ever enrolled."""

    devices: Annotated[list[EnrolledDevice], about("revoked ones too")]


class RevokedDevice(Answer):
    """Nothing more is sealed to this instance."""

    service: Name
    instance: Name
    revoked: Always
    secrets: Annotated[list[str], about("that are to be set anew")]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


@operation(
    "A one-time token with which an instance enrols; shown this once",
    answers={201: EnrolmentToken},
    problems=(409,),
    takes=ADMINISTRATION,
    body=EnrolmentTokenRequest,
    description="Give it to the instance, which shows it once with `POST /api/v1/devices/enroll` "
    "(`config-manager client enroll`).",
)
async def allow_enrolment(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, EnrolmentTokenRequest)
    world = api.system.world
    token = make_token(world.randomness)
    expires_at = rfc3339(world.clock.now() + body.expires)
    token_hash = hash_of(token.reveal().encode())
    what = AllowEnrolment(token_hash, body.service, body.instance, expires_at)
    await administer(request, api, what)
    shown_once = token.reveal()  # to the caller who asked for it, now and never again
    answer = EnrolmentToken.of(body, expires_at=expires_at, token=shown_once)
    return json_response(answer, 201, NO_STORE)


@operation(
    "An instance shows its one-time token and its public keys",
    answers={201: EnrolledDevice},
    problems=(401, 409, 429),
    body=EnrolmentRequest,
    description="The one-time token is in the body. `proof` is a signature by the key that enrols; docs/wire.md "
    "says over what.",
)
async def enrol(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    body = read(request, EnrolmentRequest)
    token_hash = hash_of(body.token.encode())
    enrolment = Enrolment(
        token_hash, body.service, body.instance, body.sign_public, body.seal_public
    )
    by = Terms(f"{body.service}/{body.instance}", client=request.client_host)
    write = Write(Enrol(enrolment, body.proof), by)
    try:
        device = await api.system.storing.ask(write, request.context)
    except NotAuthenticated as refused:
        raise login_failed(request, api, refused.detail) from None
    # drop what others claimed in this instance's name before it enrolled
    api.system.statuses.start_over(body.service, body.instance)
    return json_response(EnrolledDevice.of(device, secrets=[]), 201)


@operation(
    "Every instance that enrolled, and which secrets it can read",
    answers={200: Devices},
    description="An instance that never enrolled is not here, even if it runs: `GET /api/v1/status` shows it.",
)
async def list_devices(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    committed = api.system.view.committed
    listed = [
        EnrolledDevice.of(device, secrets=sorted(could_read(committed, device)))
        for device in devices(committed)
    ]
    return json_response(Devices(devices=listed), headers=NO_STORE)


@operation(
    "Deliver nothing more; its secrets are marked to be set anew",
    answers={200: RevokedDevice},
    problems=(404, 409, 415),
    takes=ADMINISTRATION,
    description="What it can read it has read: set these secrets anew. The answer names them, and so does "
    "`rotate` in `GET /api/v1/secrets`.",
)
async def revoke_device(request: ApiRequest, api: Api) -> ApiResponse:
    service, instance = SERVICE.of(request), INSTANCE.of(request)
    secrets = await administer(request, api, RevokeDevice(service, instance))
    api.system.statuses.start_over(service, instance)
    answer = RevokedDevice(service=service, instance=instance, revoked=True, secrets=secrets)
    return json_response(answer)
