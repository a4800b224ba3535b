"""`restore --accept`: an operator accepts what is kept, against witnesses that say otherwise. Pure.

Every service gets a new revision in a new epoch, above all that anybody has seen. What the audit does not
vouch for is put back as the audit says; access that it does not vouch for is gone. Only where the audit
itself is not whole, there is nothing to put back from: then the last-known-good cache is accepted, and
without that what is kept, as it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from config_manager.config.catalogue import Catalogue
from config_manager.config.names import Epoch, Mark
from config_manager.config.strict_json import JsonObject
from config_manager.storage import changes, secret_rows
from config_manager.storage.administration import Administrator
from config_manager.storage.devices import DELIVERY
from config_manager.storage.replay import Expected, Replay
from config_manager.storage.state import Change, Committed, Registry, RegistryRow, ServiceState
from config_manager.storage.vouching import Foreign, Judgement, everything_named, without


@dataclass(frozen=True, slots=True)
class Repair:
    """What is put right in the database before it is accepted.

    strangers: services of which nobody knows. odd: services whose rows can't be read. rows: registry rows
    (kind, key) that can't be read. history: service → the version after which its history is written anew
    from the audit. counters: revision, epoch, number and hash of the audit's last row.
    """

    strangers: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    history: Mapping[str, int] = field(default_factory=dict)
    counters: tuple[int, int, int, str] | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """before: what is kept, after its repair. rows: of the registry, changed with it. as_it_lies: the audit is
    not whole. by_cache: then it is the cache that is accepted."""

    before: Committed
    repair: Repair
    rows: tuple[RegistryRow, ...]
    as_it_lies: bool
    by_cache: bool = False


def weigh(judgement: Judgement, cached: Committed | None, here: Mark) -> Acceptance:
    """What is to be accepted. cached: the last-known-good state, where it verifies. here: how far the data
    directory is, by what is no nonsense."""
    as_it_lies = any(one.table == "audit" for one in judgement.not_audited)
    committed, replay = judgement.committed, judgement.replay
    names = [one.key for one in judgement.foreign if not one.table]
    source = committed
    if as_it_lies and cached is not None:
        source = cached
        services = dict(cached.services)
    elif as_it_lies:
        services = dict(committed.services)
    else:
        services = {
            name: _put_back(name, one, committed) if name in names else committed.services[name]
            for name, one in replay.services.items()
        }
        source = without(committed, judgement.foreign)
    registry: Registry = {kind: dict(rows) for kind, rows in source.registry.items()}
    if not as_it_lies:
        registry = _with_retired(registry, replay)
    registry = {kind: rows for kind, rows in registry.items() if rows and kind != DELIVERY}
    seq, row_hash = replay.end
    repair = Repair(
        strangers=tuple(sorted({*committed.services, *names} - services.keys())),
        odd=tuple(sorted(set(names) & services.keys())),
        rows=tuple(
            (kind, key)
            for one in judgement.foreign
            if one.table == "registry"
            for kind, _, key in [one.key.partition("/")]
            if key not in registry.get(kind, {})
        ),
        history={
            one.key: replay.services[one.key].history_before
            for one in judgement.foreign
            if one.table == "history" and not as_it_lies and one.key in replay.services
        },
        counters=(here.revision, here.epoch_seq, seq, row_hash),
    )
    before = replace(
        committed,
        epoch=Epoch(here.epoch_seq, committed.epoch.id),
        revision=here.revision,
        audit_seq=seq,
        audit_head=row_hash,
        services=services,
    )
    rows = _difference(committed.registry, registry)
    return Acceptance(before, repair, rows, as_it_lies, as_it_lies and cached is not None)


def _put_back(name: str, one: Expected, committed: Committed) -> ServiceState:
    """As the audit says; only what a next revision goes by."""
    return ServiceState(
        service=name,
        revision=one.revision,
        version=one.version,
        epoch=committed.epoch,
        stored=one.stored,
        effective={},
        defaulted=(),
        secrets=one.secrets,
        deleted=one.deleted,
        updated_at=one.at,
        updated_by=one.by,
        correlation_id=one.correlation_id,
        payload=b"",
        digest=one.digest or "",
    )


def _with_retired(registry: Registry, replay: Replay) -> Registry:
    """No number of a secret is used twice: the last one of each that is deleted is known from the rows."""
    kept = {
        key: row
        for key, row in registry.get(secret_rows.RETIRED, {}).items()
        if row.get("version") == _retired_version(replay, key)
    }
    for service, one in replay.services.items():
        for name, version in one.retired.items():
            kept.setdefault(secret_rows.key_of(service, name), {"version": version, "at": one.at})
    return {**registry, secret_rows.RETIRED: kept}


def _retired_version(replay: Replay, key: str) -> int | None:
    service, _, name = key.partition("/")
    one = replay.services.get(service)
    return None if one is None else one.retired.get(name)


def _difference(before: Registry, after: Registry) -> tuple[RegistryRow, ...]:
    return tuple(
        RegistryRow(kind, key, after.get(kind, {}).get(key))
        for kind in sorted({*before, *after})
        for key in sorted({*before.get(kind, {}), *after.get(kind, {})})
        if before.get(kind, {}).get(key) != after.get(kind, {}).get(key)
    )


def accept(
    what: Acceptance,
    judgement: Judgement,
    *,
    highest: Mark,
    highest_revision: int,
    epoch_id: str,
    catalogue: Catalogue,
    who: Administrator,
) -> Change:
    """The change that accepts it. judgement: of what is kept after its repair. highest, highest_revision: that
    anybody has seen. Raises TooLarge."""
    epoch = Epoch(max(highest.epoch_seq, what.before.epoch.seq) + 1, epoch_id)
    revision = max(highest.revision, highest_revision, what.before.revision) + 1
    return changes.reissue(
        what.before,
        written=_as_written(what, judgement),
        registry=(*what.rows, secret_rows.floor_at(revision)),
        epoch=epoch,
        revision=revision,
        catalogue=catalogue,
        by=who.by,
        reason=who.reason,
        at=who.at,
        correlation_id=who.correlation_id,
        also=lambda after: {
            **everything_named(after),
            "secrets": {name: dict(s.secrets) for name, s in after.services.items()},
            "deleted": [name for name, state in after.services.items() if state.deleted],
            "accepted": _accepted(what, judgement),
        },
    )


def _as_written(what: Acceptance, judgement: Judgement) -> Mapping[str, JsonObject]:
    """The values that the rows so far come to; what the new row changes is told from these."""
    replay = judgement.replay.services
    return {name: replay[name].stored if name in replay else {} for name in what.before.services}


def _accepted(what: Acceptance, judgement: Judgement) -> JsonObject:
    """What the row says of it. lay: from this row on the rows before it count as they lie. history: service →
    (version, hash) of what can't be told from the rows, and counts as it lies."""
    foreign_history = {one.key for one in judgement.foreign if one.table == "history"}
    accepted: JsonObject = {
        "not_audited": [one.reason for one in judgement.not_audited],
        "history": {
            name: [state.version, judgement.history.get(name, b"").hex()]
            for name, state in what.before.services.items()
            if what.as_it_lies or name in foreign_history
        },
    }
    if what.as_it_lies:
        accepted["lay"] = judgement.lay
    return accepted


def is_put_back(one: Foreign, what: Acceptance) -> bool:
    """Whether the audit says how it was; else it is let go."""
    return (
        not what.as_it_lies
        and one.table in ("", "history", "counters")
        and one.key not in what.repair.strangers
    )
