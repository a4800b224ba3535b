"""What a caller may say about any write: why, under which key it may be repeated, whether to wait."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import trio

from config_manager.actors.messages import Write
from config_manager.api.rest.forecasts import InstanceForecast, forecast_of
from config_manager.api.rest.models import NO_NUL, Answer, CorrelationId, Name, Reader, about
from config_manager.api.rest.parameters import Header, Query, flag, one_of
from config_manager.api.rest.request import Api, ApiRequest
from config_manager.config.errors import FieldError, MalformedRequest
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.instance_verdicts import refused_by
from config_manager.storage.decisions.terms import Idempotency, Terms
from config_manager.storage.state import KeyChange, ServiceState

A = TypeVar("A")

MAX_REASON = 500
_MAX_KEY = 255
_MAX_WAIT_S = 60
_DEFAULT_WAIT_S = 5


def _parse_reason(text: str) -> str:
    if len(text) > MAX_REASON:
        raise ValueError(f"at most {MAX_REASON} characters")
    return text


def _parse_reason_in_body(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_REASON):
        raise ValueError(f"expected text of at most {MAX_REASON} characters")
    return value


ReasonInBody = Annotated[
    str | None,
    Reader(
        _parse_reason_in_body,
        {
            **NO_NUL,
            "type": ["string", "null"],
            "maxLength": MAX_REASON,
            "description": "why, for history and audit; it wins over the query's",
        },
    ),
]
"""A member of a body that is an order."""


def _parse_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _MAX_WAIT_S:
        raise ValueError(f"expected seconds from 0 to {_MAX_WAIT_S}")
    return seconds


REASON = Query(
    "reason", "why, for history and audit", {**NO_NUL, "maxLength": MAX_REASON}, _parse_reason
)
_DRY_RUN = flag("dry_run", "change nothing, answer what would change")
_WAIT = one_of("wait", "answer once a broker holds it", "confirmed")
_TIMEOUT = Query(
    "timeout",
    f"seconds to wait; {_DEFAULT_WAIT_S}",
    {"type": "number", "minimum": 0, "maximum": _MAX_WAIT_S},
    _parse_timeout,
)
IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "repeat safely for 24 hours: the same key and body, the same revision",
    {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
)
WRITE = (_DRY_RUN, _WAIT, _TIMEOUT, REASON, IDEMPOTENCY_KEY)
"""What `write_terms_of` reads."""
ADMINISTRATION = (REASON, IDEMPOTENCY_KEY)
"""What `terms_of` reads."""


def terms_of(request: ApiRequest) -> Terms:
    """Who asks, why and under which key; raises MalformedRequest."""
    return Terms(request.by, REASON.of(request), _idempotency(request), client=request.client_host)


async def administer(request: ApiRequest, api: Api, what: Decidable[A]) -> A:
    """Have it done on the terms of the request.

    Raises MalformedRequest and what the administration refuses; IdempotencyMismatch if the key
    stands for another request, Conflict if it stands for this one and its answer isn't kept.
    """
    request.allow_query()
    return await api.system.storing.ask(Write(what, terms_of(request)), request.context)


# ── revisions ──────────────────────────────────────────────────────────────────────────────────


class WriteTerms(NamedTuple):
    """The terms of a write that makes a revision. wait_s: how long to wait until a broker holds it, in
    seconds; None: not at all."""

    terms: Terms
    wait_s: float | None

    def because(self, reason: str | None) -> WriteTerms:
        """With the reason of the body, which wins over the query's if there is one."""
        return self._replace(terms=self.terms.because(reason))


def write_terms_of(request: ApiRequest) -> WriteTerms:
    """Raises MalformedRequest."""
    request.allow_query()
    wait, timeout_s = _WAIT.of(request), _TIMEOUT.of(request)
    wait_s = _DEFAULT_WAIT_S if timeout_s is None else timeout_s
    reason, idempotency = REASON.of(request), _idempotency(request)
    dry_run = bool(_DRY_RUN.of(request))
    terms = Terms(request.by, reason, idempotency, dry_run, request.client_host)
    return WriteTerms(terms, None if wait is None else wait_s)


class KeyChangeAnswer(Answer):
    """A key whose value changed, or would change."""

    key: Annotated[str, about("of the values, or a secret's name")]
    old: Annotated[Any, about("null: it was not there, unless `nulls` says otherwise")]
    new: Annotated[Any, about("null: it is not there, unless `nulls` says otherwise")]
    nulls: Annotated[
        Sequence[Literal["old", "new"]], about("which of the two is a value that is null")
    ] = ()
    masked: Annotated[
        bool, about("beside a mask: whether it stands for a secret, or is the value itself")
    ] = False


class WouldChange(KeyChangeAnswer):
    """A key whose value would change."""

    service: Annotated[Name, about("of several services: whose key it is")] = ""


class WarningAnswer(Answer):
    """Something that is not refused, and that somebody should look at."""

    pointer: Annotated[str, about("RFC 6901, into the values; of an epoch, into the request")]
    detail: str


class RefusedBy(Answer):
    """An instance that would turn down what is written, by the schema that it says it was built with: a forecast."""

    service: Name
    instance: Name
    why: str


class WriteAnswer(Answer):
    """What an answer says of how a write went; of a dry run, what would change."""

    correlation_id: CorrelationId = ""
    propagation: Annotated[
        Literal["pending", "confirmed"],
        about("confirmed: a broker gave back what was published; pending: not yet"),
    ] = "pending"
    dry_run: Annotated[bool, about("true: nothing was changed; left out otherwise")] = False
    changes: Annotated[
        Sequence[WouldChange], about("of a dry run: what would change of stored values")
    ] = ()
    effective: Annotated[
        Sequence[WouldChange], about("of a dry run: what would change of effective values")
    ] = ()
    bytes: Annotated[
        int, about("of a dry run, of one service: its message; at most 262144 are taken")
    ] = 0
    instances: Annotated[
        Sequence[InstanceForecast],
        about("of a dry run: what each live instance would make of it"),
    ] = ()
    warnings: Annotated[
        Sequence[WarningAnswer],
        about("what the schema does not allow and was there before; left out if there is nothing"),
    ] = ()
    refused_by: Annotated[
        Sequence[RefusedBy],
        about("instances that are there and would turn it down; left out if there are none"),
    ] = ()


W = TypeVar("W", bound=WriteAnswer)


async def with_outcome(
    answer: W,
    api: Api,
    states: Sequence[ServiceState],
    write_terms: WriteTerms,
    changes: Sequence[KeyChange] | None = None,
    warnings: Sequence[FieldError] = (),
) -> W:
    """The answer with how the write went."""
    outcome = WriteAnswer.model_validate(
        await outcome_of(api, states, write_terms, changes, warnings)
    )
    return answer.model_copy(
        update={name: value for name, value in outcome if name in outcome.model_fields_set}
    )


async def outcome_of(
    api: Api,
    states: Sequence[ServiceState],
    write_terms: WriteTerms,
    changes: Sequence[KeyChange] | None = None,
    warnings: Sequence[FieldError] = (),
) -> JsonObject:
    """The members of a `WriteAnswer`: `confirmed` if the caller waits and a broker holds all of it in time,
    else `pending`. Of a dry run it has what would change. changes: None if each has to name its service."""
    warned = {"warnings": [one._asdict() for one in warnings]} if warnings else {}
    warned |= _refused_by(api, states)
    if write_terms.terms.dry_run:
        shown = forecast_of(api, states, several=changes is None)
        if changes is not None:
            shown["changes"] = [one.to_object() for one in changes]
        return {"dry_run": True, **shown, **warned}
    revisions = [(one.service, one.revision) for one in states]
    return {
        "correlation_id": states[0].correlation_id,
        "propagation": await propagation(api, revisions, write_terms),
        **warned,
    }


def _refused_by(api: Api, states: Sequence[ServiceState]) -> JsonObject:
    """Nothing is looked for, if no instance of these services told what it was built with."""
    committed, shapes = api.system.view.committed, api.system.shapes
    known = [one.service for one in states if shapes.of_instances(committed, one.service)]
    if not known:
        return {}
    live = {service: api.system.statuses.live(service) for service in known}
    found = refused_by(committed, shapes, states, live)
    return {"refused_by": found} if found else {}


async def propagation(
    api: Api, revisions: Sequence[tuple[str, int]], write_terms: WriteTerms
) -> str:
    """`confirmed` if the caller waits and a broker holds all of these (service, revision) in time, else `pending`."""
    wait_s = write_terms.wait_s
    confirmed = wait_s is not None and await _are_confirmed(api, revisions, wait_s)
    return "confirmed" if confirmed else "pending"


async def _are_confirmed(api: Api, revisions: Sequence[tuple[str, int]], wait_s: float) -> bool:
    """Whether within so many seconds a broker holds all of these (service, revision)."""
    with trio.move_on_after(wait_s):
        for service, revision in revisions:
            if not await api.system.confirmations.wait(service, revision):
                return False
        return True
    return False


# ── one by one ─────────────────────────────────────────────────────────────────────────────────


def _idempotency(request: ApiRequest) -> Idempotency | None:
    """The Idempotency-Key belongs to its caller: the same key of another caller is another one."""
    key = request.header(b"idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise MalformedRequest(f"Idempotency-Key: 1 to {_MAX_KEY} printable ASCII characters")
    told_apart: tuple[str, ...] = (
        request.method,
        request.raw_path.decode("ascii"),
        request.header(b"content-type") or "",
        request.header(b"if-match") or "",
        request.header(b"if-none-match") or "",
        request.query.get("dry_run", ""),
    )
    # where they are given: a request of before an upgrade has to be the same afterwards
    told_apart += tuple(
        f"{name}={request.query[name]}"
        for name in ("allow_breaking", "allow_lossy", "drop")
        if name in request.query
    )
    fingerprint = hashlib.sha256("\n".join(told_apart).encode() + b"\n" + request.body).digest()
    return Idempotency(f"{request.by} {key}", fingerprint)
