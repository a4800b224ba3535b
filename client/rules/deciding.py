"""What a service makes of each configuration that is offered to it, sans I/O.

A configuration is applied if it fits the service's model, if its secrets are here, if the service is not
inside a `hold`, and if the callback accepts it. `Trial` says what becomes of the offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal

from config_manager.client.model.guarded import attempt
from config_manager.client.model.judging import DoesNotFit
from config_manager.client.model.precedence import Layers, Merged
from config_manager.client.model.values import M
from config_manager.client.model.words import name_of
from config_manager.client.rules.deliveries import Deliveries
from config_manager.client.rules.events import Applied, Refused
from config_manager.client.rules.kept import Version
from config_manager.client.rules.receipts import Account
from config_manager.client.rules.subscriber import Subscriber
from config_manager.client.rules.todo import (
    Call,
    Do,
    Keep,
    Swap,
    Tell,
    TrialPolicy,
    asked_again_after,
    change_between,
)
from config_manager.client.rules.trial import Trial, died_in_words
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Stage
from config_manager.config.secret import Secret

NO_ANSWER_AFTER_S = 30.0
"""If a callback takes longer, the operator is told."""

NOT_ENROLLED = "this instance is not enrolled, see config-manager client enroll"


@dataclass(eq=False)
class Deciding(Generic[M]):
    """The decisions of one instance. Monotonic seconds.

    asks: there is a callback. is_enrolled: secrets that are named will come. is_open: the service runs.
    holds: how often it is inside `hold`.
    """

    _subscriber: Subscriber
    _deliveries: Deliveries
    _layers: Layers[M]
    _account: Account[M]
    _policy: TrialPolicy
    asks: bool
    is_enrolled: bool
    is_open: bool = False
    holds: int = 0
    _candidate: Merged[M] | None = None
    """fits the model: what the callback is being asked about, else the offer"""
    _asked_at: float | None = None
    _not_before: float | None = None
    _bakes_until: float | None = None
    _lacked: Version | None = None
    """did not fit the model without its secrets"""

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def run_kept(self, kept: Version, now: float, *, bakes: bool) -> Refused | None:
        """Start with what was kept. Returns why it does not fit, else None."""
        update, _ = kept
        secrets = self._deliveries.values(update, self._subscriber.root, at_a_start=True)
        try:
            effective = self._layers.merge(update, secrets)
        except DoesNotFit as error:
            if secrets is None:
                self._lacked = self._lacked or kept
            self._attempted(update.revision, "refused", f"model: {error}")
            return Refused("model", f"what was kept no longer fits: {error}")
        if bakes:
            self._bakes_until = now + self._policy.bake_s
        self._account.runs(effective, "last-known-good", kept)
        if self._account.attempt is None:
            deaths = self._trial.deaths_of(update.revision)
            why = f"tried again: {died_in_words(deaths)}" if deaths else None
            self._attempted(update.revision, "applied" if bakes else "healthy", why)
        return None

    def was_delayed(self, seconds: float) -> None:
        """A bake time begins when what it is for really runs."""
        if self._bakes_until is not None:
            self._bakes_until += seconds

    def tick(self, now: float) -> list[Do[M]]:
        todo: list[Do[M]] = []
        if self._bakes_until is not None and now >= self._bakes_until:
            self._bakes_until = None
            lived, last = self._account.running, self._account.attempt
            assert lived is not None
            todo.append(self.keep(self._trial.prove()))
            if last is None or last.revision == lived[0].revision:
                self._attempted(lived[0].revision, "healthy")
            todo.append(self._account.receipt())
        if self._candidate is not None:
            todo += self.retry(now)
        return [*todo, *self._say_no_answer(now)]

    def is_withdrawn(self) -> list[Do[M]]:
        """The configuration was deleted. What the callback is being asked about stays."""
        return [self._account.receipt()] if self._drop_what_waited() else []

    def go_on_under_root(self) -> None:
        """What a newer root took away is no longer applied."""
        self._drop_what_waited()

    def weigh_anew(self, now: float) -> list[Do[M]]:
        """A newer root came: nothing goes on with secrets that only whom it revoked vouched for, if there are
        others."""
        candidate = self._candidate
        if self._trial.asked is not None:
            return []
        if candidate is None or candidate.update is None:
            return self.weigh(now) if self._offer_with_other_secrets() else []
        held, secrets = candidate.secrets, self._vouched_secrets(candidate.update)
        return self.weigh(now) if held and not _are_same(held, secrets) else []

    def offer_what_lacks_secrets(self) -> bool:
        """Offer again what lacks its secrets, or has others than today's keys vouch for: they have come, or
        will. Returns whether it does."""
        if not self.is_enrolled:
            return False
        runs, missed = self._account.running, self._lacked
        if missed is None or not self._subscriber.stands(missed):
            missed = (
                runs if runs and runs[0].secrets and not self._account.effective.secrets else None
            )
        if missed is None:
            return self._offer_with_other_secrets()
        self._subscriber.trial = self._trial.offer_again(missed)
        return True

    def _offer_with_other_secrets(self) -> bool:
        """Offer what runs again if a revoked key vouched for its secrets, and today's for others."""
        runs, held = self._account.running, self._account.effective.secrets
        secrets = self._vouched_secrets(runs[0]) if runs and held else None
        if runs is None or secrets is None or _are_same(held, secrets):
            return False
        self._subscriber.trial = self._trial.offer_again(runs)
        return True

    def weigh(self, now: float) -> list[Do[M]]:
        """Whether a new offer fits, and whether it may be applied while the service runs."""
        trial = self._trial
        if trial.offered is None or trial.asked is not None:
            return []
        update, _ = trial.offered
        self._candidate = self._lacked = None
        self._attempted(update.revision, "received")
        self._account.correlation_id = update.correlation_id
        secrets = self._vouched_secrets(update)
        if secrets is None and self.is_enrolled:
            self._attempted(update.revision, "deferred", "waiting for secrets")
            return [self._account.receipt()]
        try:
            effective = self._layers.merge(update, secrets)
        except DoesNotFit as error:
            self._lacked = trial.offered if secrets is None else None
            why = "" if secrets is not None else f" (its secrets are not delivered: {NOT_ENROLLED})"
            return self._turn_down("model", f"{error}{why}")
        changed = effective.changed_since(self._account.effective)
        needs_restart = changed & self._policy.restart_required
        if needs_restart and (self.is_open or self._account.running is not None):
            return self._wait_for_restart(update, sorted(needs_restart))
        self._candidate = effective
        self._not_before = None
        return self.retry(now)

    def retry(self, now: float) -> list[Do[M]]:
        """Apply the candidate, unless the service is inside a `hold`, is being asked, or said `not now`."""
        candidate, trial = self._candidate, self._trial
        if trial.has_agreed and not self.holds:
            return self.called(None, now)
        if candidate is None or trial.asked is not None:
            return []
        if self.holds or (self._not_before is not None and now < self._not_before):
            assert candidate.update is not None
            if self._account.attempt is None or self._account.attempt.stage != "deferred":
                self._attempted(candidate.update.revision, "deferred", "the service is busy")
                return [self._account.receipt()]
            return []
        if self.asks:
            self._asked_at = now
            keep = self.keep(trial.ask())
            change = change_between(self._account.effective, candidate)
            return [keep, self._account.receipt(), Call(change)]
        self._candidate = None
        return self._swap(candidate, now)

    def called(self, error: BaseException | None, now: float) -> list[Do[M]]:
        """What the callback said: None (it accepted), NotNow, or what it raised."""
        trial = self._trial
        if error is None and self.holds:  # the service began something while it was asked
            self._subscriber.trial = trial.agree()
            return []
        todo: list[Do[M]]
        candidate, is_overtaken = self._candidate, trial.is_overtaken
        assert candidate is not None
        assert trial.asked is not None
        self._candidate = self._asked_at = None
        if error is None:
            todo = self._swap(candidate, now)
            # the instance may have been enrolled while the callback was asked
            is_overtaken |= self.offer_what_lacks_secrets()
        elif (pause := attempt(lambda: asked_again_after(error), None)) is None:
            words = attempt(lambda: self._account.hidden(candidate).words_of(error), name_of(error))
            todo = self._turn_down("callback", words)
        else:
            todo = [self.keep(trial.put_off())]
            if not is_overtaken:
                self._candidate = candidate
                self._not_before = now + pause
                self._attempted(trial.asked[0].revision, "deferred", "not now")
                todo.append(self._account.receipt())
            elif self._drop_what_waited():
                todo.append(self._account.receipt())
        return [*todo, *self.weigh(now)] if is_overtaken else todo

    def keep(self, trial: Trial, *, with_newest: bool = False) -> Keep:
        """What must be on disk once the trial is this: see `Subscriber.decided`."""
        return Keep(self._subscriber.decided(trial, with_newest=with_newest))

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _trial(self) -> Trial:
        return self._subscriber.trial

    def _vouched_secrets(self, update: ConfigUpdate) -> Mapping[str, Secret] | None:
        """Those that it names, if enough of today's keys vouch for them."""
        return self._deliveries.values(update, self._subscriber.root)

    def _drop_what_waited(self) -> bool:
        """Drop what is offered no more. Returns whether the last attempt was one that waited for it."""
        last, trial, kept = self._account.attempt, self._trial, self._subscriber.kept
        if trial.asked is not None:
            return False
        if trial.offered is None:
            self._candidate = None
        waits = {
            "received": trial.offered,
            "deferred": trial.offered,
            "restart-required": trial.tried,
        }
        if last is None or waits.get(last.stage, ...) is not None:
            return False
        is_deleted = kept is not None and kept.deleted and last.stage != "restart-required"
        why = "the publisher deleted it" if is_deleted else "unknown-key: its signer was revoked"
        self._attempted(last.revision, "refused", why)
        return True

    def _say_no_answer(self, now: float) -> list[Do[M]]:
        """Once, if a callback takes so long that the operator should know."""
        if self._asked_at is None or now - self._asked_at < NO_ANSWER_AFTER_S:
            return []
        self._asked_at = None
        trial = self._trial
        assert trial.asked is not None
        if not trial.has_agreed:  # if it has agreed, the change waits for a hold to end
            why = f"the callback has not answered for {NO_ANSWER_AFTER_S:g} s"
            self._attempted(trial.asked[0].revision, "deferred", why)
        return [self._account.receipt()]

    def _swap(self, candidate: Merged[M], now: float) -> list[Do[M]]:
        """The candidate becomes `current`. It is on disk before; one that the callback has accepted is there
        already, as asked about."""
        change = change_between(self._account.effective, candidate)
        bakes = self._policy.bake_s > 0
        keep = self.keep(self._trial.run(bakes=bakes), with_newest=self.asks or not bakes)
        runs = self._trial.runs
        assert runs is not None
        update, envelope = runs
        self._bakes_until = now + self._policy.bake_s if bakes else None
        self._account.attempt = None
        self._account.runs(candidate, "broker", runs)
        lacks = update.secrets and not candidate.secrets
        why = f"without its secrets: {NOT_ENROLLED}" if lacks else None
        self._attempted(update.revision, "applied" if bakes else "healthy", why)
        told = Tell(Applied(update, envelope, "broker"))
        done: list[Do[M]] = [Swap(candidate, change), told, self._account.receipt()]
        # from now on a death counts against what runs, no longer against the callback
        return [*done, keep] if bakes and self.asks else [keep, *done]

    def _turn_down(self, reason: Literal["model", "callback"], detail: str) -> list[Do[M]]:
        trial = self._trial
        revision = trial.decides_on[0].revision
        self._attempted(revision, "refused", f"{reason}: {detail}")
        self._subscriber.refusals[reason] += 1
        told = Tell(Refused(reason, f"revision {revision}: {detail}"))
        return [self.keep(trial.refuse(), with_newest=True), told, self._account.receipt()]

    def _wait_for_restart(self, update: ConfigUpdate, keys: list[str]) -> list[Do[M]]:
        """The next start runs it; until then everything stays as it is."""
        self._attempted(update.revision, "restart-required", f"restart to change {', '.join(keys)}")
        return [self.keep(self._trial.leave()), self._account.receipt()]

    def _attempted(self, revision: int, stage: Stage, reason: str | None = None) -> None:
        self._account.attempted(revision, stage, reason, self._candidate)


def _are_same(held: Mapping[str, Secret], others: Mapping[str, Secret] | None) -> bool:
    # compared here alone, and nobody learns how long it took
    return others is not None and {name: one.reveal() for name, one in held.items()} == {
        name: one.reveal() for name, one in others.items()
    }
