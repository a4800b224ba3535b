"""How fresh what runs is, by what the publisher has proved of itself lately.

It is fresh if a rising beacon was seen within its validity, as soon after the one before as it was made
(`pace`), and if the snapshot that the beacon names lists exactly what the client holds. Age alone does not
make it stale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from config_manager.client.rules.events import Fresh, Stale, StaleReason
from config_manager.client.rules.kept import Kept, are_enough, left_by, raised
from config_manager.client.rules.pace import Pace
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.root import Root
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.trust import Signed
from config_manager.config.world import parse_rfc3339

FLOOR_WAIT_S = 15.0
"""How long a first start waits to hear how far the publisher has come."""

WITHHELD_AFTER_S = 30.0
"""How long the snapshot may differ from what the client holds: changes need time to travel."""

MIN_BEACON_VALID_S = 30.0
"""Beacons come every 10 s, and two may get lost whatever `valid_s` says."""

CLOCK_TOLERANCE_S = 300.0

Status: TypeAlias = StaleReason | Literal["fresh"]


class Freshness:
    """Of one service's configuration: verified beacons and snapshots in, Fresh and Stale out."""

    def __init__(self, service: str, kept: Kept | None) -> None:
        self.status: Status | None = None
        """as last said; None until there was something to say"""
        self.replayed_beacons = 0
        marks = kept or Kept(None, None)
        self.beacon_order = marks.beacon_order
        self.beacons_by = marks.beacons_by
        self._service = service
        self._began_empty = kept is None
        self._lost_root = marks.root_version
        self._snapshot: Signed[Snapshot] | None = None
        self._beacon: Signed[Beacon] | None = None
        self._beacon_at = 0.0
        self._pace = Pace()
        self._heard_at: float | None = None
        self._differs_since: float | None = None
        self._behind_since: float | None = None
        self._started_at: float | None = None
        self._wall_ahead: float | None = None

    # ── what is asked ──────────────────────────────────────────────────────────────────────────

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest."""
        return self._snapshot.document if self._snapshot is not None else None

    @property
    def wanted(self) -> tuple[int, str] | None:
        """The revision and digest that the newest snapshot names for this service."""
        return self.snapshot.services.get(self._service) if self.snapshot is not None else None

    @property
    def clock_unknown(self) -> bool:
        """Whether the wall clock is more than five minutes behind what the publisher has signed. Then dates
        (`not_after`) can't be judged by it: a robot without a battery starts in 1970."""
        if self._beacon is None or self._wall_ahead is None:
            return False
        try:
            signed_at = parse_rfc3339(self._beacon.document.issued_at)
        except (ValueError, OverflowError):
            return False
        return self._beacon_at + self._wall_ahead < signed_at - CLOCK_TOLERANCE_S

    @property
    def in_words(self) -> str:
        """`fresh`, `stale (reason)`, `clock-unknown`, or `unknown` while it is too early to say."""
        if self.status is None:
            return "unknown"
        if self.status != "fresh":
            return f"stale ({self.status})"
        return "clock-unknown" if self.clock_unknown else "fresh"

    def has_waited_for_floor(self, now: float) -> bool:
        """Whether a first start has waited long enough."""
        assert self._started_at is not None
        return now - self._started_at >= FLOOR_WAIT_S

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def note_time(self, monotonic_now: float, wall_now: float | None) -> None:
        if self._started_at is None:
            self._started_at = monotonic_now
        if wall_now is not None:
            self._wall_ahead = wall_now - monotonic_now

    def hear_beacon(self, signed: Signed[Beacon], now: float) -> None:
        """Take a verified beacon, if it rises."""
        beacon = signed.document
        self.beacons_by = raised(self.beacons_by, signed.signers, beacon.order)
        if self.beacon_order is not None and beacon.order <= self.beacon_order:
            if beacon.order < self.beacon_order or self._beacon is None:
                self.replayed_beacons += 1
            return
        self._beacon, self.beacon_order, self._beacon_at = signed, beacon.order, now
        self._pace.heard(beacon, now)
        if self._pace.keeps_up:
            self._heard_at = now

    def hear_snapshot(self, signed: Signed[Snapshot]) -> bool:
        """Take a verified snapshot, if the newest beacon names it. An older one says nothing about now."""
        if self._beacon is None or self._beacon.document.snapshot != signed.digest:
            return False
        if self._snapshot is not None and self._snapshot.digest == signed.digest:
            signed = replace(signed, signers=signed.signers | self._snapshot.signers)
        self._snapshot = signed
        return True

    def go_on_under(self, root: Root) -> None:
        """Drop what only keys vouched for that the newer root does not list."""
        role = root.roles["beacon"]
        if self._beacon is None or not are_enough(self._beacon.signers, role):
            self._beacon = None
            self._pace = Pace()  # how fast a thief's clock ran says nothing
        if self._snapshot is None or not are_enough(self._snapshot.signers, role):
            self._snapshot = None
        self.beacons_by, self.beacon_order = left_by(self.beacons_by, self.beacon_order, role)

    # ── fresh or stale ─────────────────────────────────────────────────────────────────────────

    def judge(
        self, kept: Kept | None, root: Root, now: float, *, signer_revoked: bool
    ) -> list[Fresh | Stale]:
        """What to say now: nothing if it was said already, or if it is too early to say."""
        differs = self._differs_from_snapshot(kept) or self._lacks_the_snapshot()
        lacks_a_root = self._lacks_a_root(root)
        self._differs_since = _since(self._differs_since, now) if differs else None
        self._behind_since = _since(self._behind_since, now) if lacks_a_root else None
        stale = self._why_stale(kept, now, signer_revoked=signer_revoked)
        is_fresh = kept is not None and self._beacon is not None
        if stale is None and (differs or lacks_a_root or not is_fresh):
            return []
        status, since = stale or ("fresh", now)
        if status == self.status:
            return []
        self.status = status
        return [Fresh() if status == "fresh" else Stale(status, since)]

    def _why_stale(
        self, kept: Kept | None, now: float, *, signer_revoked: bool
    ) -> tuple[StaleReason, float] | None:
        """Why what runs is stale, and since when."""
        assert self._started_at is not None
        if self._is_expired(kept, now):
            return "expired", now
        if signer_revoked:
            return "signer-revoked", now
        if self._heard_at is None:
            heard_at = self._started_at
            patience = FLOOR_WAIT_S if self._began_empty else MIN_BEACON_VALID_S
        else:
            heard_at = self._heard_at
            valid_s = float(self._beacon.document.valid_s) if self._beacon is not None else 0.0
            patience = max(MIN_BEACON_VALID_S, valid_s)
        if now - heard_at >= patience:
            return "no-beacon", heard_at
        if self._behind_since is not None and now - self._behind_since >= WITHHELD_AFTER_S:
            return "root-withheld", self._behind_since
        if self._differs_since is not None and now - self._differs_since >= WITHHELD_AFTER_S:
            return "withheld", self._differs_since
        return None

    def _is_expired(self, kept: Kept | None, now: float) -> bool:
        running = kept.running if kept is not None else None
        if running is None or running[0].not_after is None or self._wall_ahead is None:
            return False
        try:
            return parse_rfc3339(running[0].not_after) < now + self._wall_ahead
        except (ValueError, OverflowError):
            return True  # a date that can't be read counts as passed: that is the safe side

    def _lacks_a_root(self, root: Root) -> bool:
        """A newer root is vouched for, or was trusted once, than the client was given."""
        wanted = self._beacon.document.root_version if self._beacon is not None else 0
        return max(wanted, self._lost_root) > root.version

    def _lacks_the_snapshot(self) -> bool:
        """The newest beacon names a snapshot that did not come: a broker may hold it back."""
        if self._beacon is None:
            return False
        return self._snapshot is None or self._snapshot.digest != self._beacon.document.snapshot

    def _differs_from_snapshot(self, kept: Kept | None) -> bool:
        """Whether the newest snapshot names something else for this service than the client holds."""
        if self._snapshot is None:
            return False
        if kept is None:
            return self.wanted is not None
        if self.wanted is None:
            return not kept.deleted
        seen = kept.seen
        return seen is None or self.wanted != (seen.mark.revision, seen.digest)


def _since(began: float | None, now: float) -> float:
    """When the present reason began."""
    return now if began is None else began


class Overdue:
    """Whether what runs has been stale for too long. Monotonic seconds."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._since: float | None = None
        self._is_said = False

    def judge(self, status: Status | None, now: float) -> StaleReason | None:
        """Why it is stale, once each time that this has lasted too long."""
        if self._limit_s is None or status is None or status == "fresh":
            self._since, self._is_said = None, False
            return None
        self._since = _since(self._since, now)
        if now - self._since < self._limit_s or self._is_said:
            return None
        self._is_said = True
        return status
