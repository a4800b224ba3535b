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
from config_manager.storage import changes
from config_manager.storage.administration import Administrator
from config_manager.storage.devices import DELIVERY
from config_manager.storage.replay import Expected
from config_manager.storage.state import Change, Committed, RegistryRow, ServiceState
from config_manager.storage.vouching import Foreign, Judgement, everything_named


@dataclass(frozen=True, slots=True)
class Repair:
    """What is put right in the database before it is accepted. strangers: services of which no row of the
    audit knows. history: services whose history is written anew from the audit. end: number and hash of
    the last row of an audit that is not whole."""

    strangers: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    end: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """before: what is kept, after its repair. put_back: what of it is as the audit says, and was not.
    dropped: registry rows. as_it_lies: the audit is not whole, and nothing could be put back."""

    before: Committed
    repair: Repair
    put_back: tuple[Foreign, ...]
    dropped: tuple[RegistryRow, ...]
    as_it_lies: bool


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
    repair = Repair(
        strangers=tuple(sorted(committed.services.keys() - expected.keys())),
        history=tuple(one.key for one in foreign if one.table == "history"),
    )
    before = replace(committed, services=services)
    return Acceptance(before, repair, foreign, (*deliveries, *dropped), as_it_lies=False)


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
        registry=what.dropped,
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
    if what.as_it_lies:
        accepted["versions"] = {n: state.version for n, state in what.before.services.items()}
        accepted["history"] = {name: value.hex() for name, value in judgement.history.items()}
    return accepted
