"""What runs where, beside what should run there: the instances' receipts over REST; and the way to
forget an instance that will not come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from config_manager.actors import statuses
from config_manager.actors.forgetting import ForgetInstance
from config_manager.api.rest.models import (
    Always,
    Answer,
    Digest,
    EpochSeq,
    Name,
    Revision,
    Time,
    about,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import INSTANCE, SERVICE, service_in_query
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, administer
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.drift import is_in_sync
from config_manager.storage.state import Committed

# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class Wanted(Answer):
    """What an instance should run."""

    revision: Revision
    digest: Digest


Content = Annotated[
    str | None,
    about("of the decision that its message came from; left out if the message had none"),
]


class Running(Answer):
    """What an instance runs."""

    epoch_seq: EpochSeq
    revision: Revision
    digest: Digest
    content: Content = None


class LastAttempt(Answer):
    """The last configuration that an instance was given, and how far it got with it."""

    revision: Revision
    stage: Annotated[
        str,
        Field(description="how far it got", examples=["applied", "healthy", "refused", "deferred"]),
    ]
    reason: Annotated[str | None, about("why it got no further")]
    deaths: Annotated[int, about("in a row, within its bake time; left out if none")] = 0
    content: Content = None
    at: Annotated[
        Time | None, about("when it got there, by its own clock; left out by older clients")
    ] = None
    took_ms: Annotated[
        int | None, about("milliseconds since it was received; left out if not known")
    ] = None


class InstanceAnswer(Answer):
    """One instance, as of its newest receipt."""

    service: Name
    instance: Name
    enrolled: Annotated[bool, about("false: the rest is only claimed")]
    wanted: Annotated[Wanted | None, about("null: nobody has written its service")]
    running: Annotated[Running | None, about("null: its model's defaults alone")]
    in_sync: Annotated[bool, about("it is there and runs what is wanted")]
    since: Annotated[Time, about("when it began to run what it runs, or went")]
    received_at: Annotated[Time, about("when the server got the receipt")]
    freshness: Annotated[
        str,
        Field(
            description="whether it knows that what it runs is the newest",
            examples=["fresh", "stale (no-beacon)"],
        ),
    ]
    source: Annotated[
        str,
        Field(
            description="where what it runs came from",
            examples=["broker", "last-known-good", "defaults"],
        ),
    ]
    overrides: Annotated[Sequence[str], about("keys that the instance's own environment decides")]
    last_attempt: LastAttempt | None
    library: Annotated[str, about("its client, by name and version")]
    gone: Annotated[bool, about("it said that it ends, or its broker said that it is away")]
    correlation_id: Annotated[str | None, about("of the change that it runs")]


class StatusAnswer(Answer):
    """Every instance that was heard, of the services that the token is for."""

    instances: list[InstanceAnswer]
    refused: Annotated[int, about("messages that were no receipts, since the start")]


class ForgottenInstance(Answer):
    """An instance is forgotten until it is heard again."""

    service: Name
    instance: Name
    forgotten: Always
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
    description="Of each instance the newest receipt, signed by it and kept by the brokers. Receipts of instances "
    "that never enrolled are claims: `enrolled` is false.",
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
    description="409 `still-there` while it is heard. What brokers retain of it is emptied.",
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
        running=None if running is None else running.to_object(),
        in_sync=is_in_sync(wanted, running, gone=status.gone),
        since=rfc3339(status.since),
        received_at=rfc3339(status.received_at),
        last_attempt=None if attempt is None else attempt.to_object(),
        gone=status.gone,
    )
