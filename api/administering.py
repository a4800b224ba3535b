"""Has an administration done for whoever asks for it over REST."""

from __future__ import annotations

from typing import TypeVar

from config_manager.actors.messages import Administer
from config_manager.api.endpoint import Api, ApiRequest
from config_manager.api.write_terms import idempotency_of, reason_of
from config_manager.storage.administration import Administration

A = TypeVar("A")


async def administer(request: ApiRequest, api: Api, what: Administration[A]) -> A:
    """Have it done in the caller's name, with the query's `reason` and the Idempotency-Key.

    Raises MalformedRequest and what the administration refuses; IdempotencyMismatch where the key
    stands for another request, Conflict where it stands for this one and its answer isn't kept.
    """
    request.allow_query("reason")
    message = Administer(
        what=what,
        by=request.by,
        reason=reason_of(request),
        idempotency=idempotency_of(request),
    )
    answer: A = await api.system.storing.ask(message, request.context)
    return answer
