"""The secrets key over REST: rotated, and how far that is."""

from __future__ import annotations

from config_manager.actors.messages import RotateSecretsKey
from config_manager.actors.secrets_rotating import RotationReport
from config_manager.api.endpoint import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.write_terms import terms_of
from config_manager.config.strict_json import JsonObject


async def get_rotation(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    return json_response(_report(api.system.rotation()), headers=NO_STORE)


async def post_rotation(request: ApiRequest, api: Api) -> ApiResponse:
    """One at a time: while one runs, the answer is that one, whoever began it."""
    request.allow_query("reason")
    await api.system.rotating.ask(RotateSecretsKey(terms=terms_of(request)), request.context)
    return json_response(_report(api.system.rotation()), 202, headers=NO_STORE)


def _report(report: RotationReport) -> JsonObject:
    rotation = report.rotation
    return {
        "state": report.state,
        "done": report.done,
        "total": report.total,
        "unreadable": report.unreadable,
        "key_id": report.key_id,
        "old_key_id": rotation and rotation.old,
        "new_key_id": rotation and rotation.new,
        "started_at": rotation and rotation.started_at,
        "finished_at": rotation and rotation.finished_at,
        "by": rotation and rotation.by,
        "correlation_id": rotation and rotation.correlation_id,
        "to_do": report.to_do,
    }
