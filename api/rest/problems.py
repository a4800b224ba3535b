"""Errors as RFC 9457 problem documents: the one place where an error becomes an HTTP answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import structlog
import trio
from pydantic import WithJsonSchema

from config_manager.actors.actor import Full, Gone
from config_manager.api.rest.models import TEXT, Answer, about
from config_manager.api.rest.request import ApiResponse
from config_manager.config import strict_json
from config_manager.config.errors import (
    DESCRIPTIONS,
    Busy,
    ConfigManagerError,
    DeadlineExceeded,
    MethodNotAllowed,
    NotAuthenticated,
    Refusal,
    TooManyRequests,
    UnsupportedMediaType,
)

PROBLEM_JSON = b"application/problem+json"


_Reference = Annotated[str, WithJsonSchema({**TEXT, "format": "uri-reference"})]


_Type = Annotated[
    _Reference, about("`/problems/NAME`; NAME is stable, and `GET /problems/{name}` explains it")
]
_Title = Annotated[str, about("what the type means, in a few words")]
_Status = Annotated[int, about("the HTTP status")]


class _FieldError(Answer):
    """What is wrong with one value."""

    pointer: Annotated[str, about("where it is in the body: a JSON pointer (RFC 6901)")]
    detail: Annotated[str, about("what is allowed there")]


class Problem(Answer):
    """Why a request was refused (RFC 9457). A problem may have members of its own beside these."""

    type: _Type
    title: _Title
    status: _Status
    detail: Annotated[str, about("what went wrong this time and what to do, for people")]
    request_id: Annotated[str, about("as in X-Request-ID; the server's log has it too")]
    errors: Annotated[
        Sequence[_FieldError], about("of invalid input (422): each value that is wrong")
    ] = ()
    current_revision: Annotated[int, about("of `revision-conflict`: the service's revision")] = 0
    expected: Annotated[
        str | None,
        about("of `revision-conflict`: what If-Match named; null: If-None-Match: * was sent"),
    ] = None


class ExplanationAnswer(Answer):
    """What a problem's type means."""

    type: _Type
    title: _Title
    status: _Status
    meaning: Annotated[str, about("when it comes, and what to do; for people")]


def problem_type(name: str) -> str:
    """The problem's `type`: a relative reference that this server answers with an explanation."""
    return f"/problems/{name}"


def names_of(status: int) -> list[str]:
    """The names of the problems that may come with a status."""
    return sorted(
        one.name
        for error, one in DESCRIPTIONS.items()
        if one.status == status and issubclass(error, Refusal) and error is not Refusal
    )


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
