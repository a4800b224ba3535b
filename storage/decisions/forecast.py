"""What a change would do: which keys change, which stay, and what each instance would make of it. Pure.

A forecast: an instance is judged by the schema that it says it was built with, and its code may know better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from config_manager.config import wire
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.instance_verdicts import Judged, verdict
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.variants import given
from config_manager.storage.state import Committed, ServiceState, changed_keys

NewSchemas = Mapping[str, CompiledSchema]
"""service → the schema that becomes active with the change"""
_TAKES_ANYTHING = CompiledSchema({"type": "object"})
"""Of an instance without a model."""


class Runner(NamedTuple):
    """A live instance, as its newest receipt says. schema: the digest of the one that it was built with; empty: it has
    none. overrides: the keys that its environment decides."""

    service: str
    instance: str
    enrolled: bool
    schema: str
    library: str
    overrides: tuple[str, ...]


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
            "overrides": overrides,
            "library": one.library,
        }
        for state in states
        if (running := runners.get(state.service))
        for one, judged, overrides in _judged(before, shapes, state, running, new or {})
    ]


def _judged(
    before: Committed,
    shapes: Shapes,
    state: ServiceState,
    running: Sequence[Runner],
    new: NewSchemas,
) -> Iterator[tuple[Runner, Judged, list[str]]]:
    """Each with what it makes of it, and the keys that would change and that its environment decides. Those that were
    built alike are judged once."""
    judging = _Judging(before, shapes, state, new.get(state.service))
    known: dict[tuple[str, tuple[str, ...]], tuple[Judged, list[str]]] = {}
    for one in running:
        alike = (one.schema, one.overrides)
        if alike not in known:
            known[alike] = judging.judged(one)
        yield one, *known[alike]


def _changed_secrets(live: ServiceState | None, state: ServiceState) -> list[str]:
    """The names of secrets that another version counts of."""
    was: Mapping[str, int] = {} if live is None else live.secrets
    return [name for name, version in state.secrets.items() if was.get(name) != version]


class _Judging:
    """One service's next state, as code of each schema is given it."""

    def __init__(
        self, before: Committed, shapes: Shapes, state: ServiceState, new: CompiledSchema | None
    ) -> None:
        self._before, self._shapes, self._state = before, shapes, state
        self._live = before.live(state.service)
        old = shapes.schema_of(before, state.service)
        self._known = [one for one in (new, old) if one is not None]

    def judged(self, one: Runner) -> tuple[Judged, list[str]]:
        state, live = self._state, self._live
        if state.deleted:
            return Judged("same", "it keeps what it runs"), []
        values = given(state, one.schema)
        runs = None if live is None else given(live, one.schema)
        judged = verdict(
            self._own(one.schema),
            values,
            one.overrides,
            runs,
            secrets=_changed_secrets(live, state),
        )
        changed = changed_keys({} if runs is None else runs.config, values.config)
        return judged, [each.key for each in changed if each.key in one.overrides]

    def _own(self, digest: str) -> CompiledSchema | None:
        """The schema that an instance was built with, if it is known."""
        if not digest:
            return _TAKES_ANYTHING
        for known in self._known:
            if known.digest == digest:
                return known
        return self._shapes.of_instance(self._before, self._state.service, digest)
