"""Errors as RFC 9457 problem documents: the one place where an error becomes an HTTP answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import structlog
import trio
from pydantic import WithJsonSchema

from config_manager.actors.actor import Full, Gone
from config_manager.api.rest.models import TEXT, Answer
from config_manager.api.rest.request import ApiResponse
from config_manager.config import strict_json
from config_manager.config.errors import (
    DESCRIPTIONS,
    Busy,
    ConfigManagerError,
    DeadlineExceeded,
    MethodNotAllowed,
    NotAuthenticated,
    TooManyRequests,
    UnsupportedMediaType,
)

PROBLEM_JSON = b"application/problem+json"


_Reference = Annotated[str, WithJsonSchema({**TEXT, "format": "uri-reference"})]


class _FieldError(Answer):
    pointer: str
    detail: str


class Problem(Answer):
    """A problem may have members of its own beside these."""

    type: _Reference
    title: str
    status: int
    detail: str
    request_id: str
    errors: Sequence[_FieldError] = ()
    current_revision: int = 0


class ExplanationAnswer(Answer):
    type: _Reference
    title: str
    status: int
    meaning: str


def problem_type(name: str) -> str:
    """The problem's `type`: a relative reference that this server answers with an explanation."""
    return f"/problems/{name}"


def as_error(error: Exception) -> ConfigManagerError:
    """What the outside sees of anything that went wrong."""
    match error:
        case ConfigManagerError():
            return error
        case Gone():
            return Busy(
                "the part that handles this went away before it answered and is starting again; "
                "the outcome is unknown: read, then repeat (an Idempotency-Key makes that safe)"
            )
        case Full():
            return Busy("too many requests are waiting; nothing was done, try again")
        case trio.TooSlowError():
            return DeadlineExceeded(
                "not answered in time; the outcome is unknown: read before you repeat it"
            )
        case _:
            structlog.get_logger().error("unexpected error", exc_info=error)
            return ConfigManagerError("something unexpected happened; the log has it under this id")


def problem(error: Exception, request_id: str) -> ApiResponse:
    """The problem document of an error, with the headers that belong to its status."""
    shown = as_error(error)
    description = shown.description
    headers: list[tuple[bytes, bytes]] = []
    retry_after_s = description.retry_after_s
    if isinstance(shown, TooManyRequests):
        retry_after_s = shown.retry_after_s
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    if isinstance(shown, NotAuthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="config-manager"'))
    if isinstance(shown, MethodNotAllowed):
        headers.append((b"allow", ", ".join(shown.allowed).encode()))
    if isinstance(shown, UnsupportedMediaType):
        headers += [
            (name.lower().encode(), value.encode()) for name, value in shown.accepted.items()
        ]
    body = strict_json.dumps(
        {
            "type": problem_type(description.name),
            "title": description.title,
            "status": description.status,
            "detail": shown.detail,
            "request_id": request_id,
            **shown.extensions,
        }
    )
    return ApiResponse(description.status, body, tuple(headers), PROBLEM_JSON)


def explanation(name: str) -> ExplanationAnswer | None:
    """What `GET /problems/{name}` answers, or None for a name nobody uses."""
    for kind, description in DESCRIPTIONS.items():
        if description.name == name:
            return ExplanationAnswer(
                type=problem_type(name),
                title=description.title,
                status=description.status,
                meaning=" ".join((kind.__doc__ or description.title).split()),
            )
    return None
