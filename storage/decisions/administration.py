"""Writes other than configuration: tokens, devices, secret delivery, the trust root. Pure.

Such a write moves no revision. It keeps rows in the registry and a row in the same audit chain, in one
transaction with whatever else is committed then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.changes import Decided, Occasion, audit_row
from config_manager.storage.decisions.registry_digests import digests_of
from config_manager.storage.state import Commit, Committed, RegistryRow, with_rows

A = TypeVar("A")


def administered(
    before: Committed,
    on: Occasion,
    action: str,
    details: JsonObject,
    rows: tuple[RegistryRow, ...],
    answer: A,
    *,
    repeatable: bool = False,
    also: Mapping[str, object] = MappingProxyType({}),
) -> Decided[A]:
    """Rows of the registry, and the row of the audit that says so.

    action: its name in the audit, such as `token.create`. details: what is audited of it; never a secret. also:
    more members of the audit row.
    """
    rest = {"details": details, "registry": digests_of(rows), **also}
    audit = audit_row(before, on, action, before.mark, rest)
    after = replace(
        before,
        registry=with_rows(before.registry, rows),
        audit_seq=audit.seq,
        audit_head=audit.hash,
    )
    change = Commit(before, after, (), (), audit, on.reason, registry=rows)
    return Decided(answer, change, repeatable)


def noted(before: Committed, on: Occasion, rows: tuple[RegistryRow, ...]) -> Decided[None]:
    """Bookkeeping that nobody decided, and no row of the audit names."""
    after = replace(before, registry=with_rows(before.registry, rows))
    return Decided(None, Commit(before, after, (), (), None, on.reason, registry=rows))
