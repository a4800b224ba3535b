"""Health: needs no token."""

from __future__ import annotations

from config_manager.actors.views import HealthReport
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.operations import operation


class Health(HealthReport):
    """The report, as OpenAPI calls it."""


@operation(
    "How the service is, and why it is not ok", answers={200: Health, 503: Health}, problems=(400,)
)
async def health(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    report = api.system.health()
    return json_response(report, 200 if report.ok else 503, NO_STORE)
