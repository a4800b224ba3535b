"""Changes of all services over REST, and the trace of one: when each of its steps was done, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from config_manager.actors.tracing import Noted
from config_manager.api.rest.models import (
    Answer,
    By,
    CorrelationId,
    EpochSeq,
    Name,
    Revision,
    Time,
    about,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Path, Query, granted, number, service_in_query, time
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.config.errors import NotFound
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage import drifts, state
from config_manager.storage.decisions import tracing
from config_manager.storage.trace import Change, ChangesQuery, ChangeTimes, StageTime, earliest

_PAGE = 50
_MOST = 500
_LONGEST_NAME = 64


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class ChangeAnswer(Answer):
    """One revision, whatever it touched."""

    revision: Revision
    correlation_id: CorrelationId
    epoch_seq: EpochSeq
    at: Time
    by: By
    action: Annotated[state.Action, about("what was asked for")]
    reason: Annotated[str | None, about("why, if somebody said so")]
    services: Annotated[list[Name], about("that it touched, of those that the token is for")]
    state: Annotated[
        tracing.ChangeState,
        about(
            "of its services that were not written again since. `drifting`: an instance of one drifts. `pending`: no "
            "broker holds it yet, or an instance has not followed. `settled`: neither; instances that are silent or "
            "claimed are not waited for"
        ),
    ]


class ChangesAnswer(Answer):
    """A page of changes."""

    changes: Annotated[list[ChangeAnswer], about("newest first")]
    next_before: Annotated[int | None, about("`before` of the next page; null: this is the last")]


AfterMs = Annotated[
    float, about("milliseconds since it was asked, or was committed if nobody asked")
]


class StepAnswer(Answer):
    """A step that was done, for all of the change's services."""

    step: Annotated[
        Literal["asked", "committed", "signed", "published", "acknowledged", "confirmed"],
        about(
            "`committed`: on the disk. `acknowledged`: the broker's PUBACK came. `confirmed`: the broker gave it back"
        ),
    ]
    broker: Annotated[str | None, about("its URL; null for what is done once")]
    at: Annotated[Time, about("by the server's clock")]
    after_ms: AfterMs


class StageAnswer(Answer):
    """An instance reached a stage."""

    stage: Annotated[
        str, about("`received`, `deferred`, `applied`, `healthy`, `refused`, `restart-required`, …")
    ]
    at: Annotated[Time, about("by the instance's own clock")]
    received_at: Annotated[Time, about("when its receipt came, by the server's clock")]
    after_ms: AfterMs
    reason: Annotated[str | None, about("why it got no further")]
    took_ms: Annotated[
        int | None,
        about("milliseconds since the instance received it; left out if it does not say"),
    ] = None


class TracedInstance(Answer):
    """An instance of one of its services."""

    service: Name
    instance: Name
    state: Annotated[drifts.State, about("now, beside what is wanted now")]
    why: Annotated[str, about("in words")]
    steps: Annotated[list[StageAnswer], about("what it made of this change, as far as it is known")]


class TraceAnswer(ChangeAnswer):
    """A change, and when each of its steps was done."""

    traceparent: Annotated[
        str | None, about("of its request (W3C Trace Context); null: it is not known")
    ]
    steps: Annotated[
        list[StepAnswer], about("in the order of time; empty if its times are not kept any more")
    ]
    instances: list[TracedInstance]
    others: Annotated[
        list[int],
        about("further revisions with its correlation id: a caller may use one X-Request-ID twice"),
    ]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


def _parse_by(text: str) -> str:
    if not 1 <= len(text) <= _LONGEST_NAME:
        raise ValueError(f"expected 1 to {_LONGEST_NAME} characters")
    return text


_OF_SERVICE = service_in_query("only changes that touched this service")
_BY = Query(
    "by",
    "only changes by the token of this name",
    {"type": "string", "minLength": 1, "maxLength": _LONGEST_NAME, "pattern": "^[^\\u0000]*$"},
    _parse_by,
)
_SINCE = time("since", "not older than this")
_UNTIL = time("until", "not newer than this")
_LIMIT = number("limit", f"changes; {_PAGE}", least=1, most=_MOST)
_BEFORE = number("before", "revisions below this one")
_ID = Path(
    "id",
    "a correlation id, or a revision in digits",
    {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    str,
)


@operation(
    "Changes of all services, newest first",
    answers={200: ChangesAnswer},
    problems=(503, 504),
    takes=(_OF_SERVICE, _BY, _SINCE, _UNTIL, _LIMIT, _BEFORE),
    description="One a revision: several services that changed as one are one change. A token that is narrowed to "
    "services sees these alone. Page on with `before=` the answer's `next_before`, until it is null.",
)
async def list_changes(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service = granted(_OF_SERVICE, request)
    limit = _LIMIT.of(request) or _PAGE
    query = ChangesQuery(
        limit=limit + 1,
        before=_BEFORE.of(request),
        service=service,
        visible=request.grant.among(api.system.view.committed.services),
        by=_BY.of(request),
        since=_SINCE.of(request),
        until=_UNTIL.of(request),
    )
    found = await api.system.reading.changes(query, request.context)
    page = found[:limit]
    states = _States(api)
    return json_response(
        {
            "changes": [_shown(change, states) for change in page],
            "next_before": page[-1].revision if len(found) > limit else None,
        },
        headers=NO_STORE,
    )


@operation(
    "The trace of a change: when each of its steps was done, and how far each instance got",
    answers={200: TraceAnswer},
    problems=(404, 503, 504),
    takes=(_ID,),
    description="Of a correlation id the newest change is answered, and `others` names the rest. Times are kept for 90 "
    "days (`CONFIG_MANAGER_RECEIPTS_KEEP`).",
)
async def get_change(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    name, system = _ID.of(request), api.system
    visible = request.grant.among(system.view.committed.services)
    found = await system.reading.past(
        lambda kept: tracing.find(kept, name, visible, system.tracing.is_not_whole), request.context
    )
    if found is None:
        raise NotFound(
            f"there is no change {name[:_LONGEST_NAME]!r} that this token may see; "
            "GET /api/v1/changes lists them"
        )
    change, states = found.change, _States(api)
    noted = system.tracing.of(change.revision)
    times = found.times if noted is None else _joined(noted, found.times)
    began = None if times is None else times.began
    newest = states.newest
    shown: Sequence[tracing.Step] = (
        () if times is None else tracing.steps(times, change.services, newest)
    )
    return json_response(
        {
            **_shown(change, states),
            "traceparent": None if times is None else times.traceparent,
            "steps": [
                {**step._asdict(), "at": rfc3339(step.at), "after_ms": _after_ms(step.at, began)}
                for step in shown
            ],
            "instances": _instances(change, _stages(found, noted), began, api),
            "others": list(found.others),
        },
        headers=NO_STORE,
    )


# A `ChangesAnswer` and a `TraceAnswer` are made of dictionaries: a service may have thousands of instances.
# tests/api/rest/test_models.py holds them to the models.


class _States:
    """How changes stand, as of now; each service is looked at once."""

    def __init__(self, api: Api) -> None:
        system = api.system
        self._board, self._confirmations = system.drift, system.confirmations
        services = system.view.committed.services
        self.newest: Mapping[str, int] = {name: one.revision for name, one in services.items()}
        self._drifting = {one.service for one in self._board.open()}
        self._known: dict[str, frozenset[drifts.State]] = {}

    def of(self, change: Change) -> tracing.ChangeState:
        current = [name for name in change.services if self.newest.get(name) == change.revision]
        return tracing.state_of(
            is_drifting=any(name in self._drifting for name in current),
            is_confirmed=not any(self._is_unconfirmed(name) for name in current),
            states=frozenset[drifts.State]().union(*map(self._states, current)),
        )

    def _is_unconfirmed(self, service: str) -> bool:
        brokers = self._confirmations
        return bool(brokers.brokers) and not brokers.confirmed(service, self.newest[service])

    def _states(self, service: str) -> frozenset[drifts.State]:
        if service not in self._known:
            self._known[service] = frozenset(one.state for one in self._board.judged(service))
        return self._known[service]


def _shown(change: Change, states: _States) -> JsonObject:
    shown = change._asdict()
    del shown["config_epoch"]
    return {**shown, "services": list(change.services), "state": states.of(change)}


def _joined(noted: Noted, kept: ChangeTimes | None) -> ChangeTimes:
    return noted.all_times if kept is None else earliest(kept, noted.all_times)


def _stages(found: tracing.Found, noted: Noted | None) -> Mapping[drifts.Key, Sequence[StageTime]]:
    return tracing.joined(found.instances, {} if noted is None else noted.instances)


def _instances(
    change: Change,
    stages: Mapping[drifts.Key, Sequence[StageTime]],
    began: float | None,
    api: Api,
) -> list[JsonObject]:
    board = api.system.drift
    judged = {
        (one.service, one.instance): one for name in change.services for one in board.judged(name)
    }
    shown: list[JsonObject] = []
    for pair in sorted({*judged, *(one for one in stages if one[0] in change.services)}):
        now = judged.get(pair)
        shown.append(
            {
                "service": pair[0],
                "instance": pair[1],
                "state": "silent" if now is None else now.state,
                "why": "it is forgotten, or its enrolment was revoked" if now is None else now.why,
                "steps": [_stage(one, began) for one in stages.get(pair, ())],
            }
        )
    return shown


def _stage(one: StageTime, began: float | None) -> JsonObject:
    took = {} if one.took_ms is None else {"took_ms": one.took_ms}
    return {
        "stage": one.stage,
        "at": rfc3339(one.at),
        "received_at": rfc3339(one.received_at),
        "after_ms": _after_ms(one.received_at, began),
        "reason": one.reason,
        **took,
    }


def _after_ms(at: float, began: float | None) -> float:
    return 0.0 if began is None else round((at - began) * 1000, 3)
