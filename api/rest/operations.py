"""A handler with its description beside it: `api.server.pipeline` calls it, `api.rest.openapi` describes it.

    @operation("Every token", answers={200: Tokens}, description="…")
    async def list_tokens(request: ApiRequest, api: Api) -> ApiResponse: ...

and one line in `api/server/routes.py` are all that a new call needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config_manager.api.rest.parameters import INSTANCE, SERVICE, Parameter, Path
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse
from config_manager.config.access import Need

Handler = Callable[[ApiRequest, Api], Awaitable[ApiResponse]]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """summary: None if it is not described. answers: the model of each status that is no problem, None for
    an answer without a body. problems: the statuses of refusals that do not follow from the route and
    what it takes (see `api.rest.openapi`). takes: every query parameter and header, and parameters of the path
    but services and instances. body: its model; media_type: how it is sent. description: what a caller
    should know beside the summary, in CommonMark. tagged: whether answers carry an `ETag`. optional_body: the
    body may be left out.
    only_refuses: no request gets anything else from it, so no `Allow` names it. produces: the media type of its answers.
    events: of an answer that is a stream of events, the model of each event's data, by its name.
    """

    handle: Handler
    summary: str | None = None
    answers: Mapping[int, Any] = field(default_factory=dict[int, Any])
    problems: tuple[int, ...] = ()
    takes: tuple[Parameter, ...] = ()
    body: Any = None
    media_type: str = "application/json"
    description: str = ""
    tagged: bool = False
    optional_body: bool = False
    only_refuses: bool = False
    events: Mapping[str, Any] = field(default_factory=dict[str, Any])
    produces: str = "application/json"


def operation(
    summary: str,
    *,
    answers: Mapping[int, Any],
    problems: tuple[int, ...] = (),
    takes: tuple[Parameter, ...] = (),
    body: Any = None,
    media_type: str = "application/json",
    description: str = "",
    tagged: bool = False,
    optional_body: bool = False,
    events: Mapping[str, Any] | None = None,
    produces: str = "application/json",
) -> Callable[[Handler], Operation]:
    """The decorated handler as an operation, with these fields."""
    return lambda handler: Operation(
        *(handler, summary, answers, problems, takes, body, media_type, description, tagged),
        optional_body=optional_body,
        events=events or {},
        produces=produces,
    )


def undescribed(handler: Handler) -> Operation:
    """An operation that the OpenAPI document leaves out."""
    return Operation(handler)


def only_refusing(handler: Handler) -> Operation:
    """An operation that refuses every request: it stands where a name is reserved."""
    return Operation(handler, only_refuses=True)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """path: segments in braces are parameters. needs: what the caller must be allowed, for the
    path's `{service}` if it has one; None: no token is needed. A handler whose body names services asks
    `ApiRequest.grant` about each."""

    method: str
    path: str
    operation: Operation
    needs: Need | None

    @property
    def in_path(self) -> tuple[Path[Any], ...]:
        """The path's parameters."""
        named = [one for one in (SERVICE, INSTANCE) if f"{{{one.name}}}" in self.path.split("/")]
        return (*named, *(one for one in self.operation.takes if isinstance(one, Path)))
