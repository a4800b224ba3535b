"""Health: needs no token."""

from __future__ import annotations

from config_manager.actors.views import HealthReport
from config_manager.api.rest.operations import operation
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response


class Health(HealthReport):
    """The report, as OpenAPI calls it."""


@operation(
    "How the service is, and why it is not ok", answers={200: Health, 503: Health}, problems=(400,)
)
async def health(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    report = api.system.health()
    return json_response(report, 200 if report.ok else 503, NO_STORE)
