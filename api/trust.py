"""The trust root over REST: shown to everybody, changed by administrators."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from config_manager.actors.messages import AddSigner, RevokeKey, RootChange, RotateRole, TakeRoot
from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import terms_of
from config_manager.config.documents import ROLES
from config_manager.config.durations import parse_duration
from config_manager.config.errors import FieldError, InvalidValues, MalformedRequest, NotFound
from config_manager.config.names import pointer
from config_manager.config.roots import Needs
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope

_MAX_DIGITS = 9
_PUBLIC_BYTES = 32
_DEFAULT_OVERLAP = "24h"


async def get_root(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    trust = api.system.trust
    return ApiResponse(200, trust.roots[trust.current.version])


async def get_root_version(request: ApiRequest, api: Api) -> ApiResponse:
    text = request.params["version"]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise MalformedRequest("a root's version is a number, such as 1")
    root = api.system.trust.roots.get(int(text))
    if root is None:
        raise NotFound(
            f"there is no root version {int(text)}; the newest is {api.system.trust.current.version}"
        )
    return ApiResponse(200, root)


async def get_pending(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    pending = api.system.trust.pending
    if pending is None:
        return json_response({"pending": None})
    return json_response({"pending": _pending(pending.envelope, pending.needs)})


async def post_rotate(request: ApiRequest, api: Api) -> ApiResponse:
    body = _body(request, "role", "overlap")
    role, overlap = body.get("role"), body.get("overlap", _DEFAULT_OVERLAP)
    if role not in ROLES:
        raise _wrong("/role", f"expected one of: {', '.join(ROLES)}")
    try:
        overlap_s = 0.0 if overlap in ("0", "0s") else parse_duration(str(overlap))
    except ValueError as error:
        raise _wrong("/overlap", str(error)) from None
    message = RotateRole(role=role, overlap_s=overlap_s, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


async def post_signer(request: ApiRequest, api: Api) -> ApiResponse:
    body = _body(request, "public", "threshold")
    threshold = body.get("threshold")
    if threshold is not None and type(threshold) is not int:
        raise _wrong("/threshold", "expected a whole number")
    message = AddSigner(
        public=_public(body.get("public")),
        threshold=threshold,
        terms=terms_of(request),
    )
    return _changed(await api.system.trusting.ask(message, request.context))


async def post_revoke(request: ApiRequest, api: Api) -> ApiResponse:
    key = _body(request, "keyid").get("keyid")
    if not isinstance(key, str):
        raise _wrong("/keyid", "expected a key's id, or at least its first 8 digits")
    message = RevokeKey(key=key, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


async def post_root(request: ApiRequest, api: Api) -> ApiResponse:
    request.json_object()  # the envelope as it is: its own bytes are what was signed
    message = TakeRoot(envelope=request.body, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


def _changed(change: RootChange) -> ApiResponse:
    root = change.root
    answer: dict[str, Any] = {
        "version": root.version,
        "adopted": not change.needs,
        "roles": {
            name: {"keyids": list(role.keyids), "threshold": role.threshold}
            for name, role in root.roles.items()
        },
    }
    if change.needs:
        return json_response({**answer, "pending": _pending(change.envelope, change.needs)}, 202)
    return json_response(answer)


def _pending(envelope: Envelope, needs: tuple[Needs, ...]) -> JsonObject:
    return {
        "envelope": envelope.to_object(),
        "needs": [
            {
                "version": one.version,
                "threshold": one.threshold,
                "missing": one.missing,
                "keyids": list(one.keyids),
            }
            for one in needs
        ],
        "how": "sign `envelope` where those keys are kept (config-manager trust sign --key KEY "
        "--in FILE --out FILE), then bring it back: config-manager trust apply FILE",
    }


def _body(request: ApiRequest, *known: str) -> JsonObject:
    request.allow_query("reason")
    body = request.json_object()
    unknown = [key for key in body if key not in known]
    if unknown:
        raise _wrong(pointer(unknown[0]), f"unknown; known: {', '.join(known)}")
    return body


def _public(value: object) -> bytes:
    try:
        public = base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if len(public) != _PUBLIC_BYTES:
        raise _wrong("/public", "expected an Ed25519 public key: 32 bytes in base64")
    return public


def _wrong(where: str, detail: str) -> InvalidValues:
    return InvalidValues("the root was not changed", [FieldError(where, detail)])
