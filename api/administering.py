"""What every administration over REST has in common: who, why, and the ask itself."""

from __future__ import annotations

from typing import TypeVar

from config_manager.actors.messages import Administer
from config_manager.api.endpoint import Api, ApiRequest
from config_manager.config.errors import MalformedRequest
from config_manager.storage.administration import Administration

A = TypeVar("A")

MAX_REASON = 500


async def administer(request: ApiRequest, api: Api, what: Administration[A]) -> A:
    """Have it done in the caller's name, with the query's `reason`.

    Raises MalformedRequest and what the administration refuses.
    """
    request.allow_query("reason")
    message = Administer(what=what, by=request.by, reason=reason_of(request))
    answer: A = await api.system.storing.ask(message, request.context)
    return answer


def reason_of(request: ApiRequest) -> str | None:
    """The query's `reason`: why, in the operator's words; raises MalformedRequest."""
    reason = request.query.get("reason")
    if reason is not None and len(reason) > MAX_REASON:
        raise MalformedRequest(f"reason: at most {MAX_REASON} characters")
    return reason
