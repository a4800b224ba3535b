"""Which messages to believe, sans I/O: bytes and two clocks in, events out.

The rules, in the order they are met:

    verify     `config.trust` decides whom to believe; a refusal leaves what runs untouched
    never back lower is refused, equal is silent, equal with other content is an equivocation
    floor      the first start ever holds what arrives until a verified snapshot or beacon says how
               far the publisher has come, at most 15 s: a broker can't begin with something old
    deletion   a signed tombstone; the running values stay. An empty message is refused
    fresh      see `freshness`
    root       the chain of trust roots is walked (`root_chain`). A message by an unknown key is judged
               again when the root that lists the key comes. Once a root no longer lists a key, the
               marks that only this key vouched for are undone

`Trial` says what becomes of a configuration that is believed. The driver writes each new root to disk,
then `kept`, before it passes on Applied, Deleted, Resigned or RootTrusted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import cast

from config_manager.client.rules.events import (
    Deleted,
    Event,
    Offered,
    Refused,
    Resigned,
    RootTrusted,
)
from config_manager.client.rules.freshness import Freshness
from config_manager.client.rules.kept import Kept, Version, are_enough, is_same, merged, raised
from config_manager.client.rules.refusals import Refusals
from config_manager.client.rules.root_chain import RootChain, Turned
from config_manager.client.rules.set_aside import Aside, SetAside, is_fast_forwarded
from config_manager.client.rules.trial import Trial
from config_manager.config import strict_json, trust, wire
from config_manager.config.documents.root import Root
from config_manager.config.strict_json import JsonObject
from config_manager.config.trust import Accepted, Distrust, Reason, Seen
from config_manager.config.wire import Envelope

_SET_ASIDE = 4
"""Configurations that a newer root might let in, of either kind. Of the rest, one of each topic."""


class Subscriber:
    """One service's configuration, as one instance sees it. Never raises for what it receives."""

    def __init__(self, service: str, instance: str, roots: RootChain, kept: Kept | None) -> None:
        self.service = service
        self.instance = instance
        self._roots = roots
        self._lost_root = 0
        if kept is not None:
            self._lost_root = kept.root_version  # a file may be gone: see `check_root`
            # an older root undoes nothing: what it lists is no longer what the publisher says
            if roots.newest.version >= kept.root_version:
                kept = kept.under(roots.newest)
        self._marks = kept
        self._sealed = kept.sealed if kept is not None else ()
        self.trial = Trial.of(kept)
        self.freshness = Freshness(service, kept)
        self._refusals = Refusals()
        self._topic = wire.config_topic(service)
        self._waits_for_floor = kept is None
        self._held: Accepted | None = None
        self._aside = SetAside()
        self._now = 0.0

    # ── what is asked ──────────────────────────────────────────────────────────────────────────

    @property
    def kept(self) -> Kept | None:
        """What must survive a restart, as of now."""
        if self._marks is None:
            return None
        marks = replace(
            self._marks,
            beacon_order=self.freshness.beacon_order,
            beacons_by=self.freshness.beacons_by,
            root_version=max(self._roots.newest.version, self._marks.root_version),
        )
        return self.trial.within(marks)

    @property
    def root(self) -> Root:
        """The newest that is trusted."""
        return self._roots.newest

    @property
    def signer_revoked(self) -> bool:
        """Whether the key that signed what runs is no longer good: the publisher has to sign it anew."""
        runs = self.trial.runs
        if runs is None:
            return False
        return runs[1].digest == self.trial.revoked or not self._is_good(runs[1])

    @property
    def due(self) -> float | None:
        """When `tick` has something to say; None: it has nothing."""
        return self._aside.due

    @property
    def is_known_to_be_absent(self) -> bool:
        """Whether the newest snapshot, verified, does not name this service."""
        return self.freshness.snapshot is not None and self.freshness.wanted is None

    @property
    def refusals(self) -> Counter[Reason]:
        """How many messages were refused, by reason."""
        return self._refusals.counts

    # ── what happens ───────────────────────────────────────────────────────────────────────────

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
                events += self._accept(self._judge(topic, payload, wall_now))
        except Distrust as verdict:
            events += self._refuse_for_now(self._roots.explained(verdict), topic, payload)
        return events + self._judge_freshness(monotonic_now)

    def tick(self, monotonic_now: float, wall_now: float | None = None) -> list[Event]:
        """Time passed: call it at the start and every second or so. wall_now: if it is known."""
        self._note_time(monotonic_now, wall_now)
        events = self._say_what_waited(monotonic_now)
        if self._waits_for_floor and self.freshness.has_waited_for_floor(monotonic_now):
            events += self._release()
        return events + self._judge_freshness(monotonic_now)

    def stands(self, version: Version) -> bool:
        """Whether it is the newest that was taken, and enough of today's keys vouch for it."""
        seen = self._marks.seen if self._marks is not None else None
        return seen is not None and seen.digest == version[1].digest and self._is_good(version[1])

    def disconnected(self, monotonic_now: float) -> list[Event]:
        """A connection broke: nothing is stale yet. What was refused may be said again."""
        self._refusals.forget()
        return self.tick(monotonic_now)

    def decided(self, trial: Trial, *, with_newest: bool = False) -> Kept:
        """Take what the service made of an offer. Returns what must be on disk then. with_newest: also the
        number of the newest beacon, and of the newest root."""
        self.trial = trial
        kept = self.kept if with_newest else self._marks
        assert kept is not None
        return trial.within(kept)

    def keep_sealed(self, sealed: tuple[Envelope, ...]) -> Kept | None:
        """The instance's secrets are kept as they came."""
        self._sealed = sealed
        if self._marks is not None:
            self._marks = replace(self._marks, sealed=sealed)
        return self.kept

    def refuse(self, verdict: Distrust, topic: str, payload: bytes) -> list[Refused]:
        """Count a message that another judge refused, and say so as for others."""
        return self._refuse(self._roots.explained(verdict), topic, payload)

    def _note_time(self, monotonic_now: float, wall_now: float | None) -> None:
        self._now = monotonic_now
        self.freshness.note_time(monotonic_now, wall_now)

    def _judge_freshness(self, now: float) -> list[Event]:
        revoked = self.signer_revoked
        return [*self.freshness.judge(self.kept, self.root, now, signer_revoked=revoked)]

    # ── configuration ──────────────────────────────────────────────────────────────────────────

    def _judge(self, topic: str, payload: bytes, wall_now: float) -> Accepted:
        self.check_root()
        return trust.judge_update(
            payload,
            topic=topic,
            service=self.service,
            root=self._roots.newest,
            seen=self._seen(),
            now=wall_now,
        )

    def _seen(self) -> Seen | None:
        if self._held is not None:
            return Seen(self._held.update.mark, self._held.envelope.digest)
        return self._marks.seen if self._marks is not None else None

    def _accept(self, accepted: Accepted) -> list[Event]:
        if self._waits_for_floor:
            if self._held is not None and accepted.duplicate:
                both = self._merged(self._held.envelope, accepted.envelope)
                accepted = replace(accepted, envelope=both)
            self._held = accepted
            return []
        self._check_floor(accepted)
        return self._take(accepted)

    def _check_floor(self, accepted: Accepted) -> None:
        """While there is a floor, nothing older than what the snapshot names; raises Distrust."""
        wanted = self.freshness.wanted
        if wanted is None or (self._marks is not None and not self._marks.has_floor):
            return
        revision, digest = wanted
        mine = accepted.update.revision
        if mine < revision:
            raise Distrust(
                "rolled-back", f"revision {mine}, but the signed snapshot names {revision}"
            )
        if mine == revision and accepted.envelope.digest != digest:
            raise Distrust(
                "equivocation", f"revision {mine} has other content than the signed snapshot names"
            )

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

    def _take(self, accepted: Accepted) -> list[Event]:
        update, envelope = accepted.update, accepted.envelope
        marks = self._marks
        if accepted.duplicate and marks is not None:
            return self._take_duplicate(marks, (update, envelope))
        seen = Seen(update.mark, envelope.digest)
        marks = marks or Kept(None, seen, sealed=self._sealed)
        seen_by = raised(marks.seen_by, envelope.signers, seen)
        self._marks = replace(
            marks, seen=seen, seen_by=seen_by, deleted=update.deleted, has_floor=False
        )
        if update.deleted:
            self.trial = self.trial.withdraw()
            return [Deleted(update)]
        if self.trial.runs_or_waits(envelope):
            # newer than a mark that was undone, but it runs already
            self.trial = self.trial.resigned(envelope, self._merged)
            return [Resigned(envelope)]
        self.trial = self.trial.without_poison()
        return self._offer((update, envelope))

    def _take_duplicate(self, marks: Kept, version: Version) -> list[Event]:
        update, envelope = version
        before = self.kept
        seen_by = raised(marks.seen_by, envelope.signers, Seen(update.mark, envelope.digest))
        self._marks = replace(marks, seen_by=seen_by)
        if not update.deleted:
            self.trial = self.trial.resigned(envelope, self._merged)
            # what was kept of it was lost, or the service turned it down before it was started again
            if not is_same(self.trial.runs, version) and (events := self._offer(version)):
                return events
        return [Resigned(envelope)] if self.kept != before else []

    def _offer(self, version: Version) -> list[Event]:
        """Once per content, however often a broker repeats it."""
        if version[1].digest in self.trial.decided_on:
            return []
        self.trial = self.trial.offer(version)
        return [Offered(*version)]

    def _merged(self, kept: Envelope, newer: Envelope) -> Envelope:
        return merged(kept, newer, self._roots.newest.roles["config"])

    def _is_good(self, envelope: Envelope) -> bool:
        """Whether the newest root still lists enough of its signers, whatever the date."""
        return are_enough(envelope.signers, self._roots.newest.roles["config"])

    # ── how far the publisher has come ─────────────────────────────────────────────────────────

    def _on_snapshot(self, payload: bytes, wall_now: float, now: float) -> list[Event]:
        self.check_root()
        snapshot = trust.signed_snapshot(payload, self._roots.newest, wall_now)
        beacon = trust.signed_beacon(
            strict_json.loads_object(payload).get("beacon"), self._roots.newest, wall_now
        )
        if beacon.document.snapshot != snapshot.digest:
            raise Distrust("malformed", "the snapshot's beacon names another snapshot")
        self.freshness.hear_beacon(beacon, now)
        is_newest = self.freshness.hear_snapshot(snapshot)
        return self._release() if is_newest and self._waits_for_floor else []

    def _on_keepalive(self, payload: bytes, wall_now: float, now: float) -> list[Event]:
        self.check_root()
        if len(payload) > wire.MAX_ENVELOPE_BYTES:
            raise Distrust("too-large", f"keepalive of {len(payload)} bytes")
        try:
            data = strict_json.loads_object(payload).get("data")
        except strict_json.NotStrictJson as error:
            raise Distrust("malformed", f"keepalive: {error}") from None
        said = cast("JsonObject", data).get("beacon") if isinstance(data, dict) else None
        if said is None:
            return []  # a publisher that may not vouch for its database still says that it lives
        # a beacon is no floor by itself: this service's revision stands in the snapshot that it names
        beacon = trust.signed_beacon(said, self._roots.newest, wall_now)
        self.freshness.hear_beacon(beacon, now)
        return []

    # ── the chain of roots ─────────────────────────────────────────────────────────────────────

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

    def check_root(self) -> None:
        """Nothing is judged by an older root than was trusted before; raises Distrust."""
        if self._roots.newest.version < self._lost_root:
            raise Distrust(
                "unknown-key",
                f"root {self._lost_root} was trusted here and can't be read any more; until it "
                "comes again nobody is believed",
            )

    def _go_on_under(self, root: Root) -> None:
        """Drop what was said by keys that a newer root does not list."""
        self.freshness.go_on_under(root)
        if self._held is not None and not self._is_good(self._held.envelope):
            self._held = None
        self.trial = self.trial.without_revoked(self._is_good)
        if self._marks is not None:
            self._marks = self._marks.under(root)

    def _judge_again(self, wall_now: float) -> list[Event]:
        """Judge again what was refused under the root before; of several configurations the highest is taken."""
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
                self._refusals.pardon(one)
            except Distrust:
                self._aside.put_back(one)
        accepted.sort(key=lambda pair: pair[0].update.mark, reverse=True)
        taken: bytes | None = None
        for verdict, one in accepted:
            payload = verdict.envelope.payload
            try:
                if taken is None:
                    events += self._accept(verdict)
                    taken = payload
                elif payload == taken:  # signed by others, who vouch for it, too
                    events += self._accept(replace(verdict, duplicate=True))
                self._refusals.pardon(one)
            except Distrust:  # by the floor
                self._aside.put_back(one)
        return events

    def _refuse_for_now(self, verdict: Distrust, topic: str, payload: bytes) -> list[Event]:
        """Refused; but what a newer root might let in is set aside, to be judged again then."""
        refused = self._refuse(verdict, topic, payload)
        ours = topic == self._topic
        overtakes = verdict.reason == "unknown-key" and (
            ours or topic in (wire.SNAPSHOT_TOPIC, wire.KEEPALIVE_TOPIC)
        )
        may_be_let_in = overtakes or (ours and is_fast_forwarded(verdict))
        if not may_be_let_in or self._aside.holds(topic, payload):
            return [*refused]
        may_follow = verdict.strangers or self._roots.newest.version < self._lost_root
        waits = bool(refused and overtakes and may_follow)
        displaced = self._aside.add(
            Aside(topic, payload, self._now, verdict, waits), at_most=_SET_ASIDE if ours else 1
        )
        return [*map(Refused.by, displaced), *(() if waits else refused)]

    def _say_what_waited(self, now: float) -> list[Event]:
        return [*map(Refused.by, self._aside.say(now))]

    def _refuse(self, verdict: Distrust, topic: str, payload: bytes) -> list[Refused]:
        return self._refusals.refuse(verdict, topic, payload, self._now)
