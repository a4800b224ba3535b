"""The schemas that instances were built with: kept as bookkeeping, and what follows from a new one. Pure.

Registry kind `instance-schema`, by `service/digest`. No row of the audit names them: whoever reads one checks its
digest, and the receipt that named it is signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339
from config_manager.storage.decisions.administration import noted
from config_manager.storage.decisions.changes import Decided, Occasion, Revision
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.shapes import INSTANCE_SCHEMA, row
from config_manager.storage.decisions.variants import missing
from config_manager.storage.state import Committed, RegistryRow

MOST_OF_A_SERVICE = 16
MOST = 1_000
"""Rows of all services together: they are in memory and in every cache file."""
SEEN_AGAIN_S = 24 * 3600.0
"""`last_seen` moves at most that often."""


@dataclass(frozen=True, slots=True)
class KeepInstanceSchema:
    """A schema that an instance was built with was seen. schema: None if it is known to be kept.

    The one that was seen longest ago makes room. Answers whether it is kept: not if there is no room, because all
    others were seen within a day.
    """

    service: str
    digest: str
    schema: JsonObject | None

    def decide(self, before: Committed, on: Occasion) -> Decided[bool]:
        rows, key = before.registered(INSTANCE_SCHEMA), f"{self.service}/{self.digest}"
        held = rows.get(key)
        schema = self.schema if held is None else held["schema"]
        if schema is None:
            return _noted(before, on, (), kept=False)
        gone: tuple[RegistryRow, ...] = ()
        if held is None:
            prefix = f"{self.service}/"
            mine = [one for one in rows if one.startswith(prefix)]
            crowd = mine if len(mine) >= MOST_OF_A_SERVICE else rows if len(rows) >= MOST else ()
            if crowd:
                oldest = min(crowd, key=lambda one: rows[one]["last_seen"])
                if on.now - parse_rfc3339(rows[oldest]["last_seen"]) < SEEN_AGAIN_S:
                    return _noted(before, on, (), kept=False)
                gone = (RegistryRow(INSTANCE_SCHEMA, oldest, None),)
        first_seen = on.at if held is None else held["first_seen"]
        seen = {"schema": schema, "first_seen": first_seen, "last_seen": on.at}
        return _noted(before, on, (*gone, RegistryRow(INSTANCE_SCHEMA, key, seen)), kept=True)


@dataclass(frozen=True, slots=True)
class Adapt:
    """Give a service's message the variants that it lacks, in a revision of its own. Nothing else of it changes, its
    content id neither. Answers whether it lacked some."""

    service: str

    def decide(self, before: Committed, on: Equipped) -> Decided[bool]:
        """Raises TooLarge."""
        shapes, live = on.tools.shapes, before.live(self.service)
        wanted = None if live is None else missing(shapes, before, live, now=on.now)
        if live is None or wanted is None:
            return _noted(before, on, (), kept=False)
        revision = Revision(before, on, shapes, before.epoch, before.revision + 1)
        state = revision.adapted(live, wanted)
        return Decided(True, revision.commit({self.service: state}, "adapt"))


def may_be_adopted(committed: Committed, service: str, *, has_model: bool) -> bool:
    """Whether an instance's schema may become the service's by itself: where nobody put one, and the catalogue has
    none. has_model: whether it has one."""
    active = row(committed, service)
    return not has_model and (active is None or active["source"] == "instance")


def _noted(
    before: Committed, on: Occasion, rows: tuple[RegistryRow, ...], *, kept: bool
) -> Decided[bool]:
    return Decided(kept, noted(before, on, rows).change)
