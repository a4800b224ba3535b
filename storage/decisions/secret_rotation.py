"""The rotation of the key that secrets are sealed under, as the registry keeps it. Pure.

    1  the new key lies beside the old one (`secrets.key.new`), durable, and in the recovery copy
    2  the rotation is committed: from then on the new key seals, and both open
    3  page by page, what lies under the old key is sealed anew under the new one
    4  nothing lies under the old key: the new key's file takes its place, and the old key is gone
    5  that it is finished is committed

If the process dies before 2, nothing has begun, and the next rotation takes the new key up. If it dies later, the
next start resumes: the rows say under which key they lie.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from config_manager.config.errors import Conflict
from config_manager.config.strict_json import JsonObject
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.secret_rows import KEY
from config_manager.storage.state import Committed, RegistryRow

_ROTATION = "rotation"


@dataclass(frozen=True, slots=True)
class Rotation:
    """old, new: key ids. total: versions that were kept when it began. Times are RFC 3339; finished_at: None while
    it is under way. correlation_id: of the request that began it."""

    old: str
    new: str
    total: int
    started_at: str
    by: str
    correlation_id: str
    finished_at: str | None = None


def newest(committed: Committed) -> Rotation | None:
    """The rotation under way, or else the last one; None if there never was one."""
    row = committed.registered(KEY).get(_ROTATION)
    return None if row is None else Rotation(**{k: v for k, v in row.items() if v is not None})


def under_way(committed: Committed) -> Rotation | None:
    rotation = newest(committed)
    return None if rotation is None or rotation.finished_at is not None else rotation


@dataclass(frozen=True, slots=True)
class BeginRotation:
    """old, new: key ids; the new key is on disk already. total: versions that are kept."""

    old: str
    new: str
    total: int

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        if under_way(before) is not None:
            raise Conflict("the secrets key is being rotated")
        rotation = Rotation(self.old, self.new, self.total, on.at, on.by, on.correlation_id)
        details: JsonObject = {"old": self.old, "new": self.new, "secrets": self.total}
        return administered(before, on, "secrets.rotate-key", details, (_row(rotation),), None)


@dataclass(frozen=True, slots=True)
class FinishRotation:
    """unreadable: versions that neither of the two keys opens."""

    rotation: Rotation
    unreadable: int

    def decide(self, before: Committed, on: Occasion) -> Decided[None]:
        if under_way(before) != self.rotation:
            raise Conflict("this rotation is not under way")
        details: JsonObject = {"old": self.rotation.old, "new": self.rotation.new}
        if self.unreadable:
            details["unreadable"] = self.unreadable
        row = _row(replace(self.rotation, finished_at=on.at))
        return administered(before, on, "secrets.rotate-key-done", details, (row,), None)


def _row(rotation: Rotation) -> RegistryRow:
    return RegistryRow(KEY, _ROTATION, asdict(rotation))
