"""What runs where, beside what should run there: the instances' receipts over REST; and the way to
forget an instance that will not come back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from config_manager.actors.drift_board import Judged
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
from config_manager.api.rest.parameters import (
    INSTANCE,
    SERVICE,
    Query,
    granted,
    number,
    one_of,
    service_in_query,
)
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, administer
from config_manager.config.names import parse_instance, parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.drift import STATES, is_in_sync
from config_manager.storage.drifts import State
from config_manager.storage.state import Committed

_PAGE = 50

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
    state: Annotated[State, about("what it runs, beside what it should run: the first that fits")]
    why: Annotated[str, about("in words")]
    state_since: Annotated[Time, about("when it came into this state, as far as is known")]
    since: Annotated[Time, about("when it began to run what it runs, or went")]
    received_at: Annotated[
        Time | None,
        about("when the server got the receipt; null: it enrolled and was never heard"),
    ]
    freshness: Annotated[
        str | None,
        Field(
            description="whether it knows that what it runs is the newest; null: it was never heard",
            examples=["fresh", "stale (no-beacon)"],
        ),
    ]
    source: Annotated[
        str | None,
        Field(
            description="where what it runs came from; null: it was never heard",
            examples=["broker", "last-known-good", "defaults"],
        ),
    ]
    overrides: Annotated[Sequence[str], about("keys that the instance's own environment decides")]
    last_attempt: LastAttempt | None
    library: Annotated[
        str | None, about("its client, by name and version; null: it was never heard")
    ]
    gone: Annotated[bool, about("it said that it ends, or its broker said that it is away")]
    correlation_id: Annotated[str | None, about("of the change that it runs")]
    from_before: Annotated[
        bool,
        about("as of before the server's start: no broker has told it since; left out if not"),
    ] = False


class StatusAnswer(Answer):
    """Instances, of the services that the token is for."""

    instances: Annotated[list[InstanceAnswer], about("by service and instance")]
    refused: Annotated[int, about("messages that were no receipts, since the start")]
    next_after: Annotated[
        str | None,
        about("`after` of the next page; null: this is the last; left out without `limit`"),
    ] = None


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


def _parse_after(text: str) -> tuple[str, str]:
    service, separator, instance = text.partition("/")
    if not separator:
        raise ValueError("expected SERVICE/INSTANCE")
    return parse_service(service), parse_instance(instance)


_OF_SERVICE = service_in_query("only this service's instances")
_STATE = one_of("state", "only instances in this state", *STATES)
_LIMIT = number("limit", f"instances, in pages; {_PAGE} with `after`", least=1, most=500)
_AFTER = Query(
    "after",
    "SERVICE/INSTANCE, the last one of the page before",
    {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9-]{0,62}$"},
    _parse_after,
)


@operation(
    "What each instance says it runs, beside what it should run",
    answers={200: StatusAnswer},
    takes=(_OF_SERVICE, _STATE, _LIMIT, _AFTER),
    description="Of each instance the newest receipt, signed by it and kept by the brokers. Receipts of instances "
    "that never enrolled are claims: `enrolled` is false. With `limit` or `after` it comes in pages, and has the "
    "instances that enrolled and were never heard, too.",
)
async def status(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service, state = granted(_OF_SERVICE, request), _STATE.of(request)
    limit, after = _LIMIT.of(request), _AFTER.of(request)
    in_pages = limit is not None or after is not None
    most = (limit or _PAGE) + 1 if in_pages else None
    found = (
        one
        for one in api.system.drift.after(after, service)
        if state in (None, one.state)
        and (in_pages or one.status is not None)
        and request.grant.covers(one.service)
    )
    chosen = list(islice(found, most))
    page = chosen[: most - 1] if most is not None else chosen
    committed = api.system.view.committed
    answer: dict[str, Any] = {
        "instances": [_instance(one, committed) for one in page],
        "refused": api.system.statuses.refused,
    }
    if in_pages:
        more = len(chosen) > len(page)
        answer["next_after"] = f"{page[-1].service}/{page[-1].instance}" if more else None
    return json_response(StatusAnswer(**answer), headers=NO_STORE)


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


def _instance(one: Judged, committed: Committed) -> InstanceAnswer:
    wanted, status = committed.live(one.service), one.status
    judged: JsonObject = {"state": one.state, "why": one.why, "state_since": rfc3339(one.since)}
    if status is None:
        return InstanceAnswer(
            service=one.service,
            instance=one.instance,
            enrolled=True,
            wanted=None if wanted is None else Wanted.of(wanted),
            running=None,
            in_sync=False,
            since=rfc3339(one.since),
            received_at=None,
            freshness=None,
            source=None,
            overrides=(),
            last_attempt=None,
            library=None,
            gone=False,
            correlation_id=None,
            **judged,
        )
    receipt, running, attempt = status.receipt, status.receipt.running, status.receipt.last_attempt
    from_before = {"from_before": True} if status.is_from_before else {}
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
        **judged,
        **from_before,
    )
