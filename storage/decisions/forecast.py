"""What a change would do: which keys change, which stay, and what each instance would make of it. Pure.

A forecast: an instance is judged by the schema that it says it was built with, and its code may know better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from config_manager.config import wire
from config_manager.config.catalogue import Effective
from config_manager.config.errors import SchemaInvalid
from config_manager.config.strict_json import JsonObject, same
from config_manager.storage.decisions import migrating
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_outlook import instance_schema, why_not
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.state import Committed, ServiceState, changed_keys

Verdict = Literal["hot", "restart", "same", "refuses", "unknown"]

NewSchemas = Mapping[str, CompiledSchema]
"""service → the schema that becomes active with the change"""


class Runner(NamedTuple):
    """A live instance, as its newest receipt says. schema: the digest of the one that it was built with; empty: it has
    none. overrides: the keys that its environment decides."""

    service: str
    instance: str
    enrolled: bool
    schema: str
    library: str
    overrides: tuple[str, ...]


class Judged(NamedTuple):
    """overrides: of the keys that would change, those that the instance's environment decides."""

    verdict: Verdict
    why: str
    overrides: tuple[str, ...] = ()


def services(before: Committed, states: Sequence[ServiceState]) -> list[JsonObject]:
    """What these next states of services would change, and how large each message would be."""
    return [service(before, state) for state in states]


def service(before: Committed, state: ServiceState) -> JsonObject:
    """The same of one. changes: of stored values; effective: of what instances get. unchanged: the keys that stay."""
    live = before.live(state.service)
    effective = changed_keys({} if live is None else live.effective, state.effective)
    changed = {one.key for one in effective}
    stored = changed_keys({} if live is None else live.stored, state.stored)
    return {
        "service": state.service,
        "changes": [one.to_object() for one in stored],
        "effective": [one.to_object() for one in effective],
        "unchanged": [key for key in state.effective if key not in changed],
        "bytes": wire.envelope_size(len(state.payload), state.correlation_id),
    }


def instances(
    before: Committed,
    shapes: Shapes,
    states: Sequence[ServiceState],
    runners: Mapping[str, Sequence[Runner]],
    new: NewSchemas | None = None,
) -> list[JsonObject]:
    """What each live instance would make of these next states. runners: by service."""
    return [
        {
            "service": one.service,
            "instance": one.instance,
            "enrolled": one.enrolled,
            "verdict": judged.verdict,
            "why": judged.why,
            "overrides": list(judged.overrides),
            "library": one.library,
        }
        for state in states
        if (running := runners.get(state.service))
        for one, judged in _judged(before, shapes, state, running, new or {})
    ]


def _judged(
    before: Committed,
    shapes: Shapes,
    state: ServiceState,
    running: Sequence[Runner],
    new: NewSchemas,
) -> Iterator[tuple[Runner, Judged]]:
    """Those that were built alike are judged once."""
    judging = _Judging(before, shapes, state, new.get(state.service))
    known: dict[tuple[str, tuple[str, ...]], Judged] = {}
    for one in running:
        alike = (one.schema, one.overrides)
        if alike not in known:
            known[alike] = judging.judged(one)
        yield one, known[alike]


class _Judging:
    """One service's next state, as code of each schema gets it."""

    def __init__(
        self, before: Committed, shapes: Shapes, state: ServiceState, new: CompiledSchema | None
    ) -> None:
        self._before, self._shapes, self._state = before, shapes, state
        live = before.live(state.service)
        self._live = live
        try:
            old = shapes.schema_of(before, state.service)
        except SchemaInvalid:  # of a model that says more than a schema may
            old = None
        self._old = old
        self._active = new or old

    def judged(self, one: Runner) -> Judged:
        state, live = self._state, self._live
        if state.deleted:
            return Judged("same", "it keeps what it runs")
        own = self._own(one.schema)
        if own is None and one.schema:
            return Judged("unknown", f"its schema {one.schema[:8]} is not known here")
        now = {} if live is None else live.effective
        then, needs_restart = state.effective, frozenset[str]()
        if own is not None:
            needs_restart = own.restart_required
            taken = _as_taken(own, state, [self._active, self._old])
            if taken is None:
                delivered = Effective(state.effective, state.defaulted)
                return Judged("refuses", why_not(own, delivered))
            then = taken
            now = own.defaults if live is None else _as_taken(own, live, [self._old]) or now
        changed = [one.key for one in changed_keys(now, then)]
        if live is not None and not same(dict(live.secrets), dict(state.secrets)):
            changed += state.secrets
        overridden = tuple(key for key in changed if key in one.overrides)
        return _of_changed(changed, overridden, needs_restart)

    def _own(self, digest: str) -> CompiledSchema | None:
        """The schema that an instance was built with, if it is known."""
        for known in (self._active, self._old):
            if known is not None and known.digest == digest:
                return known
        return instance_schema(self._before, self._shapes, self._state.service, digest)


def _of_changed(
    changed: Sequence[str], overridden: tuple[str, ...], needs_restart: frozenset[str]
) -> Judged:
    shadowed = f"its environment decides {', '.join(overridden)}" if overridden else ""
    arriving = [key for key in changed if key not in overridden]
    if not arriving:
        return Judged("same", shadowed, overridden)
    late = [key for key in arriving if key in needs_restart]
    if late:
        told = f"a restart brings {', '.join(late)}"
        return Judged("restart", f"{told}; {shadowed}" if shadowed else told, overridden)
    return Judged("hot", shadowed, overridden)


def _as_taken(
    own: CompiledSchema, state: ServiceState, chain: Sequence[CompiledSchema | None]
) -> JsonObject | None:
    """The values with which code of this schema would run, perhaps by a variant; None if it takes none."""
    delivered = Effective(state.effective, state.defaulted)
    if own.reads(delivered):
        given = {k: v for k, v in delivered.config.items() if k not in delivered.defaulted}
        return {**own.defaults, **given}
    versions = list({one.digest: one for one in chain if one is not None}.values())
    if len(versions) > 1 and own.digest == versions[-1].digest:
        versions.pop()
    if not versions:
        return None
    found = migrating.variant(state.stored, versions, own)
    return None if found is None else found.config
