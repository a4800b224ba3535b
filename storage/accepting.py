"""`restore --accept`: an operator accepts what is kept, against witnesses that say otherwise. Pure.

Every service gets a new revision in a new epoch, above all that anybody has seen. What the audit does not
vouch for is put back as the audit says; access that it does not vouch for is gone. Only where the audit
itself is not whole, there is nothing to put back from: then what is kept is accepted as it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from config_manager.config.catalogue import Catalogue
from config_manager.config.names import Epoch, Mark
from config_manager.config.strict_json import JsonObject
from config_manager.storage import changes, secret_rows
from config_manager.storage.administration import Administrator
from config_manager.storage.devices import DELIVERY
from config_manager.storage.replay import Expected
from config_manager.storage.state import Change, Committed, RegistryRow, ServiceState
from config_manager.storage.vouching import Foreign, Judgement, everything_named


@dataclass(frozen=True, slots=True)
class Repair:
    """What is put right in the database before it is accepted. strangers: services of which no row of the
    audit knows. history: services whose history is written anew from the audit. mark: what the counters
    are to say, where they are somebody else's. end: number and hash of the last row of an audit that is
    not whole."""

    strangers: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    mark: Mark | None = None
    end: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """before: what is kept, after its repair. put_back: what of it is as the audit says, and was not.
    dropped: registry rows. as_it_lies: the audit is not whole, and nothing could be put back. lying:
    services whose history can't be put back, because it was accepted as it lay once before."""

    before: Committed
    repair: Repair
    put_back: tuple[Foreign, ...]
    dropped: tuple[RegistryRow, ...]
    as_it_lies: bool
    lying: tuple[str, ...] = ()


def weigh(committed: Committed, judgement: Judgement) -> Acceptance:
    """What is to be accepted. committed, judgement: of one snapshot."""
    as_it_lies = any(one.table == "audit" for one in judgement.not_audited)
    deliveries = tuple(
        RegistryRow(DELIVERY, key, None) for key in committed.registered(DELIVERY)
    )  # sealed anew, under the new epoch
    if as_it_lies:
        seq, row_hash = end = judgement.replay.end
        before = replace(committed, audit_seq=seq, audit_head=row_hash)
        return Acceptance(before, Repair(end=end), (), deliveries, as_it_lies=True)
    expected, foreign = judgement.replay.services, judgement.foreign
    names = {one.key for one in foreign if not one.table}
    services = {
        name: _put_back(name, one, committed) if name in names else committed.services[name]
        for name, one in expected.items()
    }
    dropped = tuple(
        RegistryRow(kind, key, None)
        for one in foreign
        if one.table == "registry"
        for kind, _, key in [one.key.partition("/")]
        if kind != DELIVERY
    )
    replay = judgement.replay
    mark = Mark(replay.epoch_seq, replay.revision)
    of_history = [one for one in foreign if one.table == "history"]
    lying = [one for one in of_history if replay.began_as_it_lay(one.key)]
    repair = Repair(
        strangers=tuple(sorted(committed.services.keys() - expected.keys())),
        history=tuple(one.key for one in of_history if one not in lying),
        mark=None if mark == committed.mark else mark,
    )
    before = replace(
        committed,
        services=services,
        revision=mark.revision,
        epoch=committed.epoch._replace(seq=mark.epoch_seq),
    )
    return Acceptance(
        before,
        repair,
        tuple(one for one in foreign if one not in lying),
        (*deliveries, *dropped),
        as_it_lies=False,
        lying=tuple(one.key for one in lying),
    )


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
    """The change that accepts it. highest, highest_revision: that anybody has seen. Raises TooLarge."""
    epoch = Epoch(max(highest.epoch_seq, what.before.epoch.seq) + 1, epoch_id)
    revision = max(highest.revision, highest_revision, what.before.revision) + 1
    return changes.reissue(
        what.before,
        written=_as_written(what, judgement),
        registry=(*what.dropped, secret_rows.floor_at(revision)),
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
    """What the row says of it. From a row on that accepted it as it lies, its history counts as it lay."""
    accepted: JsonObject = {"not_audited": [one.reason for one in judgement.not_audited]}
    services = what.before.services
    if lying := services if what.as_it_lies else what.lying:
        accepted["versions"] = {name: services[name].version for name in lying}
        accepted["history"] = {n: judgement.history.get(n, b"").hex() for n in lying}
    return accepted
