"""Tokens over REST: made (the only time one is shown), listed, revoked."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from config_manager.api.rest.models import (
    DURATION,
    HIDDEN,
    NAME,
    TEXT,
    Always,
    Answer,
    Body,
    ListedPatterns,
    Reader,
    ServicePatterns,
    Time,
    about,
    read,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Path
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, administer
from config_manager.config.access import EVERY_SERVICE, Role
from config_manager.config.durations import parse_duration
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.tokens import (
    CreateToken,
    RevokeToken,
    Token,
    hash_of,
    is_token_name,
    make_token,
    tokens,
)

# ── what it looks like ─────────────────────────────────────────────────────────────────────────


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not is_token_name(value):
        raise ValueError(
            "expected 1 to 63 of a-z, 0-9 and '-', and none of the names that logs use for "
            "others (anonymous, dev, settings, admin, bootstrap, config-manager)"
        )
    return value


def _parse_expires(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{error}; null: never") from None


_Role = Annotated[
    Role,
    about(
        "read looks, write also changes configurations, secrets reads and handles secrets, admin "
        "does everything"
    ),
]


class TokenRequest(Body):
    """A token to be made."""

    REFUSED: ClassVar[str] = "no token can be made of this; nothing was made"

    name: Annotated[
        str, Reader(_parse_name, {**NAME, "description": "what history, logs and audit call it"})
    ]
    role: _Role
    services: ServicePatterns = EVERY_SERVICE
    expires: Annotated[
        int | None,
        Reader(
            _parse_expires,
            {
                "anyOf": [DURATION, {"type": "null"}],
                "examples": ["90d", "12h"],
                "description": "from now, such as 90d; null: it never expires",
            },
        ),
    ] = None


class _Token(Answer):
    name: Annotated[str, about("what history, logs and audit call it")]
    role: _Role
    services: ListedPatterns
    created_at: Annotated[Time | None, about("null: not known")]
    expires_at: Annotated[Time | None, about("null: never")]


class MadeToken(_Token):
    """A new token."""

    token: Annotated[str, about("shown this once; only its hash is kept"), HIDDEN]


class ListedToken(_Token):
    """What is told of a token; itself it never is."""

    created_by: Annotated[
        str, about("the name of the token that made it; `settings`: the server's own")
    ]
    last_used_at: Annotated[Time | None, about("null: never, as far as is known")]
    expired: bool


class Tokens(Answer):
    """Every token that was not revoked."""

    tokens: list[ListedToken]


class RevokedToken(Answer):
    """The token is refused from now on."""

    name: str
    role: _Role
    revoked: Always


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_NAME = Path("name", "the token's name", TEXT, str)


@operation(
    "Make a token; it is shown this once",
    answers={201: MadeToken},
    problems=(409,),
    takes=ADMINISTRATION,
    body=TokenRequest,
    description="Give each person and program its own: its name is what history, logs and audit say. Only its "
    "hash is kept, so a repetition with the same Idempotency-Key is 409.",
)
async def create_token(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, TokenRequest)
    world = api.system.world
    token = make_token(world.randomness)
    what = CreateToken(
        name=body.name,
        token_hash=hash_of(token.reveal().encode()),
        role=body.role,
        services=body.services,
        expires_at=None if body.expires is None else rfc3339(world.clock.now() + body.expires),
    )
    made = await administer(request, api, what)
    # to the caller who asked for it, now and never again
    return json_response(MadeToken.of(made, token=token.reveal()), 201, NO_STORE)


@operation(
    "Every token: what it may do, until when, when it was last used",
    answers={200: Tokens},
    description="Tokens that have expired are listed too, until they are revoked.",
)
async def list_tokens(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    now = api.system.world.clock.now()
    known = sorted(tokens(api.system.view.committed).items())
    listed = [
        ListedToken.of(
            token,
            last_used_at=_last_use(token, api.system.callers.uses.get(token.hash)),
            expired=token.is_expired(now),
        )
        for _, token in known
    ]
    return json_response(Tokens(tokens=listed), headers=NO_STORE)


@operation(
    "End a token at once",
    answers={200: RevokedToken},
    problems=(404, 409),
    takes=(_NAME, *ADMINISTRATION),
    description="Its next request is refused.",
)
async def revoke_token(request: ApiRequest, api: Api) -> ApiResponse:
    revoked = await administer(request, api, RevokeToken(_NAME.of(request)))
    return json_response(RevokedToken(name=revoked["name"], role=revoked["role"], revoked=True))


def _last_use(token: Token, noted: float | None) -> str | None:
    """What was noted since the start is newer than what was written down."""
    return token.last_used_at if noted is None else rfc3339(noted)
