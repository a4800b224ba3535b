"""Devices over REST: allowed by a one-time token, enrolled by themselves, listed, revoked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from config_manager.actors.messages import Administer
from config_manager.api.auth import login_failed
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import administer
from config_manager.config.durations import parse_duration
from config_manager.config.enrolment import Enrolment
from config_manager.config.errors import FieldError, InvalidValues, NotAuthenticated
from config_manager.config.names import parse_instance, parse_service, pointer
from config_manager.config.public_keys import KEY_BYTES, can_be_sealed_to, can_sign
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.devices import (
    AllowEnrolment,
    Device,
    Enrol,
    RevokeDevice,
    could_read,
    devices,
)
from config_manager.storage.terms import Terms
from config_manager.storage.tokens import hash_of, make_token

_DEFAULT_EXPIRES = "1h"
_SIGNATURE_BYTES = 64


async def post_enrolment_token(request: ApiRequest, api: Api) -> ApiResponse:
    body = _body(request, "service", "instance", "expires")
    service = parse_service(_text(body, "service"))
    instance = None if body.get("instance") is None else parse_instance(_text(body, "instance"))
    try:
        expires_s = parse_duration(str(body.get("expires") or _DEFAULT_EXPIRES))
    except ValueError as error:
        raise _wrong("/expires", str(error)) from None
    world = api.system.world
    token = make_token(world.randomness)
    expires_at = rfc3339(world.clock.now() + expires_s)
    what = AllowEnrolment(
        hash_of(token.reveal().encode()), service, instance, expires_at, request.by
    )
    await administer(request, api, what)
    answer = {"service": service, "instance": instance, "expires_at": expires_at}
    shown_once = token.reveal()  # to who asked for it, now and never again
    return json_response({**answer, "token": shown_once}, 201, NO_STORE)


async def post_enrol(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    body = _body(request, "token", "service", "instance", "sign_public", "seal_public", "proof")
    service = parse_service(_text(body, "service"))
    instance = parse_instance(_text(body, "instance"))
    enrolment = Enrolment(
        hash_of(_text(body, "token").encode()),
        service,
        instance,
        _key(body, "sign_public", can_sign),
        _key(body, "seal_public", can_be_sealed_to),
    )
    what = Enrol(enrolment, _bytes(body, "proof", _SIGNATURE_BYTES))
    message = Administer(what=what, terms=Terms(f"{service}/{instance}"))
    try:
        device = await api.system.storing.ask(message, request.context)
    except NotAuthenticated as refused:
        raise login_failed(request, api, refused.detail) from None
    api.system.statuses.start_over(service, instance)  # what was claimed in its name before
    return json_response(_shown(device, []), 201)


async def list_devices(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    committed = api.system.view.committed
    shown = [_shown(device, sorted(could_read(committed, device))) for device in devices(committed)]
    return json_response({"devices": shown}, headers=NO_STORE)


async def delete_device(request: ApiRequest, api: Api) -> ApiResponse:
    service = parse_service(request.params["service"])
    instance = parse_instance(request.params["instance"])
    secrets = await administer(request, api, RevokeDevice(service, instance))
    api.system.statuses.start_over(service, instance)
    return json_response(
        {"service": service, "instance": instance, "revoked": True, "secrets": secrets}
    )


def _shown(device: Device, secrets: list[str]) -> JsonObject:
    return {
        "service": device.service,
        "instance": device.instance,
        "sign_keyid": device.sign_keyid,
        "enrolled_at": device.enrolled_at,
        "enrolled_by": device.enrolled_by,
        "revoked_at": device.revoked_at,
        "secrets": secrets,
    }


def _body(request: ApiRequest, *known: str) -> JsonObject:
    body = request.json_object()
    unknown = [key for key in body if key not in known]
    if unknown:
        raise _wrong(pointer(unknown[0]), f"unknown; known: {', '.join(known)}")
    return body


def _text(body: JsonObject, name: str) -> str:
    value: Any = body.get(name)
    if not isinstance(value, str):
        raise _wrong(pointer(name), "expected text")
    return value


def _bytes(body: JsonObject, name: str, size: int) -> bytes:
    try:
        value = base64.b64decode(_text(body, name), validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != size:
        raise _wrong(pointer(name), f"expected {size} bytes in base64")
    return value


def _key(body: JsonObject, name: str, is_usable: Callable[[bytes], bool]) -> bytes:
    key = _bytes(body, name, KEY_BYTES)
    if not is_usable(key):
        raise _wrong(
            pointer(name), "this is no usable public key: of low order, or not on the curve"
        )
    return key


def _wrong(where: str, detail: str) -> InvalidValues:
    return InvalidValues("nothing was done", [FieldError(where, detail)])
