"""What one decision comes to: pure, from the committed state to the rows to keep and the next state.

A configuration changes by a `Revision`: new states of some services, a row of history for each, and a row of
the audit. What else can be decided changes the registry (`storage.decisions.administration`). Both stores
keep what is decided here, so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

from config_manager.config import strict_json, wire
from config_manager.config.audit import GENESIS, chain
from config_manager.config.catalogue import Effective
from config_manager.config.documents.config_update import ConfigUpdate, Variant
from config_manager.config.errors import TooLarge
from config_manager.config.names import Epoch, Mark
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.registry_digests import digests_of
from config_manager.storage.decisions.shapes import SCHEMA, Shape, Shapes, effective
from config_manager.storage.decisions.variants import variants as made_variants
from config_manager.storage.state import (
    Action,
    AuditEntry,
    Commit,
    Committed,
    HistoryEntry,
    HistoryRow,
    KeyChange,
    RegistryRow,
    SchemaActivation,
    SealedSecret,
    ServiceState,
    TakenBack,
    changed_keys,
    with_rows,
)

A_co = TypeVar("A_co", covariant=True)

OWN_CONTENT = ""
"""In place of a content id: the revision's own. No id is empty."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """Who asks, why, when (now: Unix seconds; at: the same in RFC 3339), and under which id. client: the
    caller's address, if the request came over REST."""

    by: str
    reason: str | None
    now: float
    correlation_id: str
    client: str | None = field(default=None, kw_only=True)
    at: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", rfc3339(self.now))


@dataclass(frozen=True, slots=True)
class Decided(Generic[A_co]):
    """What was decided. answer: for the caller, once `change` is committed.

    repeatable: the answer holds no secret, and is kept for a caller that repeats its request with its
    Idempotency-Key. Otherwise the repetition is told that it was done, and no more.
    """

    answer: A_co
    change: Commit
    repeatable: bool = False


def empty(epoch: Epoch) -> Committed:
    """The state before the first write."""
    return Committed(epoch, 0, 0, GENESIS, {}, {})


def audit_row(
    before: Committed, on: Occasion, action: str, mark: Mark, rest: JsonObject
) -> AuditEntry:
    """The next row of the audit chain, naming its place (`config.audit`). mark: how far we have come once it is
    kept. rest: what only this kind of row says."""
    seq, previous = before.audit_seq + 1, before.audit_head
    body = {
        "seq": seq,
        "previous": previous,
        "revision": mark.revision,
        "epoch_seq": mark.epoch_seq,
        "at": on.at,
        "by": on.by,
        "action": action,
        "reason": on.reason,
        "correlation_id": on.correlation_id,
        **({} if on.client is None else {"client": on.client}),
        **rest,
    }
    data = strict_json.dumps(body)
    return AuditEntry(seq, mark.revision, data, chain(previous, data))


def merge_patch(target: JsonObject, patch: JsonObject) -> JsonObject:
    """RFC 7396, for objects: null removes, objects merge, everything else replaces."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            inner = cast("JsonObject", inner) if isinstance(inner, dict) else {}
            merged[key] = merge_patch(inner, cast("JsonObject", value))
        else:
            merged[key] = value
    return merged


# ── revisions ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Beside:
    """What changes beside the services' values: usually nothing. sealed, forgotten, taken_back: see `Commit`. details:
    what is audited of it."""

    registry: tuple[RegistryRow, ...] = ()
    sealed: SealedSecret | None = None
    forgotten: tuple[str, str] | None = None
    taken_back: tuple[TakenBack, ...] = ()
    details: JsonObject | None = None


NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision in the making: what is the same for every service and row of it."""

    before: Committed
    on: Occasion
    shapes: Shapes
    epoch: Epoch
    number: int

    def next(
        self,
        service: str,
        stored: JsonObject | None,
        secrets: Mapping[str, int] | None = None,
        *,
        content: str | None = OWN_CONTENT,
    ) -> ServiceState:
        """The service's next state, in its active shape. See `shaped`."""
        shape = self.shapes.of(self.before, service)
        return self.shaped(shape, service, stored, secrets, content=content)

    def shaped(
        self,
        shape: Shape | None,
        service: str,
        stored: JsonObject | None,
        secrets: Mapping[str, int] | None = None,
        *,
        content: str | None = OWN_CONTENT,
        variants: tuple[Variant, ...] | None = None,
    ) -> ServiceState:
        """The service's next state. stored: None is the tombstone. secrets: None leaves them as they are.
        content: its id is this revision's own, if nothing is said; that of an earlier message, if this one
        decides nothing new; None for none. variants: None makes those that instances need. Raises TooLarge."""
        before, on = self.before.services.get(service), self.on
        if secrets is None:
            secrets = before.secrets if before else {}
        delivered = Effective({}, ()) if stored is None else effective(shape, stored)
        if variants is None and stored is not None:
            variants = made_variants(
                self.shapes, self.before, shape, service, stored, delivered, now=on.now
            )
        payload = ConfigUpdate(
            service=service,
            topic=wire.config_topic(service),
            config_epoch=self.epoch.id,
            epoch_seq=self.epoch.seq,
            revision=self.number,
            previous=(before.digest or None) if before else None,
            issued_at=on.at,
            config=delivered.config,
            defaulted=delivered.defaulted,
            secrets={} if stored is None else secrets,
            deleted=stored is None,
            correlation_id=on.correlation_id,
            content=str(self.number) if content == OWN_CONTENT else content,
            variants=variants or (),
        ).to_bytes()
        self._check_size(service, payload)
        return ServiceState(
            service=service,
            revision=self.number,
            version=(before.version if before else 0) + 1,
            epoch=self.epoch,
            stored=stored or {},
            effective=delivered.config,
            defaulted=delivered.defaulted,
            secrets=secrets,
            deleted=stored is None,
            updated_at=on.at,
            updated_by=on.by,
            correlation_id=on.correlation_id,
            payload=payload,
            digest=wire.digest(payload),
        )

    def adapted(self, state: ServiceState, variants: tuple[Variant, ...]) -> ServiceState:
        """The same message with other variants: for everyone else nothing is new. Raises TooLarge."""
        on = self.on
        payload = replace(
            ConfigUpdate.parse(state.payload),
            config_epoch=self.epoch.id,
            epoch_seq=self.epoch.seq,
            revision=self.number,
            previous=state.digest or None,
            issued_at=on.at,
            correlation_id=on.correlation_id,
            variants=variants,
        ).to_bytes()
        self._check_size(state.service, payload)
        return replace(
            state,
            revision=self.number,
            version=state.version + 1,
            epoch=self.epoch,
            updated_at=on.at,
            updated_by=on.by,
            correlation_id=on.correlation_id,
            payload=payload,
            digest=wire.digest(payload),
        )

    def _check_size(self, service: str, payload: bytes) -> None:
        size = wire.envelope_size(len(payload), self.on.correlation_id)
        if size > wire.MAX_ENVELOPE_BYTES:
            raise TooLarge(
                f"{service} would be a message of {size} bytes; "
                f"services take at most {wire.MAX_ENVELOPE_BYTES}"
            )

    def commit(
        self,
        states: Mapping[str, ServiceState],
        action: Action,
        *,
        shown: KeyChange | None = None,
        beside: Beside = NOTHING,
    ) -> Commit:
        """The change that keeps these states. shown: what history says changed, if it isn't a value."""
        changes: dict[str, tuple[KeyChange, ...]] = {}
        for name, state in states.items():
            live = self.before.live(name)
            old_values = {} if live is None else live.stored
            changes[name] = changed_keys(old_values, state.stored) if shown is None else (shown,)
        rest: JsonObject = {
            "config_epoch": self.epoch.id,
            "digests": {name: state.digest for name, state in states.items()},
        }
        kept = {name: dict(s.secrets) for name, s in states.items() if s.deleted and s.secrets}
        if kept:  # a tombstone does not name them
            rest["secrets"] = kept
        if beside.details is not None:
            rest["details"] = beside.details
        if beside.registry:
            rest["registry"] = digests_of(beside.registry)
        if beside.taken_back:
            rest["taken_back"] = {one.service: one.to_object() for one in beside.taken_back}
        return self._commit(states, action, changes, rest, beside)

    def reissue(
        self,
        written: Mapping[str, JsonObject],
        registry: tuple[RegistryRow, ...],
        also: Callable[[Committed], JsonObject],
    ) -> Commit:
        """Every service again, as it is.

        written: the values that the new rows of history change. registry: rows that are changed with it. also:
        more members of the audit row, from epoch, services and registry after it. Raises TooLarge.
        """
        kept = with_rows(self.before.registry, registry)
        as_kept = replace(self.before, registry=kept)
        states = {
            name: self._again(state, self.shapes.of(as_kept, name))
            for name, state in self.before.services.items()
        }
        changes = {name: changed_keys(written[name], s.stored) for name, s in states.items()}
        after = replace(self.before, epoch=self.epoch, services=states, registry=kept)
        change = self._commit(states, "restore", changes, also(after), Beside(registry))
        return replace(
            change,
            activations=tuple(
                SchemaActivation(
                    one.key, self.number, None if one.value is None else one.value["version"]
                )
                for one in registry
                if one.kind == SCHEMA
            ),
        )

    def _again(self, state: ServiceState, shape: Shape | None) -> ServiceState:
        """The next state of an unchanged configuration. A message may be too large with 100 bytes more: then
        it goes without the digest of the one before, the ids and the variants. Raises TooLarge."""
        stored = None if state.deleted else state.stored
        try:
            return self.shaped(shape, state.service, stored)
        except TooLarge:
            undated = {state.service: replace(state, digest="")}
            shorter = replace(
                self,
                before=replace(self.before, services=undated),
                on=replace(self.on, correlation_id=""),
            )
            return shorter.shaped(shape, state.service, stored, content=None, variants=())

    def _commit(
        self,
        states: Mapping[str, ServiceState],
        action: Action,
        changes: Mapping[str, tuple[KeyChange, ...]],
        rest: JsonObject,
        beside: Beside,
    ) -> Commit:
        """rest: of the audit row, beside who and what."""
        before, on = self.before, self.on
        rows = tuple(
            self._history_row(state, action, changes[name]) for name, state in states.items()
        )
        mark = Mark(self.epoch.seq, self.number)
        services = {name: [change.to_list() for change in changes[name]] for name in states}
        audit = audit_row(before, on, action, mark, {"services": services, **rest})
        after = Committed(
            self.epoch,
            self.number,
            audit.seq,
            audit.hash,
            {**before.services, **states},
            with_rows(before.registry, beside.registry),
        )
        return Commit(
            before,
            after,
            tuple(states.values()),
            rows,
            audit,
            on.reason,
            registry=beside.registry,
            secret=beside.sealed,
            forgotten=beside.forgotten,
            taken_back=beside.taken_back,
        )

    def _history_row(
        self, state: ServiceState, action: Action, changes: tuple[KeyChange, ...]
    ) -> HistoryRow:
        entry = HistoryEntry(
            revision=state.revision,
            version=state.version,
            config_epoch=state.epoch.id,
            epoch_seq=state.epoch.seq,
            at=self.on.at,
            by=self.on.by,
            action=action,
            reason=self.on.reason,
            correlation_id=self.on.correlation_id,
            changes=changes,
        )
        return HistoryRow(state.service, entry)
