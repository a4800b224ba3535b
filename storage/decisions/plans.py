"""Plans: what a change would do, kept with its result, applied once or never. Pure.

A plan never changes. Its base names the revision and the schema of every service that it was worked out from
(`storage.decisions.planning`). Applying it writes the result as it was shown, if the base is as it was then; in
the same transaction the plan is used up.

    base    {"revisions": {service: revision}, "schemas": {service: digest or null}, "active": {}}
    result  {"action", "epoch": whether a new one begins, "values": {service: values to store}, "schemas":
            {service: {"schema", "differences", "allowed"}}, "taken_back": [[service, after, upto or null, keys]]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import orjson

from config_manager.config.errors import NotFound, PlanExpired, PlanStale, PlanUsed
from config_manager.config.names import OUR_ID, Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Beside, Decided, Revision
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.planning import Planned, revision_of, schema_of
from config_manager.storage.decisions.schema_changes import active_row, version_of
from config_manager.storage.decisions.shapes import Shapes, row
from config_manager.storage.state import (
    Commit,
    Committed,
    KeptPlan,
    RegistryRow,
    SchemaActivation,
    SchemaVersion,
    TakenBack,
    plan_digest,
)

GOOD_S = 24 * 3600.0
"""How long a plan may be applied."""

PlanState = Literal["ready", "applied", "failed", "expired"]
"""failed: its base has moved, so it can't be applied any more"""


@dataclass(frozen=True, kw_only=True)
class MakePlan:
    """Keep a plan."""

    planned: Planned

    def decide(self, before: Committed, on: Equipped) -> Decided[JsonObject]:
        services, base, result, shown = self.planned
        plan = KeptPlan(
            id=f"p-{on.tools.new_id()[-12:]}",
            seq=before.audit_seq + 1,
            at=on.at,
            expires_at=rfc3339(on.now + GOOD_S),
            by=on.by,
            reason=on.reason,
            services=services,
            digest=plan_digest(base, result, shown),
            base=base,
            result=result,
            shown=shown,
        )
        details = {"plan": plan.id, "digest": plan.digest}
        answer = view(plan, before, on.tools.shapes, on.now)
        decided = administered(before, on, "plan.create", details, (), answer, repeatable=True)
        return replace(decided, change=replace(decided.change, plans=(plan,)))


@dataclass(frozen=True, kw_only=True)
class ApplyPlan:
    """Write what a plan keeps: once, and only on what it was worked out from."""

    id: str

    def decide(self, before: Committed, on: Equipped) -> Decided[JsonObject]:
        """Raises NotFound, PlanUsed, PlanExpired, PlanStale, TooLarge."""
        plan = demanded(on.stored.plan(self.id), self.id)
        _demand_ready(plan, before, on)
        on = replace(on, reason=on.reason or plan.reason)
        result: JsonObject = orjson.loads(plan.result)
        schemas = _Schemas.of(result["schemas"], before, on)
        change = _written(plan, result, schemas, before, on)
        outcome: JsonObject = {
            "revision": change.after.revision,
            "at": on.at,
            "by": on.by,
            "correlation_id": on.correlation_id,
        }
        used = plan._replace(outcome=orjson.dumps(outcome).decode())
        change = replace(
            change, schemas=schemas.versions, activations=schemas.activations, plans=(used,)
        )
        answer: JsonObject = {
            "plan": plan.id,
            "config_epoch": change.after.epoch.id,
            "epoch_seq": change.after.epoch.seq,
            "revision": change.after.revision,
            "services": [state.service for state in change.services],
            "correlation_id": on.correlation_id,
        }
        if schemas.versions:
            answer["schemas"] = [_of_version(one) for one in schemas.versions]
        return Decided(answer, change, repeatable=True)


@dataclass(frozen=True, kw_only=True)
class DeletePlan:
    """Let go of a plan; what it wrote stays."""

    id: str

    def decide(self, before: Committed, on: Equipped) -> Decided[JsonObject]:
        """Raises NotFound."""
        plan = demanded(on.stored.plan(self.id), self.id)
        details, answer = {"plan": plan.id}, {"id": plan.id, "deleted": True}
        decided = administered(before, on, "plan.delete", details, (), answer, repeatable=True)
        return replace(decided, change=replace(decided.change, plans_gone=(plan.id,)))


def demanded(plan: KeptPlan | None, plan_id: str) -> KeptPlan:
    """Raises NotFound."""
    if plan is None:
        raise NotFound(
            f"there is no plan {plan_id}; GET /api/v1/plans lists those that are kept: the newest 100"
        )
    return plan


def view(plan: KeptPlan, now: Committed, shapes: Shapes, at: float) -> JsonObject:
    """A plan as it is answered. at: Unix seconds."""
    shown: JsonObject = orjson.loads(plan.shown)
    answer: JsonObject = {
        **about(plan, now, shapes, at),
        "base": orjson.loads(plan.base),
        **shown,
        "approvals": [],
    }
    if plan.outcome is not None:
        answer["applied"] = orjson.loads(plan.outcome)
    elif answer["state"] == "failed":
        answer["moved"] = list(moved(plan, now, shapes))
    return answer


def about(plan: KeptPlan, now: Committed, shapes: Shapes, at: float) -> JsonObject:
    """The members that a list shows, too, but the services."""
    return {
        "id": plan.id,
        "digest": plan.digest,
        "state": state_of(plan, now, shapes, at),
        "by": plan.by,
        "reason": plan.reason,
        "created_at": plan.at,
        "expires_at": plan.expires_at,
    }


def state_of(plan: KeptPlan, now: Committed, shapes: Shapes, at: float) -> PlanState:
    if plan.outcome is not None:
        return "applied"
    if at >= parse_rfc3339(plan.expires_at):
        return "expired"
    return "failed" if next(moved(plan, now, shapes), None) else "ready"


def moved(plan: KeptPlan, now: Committed, shapes: Shapes) -> Iterator[JsonObject]:
    """What of the plan's base is not as it was, and who changed it."""
    base = orjson.loads(plan.base)
    for name, was in base["revisions"].items():
        if (revision := revision_of(now, name)) != was:
            by = now.services[name].updated_by if name in now.services else OUR_ID
            yield {"service": name, "what": "revision", "was": was, "is": revision, "by": by}
    for name, was in base["schemas"].items():
        if (digest := schema_of(now, shapes, name)) != was:
            put = row(now, name)
            by = OUR_ID if put is None else put["by"]
            yield {"service": name, "what": "schema", "was": was, "is": digest, "by": by}


# ── applying ───────────────────────────────────────────────────────────────────────────────────


def _demand_ready(plan: KeptPlan, before: Committed, on: Equipped) -> None:
    """Raises PlanUsed, PlanExpired, PlanStale."""
    if plan.outcome is not None:
        applied = orjson.loads(plan.outcome)
        raise PlanUsed(
            f"{plan.id} was applied by {applied['by']} at {applied['at']}: a plan is used once",
            applied,
        )
    if on.now >= parse_rfc3339(plan.expires_at):
        raise PlanExpired(f"{plan.id} was good until {plan.expires_at}; nothing was written")
    others = list(moved(plan, before, on.tools.shapes))
    if others:
        told = "; ".join(map(_said, others[:20]))
        raise PlanStale(
            f"{plan.id} was worked out from what is no longer there: {told}; plan again, nothing was "
            "written",
            others,
        )


def _said(one: JsonObject) -> str:
    """Of what moved."""
    if one["what"] == "schema":
        return f"{one['service']} has another schema, by {one['by']}"
    return f"{one['service']} is at revision {one['is']} by {one['by']}, not {one['was']}"


class _Schemas(NamedTuple):
    """The schemas that become active. shapes: by service."""

    shapes: Mapping[str, CompiledSchema]
    rows: tuple[RegistryRow, ...]
    versions: tuple[SchemaVersion, ...]
    activations: tuple[SchemaActivation, ...]
    details: list[JsonObject]

    @classmethod
    def of(cls, wanted: Mapping[str, Any], before: Committed, on: Equipped) -> _Schemas:
        shapes: dict[str, CompiledSchema] = {}
        rows: list[RegistryRow] = []
        versions: list[SchemaVersion] = []
        details: list[JsonObject] = []
        for name, one in wanted.items():
            shape = shapes[name] = CompiledSchema(one["schema"])
            number = max((known.version for known in on.stored.schemas(name)), default=0) + 1
            made = version_of(name, number, shape, one["differences"], "put", before, on)
            rows.append(active_row(made, shape.schema))
            versions.append(made)
            details.append({**_of_version(made), "source": made.source, **one["allowed"]})
        activations = tuple(
            SchemaActivation(one.service, before.revision + 1, one.version) for one in versions
        )
        return cls(shapes, tuple(rows), tuple(versions), activations, details)


def _of_version(one: SchemaVersion) -> JsonObject:
    return {"service": one.service, "version": one.version, "digest": one.digest}


def _written(
    plan: KeptPlan, result: JsonObject, schemas: _Schemas, before: Committed, on: Equipped
) -> Commit:
    details: JsonObject = {"plan": plan.id, "digest": plan.digest}
    if schemas.details:
        details["schemas"] = schemas.details
    if not result["values"]:
        action = "schema" if schemas.rows else "plan.apply"
        return administered(before, on, action, details, schemas.rows, None).change
    epoch = Epoch(before.epoch.seq + 1, on.tools.new_id()) if result["epoch"] else before.epoch
    revision = Revision(before, on, on.tools.shapes, epoch, before.revision + 1)
    states = {
        name: revision.shaped(schemas.shapes.get(name), name, stored)
        if name in schemas.shapes
        else revision.next(name, stored)
        for name, stored in result["values"].items()
    }
    taken = tuple(_taken_back(one, revision.number) for one in result["taken_back"])
    beside = Beside(schemas.rows, taken_back=taken, details=details)
    return revision.commit(states, result["action"], beside=beside)


def _taken_back(kept: list[Any], revision: int) -> TakenBack:
    service, after, upto, keys = kept
    told = None if keys is None else tuple(keys)
    return TakenBack(service, revision, after, revision - 1 if upto is None else upto, told)
