"""Which schema of a service is active: put, adopted, or taken out of use. Values are migrated with it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from config_manager.config.catalogue import schema_text
from config_manager.config.errors import (
    Conflict,
    FieldError,
    InvalidValues,
    MigrationLossy,
    NotFound,
    SchemaBreaking,
)
from config_manager.config.names import pointer
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import digest
from config_manager.storage.decisions.administration import administered, noted
from config_manager.storage.decisions.changes import Beside, Decided, Occasion, Revision
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.json_schema import CompiledSchema
from config_manager.storage.decisions.schema_outlook import Outlook, basis
from config_manager.storage.decisions.shapes import SCHEMA, row
from config_manager.storage.state import (
    Committed,
    RegistryRow,
    SchemaActivation,
    SchemaSource,
    SchemaVersion,
    changed_keys,
)


@dataclass(frozen=True, kw_only=True)
class PutSchema:
    """Make a schema the active one of its service.

    outlook: what that does. allow_breaking: although it breaks something; a reason has to be given. allow_lossy:
    although values can't be told apart afterwards. drop: keys of which what is stored goes. only_compare: answer
    what it would do, also if it would be refused; for a dry run.
    """

    service: str
    shape: CompiledSchema
    outlook: Outlook
    source: SchemaSource = "put"
    allow_breaking: bool = False
    allow_lossy: bool = False
    drop: tuple[str, ...] = ()
    only_compare: bool = False

    def decide(self, before: Committed, on: Equipped) -> Decided[JsonObject]:
        """The answer has `unchanged` if the schema is active already; then nothing is written. Raises Conflict if
        the outlook is no longer true, InvalidValues, MigrationLossy, SchemaBreaking."""
        if basis(before, on.tools.shapes, self.service) != self.outlook.basis:
            raise Conflict(f"{self.service} was changed while the schema was compared; try again")
        versions = on.stored.schemas(self.service)
        if self.outlook.basis.digest == self.shape.digest and not self.drop:
            active = active_version(before, self.service, versions)
            answer = {**self._answer(before, on, active), "unchanged": True}
            return Decided(answer, noted(before, on, ()).change, repeatable=True)
        refusal = self.refusal(on.reason)
        if refusal is not None and not self.only_compare:
            raise refusal
        decided = self._decided(before, on, max((v.version for v in versions), default=0) + 1)
        if refusal is None:
            return decided
        refused = {"type": refusal.description.name, "detail": refusal.detail}
        return replace(decided, answer={**decided.answer, "refused": refused})

    def refusal(self, reason: str | None) -> InvalidValues | SchemaBreaking | None:
        """What stands against it."""
        outlook = self.outlook
        if outlook.impossible or (outlook.lossy and not self.allow_lossy):
            never = "; this can't be asked for" if outlook.impossible else ""
            return MigrationLossy(
                f"stored values of {self.service} would be lost in the migration{never}",
                outlook.impossible or outlook.lossy,
            )
        breaking = outlook.refusing
        if breaking and not self.allow_breaking:
            return SchemaBreaking(
                f"this schema breaks what {self.service} has; change it, or ask for it with "
                "allow_breaking and a reason",
                breaking,
                differences=self.differences,
                breaks=outlook.breaks,
            )
        if outlook.in_the_open:
            detail = (
                "becomes a secret, and its value is stored in plain: drop it, and set the secret"
            )
            return InvalidValues(
                "a stored value can't become a secret",
                [FieldError(pointer(key), detail) for key in outlook.in_the_open],
            )
        if breaking and not (reason or "").strip():
            return InvalidValues(
                "a breaking schema needs a reason",
                [FieldError("", "say with `reason` why it has to be")],
            )
        return None

    @property
    def differences(self) -> list[JsonObject]:
        """From the active schema, as they are answered."""
        return [one.to_json() for one in self.outlook.differences]

    def _answer(self, after: Committed, on: Occasion, version: int | None) -> JsonObject:
        outlook = self.outlook
        lossy = {"lossy": [one._asdict() for one in outlook.lossy]} if outlook.lossy else {}
        return {
            "service": self.service,
            "version": version,
            "digest": self.shape.digest,
            "differences": self.differences,
            "breaks": outlook.breaks,
            "migrated": [],
            "revision": after.revision,
            "correlation_id": on.correlation_id,
            **lossy,
        }

    def _decided(self, before: Committed, on: Equipped, number: int) -> Decided[JsonObject]:
        differences = self.differences if self.outlook.basis.digest else None
        made = version_of(self.service, number, self.shape, differences, self.source, before, on)
        details: JsonObject = {"digest": made.digest, "source": made.source}
        for name in ("allow_breaking", "allow_lossy", "drop"):
            if value := getattr(self, name):
                details[name] = value
        active, answer = active_row(made, self.shape.schema), self._answer(before, on, number)
        values, live = self.outlook.values, before.live(self.service)
        if values is None or live is None or not changed_keys(live.stored, values):
            return _activated(before, on, active, number, answer, details=details, schemas=(made,))
        revision = Revision(before, on, on.tools.shapes, before.epoch, before.revision + 1)
        state = revision.shaped(self.shape, self.service, values)
        beside = Beside((active,), details={"service": self.service, "version": number, **details})
        change = replace(
            revision.commit({self.service: state}, "schema", beside=beside),
            schemas=(made,),
            activations=(SchemaActivation(self.service, revision.number, number),),
        )
        answer |= {"migrated": [self.service], "revision": revision.number}
        return Decided(answer, change, repeatable=True)


@dataclass(frozen=True, kw_only=True)
class DeleteSchema:
    """Take the version that was put out of use: what the catalogue or an instance had newest is active again."""

    service: str

    def decide(self, before: Committed, on: Equipped) -> Decided[JsonObject]:
        """Raises NotFound if no version that was put is active."""
        put = row(before, self.service)
        if put is None or put["source"] != "put":
            whose = "" if put is None else f"; its schema is an {put['source']}'s own"
            raise NotFound(f"no schema was put for {self.service}{whose}")
        has_model = on.tools.shapes.catalogue.shape(self.service) is not None
        others = [
            one
            for one in on.stored.schemas(self.service)
            if (one.source == "instance" or (one.source == "catalogue" and has_model))
            and digest(one.schema.encode()) == one.digest
        ]
        then = max(others, key=lambda one: one.version, default=None)
        is_model = then is not None and then.source == "catalogue"
        active = (
            RegistryRow(SCHEMA, self.service, None)
            if then is None or is_model
            else active_row(then, orjson.loads(then.schema))
        )
        about: JsonObject = {
            "digest": None if then is None else then.digest,
            "source": None if then is None else then.source,
        }
        version = None if then is None else then.version
        answer = {
            "service": self.service,
            "version": version,
            **about,
            "revision": before.revision,
        }
        return _activated(
            before, on, active, version, answer, details={**about, "deleted": put["version"]}
        )


def _activated(
    before: Committed,
    on: Equipped,
    active: RegistryRow,
    version: int | None,
    answer: JsonObject,
    *,
    details: JsonObject,
    schemas: tuple[SchemaVersion, ...] = (),
) -> Decided[JsonObject]:
    """A schema alone: a row of the audit, and no revision. What is published stays until the next write."""
    details = {"service": active.key, "version": version, **details}
    decided = administered(before, on, "schema", details, (active,), answer, repeatable=True)
    activation = SchemaActivation(active.key, before.revision + 1, version)
    return replace(
        decided, change=replace(decided.change, schemas=schemas, activations=(activation,))
    )


def version_of(
    service: str,
    number: int,
    shape: CompiledSchema,
    differences: Sequence[JsonObject] | None,
    source: SchemaSource,
    before: Committed,
    on: Occasion,
) -> SchemaVersion:
    """A new version of a schema. differences: None if no other one was active."""
    return SchemaVersion(
        service,
        number,
        shape.digest,
        schema_text(shape.schema).decode(),
        on.at,
        source,
        on.by,
        on.reason,
        on.correlation_id,
        None if differences is None else orjson.dumps(differences).decode(),
        before.revision,
    )


def active_row(one: SchemaVersion, schema: JsonObject) -> RegistryRow:
    """The row that makes a version the active one."""
    value = {
        "version": one.version,
        "digest": one.digest,
        "source": one.source,
        "at": one.at,
        "by": one.by,
        "reason": one.reason,
        "schema": schema,
    }
    return RegistryRow(SCHEMA, one.service, value)


def active_version(state: Committed, service: str, newest: Sequence[SchemaVersion]) -> int | None:
    """The number of the active version. newest: of the service's schema from each source."""
    put = row(state, service)
    if put is not None:
        return int(put["version"])
    return next((one.version for one in newest if one.source == "catalogue"), None)
