"""Refused messages: each is counted, and of a flood only some are said."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict

from config_manager.client.rules.events import Refused
from config_manager.client.rules.set_aside import Aside
from config_manager.config.trust import Distrust, Reason

_MOST_SAID = 100
_SAID_PERIOD_S = 10.0
"""Refusals of one reason that are said within this time; all are counted."""

_REMEMBERED = 256


class Refusals:
    """The refusals of one subscriber. Monotonic seconds."""

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self._said: dict[Reason, tuple[float, int]] = {}
        self._recent: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def refuse(self, verdict: Distrust, topic: str, payload: bytes, now: float) -> list[Refused]:
        """What to say of it: nothing if the same message was refused just before."""
        self.counts[verdict.reason] += 1
        key = _fingerprint(topic, payload)
        if key in self._recent:
            self._recent.move_to_end(key)
            return []
        self._recent[key] = None
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return [Refused.by(verdict)] if self._may_say(verdict.reason, now) else []

    def pardon(self, one: Aside) -> None:
        """Take a refusal back, unless it was said already."""
        if one.is_unsaid:
            self.counts[one.verdict.reason] -= 1
        self._recent.pop(_fingerprint(one.topic, one.payload), None)

    def forget(self) -> None:
        """What was refused may be said again."""
        self._recent.clear()

    def _may_say(self, reason: Reason, now: float) -> bool:
        """A flood of ever different junk is counted, but must not fill the log."""
        began, said = self._said.get(reason, (-math.inf, 0))
        if now - began >= _SAID_PERIOD_S:
            began, said = now, 0
        self._said[reason] = (began, said + 1)
        return said < _MOST_SAID


def _fingerprint(topic: str, payload: bytes) -> tuple[str, bytes]:
    return topic, hashlib.sha256(payload).digest()
