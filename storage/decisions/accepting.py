"""`restore --accept`: an operator accepts what is kept, against witnesses that say otherwise. Pure.

Every service gets a new revision in a new epoch, above all that anybody has seen. An edited configuration is
put back as the audit says; access that the audit does not vouch for is removed. If the audit itself is not
whole, it can't say. Then the last-known-good cache is accepted, or the database as it lies if no cache
verifies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TypeVar

from config_manager.config.names import Epoch, Mark
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions import secret_rows
from config_manager.storage.decisions.changes import Occasion, Revision
from config_manager.storage.decisions.devices import DELIVERY
from config_manager.storage.decisions.replay import Expected, Replay
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.vouching import Foreign, Judgement, everything_named, without
from config_manager.storage.state import (
    Commit,
    Committed,
    Registry,
    RegistryRow,
    SchemaActivation,
    ServiceState,
    TakenBack,
    rows_between,
)

_PUT_BACK = ("", "history", "counters", "schema_activations", "taken_back")


@dataclass(frozen=True, slots=True)
class Repair:
    """What is put right in the database before it is accepted.

    mark, end: what the counters are set to: how far it is, and number and hash of the audit's last row.
    strangers: services that nobody made. odd: services whose newest state is not as it was written. rows:
    registry rows (kind, key) to remove, schemas: versions (service, number). activations, taken_back: by (service,
    revision), what to put in that place; None removes it. history: service → the version after which its history is written
    anew from the audit.
    """

    mark: Mark
    end: tuple[int, str]
    strangers: tuple[str, ...]
    odd: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    schemas: tuple[tuple[str, int], ...]
    activations: Mapping[tuple[str, int], SchemaActivation | None]
    taken_back: Mapping[tuple[str, int], TakenBack | None]
    history: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """before: what is kept, after its repair. rows: of the registry, changed with it. put_back: what is restored
    from the audit. let_go: what nobody vouches for, and is removed. as_it_lies: the audit is not whole, so it can't
    tell what to restore. by_cache: in that case the cache is accepted, else the database as it is."""

    before: Committed
    repair: Repair
    rows: tuple[RegistryRow, ...]
    put_back: tuple[Foreign, ...]
    let_go: tuple[Foreign, ...]
    as_it_lies: bool
    by_cache: bool


def weigh(judgement: Judgement, cached: Committed | None, here: Mark) -> Acceptance:
    """What to accept. cached: the last-known-good state, if it verifies. here: how far the data directory is,
    as far as that can be believed."""
    committed, foreign, end = judgement.committed, judgement.foreign, judgement.replay.end
    names = {one.key for one in foreign if not one.table}
    services, registry = _accepted_state(judgement, cached, names)
    strangers = {*committed.services, *names} - services.keys()
    is_whole = judgement.is_whole
    put_back = [
        one for one in foreign if is_whole and one.table in _PUT_BACK and one.key not in strangers
    ]
    before = replace(
        committed,
        epoch=committed.epoch._replace(seq=here.epoch_seq),
        revision=here.revision,
        audit_seq=end[0],
        audit_head=end[1],
        services=services,
    )
    repair = Repair(
        mark=here,
        end=end,
        strangers=tuple(sorted(strangers)),
        odd=tuple(sorted(names & services.keys())),
        rows=tuple(
            (kind, key)
            for one in foreign
            if one.table == "registry"
            for kind, _, key in [one.key.partition("/")]
            if key not in registry.get(kind, {})
        ),
        schemas=tuple(_numbered(foreign, "schemas")) if is_whole else (),
        activations=_as_audited(judgement, "schema_activations", judgement.replay.activations),
        taken_back=_as_audited(judgement, "taken_back", judgement.replay.taken_back),
        history={
            one.key: judgement.replay.services[one.key].history_before
            for one in put_back
            if one.table == "history" and one.key in judgement.replay.services
        },
    )
    return Acceptance(
        before,
        repair,
        rows=rows_between(committed.registry, registry),
        put_back=tuple(put_back),
        let_go=tuple(one for one in foreign if is_whole and one not in put_back),
        as_it_lies=not is_whole,
        by_cache=not is_whole and cached is not None,
    )


def _accepted_state(
    judgement: Judgement, cached: Committed | None, names: AbstractSet[str]
) -> tuple[Mapping[str, ServiceState], Registry]:
    """Services and registry. names: services that are not as they were written. Deliveries are left out, to be
    made anew under the new epoch."""
    committed, replay = judgement.committed, judgement.replay
    services: Mapping[str, ServiceState]
    if judgement.is_whole:
        services = {
            name: _put_back(name, one, committed) if name in names else committed.services[name]
            for name, one in replay.services.items()
        }
        registry = _with_retired(without(committed, judgement.foreign).registry, replay)
    else:
        source = committed if cached is None else cached
        services, registry = source.services, source.registry
    return services, {kind: rows for kind, rows in registry.items() if rows and kind != DELIVERY}


R = TypeVar("R")


def _numbered(foreign: Iterable[Foreign], table: str) -> Iterator[tuple[str, int]]:
    """(service, number) of each row of a table that is foreign."""
    for one in foreign:
        if one.table == table:
            service, _, number = one.key.rpartition("/")
            yield service, int(number)


def _as_audited(
    judgement: Judgement, table: str, audited: Mapping[tuple[str, int], R]
) -> Mapping[tuple[str, int], R | None]:
    if not judgement.is_whole:
        return {}
    return {key: audited.get(key) for key in _numbered(judgement.foreign, table)}


def _put_back(name: str, one: Expected, committed: Committed) -> ServiceState:
    """As the audit says, as far as the next revision needs it."""
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
    """With the last version of each deleted secret, as the rows say: no number is used twice."""
    kept = registry.get(secret_rows.RETIRED, {})
    retired = {
        secret_rows.key_of(service, name): {"version": version, "at": one.at}
        for service, one in replay.services.items()
        for name, version in one.retired.items()
    }
    for key, row in retired.items():
        if key in kept and kept[key].get("version") == row["version"]:
            retired[key] = kept[key]
    return {**registry, secret_rows.RETIRED: retired}


def accept(
    what: Acceptance,
    judgement: Judgement,
    *,
    highest: Mark,
    highest_revision: int,
    epoch_id: str,
    shapes: Shapes,
    on: Occasion,
) -> Commit:
    """The change that accepts it. judgement: of what is kept after its repair. highest, highest_revision: that
    anybody has seen. Raises TooLarge."""
    epoch = Epoch(max(highest.epoch_seq, what.before.epoch.seq) + 1, epoch_id)
    revision = max(highest.revision, highest_revision, what.before.revision) + 1
    return Revision(what.before, on, shapes, epoch, revision).reissue(
        written=_as_written(what, judgement),
        registry=(*what.rows, secret_rows.floor_at(revision)),
        also=lambda after: {
            **everything_named(after),
            "secrets": {name: dict(s.secrets) for name, s in after.services.items()},
            "deleted": [name for name, state in after.services.items() if state.deleted],
            "accepted": _accepted(what, judgement),
        },
    )


def _as_written(what: Acceptance, judgement: Judgement) -> Mapping[str, JsonObject]:
    """The values that the rows so far lead to; the new row says what it changes from these."""
    replay = judgement.replay.services
    return {name: replay[name].stored if name in replay else {} for name in what.before.services}


def _accepted(what: Acceptance, judgement: Judgement) -> JsonObject:
    """What the row says of it. lay: from this row on, the rows before it count as they lie. history: service →
    (version, hash) of history that can't be told from the rows, and counts as it lies."""
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
