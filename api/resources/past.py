"""The past over REST: a service as of a revision or a time, what differs between two of them, and where each value
comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import Field

from config_manager.actors.receipt_reading import InstanceStatus
from config_manager.api.rest.models import NAME, Answer, Name, Time, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import (
    SERVICE,
    TIME,
    Query,
    key,
    one_of,
    parse_time,
)
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import KeyChangeAnswer
from config_manager.config.errors import InvalidValues, NotFound, NotThereThen
from config_manager.config.names import ServiceName, parse_service
from config_manager.config.secret import MASK
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import past, shapes
from config_manager.storage.decisions.past import Seen
from config_manager.storage.drifts import State
from config_manager.storage.state import (
    Committed,
    HistoryEntry,
    HistoryQuery,
    ServiceState,
    changed_keys,
)
from config_manager.storage.store import Store

Moment = int | str
"""A revision, or a time (RFC 3339 in UTC)."""


# ── as of then ─────────────────────────────────────────────────────────────────────────────────


def moment_of(request: ApiRequest, revision: Query[int], at: Query[str]) -> Moment | None:
    """None if neither is given; raises InvalidValues if both are."""
    number, time = revision.of(request), at.of(request)
    if number is not None and time is not None:
        raise InvalidValues("revision and at: give one of them")
    return time if number is None else number


async def seen_then(request: ApiRequest, api: Api, service: ServiceName, then: Moment) -> Seen:
    """Raises NotThereThen."""
    committed = api.system.view.committed
    return await api.system.reading.past(
        lambda kept: _seen(api, kept, committed, service, then), request.context
    )


def _seen(api: Api, kept: Store, committed: Committed, service: str, then: Moment) -> Seen:
    revision = _revision(kept, committed, then)
    found = past.seen(kept, committed, api.system.shapes, service, revision)
    if found is None:
        as_of = f"as of revision {then}" if isinstance(then, int) else f"at {then}"
        raise NotThereThen(
            f"{as_of} nobody had written {service} yet, or it was deleted; GET "
            f"/api/v1/config/{service}/history says since when it is there"
        )
    return found


def _revision(kept: Store, committed: Committed, then: Moment) -> int:
    """Raises NotThereThen if it is still to come. A time that is still to come counts as now."""
    if isinstance(then, str):
        return past.revision_at(kept, then, committed.audit_seq)
    if then > committed.revision:
        raise NotThereThen(
            f"revision {then} is still to come; the newest one is {committed.revision}"
        )
    return then


def shown(seen: Seen, service: str, *, stored: bool = False) -> JsonObject:
    """As GET answers it: secrets masked. stored: without defaults."""
    values = seen.stored if stored else seen.config
    names = seen.secrets & values.keys() if stored else seen.secrets
    return {
        "service": service,
        "config": {**values, **dict.fromkeys(sorted(names), MASK)},
        "defaulted": [] if stored else [*seen.defaulted, *sorted(seen.unset)],
        "version": seen.version,
        "revision": seen.revision,
        "config_epoch": seen.epoch.id,
        "epoch_seq": seen.epoch.seq,
        "updated_at": seen.at,
        "updated_by": seen.by,
    }


# ── what differs ───────────────────────────────────────────────────────────────────────────────


_Compared = Annotated[
    int | None, about("the revision of the values that were compared; null: they are of none")
]


class DiffAnswer(Answer):
    """What differs between two sets of values. Secrets are not compared."""

    service: Name
    older: Annotated[_Compared, Field(alias="from")]  # a word of Python's own
    to: _Compared
    changes: Annotated[list[KeyChangeAnswer], about("by key, from the one to the other")]


class _Other(NamedTuple):
    """kind: now, service, schema. value: a service's name, or a version."""

    kind: Literal["now", "service", "schema"]
    value: Any = None


_DIGITS = re.compile(r"[0-9]{1,15}")
_POINT: JsonObject = {
    "anyOf": [
        {"type": "string", "const": "now"},
        {"type": "string", "pattern": "^[0-9]{1,15}$"},
        TIME,
        {
            "type": "string",
            "pattern": "^service:[a-z0-9][a-z0-9-]{0,62}$",
            "not": {"enum": [f"service:{name}" for name in NAME["not"]["enum"]]},
        },
        {"type": "string", "pattern": "^schema:[1-9][0-9]{0,8}$"},
    ]
}


def _parse_point(text: str) -> Moment | _Other:
    kind, _, rest = text.partition(":")
    if text == "now":
        return _Other("now")
    if _DIGITS.fullmatch(text):
        return int(text)
    if kind == "service":
        return _Other("service", parse_service(rest))
    if kind == "schema" and re.fullmatch(r"[1-9][0-9]{0,8}", rest):
        return _Other("schema", int(rest))
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(
            "expected a revision, a time such as 2026-01-31T12:00:00Z, now, service:NAME or schema:N"
        ) from None


_A_POINT = "a revision, a time, `now`, `service:NAME`, or `schema:N`: the defaults of that version"
_FROM = Query("from", f"{_A_POINT}; before the newest change", _POINT, _parse_point)
_TO = Query("to", f"{_A_POINT}; now", _POINT, _parse_point)
_VIEW = one_of("view", "stored: compare what was written, without defaults", "effective", "stored")


@operation(
    "What differs between two revisions, times, services or schemas",
    answers={200: DiffAnswer},
    problems=(404, 503, 504),
    takes=(_FROM, _TO, _VIEW),
    description="Effective values are compared: defaults count. Without parameters it is what the newest change of "
    "the service changed. 404 `not-there-then` if there was no such service then. With `service:NAME` the token "
    "has to be for that service, too.",
)
async def diff_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    older, newer = _FROM.of(request), _TO.of(request) or _Other("now")
    is_stored, committed = _VIEW.of(request) == "stored", api.system.view.committed
    for point in (older, newer):
        if isinstance(point, _Other) and point.kind == "service":
            request.grant.require("read", point.value)

    def read(kept: Store) -> tuple[Seen | None, Seen]:
        to = _at_point(api, kept, committed, service, newer)
        if older is None:
            before = to.revision - 1  # of a service that nobody has written there is no change
            return (
                None
                if before < 0
                else past.seen(kept, committed, api.system.shapes, service, before)
            ), to
        return _at_point(api, kept, committed, service, older), to

    before, after = await api.system.reading.past(read, request.context)
    changes = changed_keys(
        {} if before is None else _compared(before, after, stored=is_stored),
        _compared(after, before or after, stored=is_stored),
    )
    answer: JsonObject = {
        "service": service,
        "from": None if before is None else before.revision or None,
        "to": after.revision or None,
        "changes": [one.to_object() for one in changes],
    }
    return json_response(answer)


def _at_point(
    api: Api, kept: Store, committed: Committed, service: str, point: Moment | _Other
) -> Seen:
    if not isinstance(point, _Other):
        return _seen(api, kept, committed, service, point)
    if point.kind == "schema":
        version = kept.schema_version(service, point.value)
        if version is None:
            raise NotFound(f"the schema of {service} has no version {point.value}")
        return past.by_schema(version, committed.epoch)
    name = service if point.kind == "now" else point.value
    found = past.seen_now(committed, api.system.shapes, name)
    if found is None:
        raise shapes.unknown(name)
    return found


def _compared(one: Seen, other: Seen, *, stored: bool) -> JsonObject:
    values = one.stored if stored else one.config
    secrets = one.secrets | other.secrets
    return {name: value for name, value in values.items() if name not in secrets}


# ── where a value comes from ───────────────────────────────────────────────────────────────────


class Shadowed(Answer):
    """A value that another one hides."""

    origin: Annotated[Literal["default"], about("where it would come from")]
    value: Any


class InstanceOfKey(Answer):
    """What an instance makes of a key: names, never its values."""

    instance: Name
    state: Annotated[State, about("of the instance: whether it runs what it should")]
    origin: Annotated[
        Literal["delivered", "variant", "override", "unknown"],
        about(
            "delivered: it runs this value; variant: what its own schema takes of it; override: its own "
            "environment decides; unknown: it does not run this revision, or only claims to"
        ),
    ]


class ExplainedKey(Answer):
    """Where a key's value comes from."""

    key: Annotated[str, about("of the values, or a secret's name")]
    value: Annotated[Any, about("what is effective; a secret is `********`")]
    origin: Annotated[
        Literal["default", "base", "secret"],
        about("default: of the schema; base: it was written; secret: it was set as one"),
    ]
    revision: Annotated[int | None, about("that made it so; null: it was never written")]
    at: Time | None
    by: str | None
    reason: Annotated[str | None, about("why, if somebody said so")]
    shadows: Annotated[list[Shadowed], about("what would count without it")]
    instances: list[InstanceOfKey]


class ExplainAnswer(Answer):
    """Where each value of a service comes from, and what its instances make of it."""

    service: Name
    keys: list[ExplainedKey]


_KEY = key("only this key")


@operation(
    "Where each value comes from: since when, by whom, and what instances make of it",
    answers={200: ExplainAnswer},
    problems=(404, 503, 504),
    takes=(_KEY,),
    description="Of instances only names are told, never values: what `override` means is in their environment.",
)
async def explain_config(request: ApiRequest, api: Api) -> ApiResponse:
    service = SERVICE.of(request)
    request.allow_query()
    only, committed = _KEY.of(request), api.system.view.committed
    seen = past.seen_now(committed, api.system.shapes, service)
    if seen is None:
        raise shapes.unknown(service)
    keys = [*seen.config, *sorted(seen.secrets - seen.config.keys())]
    if only is not None:
        if only not in keys:
            raise NotFound(f"{service} has no key {only!r}")
        keys = [only]

    def read(kept: Store) -> dict[str, HistoryEntry]:
        found = {
            name: kept.history(HistoryQuery(service, limit=1, key=name)).entries for name in keys
        }
        return {name: entries[0] for name, entries in found.items() if entries}

    entries = await api.system.reading.past(read, request.context)
    shape = api.system.shapes.of(committed, service)
    defaults = {} if shape is None else shape.defaults
    instances = _Instances(api, committed.live(service), service)
    answer = {
        "service": service,
        "keys": [
            {
                **_origin(seen, name),
                **_made(entries.get(name)),
                "shadows": _shadows(seen, name, defaults),
                "instances": instances.of(name),
            }
            for name in keys
        ],
    }
    return json_response(answer, headers=NO_STORE)


def _origin(seen: Seen, name: str) -> JsonObject:
    if name in seen.secrets:
        origin = "default" if name in seen.unset else "secret"
        return {"key": name, "value": MASK, "origin": origin}
    origin = "base" if name in seen.stored else "default"
    return {"key": name, "value": seen.config[name], "origin": origin}


def _made(entry: HistoryEntry | None) -> JsonObject:
    if entry is None:
        return {"revision": None, "at": None, "by": None, "reason": None}
    return {"revision": entry.revision, "at": entry.at, "by": entry.by, "reason": entry.reason}


def _shadows(seen: Seen, name: str, defaults: Mapping[str, Any]) -> list[JsonObject]:
    if name in seen.stored and name in defaults and name not in seen.secrets:
        return [{"origin": "default", "value": defaults[name]}]
    return []


class _Instances:
    """What the instances of a service make of its keys."""

    def __init__(self, api: Api, wanted: ServiceState | None, service: str) -> None:
        self._all: list[tuple[InstanceStatus, State]] = [
            (one.status, one.state)
            for one in api.system.drift.judged(service)
            if one.status is not None
        ]
        self._variants = frozenset(_schemas_with_variants(wanted))

    def of(self, name: str) -> list[JsonObject]:
        return [
            {
                "instance": one.receipt.instance,
                "state": state,
                "origin": self._origin(one, state, name),
            }
            for one, state in self._all
        ]

    def _origin(self, one: InstanceStatus, state: State, name: str) -> str:
        if not one.verified or one.gone:
            return "unknown"
        if name in one.receipt.overrides:
            return "override"
        if state not in ("in-line", "overridden", "stale"):
            return "unknown"
        return "variant" if one.receipt.schema in self._variants else "delivered"


def _schemas_with_variants(wanted: ServiceState | None) -> list[str]:
    """Digests of the schemas that the published message has values of their own for."""
    if wanted is None:
        return []
    variants = orjson.loads(wanted.payload).get("variants", [])
    return [digest for one in variants for digest in one["schemas"]]
