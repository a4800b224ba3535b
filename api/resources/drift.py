"""Drift over REST: who does not run what they should, now and before."""

from __future__ import annotations

from typing import Annotated

from config_manager.api.rest.models import Answer, Name, Time, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import granted, number, service_in_query, time
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.decisions.drift import RANK
from config_manager.storage.drifts import Drift, DriftQuery, State

_PAGE = 50

# ── what it looks like ─────────────────────────────────────────────────────────────────────────

_Checked = Annotated[Time, about("the server's time of this answer")]


class DriftAnswer(Answer):
    """An instance that has not run what it should for 10 s or more."""

    service: Name
    instance: Name
    state: Annotated[State, about("foreign, refused, late or stale")]
    why: Annotated[str, about("in words")]
    since: Annotated[Time, about("when it came into this state")]
    revision: Annotated[int | None, about("what was wanted when it began; null: nothing was")]
    correlation_id: Annotated[str | None, about("of that change")]


class DriftSpanAnswer(DriftAnswer):
    """A time in which an instance drifted."""

    began: Annotated[Time, about("when it counted as drift, 10 s after it came about")]
    ended: Annotated[Time | None, about("null: it has not ended")]


class OpenDriftAnswer(Answer):
    """The drift that is there now, of the services that the token is for."""

    drift: Annotated[list[DriftAnswer], about("the worst first")]
    checked_at: _Checked


class DriftEventsAnswer(Answer):
    """A page of drift, of the services that the token is for."""

    drift: Annotated[list[DriftSpanAnswer], about("newest first")]
    checked_at: _Checked
    next_before: Annotated[int | None, about("`before` of the next page; null: this is the last")]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_OF_SERVICE = service_in_query("only of this service")
_SINCE = time("since", "what had not ended before")
_UNTIL = time("until", "what had begun by then")
_LIMIT = number("limit", f"entries; {_PAGE}", least=1, most=500)
_BEFORE = number("before", "`next_before` of the page before")


@operation(
    "Who does not run what they should, and why",
    answers={200: OpenDriftAnswer},
    takes=(_OF_SERVICE,),
    description="The instances that are `foreign`, `refused`, `late` or `stale` and have been for 10 s. `GET "
    "/api/v1/status` shows every instance, whatever its state.",
)
async def get_drift(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service = granted(_OF_SERVICE, request)
    found = [one for one in api.system.drift.open(service) if request.grant.covers(one.service)]
    found.sort(key=lambda one: (RANK[one.state], one.service, one.instance))
    answer = OpenDriftAnswer(
        drift=[DriftAnswer(**_shown(one)) for one in found],
        checked_at=rfc3339(api.system.world.clock.now()),
    )
    return json_response(answer, headers=NO_STORE)


@operation(
    "When which instance drifted",
    answers={200: DriftEventsAnswer},
    problems=(503, 504),
    takes=(_OF_SERVICE, _SINCE, _UNTIL, _LIMIT, _BEFORE),
    description="What is open, too. Kept as long as receipts are (90 days). Page on with `before=` the answer's "
    "`next_before`, until it is null.",
)
async def get_drift_events(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    limit = _LIMIT.of(request) or _PAGE
    since, until = _SINCE.of(request), _UNTIL.of(request)
    service = granted(_OF_SERVICE, request)
    query = DriftQuery(
        limit=limit + 1,
        before=_BEFORE.of(request),
        service=service,
        covers=request.grant.covers if request.grant.is_narrowed and service is None else None,
        since=None if since is None else parse_rfc3339(since),
        until=None if until is None else parse_rfc3339(until),
    )
    unsaved = api.system.drift.unsaved()  # some may come into the database while it is read
    kept = await api.system.reading.drifts(query, request.context)
    found = query.with_unsaved(kept, unsaved, api.system.drift.unsaved())
    page = found[:limit]
    answer = DriftEventsAnswer(
        drift=[
            DriftSpanAnswer(
                **_shown(one),
                began=rfc3339(one.began),
                ended=None if one.ended is None else rfc3339(one.ended),
            )
            for one in page
        ],
        checked_at=rfc3339(api.system.world.clock.now()),
        next_before=page[-1].seq if len(found) > limit else None,
    )
    return json_response(answer, headers=NO_STORE)


def _shown(one: Drift) -> JsonObject:
    return {
        "service": one.service,
        "instance": one.instance,
        "state": one.state,
        "why": one.why,
        "since": rfc3339(one.since),
        "revision": one.revision,
        "correlation_id": one.correlation_id,
    }
