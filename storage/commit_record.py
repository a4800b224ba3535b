"""One commit as a record and back: what is appended where writing everything again costs too much. Pure.

A record is JSON: {"v": 1, "kind": "change", "at", "before": [revision, audit_seq, audit_head], "after":
[epoch_seq, epoch_id, revision, audit_seq, audit_head], "services", "history", "audit", "registry", "secret",
"forgotten", "idempotency", "reason"}; what a change has nothing of is left out. It holds what the
database holds of a change, sealed secrets included: whoever keeps it encrypts it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

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
    KeyChange,
    RegistryRow,
    SealedSecret,
    ServiceState,
    rows_between,
    with_rows,
)
from config_manager.storage.state_codec import decode_service, encode_service

_VERSION = 1
_KIND = "change"


class RecordRefused(ValueError):
    """A record that can't be applied here. Who reads records stops at it and never goes on behind it."""


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
        "secret": change.secret and _secret_to_object(change.secret),
        "forgotten": change.forgotten,
        "idempotency": change.idempotency and _idempotency_to_object(change.idempotency),
        "reason": change.reason,
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
    """A change that leads from one state to the other, with nothing of how it came to that: no history,
    no audit row, no secret.

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
        services=_with_services(before.services, services),
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
        secret=secret and _secret_from_object(secret),
        forgotten=forgotten and (forgotten[0], forgotten[1]),
        idempotency=idempotency and _idempotency_from_object(idempotency),
    )


def _with_services(
    before: Mapping[str, ServiceState], states: tuple[ServiceState, ...]
) -> Mapping[str, ServiceState]:
    return {**before, **{state.service: state for state in states}} if states else before


def _history_to_object(row: HistoryRow) -> JsonObject:
    entry = row.entry
    return {
        "service": row.service,
        "revision": entry.revision,
        "version": entry.version,
        "epoch": [entry.epoch_seq, entry.config_epoch],
        "at": entry.at,
        "by": entry.by,
        "action": entry.action,
        "reason": entry.reason,
        "correlation_id": entry.correlation_id,
        "changes": [change.to_list() for change in entry.changes],
    }


def _history_from_object(value: JsonObject) -> HistoryRow:
    epoch_seq, config_epoch = value["epoch"]
    entry = HistoryEntry(
        revision=value["revision"],
        version=value["version"],
        config_epoch=config_epoch,
        epoch_seq=epoch_seq,
        at=value["at"],
        by=value["by"],
        action=value["action"],
        reason=value["reason"],
        correlation_id=value["correlation_id"],
        changes=tuple(map(KeyChange.from_list, value["changes"])),
    )
    return HistoryRow(value["service"], entry)


def _audit_to_object(row: AuditEntry) -> JsonObject:
    """The body as text: it is hashed as it stands."""
    return {"seq": row.seq, "revision": row.revision, "body": row.body.decode(), "hash": row.hash}


def _audit_from_object(value: JsonObject) -> AuditEntry:
    return AuditEntry(value["seq"], value["revision"], value["body"].encode(), value["hash"])


def _secret_to_object(secret: SealedSecret) -> JsonObject:
    return {
        "service": secret.service,
        "name": secret.name,
        "version": secret.version,
        "key_id": secret.key_id,
        "nonce": _base64(secret.nonce),
        "ciphertext": _base64(secret.ciphertext),
        "updated_at": secret.updated_at,
    }


def _secret_from_object(value: JsonObject) -> SealedSecret:
    return SealedSecret(
        service=value["service"],
        name=value["name"],
        version=value["version"],
        key_id=value["key_id"],
        nonce=base64.b64decode(value["nonce"]),
        ciphertext=base64.b64decode(value["ciphertext"]),
        updated_at=value["updated_at"],
    )


def _idempotency_to_object(record: IdempotencyRecord) -> JsonObject:
    return {
        "key": record.key,
        "fingerprint": _base64(record.fingerprint),
        "answer": _base64(record.answer),
        "at": record.at,
    }


def _idempotency_from_object(value: JsonObject) -> IdempotencyRecord:
    return IdempotencyRecord(
        key=value["key"],
        fingerprint=base64.b64decode(value["fingerprint"]),
        answer=base64.b64decode(value["answer"]),
        at=value["at"],
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
