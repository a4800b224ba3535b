"""Whether a publisher's proofs of life come as fast as the publisher made them.

A hostile broker can record genuine beacons and give them out slowly, or late: each rises, each is well
signed, and each is older than it seems. So a beacon proves that the publisher lives *now* only if its
progress keeps up with the client's own monotonic clock:

    progress   from one beacon to the next, the time that the publisher says has passed: the rise of
               `issued_at`; where that did not rise (its clock was set back, or stands), a third of
               `valid_s`, which is its heartbeat, for each number that `seq` rose
    lag        how much longer the same took by the client's clock; never below 0, so a publisher's
               clock that leaps ahead gives no credit for later

Neither clock need be right. But a publisher's clock that was set back by less than the time since the last
beacon looks like a slow replay, and a machine without a clock of its own resumes after a power cut where it
stopped. So lag with such an *excuse* is forgiven, `MOST_FORGIVEN` times an hour: the publisher was started
again (nothing says how long it was away), or `seq` rose by as many heartbeats as the time took. `seq`
counts for no more than that: while settings are changed, a publisher makes a beacon a second, and from an
hour of these a broker could make ten.

What this leaves to a replaying broker: `CLOCK_DRIFT`; beyond the time that it recorded, `MAX_LAG_S` and a
beacon's `valid_s` (a minute) once, and again as often as is forgiven; and after a silence, which shows as
stale, beacons that are older than they seem by nine times the busy time that it recorded, or that were
recorded before a restart.
"""

from __future__ import annotations

from collections import deque

from config_manager.config.documents.beacon import Beacon
from config_manager.config.world import parse_rfc3339

MAX_LAG_S = 30.0
"""How far the beacons may fall behind: brokers queue, and networks and machines stall."""

CLOCK_DRIFT = 500e-6
"""How much slower than the client's an honest clock may run: as much as NTP will slew one. Without it, two
cheap clocks come 30 s apart within days; with it, a slow replay gains 43 s a day at most."""

MOST_FORGIVEN = 3
"""Lags with an excuse in an hour: clocks are set, and machines restarted, now and then."""
_FORGIVEN_WITHIN_S = 3600.0

_HEARTBEATS_VALID = 3
_SLOWEST_HEART = 1.1
_LATE_S = 5.0
"""A heart that beats a tenth too slowly, or a beacon that is late, is an excuse, too."""


class Pace:
    """Of one publisher's beacons, in the order in which they rise. Monotonic seconds."""

    def __init__(self) -> None:
        self._newest: tuple[Beacon, float] | None = None
        self._lag_s = 0.0
        self._excused_s = 0.0
        self._forgiven = deque[float](maxlen=MOST_FORGIVEN)

    @property
    def keeps_up(self) -> bool:
        """Whether the newest beacon says something about now."""
        return self._lag_s <= MAX_LAG_S

    def heard(self, beacon: Beacon, at: float) -> None:
        """A verified beacon, higher than every one before."""
        before, self._newest = self._newest, (beacon, at)
        if before is None:
            return
        earlier, earlier_at = before
        took = (at - earlier_at) * (1 - CLOCK_DRIFT)
        behind = took - _progress_s(earlier, beacon)
        self._lag_s = max(0.0, self._lag_s + behind)
        if _is_excused(earlier, beacon, took):
            self._excused_s += max(0.0, behind)
        self._excused_s = min(self._excused_s, self._lag_s)  # once caught up, nothing is excused
        if not self.keeps_up and self._lag_s - self._excused_s <= MAX_LAG_S:
            self._forgive(at)

    def _forgive(self, at: float) -> None:
        often = len(self._forgiven) == MOST_FORGIVEN
        if not often or at - self._forgiven[0] >= _FORGIVEN_WITHIN_S:
            self._forgiven.append(at)
            self._lag_s = self._excused_s = 0.0


def _progress_s(earlier: Beacon, later: Beacon) -> float:
    """The time between the two by the publisher's word."""
    rise = _rise_s(earlier.issued_at, later.issued_at)
    if rise > 0:
        return rise
    return 0.0 if later.boot_seq != earlier.boot_seq else _beats_s(earlier, later)


def _is_excused(earlier: Beacon, later: Beacon, took: float) -> bool:
    """Whether so much time may have passed at an honest publisher whose clock was set back."""
    if later.boot_seq != earlier.boot_seq:
        return True
    return _beats_s(earlier, later) * _SLOWEST_HEART + _LATE_S >= took


def _beats_s(earlier: Beacon, later: Beacon) -> float:
    """Of one life: how long that many heartbeats take."""
    return (later.seq - earlier.seq) * later.valid_s / _HEARTBEATS_VALID


def _rise_s(earlier: str, later: str) -> float:
    try:
        return parse_rfc3339(later) - parse_rfc3339(earlier)
    except (ValueError, OverflowError):
        return 0.0  # no date: like a clock that stands
