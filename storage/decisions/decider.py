"""The writes of one batch, decided in order: each on the state that the one before leads to.

Nothing of it is in the store yet. So what a later write has to know of an earlier one is remembered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from config_manager.storage.decisions.equipment import Decidable, Equipped, Stored, Tools
from config_manager.storage.decisions.repeats import Repeats
from config_manager.storage.decisions.terms import Idempotency, Terms
from config_manager.storage.state import (
    Commit,
    Committed,
    IdempotencyRecord,
    KeptPlan,
    SchemaVersion,
    SealedSecret,
)
from config_manager.storage.store import IDEMPOTENCY_KEPT_S

A = TypeVar("A")


class Remembering(Stored, Protocol):
    """What is asked of the store. Each may raise DatabaseUnavailable."""

    def idempotency(self, key: str, *, since: float) -> IdempotencyRecord | None: ...


class Decider:
    """Decides one batch. It is also the `Stored` of its decisions."""

    def __init__(self, tools: Tools, committed: Committed, stored: Remembering) -> None:
        """committed: what the first write is decided on."""
        self._tools = tools
        self._repeats = Repeats(tools.keyed)
        self._committed = committed
        self._stored = stored
        self._records: dict[str, IdempotencyRecord] = {}
        self._sealed: dict[tuple[str, str, int], SealedSecret] = {}
        self._forgotten: set[tuple[str, str]] = set()
        self._schemas: list[SchemaVersion] = []
        self._plans: dict[str, KeptPlan | None] = {}

    def decide(
        self, what: Decidable[A], terms: Terms, *, now: float, correlation_id: str
    ) -> tuple[A, Commit | None]:
        """An answer, and what has to be committed before it may be given: nothing for a dry run, and for what is
        answered again. now: Unix seconds. Raises Refusal and DatabaseUnavailable; then nothing happened."""
        asked = terms.idempotency
        if asked is not None and (record := self._record(asked, now)) is not None:
            return self._repeats.replay(record, asked, what), None
        on = Equipped(
            *(terms.by, terms.reason, now, correlation_id, self._tools, self), client=terms.client
        )
        decided = what.decide(self._committed, on)
        if terms.dry_run:
            return decided.answer, None
        change = decided.change
        if asked is not None:
            change = replace(change, idempotency=self._repeats.record(asked, decided, now))
        self._note(change)
        self._committed = change.after
        return decided.answer, change

    def refuse_repetition(self, asked: Idempotency, *, now: float) -> None:
        """Raises Conflict if this key stands for a write that was done, and IdempotencyMismatch if it stands for
        another request."""
        record = self._record(asked, now)
        if record is not None:
            self._repeats.refuse(record, asked)

    def secrets(self, service: str) -> Sequence[SealedSecret]:
        """See `Stored`."""
        return self._stored.secrets(service)

    def secret(self, service: str, name: str, version: int) -> SealedSecret | None:
        """See `Stored`; as the writes so far leave it."""
        sealed = self._sealed.get((service, name, version))
        if sealed is not None or (service, name) in self._forgotten:
            return sealed
        return self._stored.secret(service, name, version)

    def schemas(self, service: str) -> Sequence[SchemaVersion]:
        """See `Stored`; as the writes so far leave it."""
        newest = {
            one.source: one
            for one in (*self._stored.schemas(service), *self._schemas)
            if one.service == service
        }
        return sorted(newest.values())

    def plan(self, plan_id: str) -> KeptPlan | None:
        """See `Stored`; as the writes so far leave it."""
        if plan_id in self._plans:
            return self._plans[plan_id]
        return self._stored.plan(plan_id)

    def _record(self, asked: Idempotency, now: float) -> IdempotencyRecord | None:
        return self._records.get(asked.key) or self._stored.idempotency(
            asked.key, since=now - IDEMPOTENCY_KEPT_S
        )

    def _note(self, change: Commit) -> None:
        if change.idempotency is not None:
            self._records[change.idempotency.key] = change.idempotency
        if change.forgotten is not None:
            self._forgotten.add(change.forgotten)
            self._sealed = {k: s for k, s in self._sealed.items() if k[:2] != change.forgotten}
        self._schemas += change.schemas
        self._plans |= {one.id: one for one in change.plans}
        self._plans |= dict.fromkeys(change.plans_gone)
        if (sealed := change.secret) is not None:
            self._sealed[sealed.service, sealed.name, sealed.version] = sealed
