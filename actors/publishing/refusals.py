"""What one broker does not take: found out, set aside and named, so that everything else goes on.

A broker refuses in four ways. It announces a limit; it answers with a reason code; it hangs up, and does not
say at what; or it acknowledges and throws away. Only hanging up costs other messages anything. So every message
that was on its way when a connection broke is suspected: from then on it is sent alone and last. A message that
breaks the connection again is set aside; one that is taken is suspected no longer.

Kept across connections. Does no I/O: the sender asks first, and tells what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from math import inf
from typing import Literal

import trio

from config_manager.config import wire

Turn = Literal["free", "alone", "aside"]
Way = Literal["suspected", "hung up", "answered", "over the limit", "never given back"]

BREAKS = 3
AGAIN_S = 600.0
"""Until a message that broke the connection is tried again as it is: an attempt costs a connection."""
ANSWERED_AGAIN_S = 60.0
"""Until one that was refused by a code is: an attempt costs nothing, and an ACL may be mended."""

_REFUSED = 128
_NOT_THE_MESSAGE = frozenset({0, 137, 139, 141, 142, 150, 152, 156, 157, 159, 160})
"""Codes of a DISCONNECT that are not about a message: busy, shutting down, taken over, …"""
_WORDS = {
    128: "unspecified error",
    131: "implementation specific error",
    135: "not authorized",
    144: "topic name invalid",
    145: "packet identifier in use",
    149: "packet too large",
    151: "quota exceeded",
    153: "payload format invalid",
}


def packet_bytes(topic: str, payload: bytes) -> int:
    """How large the PUBLISH is (MQTT 5, QoS 1, no properties)."""
    rest = 2 + len(topic.encode()) + 2 + 1 + len(payload)
    length, left = 1, rest
    while left := left >> 7:
        length += 1
    return 1 + length + rest


def name_of(topic: str) -> str:
    """What operators call it: a service's configuration by the service, other documents by their topic."""
    return topic.removeprefix(wire.config_topic(""))


@dataclass(slots=True)
class _Trouble:
    way: Way
    content: str
    size: int
    breaks: int = 0
    again_at: float = inf


class BrokerRefusals:
    """What one broker refuses, by topic."""

    def __init__(
        self,
        aside: MutableMapping[str, str],
        named: Callable[[str, str], None],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """aside: kept as name → why, for others to see. named: told of each new entry."""
        self._aside = aside
        self._named = named
        self._clock = clock
        self._limit: int | None = None
        self._troubles: dict[str, _Trouble] = {}
        self._in_flight: dict[str, tuple[str, int]] = {}

    def connected(self, limit: int | None, *, after_absence: bool) -> None:
        """A connection begins. limit: what the broker announced. after_absence: the broker could not be reached
        in between, so it may be another one, or configured anew."""
        anew = after_absence or limit != self._limit
        self._limit = limit
        self._in_flight.clear()
        for trouble in self._troubles.values():
            if trouble.way == "answered" or (trouble.way == "hung up" and anew):
                trouble.again_at = self._clock()

    def judge(self, topic: str, content: str, size: int) -> Turn:
        """Whether this may be sent now. content: a digest; another one is worth another try."""
        trouble = self._troubles.get(topic)
        if self._limit is not None and size > self._limit:
            self._set_aside(
                topic,
                _Trouble("over the limit", content, size),
                f"a message of {size:,} bytes is over its limit of {self._limit:,}",
            )
            return "aside"
        if trouble is None:
            return "free"
        is_due = self._clock() >= trouble.again_at
        verdict: Turn = "free"
        if trouble.way == "suspected":
            verdict = "alone"
        elif trouble.way == "hung up":
            # by size, because a snapshot has another content every few seconds
            verdict = "alone" if size < trouble.size or is_due else "aside"
        elif trouble.way == "answered" and content == trouble.content and not is_due:
            verdict = "aside"
        elif trouble.way == "over the limit":
            self.forget(topic)
        return verdict

    def breaks(self, topic: str) -> int:
        """How often the connection broke with it on its way."""
        trouble = self._troubles.get(topic)
        return trouble.breaks if trouble is not None else 0

    def due(self) -> list[str]:
        """Topics that are worth another try by now."""
        now = self._clock()
        return [topic for topic, trouble in self._troubles.items() if now >= trouble.again_at]

    def handed(self, topic: str, content: str, size: int) -> None:
        """Note that it was sent."""
        self._in_flight[topic] = (content, size)
        if (trouble := self._troubles.get(topic)) is not None:
            trouble.again_at = inf

    def answered(self, topic: str, code: int) -> bool:
        """The broker's PUBACK came. Returns whether the broker took the message."""
        content, size = self._in_flight.pop(topic, ("", 0))
        if code < _REFUSED:
            if self._way(topic) != "never given back":
                self.forget(topic)
            return True
        again = self._clock() + ANSWERED_AGAIN_S
        self._set_aside(
            topic,
            _Trouble("answered", content, size, again_at=again),
            f"it answered {code}{_words(code)} to a message of {size:,} bytes",
        )
        return False

    def broke(self, code: int | None) -> None:
        """The connection broke. code: of the broker's DISCONNECT, if it sent one."""
        suspects, self._in_flight = self._in_flight, {}
        if code in _NOT_THE_MESSAGE:
            return
        for topic, (content, size) in suspects.items():
            before = self._troubles.get(topic)
            is_known = before is not None and before.way in ("suspected", "hung up")
            breaks = 1 + (self.breaks(topic) if is_known else 0)
            if breaks < BREAKS:
                self._troubles[topic] = _Trouble("suspected", content, size, breaks)
                continue
            self._set_aside(
                topic,
                _Trouble("hung up", content, size, breaks, self._clock() + AGAIN_S),
                f"it hung up {breaks} times at a message of {size:,} bytes{_words(code)}",
            )

    def never_given_back(self, topic: str, times: int) -> None:
        """Acknowledged that many times, and not once read back."""
        again = self._clock() + ANSWERED_AGAIN_S
        self._set_aside(
            topic,
            _Trouble("never given back", "", 0, again_at=again),
            f"acknowledged {times} times, never given back: an ACL or a size limit of the broker?",
        )

    def forget(self, topic: str) -> None:
        """It was read back, or nobody wants it there any more."""
        if self._troubles.pop(topic, None) is not None:
            self._aside.pop(name_of(topic), None)

    def _way(self, topic: str) -> Way | None:
        trouble = self._troubles.get(topic)
        return trouble.way if trouble is not None else None

    def _set_aside(self, topic: str, trouble: _Trouble, why: str) -> None:
        """Names it once for each way: the size of a snapshot changes every few seconds."""
        is_told = name_of(topic) in self._aside and self._way(topic) == trouble.way
        self._troubles[topic] = trouble
        self._aside[name_of(topic)] = why
        if not is_told:
            self._named(name_of(topic), why)


def _words(code: int | None) -> str:
    return f" ({_WORDS[code]})" if code in _WORDS else ""
