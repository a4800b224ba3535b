"""Whom to believe, without I/O: bytes, a trusted root and what was seen before go in, a document or a refusal
comes out.

The rules, cheapest first; each refusal has one stable reason:

    too-large              over 256 KiB, before anything is parsed
    malformed              not a DSSE envelope, or a verified payload without its type's fields
    wrong-type             another kind of document
    unknown-key            no signature by a key that the root gives this role, or the key is past its date
    bad-signature          a key of this role, but the signature does not verify
    unsupported-critical   `critical` names a field that this version does not know
    wrong-service          signed for another service
    wrong-topic            signed for another topic than the one it came on
    rolled-back            older than what was seen
    equivocation           the same revision with other content: somebody signed twice
    model, callback        refused by the service itself (`config_manager.client`)

Signatures are checked over the received bytes, before those bytes are parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, NamedTuple, TypeVar

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from config_manager.config import wire
from config_manager.config.documents.audit_export import AuditExport
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.fields import NotADocument, UnknownCritical
from config_manager.config.documents.receipt import Receipt
from config_manager.config.documents.report import Report
from config_manager.config.documents.root import Root
from config_manager.config.documents.sealed import Sealed
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.names import Mark
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import parse_rfc3339

Reason = Literal[
    "too-large", "malformed", "wrong-type", "bad-signature", "unknown-key", "wrong-service",
    "wrong-topic", "rolled-back", "equivocation", "unsupported-critical", "model", "callback",
]  # fmt: skip

RoleName = Literal["root", "config", "beacon"]
T = TypeVar("T")
Document = TypeVar(
    "Document", Sealed, ConfigUpdate, Snapshot, Beacon, Root, AuditExport, Report, Receipt
)


_BEFORE_ANY_END = 0.0
MAX_SNAPSHOT_BYTES = 4 * 1024 * 1024
"""About 40,000 services; a snapshot is not bound by the limit of an ordinary envelope."""


class Distrust(Exception):
    """Refused. `reason` is stable and counted, `detail` is for people."""

    def __init__(
        self, reason: Reason, detail: str, *, strangers: frozenset[str] = frozenset()
    ) -> None:
        """strangers: with `unknown-key`, the ids of the signers that the root does not list."""
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.strangers = strangers


class Seen(NamedTuple):
    """The highest configuration ever accepted for a service."""

    mark: Mark
    digest: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A configuration to take; `duplicate` if exactly these bytes were accepted before.

    envelope: with the valid signatures only.
    """

    update: ConfigUpdate
    envelope: Envelope
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Signed(Generic[Document]):
    """A verified document, its digest, and the ids of the keys that vouch for it."""

    document: Document
    digest: str
    signers: frozenset[str]


def open_envelope(data: bytes) -> Envelope:
    """Size and shape only; raises Distrust (too-large, malformed)."""
    if len(data) > wire.MAX_ENVELOPE_BYTES:
        raise Distrust("too-large", f"{len(data)} bytes, the limit is {wire.MAX_ENVELOPE_BYTES}")
    if not data:
        raise Distrust(
            "malformed", "empty: a deletion is a signed tombstone, never an empty message"
        )
    return _envelope(wire.parse_envelope, data)


def _envelope(parse: Callable[[T], Envelope], value: T) -> Envelope:
    try:
        return parse(value)
    except wire.NotAnEnvelope as error:
        raise Distrust("malformed", str(error)) from None


def verify(envelope: Envelope, expected_type: str, role: RoleName, root: Root, now: float) -> bytes:
    """As `verified`; the payload's bytes."""
    return verified(envelope, expected_type, role, root, now).payload


def verified(
    envelope: Envelope, expected_type: str, role: RoleName, root: Root, now: float
) -> Envelope:
    """The envelope with its valid signatures only, if as many distinct keys signed as the role needs.

    now: wall clock in Unix seconds, for the keys' `not_after`. Raises Distrust.
    """
    if envelope.payload_type != expected_type:
        raise Distrust(
            "wrong-type", f"expected {expected_type}, got {envelope.payload_type[:100]!r}"
        )
    signed = wire.signed_bytes(envelope.payload_type, envelope.payload)
    allowed = root.roles[role]
    good: dict[str, Signature] = {}
    bad: Distrust | None = None
    idle: list[str] = []
    for signature in envelope.signatures:
        key = root.keys.get(signature.keyid)
        if key is None or signature.keyid not in allowed.keyids:
            idle.append(_say_place(signature.keyid, root))
            continue
        if key.not_after is not None and _is_past(key.not_after, now):
            idle.append(f"key {signature.keyid[:16]} is past its not_after, {key.not_after[:40]}")
            continue
        if signature.keyid in good:
            idle.append(f"key {signature.keyid[:16]} signed twice, which counts once")
            continue
        try:
            VerifyKey(key.public).verify(signed, signature.sig)
            good[signature.keyid] = signature
        except (BadSignatureError, ValueError):  # ValueError: not 64 bytes
            bad = Distrust("bad-signature", f"key {signature.keyid[:16]} did not sign these bytes")
    if len(good) >= allowed.threshold:
        return replace(envelope, signatures=tuple(good.values()))
    raise bad or Distrust(
        "unknown-key",
        f"{len(good)} of {allowed.threshold} needed {role} keys of root {root.version} signed this; "
        + "; ".join(idle),
        strangers=envelope.signers - root.keys.keys(),
    )


def _say_place(keyid: str, root: Root) -> str:
    """What else a key may sign, in words: why it does not count here."""
    roles = [name for name, role in root.roles.items() if keyid in role.keyids]
    may = f"is the {' and '.join(roles)} key there" if roles else "is not listed there"
    return f"key {keyid[:16]} {may}"


def parse_verified(payload: bytes, parse: Callable[[bytes], Document]) -> Document:
    """Parse bytes whose signature was checked; raises Distrust (malformed, unsupported-critical)."""
    try:
        return parse(payload)
    except UnknownCritical as error:
        raise Distrust("unsupported-critical", str(error)) from None
    except NotADocument as error:
        raise Distrust("malformed", str(error)) from None


def judge_update(
    data: bytes, *, topic: str, service: str, root: Root, seen: Seen | None, now: float
) -> Accepted:
    """A configuration message against all the rules; raises Distrust."""
    envelope = open_envelope(data)
    envelope = verified(envelope, wire.CONFIG_UPDATE, "config", root, now)
    update = parse_verified(envelope.payload, ConfigUpdate.parse)
    if update.service != service:
        raise Distrust("wrong-service", f"signed for {update.service[:64]!r}, not for {service!r}")
    if update.topic != topic:
        raise Distrust("wrong-topic", f"signed for {update.topic[:100]!r}, came on {topic!r}")
    if seen is None or update.mark > seen.mark:
        return Accepted(update, envelope, duplicate=False)
    if update.mark < seen.mark:
        raise Distrust("rolled-back", f"{_say(update.mark)} after {_say(seen.mark)} was seen")
    if envelope.digest != seen.digest:
        raise Distrust("equivocation", f"{_say(update.mark)} was seen with other content")
    return Accepted(update, envelope, duplicate=True)


def judge_snapshot(data: bytes, root: Root, now: float) -> tuple[Snapshot, str]:
    """A retained snapshot and its digest; raises Distrust."""
    signed = signed_snapshot(data, root, now)
    return signed.document, signed.digest


def signed_snapshot(data: bytes, root: Root, now: float) -> Signed[Snapshot]:
    """As `judge_snapshot`, with the keys that vouch for it."""
    if len(data) > MAX_SNAPSHOT_BYTES:
        raise Distrust(
            "too-large", f"snapshot of {len(data)} bytes, the limit is {MAX_SNAPSHOT_BYTES}"
        )
    envelope = _envelope(wire.parse_envelope, data)
    return _signed(verified(envelope, wire.SNAPSHOT, "beacon", root, now), Snapshot.parse)


def judge_beacon(value: object, root: Root, now: float) -> Beacon:
    """A beacon. value: its envelope as parsed JSON, from the keepalive or the snapshot. Raises Distrust."""
    return signed_beacon(value, root, now).document


def signed_beacon(value: object, root: Root, now: float) -> Signed[Beacon]:
    """As `judge_beacon`, with the keys that vouch for it."""
    envelope = _envelope(wire.envelope_from_object, value)
    return _signed(verified(envelope, wire.BEACON, "beacon", root, now), Beacon.parse)


def _signed(envelope: Envelope, parse: Callable[[bytes], Document]) -> Signed[Document]:
    return Signed(parse_verified(envelope.payload, parse), envelope.digest, envelope.signers)


def judge_root(data: bytes, trusted: Root | None, now: float, *, topic: str | None = None) -> Root:
    """The next version of the root: signed by its own root keys and by the trusted root's.

    trusted: the version before it; None for a root that is being pinned. topic: the one it came on,
    None if it came from a file. Raises Distrust.
    """
    envelope = open_envelope(data)
    if envelope.payload_type != wire.ROOT:
        raise Distrust("wrong-type", f"expected {wire.ROOT}, got {envelope.payload_type[:100]!r}")
    if trusted is not None:
        verify(envelope, wire.ROOT, "root", trusted, now)
    root = parse_verified(envelope.payload, Root.parse)
    if topic is not None and topic != wire.root_topic(root.version):
        raise Distrust("wrong-topic", f"root {root.version} came on {topic[:100]!r}")
    if trusted is not None and root.version != trusted.version + 1:
        raise Distrust("rolled-back", f"root {root.version} does not follow {trusted.version}")
    verify(envelope, wire.ROOT, "root", root, now)
    return root


def judge_audit_export(envelope: Envelope, root: Root) -> AuditExport:
    """The signed end of an export; raises Distrust.

    An export is kept for years: under the root of its time it verifies even if its key has expired since.
    """
    payload = verify(envelope, wire.AUDIT_EXPORT, "config", root, now=_BEFORE_ANY_END)
    return parse_verified(payload, AuditExport.parse)


def judge_report(envelope: Envelope, root: Root) -> Report:
    """A report, signed by config keys that were good when it says that it was made; raises Distrust."""
    payload = verify(envelope, wire.REPORT, "config", root, now=_BEFORE_ANY_END)
    report = parse_verified(payload, Report.parse)
    verify(envelope, wire.REPORT, "config", root, now=_time_of(report.made_at))
    return report


def judge_kept_update(envelope: Envelope, root: Root, now: float) -> ConfigUpdate:
    """A configuration as such, whatever else was seen; raises Distrust."""
    payload = verify(envelope, wire.CONFIG_UPDATE, "config", root, now)
    return parse_verified(payload, ConfigUpdate.parse)


def judge_receipt(envelope: Envelope, public: bytes) -> Receipt:
    """A receipt that this key (raw Ed25519) signed; raises Distrust."""
    if envelope.payload_type != wire.RECEIPT:
        raise Distrust(
            "wrong-type", f"expected {wire.RECEIPT}, got {envelope.payload_type[:100]!r}"
        )
    signed = wire.signed_bytes(envelope.payload_type, envelope.payload)
    keyid = wire.keyid(public)
    signatures = [one.sig for one in envelope.signatures if one.keyid == keyid]
    if not signatures:
        raise Distrust("unknown-key", f"key {keyid[:16]} did not sign it")
    try:
        VerifyKey(public).verify(signed, signatures[0])
    except (BadSignatureError, ValueError):
        raise Distrust("bad-signature", f"key {keyid[:16]} did not sign these bytes") from None
    return parse_verified(envelope.payload, Receipt.parse)


def _time_of(text: str) -> float:
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise Distrust("malformed", f"{text[:40]!r} is no time in RFC 3339") from None


def _is_past(not_after: str, now: float) -> bool:
    try:
        return parse_rfc3339(not_after) < now
    except ValueError:
        return True  # a date we can't read counts as past: refusing is the safe side


def _say(mark: Mark) -> str:
    return f"revision {mark.revision} of epoch {mark.epoch_seq}"
