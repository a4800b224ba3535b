"""Drift as it begins and ends: what is open, the newest events, and what is not in the database yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from config_manager.config.world import WallClock
from config_manager.storage.drifts import Drift, State
from config_manager.storage.state import ServiceState

EVENTS_KEPT = 1_024
_UNSAVED = 10_000


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """Drift began, or ended: then state and why are of the drift that ended.

    seq: rises, over restarts too, with gaps. since: when the instance came into the state; at: when the drift began or
    ended. Unix seconds. revision, correlation_id: of what was wanted; None if nobody had written the service.
    """

    seq: int
    event: Literal["began", "ended"]
    service: str
    instance: str
    state: State
    why: str
    since: float
    at: float
    revision: int | None
    correlation_id: str | None


class DriftLog:
    """One drift an instance at most is open."""

    def __init__(self, clock: WallClock) -> None:
        self.last_seq = 0
        """of the newest event"""
        self.told = Counter[tuple[State, Literal["began", "ended"]]]()
        """how often, since the start"""
        self._clock = clock
        self._open: dict[tuple[str, str], Drift] = {}
        self._drifting_instances = Counter[str]()
        self._events = deque[DriftEvent](maxlen=EVENTS_KEPT)
        self._unsaved: dict[int, Drift] = {}

    def open(self, service: str | None = None) -> list[Drift]:
        """What is there now, in the order in which it began."""
        return sorted(one for one in self._open.values() if service in (None, one.service))

    @property
    def drifting_services(self) -> int:
        return len(self._drifting_instances)

    def events_after(self, seq: int) -> tuple[DriftEvent, ...]:
        return tuple(event for event in self._events if event.seq > seq)

    def unsaved(self) -> Sequence[Drift]:
        """What began or ended, and is not in the database yet."""
        return list(self._unsaved.values())

    def saved(self, drifts: Sequence[Drift]) -> None:
        """They are in the database now."""
        for one in drifts:
            if self._unsaved.get(one.seq) is one:
                del self._unsaved[one.seq]

    def begin(
        self,
        service: str,
        instance: str,
        state: State,
        why: str,
        since: float,
        wanted: ServiceState | None,
    ) -> Drift:
        """since: when the instance came into the state. wanted: what it should run."""
        drift = Drift(
            self._next_seq(),
            service,
            instance,
            state,
            why,
            since,
            self._clock.now(),
            None if wanted is None else wanted.revision,
            None if wanted is None else wanted.correlation_id,
        )
        self.note_open(drift)
        self._tell_event("began", drift, drift.seq, drift.began)
        return drift

    def note_open(self, drift: Drift) -> None:
        """It goes on: since before the start, or with another why."""
        key = (drift.service, drift.instance)
        if key not in self._open:
            self._drifting_instances[drift.service] += 1
        self._open[key] = drift
        self._to_save(drift)

    def end(self, drift: Drift) -> None:
        key = (drift.service, drift.instance)
        found = self._open.get(key)
        if found is not None and found.seq == drift.seq:  # not another one that began meanwhile
            del self._open[key]
            self._drifting_instances[drift.service] -= 1
            if not self._drifting_instances[drift.service]:
                del self._drifting_instances[drift.service]
        seq, now = self._next_seq(), self._clock.now()
        self._to_save(drift._replace(ended=now, ended_seq=seq))
        self._tell_event("ended", drift, seq, now)

    def _to_save(self, drift: Drift) -> None:
        self._unsaved[drift.seq] = drift
        if len(self._unsaved) > _UNSAVED:
            del self._unsaved[next(iter(self._unsaved))]

    def _tell_event(
        self, event: Literal["began", "ended"], drift: Drift, seq: int, at: float
    ) -> None:
        told = DriftEvent(
            seq=seq,
            event=event,
            service=drift.service,
            instance=drift.instance,
            state=drift.state,
            why=drift.why,
            since=drift.since,
            at=at,
            revision=drift.revision,
            correlation_id=drift.correlation_id,
        )
        self._events.append(told)
        self.told[drift.state, event] += 1

    def _next_seq(self) -> int:
        """By the clock, so that none is given twice, whatever was kept of the last ones before a crash."""
        self.last_seq = max(self.last_seq + 1, int(self._clock.now() * 1_000))
        return self.last_seq
