"""When what one broker should hold is put right: a hostile broker must not make us its amplifier."""

from __future__ import annotations

from collections.abc import Callable

import trio

CLEAR_INTERVAL_S = 1.0
_MOST = 10_000
"""Topics that are remembered at once. Each watch forgets those whose pause is over."""


class Repairs:
    """The repairs on one connection, by topic."""

    def __init__(self, interval_s: Callable[[str], float]) -> None:
        """interval_s: until the next repair of a topic, after one that is made now."""
        self._interval_s = interval_s
        self._not_before: dict[str, float] = {}
        self._due: dict[str, Callable[[], None]] = {}

    def do(self, topic: str, repair: Callable[[], None], *, at_once: bool = False) -> None:
        """Repair now, or with a later watch if this topic was repaired just before. at_once: now in any case."""
        now = trio.current_time()
        if at_once or now >= self._not_before.get(topic, 0.0):
            self._not_before[topic] = now + self._interval_s(topic)
            self._due.pop(topic, None)
            repair()
        else:
            self._due[topic] = repair

    def may_clear(self, topic: str) -> bool:
        """Whether a topic that we want empty may be emptied now: at most once a second. True counts as done."""
        now = trio.current_time()
        may = now >= self._not_before.get(topic, 0.0) and len(self._not_before) < _MOST
        if may:
            self._not_before[topic] = now + CLEAR_INTERVAL_S
        return may

    def has_room_for(self, topic: str) -> bool:
        return topic in self._not_before or len(self._not_before) < _MOST

    def do_what_is_due(self) -> None:
        now = trio.current_time()
        self._not_before = {t: until for t, until in self._not_before.items() if until > now}
        for topic in [t for t in self._due if t not in self._not_before]:
            self.do(topic, self._due[topic])
