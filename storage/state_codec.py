"""Committed state as JSON and back: for the last-known-good cache and for replayed answers."""

from __future__ import annotations

import base64
import json
from typing import Any

from config_manager.config import strict_json
from config_manager.config.names import Epoch
from config_manager.config.wire import digest
from config_manager.storage.state import Committed, ServiceState

_FORMAT = 2


def encode_service(state: ServiceState) -> dict[str, Any]:
    return {
        "service": state.service,
        "revision": state.revision,
        "version": state.version,
        "epoch": [state.epoch.seq, state.epoch.id],
        "stored": state.stored,
        "effective": state.effective,
        "defaulted": state.defaulted,
        "secrets": dict(state.secrets),
        "deleted": state.deleted,
        "updated_at": state.updated_at,
        "updated_by": state.updated_by,
        "correlation_id": state.correlation_id,
        "payload": base64.b64encode(state.payload).decode(),
    }


def decode_service(value: dict[str, Any]) -> ServiceState:
    payload = base64.b64decode(value["payload"])
    return ServiceState(
        service=value["service"],
        revision=value["revision"],
        version=value["version"],
        epoch=Epoch(*value["epoch"]),
        stored=value["stored"],
        effective=value["effective"],
        defaulted=tuple(value["defaulted"]),
        secrets=value["secrets"],
        deleted=value["deleted"],
        updated_at=value["updated_at"],
        updated_by=value["updated_by"],
        correlation_id=value["correlation_id"],
        payload=payload,
        digest=digest(payload),
    )


def encode(committed: Committed) -> bytes:
    return strict_json.dumps(
        {
            "format": _FORMAT,
            "epoch": [committed.epoch.seq, committed.epoch.id],
            "revision": committed.revision,
            "audit": [committed.audit_seq, committed.audit_head],
            "services": [encode_service(state) for state in committed.services.values()],
            "registry": {kind: dict(rows) for kind, rows in committed.registry.items()},
        }
    )


def decode(data: bytes) -> Committed:
    """The inverse of `encode`; raises ValueError for another format. The bytes must be trusted."""
    value = json.loads(data)
    if value.get("format") != _FORMAT:
        raise ValueError(f"format {value.get('format')!r}, expected {_FORMAT}")
    services = [decode_service(item) for item in value["services"]]
    return Committed(
        epoch=Epoch(*value["epoch"]),
        revision=value["revision"],
        audit_seq=value["audit"][0],
        audit_head=value["audit"][1],
        services={state.service: state for state in services},
        registry=value["registry"],
    )
