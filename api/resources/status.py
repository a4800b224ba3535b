"""What runs where, beside what should run there: the instances' receipts over REST; and the way to
forget an instance that will not come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from config_manager.actors import statuses
from config_manager.actors.forgetting import ForgetInstance
from config_manager.api.rest.models import Answer, Name, Time, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import INSTANCE, SERVICE, service_in_query
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, administer
from config_manager.config.documents.receipt import Running
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.drift import is_in_sync
from config_manager.storage.state import Committed

# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class Wanted(Answer):
    revision: int
    digest: str


class LastAttempt(Answer):
    revision: int
    stage: str
    reason: str | None
    deaths: Annotated[int, about("in a row, within its bake time; left out if none")] = 0


class InstanceAnswer(Answer):
    service: Name
    instance: Name
    enrolled: Annotated[bool, about("false: the rest is only claimed")]
    wanted: Wanted | None
    running: Running | None
    in_sync: Annotated[bool, about("it is there and runs what is wanted")]
    since: Time
    received_at: Time
    freshness: Annotated[str, Field(examples=["fresh", "stale (no-beacon)"])]
    source: Annotated[str, Field(examples=["broker", "last-known-good", "defaults"])]
    overrides: Annotated[Sequence[str], about("keys that the instance's own environment decides")]
    last_attempt: LastAttempt | None
    library: str
    gone: bool
    correlation_id: str | None


class StatusAnswer(Answer):
    instances: list[InstanceAnswer]
    refused: Annotated[int, about("messages that were no receipts, since the start")]


class ForgottenInstance(Answer):
    service: Name
    instance: Name
    forgotten: Literal[True]
    away: Annotated[
        list[str],
        about(
            "brokers that are not connected now: what they retain of it is emptied once they are"
        ),
    ]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_OF_SERVICE = service_in_query("only this service's instances")


@operation(
    "What each instance says it runs, beside what it should run",
    answers={200: StatusAnswer},
    takes=(_OF_SERVICE,),
)
async def status(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service = _OF_SERVICE.of(request)
    if service is not None:
        request.grant.require("read", service)
    board, committed = api.system.statuses, api.system.view.committed
    instances = [
        _instance(one, committed)
        for one in board.statuses(service)
        if request.grant.covers(one.receipt.service)
    ]
    return json_response(StatusAnswer(instances=instances, refused=board.refused), headers=NO_STORE)


@operation(
    "Forget an instance that is gone and will not come back; it stays enrolled",
    answers={200: ForgottenInstance},
    problems=(404, 409),
    takes=ADMINISTRATION,
)
async def forget_instance(request: ApiRequest, api: Api) -> ApiResponse:
    service, instance = SERVICE.of(request), INSTANCE.of(request)
    board, brokers = api.system.statuses, api.system.confirmations.brokers
    what = ForgetInstance.of(service, instance, board, brokers)
    answer = await administer(request, api, what)
    board.drop_forgotten(service, instance)
    return json_response(answer)


def _instance(status: statuses.InstanceStatus, committed: Committed) -> InstanceAnswer:
    receipt = status.receipt
    wanted = committed.live(receipt.service)
    running = receipt.running
    attempt = receipt.last_attempt
    return InstanceAnswer.of(
        receipt,
        enrolled=status.verified,  # if not, the receipt is only a claim
        wanted=wanted,
        in_sync=is_in_sync(wanted, running, gone=status.gone),
        since=rfc3339(status.since),
        received_at=rfc3339(status.received_at),
        last_attempt=None if attempt is None else attempt.to_object(),
        gone=status.gone,
    )
