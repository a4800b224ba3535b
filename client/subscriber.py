"""What to do with each message, sans I/O: bytes and two clocks in, events out.

The rules, in the order they are met:

    verify     `config.trust` decides whom to believe; a refusal leaves what runs untouched
    never back lower is refused, equal is silent, equal with other content is an equivocation
    floor      the first start ever holds what arrives until a verified snapshot or beacon says how
               far the publisher has come, at most 15 s: a broker can't begin with something old
    deletion   a signed tombstone; the running values stay. An empty message is refused
    fresh      a rising beacon was seen within its validity, as soon after the one before as it was
               made (`pace`), and the snapshot it names lists exactly what we hold; age alone makes
               nothing stale
    root       the chain of trust roots is walked (`root_chain`); what a message by a key that is
               not known yet said is judged again when the root that lists it comes; a key that a
               root no longer lists takes with it the marks for which it alone stood

Whoever drives this writes each new root to disk, then `kept`, before it passes on an event of
`CHANGES_KEPT`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypeVar

from config_manager.client.pace import Pace
from config_manager.client.root_chain import Link, RootChain, Turned
from config_manager.client.set_aside import Aside, SetAside, is_fast_forwarded
from config_manager.config import strict_json, trust, wire
from config_manager.config.documents import Beacon, ConfigUpdate, Role, Root, Snapshot
from config_manager.config.strict_json import JsonObject
from config_manager.config.trust import Accepted, Distrust, Reason, Seen, Signed
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

_SET_ASIDE = 4
"""Configurations that a newer root might let in, of either kind. Of the rest, one of each topic."""

Source: TypeAlias = Literal["broker", "last-known-good"]
StaleReason: TypeAlias = Literal[
    "no-beacon", "withheld", "expired", "root-withheld", "signer-revoked"
]


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


@dataclass(frozen=True, slots=True)
class RootTrusted:
    """A newer root is trusted: to be on disk before anything that follows from it."""

    link: Link


Event: TypeAlias = Offered | Applied | Refused | Deleted | Resigned | Stale | Fresh | RootTrusted

CHANGES_KEPT = (Applied, Deleted, Resigned, RootTrusted)
"""Events that may be passed on only once `Subscriber.kept` is on disk."""


@dataclass(frozen=True, slots=True)
class Died:
    """The service died within the bake time of this configuration, so often in a row."""

    revision: int
    digest: str
    times: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What survives a restart.

    running: the configuration that runs and its envelope; None where only marks could be read.
    trial: one that runs, or is about to, and has yet to live through its bake time; then `running`
    is the one before. trial_asked: the service is still being asked about it. trial_ended_well: the
    service stopped on purpose meanwhile. died: the one that the service died beside last, and how
    often in a row. poison: the digest of one that it died of: not tried again until a newer one comes.
    seen: the highest ever accepted, tombstones included; None where no key of today vouches for any.
    beacon_order: the highest beacon, so that an old one proves nothing after a restart. Both stand
    as long as the keys that vouched for them: seen_by and beacons_by hold the highest of each key.
    root_version: of the newest root that was trusted. signer_revoked: found while loading, never
    stored; so is tried_elsewhere: what another process lives through its bake time with just now.
    """

    running: tuple[ConfigUpdate, Envelope] | None
    seen: Seen | None
    deleted: bool = False
    beacon_order: tuple[int, int] | None = None
    signer_revoked: bool = False
    trial: tuple[ConfigUpdate, Envelope] | None = None
    trial_asked: bool = False
    trial_ended_well: bool = False
    died: Died | None = None
    poison: str | None = None
    seen_by: Mapping[str, Seen] = field(default_factory=dict)
    beacons_by: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    root_version: int = 0
    sealed: tuple[Envelope, ...] = ()
    tried_elsewhere: tuple[ConfigUpdate, Envelope] | None = None

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

    def under(self, root: Root) -> Kept:
        """The same under a root: a mark for which only keys stood that it no longer lists is undone.

        What enough of today's keys signed can't be undone by this: of the highest that each of them
        vouched for, the threshold's one is at least as high.
        """
        seen_by, seen = _under(self.seen_by, self.seen, root.roles["config"])
        beacons_by, order = _under(self.beacons_by, self.beacon_order, root.roles["beacon"])
        return replace(self, seen=seen, seen_by=seen_by, beacon_order=order, beacons_by=beacons_by)


Rising = TypeVar("Rising", Seen, tuple[int, int])


def _under(
    by_key: Mapping[str, Rising], highest: Rising | None, role: Role
) -> tuple[Mapping[str, Rising], Rising | None]:
    """The marks by key, and the one that stands, once only this role's keys count."""
    left = {key: mark for key, mark in by_key.items() if key in role.keyids}
    if len(left) == len(by_key):
        return by_key, highest
    ranked = sorted(left.values(), reverse=True)
    return left, ranked[role.threshold - 1] if len(ranked) >= role.threshold else None


def _raised(
    by_key: Mapping[str, Rising], keys: frozenset[str], mark: Rising
) -> Mapping[str, Rising]:
    """The marks by key once these keys vouched for `mark`; the same object where nothing rose."""
    risen = {key: mark for key in keys if key not in by_key or by_key[key] < mark}
    return {**by_key, **risen} if risen else by_key


class Subscriber:
    """One service's configuration, as one instance sees it. Never raises for what it receives."""

    def __init__(
        self,
        service: str,
        instance: str,
        roots: RootChain,
        kept: Kept | None,
        *,
        negotiates: bool = False,
    ) -> None:
        """negotiates: the service decides on each configuration; else it is applied as it comes."""
        self.service = service
        self.instance = instance
        self.refusals: Counter[Reason] = Counter()
        self.replayed_beacons = 0
        self._roots = roots
        self._lost_root = 0
        if kept is not None:
            self._lost_root = kept.root_version  # a file may be gone: see `_check_root`
            kept = kept.under(roots.newest)
        self._negotiates = negotiates
        self._sealed = kept.sealed if kept is not None else ()
        self._offered: tuple[ConfigUpdate, Envelope] | None = None
        self._before_trial: tuple[tuple[ConfigUpdate, Envelope] | None, bool] | None = None
        self._runs = kept.to_start_with if kept is not None else None
        """neither what is being asked about nor what waits for a restart"""
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
        self._snapshot_by = frozenset[str]()
        self._beacon: Beacon | None = None
        self._beacon_by = frozenset[str]()
        self._beacon_order = kept.beacon_order if kept is not None else None
        self._beacons_by = kept.beacons_by if kept is not None else {}
        self._beacon_at: float | None = None
        self._pace = Pace()
        self._heard_at: float | None = None
        self._differs_since: float | None = None
        self._behind_since: float | None = None
        self._aside = SetAside()
        revoked = kept.to_start_with if kept is not None and kept.signer_revoked else None
        self._revoked_at_start = revoked[1].digest if revoked is not None else None
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
        return replace(
            self._kept,
            beacon_order=self._beacon_order,
            beacons_by=self._beacons_by,
            root_version=max(self._roots.newest.version, self._kept.root_version),
        )

    @property
    def root(self) -> Root:
        """The newest that is trusted."""
        return self._roots.newest

    @property
    def signer_revoked(self) -> bool:
        """What runs was signed by a key that is good no more; its publisher has to sign it anew."""
        runs = self._runs
        if runs is None:
            return False
        return runs[1].digest == self._revoked_at_start or not self._is_good(runs[1])

    @property
    def due(self) -> float | None:
        """When `tick` has something to say, if that is before the next one; None: it has not."""
        return self._aside.due

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
        events = self._say_what_waited(monotonic_now)
        try:
            if topic.startswith(wire.ROOTS_PREFIX):
                events += self._on_root(topic, payload, wall_now)
            elif topic == wire.SNAPSHOT_TOPIC:
                events += self._on_snapshot(payload, wall_now, monotonic_now)
            elif topic == wire.KEEPALIVE_TOPIC:
                events += self._on_keepalive(payload, wall_now, monotonic_now)
            elif topic.startswith(wire.config_topic("")):
                events += self._on_update(topic, payload, wall_now)
        except Distrust as verdict:
            events += self._refuse_for_now(self._explained(verdict), topic, payload)
        return events + self._judge_status(monotonic_now)

    def tick(self, monotonic_now: float, wall_now: float | None = None) -> list[Event]:
        """Time passed: call it at the start and every second or so. wall_now: where it is known."""
        self._note_time(monotonic_now, wall_now)
        assert self._started_at is not None
        events = self._say_what_waited(monotonic_now)
        if self._waits_for_floor and monotonic_now - self._started_at >= FLOOR_WAIT_S:
            events += self._release()
        return events + self._judge_status(monotonic_now)

    def disconnected(self, monotonic_now: float) -> list[Event]:
        """A connection broke: no reason to be stale yet. What it refused may be said again."""
        self._recent.clear()
        return self.tick(monotonic_now)

    # configuration

    def _on_update(self, topic: str, payload: bytes, wall_now: float) -> list[Event]:
        return self._accept(self._judge(topic, payload, wall_now))

    def _judge(self, topic: str, payload: bytes, wall_now: float) -> Accepted:
        self._check_root()
        return trust.judge_update(
            payload,
            topic=topic,
            service=self.service,
            root=self._roots.newest,
            seen=self._seen(),
            now=wall_now,
        )

    def _accept(self, accepted: Accepted) -> list[Event]:
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
            kept = Kept(None, seen, sealed=self._sealed)
        kept = replace(kept, seen=seen, seen_by=_raised(kept.seen_by, envelope.signers, seen))
        if update.deleted:
            self._offered = None  # older than the deletion: nobody wants it any more
            self._kept = replace(kept, deleted=True)
            return [Deleted(update)]
        if self._kept is not None and self._runs_or_waits(envelope):
            # newer than a mark that was undone, but no news: it runs
            self._kept = self._resigned(replace(kept, deleted=False), envelope)
            return [Resigned(envelope)]
        self._kept = replace(kept, deleted=False, poison=None)
        return self._offer(update, envelope)

    def _offer(self, update: ConfigUpdate, envelope: Envelope) -> list[Event]:
        """Once per content, however often a broker repeats it."""
        if envelope.digest in self._decided_on:
            return []
        self._decided_on = {envelope.digest}
        self._offered = (update, envelope)
        return [Offered(update, envelope)] if self._negotiates else self.adopt(bakes=False)

    def keep_sealed(self, sealed: tuple[Envelope, ...]) -> Kept | None:
        """The instance's secrets, as they came, go with what is kept."""
        self._sealed = sealed
        if self._kept is not None:
            self._kept = replace(self._kept, sealed=sealed)
        return self.kept

    def starts_with(self, runs: tuple[ConfigUpdate, Envelope] | None) -> None:
        """What of that which was kept the service really runs: not each fits every release."""
        self._runs = runs

    def offer_again(self) -> None:
        """What runs may be applied once more: something that it lacked has come."""
        runs = self._runs
        if runs is not None and self._offered is None:
            self._offered = runs

    def refuse(self, verdict: Distrust, topic: str, payload: bytes) -> list[Refused]:
        """A message that somebody else judged: counted, and said as others are."""
        return self._refuse(self._explained(verdict), topic, payload)

    # what the service makes of an offer

    @property
    def offered(self) -> tuple[ConfigUpdate, Envelope] | None:
        """Accepted, not decided on yet; the newest."""
        return self._offered

    def try_out(self, *, asks: bool = False) -> Kept:
        """The offer is about to be applied: must be on disk first, so that a death is remembered.
        asks: the service is asked about it before."""
        assert self._kept is not None
        assert self._offered is not None
        self._before_trial = (self._kept.trial, self._kept.trial_ended_well)
        died = self._kept.died
        same = died is not None and died.digest == self._offered[1].digest
        self._kept = replace(
            self._kept,
            trial=self._offered,
            trial_asked=asks,
            trial_ended_well=False,
            died=died if same else None,
        )
        return self._kept

    def deaths_of(self, revision: int) -> int:
        """How often in a row the service died within this one's bake time."""
        died = self._kept.died if self._kept is not None else None
        return died.times if died is not None and died.revision == revision else 0

    def adopt(
        self, *, bakes: bool, accepted: tuple[ConfigUpdate, Envelope] | None = None
    ) -> list[Event]:
        """The offer runs. bakes: it has yet to live through its bake time (`proved`). accepted: the
        one that runs, where another offer may have come while the service thought about it."""
        accepted = accepted or self._offered
        assert self._kept is not None
        assert accepted is not None
        update, envelope = accepted = self._newest_of(accepted)
        self._before_trial = None
        self._runs = accepted
        if _is_same(self._offered, accepted):
            self._offered = None
        if bakes:
            self._kept = replace(
                self._kept, trial=(update, envelope), trial_asked=False, trial_ended_well=False
            )
        else:
            self._kept = replace(
                self._kept, running=(update, envelope), trial=None, signer_revoked=False
            )
        return [Applied(update, envelope, "broker")]

    def proved(self, lived: tuple[ConfigUpdate, Envelope]) -> Kept:
        """This one lived through its bake time. Another trial may wait for the next start."""
        assert self._kept is not None
        lived = self._newest_of(lived)
        trial = None if _is_same(self._kept.trial, lived) else self._kept.trial
        # the one that a newer one, which is being asked about, may be put off for
        if self._before_trial is not None and _is_same(self._before_trial[0], lived):
            self._before_trial = (None, False)
        died = self._kept.died
        if died is not None and died.digest == lived[1].digest:
            died = None
        self._kept = replace(
            self._kept, running=lived, trial=trial, died=died, signer_revoked=False
        )
        return self._kept

    def put_off(self) -> Kept:
        """Not now: the offer stands, and what runs goes on, with what it has still to prove."""
        assert self._kept is not None
        if self._before_trial is not None:
            trial, ended_well = self._before_trial
            self._before_trial = None
            self._kept = replace(
                self._kept, trial=trial, trial_asked=False, trial_ended_well=ended_well
            )
        return self._kept

    def leave_for_restart(self) -> Kept:
        """The offer becomes what the next start runs; what runs now goes on until then."""
        assert self._kept is not None
        assert self._offered is not None
        self._kept = replace(
            self._kept, trial=self._offered, trial_asked=False, trial_ended_well=True
        )
        self._offered = None
        return self._kept

    def turn_down(
        self,
        reason: Literal["model", "callback"],
        detail: str,
        refused: tuple[ConfigUpdate, Envelope] | None = None,
    ) -> list[Event]:
        """The offer is refused by the service itself; what runs goes on. refused: as in `adopt`."""
        if refused is None or _is_same(self._offered, refused):
            self._offered = None
        self.put_off()
        self.refusals[reason] += 1
        return [Refused(reason, detail)]

    def resume_trial(self) -> Kept:
        """A trial starts again, and must live through its bake time again."""
        assert self._kept is not None
        self._kept = replace(self._kept, trial_ended_well=False)
        return self._kept

    def leave_trial(self) -> Kept:
        """A trial that this release of the service can't run: no death is laid to it."""
        assert self._kept is not None
        self._kept = replace(self._kept, trial_ended_well=True)
        return self._kept

    def end_well(self) -> Kept | None:
        """The service stops on purpose: what it tries may be tried again, and no row of deaths goes on."""
        if self._kept is not None:
            died = self._kept.died if self._kept.poison is not None else None
            has_trial = self._kept.trial is not None
            self._kept = replace(self._kept, trial_ended_well=has_trial, died=died)
        return self._kept

    def _take_duplicate(self, kept: Kept, update: ConfigUpdate, envelope: Envelope) -> list[Event]:
        seen = Seen(update.mark, envelope.digest)
        seen_by = _raised(kept.seen_by, envelope.signers, seen)
        before, self._kept = kept, replace(kept, seen_by=seen_by)
        if not update.deleted:
            self._kept = self._resigned(self._kept, envelope)
            # what was kept of it was lost, or the service that ran before us turned it down
            runs = kept.running is not None and envelope.digest == kept.running[1].digest
            if not runs and (events := self._offer(update, envelope)):
                return events
        return [Resigned(envelope)] if self._kept != before else []

    def _resigned(self, kept: Kept, envelope: Envelope) -> Kept:
        """The same, where these very bytes are kept: with this envelope's signatures, which is how
        what runs survives the key that it was signed by at first."""

        def signed(
            one: tuple[ConfigUpdate, Envelope] | None,
        ) -> tuple[ConfigUpdate, Envelope] | None:
            if one is None or one[1].digest != envelope.digest:
                return one
            return one[0], self._with_both(one[1], envelope)

        running, trial = signed(kept.running), signed(kept.trial)
        self._runs, self._offered = signed(self._runs), signed(self._offered)
        if self._before_trial is not None:
            before, ended_well = self._before_trial
            self._before_trial = (signed(before), ended_well)
        if envelope.digest == self._revoked_at_start:
            self._revoked_at_start = None
        return replace(kept, running=running, trial=trial, signer_revoked=False)

    def _newest_of(self, decided: tuple[ConfigUpdate, Envelope]) -> tuple[ConfigUpdate, Envelope]:
        """The same bytes under all the signatures that came for them since."""
        assert self._kept is not None
        known = (self._offered, self._kept.trial, self._kept.running, self._runs)
        return next((one for one in known if one is not None and _is_same(one, decided)), decided)

    def _runs_or_waits(self, envelope: Envelope) -> bool:
        """Whether this content runs already, or will after the restart that it waits for."""
        assert self._kept is not None
        return any(
            one is not None and one[1].digest == envelope.digest
            for one in (self._runs, self._kept.trial)
        )

    def _with_both(self, kept: Envelope, newer: Envelope) -> Envelope:
        role = self._roots.newest.roles["config"]
        if newer.signers <= kept.signers:
            return kept
        signatures = {
            one.keyid: one
            for one in (*newer.signatures, *kept.signatures)
            if one.keyid in role.keyids
        }
        return replace(newer, signatures=tuple(signatures.values())[: wire.MAX_SIGNATURES])

    def _is_good(self, envelope: Envelope) -> bool:
        """Whether the newest root still lists enough of those who signed it, whatever the date."""
        return _are_enough(envelope.signers, self._roots.newest.roles["config"])

    def _release(self) -> list[Event]:
        """The floor is known, or was waited for long enough: what was held meets it."""
        self._waits_for_floor = False
        held, self._held = self._held, None
        if held is None:
            return []
        try:
            self._check_floor(held)
        except Distrust as verdict:
            return [*self._refuse(verdict, self._topic, held.envelope.payload)]
        return self._take(replace(held, duplicate=False))

    # the chain of roots

    def _on_root(self, topic: str, payload: bytes, wall_now: float) -> list[Event]:
        events: list[Event] = []
        before = self._roots.newest.version
        for step in self._roots.offer(topic, payload, wall_now):
            if isinstance(step, Turned):
                events += self._refuse(step.verdict, step.topic, step.data)
            else:
                events.append(RootTrusted(step))
        if self._roots.newest.version > before:
            self._go_on_under(self._roots.newest)
            events += self._judge_again(wall_now)
        return events

    def _check_root(self) -> None:
        """Nothing is judged by an older root than was trusted once; raises Distrust."""
        if self._roots.newest.version < self._lost_root:
            raise Distrust(
                "unknown-key",
                f"root {self._lost_root} was trusted here and can't be read any more; until it "
                "comes again nobody is believed",
            )

    def _go_on_under(self, root: Root) -> None:
        """What a newer root takes away: what was said by keys that it does not list."""
        beacon = root.roles["beacon"]
        if not _are_enough(self._beacon_by, beacon):
            self._beacon, self._beacon_at = None, None
            self._pace = Pace()  # how fast a thief's clock ran says nothing
        if not _are_enough(self._snapshot_by, beacon):
            self._snapshot, self._floor = None, None
        self._beacons_by, self._beacon_order = _under(self._beacons_by, self._beacon_order, beacon)
        if self._held is not None and not self._is_good(self._held.envelope):
            self._held = None
        if self._offered is not None and not self._is_good(self._offered[1]):
            self._forget(self._offered)
            self._offered = None
        if self._kept is None:
            return
        seen, kept = self._kept.seen, self._kept.under(root)
        if kept.seen != seen:  # then the snapshot is the floor, as at the first start
            self._first_start = True
            self._floor = self._snapshot[0].services.get(self.service) if self._snapshot else None
        if kept.trial is not None and kept.trial_ended_well and not self._is_good(kept.trial[1]):
            self._forget(kept.trial)
            kept = replace(kept, trial=None, trial_ended_well=False)
        self._kept = kept

    def _forget(self, decided: tuple[ConfigUpdate, Envelope]) -> None:
        """It may be offered again, under another signature."""
        self._decided_on.discard(decided[1].digest)

    def _judge_again(self, wall_now: float) -> list[Event]:
        """What was refused under the root before. Of several configurations only the highest."""
        events: list[Event] = []
        accepted: list[tuple[Accepted, Aside]] = []
        for one in sorted(self._aside.take_all(), key=lambda one: one.topic != wire.SNAPSHOT_TOPIC):
            try:
                if one.topic == self._topic:
                    accepted.append((self._judge(one.topic, one.payload, wall_now), one))
                    continue
                judge = (
                    self._on_snapshot if one.topic == wire.SNAPSHOT_TOPIC else self._on_keepalive
                )
                events += judge(one.payload, wall_now, one.arrived_at)
                self._pardon(one)
            except Distrust:
                self._aside.put_back(one)
        accepted.sort(key=lambda pair: pair[0].update.mark, reverse=True)
        for _, one in accepted:
            self._pardon(one)
        for verdict, one in accepted[:1]:
            try:
                events += self._accept(verdict)
            except Distrust as refused:
                events += self._refuse(refused, one.topic, one.payload)
        return events

    def _explained(self, verdict: Distrust) -> Distrust:
        """With what became of the keys that the newest root does not list any more."""
        revoked = [
            f"root {version} was the last to list {keyid[:16]}: it is revoked"
            for keyid in sorted(verdict.strangers)
            if (version := self._roots.last_to_list(keyid)) is not None
        ]
        if not revoked:
            return verdict
        still_unknown = frozenset(
            keyid for keyid in verdict.strangers if self._roots.last_to_list(keyid) is None
        )
        detail = "; ".join((verdict.detail, *revoked))
        return Distrust(verdict.reason, detail, strangers=still_unknown)

    def _refuse_for_now(self, verdict: Distrust, topic: str, payload: bytes) -> list[Event]:
        """Refused; but what a newer root might let in is set aside, to be judged again then."""
        refused = self._refuse(verdict, topic, payload)
        ours = topic == self._topic
        overtakes = verdict.reason == "unknown-key" and (
            ours or topic in (wire.SNAPSHOT_TOPIC, wire.KEEPALIVE_TOPIC)
        )
        if not (overtakes or (ours and is_fast_forwarded(verdict))):
            return [*refused]
        if self._aside.holds(topic, payload):
            return [*refused]
        may_follow = verdict.strangers or self._roots.newest.version < self._lost_root
        waits = bool(refused and overtakes and may_follow)
        displaced = self._aside.add(
            Aside(topic, payload, self._now, verdict, waits), at_most=_SET_ASIDE if ours else 1
        )
        return [*map(_said, displaced), *(() if waits else refused)]

    def _say_what_waited(self, now: float) -> list[Event]:
        return [*map(_said, self._aside.say(now))]

    def _pardon(self, one: Aside) -> None:
        """It was not refused after all; unless that was said already."""
        if one.is_unsaid:
            self.refusals[one.verdict.reason] -= 1
        self._recent.pop(_fingerprint(one.topic, one.payload), None)

    # refusals

    def _refuse(self, verdict: Distrust, topic: str, payload: bytes) -> list[Refused]:
        self.refusals[verdict.reason] += 1
        key = _fingerprint(topic, payload)
        if key in self._recent:
            self._recent.move_to_end(key)
            return []
        self._recent[key] = None
        if len(self._recent) > _REFUSALS_REMEMBERED:
            self._recent.popitem(last=False)
        if not self._may_say(verdict.reason):
            return []
        return [_said(verdict)]

    def _may_say(self, reason: Reason) -> bool:
        """A flood of ever different junk is counted, but must not fill the log."""
        began, said = self._said.get(reason, (-math.inf, 0))
        if self._now - began >= _SAID_PERIOD_S:
            began, said = self._now, 0
        self._said[reason] = (began, said + 1)
        return said < _MOST_SAID

    # how far the publisher has come

    def _on_snapshot(self, payload: bytes, wall_now: float, now: float) -> list[Event]:
        self._check_root()
        snapshot = trust.signed_snapshot(payload, self._roots.newest, wall_now)
        beacon = trust.signed_beacon(
            strict_json.loads_object(payload).get("beacon"), self._roots.newest, wall_now
        )
        if beacon.document.snapshot != snapshot.digest:
            raise Distrust("malformed", "the snapshot's beacon names another snapshot")
        self._on_beacon(beacon, now)
        if self._beacon is None or self._beacon.snapshot != snapshot.digest:
            return []  # an older snapshot than the newest beacon's: nothing to learn from it
        self._snapshot = (snapshot.document, snapshot.digest)
        self._snapshot_by = snapshot.signers
        if self._first_start:
            self._floor = snapshot.document.services.get(self.service)
        return self._release() if self._waits_for_floor else []

    def _on_keepalive(self, payload: bytes, wall_now: float, now: float) -> list[Event]:
        self._check_root()
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
        self._on_beacon(trust.signed_beacon(value["beacon"], self._roots.newest, wall_now), now)
        return []

    def _on_beacon(self, signed: Signed[Beacon], now: float) -> None:
        """Take a verified beacon, if it rises."""
        beacon = signed.document
        self._beacons_by = _raised(self._beacons_by, signed.signers, beacon.order)
        if self._beacon_order is not None and beacon.order <= self._beacon_order:
            if beacon.order < self._beacon_order or self._beacon is None:
                self.replayed_beacons += 1
            return
        self._beacon, self._beacon_order, self._beacon_at = beacon, beacon.order, now
        self._beacon_by = signed.signers
        self._pace.heard(beacon, now)
        if self._pace.keeps_up:
            self._heard_at = now

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
        if not self._lacks_a_root:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
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
        if self.signer_revoked:
            return "signer-revoked", now
        if self._heard_at is None:
            heard_at = self._started_at
            patience = FLOOR_WAIT_S if self._began_empty else MIN_BEACON_VALID_S
        else:
            heard_at = self._heard_at
            valid_s = float(self._beacon.valid_s) if self._beacon is not None else 0.0
            patience = max(MIN_BEACON_VALID_S, valid_s)
        if now - heard_at >= patience:
            return "no-beacon", heard_at
        if self._behind_since is not None and now - self._behind_since >= WITHHELD_AFTER_S:
            return "root-withheld", self._behind_since
        if self._differs_since is not None and now - self._differs_since >= WITHHELD_AFTER_S:
            return "withheld", self._differs_since
        knows = self._kept is not None and self._beacon is not None
        is_fresh = knows and not differs and not self._lacks_a_root
        return ("fresh" if is_fresh else None), now

    def _is_expired(self, now: float) -> bool:
        running = self._kept.running if self._kept is not None else None
        if running is None or running[0].not_after is None or self._wall_ahead is None:
            return False
        try:
            return parse_rfc3339(running[0].not_after) < now + self._wall_ahead
        except (ValueError, OverflowError):
            return True  # a date we can't read has passed: saying so is the safe side

    @property
    def _lacks_a_root(self) -> bool:
        """A newer root is vouched for, or was trusted once, than we were given."""
        wanted = self._beacon.root_version if self._beacon is not None else 0
        return max(wanted, self._lost_root) > self._roots.newest.version

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
        seen = self._kept.seen
        return seen is None or wanted != (seen.mark.revision, seen.digest)


def _is_same(
    one: tuple[ConfigUpdate, Envelope] | None, other: tuple[ConfigUpdate, Envelope] | None
) -> bool:
    """Whether these are the same bytes, whoever signed them."""
    return one is not None and other is not None and one[1].digest == other[1].digest


def _are_enough(keyids: frozenset[str], role: Role) -> bool:
    return len(keyids.intersection(role.keyids)) >= role.threshold


def _said(verdict: Distrust) -> Refused:
    return Refused(verdict.reason, verdict.detail)


def _fingerprint(topic: str, payload: bytes) -> tuple[str, bytes]:
    return topic, hashlib.sha256(payload).digest()
