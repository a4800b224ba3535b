"""One receipt by itself: from a message's bytes to what it says of an instance. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from config_manager.config import wire
from config_manager.config.documents.fields import NotADocument, UnknownCritical
from config_manager.config.documents.receipt import Receipt
from config_manager.config.errors import InvalidName
from config_manager.config.names import accept_correlation_id, parse_instance, parse_service
from config_manager.config.world import parse_rfc3339

BEFORE = ""
"""The broker of what is known from before the start alone: no broker has told it since."""

_MAX_TEXT = 200
_WORD = re.compile(r"[a-z][a-z-]{0,31}")


class NotAReceipt(Exception):
    """The message says what is wrong."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance, as of its newest receipt. Times in Unix seconds.

    at: the receipt's own time. live_seq: of the newest receipt that is no will. gone: its will or its farewell
    came. broker: that told us so, or told the opposite. since: when it began to run what it runs, or went, as
    far as we know. heard_at: when it last said something; for a retained message its own time counts. verified:
    signed by the key that the instance enrolled.
    """

    receipt: Receipt
    keyid: str
    at: float
    live_seq: int
    gone: bool
    broker: str
    since: float
    received_at: float
    heard_at: float
    size: int
    verified: bool = False

    @property
    def is_from_before(self) -> bool:
        """As of before the start: no broker has told it since."""
        return self.broker == BEFORE


def names_of(topic: str) -> tuple[str, str]:
    """(service, instance) that a topic of receipts names. Raises NotAReceipt."""
    service, _, instance = topic.removeprefix(wire.STATUS_PREFIX).partition("/")
    try:
        return parse_service(service), parse_instance(instance)
    except InvalidName as error:
        raise NotAReceipt(error.detail) from None


def read_receipt(payload: bytes, broker: str, now: float, sign_key: bytes | None) -> InstanceStatus:
    """One message by itself. broker: that it came from. now: Unix seconds. sign_key: of an enrolled instance (raw
    Ed25519), None for any other. Raises NotAReceipt."""
    if len(payload) > wire.MAX_RECEIPT_BYTES:
        raise NotAReceipt(f"it is over {wire.MAX_RECEIPT_BYTES} bytes")
    try:
        envelope = wire.parse_envelope(payload)
        if envelope.payload_type != wire.RECEIPT:
            raise NotAReceipt("it is another kind of document")
        if sign_key is not None:
            _check_signature(envelope, sign_key)
        receipt = Receipt.parse(envelope.payload)
    except (wire.NotAnEnvelope, NotADocument, UnknownCritical) as error:
        raise NotAReceipt(str(error)) from None
    receipt = replace(receipt, correlation_id=accept_correlation_id(receipt.correlation_id))
    return InstanceStatus(
        receipt,
        envelope.signatures[0].keyid[:_MAX_TEXT],
        _check(receipt),
        live_seq=-1 if receipt.gone else receipt.seq,
        gone=receipt.gone,
        broker=broker,
        since=now,
        received_at=now,
        heard_at=now,
        size=len(payload),
        verified=sign_key is not None,
    )


def _check_signature(envelope: wire.Envelope, sign_key: bytes) -> None:
    if [one.keyid for one in envelope.signatures] != [wire.keyid(sign_key)]:
        # the names of keys are not signed: whoever carries the receipt could write others, and whoever checks it later by
        # its name would take it for a forgery
        raise NotAReceipt("it names another key than the one that this instance enrolled")
    message = wire.signed_bytes(envelope.payload_type, envelope.payload)
    try:
        VerifyKey(sign_key).verify(message, envelope.signatures[0].sig)
    except (BadSignatureError, ValueError):
        raise NotAReceipt("it is not signed by the key that this instance enrolled") from None


def _check(receipt: Receipt) -> float:
    """The receipt's time; raises NotAReceipt if its words are not of the kind that instances use."""
    words = [receipt.source, *([receipt.last_attempt.stage] if receipt.last_attempt else [])]
    if not all(_WORD.fullmatch(word) for word in words):
        raise NotAReceipt("source or stage: expected a word")
    if max(len(receipt.freshness), len(receipt.library)) > _MAX_TEXT:
        raise NotAReceipt(f"freshness or library: expected up to {_MAX_TEXT} characters")
    if receipt.running is not None and not wire.is_digest(receipt.running.digest):
        raise NotAReceipt("running.digest: expected 64 hex digits")
    try:
        if receipt.last_attempt is not None and receipt.last_attempt.at is not None:
            parse_rfc3339(receipt.last_attempt.at)
        return parse_rfc3339(receipt.at)
    except (ValueError, OverflowError):
        raise NotAReceipt("at: expected a time in RFC 3339") from None
