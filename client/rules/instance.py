"""One running instance of a service, sans I/O: messages and time in, things to do out.

    message ─→ verified, never back (subscriber) ─→ fits the service's own model ─→ kept on disk as a
    trial ─→ the gate is open ─→ the service's callback ─→ `current` ─→ bake time ─→ proved

A driver does what `Do` says, in order, and tells what came of it. A refusal at any step leaves what runs
untouched. Each step is told in a receipt.

This module says in which order things happen, `deciding` what the service makes of an offer, `trial` what
becomes of it, and `receipts` what is told of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic, Literal

from config_manager.client.model.judging import DoesNotFit
from config_manager.client.model.precedence import Layers, Merged
from config_manager.client.model.values import M
from config_manager.client.rules import events
from config_manager.client.rules.deciding import Deciding
from config_manager.client.rules.deliveries import Deliveries
from config_manager.client.rules.freshness import Overdue
from config_manager.client.rules.identity import Identity
from config_manager.client.rules.kept import Kept
from config_manager.client.rules.receipts import Account
from config_manager.client.rules.root_chain import RootChain
from config_manager.client.rules.subscriber import Subscriber
from config_manager.client.rules.todo import (
    Do,
    Keep,
    KeepRoot,
    PublishReceipt,
    Swap,
    Tell,
    TooStale,
    TrialPolicy,
)
from config_manager.client.rules.trial import died_in_words
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt
from config_manager.config.names import InstanceName, ServiceName
from config_manager.config.trust import Distrust
from config_manager.config.world import World

_KEEP_BEACON_S = 300.0
"""How often the newest beacon's number goes to disk: after a restart, older ones prove nothing."""


class InstanceRules(Generic[M]):
    """The rules of one service's instance. All times are monotonic seconds, but `wall_now`."""

    def __init__(
        self,
        service: ServiceName,
        instance: InstanceName,
        identity: Identity,
        layers: Layers[M],
        kept: Kept | None,
        *,
        policy: TrialPolicy,
        boot_seq: int,
        asks: bool,
        requires: bool = False,
        world: World,
    ) -> None:
        """asks: there is a callback to ask before a change. requires: it does not run before something
        was delivered, so the model need not have defaults. Raises DoesNotFit if the overrides alone
        do not fit the model."""
        self.service = service
        self.instance = instance
        self.subscriber = Subscriber(service, instance, RootChain(identity.chain), kept)
        sealed = kept.sealed if kept is not None else ()
        self.deliveries = Deliveries(service, instance, identity.seal_key, sealed, identity.roots)
        try:
            before_any = layers.merge(None)
        except DoesNotFit as error:
            if not (requires and error.only_lacks):
                raise
            before_any = layers.incomplete()
        self._account = Account(self.subscriber, before_any, identity.sign_key, boot_seq, world)
        self._deciding = Deciding(
            self.subscriber,
            self.deliveries,
            layers,
            self._account,
            policy,
            asks=asks,
            is_enrolled=f"{service}/{instance}" in identity.enrolled or bool(self.deliveries.kept),
        )
        self._policy = policy
        self._overdue = Overdue(policy.max_stale_s)
        self._sealed_aside: bytes | None = None
        self._has_ended = False
        self._beacon_kept_at = -math.inf

    # ── what can be asked ──────────────────────────────────────────────────────────────────────

    @property
    def effective(self) -> Merged[M]:
        return self._account.effective

    @property
    def source(self) -> Literal["broker", "last-known-good", "defaults"]:
        return self._account.source

    @property
    def freshness(self) -> str:
        """`fresh`, `stale (reason)`, `clock-unknown`, or `unknown` while it is too early to say."""
        return self.subscriber.freshness.in_words

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to at each broker. More of them when a newer root is trusted: the next ones, by name."""
        return (
            wire.config_topic(self.service),
            wire.SNAPSHOT_TOPIC,
            wire.KEEPALIVE_TOPIC,
            wire.ROOTS_FILTER,
            self.deliveries.topic,
            *wire.next_root_topics(self.subscriber.root.version),
        )

    @property
    def due(self) -> float | None:
        """When `tick` should be called, if that is sooner than the next second."""
        return self.subscriber.due

    @property
    def nothing_to_wait_for(self) -> bool:
        """The publisher has vouched that it holds no configuration of this service."""
        return self.subscriber.is_known_to_be_absent

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def start(self, now: float) -> list[Do[M]]:
        """Run what was kept, before any network."""
        kept = self.subscriber.kept
        self._beacon_kept_at = now
        if kept is None:
            return [Swap(self.effective, None)]
        todo = self._say_poison(kept)
        if kept.poison is not None or (kept.died is not None and kept.trial is None):
            todo.append(Keep(kept))  # on disk, too, what the service died of is no trial any more
        for first in (kept.trial, kept.running):
            if first is None:
                continue
            is_trial, trial = first is kept.trial, self.subscriber.trial
            refused = self._deciding.run_kept(first, now, bakes=is_trial)
            if is_trial:
                goes_on = trial.resume() if refused is None else trial.unfit()
                todo.append(self._deciding.keep(goes_on))
            if refused is None:
                todo.append(Tell(events.Applied(*first, "last-known-good", kept.signer_revoked)))
                break
            todo.append(Tell(refused))
        self.subscriber.trial = self.subscriber.trial.start_with(self._account.running)
        return [*todo, Swap(self.effective, None), self.receipt()]

    def _say_poison(self, kept: Kept) -> list[Do[M]]:
        if kept.poison is None:
            return []
        newest = kept.seen if kept.seen and kept.poison == kept.seen.digest else None
        which = f"revision {newest.mark.revision}" if newest else "one before the newest"
        died = died_in_words(kept.died.times if kept.died else 1)
        detail = f"{which}: {died}; it is not applied again, a newer one will be"
        self.subscriber.refusals["callback"] += 1
        if newest:
            self._account.attempted(newest.mark.revision, "poisoned", detail)
        return [Tell(events.Refused("callback", detail))]

    def was_delayed(self, seconds: float) -> None:
        """The disk took nothing for so long. A bake time begins when what is on trial really runs."""
        self._deciding.was_delayed(seconds)

    def opened(self) -> None:
        """The service begins to run: from now on a restart is a restart."""
        self._deciding.is_open = True

    def receive(self, topic: str, payload: bytes, wall_now: float, now: float) -> list[Do[M]]:
        """One message from a broker."""
        if self._has_ended:  # the process ends before it is done
            return []
        if topic == self.deliveries.topic:
            return self._on_sealed(payload, wall_now, now)
        before = self.subscriber.root.version
        found = self.subscriber.receive(topic, payload, wall_now, now)
        if self.subscriber.root.version == before:
            return self._on_events(found, now)
        if self._sealed_aside is None:
            return self._on_events(found, now) + self._deciding.weigh_anew(now)
        # after the roots, which have to be on disk before, and before what may need these secrets
        roots = [event for event in found if isinstance(event, events.RootTrusted)]
        others = [event for event in found if not isinstance(event, events.RootTrusted)]
        waited, self._sealed_aside = self._sealed_aside, None
        todo = self._on_events(roots, now) + self._on_sealed(waited, wall_now, now)
        return todo + self._on_events(others, now) + self._deciding.weigh_anew(now)

    def _on_sealed(self, payload: bytes, wall_now: float, now: float) -> list[Do[M]]:
        """This instance's secrets. An empty message takes nothing away: it was revoked, or a broker
        lost it."""
        if not payload:
            return []
        try:
            self.subscriber.check_root()
            is_news = self.deliveries.receive(payload, self.subscriber.root, wall_now)
        except Distrust as verdict:
            if verdict.reason == "unknown-key":
                self._sealed_aside = payload  # the root that lists its key may follow
            refused = self.subscriber.refuse(verdict, self.deliveries.topic, payload)
            return [Tell(event) for event in refused]
        if not is_news:
            return []
        self._deciding.is_enrolled = True
        kept = self.subscriber.keep_sealed(self.deliveries.kept)
        self._deciding.offer_what_lacks_secrets()  # the instance was enrolled while it ran
        return [*([Keep(kept)] if kept is not None else []), *self._deciding.weigh(now)]

    def starts_anew(self, boot_seq: int) -> list[Do[M]]:
        """From now on its receipts are of this start: those of an earlier number count no more."""
        if self._has_ended:
            return []
        self._account.start_anew(boot_seq)
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
        todo += self._deciding.tick(now)
        kept = self.subscriber.kept
        if kept is not None and now - self._beacon_kept_at >= _KEEP_BEACON_S:
            self._beacon_kept_at = now
            todo.append(Keep(kept))
        if (reason := self._overdue.judge(self.subscriber.freshness.status, now)) is not None:
            todo.append(TooStale(reason, self._policy.on_stale))
        return todo

    def hold(self) -> None:
        """Don't change anything now: somebody is in the middle of something. May nest."""
        self._deciding.holds += 1

    def unhold(self) -> None:
        """The end of a `hold`; `retry` then does what waited."""
        self._deciding.holds -= 1

    def retry(self, now: float) -> list[Do[M]]:
        """Apply what was put off, if nothing stands against it any more."""
        return [] if self._has_ended else self._deciding.retry(now)

    def called(self, error: BaseException | None, now: float) -> list[Do[M]]:
        """What the callback said: None (it runs the new one), NotNow, or what it raised. Once the service
        leaves, the next start asks again."""
        return [] if self._has_ended else self._deciding.called(error, now)

    def end(self) -> list[Do[M]]:
        """The service stops on purpose. Nothing is decided any more: what comes now, or is being
        asked about, is for the next start."""
        self._has_ended = self._account.is_gone = True
        todo: list[Do[M]] = []
        if self.subscriber.kept is not None:
            todo.append(Keep(self.subscriber.decided(self.subscriber.trial.end())))
        return [*todo, self.receipt(gone=True)]

    def _on_events(self, found: Sequence[events.Event], now: float) -> list[Do[M]]:
        todo: list[Do[M]] = []
        for event in found:
            match event:
                case events.Offered():
                    todo += self._deciding.weigh(now)
                    continue
                case events.RootTrusted(link):
                    # what a newer root took away is gone from disk, too
                    self._deciding.go_on_under_root()
                    todo += [KeepRoot(link), *self._keep()]
                case events.Deleted():
                    todo += [*self._keep(), *self._deciding.is_withdrawn()]
                case events.Resigned():
                    todo += self._keep()
                case events.Applied() | events.Refused() | events.Stale() | events.Fresh():
                    pass
            todo.append(Tell(event))
        says_so = any(
            isinstance(event, events.RootTrusted | events.Stale | events.Fresh) for event in found
        )
        return [*todo, self.receipt()] if says_so else todo

    def _keep(self) -> list[Do[M]]:
        kept = self.subscriber.kept
        return [Keep(kept)] if kept is not None else []

    # ── receipts ───────────────────────────────────────────────────────────────────────────────

    def receipt(self, *, gone: bool = False) -> PublishReceipt:
        """The receipt as of now, signed by the instance's own key. gone: also the will."""
        return self._account.receipt(gone=gone)

    def cannot_keep(self, kept: Kept, error: OSError, shown: Receipt) -> PublishReceipt:
        """See `Account`."""
        return self._account.cannot_keep(kept, error, shown)
