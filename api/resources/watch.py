"""What happens, told while it happens: revisions, drift and health as server-sent events."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import trio
from pydantic import Field

from config_manager.actors import drift_log
from config_manager.actors.actor import Context
from config_manager.actors.views import Mode
from config_manager.actors.watching import HealthNow
from config_manager.api.rest.auth import confirm, expires_at
from config_manager.api.rest.limits import ANSWER_WITHIN_S, MOST_REPLAYED
from config_manager.api.rest.models import (
    Answer,
    By,
    CorrelationId,
    EpochId,
    EpochSeq,
    Name,
    Revision,
    Time,
    about,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Header, granted, service_in_query
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse
from config_manager.api.rest.streams import EVENT_STREAM, Stream
from config_manager.config import strict_json
from config_manager.config.errors import MalformedRequest, Refusal
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage import state
from config_manager.storage.drifts import State
from config_manager.storage.trace import Change, ChangesQuery

_A_PIECE = 100
"""Revisions that are sent together."""
_RETRY_MS = 1000
_RENDERED = 1_024
_HEADERS = (*NO_STORE, (b"x-accel-buffering", b"no"))
_REVISION = re.compile(r"[0-9]{1,16}")

# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class RevisionEvent(Answer):
    """The data of an event `revision`: a change was committed. Its `id` is the revision."""

    revision: Revision
    config_epoch: EpochId
    epoch_seq: EpochSeq
    at: Time
    by: By
    action: Annotated[state.Action, about("what was asked for")]
    reason: Annotated[str | None, about("why, if somebody said so")]
    correlation_id: CorrelationId
    services: Annotated[list[Name], about("those it changed, of the ones that the token is for")]


class DriftEvent(Answer):
    """The data of an event `drift`: an instance has not run what it should for 10 s, or does so no longer."""

    event: Annotated[
        Literal["began", "ended"], about("ended: the state is of the drift that ended")
    ]
    service: Name
    instance: Name
    state: Annotated[State, about("why it counts as drift, in a word")]
    since: Annotated[Time, about("when the instance came into this state")]
    revision: Annotated[int | None, about("what was wanted; null: nobody had written its service")]
    correlation_id: Annotated[str | None, about("of the change that made it wanted")]


class HealthEvent(Answer):
    """The data of an event `health`: how the server is. The first comes at once, the others when it changes."""

    ok: Annotated[bool, about("whether everything works")]
    mode: Annotated[Mode, about("read-only: writes are refused, and `reasons` says why")]
    reasons: Annotated[list[str], about("what an operator should know; why it is not ok")]


class BehindEvent(Answer):
    """The data of an event `behind`: too much was missed to tell all of it. Read again what you need."""

    from_: Annotated[int, Field(alias="from", description="the last revision that you had")]
    to: Annotated[int, about("the newest revision; the events that follow are of later ones")]


# ── as it is sent ──────────────────────────────────────────────────────────────────────────────


def _event(kind: str, data: JsonObject, event_id: int | None = None) -> bytes:
    named = b"" if event_id is None else b"id: %d\n" % event_id
    return b"event: %b\n%bdata: %b\n\n" % (kind.encode(), named, strict_json.dumps(data))


@lru_cache(_RENDERED)
def _revision(change: Change) -> bytes:
    """Made once for all that are told the same of it."""
    data = {name: getattr(change, name) for name in RevisionEvent.model_fields}
    return _event("revision", data, change.revision)


@lru_cache(_RENDERED)
def _drift(event: drift_log.DriftEvent) -> bytes:
    data = {name: getattr(event, name) for name in DriftEvent.model_fields}
    return _event("drift", {**data, "since": rfc3339(event.since)})


@lru_cache(8)
def _health(health: HealthNow) -> bytes:
    return _event("health", health._asdict())


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_OF_SERVICE = service_in_query("only what concerns this service, and the health")
_LAST_EVENT_ID = Header(
    "Last-Event-ID",
    "the last revision that you had: those after it are told first. Browsers send it by themselves",
    {"type": "string", "pattern": "^[0-9]{1,16}$"},
)


@operation(
    "What happens, told while it happens: server-sent events",
    answers={200: str},
    produces="text/event-stream",
    problems=(503, 504),
    takes=(_OF_SERVICE, _LAST_EVENT_ID),
    events={
        "revision": RevisionEvent,
        "behind": BehindEvent,
        "drift": DriftEvent,
        "health": HealthEvent,
    },
    description="The answer does not end. Read it with a client for server-sent events; `curl -N` shows it. A comment "
    "comes every 15 s. At most 1,000 missed revisions are told, else one event `behind`. The stream ends with its token. "
    "503 `too-many-streams`: 64 streams are open, or 4 of this token.",
)
async def watch(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    service = granted(_OF_SERVICE, request)
    after = _last_event_id(request)
    stream = WatchStream(request, api, service, after)
    try:
        await stream.catch_up()
    except BaseException:
        stream.end()
        raise
    return ApiResponse(200, b"", _HEADERS, EVENT_STREAM, stream)


def _last_event_id(request: ApiRequest) -> int | None:
    """Raises MalformedRequest."""
    given = (request.header(b"last-event-id") or "").strip()
    if given and not _REVISION.fullmatch(given):
        raise MalformedRequest("Last-Event-ID: expected a revision, as in the `id` of an event")
    return int(given) if given else None


class WatchStream(Stream):
    """Remembers how far it has told: a revision, the number of an event of drift, and the health."""

    def __init__(
        self, request: ApiRequest, api: Api, service: str | None, after: int | None
    ) -> None:
        """after: the last revision that the caller had; None: it asks for what happens from now on."""
        super().__init__(api.streams, request.token_hash or request.by)
        self._request, self._api, self._service = request, api, service
        self._hub = api.system.watching
        newest = api.system.view.committed.revision
        self._seen = newest if after is None else after
        self._told_id = min(self._seen, newest)
        self._first = b"retry: %d\nid: %d\n\n" % (_RETRY_MS, self._told_id)
        self._missed: Sequence[Change] = ()
        self._health: HealthNow | None = None
        self._hub.join(self)
        self._drift_seq = (
            self._hub.drift_seq
        )  # as of now, which the hub knows once somebody is there

    def end(self) -> None:
        self._hub.leave(self)
        super().end()

    @property
    def until(self) -> float:
        """The end of its token."""
        left = expires_at(self._request, self._api) - self._api.system.world.clock.now()
        return trio.current_time() + left if left < math.inf else left

    def beat(self) -> bytes:
        """A comment; with it the newest revision, if those since the last one told did not concern the caller. So it
        need not look at them after the next connecting."""
        if self._told_id >= self._seen:
            return super().beat()
        self._told_id = self._seen
        return b":\nid: %d\n\n" % self._seen

    async def catch_up(self) -> None:
        """Read what the caller missed, if the hub does not know all of it. Raises Refusal, TooSlowError."""
        newest = self._api.system.view.committed.revision
        if self._seen > newest:  # another server's, or of a database that was lost
            self._say_behind(newest)
        if self._seen == newest or self._hub.after(self._seen, 0) is not None:
            return
        query = ChangesQuery(
            after=self._seen,
            limit=MOST_REPLAYED + 1,
            service=self._service,
            visible=self._request.grant.among(self._api.system.view.committed.services),
        )
        context = Context(self._request.correlation_id, trio.current_time() + ANSWER_WITHIN_S)
        missed = await self._api.system.reading.changes(query, context)
        if len(missed) > MOST_REPLAYED:
            self._say_behind(max(newest, missed[-1].revision))
        else:
            self._missed = missed
            self._seen = max(newest, *(one.revision for one in missed[-1:]), 0)

    def _say_behind(self, newest: int) -> None:
        self._first += _event("behind", {"from": self._seen, "to": newest}, newest)
        self._seen = self._told_id = newest

    async def news(self) -> bytes:
        confirm(self._request, self._api)
        if self._request.refusal is not None:  # the token was revoked, or is past its time
            self.end()
            return b""
        revisions = await self._revisions()
        said, self._first = [self._first, *revisions, *self._drifts()], b""
        if self._health != self._hub.health:
            self._health = self._hub.health
            said.append(_health(self._health))
        return b"".join(said)

    async def _revisions(self) -> list[bytes]:
        """The next ones that concern the caller, as they are told."""
        while True:
            if not self._missed:
                self._missed = await self._newer()
            if not self._missed:
                return []
            part, self._missed = self._missed[:_A_PIECE], self._missed[_A_PIECE:]
            if self._service is None and not self._request.grant.is_narrowed:
                self._told_id = part[-1].revision
                return [self._text(part)]
            told = [mine for one in part if (mine := self._as_seen(one)) is not None]
            if told:
                self._told_id = told[-1].revision
                return [_revision(one) for one in told]

    def _drifts(self) -> list[bytes]:
        """What concerns the caller of what began and ended since."""
        news = self._hub.drifts_after(self._drift_seq)
        self._drift_seq = self._hub.drift_seq
        covers = self._request.grant.covers
        return [
            _drift(one)
            for one in news
            if self._service in (None, one.service) and covers(one.service)
        ]

    async def _newer(self) -> Sequence[Change]:
        changes = self._hub.after(self._seen, _A_PIECE)
        if changes is None:  # its caller read too slowly
            try:
                await self.catch_up()
            except (Refusal, trio.TooSlowError):
                self._say_behind(self._api.system.view.committed.revision)
            return self._missed
        upto = changes[-1].revision if len(changes) == _A_PIECE else self._hub.newest
        self._seen = max(self._seen, upto)
        return changes

    def _text(self, part: Sequence[Change]) -> bytes:
        """As it is told to everyone who sees everything: made once, and not 64 times."""
        key = part[0].revision, part[-1].revision
        if self._hub.text[0] != key:
            self._hub.text = key, b"".join(map(_revision, part))
        return self._hub.text[1]

    def _as_seen(self, change: Change) -> Change | None:
        """With the services that the token is for; None if the caller has nothing to do with it."""
        services = tuple(filter(self._request.grant.covers, change.services))
        if not services or self._service not in (None, *services):
            return None
        return change if services == change.services else change._replace(services=services)
