"""Whether a publisher's proofs of life come as fast as it made them.

A hostile broker can record genuine beacons and give them out at a crawl: each rises, each is well
signed, and every one is older than the one before pretends. So a beacon proves that the publisher
lives *now* only where its progress keeps up with our own monotonic clock:

    progress   from one beacon to the next, the time that the publisher says has passed: the rise of
               `issued_at`; where that did not rise (its clock was set back, or stands), a third of
               `valid_s`, which is its heartbeat, for each number that `seq` rose
    lag        how much longer the same took by our clock; never below 0, so that what a publisher's
               clock leaps ahead is no credit for later

Its clock need not be right, nor ours: both need only run. `seq` counts for nothing beside a clock that
runs, because a publisher makes a beacon a second while its settings are changed: of an hour of
these, a broker could make ten. A publisher that starts again with a clock behind the one it had
before is measured from there: nothing says how long it was away.
"""

from __future__ import annotations

from config_manager.config.documents import Beacon
from config_manager.config.world import parse_rfc3339

MAX_LAG_S = 30.0
"""How far the beacons may have fallen behind: brokers queue, networks and machines stall."""

CLOCK_DRIFT = 500e-6
"""How much slower than ours an honest clock may run: as much as NTP will slew one. Without it, two
cheap clocks come 30 s apart within days; with it, who crawls gains 43 s a day at most."""

_HEARTBEATS_VALID = 3


class Pace:
    """Of one publisher's beacons, in the order in which they rise. Monotonic seconds."""

    def __init__(self) -> None:
        self._newest: tuple[Beacon, float] | None = None
        self._lag_s = 0.0

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
        progress = _progress_s(earlier, beacon)
        if progress is None:
            self._lag_s = 0.0
            return
        took = (at - earlier_at) * (1 - CLOCK_DRIFT)
        self._lag_s = max(0.0, self._lag_s + took - progress)


def _progress_s(earlier: Beacon, later: Beacon) -> float | None:
    """The time between the two by the publisher's word; None where it has none to give."""
    rise = _rise_s(earlier.issued_at, later.issued_at)
    if rise > 0:
        return rise
    if later.boot_seq != earlier.boot_seq:
        return None
    return (later.seq - earlier.seq) * later.valid_s / _HEARTBEATS_VALID


def _rise_s(earlier: str, later: str) -> float:
    try:
        return parse_rfc3339(later) - parse_rfc3339(earlier)
    except (ValueError, OverflowError):
        return 0.0  # no date: as a clock that stands
