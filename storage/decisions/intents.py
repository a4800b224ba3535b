"""The writes to configurations and their secrets that a caller can ask for. Each decides what it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from config_manager.config.errors import (
    FieldError,
    InvalidValues,
    NotFound,
    RevisionConflict,
    TooLarge,
    UseSecrets,
)
from config_manager.config.names import Epoch, check_keys, is_key, pointer
from config_manager.config.secret import MASK, Secret
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.changes import (
    NOTHING,
    Beside,
    Decided,
    Revision,
    merge_patch,
)
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.shapes import Shape, Shapes
from config_manager.storage.decisions.terms import Precondition
from config_manager.storage.decisions.writing import judge
from config_manager.storage.state import Action, Committed, KeyChange, ServiceState

MAX_SECRET_BYTES = 16 * 1024
"""Of one secret in UTF-8. Sealed and twice in base64 a message of 256 KiB holds eight such."""


@dataclass(frozen=True, slots=True)
class Written:
    """An accepted write (or, for a dry run, what it would be).

    first: the service was not there before. replayed: an earlier answer to the same
    Idempotency-Key; then `changes` is empty and `state` is as it was answered. warnings: what the service's
    schema does not allow, and was there before. errors: what stands against a rollback; of its dry run.
    """

    state: ServiceState
    first: bool
    changes: tuple[KeyChange, ...]
    replayed: bool = False
    warnings: tuple[FieldError, ...] = ()
    errors: tuple[FieldError, ...] = ()


@dataclass(frozen=True, slots=True)
class EpochWritten:
    """All services of a new epoch, as of its one revision. warnings: see `Written`; pointers into the request.

    Of a rollback alone: kept: services that stay, because they were not there. undone: the revision that was taken
    back, if it was one. changes (of effective values, by service), errors: for its dry run.
    """

    config_epoch: str
    epoch_seq: int
    revision: int
    services: tuple[ServiceState, ...]
    correlation_id: str
    replayed: bool = False
    warnings: tuple[FieldError, ...] = ()
    kept: tuple[str, ...] = ()
    undone: int | None = None
    changes: Mapping[str, tuple[KeyChange, ...]] = field(
        default_factory=dict[str, "tuple[KeyChange, ...]"]
    )
    errors: tuple[FieldError, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Put:
    """Replace a service's stored values. preconditions: each has to hold."""

    service: str
    values: JsonObject
    preconditions: tuple[Precondition, ...] = ()

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        check_preconditions(before, self.service, self.preconditions)
        taken = checked(before, self.service, self.values, on.tools.shapes)
        return _revised(before, on, "put", self.service, taken.stored, warnings=taken.warnings)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Merge into a service's stored values (RFC 7396)."""

    service: str
    patch: JsonObject
    preconditions: tuple[Precondition, ...] = ()

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        check_preconditions(before, self.service, self.preconditions)
        taken = checked_patch(before, self.service, self.patch, on.tools.shapes)
        return _revised(before, on, "patch", self.service, taken.stored, warnings=taken.warnings)


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete: a revision of its own, published as a tombstone."""

    service: str
    preconditions: tuple[Precondition, ...] = ()

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        check_preconditions(before, self.service, self.preconditions)
        if before.live(self.service) is None:
            raise NotFound(f"{self.service} has no configuration to delete")
        return _revised(before, on, "delete", self.service, None)


@dataclass(frozen=True, kw_only=True)
class NewEpoch:
    """Replace the stored values of several services at once, all or none."""

    services: dict[str, JsonObject]

    def decide(self, before: Committed, on: Equipped) -> Decided[EpochWritten]:
        shapes = on.tools.shapes
        epoch = Epoch(before.epoch.seq + 1, on.tools.new_id())
        revision = Revision(before, on, shapes, epoch, before.revision + 1)
        taken = _checked_epoch(before, self.services, shapes)
        states = {name: revision.next(name, one.stored) for name, one in taken.items()}
        change = revision.commit(states, "epoch")
        answer = EpochWritten(
            config_epoch=epoch.id,
            epoch_seq=epoch.seq,
            revision=revision.number,
            services=change.services,
            correlation_id=on.correlation_id,
            warnings=tuple(
                FieldError(pointer("services", name) + where, detail)
                for name, one in taken.items()
                for where, detail in one.warnings
            ),
        )
        return Decided(answer, change, repeatable=True)


@dataclass(frozen=True, kw_only=True)
class SetSecret:
    """Store a secret; a revision of the service that names the secret's new version."""

    service: str
    name: str
    value: Secret

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        service, name = self.service, self.name
        live, known = before.live(service), before.services.get(service)
        self._check(on.tools.shapes.of(before, service), live)
        secrets: Mapping[str, int] = known.secrets if known else {}
        version = secret_rows.last_version(before, service, name) + 1
        return _revised(
            before,
            on,
            "secret",
            service,
            live.stored if live else {},
            secrets={**secrets, name: version},
            shown=KeyChange(name, MASK if name in secrets else None, MASK),
            beside=Beside(
                secret_rows.rows_after_set(before, service, name),
                sealed=on.tools.seal(before)(service, name, version, self.value, on.at),
            ),
        )

    def _check(self, shape: Shape | None, live: ServiceState | None) -> None:
        if not is_key(self.name):
            detail = "a secret's name is 1 to 63 of a-z, 0-9 and '_', and starts with a letter"
            raise InvalidValues("not a secret's name", [FieldError("/name", detail)])
        value = self.value.reveal()
        size = len(value.encode())
        if size > MAX_SECRET_BYTES:
            raise TooLarge(
                f"a secret of {size} bytes; at most {MAX_SECRET_BYTES}, because all of a service's "
                "secrets are delivered in one message"
            )
        if shape is not None:
            shape.check_secret(self.name, value)  # its own limits need the value
        if live is not None and self.name in live.stored:
            detail = f"{self.name} is a plain key of {self.service}; remove it there first"
            raise InvalidValues("already a plain key", [FieldError("/name", detail)])


@dataclass(frozen=True, kw_only=True)
class DeleteSecret:
    """Delete every version of a secret; a revision of the service that no longer names it."""

    service: str
    name: str

    def decide(self, before: Committed, on: Equipped) -> Decided[Written]:
        service, name = self.service, self.name
        live, known = before.live(service), before.services.get(service)
        if known is None or name not in known.secrets:
            raise NotFound(f"{service} has no secret of this name")
        return _revised(
            before,
            on,
            "secret-delete",
            service,
            live.stored if live else None,  # a deleted service stays deleted
            secrets={key: version for key, version in known.secrets.items() if key != name},
            shown=KeyChange(name, MASK, None),
            beside=Beside(
                secret_rows.rows_after_delete(before, service, name, at=on.at),
                forgotten=(service, name),
            ),
        )


Intent = Put | Patch | Delete | NewEpoch | SetSecret | DeleteSecret
"""Whatever makes a revision."""


def _revised(
    before: Committed,
    on: Equipped,
    action: Action,
    service: str,
    stored: JsonObject | None,
    *,
    secrets: Mapping[str, int] | None = None,
    shown: KeyChange | None = None,
    beside: Beside = NOTHING,
    warnings: tuple[FieldError, ...] = (),
) -> Decided[Written]:
    """A revision of one service. stored, secrets: see `Revision.next`; shown, beside: see `Revision.commit`."""
    revision = Revision(before, on, on.tools.shapes, before.epoch, before.revision + 1)
    state = revision.next(service, stored, secrets)
    change = revision.commit({service: state}, action, shown=shown, beside=beside)
    first = before.live(service) is None
    answer = Written(state, first, change.history[0].entry.changes, warnings=warnings)
    return Decided(answer, change, repeatable=True)


def check_preconditions(
    state: Committed, service: str, preconditions: Iterable[Precondition]
) -> None:
    """Raises RevisionConflict."""
    live = state.live(service)
    current = live.revision if live else 0
    for one in preconditions:
        if not one.holds_at(current):
            raise RevisionConflict(service, one.said, current)


class Checked(NamedTuple):
    """Values to store. warnings: see `Written`."""

    stored: JsonObject
    warnings: tuple[FieldError, ...]


def checked_patch(state: Committed, service: str, patch: JsonObject, shapes: Shapes) -> Checked:
    """The values to store once they are merged into what is stored. Raises NotFound, InvalidValues."""
    if not shapes.is_known(state, service):
        raise NotFound(f"nobody has written {service} yet; write all its values first")
    live = state.live(service)
    plain = without_secrets(patch, shapes.secret_keys(state, service))
    return checked(state, service, merge_patch(live.stored if live else {}, plain), shapes)


def checked(state: Committed, service: str, values: JsonObject, shapes: Shapes) -> Checked:
    """The values to store: secrets' masks dropped, everything else allowed by the shape or there before. Raises
    InvalidValues."""
    stored = without_secrets(values, shapes.secret_keys(state, service))
    shape = shapes.of(state, service)
    warnings: list[FieldError] = []
    if shape is not None:
        live = state.live(service)
        added, warnings = judge(shape, live.stored if live else None, stored)
        if added:
            raise InvalidValues(f"{service} does not take these values; nothing was written", added)
    check_keys(stored)  # after the shape, which names every wrong key at once
    return Checked(stored, tuple(warnings))


def without_secrets(values: JsonObject, secret_keys: frozenset[str]) -> JsonObject:
    """The values without masks of secrets. Raises UseSecrets for any other value there."""
    wrong = [key for key in values if key in secret_keys and values[key] != MASK]
    if wrong:
        raise UseSecrets(
            "a secret's value is not written here; send it to POST /api/v1/secrets",
            [
                FieldError(pointer(key), f"leave it out, or send {MASK!r} to keep what is stored")
                for key in wrong
            ],
        )
    return {key: value for key, value in values.items() if key not in secret_keys}


def _checked_epoch(
    state: Committed, services: Mapping[str, JsonObject], shapes: Shapes
) -> dict[str, Checked]:
    if not services:
        raise InvalidValues(
            "an epoch names at least one service",
            [FieldError("/services", "expected an object: service → its values")],
        )
    taken: dict[str, Checked] = {}
    errors: list[FieldError] = []
    kinds: set[type[InvalidValues]] = set()
    for service, values in services.items():
        try:
            taken[service] = checked(state, service, values, shapes)
        except InvalidValues as error:
            kinds.add(type(error))
            prefix = pointer("services", service)
            errors += [FieldError(prefix + e.pointer, e.detail) for e in error.errors]
    if errors:
        kind = UseSecrets if kinds == {UseSecrets} else InvalidValues
        raise kind("the epoch was refused as a whole; nothing was written", errors)
    return taken
