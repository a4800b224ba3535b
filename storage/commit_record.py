"""One commit as a record and back. It is appended if writing everything again would cost too much. Pure.

A record is JSON: {"v": 1, "kind": "change", "at", "before": [revision, audit_seq, audit_head], "after":
[epoch_seq, epoch_id, revision, audit_seq, audit_head], "services", "history", "audit", "registry", "secret",
"forgotten", "taken_back", "idempotency", "reason", "schemas", "activations", "plans", "plans_gone"}. Members that would be empty are left out.
A record holds what
the database holds of a change, sealed secrets included: it has to be kept encrypted.
"""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import orjson

from config_manager.config import strict_json
from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.storage.state import (
    AuditEntry,
    Commit,
    Committed,
    HistoryEntry,
    HistoryRow,
    IdempotencyRecord,
    KeptPlan,
    KeyChange,
    RegistryRow,
    SchemaActivation,
    SchemaVersion,
    SealedSecret,
    TakenBack,
    rows_between,
    with_rows,
)
from config_manager.storage.state_codec import decode_service, encode_service

_VERSION = 1
_KIND = "change"
_BYTES = frozenset({"nonce", "ciphertext", "fingerprint", "answer"})
"""Members that are bytes, and so in Base64."""

R = TypeVar("R", SealedSecret, IdempotencyRecord, HistoryEntry)


class RecordRefused(ValueError):
    """A record that can't be applied here. A reader of records stops at it, and reads nothing behind it."""


class UnknownRecord(RecordRefused):
    """Of a kind, or of a version, that this code does not know."""


class OtherState(RecordRefused):
    """It follows another state than the one that it is to be applied to."""


class NoDifference(ValueError):
    """Two states of which no change leads from the one to the other."""


def encode(change: Commit) -> bytes:
    """The change's record."""
    before, after = change.before, change.after
    record: JsonObject = {
        "v": _VERSION,
        "kind": _KIND,
        "at": change.at,
        "before": _place(before),
        "after": [after.epoch.seq, after.epoch.id, *_place(after)],
        "services": [encode_service(state) for state in change.services] or None,
        "history": [_history_to_object(row) for row in change.history] or None,
        "audit": change.audit and _audit_to_object(change.audit),
        "registry": [[row.kind, row.key, row.value] for row in change.registry] or None,
        "secret": change.secret and _to_object(change.secret),
        "forgotten": change.forgotten,
        "taken_back": [list(one) for one in change.taken_back] or None,
        "idempotency": change.idempotency and _to_object(change.idempotency),
        "reason": change.reason,
        "schemas": [one._asdict() for one in change.schemas] or None,
        "activations": [list(one) for one in change.activations] or None,
        "plans": [one._asdict() for one in change.plans] or None,
        "plans_gone": list(change.plans_gone) or None,
    }
    return strict_json.dumps({name: value for name, value in record.items() if value is not None})


def decode(record: bytes, before: Committed) -> Commit:
    """The change of which this is the record; before: the state that it is applied to.

    Raises UnknownRecord, OtherState, and RecordRefused if it is no record at all.
    """
    try:
        value = orjson.loads(record)
        if (value["v"], value["kind"]) != (_VERSION, _KIND):
            raise UnknownRecord(f"a record of kind {value['kind']!r}, version {value['v']!r}")
        if value["before"] != _place(before):
            raise OtherState(
                f"a record that follows revision {value['before'][0]} and row {value['before'][1]} of the "
                f"audit, where revision {before.revision} and row {before.audit_seq} are"
            )
        return _change(value, before)
    except RecordRefused:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RecordRefused(f"not a record of a change: {error}") from None


def difference(before: Committed, after: Committed) -> Commit:
    """A change that leads from one state to the other, without history, audit row or secret.

    What is the same object in both costs a comparison of two pointers. Raises NoDifference if a
    service is gone: no write does that.
    """
    services = tuple(
        state
        for name, state in after.services.items()
        if (known := before.services.get(name)) is not state and known != state
    )
    new = sum(state.service not in before.services for state in services)
    if len(before.services) + new != len(after.services):
        raise NoDifference("a service of the earlier state is not in the later one")
    rows = rows_between(before.registry, after.registry)
    return Commit(before, after, services, (), None, None, registry=rows)


def changes_nothing(change: Commit) -> bool:
    """Whether the state after it is the one before it."""
    return not (change.services or change.registry) and (
        (change.before.epoch, _place(change.before)) == (change.after.epoch, _place(change.after))
    )


def _place(committed: Committed) -> list[int | str]:
    return [committed.revision, committed.audit_seq, committed.audit_head]


def _change(value: JsonObject, before: Committed) -> Commit:
    epoch_seq, epoch_id, revision, audit_seq, audit_head = value["after"]
    services = tuple(decode_service(item) for item in value.get("services", ()))
    registry = tuple(RegistryRow(*row) for row in value.get("registry", ()))
    after = Committed(
        epoch=Epoch(epoch_seq, epoch_id),
        revision=revision,
        audit_seq=audit_seq,
        audit_head=audit_head,
        services={**before.services, **{state.service: state for state in services}}
        if services
        else before.services,
        registry=with_rows(before.registry, registry),
    )
    audit, secret = value.get("audit"), value.get("secret")
    forgotten, idempotency = value.get("forgotten"), value.get("idempotency")
    return Commit(
        before=before,
        after=after,
        services=services,
        history=tuple(_history_from_object(row) for row in value.get("history", ())),
        audit=audit and _audit_from_object(audit),
        reason=value.get("reason"),
        registry=registry,
        secret=secret and _from_object(SealedSecret, secret),
        forgotten=forgotten and (forgotten[0], forgotten[1]),
        idempotency=idempotency and _from_object(IdempotencyRecord, idempotency),
        taken_back=tuple(map(_taken_back, value.get("taken_back", ()))),
        schemas=tuple(SchemaVersion(**one) for one in value.get("schemas", ())),
        activations=tuple(SchemaActivation(*one) for one in value.get("activations", ())),
        plans=tuple(map(_plan, value.get("plans", ()))),
        plans_gone=tuple(value.get("plans_gone", ())),
    )


def _taken_back(row: list[Any]) -> TakenBack:
    service, revision, after, upto, keys = row
    return TakenBack(service, revision, after, upto, None if keys is None else tuple(keys))


def _plan(value: JsonObject) -> KeptPlan:
    return KeptPlan(**value)._replace(services=tuple(value["services"]))


def _history_to_object(row: HistoryRow) -> JsonObject:
    members = row.entry._asdict()
    epoch = [members.pop("epoch_seq"), members.pop("config_epoch")]
    changes = [change.to_list() for change in row.entry.changes]
    return {"service": row.service, **members, "epoch": epoch, "changes": changes}


def _history_from_object(value: JsonObject) -> HistoryRow:
    epoch_seq, config_epoch = value["epoch"]
    changes = tuple(map(KeyChange.from_list, value["changes"]))
    members = {**value, "epoch_seq": epoch_seq, "config_epoch": config_epoch, "changes": changes}
    return HistoryRow(value["service"], _from_object(HistoryEntry, members))


def _audit_to_object(row: AuditEntry) -> JsonObject:
    """The body as text: it is hashed as it stands."""
    return {"seq": row.seq, "revision": row.revision, "body": row.body.decode(), "hash": row.hash}


def _audit_from_object(value: JsonObject) -> AuditEntry:
    return AuditEntry(value["seq"], value["revision"], value["body"].encode(), value["hash"])


def _to_object(row: SealedSecret | IdempotencyRecord) -> JsonObject:
    return {
        name: base64.b64encode(value).decode() if name in _BYTES else value
        for name, value in row._asdict().items()
    }


def _from_object(kind: type[R], value: JsonObject) -> R:
    return kind._make(
        base64.b64decode(value[name]) if name in _BYTES else value[name] for name in kind._fields
    )
