"""What plans look like over REST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from config_manager.api.resources.configs import parse_services
from config_manager.api.resources.rollbacks import (
    EpochRollbackRequest,
)
from config_manager.api.resources.schema_changes import Breaks
from config_manager.api.resources.schemas import DifferenceAnswer, SchemaDigest
from config_manager.api.rest.forecasts import InstanceForecast
from config_manager.api.rest.models import (
    NAME,
    Always,
    Answer,
    Body,
    By,
    CorrelationId,
    EpochId,
    EpochSeq,
    Name,
    Reader,
    Revision,
    SeveralWrong,
    Time,
    about,
    parsed,
)
from config_manager.api.rest.writing import (
    KeyChangeAnswer,
    ReasonInBody,
    WarningAnswer,
    WriteAnswer,
)
from config_manager.config.errors import (
    InvalidValues,
)
from config_manager.config.strict_json import JsonObject, is_object
from config_manager.storage.decisions.plans import PlanState


def _parse_objects(value: Any) -> dict[str, JsonObject]:
    return {} if value is None else parse_services(value)


def _by_service(what: str, description: str) -> Reader:
    return Reader(
        _parse_objects,
        {
            "type": "object",
            "propertyNames": NAME,
            "additionalProperties": {"$ref": f"#/components/schemas/{what}"},
            "description": f"service → {description}",
        },
    )


def _parse_rollback(value: Any) -> EpochRollbackRequest | None:
    if value is None:
        return None
    if not is_object(value):
        raise ValueError("expected an object")
    try:
        return parsed(value, EpochRollbackRequest)
    except InvalidValues as error:
        raise SeveralWrong(error.errors) from None


class PlanRequest(Body):
    """What is to be planned: values, patches and schemas of services; or a rollback, by itself."""

    REFUSED: ClassVar[str] = "the plan is not as it should be; nothing was kept"

    services: Annotated[
        dict[str, JsonObject], _by_service("Values", "its values, which replace the stored ones")
    ] = Field(default_factory=dict[str, JsonObject])
    patch: Annotated[
        dict[str, JsonObject],
        _by_service("Values", "what is merged into its stored values (RFC 7396)"),
    ] = Field(default_factory=dict[str, JsonObject])
    schemas: Annotated[
        dict[str, JsonObject],
        _by_service("JsonSchema", "the schema that becomes active; values are in its terms"),
    ] = Field(default_factory=dict[str, JsonObject])
    rollback: Annotated[
        EpochRollbackRequest | None,
        Reader(
            _parse_rollback,
            {"allOf": [{"$ref": "#/components/schemas/EpochRollbackRequest"}]},
        ),
    ] = None
    reason: ReasonInBody = None


class ApplyRequest(Body):
    """Why a plan is applied."""

    REFUSED: ClassVar[str] = "the order is not as it should be; nothing was written"

    reason: ReasonInBody = None


class PlannedService(Answer):
    """What a plan would change of a service."""

    service: Name
    changes: Annotated[list[KeyChangeAnswer], about("of stored values")]
    effective: Annotated[list[KeyChangeAnswer], about("of what instances get")]
    unchanged: Annotated[list[str], about("the keys that stay as they are")]
    bytes: Annotated[int, about("its message; at most 262144 are taken")]


class PlannedSchema(Answer):
    """A schema that a plan would make the active one."""

    service: Name
    digest: SchemaDigest
    differences: list[DifferenceAnswer]
    breaks: Breaks


class PlanBase(Answer):
    """What a plan was worked out from. It can be applied while all of it is as it was; anything else may move."""

    revisions: Annotated[dict[str, int], about("service → its newest revision; 0: it has none")]
    schemas: Annotated[
        dict[str, str | None], about("service → the digest of its active schema; null: it has none")
    ]
    active: Annotated[dict[str, Any], about("what is switched on; always empty in this version")]


class Moved(Answer):
    """Something of a plan's base that is not as it was."""

    service: Name
    what: Literal["revision", "schema"]
    was: Annotated[int | str | None, about("a revision, or the digest of a schema")]
    is_: Annotated[int | str | None, Field(alias="is", description="the same now")]
    by: Annotated[str, about("who changed it last")]


class PlanOutcome(Answer):
    """How a plan was used."""

    revision: Annotated[int, about("the newest one afterwards")]
    at: Time
    by: By
    correlation_id: CorrelationId


class _About(Answer):
    id: str
    digest: Annotated[str, about("SHA-256, in hex, of all that the plan keeps; it never changes")]
    state: Annotated[
        PlanState,
        about("failed: its base has moved, so it can't be applied any more"),
    ]
    by: By
    reason: Annotated[str | None, about("why, if somebody said so")]
    created_at: Time
    expires_at: Annotated[Time, about("until then it may be applied")]


class PlanAnswer(_About):
    """A plan: what a change would do. It never changes, and is applied once or never."""

    base: PlanBase
    services: list[PlannedService]
    instances: list[InstanceForecast]
    warnings: list[WarningAnswer]
    schemas: Annotated[Sequence[PlannedSchema], about("left out if there are none")] = ()
    kept: Annotated[
        Sequence[Name],
        about("of a rollback: services that were not there before, and stay as they are"),
    ] = ()
    undone: Annotated[
        int | None,
        about("of a rollback: the revision that it takes back; null: all after `to_revision`"),
    ] = None
    approvals: Annotated[list[str], about("always empty in this version")]
    applied: Annotated[PlanOutcome | None, about("if it was")] = None
    moved: Annotated[Sequence[Moved], about("if it failed: what is not as it was")] = ()


class PlanEntry(_About):
    """A plan, in a list."""

    services: Annotated[list[Name], about("those that it is about")]


class PlanList(Answer):
    """The plans that are kept, of the services that the token is for."""

    plans: list[PlanEntry]
    next_after: Annotated[str | None, about("`after` of the next page; null: this is the last")]


class AppliedSchema(Answer):
    """A schema that is active now."""

    service: Name
    version: Annotated[int, about("the version's number, counted for this service")]
    digest: SchemaDigest


class _Applied(Answer):
    plan: Annotated[str, about("the plan's id")]
    config_epoch: EpochId
    epoch_seq: EpochSeq
    revision: Revision
    services: Annotated[list[Name], about("those that were written")]
    schemas: Annotated[Sequence[AppliedSchema], about("left out if there are none")] = ()


class AppliedPlan(WriteAnswer, _Applied):
    """A plan was applied: one revision of every service in it that changed."""


class DeletedPlan(Answer):
    """A plan is gone; what it wrote stays."""

    id: str
    deleted: Always
