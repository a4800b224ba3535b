"""What needs no token: health, and the trust root byte for byte as it is retained."""

from __future__ import annotations

from dataclasses import asdict

from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.config.errors import MalformedRequest, NotFound

_MAX_DIGITS = 9


async def get_health(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    report = api.system.health()
    return json_response(asdict(report), 200 if report.ok else 503, NO_STORE)


async def get_root(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    roots = api.system.roots
    return ApiResponse(200, roots[max(roots)])


async def get_root_version(request: ApiRequest, api: Api) -> ApiResponse:
    text = request.params["version"]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise MalformedRequest("a root's version is a number, such as 1")
    root = api.system.roots.get(int(text))
    if root is None:
        raise NotFound(
            f"there is no root version {int(text)}; the newest is {max(api.system.roots)}"
        )
    return ApiResponse(200, root)
