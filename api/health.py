"""Health: needs no token."""

from __future__ import annotations

from dataclasses import asdict

from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response


async def get_health(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    report = api.system.health()
    return json_response(asdict(report), 200 if report.ok else 503, NO_STORE)
