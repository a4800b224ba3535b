"""A handler with its description beside it: `api.server.pipeline` calls it, `api.rest.openapi` describes it.

    @operation("Every token", answers={200: Tokens})
    async def list_tokens(request: ApiRequest, api: Api) -> ApiResponse: ...

and one line in `api/server/routes.py` are all that a new call needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config_manager.api.rest.parameters import Parameter
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse
from config_manager.config.access import Need

Handler = Callable[[ApiRequest, Api], Awaitable[ApiResponse]]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """summary: None if it is not described. answers: the model of each status that is no problem, None for
    an answer without a body. problems: the statuses of refusals that do not follow from the route and
    what it takes (see `api.rest.openapi`). takes: every query parameter and header, and parameters of the path
    but services and instances. body: its model; media_type: how it is sent.
    """

    handle: Handler
    summary: str | None = None
    answers: Mapping[int, Any] = field(default_factory=dict[int, Any])
    problems: tuple[int, ...] = ()
    takes: tuple[Parameter, ...] = ()
    body: Any = None
    media_type: str = "application/json"


def operation(
    summary: str,
    *,
    answers: Mapping[int, Any],
    problems: tuple[int, ...] = (),
    takes: tuple[Parameter, ...] = (),
    body: Any = None,
    media_type: str = "application/json",
) -> Callable[[Handler], Operation]:
    """The decorated handler as an operation, with these fields."""
    return lambda handler: Operation(handler, summary, answers, problems, takes, body, media_type)


def undescribed(handler: Handler) -> Operation:
    """An operation that the OpenAPI document leaves out."""
    return Operation(handler)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """path: segments in braces are parameters. needs: what the caller must be allowed, for the
    path's `{service}` if it has one; None: no token is needed. A handler whose body names services asks
    `ApiRequest.grant` about each."""

    method: str
    path: str
    operation: Operation
    needs: Need | None
