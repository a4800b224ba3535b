"""What an instance makes of a configuration, by the schema that it says it was built with. Pure.

A forecast: its code may be laxer or stricter than its schema.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from config_manager.config.catalogue import Effective
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_outlook import LiveInstance, why_not
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.variants import given
from config_manager.storage.state import Committed, ServiceState, changed_keys

Verdict = Literal["hot", "restart", "same", "refuses", "unknown"]


class Judged(NamedTuple):
    """hot: it applies it while it runs. restart: with its next start. same: nothing changes for it. unknown: its
    schema is not known. why: in words, empty if there is nothing to say."""

    verdict: Verdict
    why: str = ""


def verdict(
    own: CompiledSchema | None,
    values: Effective,
    overrides: Collection[str],
    runs: Effective | None,
    *,
    secrets: Collection[str] = (),
) -> Judged:
    """own: the schema that it was built with, None if it is not known. values: what it is given (`variants.given`).
    overrides: the keys that its environment decides. runs: what it was given before, None for nothing. secrets: names of
    those that change."""
    if own is None:
        return Judged("unknown", "its schema is not known here")
    if not own.reads(values):
        return Judged("refuses", why_not(own, values))
    before = own.defaults if runs is None else own.with_defaults(runs)
    changed = [one.key for one in changed_keys(before, own.with_defaults(values))]
    changed += secrets
    shadowed = [key for key in changed if key in overrides]
    said = f"its environment decides {', '.join(shadowed)}" if shadowed else ""
    arriving = [key for key in changed if key not in overrides]
    if not arriving:
        return Judged("same", said)
    if late := [key for key in arriving if key in own.restart_required]:
        told = f"a restart brings {', '.join(late)}"
        return Judged("restart", f"{told}; {said}" if said else told)
    return Judged("hot", said)


def refused_by(
    committed: Committed,
    shapes: Shapes,
    states: Iterable[ServiceState],
    live: Mapping[str, Sequence[LiveInstance]],
) -> list[JsonObject]:
    """The live instances that would turn down these states, as an answer names them. live: by service."""
    found: list[JsonObject] = []
    for state in states:
        if state.deleted or not shapes.of_instances(committed, state.service):
            continue
        for one in live.get(state.service, ()):
            own = shapes.of_instance(committed, state.service, one.schema)
            if own is None:
                continue
            values = given(state, one.schema)
            if not own.reads(values):
                about = {"service": state.service, "instance": one.instance}
                found.append({**about, "why": why_not(own, values)})
    return found
