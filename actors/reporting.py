"""Making a report: who ran what in a span, beside the evidence that it is worked out from.

The receipts are read first, then a beacon is made, then the audit is read up to the row that it names. So the rows know
every revision that a receipt may name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import trio

from config_manager.actors.actor import Actor, Context
from config_manager.actors.beaconing import BeaconMaker
from config_manager.actors.messages import Sign
from config_manager.actors.storing.reading import Reading
from config_manager.actors.trusting import TrustView
from config_manager.actors.views import CommittedView
from config_manager.config import strict_json, wire
from config_manager.config.audit import ChainCheck, Head
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.fields import NotADocument, UnknownCritical
from config_manager.config.documents.receipt import Receipt
from config_manager.config.documents.report import AuditRow, Evidence, Report, evidence_sha256
from config_manager.config.errors import Busy, FieldError, ReadOnly, ReportTooLarge
from config_manager.config.strict_json import JsonObject
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope, NotAnEnvelope
from config_manager.config.world import World, parse_rfc3339, rfc3339
from config_manager.storage.decisions.compliance import Compliance, Said
from config_manager.storage.decisions.devices import DEVICE
from config_manager.storage.decisions.ledger import Ledger, Period, Row
from config_manager.storage.decisions.report_checks import believed, parsed
from config_manager.storage.decisions.report_evidence import Needed, keys_of, receipts_within
from config_manager.storage.drifts import KeptReceipt, ReceiptsQuery
from config_manager.storage.state import Committed
from config_manager.storage.store import Store

_INSTANCES_AT_ONCE = 100
_ROWS_AT_ONCE = 1000
_BYTES_AT_ONCE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """begin, end: RFC 3339. service: None for every one. most_bytes: of rows and receipts together."""

    begin: str
    end: str
    service: str | None
    by: str
    most_bytes: int

    @property
    def span(self) -> Period:
        return Period(parse_rfc3339(self.begin), parse_rfc3339(self.end))


class _Heard(NamedTuple):
    envelopes: list[tuple[tuple[str, str], Envelope]]
    """and of which (service, instance)"""
    runs: set[tuple[str, int]]
    """(service, revision) that some of them name"""
    size: int


class ReportMaker:
    """One report at a time: each may fill some memory."""

    def __init__(
        self,
        reading: Reading,
        view: CommittedView,
        trust: TrustView,
        signing: Actor,
        beacons: BeaconMaker,
        world: World,
    ) -> None:
        self._reading = reading
        self._view = view
        self._trust = trust
        self._signing = signing
        self._beacons = beacons
        self._world = world
        self._turn = trio.Lock()

    async def make(self, asked: Asked, context: Context) -> bytes:
        """The file. Raises Refusal (ReportTooLarge, ReadOnly), and TooSlowError at the context's deadline."""
        with trio.fail_at(context.deadline):
            async with self._turn:
                return await self._make(asked, context)

    async def _make(self, asked: Asked, context: Context) -> bytes:
        heard = await self._receipts(asked, context)
        if heard.size > asked.most_bytes:
            raise _too_large(asked, f"{len(heard.envelopes)} receipts")
        committed, beacon = await self._beacon()
        rows = await self._rows(asked, heard, committed, context)
        issued_at = Beacon.parse(wire.envelope_from_object(beacon).payload).issued_at
        roots = [wire.parse_envelope(data) for _, data in sorted(self._trust.roots.items())]

        def work_out() -> tuple[Evidence, JsonObject]:
            bodies = [parsed(row.body) for row in rows]
            ledger = Ledger(
                [Row(row.seq, body) for row, body in zip(rows, bodies, strict=True)],
                parse_rfc3339(issued_at),
            )
            keys = keys_of(committed, bodies)
            receipts = list(_of_enrolled(heard, keys, ledger))
            said = list(_believed(receipts, keys, ledger))
            named = {one.keyid for all_of_it in ledger.enrolments.values() for one in all_of_it}
            evidence = Evidence(
                roots,
                (),
                receipts,
                {keyid: key for keyid, key in keys.items() if keyid in named},
                rows,
                [beacon],
            )
            services = None if asked.service is None else (asked.service,)
            return evidence, Compliance(ledger, said, asked.span, services).claims()

        evidence, claimed = await trio.to_thread.run_sync(work_out)
        updates = await self._updates(committed, claimed, context)
        made_at = rfc3339(self._world.clock.now())

        def write() -> tuple[JsonObject, bytes]:
            shown = {**evidence.to_object(), "updates": [one.to_object() for one in updates]}
            digest = evidence_sha256(shown)
            report = Report(asked.begin, asked.end, made_at, asked.by, digest, claimed)
            return shown, report.to_bytes()

        shown, payload = await trio.to_thread.run_sync(write)
        request = Sign("config", wire.REPORT, payload, context.correlation_id)
        envelope = await self._signing.ask(request, context)
        file = {"report": envelope.to_object(), "evidence": shown}
        return await trio.to_thread.run_sync(strict_json.dumps, file)

    async def _receipts(self, asked: Asked, context: Context) -> _Heard:
        """Of every instance that ever enrolled, in groups: other reads have their turn between."""
        devices = [tuple(key.split("/", 1)) for key in self._view.committed.registered(DEVICE)]
        names = sorted(name for name in devices if asked.service in (None, name[0]))
        heard = _Heard([], set(), 0)
        for first in range(0, len(names), _INSTANCES_AT_ONCE):
            some = names[first : first + _INSTANCES_AT_ONCE]

            def read(store: Store, some: Sequence[tuple[str, ...]] = some) -> list[KeptReceipt]:
                return [
                    one
                    for service, instance in some
                    for one in receipts_within(
                        store.receipts(ReceiptsQuery(service, instance)), asked.span
                    )
                ]

            for one in await self._reading.past(read, context):
                heard = _with(heard, one)
        return heard

    async def _beacon(self) -> tuple[Committed, JsonObject]:
        """A beacon of what is committed, made now. Raises ReadOnly, Busy."""
        version = None if self._trust.changing else self._trust.current.version
        if version is None:
            raise Busy("the trust root is being changed; ask again in a moment")
        if not self._view.publishable:
            raise ReadOnly("without a beacon, which is not made now, a report would prove nothing")
        committed = self._view.committed
        _snapshot, beacon = await self._beacons.make(committed, version)
        return committed, beacon

    async def _rows(
        self, asked: Asked, heard: _Heard, committed: Committed, context: Context
    ) -> list[AuditRow]:
        """From the first that is needed up to the head of the beacon."""
        first = await self._first_row(asked, heard, committed, context)
        rows: list[AuditRow] = []
        after, size = first - 1, heard.size
        while after < committed.audit_seq:
            page = await self._page(after, committed.audit_seq, context)
            if not page:
                break
            size += sum(len(row.body) for row in page)
            if size > asked.most_bytes:
                rows_wanted = committed.audit_seq - first + 1
                raise _too_large(asked, f"{rows_wanted} rows of the audit")
            rows += page
            after = page[-1].seq
        return rows

    async def _first_row(
        self, asked: Asked, heard: _Heard, committed: Committed, context: Context
    ) -> int:
        """The first that is needed. If the audit is not what this server wrote, all of it: then whoever verifies the
        report is told, and a row that was removed can't hide an instance."""
        needed = Needed(asked.span, asked.service, heard.runs)
        check = ChainCheck(Head(committed.audit_seq, committed.audit_head, "the running server"))
        after = 0
        while after < committed.audit_seq:
            page = await self._page(after, committed.audit_seq, context)
            if not page:
                break

            def take(page: Sequence[AuditRow] = page) -> None:
                for row in page:
                    body = parsed(row.body)
                    needed.take(row.seq, body)
                    check.take(row.seq, body.get("revision", 0), row.body, row.hash)

            await trio.to_thread.run_sync(take)
            after = page[-1].seq
        return needed.first if check.finish().ok else 1

    async def _page(self, after: int, last: int, context: Context) -> list[AuditRow]:
        kept = await self._reading.audit(
            context, after=after, limit=_ROWS_AT_ONCE, most_bytes=_BYTES_AT_ONCE
        )
        return [AuditRow(one.seq, one.body, one.hash) for one in kept if after < one.seq <= last]

    async def _updates(
        self, committed: Committed, claimed: JsonObject, context: Context
    ) -> list[Envelope]:
        """The newest message of each service that was wanted in the span: of older ones only the digest is kept."""
        updates: list[Envelope] = []
        for service, one in claimed.items():
            state = committed.services.get(service)
            if state is None or state.revision not in [each["revision"] for each in one["wanted"]]:
                continue
            request = Sign("config", wire.CONFIG_UPDATE, state.payload, state.correlation_id)
            updates.append(await self._signing.ask(request, context))
        return updates


def _with(heard: _Heard, one: KeptReceipt) -> _Heard:
    """What is no receipt was written by somebody else, and is no evidence."""
    try:
        envelope = wire.parse_envelope(one.envelope)
        receipt = Receipt.parse(envelope.payload)
    except (NotAnEnvelope, NotADocument, UnknownCritical):
        return heard
    heard.envelopes.append(((receipt.service, receipt.instance), envelope))
    if receipt.running is not None:
        heard.runs.add((receipt.service, receipt.running.revision))
    return heard._replace(size=heard.size + len(one.envelope))


def _of_enrolled(heard: _Heard, keys: Mapping[str, bytes], ledger: Ledger) -> Iterator[Envelope]:
    """Without those of a key whose enrolment ended before these rows: nothing is said by it, and it would look forged."""
    for name, one in heard.envelopes:
        given = {each.keyid for each in ledger.enrolments.get(name, ())}
        if one.signers & given & keys.keys():
            yield one


def _believed(
    receipts: Sequence[Envelope], keys: Mapping[str, bytes], ledger: Ledger
) -> Iterator[Said]:
    """What was altered stays in the evidence, so that it is found, and nothing is claimed by it."""
    for one in receipts:
        try:
            yield believed(one, keys, ledger)
        except Distrust:
            continue


def _too_large(asked: Asked, what: str) -> ReportTooLarge:
    return ReportTooLarge(
        f"this report would need {what}, and over {asked.most_bytes >> 20} MiB in all",
        [FieldError("/from", "ask for a shorter or later span, or for one service")],
    )
