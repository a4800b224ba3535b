"""The digests of registry rows, as the audit names them."""

from __future__ import annotations

from collections.abc import Iterable

from config_manager.config import strict_json
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import digest
from config_manager.storage.state import RegistryRow

BOOKKEEPING = frozenset({"delivery", "sent", "instance-schema", "notified", "notice", "discovery"})
"""Kinds that nobody decides on, so that no row of the audit names them. A delivery, which is signed, has a MAC; a
schema of an instance is named by its digest."""
_BOOKKEPT = {"token": frozenset({"last_used_at"})}
"""Members that change without a decision."""


def row_digest(kind: str, value: JsonObject) -> str:
    """SHA-256 (hex) of what was decided: members in the order of their names, without those that are null."""
    apart = _BOOKKEPT.get(kind, frozenset())
    decided = {k: v for k, v in sorted(value.items()) if v is not None and k not in apart}
    return digest(strict_json.dumps(decided))


def digests_of(rows: Iterable[RegistryRow]) -> dict[str, dict[str, str | None]]:
    """kind → key → digest of the rows that were decided on; None if a row was removed. The last row of a key counts."""
    digests: dict[str, dict[str, str | None]] = {}
    for row in rows:
        if row.kind not in BOOKKEEPING:
            value = None if row.value is None else row_digest(row.kind, row.value)
            digests.setdefault(row.kind, {})[row.key] = value
    return digests
