"""Idempotency-Keys: what a key stands for, and what the repetition of its request is answered."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import orjson

from config_manager.config.errors import Conflict, FieldError, IdempotencyMismatch
from config_manager.storage import state_codec
from config_manager.storage.decisions.changes import Decided
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.intents import EpochWritten, Intent, Written
from config_manager.storage.decisions.rollback import Refused, Rollback, RollbackEpoch
from config_manager.storage.decisions.terms import Idempotency
from config_manager.storage.state import IdempotencyRecord

_NOT_KEPT = b""
"""Kept instead of an answer that may be given only once."""
_DONE = (
    "this was done when the Idempotency-Key came first; what was answered then is not kept (a token "
    "is shown once); look at what there is before you ask again under another key"
)


@dataclass(frozen=True, slots=True)
class Repeats:
    """keyed: see `Tools`."""

    keyed: Callable[[bytes], bytes]

    def record(self, asked: Idempotency, decided: Decided[Any], now: float) -> IdempotencyRecord:
        answer = _encode(decided.answer) if decided.repeatable else _NOT_KEPT
        return IdempotencyRecord(asked.key, self.keyed(asked.fingerprint), answer, now)

    def replay(self, record: IdempotencyRecord, asked: Idempotency, what: Decidable[object]) -> Any:
        """What was answered to this very request before. Raises IdempotencyMismatch, and Conflict if the answer
        is not kept."""
        self._check(record, asked)
        if isinstance(what, Intent | Rollback | RollbackEpoch):
            return _decode(record.answer)
        if record.answer == _NOT_KEPT:
            raise Conflict(_DONE)
        answer = orjson.loads(record.answer)
        is_written = isinstance(what, Refused) and "states" in answer
        return _decode(record.answer) if is_written else answer

    def refuse(self, record: IdempotencyRecord, asked: Idempotency) -> NoReturn:
        """Raises Conflict, because the request was done; else IdempotencyMismatch."""
        self._check(record, asked)
        raise Conflict(_DONE)

    def _check(self, record: IdempotencyRecord, asked: Idempotency) -> None:
        """Raises IdempotencyMismatch if the key was used for another request."""
        if not hmac.compare_digest(record.fingerprint, self.keyed(asked.fingerprint)):
            raise IdempotencyMismatch(
                "this Idempotency-Key was used within the last 24 hours for another request; "
                "use a new key for a new request"
            )


def _encode(answer: object) -> bytes:
    """The answer as JSON, without the payload bytes, which no answer shows."""
    match answer:
        case Written(state, first):
            states, epoch, warnings = (state,), None, answer.warnings
        case EpochWritten(epoch_id, epoch_seq, revision, states, correlation_id):
            first, warnings = False, answer.warnings
            epoch = [epoch_id, epoch_seq, revision, correlation_id, answer.kept, answer.undone]
        case _:
            return orjson.dumps(answer)
    return orjson.dumps(
        {
            "states": [state_codec.encode_service(replace(s, payload=b"")) for s in states],
            "first": first,
            "epoch": epoch,
            "warnings": warnings,
        }
    )


def _decode(data: bytes) -> Written | EpochWritten:
    value = orjson.loads(data)
    states = tuple(state_codec.decode_service(item) for item in value["states"])
    warnings = tuple(FieldError(*one) for one in value.get("warnings", ()))  # 0.5.0 kept none
    if value["epoch"] is not None:
        epoch_id, epoch_seq, revision, correlation_id, *of_rollback = value["epoch"]
        kept, undone = of_rollback or ((), None)  # 0.5.0 kept none
        return EpochWritten(
            *(epoch_id, epoch_seq, revision, states, correlation_id, True, warnings),
            kept=tuple(kept),
            undone=undone,
        )
    return Written(states[0], value["first"], (), True, warnings)
