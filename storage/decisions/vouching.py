"""What is kept, compared with what the audit vouches for.

The chain proves its own rows (`config.audit`). A thief with the database's key could leave the rows alone
and edit the configurations, tokens and devices that they are about. The server would then sign
configurations that nobody wrote, and accept tokens that nobody made. So each row names the digests of what it
made (`storage.decisions.replay`), and the end of the chain is sealed under a key that is not the database's.

Rows of 0.1.0 and 0.2.0 name no digests. The first start of a later version vouches for what they made, once.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import orjson

from config_manager.config import strict_json, wire
from config_manager.config.audit import AuditFault, ChainCheck, ChainVerdict, Head
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.fields import NotADocument, UnknownCritical
from config_manager.config.sealed_file import derive_key
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Occasion
from config_manager.storage.decisions.devices import DELIVERY, Delivery
from config_manager.storage.decisions.registry_digests import BOOKKEEPING, digests_of, row_digest
from config_manager.storage.decisions.replay import BEGIN, Expected, HistoryChain, Replay
from config_manager.storage.state import (
    Checkpoint,
    Commit,
    Committed,
    KeptPlan,
    Registry,
    RegistryRow,
    SchemaActivation,
    ServiceState,
    TakenBack,
)
from config_manager.storage.store import KeptEntry, KeptSchema, StoreSnapshot

R = TypeVar("R")

_EVERY = 1_000
"""Rows between two calls of `look_up`."""


class Foreign(NamedTuple):
    """Something kept, or missing, for which the audit does not vouch. table: empty if it is about a service.
    row: the newest row of the audit about it; 0 if there is none."""

    table: str
    key: str
    why: str
    row: int = 0

    @property
    def reason(self) -> str:
        """As /health says it."""
        return f"not-audited: {f'{self.table} ' if self.table else ''}{self.key}"

    def to_object(self) -> JsonObject:
        """As REST and the command answer it."""
        return {"reason": self.reason, "why": self.why, "seq": self.row}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was read, and whether to believe it.

    verdict: on the chain. foreign: what the audit does not vouch for. is_silent: some of what is there was
    written by a version that named no digests. committed: what is kept. replay: what the rows say is there.
    history: service → a hash over its rows of history. lay: the hash over the audit's rows as they lie.
    """

    verdict: ChainVerdict
    foreign: tuple[Foreign, ...]
    is_silent: bool
    committed: Committed
    replay: Replay
    history: Mapping[str, bytes]
    lay: str

    @property
    def is_whole(self) -> bool:
        """Whether the audit can vouch for anything: each row follows from the one before, and its end is ours."""
        return not any(one.table == "audit" for one in self.not_audited)

    @property
    def not_audited(self) -> tuple[Foreign, ...]:
        """Everything foreign. A broken chain comes first, because it vouches for nothing."""
        problem = self.verdict.problem
        if problem is None:
            return self.foreign
        return (Foreign("audit", str(problem.seq), problem.detail, problem.seq), *self.foreign)

    @property
    def problem(self) -> AuditFault | None:
        """The first thing that is wrong, of either kind."""
        if self.verdict.problem is not None or not self.foreign:
            return self.verdict.problem
        first = self.foreign[0]
        return AuditFault(first.row, "not-audited", f"{first.reason}: {first.why}")


class Vouching:
    """The keys under which the end of the chain, the deliveries and the checkpoints are sealed."""

    def __init__(self, instance_key: bytes) -> None:
        self._head = derive_key(instance_key, "audit-head")
        self._delivery = derive_key(instance_key, "deliveries")
        self._checkpoint = derive_key(instance_key, "checkpoints")
        self._plan = derive_key(instance_key, "plans")

    def seal(self, seq: int, row_hash: str, boot_seq: int) -> str:
        """The seal of the newest row and the number of starts (HMAC-SHA256, hex). It is kept beside them, so
        that nobody else can append a row or count a start."""
        return _mac(self._head, [seq, row_hash, boot_seq])

    def is_sealed(self, snapshot: StoreSnapshot) -> bool:
        """Whether this server wrote its end."""
        expected = self.seal(snapshot.head.seq, snapshot.head.hash, snapshot.boot_seq)
        return snapshot.seal is not None and hmac.compare_digest(
            snapshot.seal.encode(), expected.encode()
        )

    def starts_in(self, snapshot: StoreSnapshot) -> int:
        """How often this instance has started, as noted there; 0 if this server did not note it."""
        return snapshot.boot_seq if self.is_sealed(snapshot) else 0

    def delivery_mac(self, key: str, delivery: Delivery) -> str:
        """HMAC-SHA256, hex. key: `service/instance`."""
        about = [key, delivery.payload.decode(), dict(delivery.versions), delivery.sign_keyid]
        return _mac(self._delivery, about)

    def seal_of(self, checkpoint: Checkpoint) -> str:
        """HMAC-SHA256, hex. No row of the audit names a checkpoint, and a rollback writes what it leads to."""
        return _mac(self._checkpoint, list(checkpoint))

    def seal_of_plan(self, plan: KeptPlan) -> str:
        """HMAC-SHA256, hex. Applying a plan writes what it keeps."""
        return _mac(self._plan, list(plan._replace(base="", result="", shown="")))

    def has_sealed_plan(self, plan: KeptPlan, seal: str) -> bool:
        return hmac.compare_digest(seal.encode(), self.seal_of_plan(plan).encode())

    def has_sealed(self, checkpoint: Checkpoint, seal: str) -> bool:
        return hmac.compare_digest(seal.encode(), self.seal_of(checkpoint).encode())

    def judge(
        self,
        snapshot: StoreSnapshot,
        known: Iterable[Head] = (),
        *,
        cached: Committed | None = None,
        contains: str | None = None,
        look_up: Callable[[], None] = lambda: None,
    ) -> Judgement:
        """Read everything and judge it. Raises DatabaseUnavailable.

        known: rows that the audit must hold. cached: the last-known-good state; nothing else vouches for what
        an earlier version wrote. contains: the hash of a row that the audit must hold. look_up: called every
        1,000 rows; what it raises ends this.
        """
        head, (committed, odd), replay = snapshot.head, snapshot.kept(), Replay()
        check = ChainCheck(head, known, contains=contains)
        ours = None if cached is None or cached.audit_seq else cached
        """The cache, once it is known to belong to this very audit."""
        for row in _looking_up(snapshot.audit(), look_up):
            check.take(row.seq, row.revision, row.body, row.hash)
            replay.take(row)
            if cached is not None and (row.seq, row.hash) == (cached.audit_seq, cached.audit_head):
                ours = cached
        history, other_epochs = _history(_looking_up(snapshot.history(), look_up), replay)
        is_silent = replay.is_silent and head.seq > 0
        foreign = [
            *(Foreign(one.table, one.key, "nothing that was ever written") for one in odd),
            *self._foreign_end(snapshot, replay, is_silent=is_silent, cached=ours),
            *_foreign_counters(committed, replay),
            *_foreign_services(committed.services, replay),
            *self._foreign_registry(committed.registry, replay, is_silent=is_silent),
            *_foreign_history(history, other_epochs, replay),
            *_foreign_schemas(_looking_up(snapshot.schemas(), look_up), replay),
            *_foreign_activations(_looking_up(snapshot.activations(), look_up), replay),
            *_foreign_rollbacks(_looking_up(snapshot.taken_back(), look_up), replay),
        ]
        if is_silent and ours is not None:
            foreign += _foreign_to_cache(committed, ours, replay)
        named = {(one.table, one.key): one for one in reversed(foreign)}
        return Judgement(
            verdict=check.finish(),
            foreign=tuple(reversed(named.values())),
            is_silent=is_silent,
            committed=committed,
            replay=replay,
            history=history,
            lay=check.lay,
        )

    def _foreign_end(
        self, snapshot: StoreSnapshot, replay: Replay, *, is_silent: bool, cached: Committed | None
    ) -> Iterator[Foreign]:
        """Whether the end of the audit is ours. Seals and digests came with the same version, so an audit without a seal
        has no row that names digests. What seems to be of an earlier version must also be in the cache."""
        head = snapshot.head
        if head.seq == 0:
            return  # an empty audit has no end
        if snapshot.seal is None and not replay.names_digests:
            is_ours = cached is not None
            why = "an earlier version wrote it, and there is no last-known-good cache of it"
        else:
            is_ours = self.is_sealed(snapshot) and (not is_silent or cached is not None)
            why = "its end was not written by this server"
        if not is_ours:
            yield Foreign("audit", str(head.seq), why, head.seq)

    def _foreign_registry(
        self, registry: Registry, replay: Replay, *, is_silent: bool
    ) -> Iterator[Foreign]:
        for kind, rows in registry.items():
            for key, value in rows.items():
                why = self._why_row_is_foreign(kind, key, value, replay, is_silent=is_silent)
                if why is not None:
                    yield Foreign("registry", f"{kind}/{key}", why, replay.registry_row)
        if not replay.registry_is_silent:
            for kind, digests in replay.registry.items():
                for key in sorted(digests.keys() - registry.get(kind, {}).keys()):
                    why = "it is not there any more"
                    yield Foreign("registry", f"{kind}/{key}", why, replay.registry_row)

    def _why_row_is_foreign(
        self, kind: str, key: str, value: JsonObject, replay: Replay, *, is_silent: bool
    ) -> str | None:
        if kind in BOOKKEEPING:
            is_foreign = kind == DELIVERY and not is_silent and not self._is_ours(key, value)
            return "this server did not seal it" if is_foreign else None
        if is_silent and (replay.registry_is_silent or not replay.names_digests):
            return None
        named = replay.registry.get(kind, {}).get(key)
        if named is None:
            return "no row of the audit names it"
        return None if named == row_digest(kind, value) else "it is not what the audit names"

    def _is_ours(self, key: str, value: JsonObject) -> bool:
        try:
            made = Delivery.of(value)
            return hmac.compare_digest(made.mac, self.delivery_mac(key, made))
        except (LookupError, TypeError, ValueError, AttributeError):
            return False

    def begin(self, committed: Committed, cached: Committed, on: Occasion) -> Commit:
        """The change that vouches for everything that is there, as it is. A delivery that the cache does not
        have is removed, and so made anew."""
        known = cached.registered(DELIVERY)
        deliveries = tuple(
            RegistryRow(
                DELIVERY, key, self._with_mac(key, value) if known.get(key) == value else None
            )
            for key, value in committed.registered(DELIVERY).items()
        )
        details: JsonObject = {"services": len(committed.services)}
        also = everything_named(committed)
        return administered(committed, on, BEGIN, details, deliveries, None, also=also).change

    def _with_mac(self, key: str, value: JsonObject) -> JsonObject:
        return {**value, "mac": self.delivery_mac(key, Delivery.of(value))}


def everything_named(committed: Committed) -> JsonObject:
    """The members of an audit row that vouches for all that is there."""
    rows = (
        RegistryRow(kind, key, value)
        for kind, of_kind in committed.registry.items()
        for key, value in of_kind.items()
    )
    return {
        "config_epoch": committed.epoch.id,
        "digests": {name: state.digest for name, state in committed.services.items()},
        "secrets": {
            name: dict(state.secrets)
            for name, state in committed.services.items()
            if state.deleted and state.secrets
        },
        "registry": digests_of(rows),
    }


def without(committed: Committed, foreign: Iterable[Foreign]) -> Committed:
    """The state without the foreign services, tokens and devices."""
    services = dict(committed.services)
    registry = {kind: dict(rows) for kind, rows in committed.registry.items()}
    for one in foreign:
        if not one.table:
            services.pop(one.key, None)
        elif one.table == "registry":
            kind, _, key = one.key.partition("/")
            registry.get(kind, {}).pop(key, None)
    return replace(committed, services=services, registry=registry)


def _foreign_counters(committed: Committed, replay: Replay) -> Iterator[Foreign]:
    epoch = committed.epoch
    if (committed.revision, epoch.seq) != (replay.revision, replay.epoch_seq):
        yield Foreign("counters", "revision", f"the audit's newest is {replay.revision}")
    elif replay.epochs.get(epoch.seq, epoch.id) != epoch.id:
        yield Foreign("counters", "epoch_id", f"epoch {epoch.seq} had another id")


def _foreign_to_cache(committed: Committed, cached: Committed, replay: Replay) -> Iterator[Foreign]:
    """What an earlier version wrote and its cache has otherwise. The cache may lack what it did in its last second:
    then a row of the audit is newer than the cache."""
    for name, state in committed.services.items():
        kept, expected = cached.services.get(name), replay.services.get(name)
        if expected is None or expected.digest is not None or expected.row > cached.audit_seq:
            continue
        if kept is None or kept.digest != state.digest:
            yield Foreign("", name, "it is not what the last-known-good cache has", expected.row)
    if replay.silent_row > cached.audit_seq:
        return
    for kind in sorted((committed.registry.keys() | cached.registry.keys()) - BOOKKEEPING):
        now, then = committed.registered(kind), cached.registered(kind)
        for key in sorted(now.keys() | then.keys()):
            digests = {row_digest(kind, rows[key]) if key in rows else "" for rows in (now, then)}
            if len(digests) > 1:
                why = "it is not what the last-known-good cache has"
                yield Foreign("registry", f"{kind}/{key}", why, replay.silent_row)


def _foreign_services(services: Mapping[str, ServiceState], replay: Replay) -> Iterator[Foreign]:
    for name, state in services.items():
        expected = replay.services.get(name)
        if expected is None:
            yield Foreign("", name, "no row of the audit is about it")
        elif (why := _why_foreign(state, expected)) is not None:
            yield Foreign("", name, why, expected.row)
    for name in replay.services.keys() - services.keys():
        yield Foreign("", name, "it is not there any more", replay.services[name].row)


def _why_foreign(state: ServiceState, expected: Expected) -> str | None:
    """The first thing about it that is not as it was written, in words; None if all is."""
    if expected.digest not in (None, state.digest):
        return "its payload is not the one that was written"
    try:
        update = ConfigUpdate.parse(state.payload)
    except (NotADocument, UnknownCritical):
        return "its payload is none of ours"
    secrets = expected.kept_secrets if state.deleted else update.secrets
    is_named = expected.digest is not None
    for what, kept, written in (
        ("revision", state.revision, expected.revision),
        ("version", state.version, expected.version),
        ("time", state.updated_at, expected.at),
        ("author", state.updated_by, expected.by),
        ("correlation id", state.correlation_id, expected.correlation_id),
        ("stored values", state.stored, {} if expected.deleted else expected.stored),
        ("deletion", state.deleted, expected.deleted),
        ("payload's service", state.service, update.service),
        ("payload's revision", state.revision, update.revision),
        ("epoch", [state.epoch.seq, state.epoch.id], [update.epoch_seq, update.config_epoch]),
        ("effective values", state.effective, update.config),
        ("defaulted keys", state.defaulted, update.defaulted),
        ("payload's deletion", state.deleted, update.deleted),
        ("secrets", dict(state.secrets), dict(secrets) if is_named or not state.deleted else None),
    ):
        if written is not None and _sorted(kept) != _sorted(written):
            return f"other than what was written: {what}"
    return None


def _history(rows: Iterable[KeptEntry], replay: Replay) -> tuple[dict[str, bytes], set[str]]:
    """The hash of each service's rows, and the services that have a row with the wrong epoch."""
    chains: dict[str, HistoryChain] = {}
    other_epochs: set[str] = set()
    for e in rows:
        chains.setdefault(e.service, HistoryChain()).take(e.about, e.changes)
        if replay.epochs.get(e.epoch_seq, e.epoch_id) != e.epoch_id:
            other_epochs.add(e.service)
    return {service: chain.value for service, chain in chains.items()}, other_epochs


def _foreign_history(
    kept: Mapping[str, bytes], other_epochs: set[str], replay: Replay
) -> Iterator[Foreign]:
    for service in sorted(kept.keys() | replay.services.keys()):
        written = replay.services.get(service, Expected())
        if kept.get(service, b"") != written.history.value or service in other_epochs:
            yield Foreign("history", service, "it is not what the audit's rows say", written.row)


def _foreign_schemas(kept: Iterable[KeptSchema], replay: Replay) -> Iterator[Foreign]:
    """Values move by what a version says. Those of the catalogue come with the server: no row names them."""
    for one in kept:
        named = replay.schemas.get((one.service, one.version))
        if named is None:
            is_foreign = one.source != "catalogue" and not replay.schemas_as_they_lie
        else:
            is_foreign = not one.digest == named == wire.digest(one.schema.encode())
        if is_foreign:
            yield _not_as_audited("schemas", (one.service, one.version))


def _foreign_activations(kept: Iterable[SchemaActivation], replay: Replay) -> Iterator[Foreign]:
    """A start may make a version of the catalogue active, or none, without a row: not in the place of another's."""
    there: set[tuple[str, int]] = set()
    for one in kept:
        there.add(one[:2])
        named = replay.activations.get(one[:2])
        versions = [one.version, *([] if named is None else [named.version])]
        is_put = any((one.service, version) in replay.schemas for version in versions)
        if one != named and is_put:
            yield _not_as_audited("schema_activations", one[:2])
    for key in replay.activations.keys() - there:
        yield _not_as_audited("schema_activations", key)


def _foreign_rollbacks(kept: Iterable[TakenBack], replay: Replay) -> Iterator[Foreign]:
    rows = {one[:2]: one for one in kept}
    for key in rows.keys() | replay.taken_back.keys():
        named = replay.taken_back.get(key)
        is_accepted = named is None and replay.schemas_as_they_lie
        if rows.get(key) != named and not is_accepted and key[0] in replay.services:
            yield _not_as_audited("taken_back", key)


def _not_as_audited(table: str, key: tuple[str, int]) -> Foreign:
    return Foreign(table, f"{key[0]}/{key[1]}", "not what the audit names")


def _looking_up(rows: Generator[R], look_up: Callable[[], None]) -> Iterator[R]:
    with closing(rows):  # before the snapshot that they come from is closed
        for number, row in enumerate(rows):
            if number % _EVERY == 0:
                look_up()
            yield row


def _sorted(value: object) -> bytes:
    """Equal for equal JSON values: the order of members does not count."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _mac(key: bytes, about: object) -> str:
    return hmac.new(key, strict_json.dumps(about), "sha256").hexdigest()
