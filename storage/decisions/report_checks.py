"""`report verify`: a report file against a pinned trust root, and nothing else. Pure.

    roots      every version after the pinned one is signed by the one before it
    report     the report is signed by config keys that were good when it was made, and is of this evidence
    updates    each configuration is signed likewise, and a row of the audit names its digest
    audit      each row follows from the one before, and a beacon signed the hash of the last one
    receipts   each is signed by the key that a row gives to its instance
    claims     what the report says is what the evidence comes to, worked out again

What does not pass is left out of what follows, so a later step never builds on it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from config_manager.config import strict_json, trust, wire
from config_manager.config.audit import GENESIS, ChainCheck, Head
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.report import AuditRow, Report, evidence_sha256
from config_manager.config.documents.root import Root
from config_manager.config.strict_json import JsonObject, is_list, is_object
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope, NotAnEnvelope
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions.compliance import Compliance, Said
from config_manager.storage.decisions.ledger import Ledger, Period, Row

Step = Literal["file", "roots", "report", "updates", "audit", "receipts", "claims"]
_BEFORE_ANY_DATE = float("-inf")
MOST_FINDINGS = 100
_MOST_VALUES = 5_000_000
"""Of the file. A server's largest reports have a tenth of that: rows and payloads are texts."""
_ROW_DEPTH = 64
_MOST_SHOWN = 400
"""Characters of a claim in a finding."""
_MOST_NUMBERS = 10


class Finding(NamedTuple):
    """What does not verify. detail: for people; it may hold text of others."""

    step: Step
    detail: str


class Hole(NamedTuple):
    """Receipts that are not there: between two that are, as (boot_seq, seq)."""

    service: str
    instance: str
    before: tuple[int, int]
    behind: tuple[int, int]
    missing: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """report: None if it could not be read at all. claims: what the evidence comes to, whatever the report says. notes:
    what this evidence leaves open. rows: numbers of the first and the last row of the audit."""

    report: Report | None
    findings: tuple[Finding, ...]
    claims: JsonObject = field(default_factory=dict[str, Any])
    holes: tuple[Hole, ...] = ()
    notes: tuple[str, ...] = ()
    root_version: int = 0
    rows: tuple[int, int] = (0, 0)

    @property
    def ok(self) -> bool:
        return not self.findings


class _Stop(Exception):
    """Nothing that follows can be checked. The finding was noted."""


def verify(data: bytes, pinned: bytes) -> Verdict:
    """data: the file. pinned: the trust root's envelope. Raises Distrust if that is none."""
    root = trust.judge_root(pinned, None, _BEFORE_ANY_DATE)
    return _Check(root, wire.parse_envelope(pinned).digest).run(data)


class _Check:
    def __init__(self, pinned: Root, pinned_digest: str) -> None:
        self._pinned, self._pinned_digest = pinned, pinned_digest
        self._root = pinned
        self._findings: list[Finding] = []
        self._report: Report | None = None
        self._evidence: JsonObject = {}

    def run(self, data: bytes) -> Verdict:
        try:
            return self._run(data)
        except _Stop:
            return Verdict(
                self._report, tuple(self._findings[:MOST_FINDINGS]), root_version=self._root.version
            )

    def _run(self, data: bytes) -> Verdict:
        envelope = self._open(data)
        self._walk_roots()
        report = self._judge_report(envelope)
        try:
            span = Period(parse_rfc3339(report.begin), parse_rfc3339(report.end))
        except (ValueError, OverflowError):
            raise self._stop("report", "its span is no time in RFC 3339") from None
        rows, beacon = self._judge_audit()
        known_until = parse_rfc3339(beacon.issued_at)
        if not span.begin <= span.end <= known_until:
            raise self._stop(
                "claims",
                f"it speaks of {report.begin} to {report.end}, and its beacon is of {beacon.issued_at}",
            )
        ledger = Ledger(rows, known_until)
        shown = self._judge_updates(ledger, parse_rfc3339(report.made_at))
        said = self._judge_receipts(ledger)
        found = Compliance(ledger, said, span, report.services)
        claims = found.claims()
        self._compare(report, claims)
        holes, clocks = _holes(found, span)
        return Verdict(
            report,
            tuple(self._findings[:MOST_FINDINGS]),
            claims,
            tuple(holes),
            (*_open_questions(ledger, claims, shown), *clocks),
            self._root.version,
            (rows[0].seq, rows[-1].seq),
        )

    def _note(self, step: Step, detail: str) -> None:
        self._findings.append(Finding(step, detail))

    def _stop(self, step: Step, detail: str) -> _Stop:
        self._note(step, detail)
        return _Stop()

    def _open(self, data: bytes) -> Envelope:
        if strict_json.most_values(data) > _MOST_VALUES:
            raise self._stop("file", f"this is no report: it has over {_MOST_VALUES} values")
        try:
            value = strict_json.loads_object(data)
            envelope = wire.envelope_from_object(value.get("report"))
        except (strict_json.NotStrictJson, NotAnEnvelope) as error:
            raise self._stop("file", f"this is no report: {error}") from None
        evidence = value.get("evidence")
        if not is_object(evidence):
            raise self._stop("file", "there is no evidence beside the report")
        self._evidence = evidence
        return envelope

    def _listed(self, step: Step, value: object, name: str) -> list[Any]:
        if is_list(value):
            return value
        raise self._stop(step, f"evidence.{name} is no list")

    def _walk_roots(self) -> None:
        chain: list[Envelope] = []
        for number, value in enumerate(self._listed("roots", self._evidence.get("roots"), "roots")):
            try:
                chain.append(wire.envelope_from_object(value))
            except NotAnEnvelope as error:
                raise self._stop("roots", f"root number {number + 1}: {error}") from None
        places = [i for i, one in enumerate(chain) if one.digest == self._pinned_digest]
        if not places:
            raise self._stop(
                "roots",
                f"version {self._pinned.version} of the root, which is pinned, is not in this report: it is of another "
                "server, or it was made before that version; give the root that was current then",
            )
        for one in chain[places[0] + 1 :]:
            try:
                self._root = trust.judge_root(one.to_bytes(), self._root, _BEFORE_ANY_DATE)
            except Distrust as error:
                said = f"what should be version {self._root.version + 1} of the root: {error}"
                raise self._stop("roots", said) from None

    def _judge_report(self, envelope: Envelope) -> Report:
        try:
            self._report = report = trust.judge_report(envelope, self._root)
        except Distrust as error:
            raise self._stop(
                "report", f"{error}; the root is version {self._root.version}"
            ) from None
        if evidence_sha256(self._evidence) != report.evidence_sha256:
            self._note("report", "it was made of other evidence than this")
        return report

    # ── the audit ──────────────────────────────────────────────────────────────────────────────

    def _judge_audit(self) -> tuple[list[Row], Beacon]:
        audit = self._evidence.get("audit")
        if not is_object(audit):
            raise self._stop("audit", "there are no rows of the audit")
        beacons = list(self._beacons(self._listed("audit", audit.get("heads"), "audit.heads")))
        if not beacons:
            raise self._stop("audit", "no beacon says how the audit ends")
        newest = max(beacons, key=lambda one: one.order)
        kept = [_row(value) for value in self._listed("audit", audit.get("rows"), "audit.rows")]
        rows = [one for one in kept if one is not None]
        if not rows or len(rows) < len(kept):
            raise self._stop("audit", "what should be rows of the audit are none")
        bodies = [parsed(one.body) for one in rows]
        first = rows[0]
        previous = GENESIS if first.seq == 1 else str(bodies[0].get("previous"))
        end = Head(rows[-1].seq, newest.audit_head, "the beacon")
        check = ChainCheck(end, after=(first.seq - 1, previous))
        for one, body in zip(rows, bodies, strict=True):
            check.take(one.seq, body.get("revision", 0), one.body, one.hash)
        problem = check.finish().problem
        if problem is not None:
            raise self._stop("audit", problem.detail)
        hashes = {one.hash for one in rows}
        if any(one.audit_head not in hashes for one in beacons):
            self._note("audit", "a beacon signed the hash of a row that is not among these")
        return [Row(one.seq, body) for one, body in zip(rows, bodies, strict=True)], newest

    def _beacons(self, heads: Sequence[Any]) -> Iterator[Beacon]:
        for value in heads:
            try:
                beacon = trust.judge_beacon(value, self._root, _BEFORE_ANY_DATE)
                yield trust.judge_beacon(value, self._root, parse_rfc3339(beacon.issued_at))
            except (Distrust, ValueError, OverflowError) as error:
                self._note("audit", f"a beacon: {error}")

    # ── what is signed beside it ───────────────────────────────────────────────────────────────

    def _envelopes(self, step: Step) -> Iterator[tuple[int, Envelope]]:
        for number, value in enumerate(self._listed(step, self._evidence.get(step), step), 1):
            try:
                yield number, wire.envelope_from_object(value)
            except NotAnEnvelope as error:
                self._note(step, f"number {number}: {error}")

    def _judge_updates(self, ledger: Ledger, made_at: float) -> dict[str, int]:
        """service → the revision whose content is shown."""
        shown: dict[str, int] = {}
        for number, envelope in self._envelopes("updates"):
            try:
                update = trust.judge_kept_update(envelope, self._root, made_at)
            except Distrust as error:
                self._note("updates", f"number {number}: {error}")
                continue
            if ledger.marks(update.service).get(update.mark) != envelope.digest:
                self._note(
                    "updates",
                    f"{update.service}, revision {update.revision}: no row of the audit names its digest",
                )
                continue
            shown[update.service] = max(update.revision, shown.get(update.service, 0))
        return shown

    def _judge_receipts(self, ledger: Ledger) -> list[Said]:
        keys = _keys(self._evidence.get("keys"))
        said: list[Said] = []
        for number, envelope in self._envelopes("receipts"):
            try:
                said.append(believed(envelope, keys, ledger))
            except Distrust as error:
                self._note("receipts", f"number {number}: {error}")
        return said

    # ── what it claims ─────────────────────────────────────────────────────────────────────────

    def _compare(self, report: Report, found: JsonObject) -> None:
        """found: what the evidence comes to, of the same services."""
        for service, claimed in report.services.items():
            if strict_json.same(claimed, found[service]):
                continue
            for name, theirs, ours in _differing(claimed, found[service]):
                self._note(
                    "claims",
                    f"{service}{name}: the report says {_shortly(theirs)}; its evidence says {_shortly(ours)}",
                )


def believed(envelope: Envelope, keys: Mapping[str, bytes], ledger: Ledger) -> Said:
    """A receipt that is signed by the key that a row gives to its instance. keys: raw public keys by id. Raises
    Distrust."""
    named = (one.keyid for one in envelope.signatures)
    public = next((keys[one] for one in named if one in keys), None)
    if public is None:
        raise Distrust("unknown-key", "the key that it names is not here")
    receipt, keyid = trust.judge_receipt(envelope, public), wire.keyid(public)
    enrolments = ledger.enrolments.get((receipt.service, receipt.instance), ())
    if not any(one.keyid == keyid for one in enrolments):
        raise Distrust(
            "unknown-key",
            f"no row of the audit gives key {keyid[:16]} to {receipt.service[:64]}/{receipt.instance[:64]}",
        )
    return Said(receipt, keyid, envelope.digest)


def parsed(body: bytes) -> JsonObject:
    """A row of the audit; nothing if its bytes are none. It may nest deeper than a request, and hold integers of
    earlier versions."""
    try:
        value = strict_json.loads(
            body, max_depth=_ROW_DEPTH, max_integer=strict_json.MAX_INTEGER_ONCE_SIGNED
        )
    except strict_json.NotStrictJson:
        return {}
    return value if is_object(value) else {}


def _row(value: object) -> AuditRow | None:
    match value:
        case [int(seq), str(body), str(row_hash)] if not isinstance(seq, bool):
            return AuditRow(seq, body.encode("utf-8", errors="surrogatepass"), row_hash)
        case _:
            return None


def _keys(value: object) -> dict[str, bytes]:
    """Each under the id that it has, whatever the file calls it."""
    keys: dict[str, bytes] = {}
    for text in value.values() if is_object(value) else ():
        try:
            public = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except ValueError:
            continue
        keys[wire.keyid(public)] = public
    return keys


def _differing(claimed: object, again: JsonObject) -> Iterator[tuple[str, object, object]]:
    """(where, what is claimed, what it should be) of what a service's claims differ in."""
    theirs = claimed if is_object(claimed) else {}
    if not strict_json.same(theirs.get("wanted"), again["wanted"]):
        yield ", wanted", theirs.get("wanted"), again["wanted"]
    instances = theirs.get("instances")
    told = instances if is_object(instances) else {}
    named = False
    for name in dict.fromkeys((*told, *again["instances"])):
        if not strict_json.same(told.get(name), again["instances"].get(name)):
            named = True
            yield f"/{name}", told.get(name), again["instances"].get(name)
    if not named and strict_json.same(theirs.get("wanted"), again["wanted"]):
        yield "", claimed, again


def _shortly(value: object) -> str:
    text = strict_json.dumps(value).decode()
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def _holes(found: Compliance, span: Period) -> tuple[list[Hole], list[str]]:
    """Missing receipts, and clocks that went back."""
    holes: list[Hole] = []
    clocks: list[str] = []
    for (service, instance), told in found.timelines.items():
        holes += [Hole(service, instance, *one) for one in told.holes(span)]
        clocks += [
            f"the clock of {service}/{instance} went back by {seconds:.0f} s before its receipt "
            f"{told.said[index].boot_seq}.{told.said[index].seq}: nothing is claimed of that time"
            for index, seconds in told.times.went_back
        ]
        unclear = sum(at is None for at in told.times.at)
        if unclear:
            clocks.append(
                f"{unclear} receipts of {service}/{instance} have a time that had not come yet, or a number that "
                "another one has: nothing is claimed of the time around them"
            )
    return holes, clocks


def _open_questions(ledger: Ledger, claims: JsonObject, shown: dict[str, int]) -> Iterator[str]:
    """claims: what the evidence comes to; the report's own may have any form."""
    if ledger.first_seq != 1:
        yield (
            f"the rows of the audit begin with number {ledger.first_seq}: what stood before it is not in this report"
        )
    if others := len(ledger.wanted.keys() - claims.keys()):
        yield f"{others} other services are in these rows, and the report says nothing of them"
    for index, seconds in ledger.times.went_back:
        yield (
            f"the server's clock went back by {seconds:.0f} s before row {ledger.first_seq + index} of the audit: nothing "
            "is claimed of that time"
        )
    for service, one in claims.items():
        older = sorted({each["revision"] for each in one["wanted"]} - {shown.get(service)})
        if older:
            numbers = ", ".join(map(str, older[:_MOST_NUMBERS])) + (
                ", …" if len(older) > _MOST_NUMBERS else ""
            )
            yield f"{service}, revision {numbers}: the digest is proved, the message itself is not in this report"
