"""Tokens over REST: made (the only time one is shown), listed, revoked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import administer
from config_manager.config.access import EVERY_SERVICE, ROLES, Role, is_pattern
from config_manager.config.durations import parse_duration
from config_manager.config.errors import FieldError, InvalidValues
from config_manager.config.names import pointer
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.tokens import (
    CreateToken,
    RevokeToken,
    Token,
    hash_of,
    is_token_name,
    make_token,
    tokens,
)

_FIELDS = ("name", "role", "services", "expires")
_MOST_PATTERNS = 64


async def post_token(request: ApiRequest, api: Api) -> ApiResponse:
    body = request.json_object()
    _check(body)
    world = api.system.world
    expires = body.get("expires")
    token = make_token(world.randomness)
    what = CreateToken(
        name=body["name"],
        token_hash=hash_of(token.reveal().encode()),
        role=cast("Role", body["role"]),
        services=tuple(body.get("services", EVERY_SERVICE)),
        expires_at=None
        if expires is None
        else rfc3339(world.clock.now() + parse_duration(expires)),
        by=request.by,
    )
    made = await administer(request, api, what)
    shown_once = token.reveal()  # to who asked for it, now and never again
    return json_response({**_shown(made), "token": shown_once}, 201, NO_STORE)


async def list_tokens(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    now = api.system.world.clock.now()
    known = sorted(tokens(api.system.view.committed).items())
    return json_response(
        {
            "tokens": [
                {
                    **_shown(token),
                    "created_by": token.created_by,
                    "last_used_at": _last_use(token, api.system.callers.uses.get(token.hash)),
                    "expired": token.is_expired(now),
                }
                for _, token in known
            ]
        },
        headers=NO_STORE,
    )


async def delete_token(request: ApiRequest, api: Api) -> ApiResponse:
    revoked = await administer(request, api, RevokeToken(request.params["name"]))
    return json_response({**revoked, "revoked": True})


def _shown(token: Token) -> Mapping[str, Any]:
    return {
        "name": token.name,
        "role": token.role,
        "services": list(token.services),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }


def _last_use(token: Token, noted: float | None) -> str | None:
    """What was noted since the start is newer than what was written down."""
    return token.last_used_at if noted is None else rfc3339(noted)


def _check(body: JsonObject) -> None:
    """Raises InvalidValues, naming everything that is wrong."""
    wrong = [
        FieldError(pointer(key), f"unknown; known: {', '.join(_FIELDS)}")
        for key in body
        if key not in _FIELDS
    ]
    name, role, expires = body.get("name"), body.get("role"), body.get("expires")
    if not isinstance(name, str) or not is_token_name(name):
        wrong.append(
            FieldError(
                "/name",
                "expected 1 to 63 of a-z, 0-9 and '-', and none of the names that logs use for "
                "others (anonymous, dev, settings, admin, bootstrap, config-manager)",
            )
        )
    if role not in ROLES:
        wrong.append(FieldError("/role", f"expected one of: {', '.join(ROLES)}"))
    if "services" in body:
        wrong += _wrong_services(body["services"])
    if expires is not None:
        try:
            parse_duration(expires if isinstance(expires, str) else "")
        except ValueError as error:
            wrong.append(FieldError("/expires", f"{error}; null: never"))
    if wrong:
        raise InvalidValues("no token can be made of this; nothing was made", wrong)


def _wrong_services(services: object) -> list[FieldError]:
    if not isinstance(services, list) or not 1 <= len(services) <= _MOST_PATTERNS:
        return [FieldError("/services", f"expected a list of 1 to {_MOST_PATTERNS} patterns")]
    return [
        FieldError(
            pointer("services", index),
            "expected a service's name, `*` standing for any text: tts-*",
        )
        for index, pattern in enumerate(services)
        if not isinstance(pattern, str) or not is_pattern(pattern)
    ]
