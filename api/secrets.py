"""Secrets over REST: in, never out."""

from __future__ import annotations

from config_manager.actors.messages import SetSecret
from config_manager.api.configs import propagation_of, write_options
from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, json_response
from config_manager.config.errors import FieldError, InvalidValues
from config_manager.config.names import parse_service, pointer
from config_manager.config.secret import Secret

_FIELDS = ("service", "name", "value")


async def post_secret(request: ApiRequest, api: Api) -> ApiResponse:
    body = request.json_object()
    errors = [
        FieldError(pointer(field), "expected text")
        for field in _FIELDS
        if not isinstance(body.get(field), str)
    ]
    errors += [
        FieldError(pointer(key), f"unknown; known: {', '.join(_FIELDS)}")
        for key in body
        if key not in _FIELDS
    ]
    if errors:
        raise InvalidValues("a secret is a service, a name and a value", errors)
    name: str = body["name"]
    service = parse_service(body["service"])
    request.grant.require("secrets", service)
    message = SetSecret(
        service=service,
        name=name,
        value=Secret(body["value"]),
        **write_options(request),
    )
    written = await api.system.storing.ask(message, request.context)
    state = written.state
    answer: dict[str, object] = {
        "service": state.service,
        "name": name,
        "version": state.secrets[name],
        "revision": state.revision,
        "updated_at": state.updated_at,
    }
    if message.dry_run:
        return json_response({**answer, "dry_run": True})
    propagation = await propagation_of(request, api, [state])
    answer |= {"correlation_id": state.correlation_id, "propagation": propagation}
    return json_response(answer, 201)
