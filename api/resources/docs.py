"""The API's own description: the OpenAPI document, and what each problem's type means."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import WithJsonSchema

from config_manager.api.rest import openapi as description
from config_manager.api.rest.models import TEXT
from config_manager.api.rest.operations import Route, operation
from config_manager.api.rest.parameters import Path
from config_manager.api.rest.problems import ExplanationAnswer, explanation
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.config import strict_json
from config_manager.config.errors import NotFound

_NAME = Path("name", "the last segment of a problem's type", TEXT, str)


_Document = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {"type": "object", "additionalProperties": True, "description": "an OpenAPI 3.1 document"}
    ),
]


@operation(
    "This document",
    answers={200: _Document},
    description="`GET /docs` shows it to people.",
)
async def openapi(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(200, _openapi_bytes(api.routes))


@cache
def _openapi_bytes(routes: tuple[Route, ...]) -> bytes:
    return strict_json.dumps(description.openapi(routes))


@operation(
    "What a problem's type means",
    answers={200: ExplanationAnswer},
    problems=(404,),
    takes=(_NAME,),
    description="`name` is the last segment of the `type` of a problem.",
)
async def problem(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    found = explanation(_NAME.of(request))
    if found is None:
        raise NotFound("no problem of ours has this name")
    return json_response(found)
