"""Committed state as JSON and back: for the last-known-good cache, for records and for repeated answers.

A state is a sequence of pieces, so that it is never in memory as one text: a head, then lists of services.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import cast

import orjson

from config_manager.config import strict_json
from config_manager.config.names import Epoch
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import digest
from config_manager.storage.state import Committed, ServiceState

_FORMAT = 3
_FORMAT_IN_ONE_PIECE = 2
"""0.1.0 and 0.2.0"""
_PIECE_BYTES = 64 * 1024
_PLAIN = tuple(
    one.name for one in fields(ServiceState) if one.name not in ("epoch", "payload", "digest")
)
"""Members of a service that are as they are in JSON; in order, so that the same state is the same bytes."""


def encode_service(state: ServiceState) -> JsonObject:
    """A service's members. What its payload says in the same JSON, with keys in the same order, is left out."""
    members: JsonObject = {name: getattr(state, name) for name in _PLAIN}
    members |= {"epoch": [state.epoch.seq, state.epoch.id], "secrets": dict(state.secrets)}
    told = _told_by(state.payload)
    if told is None:
        return {**members, "payload": base64.b64encode(state.payload).decode()}
    left = {k: v for k, v in members.items() if k not in told or not strict_json.same(v, told[k])}
    return {"text": state.payload.decode(), **left}


def decode_service(value: JsonObject) -> ServiceState:
    """The inverse of `encode_service`, of every version; raises ValueError, KeyError, TypeError."""
    if "text" in value:
        payload = value["text"].encode()
        told = _told_by(payload)
        if told is None:
            raise ValueError("the text of a service is no configuration update")
        value = {**told, **value}
    else:
        payload = base64.b64decode(value["payload"])
    members = {name: value[name] for name in _PLAIN}
    members |= {"epoch": Epoch(*value["epoch"]), "defaulted": tuple(value["defaulted"])}
    return ServiceState(**members, payload=payload, digest=digest(payload))


def _told_by(payload: bytes) -> JsonObject | None:
    """The members of a service that follow from its payload; None if the payload is no update."""
    try:
        update = orjson.loads(payload)
        config, defaulted = update["config"], update["defaulted"]
        return {
            "service": update["service"],
            "revision": update["revision"],
            "epoch": [update["epoch_seq"], update["config_epoch"]],
            "stored": {key: value for key, value in config.items() if key not in defaulted},
            "effective": config,
            "defaulted": defaulted,
            "secrets": update["secrets"],
            "deleted": update["deleted"],
            "updated_at": update["issued_at"],
            "correlation_id": update["correlation_id"],
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def encode(committed: Committed) -> Iterator[bytes]:
    """The state's pieces, in order; each is made when it is asked for."""
    yield strict_json.dumps(
        {
            "format": _FORMAT,
            "epoch": [committed.epoch.seq, committed.epoch.id],
            "revision": committed.revision,
            "audit": [committed.audit_seq, committed.audit_head],
            "services": len(committed.services),
            "registry": {kind: dict(rows) for kind, rows in committed.registry.items()},
        }
    )
    piece: list[bytes] = []
    size = 0
    for state in committed.services.values():
        piece.append(strict_json.dumps(encode_service(state)))
        size += len(piece[-1])
        if size >= _PIECE_BYTES:
            yield b"[" + b",".join(piece) + b"]"
            piece, size = [], 0
    if piece:
        yield b"[" + b",".join(piece) + b"]"


def decode(pieces: Iterator[bytes]) -> Committed:
    """The inverse of `encode`: takes the state's pieces, and leaves what comes behind them.

    Raises ValueError for another format, and if pieces are missing. The bytes must be trusted.
    """
    head = _of_format(_FORMAT, next(pieces, b"null"))
    services: list[ServiceState] = []
    while len(services) < head["services"]:
        piece = next(pieces, None)
        if piece is None:
            raise ValueError(f"{len(services)} services of {head['services']}")
        services += map(decode_service, json.loads(piece))
    return _committed(head, services)


def decode_whole(data: bytes) -> Committed:
    """What a version before 0.3.0 kept in one piece; raises ValueError for another format. The bytes
    must be trusted."""
    value = _of_format(_FORMAT_IN_ONE_PIECE, data)
    return _committed(value, [decode_service(item) for item in value["services"]])


def _of_format(number: int, data: bytes) -> JsonObject:
    value = json.loads(data)
    found = cast("JsonObject", value).get("format") if isinstance(value, dict) else None
    if found != number:
        raise ValueError(f"format {found!r}, expected {number}")
    return cast("JsonObject", value)


def _committed(head: JsonObject, services: list[ServiceState]) -> Committed:
    return Committed(
        epoch=Epoch(*head["epoch"]),
        revision=head["revision"],
        audit_seq=head["audit"][0],
        audit_head=head["audit"][1],
        services={state.service: state for state in services},
        registry=head["registry"],
    )
