"""Refused messages that a newer root might let in: kept, bounded, to be judged again then.

    overtaking      by a key that no root lists yet: the root may be on its way
    fast-forwarded  well signed, but behind a mark: perhaps a thief's mark, which falls with the stolen key

The refusal of an overtaking message is said a little later, and not at all if its root comes in time.
"""

from __future__ import annotations

from dataclasses import dataclass

from config_manager.config.trust import Distrust

ROOT_MAY_FOLLOW_S = 0.5
"""How long a message by an unknown key waits for its root before its refusal is said. Retained
messages come in any order: on a connect, a configuration may be tenths of a second ahead of the
root that lists its key, and that is no attack. A longer wait would hide a real attack for longer."""

_FAST_FORWARDED = ("rolled-back", "equivocation")


@dataclass(slots=True, eq=False)
class Aside:
    """A message, why it was refused, and whether that is still to be said. Monotonic seconds."""

    topic: str
    payload: bytes
    arrived_at: float
    verdict: Distrust
    is_unsaid: bool

    @property
    def overtakes(self) -> bool:
        return self.verdict.reason == "unknown-key"


def is_fast_forwarded(verdict: Distrust) -> bool:
    """Whether only a mark stands against it."""
    return verdict.reason in _FAST_FORWARDED


class SetAside:
    """What was set aside, oldest first."""

    def __init__(self) -> None:
        self._messages: list[Aside] = []

    @property
    def due(self) -> float | None:
        """When the next refusal is to be said."""
        unsaid = (one.arrived_at for one in self._messages if one.is_unsaid)
        earliest = min(unsaid, default=None)
        return earliest + ROOT_MAY_FOLLOW_S if earliest is not None else None

    def holds(self, topic: str, payload: bytes) -> bool:
        return any(one.topic == topic and one.payload == payload for one in self._messages)

    def add(self, new: Aside, *, at_most: int) -> list[Distrust]:
        """Set a message aside; the newest of its topic and kind stay. Returns the refusals of those that had to go."""
        self._messages.append(new)
        alike = [
            one
            for one in self._messages
            if one.topic == new.topic and one.overtakes == new.overtakes
        ]
        gone = alike[:-at_most]
        self._messages = [one for one in self._messages if one not in gone]
        return [one.verdict for one in gone if one.is_unsaid]

    def put_back(self, one: Aside) -> None:
        """Set it aside again: it is still refused."""
        self._messages.append(one)

    def take_all(self) -> list[Aside]:
        """Take everything out, to be judged again."""
        taken, self._messages = self._messages, []
        return taken

    def say(self, now: float) -> list[Distrust]:
        """The refusals to say now: their roots have had time to come."""
        late = [
            one
            for one in self._messages
            if one.is_unsaid and now >= one.arrived_at + ROOT_MAY_FOLLOW_S
        ]
        for one in late:
            one.is_unsaid = False
        return [one.verdict for one in late]
