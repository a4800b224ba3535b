"""One running instance of a service, sans I/O: messages and time in, things to do out.

    message ─→ verified, never back (subscriber) ─→ fits the service's own model ─→ kept on disk as a
    trial ─→ the gate is open ─→ the service's callback ─→ `current` ─→ bake time ─→ proved

A driver (`actor` for Trio, `aio` for asyncio) does what `Do` says, in order, and tells what came of
it. A refusal at any step leaves what runs untouched. Each step is said in a receipt.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from nacl.signing import SigningKey
from pydantic import BaseModel

from config_manager.client.deliveries import Deliveries
from config_manager.client.guarded import attempt
from config_manager.client.identity import Identity
from config_manager.client.judging import DoesNotFit
from config_manager.client.precedence import Effective, Layers
from config_manager.client.root_chain import Link, RootChain
from config_manager.client.subscriber import (
    Applied,
    Deleted,
    Event,
    Fresh,
    Kept,
    Offered,
    Refused,
    Resigned,
    RootTrusted,
    Source,
    Stale,
    Subscriber,
)
from config_manager.client.validating import keys_of, value_of
from config_manager.client.words import Secrets, leaves_of, name_of, spelt
from config_manager.config import strict_json, wire
from config_manager.config.documents import Attempt, ConfigUpdate, Receipt, Running, Stage
from config_manager.config.names import InstanceName, ServiceName
from config_manager.config.trust import Distrust
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World, rfc3339

M = TypeVar("M", bound=BaseModel)

BAKE_S = 10.0
"""How long a service must live with a configuration before it is taken for good."""

NO_ANSWER_AFTER_S = 30.0
"""A callback that takes longer is named to the operator."""

NOT_ENROLLED = "this instance is not enrolled, see config-manager client enroll"

OnStale = Literal["report", "warn", "stop"]

_NO_VALUE = object()


_KEEP_BEACON_S = 300.0
"""How often the newest beacon's number goes to disk: after a restart, older ones prove nothing."""


class NotNow(Exception):
    """Raised by a callback: keep what runs, and ask again after `seconds`."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(f"asked again in {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Policy:
    """How an instance takes changes. Times in seconds.

    bake_s: how long it must live with a change before that counts as proved; 0 proves at once.
    restart_required: keys that only a restart changes. max_stale_s, on_stale: what to do once
    nothing has proved for that long that what runs is what the publisher wants.
    """

    bake_s: float = BAKE_S
    restart_required: frozenset[str] = frozenset()
    max_stale_s: float | None = None
    on_stale: OnStale = "report"


@dataclass(frozen=True, slots=True)
class Change(Generic[M]):
    """From one configuration to the next; `keys` are those whose value differs. revision,
    correlation_id: of the one that was delivered."""

    old: M
    new: M
    keys: frozenset[str]
    revision: int | None
    correlation_id: str | None
    source: Source


@dataclass(frozen=True, slots=True)
class Keep:
    """Make this durable before going on."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class KeepRoot:
    """Make this durable before going on: what follows is believed because of it."""

    link: Link


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """Ask the service's callback, off to the side; tell `called` what it said."""

    change: Change[M]


@dataclass(frozen=True, slots=True)
class Swap(Generic[M]):
    """`current` is this from now on."""

    effective: Effective[M]
    change: Change[M] | None


@dataclass(frozen=True, slots=True)
class PublishReceipt:
    """Publish this receipt, retained; only the newest counts."""

    topic: str
    payload: bytes
    document: Receipt


@dataclass(frozen=True, slots=True)
class Tell:
    """News for log and listeners."""

    event: Event


@dataclass(frozen=True, slots=True)
class TooStale:
    """Stale for longer than the policy allows."""

    reason: str
    policy: OnStale


class Written(NamedTuple):
    """What came of a Keep. was_delayed: a receipt has said so, and each later one has to be made anew."""

    is_done: bool
    was_delayed: bool


Do: TypeAlias = Keep | KeepRoot | Call[M] | Swap[M] | PublishReceipt | Tell | TooStale


@dataclass
class _Standing(Generic[M]):
    effective: Effective[M]
    source: Literal["broker", "last-known-good", "defaults"]
    running: tuple[ConfigUpdate, Envelope] | None = None
    attempt: Attempt | None = None
    correlation_id: str | None = None


class Instance(Generic[M]):
    """The rules of one service's instance. All times are monotonic seconds, but `wall_now`."""

    def __init__(
        self,
        service: ServiceName,
        instance: InstanceName,
        identity: Identity,
        layers: Layers[M],
        kept: Kept | None,
        *,
        policy: Policy,
        boot_seq: int,
        asks: bool,
        requires: bool = False,
        world: World,
    ) -> None:
        """asks: there is a callback to ask before a change. requires: nobody runs it before something
        was delivered, so the model need not have defaults. Raises DoesNotFit where the overrides alone
        do not fit the model."""
        self.service = service
        self.instance = instance
        self.subscriber = Subscriber(
            service, instance, RootChain(identity.chain), kept, negotiates=True
        )
        self.deliveries = Deliveries(
            service,
            instance,
            identity.seal_key,
            kept.sealed if kept is not None else (),
            identity.roots,
        )
        self._is_enrolled = f"{service}/{instance}" in identity.enrolled
        self._sealed_aside: bytes | None = None
        self._layers = layers
        self._policy = policy
        self._boot_seq = boot_seq
        self._seq = 0
        self._asks = asks
        self._world = world
        self._signing_key = SigningKey(identity.sign_key)
        self._schema = schema_digest(layers.model)
        self._candidate: Effective[M] | None = None
        self._calling = False
        self._accepted = False
        self._asked: tuple[ConfigUpdate, Envelope] | None = None
        self._asked_at: float | None = None
        self._is_open = False
        self._has_ended = False
        self._holds = 0
        self._not_before: float | None = None
        self._bakes_until: float | None = None
        self._overdue_since: float | None = None
        self._said_overdue = False
        self._beacon_kept_at = -math.inf
        try:
            before_any = layers.effective(None)
        except DoesNotFit as error:
            if not (requires and error.only_lacks):
                raise
            before_any = layers.incomplete()
        self._now = _Standing(before_any, "defaults")

    # ── what can be asked ──────────────────────────────────────────────────────────────────────

    @property
    def effective(self) -> Effective[M]:
        return self._now.effective

    @property
    def source(self) -> Literal["broker", "last-known-good", "defaults"]:
        return self._now.source

    @property
    def freshness(self) -> str:
        """`fresh`, `stale (reason)`, `clock-unknown`, or `unknown` while it is too early to say."""
        status = self.subscriber.status
        if status is None:
            return "unknown"
        if status != "fresh":
            return f"stale ({status})"
        return "clock-unknown" if self.subscriber.clock_unknown else "fresh"

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to at each broker."""
        return (
            wire.config_topic(self.service),
            wire.SNAPSHOT_TOPIC,
            wire.KEEPALIVE_TOPIC,
            wire.ROOTS_FILTER,
            self.deliveries.topic,
        )

    @property
    def due(self) -> float | None:
        """When `tick` should be called, where that is sooner than the next second."""
        return self.subscriber.due

    @property
    def nothing_to_wait_for(self) -> bool:
        """The publisher has vouched that it holds no configuration of this service."""
        return self.subscriber.is_known_to_be_absent

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def start(self, now: float) -> list[Do[M]]:
        """Run what was kept, before any network."""
        todo: list[Do[M]] = []
        kept = self.subscriber.kept
        self._beacon_kept_at = now
        if kept is None:
            return [Swap(self._now.effective, None)]
        if kept.poison is not None:
            newest = kept.seen if kept.seen and kept.poison == kept.seen.digest else None
            detail = (
                (f"revision {newest.mark.revision}" if newest else "one before the newest")
                + f": {_died(kept.died.times if kept.died else 1)}; it is not applied again, a newer one will be"
            )
            self.subscriber.refusals["callback"] += 1
            if newest:
                self._attempted(newest.mark.revision, "poisoned", detail)
            todo.append(Tell(Refused("callback", detail)))
        if kept.poison is not None or (kept.died is not None and kept.trial is None):
            todo.append(Keep(kept))  # what it died of is no trial any more
        for first in (kept.trial, kept.running):
            if first is None:
                continue
            if (refused := self._run_kept(first, bakes=first is kept.trial, now=now)) is None:
                runs = Applied(*first, "last-known-good", kept.signer_revoked)
                if first is kept.trial:
                    todo.append(Keep(self.subscriber.resume_trial()))
                todo.append(Tell(runs))
                break
            if first is kept.trial:
                todo.append(Keep(self.subscriber.leave_trial()))
            todo.append(Tell(refused))
        self.subscriber.starts_with(self._now.running)
        todo.append(Swap(self._now.effective, None))
        return [*todo, self.receipt()]

    def _run_kept(
        self, kept: tuple[ConfigUpdate, Envelope], *, bakes: bool, now: float
    ) -> Refused | None:
        """Start with it, unless it does not fit: then why."""
        update, _ = kept
        try:
            effective = self._layers.effective(update, self.deliveries.values(update))
        except DoesNotFit as error:
            self._attempted(update.revision, "refused", f"model: {error}")
            return Refused("model", f"what was kept no longer fits: {error}")
        if bakes:
            self._bakes_until = now + self._policy.bake_s
        self._now = _Standing(effective, "last-known-good", kept, self._now.attempt)
        self._now.correlation_id = update.correlation_id
        if self._now.attempt is None:
            deaths = self.subscriber.deaths_of(update.revision)
            why = f"tried again: {_died(deaths)}" if deaths else None
            self._attempted(update.revision, "applied" if bakes else "healthy", why)
        return None

    def was_delayed(self, seconds: float) -> None:
        """What was decided took so long to be done, for the disk took nothing: a bake time begins with
        what runs."""
        if self._bakes_until is not None:
            self._bakes_until += seconds

    def opened(self) -> None:
        """The service begins to run: from now on a restart is a restart."""
        self._is_open = True

    def receive(self, topic: str, payload: bytes, wall_now: float, now: float) -> list[Do[M]]:
        """One message from a broker."""
        if self._has_ended:  # nobody would live to see it through
            return []
        if topic == self.deliveries.topic:
            return self._on_sealed(payload, wall_now, now)
        before = self.subscriber.root.version
        todo = self._on_events(self.subscriber.receive(topic, payload, wall_now, now), now)
        if self._sealed_aside is not None and self.subscriber.root.version > before:
            waited, self._sealed_aside = self._sealed_aside, None
            todo += self._on_sealed(waited, wall_now, now)
        return todo

    def _on_sealed(self, payload: bytes, wall_now: float, now: float) -> list[Do[M]]:
        """This instance's secrets. An empty message takes nothing away: it was revoked, or a broker
        lost it."""
        if not payload:
            return []
        try:
            is_news = self.deliveries.receive(payload, self.subscriber.root, wall_now)
        except Distrust as verdict:
            if verdict.reason == "unknown-key":
                self._sealed_aside = payload  # its root may follow
            refused = self.subscriber.refuse(verdict, self.deliveries.topic, payload)
            return [Tell(event) for event in refused]
        if not is_news:
            return []
        self._is_enrolled = True
        kept = self.subscriber.keep_sealed(self.deliveries.kept)
        running = self._now.running
        if running is not None and running[0].secrets and not self._now.effective.secrets:
            self.subscriber.offer_again()  # it was enrolled while it ran
        return [*([Keep(kept)] if kept is not None else []), *self._weigh(now)]

    def starts_anew(self, boot_seq: int) -> list[Do[M]]:
        """From now on its receipts are of this start: those of an earlier number count no more."""
        if self._has_ended:
            return []
        self._boot_seq, self._seq = boot_seq, 0
        return [self.receipt()]

    def disconnected(self, now: float) -> list[Do[M]]:
        if self._has_ended:
            return []
        return self._on_events(self.subscriber.disconnected(now), now)

    def tick(self, now: float, wall_now: float) -> list[Do[M]]:
        """Every second or so."""
        if self._has_ended:
            return []
        todo = self._on_events(self.subscriber.tick(now, wall_now), now)
        if self._bakes_until is not None and now >= self._bakes_until:
            self._bakes_until = None
            lived, attempt = self._now.running, self._now.attempt
            assert lived is not None
            todo.append(Keep(self.subscriber.proved(lived)))
            if attempt is None or attempt.revision == lived[0].revision:
                self._attempted(lived[0].revision, "healthy")
            todo.append(self.receipt())
        if self._candidate is not None:
            todo += self._try(now)
        todo += self._say_no_answer(now)
        kept = self.subscriber.kept
        if kept is not None and now - self._beacon_kept_at >= _KEEP_BEACON_S:
            self._beacon_kept_at = now
            todo.append(Keep(kept))
        return todo + self._judge_staleness(now)

    def hold(self) -> None:
        """Don't change anything now: somebody is in the middle of something. May nest."""
        self._holds += 1

    def unhold(self) -> None:
        """The end of a `hold`; `retry` then does what waited."""
        self._holds -= 1

    def retry(self, now: float) -> list[Do[M]]:
        """Apply what was put off, where nothing stands against it any more."""
        return [] if self._has_ended else self._try(now)

    def called(self, error: BaseException | None, now: float) -> list[Do[M]]:
        """What the callback said: None (it runs the new one), NotNow, or what it raised."""
        if self._has_ended:  # the next start asks again
            return []
        if error is None and self._holds:  # somebody began something while it was asked
            self._accepted = True
            return []
        self._calling = self._accepted = False
        self._asked_at = None
        candidate, asked = self._candidate, self._asked
        assert candidate is not None
        assert asked is not None
        self._candidate = self._asked = None
        offered = self.subscriber.offered
        # by a newer one, or by a deletion; not by another signature
        overtaken = offered is None or offered[1].digest != asked[1].digest
        if error is None:
            todo = self._swap(candidate, asked, now)
        elif (pause := attempt(lambda: _asked_again_after(error), None)) is None:
            words = attempt(lambda: self._hidden(candidate).words_of(error), name_of(error))
            todo = self._turn_down("callback", words, asked)
        elif overtaken:
            todo = [Keep(self.subscriber.put_off())]
        else:
            self._candidate = candidate
            self._not_before = now + pause
            self._attempted(asked[0].revision, "deferred", "not now")
            todo = [Keep(self.subscriber.put_off()), self.receipt()]
        return [*todo, *self._weigh(now)] if overtaken else todo

    def end(self) -> list[Do[M]]:
        """The service stops on purpose. Nothing is decided any more: what comes now, or is being
        asked about, is for the next start."""
        self._has_ended = True
        if self._calling and not self._accepted:  # nobody said yes to it
            self.subscriber.put_off()
        kept = self.subscriber.end_well()
        todo: list[Do[M]] = [Keep(kept)] if kept is not None else []
        return [*todo, self.receipt(gone=True)]

    # ── deciding on an offer ───────────────────────────────────────────────────────────────────

    def _on_events(self, events: list[Event], now: float) -> list[Do[M]]:
        todo: list[Do[M]] = []
        says_so = False
        for event in events:
            match event:
                case Offered():
                    todo += self._weigh(now)
                case Deleted():
                    kept = self.subscriber.kept
                    assert kept is not None
                    if not self._calling:
                        self._candidate = None
                    todo += [Keep(kept), Tell(event)]
                case Resigned():
                    kept = self.subscriber.kept
                    assert kept is not None
                    todo += [Keep(kept), Tell(event)]
                case RootTrusted(link):
                    todo += [KeepRoot(link), *self._go_on_under_root(), Tell(event)]
                    says_so = True
                case Stale() | Fresh():
                    todo.append(Tell(event))
                    says_so = True
                case _:
                    todo.append(Tell(event))
        return [*todo, self.receipt()] if says_so else todo

    def _go_on_under_root(self) -> list[Do[M]]:
        """What a newer root took away is gone from disk, and from what is about to be applied."""
        candidate = self._candidate
        if candidate is not None and not self._calling and self.subscriber.offered is None:
            assert candidate.update is not None
            revision = candidate.update.revision
            self._attempted(revision, "refused", "unknown-key: its signer was revoked")
            self._candidate = None
        kept = self.subscriber.kept
        return [Keep(kept)] if kept is not None else []

    def _weigh(self, now: float) -> list[Do[M]]:
        """A new offer: does it fit, may it be applied while running?"""
        offered = self.subscriber.offered
        if offered is None or self._calling:
            return []
        update, _ = offered
        self._candidate = None
        self._attempted(update.revision, "received")
        self._now.correlation_id = update.correlation_id
        secrets = self.deliveries.values(update)
        if secrets is None and self._is_enrolled:
            self._attempted(update.revision, "deferred", "waiting for secrets")
            return [self.receipt()]
        try:
            effective = self._layers.effective(update, secrets)
        except DoesNotFit as error:
            why = "" if secrets is not None else f" (its secrets are not delivered: {NOT_ENROLLED})"
            return self._turn_down("model", f"{error}{why}", offered)
        needs_restart = self._change(effective, "broker").keys & self._policy.restart_required
        if needs_restart and (self._is_open or self._now.running is not None):
            return self._wait_for_restart(update, sorted(needs_restart))
        self._candidate = effective
        self._not_before = None
        return self._try(now)

    def _try(self, now: float) -> list[Do[M]]:
        """Apply the candidate, unless somebody holds, is being asked, or said `not now`."""
        candidate = self._candidate
        if self._accepted and not self._holds:
            return self.called(None, now)
        if candidate is None or self._calling:
            return []
        if self._holds or (self._not_before is not None and now < self._not_before):
            assert candidate.update is not None
            if self._now.attempt is None or self._now.attempt.stage != "deferred":
                self._attempted(candidate.update.revision, "deferred", "the service is busy")
                return [self.receipt()]
            return []
        offered = self.subscriber.offered
        assert offered is not None
        if self._asks:
            self._calling = True
            self._asked = offered
            self._asked_at = now
            keep = Keep(self.subscriber.try_out(asks=True))
            return [keep, self.receipt(), Call(self._change(candidate, "broker"))]
        self._candidate = None
        keeps: list[Do[M]] = [Keep(self.subscriber.try_out())] if self._policy.bake_s > 0 else []
        return [*keeps, *self._swap(candidate, offered, now)]

    def _say_no_answer(self, now: float) -> list[Do[M]]:
        """Once, where a callback takes so long that the operator should know."""
        if self._asked_at is None or now - self._asked_at < NO_ANSWER_AFTER_S:
            return []
        self._asked_at = None
        assert self._asked is not None
        if not self._accepted:  # else it waits for a hold
            why = f"the callback has not answered for {NO_ANSWER_AFTER_S:g} s"
            self._attempted(self._asked[0].revision, "deferred", why)
        return [self.receipt()]

    def _swap(
        self, candidate: Effective[M], accepted: tuple[ConfigUpdate, Envelope], now: float
    ) -> list[Do[M]]:
        change = self._change(candidate, "broker")
        bakes = self._policy.bake_s > 0
        events = self.subscriber.adopt(bakes=bakes, accepted=accepted)
        self._bakes_until = now + self._policy.bake_s if bakes else None
        self._now = _Standing(
            candidate, "broker", accepted, correlation_id=accepted[0].correlation_id
        )
        lacks = accepted[0].secrets and not candidate.secrets
        why = f"without its secrets: {NOT_ENROLLED}" if lacks else None
        self._attempted(accepted[0].revision, "applied" if bakes else "healthy", why)
        kept = self.subscriber.kept
        assert kept is not None
        before: list[Do[M]] = [] if bakes else [Keep(kept)]
        # it runs from now on: a death is one of it, no longer of the callback
        after: list[Do[M]] = [Keep(kept)] if bakes and self._asks else []
        told: list[Do[M]] = [Tell(event) for event in events]
        return [*before, Swap(candidate, change), *told, self.receipt(), *after]

    def _turn_down(
        self,
        reason: Literal["model", "callback"],
        detail: str,
        refused: tuple[ConfigUpdate, Envelope],
    ) -> list[Do[M]]:
        revision = refused[0].revision
        self._attempted(revision, "refused", f"{reason}: {detail}")
        events = self.subscriber.turn_down(reason, f"revision {revision}: {detail}", refused)
        kept = self.subscriber.kept
        assert kept is not None
        return [Keep(kept), *map(Tell, events), self.receipt()]

    def _wait_for_restart(self, update: ConfigUpdate, keys: list[str]) -> list[Do[M]]:
        """Kept as what the next start runs; until then everything stays as it is."""
        self._attempted(update.revision, "restart-required", f"restart to change {', '.join(keys)}")
        kept = self.subscriber.leave_for_restart()
        return [Keep(kept), self.receipt()]

    def _change(self, new: Effective[M], source: Source) -> Change[M]:
        runs, update = self._now.effective, new.update
        keys = _changed(runs, new)
        return Change(
            runs.values,
            new.values,
            keys,
            update.revision if update is not None else None,
            update.correlation_id if update is not None else None,
            source,
        )

    # ── freshness ──────────────────────────────────────────────────────────────────────────────

    def _judge_staleness(self, now: float) -> list[Do[M]]:
        limit = self._policy.max_stale_s
        status = self.subscriber.status
        if limit is None or status is None or status == "fresh":
            self._overdue_since, self._said_overdue = None, False
            return []
        if self._overdue_since is None:
            self._overdue_since = now
        if now - self._overdue_since < limit or self._said_overdue:
            return []
        self._said_overdue = True
        return [TooStale(status, self._policy.on_stale)]

    # ── receipts ───────────────────────────────────────────────────────────────────────────────

    def _attempted(self, revision: int, stage: Stage, reason: str | None = None) -> None:
        said = None if reason is None else spelt(self._hidden().without(reason))
        self._now.attempt = Attempt(revision, stage, said, self.subscriber.deaths_of(revision))

    def _hidden(self, candidate: Effective[M] | None = None) -> Secrets:
        """What no words may hold: the secrets of what runs, and of what was about to."""
        candidate = candidate or self._candidate
        runs = self._now.effective.hidden
        return runs | candidate.hidden if candidate is not None else runs

    def cannot_keep(self, kept: Kept, error: OSError, shown: Receipt) -> PublishReceipt:
        """What goes on while the disk does not take it: all as it was shown last, and why. Each later
        receipt has to be made after this one."""
        revision = kept.seen.mark.revision if kept.seen is not None else 0
        why = f"cannot keep: {error.strerror or type(error).__name__}"
        attempted = Attempt(revision, "deferred", spelt(why), self.subscriber.deaths_of(revision))
        self._seq += 1
        return self._signed(
            replace(shown, seq=self._seq, last_attempt=attempted, at=_time_of(self._world))
        )

    def receipt(self, *, gone: bool = False) -> PublishReceipt:
        """The receipt as of now, signed by the instance's own key. gone: also the will."""
        self._seq += 1
        now = self._now
        running = None
        if now.running is not None:
            update, envelope = now.running
            running = Running(update.epoch_seq, update.revision, envelope.digest)
        document = Receipt(
            service=self.service,
            instance=self.instance,
            boot_seq=self._boot_seq,
            seq=self._seq,
            running=running,
            last_attempt=now.attempt,
            source=now.source,
            freshness=self.freshness,
            overrides=now.effective.overrides,
            schema=self._schema,
            library=library(),
            correlation_id=now.correlation_id,
            gone=gone or self._has_ended,
            at=_time_of(self._world),
        )
        return self._signed(document)

    def _signed(self, document: Receipt) -> PublishReceipt:
        payload = attempt(document.to_bytes, b"")
        if not payload:  # nobody's words may end a driver: without them, then
            document = replace(document, last_attempt=None, overrides=(), correlation_id=None)
            payload = document.to_bytes()
        signed = self._signing_key.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
        keyid = wire.keyid(self._signing_key.verify_key.encode())
        envelope = Envelope(
            wire.RECEIPT, payload, (Signature(keyid, signed),), document.correlation_id
        )
        topic = wire.status_topic(self.service, self.instance)
        return PublishReceipt(topic, envelope.to_bytes(), document)


def _asked_again_after(error: BaseException) -> float | None:
    """The seconds that a NotNow names, in whatever group it comes; None: it is a refusal."""
    pauses = [_seconds_of(one) for one in leaves_of(error) if isinstance(one, NotNow)]
    return max(pauses) if pauses else None


def _seconds_of(later: NotNow) -> float:
    seconds = attempt(lambda: float(later.seconds), 1.0)  # a caller's subclass may hold anything
    return max(0.0, seconds) if not math.isnan(seconds) else 1.0


def _died(times: int) -> str:
    often = "once" if times == 1 else f"{times} times in a row"
    return f"the service died within its bake time {often}"


def _changed(old: Effective[M], new: Effective[M]) -> frozenset[str]:
    """The keys whose value differs. What a factory makes anew each time counts if another was given."""
    keys = {*keys_of(old.held), *keys_of(new.held)}
    anew = old.made_anew.keys() & new.made_anew.keys() & keys
    following = old.following & new.following
    changed = {key for key in keys - anew - following if _differ(old.held, new.held, key)} | {
        key for key in anew if old.made_anew[key] != new.made_anew[key]
    }
    if changed:
        changed |= {key for key in following if _differ(old.held, new.held, key)}
    return frozenset(changed)


def _differ(old: BaseModel, new: BaseModel, key: str) -> bool:
    """Whether a key's value differs; so does one that can't be compared."""
    one, other = value_of(old, key, _NO_VALUE), value_of(new, key, _NO_VALUE)
    return one is not other and attempt(lambda: bool(one != other), True)


def _time_of(world: World) -> str:
    """Now; a clock that is beside every calendar is at its beginning."""
    return attempt(lambda: rfc3339(world.clock.now()), rfc3339(0))


@cache
def schema_digest(model: type[BaseModel]) -> str:
    """SHA-256 (hex) of the model's JSON Schema: which settings this instance knows. Of a model that
    has none, of the names and types of its fields."""
    said = attempt(lambda: strict_json.dumps(model.model_json_schema()), b"")
    if not said:
        kinds = {key: repr(info.annotation) for key, info in model.model_fields.items()}
        said = "".join(f"{key}: {kinds[key]}\n" for key in sorted(kinds)).encode(errors="replace")
    return hashlib.sha256(said).hexdigest()


@cache
def library() -> str:
    """What follows, and which version of it."""
    try:
        return f"config-manager-python {version('config-manager')}"
    except PackageNotFoundError:  # run from a copied tree
        return "config-manager-python"
