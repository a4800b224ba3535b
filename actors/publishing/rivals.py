"""Another client writes where we write: that is logged, and not answered message for message.

Two servers on one broker, each of which repairs what the other wrote, would go on for ever. So a topic that is
overwritten again and again is repaired less and less often, and counts as contested until it was quiet for a
while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field

import trio

from config_manager.config import wire

TIMES = 10
WITHIN_S = 60.0
QUIET_S = 180.0
"""Longer than the longest pause between two repairs: a rival would have overwritten one of these."""
REPAIR_INTERVAL_S = (1.0, 60.0)
"""Between two repairs of one topic. A hostile writer must not make us its amplifier."""

_ECHO_WITHIN_S = 10.0
_ECHOES = 16


class Echoes:
    """What this process sent a moment ago, on any way to a broker. If it comes back, it is our own, even if
    something newer is wanted by then."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._sent: dict[str, deque[tuple[str, float]]] = {}

    def sent(self, topic: str, payload: bytes, *, within_s: float = _ECHO_WITHIN_S) -> None:
        echo = (wire.digest(payload), self._clock() + within_s)
        self._sent.setdefault(topic, deque(maxlen=_ECHOES)).append(echo)

    def is_ours(self, topic: str, payload: bytes) -> bool:
        now, digest = self._clock(), wire.digest(payload)
        return any(digest == sent and now <= until for sent, until in self._sent.get(topic, ()))


@dataclass(slots=True)
class _Contest:
    times: deque[float] = field(default_factory=lambda: deque(maxlen=1_000))
    is_said: bool = False
    interval: float = REPAIR_INTERVAL_S[0]


class Rivals:
    """Other writers of our topics on one broker, kept across connections."""

    def __init__(
        self,
        contested: MutableMapping[str, int],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """contested: kept as topic → how often it was overwritten in a minute, at most."""
        self._contested = contested
        self._clock = clock
        self._contests: dict[str, _Contest] = {}

    def overwritten(self, topic: str) -> bool:
        """Another client wrote there just now. Returns whether that is worth a warning."""
        now = self._clock()
        contest = self._contests.setdefault(topic, _Contest())
        contest.times.append(now)
        while contest.times[0] <= now - WITHIN_S:
            contest.times.popleft()
        count = len(contest.times)
        if count < TIMES and not contest.is_said:
            return False
        news, contest.is_said = not contest.is_said, True
        self._contested[topic] = max(count, self._contested.get(topic, 0))
        return news

    def is_contested(self, topic: str) -> bool:
        return topic in self._contested

    def interval(self, topic: str) -> float:
        """Until the next repair, after one that is made now."""
        contest = self._contests.get(topic)
        if contest is None or not contest.is_said:
            return REPAIR_INTERVAL_S[0]
        contest.interval = min(2 * contest.interval, REPAIR_INTERVAL_S[1])
        return contest.interval

    def ended(self) -> list[str]:
        """Forget topics that have been quiet for long enough. Returns those that were contested."""
        before = self._clock() - QUIET_S
        quiet = [topic for topic, one in self._contests.items() if one.times[-1] < before]
        return [
            topic
            for topic in quiet
            if self._contests.pop(topic).is_said and self._contested.pop(topic, None) is not None
        ]
