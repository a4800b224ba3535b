"""Notifications over REST: whom the server tells what happened, and how that goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

import trio
from pydantic import WithJsonSchema

from config_manager.actors.actor import Context
from config_manager.actors.http_out import Answered
from config_manager.actors.messages import NotDoneYet, Write
from config_manager.actors.notified import Notified
from config_manager.actors.notifying import SendTest
from config_manager.api.rest.models import (
    HIDDEN,
    TEXT,
    Always,
    Answer,
    Body,
    ListedPatterns,
    Reader,
    ServicePatterns,
    Time,
    about,
    read,
    text,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Path
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, administer, terms_of
from config_manager.config.access import EVERY_SERVICE
from config_manager.config.errors import FieldError, InvalidValues
from config_manager.config.http_target import MAX_URL_CHARACTERS, parse_http_target
from config_manager.config.strict_json import JsonObject
from config_manager.config.webhooks import make_webhook_secret
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.notifications import (
    AddNotification,
    EventKind,
    NoteTest,
    Notification,
    RemoveNotification,
    is_notification_name,
    notifications,
)

_EVERY_EVENT: tuple[EventKind, ...] = get_args(EventKind)
_WRITE_DOWN_S = 1.0
"""Of the time that an answer has, kept for the row of the audit."""


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not is_notification_name(value):
        raise ValueError("expected 1 to 63 of a-z, 0-9 and '-', such as chat")
    return value


def _parse_url(value: Any) -> str:
    url = text(value, "expected a URL, such as https://example.org/hook")
    parse_http_target(url, plain=True)
    return url


def _parse_events(value: Any) -> tuple[EventKind, ...]:
    events = cast("list[object]", value) if isinstance(value, list) else []
    if not events or not all(event in _EVERY_EVENT for event in events):
        raise ValueError(f"expected a list with some of: {', '.join(_EVERY_EVENT)}")
    return tuple(kind for kind in _EVERY_EVENT if kind in events)


def _parse_plain(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004  a reader's error
    return value


_NAMES: JsonObject = {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9-]{0,62}$",
    "description": "your name for it",
}
_URL: JsonObject = {
    "type": "string",
    "format": "uri",
    "maxLength": MAX_URL_CHARACTERS,
    "description": "where to POST to: `https:`; `http:` only to loopback, or with `plain`",
}
_EVENTS: JsonObject = {
    "type": "array",
    "items": {"enum": [*_EVERY_EVENT]},
    "minItems": 1,
    "description": "what to tell: each change (revision), each that takes others back (rollback), each refusal of an "
    "instance (refused), each beginning and end of a drift (drift)",
}


class NotificationRequest(Body):
    """Somebody to be told."""

    REFUSED: ClassVar[str] = "nobody can be notified so; nothing was added"

    name: Annotated[str, Reader(_parse_name, _NAMES)]
    url: Annotated[str, Reader(_parse_url, _URL)]
    events: Annotated[
        tuple[EventKind, ...], Reader(_parse_events, {**_EVENTS, "default": [*_EVERY_EVENT]})
    ] = _EVERY_EVENT
    services: ServicePatterns = EVERY_SERVICE
    plain: Annotated[
        bool,
        Reader(
            _parse_plain,
            {
                "type": "boolean",
                "default": False,
                "description": "`http:` to another machine is meant: who is on the way reads everything",
            },
        ),
    ] = False


class _Target(Answer):
    name: Annotated[str, about("your name for it")]
    url: Annotated[str, about("where to; with many receivers its path is a password")]
    plain: bool
    events: Annotated[Sequence[str], WithJsonSchema(_EVENTS)]
    services: ListedPatterns
    created_at: Time
    created_by: Annotated[str, about("the name of the token that added it")]


class AddedNotification(_Target):
    """A new target."""

    secret: Annotated[
        str, about("with which the receiver checks the signature; shown this once"), HIDDEN
    ]


class ListedNotification(_Target):
    """A target, and how it goes."""

    state: Annotated[
        Literal["ok", "trying", "failing"],
        about("trying: the last try failed, and another will come; failing: for over a day"),
    ]
    waiting: Annotated[int, about("events that it has yet to be told; at most 1,000")]
    given_up: Annotated[int, about("events that it will never be told, since the server's start")]
    delivered_at: Annotated[Time | None, about("the last success since the server's start")]
    last_error: Annotated[str | None, about("why the last try failed; null: it did not")]


class Notifications(Answer):
    """Everybody who is told."""

    notifications: list[ListedNotification]


class RemovedNotification(Answer):
    """Nobody is told there any more."""

    name: str
    removed: Always


class Tested(Answer):
    """What came of a test."""

    name: str
    delivered: Annotated[bool, about("whether the target answered 2xx in time")]
    status: Annotated[int | None, about("what the target answered; null: nothing")]
    why: Annotated[str | None, about("why it does not count as delivered; null: it does")]


# ── calls ──────────────────────────────────────────────────────────────────────────────────────

_NAME = Path("name", "the notification's name", TEXT, str)


@operation(
    "Everybody who is told what happens, and how that goes",
    answers={200: Notifications},
)
async def list_notifications(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    known = sorted(notifications(api.system.view.committed).items())
    listed = [_listed(target, api.system.notifier.of(target)) for _, target in known]
    return json_response(Notifications(notifications=listed), headers=NO_STORE)


@operation(
    "Tell somebody what happens from now on; the secret is shown this once",
    answers={201: AddedNotification},
    problems=(409,),
    takes=ADMINISTRATION,
    body=NotificationRequest,
    description="Each event is a POST of JSON, signed as Standard Webhooks 1.0. Anything but 2xx within 10 s is sent "
    "again for 24 h with the same `webhook-id`. At most 16 targets. A repetition with the same Idempotency-Key is 409.",
)
async def add_notification(request: ApiRequest, api: Api) -> ApiResponse:
    body = read(request, NotificationRequest)
    try:
        parse_http_target(body.url, plain=body.plain)
    except ValueError as error:
        raise InvalidValues(body.REFUSED, [FieldError("/url", str(error))]) from None
    secret = make_webhook_secret(api.system.world.randomness)
    what = AddNotification(body.name, body.url, body.plain, body.events, body.services, secret)
    added = await administer(request, api, what)
    # to the caller who asked for it, now and never again
    return json_response(AddedNotification.of(added, secret=secret.reveal()), 201, NO_STORE)


@operation(
    "Tell somebody nothing any more",
    answers={200: RemovedNotification},
    problems=(404,),
    takes=(_NAME, *ADMINISTRATION),
    description="What waits for it is dropped, and its secret is forgotten.",
)
async def remove_notification(request: ApiRequest, api: Api) -> ApiResponse:
    removed = await administer(request, api, RemoveNotification(_NAME.of(request)))
    return json_response(RemovedNotification(name=removed["name"], removed=True))


@operation(
    "Send a test now",
    answers={200: Tested},
    problems=(404, 409),
    takes=(_NAME, *ADMINISTRATION),
    description='A POST of `{"type": "test", …}`, signed as any event, past whatever waits. If the target answers, '
    "what waits for it is sent at once.",
)
async def send_test(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    name, terms, system = _NAME.of(request), terms_of(request), api.system
    if terms.idempotency is not None:
        await system.storing.ask(NotDoneYet(terms.idempotency), request.context)
    within_s = request.deadline - trio.current_time() - _WRITE_DOWN_S
    answer = await system.notifying.ask(
        SendTest(name, within_s), Context(request.correlation_id, request.deadline)
    )
    status = answer.status if isinstance(answer, Answered) else None
    why = None if answer.ok else answer.why
    await system.storing.ask(Write(NoteTest(name, answer.ok, why), terms), request.context)
    tested = Tested(name=name, delivered=answer.ok, status=status, why=why)
    return json_response(tested, headers=NO_STORE)


def _listed(target: Notification, one: Notified | None) -> ListedNotification:
    delivered_at = None if one is None else one.delivered_at
    return ListedNotification.of(
        target,
        state="ok" if one is None else one.state,
        waiting=0 if one is None else len(one.queue),
        given_up=0 if one is None else one.queue.given_up,
        delivered_at=None if delivered_at is None else rfc3339(delivered_at),
        last_error=None if one is None else one.last_error,
    )
