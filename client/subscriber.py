"""What to do with each message, sans I/O: bytes and two clocks in, events out.

The rules, in the order they are met:

    verify     `config.trust` decides whom to believe; a refusal leaves what runs untouched
    never back lower is refused, equal is silent, equal with other content is an equivocation
    floor      the first start ever holds what arrives until a verified snapshot or beacon says how
               far the publisher has come, at most 15 s: a broker can't begin with something old
    deletion   a signed tombstone; the running values stay. An empty message is refused
    fresh      a rising beacon was seen within its validity, and the snapshot it names lists exactly
               what we hold; age alone makes nothing stale

Whoever drives this writes `kept` to disk before it passes on an event of `CHANGES_KEPT`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from config_manager.config import strict_json, trust, wire
from config_manager.config.documents import Beacon, ConfigUpdate, Root, Snapshot
from config_manager.config.strict_json import JsonObject
from config_manager.config.trust import Accepted, Distrust, Reason, Seen
from config_manager.config.wire import Envelope
from config_manager.config.world import parse_rfc3339

FLOOR_WAIT_S = 15.0
"""How long a first start waits to hear how far the publisher has come."""

WITHHELD_AFTER_S = 30.0
"""How long the snapshot may name something else than we hold: changes need time to travel."""

MIN_BEACON_VALID_S = 30.0
"""Beacons come every 10 s: two lost ones are no news, whatever `valid_s` says."""

CLOCK_TOLERANCE_S = 300.0

_MOST_SAID = 100
_SAID_PERIOD_S = 10.0
"""Refusals of one reason that are said within this time; all are counted."""

_REFUSALS_REMEMBERED = 256

Source: TypeAlias = Literal["broker", "last-known-good"]
StaleReason: TypeAlias = Literal["no-beacon", "withheld", "expired"]


@dataclass(frozen=True, slots=True)
class Offered:
    """Accepted, and the service's to decide on: `try_out`, then `adopt` or `turn_down`."""

    update: ConfigUpdate
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Applied:
    """Run this from now on. signer_revoked: the kept envelope's key is no longer good."""

    update: ConfigUpdate
    envelope: Envelope
    source: Source
    signer_revoked: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was turned down; what runs is untouched."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """The publisher deleted the configuration; the running values stay."""

    update: ConfigUpdate


@dataclass(frozen=True, slots=True)
class Resigned:
    """The same configuration under another valid signature: keep it, apply nothing."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Stale:
    """What runs may be out of date. since: on the monotonic clock of whoever drives this."""

    reason: StaleReason
    since: float


@dataclass(frozen=True, slots=True)
class Fresh:
    """What runs is what the publisher wants, proved within the last beacon's validity."""


Event: TypeAlias = Offered | Applied | Refused | Deleted | Resigned | Stale | Fresh

CHANGES_KEPT = (Applied, Deleted, Resigned)
"""Events that may be passed on only once `Subscriber.kept` is on disk."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What survives a restart.

    running: the configuration that runs and its envelope; None where only marks could be read.
    trial: one that runs, or is about to, and has yet to live through its bake time; then `running`
    is the one before. trial_ended_well: the service stopped on purpose meanwhile. poison: the digest
    of one that the service died of: not tried again until a newer one comes.
    seen: the highest ever accepted, tombstones included. beacon_order: the highest beacon, so that
    an old one proves nothing after a restart. signer_revoked: found while loading, never stored.
    """

    running: tuple[ConfigUpdate, Envelope] | None
    seen: Seen
    deleted: bool = False
    beacon_order: tuple[int, int] | None = None
    signer_revoked: bool = False
    trial: tuple[ConfigUpdate, Envelope] | None = None
    trial_ended_well: bool = False
    poison: str | None = None

    @property
    def applied(self) -> Seen | None:
        if self.running is None:
            return None
        update, envelope = self.running
        return Seen(update.mark, envelope.digest)

    @property
    def to_start_with(self) -> tuple[ConfigUpdate, Envelope] | None:
        """What a restarted service runs: the trial it left in good health, else what ran before."""
        return self.trial or self.running


class Subscriber:
    """One service's configuration, as one instance sees it. Never raises for what it receives."""

    def __init__(
        self,
        service: str,
        instance: str,
        root: Root,
        kept: Kept | None,
        *,
        negotiates: bool = False,
    ) -> None:
        """negotiates: the service decides on each configuration; else it is applied as it comes."""
        self.service = service
        self.instance = instance
        self.refusals: Counter[Reason] = Counter()
        self.replayed_beacons = 0
        self._root = root
        self._negotiates = negotiates
        self._offered: tuple[ConfigUpdate, Envelope] | None = None
        self._before_trial: tuple[tuple[ConfigUpdate, Envelope] | None, bool] | None = None
        self._decided_on = {kept.poison} if kept is not None and kept.poison else set[str]()
        if kept is not None and kept.to_start_with is not None:
            self._decided_on.add(kept.to_start_with[1].digest)
        self._topic = wire.config_topic(service)
        self._kept = kept
        self._waits_for_floor = kept is None
        self._first_start = kept is None
        self._began_empty = kept is None
        self._held: Accepted | None = None
        self._floor: tuple[int, str] | None = None
        self._snapshot: tuple[Snapshot, str] | None = None
        self._beacon: Beacon | None = None
        self._beacon_order = kept.beacon_order if kept is not None else None
        self._beacon_at: float | None = None
        self._differs_since: float | None = None
        self._started_at: float | None = None
        self._wall_ahead: float | None = None
        self._status: StaleReason | Literal["fresh"] | None = None
        self._said: dict[Reason, tuple[float, int]] = {}
        self._now = 0.0
        self._recent: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    @property
    def kept(self) -> Kept | None:
        """What must survive a restart, as of now."""
        if self._kept is None:
            return None
        return replace(self._kept, beacon_order=self._beacon_order)

    @property
    def is_known_to_be_absent(self) -> bool:
        """A verified snapshot, the newest, does not name our service."""
        return self._snapshot is not None and self.service not in self._snapshot[0].services

    @property
    def clock_unknown(self) -> bool:
        """The wall clock is behind what the publisher has signed by more than five minutes: dates
        (`not_after`) can't be judged by it. A robot without a battery starts in 1970."""
        if self._beacon is None or self._wall_ahead is None or self._beacon_at is None:
            return False
        try:
            signed_at = parse_rfc3339(self._beacon.issued_at)
        except (ValueError, OverflowError):
            return False
        return self._beacon_at + self._wall_ahead < signed_at - CLOCK_TOLERANCE_S

    @property
    def status(self) -> StaleReason | Literal["fresh"] | None:
        """As last said; None until there was something to say."""
        return self._status

    def receive(
        self, topic: str, payload: bytes, wall_now: float, monotonic_now: float
    ) -> list[Event]:
        """One message from a broker. wall_now is believed only for dates (`not_after`)."""
        self._note_time(monotonic_now, wall_now)
        events: list[Event] = []
        try:
            if topic == wire.SNAPSHOT_TOPIC:
                events += self._on_snapshot(payload, wall_now, monotonic_now)
            elif topic == wire.KEEPALIVE_TOPIC:
                events += self._on_keepalive(payload, wall_now, monotonic_now)
            elif topic.startswith(wire.config_topic("")):
                events += self._on_update(topic, payload, wall_now)
        except Distrust as verdict:
            events += self._refuse(verdict, topic, payload)
        return events + self._judge_status(monotonic_now)

    def tick(self, monotonic_now: float, wall_now: float | None = None) -> list[Event]:
        """Time passed: call it at the start and every second or so. wall_now: where it is known."""
        self._note_time(monotonic_now, wall_now)
        assert self._started_at is not None
        events: list[Event] = []
        if self._waits_for_floor and monotonic_now - self._started_at >= FLOOR_WAIT_S:
            events += self._release()
        return events + self._judge_status(monotonic_now)

    def disconnected(self, monotonic_now: float) -> list[Event]:
        """A connection broke: no reason to be stale yet. What it refused may be said again."""
        self._recent.clear()
        return self.tick(monotonic_now)

    # configuration

    def _on_update(self, topic: str, payload: bytes, wall_now: float) -> list[Event]:
        accepted = trust.judge_update(
            payload,
            topic=topic,
            service=self.service,
            root=self._root,
            seen=self._seen(),
            now=wall_now,
        )
        if self._waits_for_floor:
            self._held = accepted
            return []
        self._check_floor(accepted)
        return self._take(accepted)

    def _seen(self) -> Seen | None:
        if self._held is not None:
            return Seen(self._held.update.mark, self._held.envelope.digest)
        return self._kept.seen if self._kept is not None else None

    def _check_floor(self, accepted: Accepted) -> None:
        """On a first start, nothing older than what the snapshot named; raises Distrust."""
        if not self._first_start or self._floor is None:
            return
        revision, digest = self._floor
        mine = accepted.update.revision
        if mine < revision:
            raise Distrust(
                "rolled-back", f"revision {mine}, but the signed snapshot names {revision}"
            )
        if mine == revision and accepted.envelope.digest != digest:
            raise Distrust(
                "equivocation", f"revision {mine} has other content than the signed snapshot names"
            )

    def _take(self, accepted: Accepted) -> list[Event]:
        update, envelope = accepted.update, accepted.envelope
        kept = self._kept
        if accepted.duplicate and kept is not None:
            return self._take_duplicate(kept, update, envelope)
        seen = Seen(update.mark, envelope.digest)
        self._first_start = False
        if kept is None:
            kept = Kept(None, seen)
        if update.deleted:
            self._offered = None  # older than the deletion: nobody wants it any more
            self._kept = replace(kept, seen=seen, deleted=True)
            return [Deleted(update)]
        self._kept = replace(kept, seen=seen, deleted=False, poison=None)
        return self._offer(update, envelope)

    def _offer(self, update: ConfigUpdate, envelope: Envelope) -> list[Event]:
        """Once per content, however often a broker repeats it."""
        if envelope.digest in self._decided_on:
            return []
        self._decided_on = {envelope.digest}
        self._offered = (update, envelope)
        return [Offered(update, envelope)] if self._negotiates else self.adopt(bakes=False)

    # what the service makes of an offer

    @property
    def offered(self) -> tuple[ConfigUpdate, Envelope] | None:
        """Accepted, not decided on yet; the newest."""
        return self._offered

    def try_out(self) -> Kept:
        """The offer is about to be applied: must be on disk first, so that a death is remembered."""
        assert self._kept is not None
        assert self._offered is not None
        self._before_trial = (self._kept.trial, self._kept.trial_ended_well)
        self._kept = replace(self._kept, trial=self._offered, trial_ended_well=False)
        return self._kept

    def adopt(
        self, *, bakes: bool, accepted: tuple[ConfigUpdate, Envelope] | None = None
    ) -> list[Event]:
        """The offer runs. bakes: it has yet to live through its bake time (`proved`). accepted: the
        one that runs, where another offer may have come while the service thought about it."""
        accepted = accepted or self._offered
        assert self._kept is not None
        assert accepted is not None
        update, envelope = accepted
        self._before_trial = None
        if self._offered is accepted:
            self._offered = None
        if bakes:
            self._kept = replace(self._kept, trial=(update, envelope), trial_ended_well=False)
        else:
            self._kept = replace(
                self._kept, running=(update, envelope), trial=None, signer_revoked=False
            )
        return [Applied(update, envelope, "broker")]

    def proved(self, lived: tuple[ConfigUpdate, Envelope]) -> Kept:
        """This one lived through its bake time. Another trial may wait for the next start."""
        assert self._kept is not None
        trial = self._kept.trial
        if trial is not None and trial[1].digest == lived[1].digest:
            trial = None
        self._kept = replace(self._kept, running=lived, trial=trial, signer_revoked=False)
        return self._kept

    def put_off(self) -> Kept:
        """Not now: the offer stands, and what runs goes on, with what it has still to prove."""
        assert self._kept is not None
        if self._before_trial is not None:
            trial, ended_well = self._before_trial
            self._before_trial = None
            self._kept = replace(self._kept, trial=trial, trial_ended_well=ended_well)
        return self._kept

    def leave_for_restart(self) -> Kept:
        """The offer becomes what the next start runs; what runs now goes on until then."""
        assert self._kept is not None
        assert self._offered is not None
        self._kept = replace(self._kept, trial=self._offered, trial_ended_well=True)
        self._offered = None
        return self._kept

    def turn_down(
        self,
        reason: Literal["model", "callback"],
        detail: str,
        refused: tuple[ConfigUpdate, Envelope] | None = None,
    ) -> list[Event]:
        """The offer is refused by the service itself; what runs goes on. refused: as in `adopt`."""
        if refused is None or self._offered is refused:
            self._offered = None
        self.put_off()
        self.refusals[reason] += 1
        return [Refused(reason, detail)]

    def resume_trial(self) -> Kept:
        """A trial that ended well starts again, and must live through its bake time again."""
        assert self._kept is not None
        self._kept = replace(self._kept, trial_ended_well=False)
        return self._kept

    def end_well(self) -> Kept | None:
        """The service stops on purpose: what it tries may be tried again."""
        if self._kept is not None and self._kept.trial is not None:
            self._kept = replace(self._kept, trial_ended_well=True)
        return self._kept

    def _take_duplicate(self, kept: Kept, update: ConfigUpdate, envelope: Envelope) -> list[Event]:
        if update.deleted:
            return []
        if kept.running is None or envelope.digest != kept.running[1].digest:
            # what was kept of it was lost, or the service that ran before us turned it down
            return self._offer(update, envelope)
        if self._signers(envelope) == self._signers(kept.running[1]):
            return []
        self._kept = replace(kept, running=(update, envelope), signer_revoked=False)
        return [Resigned(envelope)]

    def _signers(self, envelope: Envelope) -> frozenset[str]:
        allowed = self._root.roles["config"].keyids
        return frozenset(s.keyid for s in envelope.signatures if s.keyid in allowed)

    def _release(self) -> list[Event]:
        """The floor is known, or was waited for long enough: what was held meets it."""
        self._waits_for_floor = False
        held, self._held = self._held, None
        if held is None:
            return []
        try:
            self._check_floor(held)
        except Distrust as verdict:
            return self._refuse(verdict, self._topic, held.envelope.payload)
        return self._take(replace(held, duplicate=False))

    def _refuse(self, verdict: Distrust, topic: str, payload: bytes) -> list[Event]:
        self.refusals[verdict.reason] += 1
        key = (topic, hashlib.sha256(payload).digest())
        if key in self._recent:
            self._recent.move_to_end(key)
            return []
        self._recent[key] = None
        if len(self._recent) > _REFUSALS_REMEMBERED:
            self._recent.popitem(last=False)
        if not self._may_say(verdict.reason):
            return []
        return [Refused(verdict.reason, verdict.detail)]

    def _may_say(self, reason: Reason) -> bool:
        """A flood of ever different junk is counted, but must not fill the log."""
        began, said = self._said.get(reason, (-math.inf, 0))
        if self._now - began >= _SAID_PERIOD_S:
            began, said = self._now, 0
        self._said[reason] = (began, said + 1)
        return said < _MOST_SAID

    # how far the publisher has come

    def _on_snapshot(self, payload: bytes, wall_now: float, now: float) -> list[Event]:
        snapshot, digest = trust.judge_snapshot(payload, self._root, wall_now)
        beacon = trust.judge_beacon(
            strict_json.loads_object(payload).get("beacon"), self._root, wall_now
        )
        if beacon.snapshot != digest:
            raise Distrust("malformed", "the snapshot's beacon names another snapshot")
        self._on_beacon(beacon, now)
        if self._beacon is None or self._beacon.snapshot != digest:
            return []  # an older snapshot than the newest beacon's: nothing to learn from it
        self._snapshot = (snapshot, digest)
        if self._first_start:
            self._floor = snapshot.services.get(self.service)
        return self._release() if self._waits_for_floor else []

    def _on_keepalive(self, payload: bytes, wall_now: float, now: float) -> list[Event]:
        if len(payload) > wire.MAX_ENVELOPE_BYTES:
            raise Distrust("too-large", f"keepalive of {len(payload)} bytes")
        try:
            data: object = strict_json.loads_object(payload).get("data")
        except strict_json.NotStrictJson as error:
            raise Distrust("malformed", f"keepalive: {error}") from None
        value: JsonObject = data if isinstance(data, dict) else {}
        if value.get("beacon") is None:
            return []  # a publisher that may not vouch for its database still says that it lives
        # no floor by itself: which revision is ours stands in the snapshot that it names
        self._on_beacon(trust.judge_beacon(value["beacon"], self._root, wall_now), now)
        return []

    def _on_beacon(self, beacon: Beacon, now: float) -> bool:
        """Take a verified beacon that rises; whether it did."""
        if self._beacon_order is not None and beacon.order <= self._beacon_order:
            if beacon.order < self._beacon_order or self._beacon is None:
                self.replayed_beacons += 1
            return False
        self._beacon, self._beacon_order, self._beacon_at = beacon, beacon.order, now
        return True

    # fresh or stale

    def _note_time(self, monotonic_now: float, wall_now: float | None) -> None:
        self._now = monotonic_now
        if self._started_at is None:
            self._started_at = monotonic_now
        if wall_now is not None:
            self._wall_ahead = wall_now - monotonic_now

    def _judge_status(self, now: float) -> list[Event]:
        differs = self._differs_from_snapshot() or self._lacks_the_snapshot()
        if not differs:
            self._differs_since = None
        elif self._differs_since is None:
            self._differs_since = now
        status, since = self._find_status(now, differs=differs)
        if status is None or status == self._status:
            return []
        self._status = status
        return [Fresh() if status == "fresh" else Stale(status, since)]

    def _find_status(
        self, now: float, *, differs: bool
    ) -> tuple[StaleReason | Literal["fresh"] | None, float]:
        """None where it is too early to say: then what was said last still holds."""
        assert self._started_at is not None
        if self._is_expired(now):
            return "expired", now
        if self._beacon is None or self._beacon_at is None:
            heard_at = self._started_at
            patience = FLOOR_WAIT_S if self._began_empty else MIN_BEACON_VALID_S
        else:
            heard_at = self._beacon_at
            patience = max(MIN_BEACON_VALID_S, float(self._beacon.valid_s))
        if now - heard_at >= patience:
            return "no-beacon", heard_at
        if self._differs_since is not None and now - self._differs_since >= WITHHELD_AFTER_S:
            return "withheld", self._differs_since
        knows = self._kept is not None and self._beacon is not None
        return ("fresh" if knows and not differs else None), now

    def _is_expired(self, now: float) -> bool:
        running = self._kept.running if self._kept is not None else None
        if running is None or running[0].not_after is None or self._wall_ahead is None:
            return False
        try:
            return parse_rfc3339(running[0].not_after) < now + self._wall_ahead
        except (ValueError, OverflowError):
            return True  # a date we can't read has passed: saying so is the safe side

    def _lacks_the_snapshot(self) -> bool:
        """The newest beacon names a snapshot that we were not given: somebody may hold it back."""
        if self._beacon is None:
            return False
        return self._snapshot is None or self._snapshot[1] != self._beacon.snapshot

    def _differs_from_snapshot(self) -> bool:
        """Whether the newest snapshot names something else for us than what we hold."""
        if self._snapshot is None:
            return False
        wanted = self._snapshot[0].services.get(self.service)
        if self._kept is None:
            return wanted is not None
        if wanted is None:
            return not self._kept.deleted
        return wanted != (self._kept.seen.mark.revision, self._kept.seen.digest)
