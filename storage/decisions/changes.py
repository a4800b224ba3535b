"""What a write comes to: pure, from the committed state and an intent to rows and the next state.

Both stores keep what is decided here, so they can't disagree. The single writer calls this for one
write after the other; nothing else decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, assert_never

from config_manager.config import strict_json, wire
from config_manager.config.audit import GENESIS, chain
from config_manager.config.catalogue import Catalogue
from config_manager.config.documents import ConfigUpdate
from config_manager.config.errors import (
    FieldError,
    InvalidValues,
    NotFound,
    RevisionConflict,
    TooLarge,
    UseSecrets,
)
from config_manager.config.names import Epoch, check_keys, is_key, pointer
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.intents import (
    Delete,
    DeleteSecret,
    Intent,
    NewEpoch,
    Patch,
    Put,
    SetSecret,
)
from config_manager.storage.decisions.registry_digests import digests_of
from config_manager.storage.state import (
    Action,
    AuditEntry,
    Commit,
    Committed,
    HistoryEntry,
    HistoryRow,
    KeyChange,
    RegistryRow,
    SealedSecret,
    ServiceState,
    changed_keys,
    with_rows,
)

MASK = "********"
"""What stands in answers where a secret is, and what a caller sends back to leave it alone."""

MAX_SECRET_BYTES = 16 * 1024
"""Of one secret in UTF-8. Sealed and twice in base64 a message of 256 KiB holds eight such."""

Seal = Callable[[str, str, int, Secret, str], SealedSecret]
"""(service, name, version, value, at) → the sealed secret."""


class Decision(NamedTuple):
    """An accepted write. first: the service was not there before."""

    change: Commit
    first: bool
    changes: tuple[KeyChange, ...]


@dataclass(frozen=True, slots=True)
class _Writer:
    """Who writes, when, and under which id: the same for every row of one change."""

    by: str
    reason: str | None
    at: str
    correlation_id: str
    epoch: Epoch
    revision: int


@dataclass(frozen=True, slots=True)
class _AboutSecret:
    """What a change does to a secret, beside the service's new revision: usually nothing."""

    shown: KeyChange | None = None
    sealed: SealedSecret | None = None
    forgotten: tuple[str, str] | None = None
    rows: tuple[RegistryRow, ...] = ()


_NOTHING = _AboutSecret()


def empty(epoch: Epoch) -> Committed:
    """The state before the first write."""
    return Committed(epoch, 0, 0, GENESIS, {}, {})


def decide(
    state: Committed,
    intent: Intent,
    *,
    by: str,
    reason: str | None,
    catalogue: Catalogue,
    at: str,
    correlation_id: str,
    epoch_id: str,
    seal: Seal,
) -> Decision:
    """What `intent` comes to. epoch_id: for a new epoch only.

    Raises RevisionConflict, NotFound, InvalidValues, UseSecrets or TooLarge; then nothing happened.
    """
    epoch = Epoch(state.epoch.seq + 1, epoch_id) if isinstance(intent, NewEpoch) else state.epoch
    writer = _Writer(by, reason, at, correlation_id, epoch, state.revision + 1)
    about_secret = _NOTHING
    match intent:
        case Put(service=service, values=values):
            _check_preconditions(state, intent)
            stored = _checked(state, service, values, catalogue)
            after = {service: _next(state, service, stored, catalogue, writer)}
            action: Action = "put"
        case Patch(service=service, patch=patch):
            _check_preconditions(state, intent)
            live = state.live(service)
            if live is None and service not in catalogue:
                raise NotFound(f"nobody has written {service} yet; PUT it first")
            secret_keys = secret_keys_of(state, service, catalogue)
            _refuse_secrets(patch, secret_keys)
            patch = {k: v for k, v in patch.items() if k not in secret_keys}
            merged = merge_patch(live.stored if live else {}, patch)
            stored = _checked(state, service, merged, catalogue)
            after = {service: _next(state, service, stored, catalogue, writer)}
            action = "patch"
        case Delete(service=service):
            _check_preconditions(state, intent)
            if state.live(service) is None:
                raise NotFound(f"{service} has no configuration to delete")
            after = {service: _next(state, service, None, catalogue, writer)}
            action = "delete"
        case NewEpoch(services=services):
            after = {
                name: _next(state, name, stored, catalogue, writer)
                for name, stored in _checked_epoch(state, services, catalogue).items()
            }
            action = "epoch"
        case SetSecret(service=service, name=name, value=value):
            after, about_secret = _with_secret(state, service, name, value, catalogue, writer, seal)
            action = "secret"
        case DeleteSecret(service=service, name=name):
            after, about_secret = _without_secret(state, service, name, catalogue, writer)
            action = "secret-delete"
        case _ as unreachable:
            assert_never(unreachable)
    return _decision(state, after, action, writer, about_secret)


def reissue(
    before: Committed,
    *,
    written: Mapping[str, JsonObject],
    registry: tuple[RegistryRow, ...],
    epoch: Epoch,
    revision: int,
    catalogue: Catalogue,
    by: str,
    reason: str | None,
    at: str,
    correlation_id: str,
    also: Callable[[Committed], JsonObject],
) -> Commit:
    """Every service again, as it is, under a new epoch and revision.

    written: the values that the new rows of history change. registry: rows that are changed with it. also:
    more members of the audit row, from the state after it. Raises TooLarge.
    """
    writer = _Writer(by, reason, at, correlation_id, epoch, revision)
    states = {
        name: _again(before, name, s, catalogue, writer) for name, s in before.services.items()
    }
    rows = tuple(
        _history_row(writer, name, state, "restore", changed_keys(written[name], state.stored))
        for name, state in states.items()
    )
    after = replace(
        before,
        epoch=epoch,
        revision=revision,
        services=states,
        registry=with_rows(before.registry, registry),
    )
    audit = link(before, revision, {**_body(rows, "restore", writer), **also(after)})
    after = replace(after, audit_seq=audit.seq, audit_head=audit.hash)
    return Commit(before, after, tuple(states.values()), rows, audit, reason, registry=registry)


def _again(
    before: Committed, name: str, state: ServiceState, catalogue: Catalogue, writer: _Writer
) -> ServiceState:
    """The next revision of an unchanged configuration. A message may be too large with 100 bytes more: then
    the configuration goes without the digest of the one before and without the correlation id."""
    stored = None if state.deleted else state.stored
    try:
        return _next(before, name, stored, catalogue, writer)
    except TooLarge:
        first = replace(before, services={name: replace(state, digest="")})
        return _next(first, name, stored, catalogue, replace(writer, correlation_id=""))


def secret_keys_of(state: Committed, service: str, catalogue: Catalogue) -> frozenset[str]:
    """The keys of a service that hold secrets: by its model, or because one was stored."""
    known = state.services.get(service)
    return catalogue.secret_keys(service) | (known.secrets.keys() if known else frozenset())


def merge_patch(target: JsonObject, patch: JsonObject) -> JsonObject:
    """RFC 7396, for objects: null removes, objects merge, everything else replaces."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = merge_patch(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def link(before: Committed, revision: int, body: JsonObject) -> AuditEntry:
    """The next row of the audit chain, naming its place (`config.audit`)."""
    seq, previous = before.audit_seq + 1, before.audit_head
    data = strict_json.dumps({"seq": seq, "previous": previous, **body})
    return AuditEntry(seq, revision, data, chain(previous, data))


# ── checks ─────────────────────────────────────────────────────────────────────────────────────


def _check_preconditions(state: Committed, intent: Put | Patch | Delete) -> None:
    """Raises RevisionConflict."""
    live = state.live(intent.service)
    current = live.revision if live else 0
    for one in intent.preconditions:
        if not one.holds_at(current):
            raise RevisionConflict(intent.service, one.said, current)


def _checked(
    state: Committed, service: str, values: JsonObject, catalogue: Catalogue
) -> JsonObject:
    """The values to store: secrets' masks dropped, everything else allowed by the model."""
    secret_keys = secret_keys_of(state, service, catalogue)
    _refuse_secrets(values, secret_keys)
    stored = {key: value for key, value in values.items() if key not in secret_keys}
    catalogue.check(service, stored)
    check_keys(stored)  # after the model, which tells all that is wrong with all the keys
    return stored


def _refuse_secrets(values: JsonObject, secret_keys: frozenset[str]) -> None:
    wrong = [key for key in values if key in secret_keys and values[key] != MASK]
    if wrong:
        raise UseSecrets(
            "a secret's value is not written here; send it to POST /api/v1/secrets",
            [
                FieldError(pointer(key), f"leave it out, or send {MASK!r} to keep what is stored")
                for key in wrong
            ],
        )


def _checked_epoch(
    state: Committed, services: Mapping[str, JsonObject], catalogue: Catalogue
) -> dict[str, JsonObject]:
    if not services:
        raise InvalidValues(
            "an epoch names at least one service",
            [FieldError("/services", "expected an object: service → its values")],
        )
    stored: dict[str, JsonObject] = {}
    errors: list[FieldError] = []
    kinds: set[type[InvalidValues]] = set()
    for service, values in services.items():
        try:
            stored[service] = _checked(state, service, values, catalogue)
        except InvalidValues as error:
            kinds.add(type(error))
            prefix = pointer("services", service)
            errors += [FieldError(prefix + e.pointer, e.detail) for e in error.errors]
    if errors:
        kind = UseSecrets if kinds == {UseSecrets} else InvalidValues
        raise kind("the epoch was refused as a whole; nothing was written", errors)
    return stored


# ── the next state ─────────────────────────────────────────────────────────────────────────────


def _with_secret(
    state: Committed,
    service: str,
    name: str,
    value: Secret,
    catalogue: Catalogue,
    writer: _Writer,
    seal: Seal,
) -> tuple[dict[str, ServiceState], _AboutSecret]:
    if not is_key(name):
        detail = "a secret's name is 1 to 63 of a-z, 0-9 and '_', and starts with a letter"
        raise InvalidValues("not a secret's name", [FieldError("/name", detail)])
    size = len(value.reveal().encode())
    if size > MAX_SECRET_BYTES:
        raise TooLarge(
            f"a secret of {size} bytes; at most {MAX_SECRET_BYTES}, because all of a service's "
            "secrets are delivered in one message"
        )
    catalogue.check_secret(service, name, value.reveal())  # the model's own limits need the value
    live, known = state.live(service), state.services.get(service)
    if live is not None and name in live.stored:
        detail = f"{name} is a plain key of {service}; remove it there first"
        raise InvalidValues("already a plain key", [FieldError("/name", detail)])
    before = known.secrets if known else {}
    version = secret_rows.last_version(state, service, name) + 1
    about = _AboutSecret(
        shown=KeyChange(name, MASK if name in before else None, MASK),
        sealed=seal(service, name, version, value, writer.at),
        rows=secret_rows.rows_after_set(state, service, name),
    )
    stored = live.stored if live else {}
    secrets = {**before, name: version}
    return {service: _next(state, service, stored, catalogue, writer, secrets)}, about


def _without_secret(
    state: Committed, service: str, name: str, catalogue: Catalogue, writer: _Writer
) -> tuple[dict[str, ServiceState], _AboutSecret]:
    live, known = state.live(service), state.services.get(service)
    if known is None or name not in known.secrets:
        raise NotFound(f"{service} has no secret of this name")
    about = _AboutSecret(
        shown=KeyChange(name, MASK, None),
        forgotten=(service, name),
        rows=secret_rows.rows_after_delete(state, service, name, at=writer.at),
    )
    stored = live.stored if live else None  # a deleted service stays deleted
    secrets = {key: version for key, version in known.secrets.items() if key != name}
    return {service: _next(state, service, stored, catalogue, writer, secrets)}, about


def _next(
    state: Committed,
    service: str,
    stored: JsonObject | None,
    catalogue: Catalogue,
    writer: _Writer,
    secrets: Mapping[str, int] | None = None,
) -> ServiceState:
    """The service's next state; stored None is the tombstone. Raises TooLarge."""
    before = state.services.get(service)
    if secrets is None:
        secrets = before.secrets if before else {}
    effective, defaulted = ({}, ()) if stored is None else catalogue.effective(service, stored)
    payload = ConfigUpdate(
        service=service,
        topic=wire.config_topic(service),
        config_epoch=writer.epoch.id,
        epoch_seq=writer.epoch.seq,
        revision=writer.revision,
        previous=(before.digest or None) if before else None,
        issued_at=writer.at,
        config=effective,
        defaulted=defaulted,
        secrets={} if stored is None else secrets,
        deleted=stored is None,
        correlation_id=writer.correlation_id,
    ).to_bytes()
    size = wire.envelope_size(len(payload), writer.correlation_id)
    if size > wire.MAX_ENVELOPE_BYTES:
        raise TooLarge(
            f"{service} would be a message of {size} bytes; "
            f"services take at most {wire.MAX_ENVELOPE_BYTES}"
        )
    return ServiceState(
        service=service,
        revision=writer.revision,
        version=(before.version if before else 0) + 1,
        epoch=writer.epoch,
        stored=stored or {},
        effective=effective,
        defaulted=defaulted,
        secrets=secrets,
        deleted=stored is None,
        updated_at=writer.at,
        updated_by=writer.by,
        correlation_id=writer.correlation_id,
        payload=payload,
        digest=wire.digest(payload),
    )


def _decision(
    before: Committed,
    states: Mapping[str, ServiceState],
    action: Action,
    writer: _Writer,
    about_secret: _AboutSecret,
) -> Decision:
    shown = about_secret.shown
    rows = tuple(
        _history_row(
            writer,
            name,
            state,
            action,
            (shown,)
            if shown is not None
            else changed_keys(_values(before.live(name)), state.stored),
        )
        for name, state in states.items()
    )
    audit = _audit(before, states, rows, action, writer, about_secret.rows)
    after = replace(
        before,
        epoch=writer.epoch,
        revision=writer.revision,
        audit_seq=audit.seq,
        audit_head=audit.hash,
        services={**before.services, **states},
        registry=with_rows(before.registry, about_secret.rows),
    )
    change = Commit(
        before,
        after,
        tuple(states.values()),
        rows,
        audit,
        writer.reason,
        registry=about_secret.rows,
        secret=about_secret.sealed,
        forgotten=about_secret.forgotten,
    )
    first = all(before.live(name) is None for name in states)
    return Decision(change, first, rows[0].entry.changes)


def _values(state: ServiceState | None) -> JsonObject:
    return {} if state is None else state.stored


def _history_row(
    writer: _Writer,
    service: str,
    state: ServiceState,
    action: Action,
    changes: tuple[KeyChange, ...],
) -> HistoryRow:
    entry = HistoryEntry(
        revision=state.revision,
        version=state.version,
        config_epoch=state.epoch.id,
        epoch_seq=state.epoch.seq,
        at=writer.at,
        by=writer.by,
        action=action,
        reason=writer.reason,
        correlation_id=writer.correlation_id,
        changes=changes,
    )
    return HistoryRow(service, entry)


def _audit(
    before: Committed,
    states: Mapping[str, ServiceState],
    rows: Sequence[HistoryRow],
    action: Action,
    writer: _Writer,
    registry: Sequence[RegistryRow],
) -> AuditEntry:
    body = {
        **_body(rows, action, writer),
        "config_epoch": writer.epoch.id,
        "digests": {name: state.digest for name, state in states.items()},
    }
    kept = {name: dict(s.secrets) for name, s in states.items() if s.deleted and s.secrets}
    if kept:  # a tombstone does not name them
        body["secrets"] = kept
    if registry:
        body["registry"] = digests_of(registry)
    return link(before, writer.revision, body)


def _body(rows: Sequence[HistoryRow], action: Action, writer: _Writer) -> dict[str, Any]:
    return {
        "revision": writer.revision,
        "epoch_seq": writer.epoch.seq,
        "at": writer.at,
        "by": writer.by,
        "action": action,
        "reason": writer.reason,
        "correlation_id": writer.correlation_id,
        "services": {
            row.service: [change.to_list() for change in row.entry.changes] for row in rows
        },
    }
