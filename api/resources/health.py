"""Health: needs no token."""

from __future__ import annotations

from typing import Annotated

from config_manager.actors.views import Mode
from config_manager.api.rest.models import Answer, EpochId, EpochSeq, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response


class Health(Answer):
    """How the server is."""

    # what is sent is an `actors.views.HealthReport`: anybody may ask, and a model would cost more
    ok: Annotated[bool, about("whether everything works; the status is 200 or 503 accordingly")]
    mode: Annotated[Mode, about("read-only: writes are refused, and `reasons` says why")]
    database_available: bool
    cache_available: Annotated[bool, about("whether the last-known-good cache can be written")]
    broker: Annotated[dict[str, str], about("a broker's URL, without its login → its state")]
    config_epoch: EpochId
    epoch_seq: EpochSeq
    revision: Annotated[int, about("of the newest change")]
    outbox_depth: Annotated[int, about("services whose newest revision no broker is known to hold")]
    actors: Annotated[dict[str, str], about("a part of the server → its state")]
    reasons: Annotated[list[str], about("what an operator should know; why it is not ok")]


@operation(
    "How the service is, and why it is not ok",
    answers={200: Health, 503: Health},
    problems=(400,),
    description="503 if the database is read-only, a part of the server is down, or no broker was connected for "
    "30 s. There is no path and no secret in it.",
)
async def health(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    report = api.system.health()
    return json_response(report, 200 if report.ok else 503, NO_STORE)
