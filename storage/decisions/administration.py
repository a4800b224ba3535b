"""What is no configuration: who may do what, who receives secrets. Pure, as `storage.decisions.changes` is.

Such a write moves no revision; it keeps rows in the registry and a row in the same audit chain, in
one transaction with whatever else is committed then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.changes import link
from config_manager.storage.decisions.registry_digests import digests_of
from config_manager.storage.state import Commit, Committed, RegistryRow, with_rows

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Administered(Generic[A]):
    """What an administration comes to.

    action: its name in the audit, such as `token.create`. details: what is audited of it; never a
    secret. answer: for who asked. audited: False only for bookkeeping that nobody decided.
    repeatable: the answer is JSON without secrets, and is kept for who repeats his request with its
    Idempotency-Key; else a repetition is told that it was done, and no more.
    """

    action: str
    details: JsonObject
    rows: tuple[RegistryRow, ...]
    answer: A
    audited: bool = True
    repeatable: bool = False


class Administration(Protocol[A]):
    """Something an operator wants done that is no configuration."""

    def decide(self, committed: Committed, now: float, /) -> Administered[A]:
        """now: Unix seconds. Raises a `config.errors.Refusal`; then nothing happens."""
        ...


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who wants it, why, when (RFC 3339) and under which id."""

    by: str
    reason: str | None
    at: str
    correlation_id: str


def administrate(
    before: Committed,
    done: Administered[A],
    who: Administrator,
    *,
    also: Mapping[str, object] = MappingProxyType({}),
) -> Commit:
    """The change that keeps what was decided. also: more members of its audit row."""
    audit = None
    after = replace(before, registry=with_rows(before.registry, done.rows))
    if done.audited:
        audit = link(
            before,
            before.revision,
            {
                "revision": before.revision,
                "epoch_seq": before.epoch.seq,
                "at": who.at,
                "by": who.by,
                "action": done.action,
                "reason": who.reason,
                "correlation_id": who.correlation_id,
                "details": done.details,
                "registry": digests_of(done.rows),
                **also,
            },
        )
        after = replace(after, audit_seq=audit.seq, audit_head=audit.hash)
    return Commit(before, after, (), (), audit, who.reason, registry=done.rows)
