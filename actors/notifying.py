"""Tells others what happened: webhooks, each target in order and one at a time.

Nobody waits for this actor. What happened is read from where it is kept anyway: changes from the history, drift from its
board. So a target that is down costs its own queue alone, and a restart goes on at the place that each has reached. The
places, and refusals that wait, are written down at most once a second: after a kill the last second is told again, with
the same ids, and a refusal of that second may be lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from config_manager.actors.actor import Context, Full, Gone, Life, Request, follower
from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.http_out import Answered, Unanswered
from config_manager.actors.notices import (
    MOST_WAITING,
    Notice,
    before,
    events_of,
    kept_refusal,
    of_change,
    of_drift,
    of_refusal,
    refused_revision,
)
from config_manager.actors.notified import Notified, Post, Result
from config_manager.actors.statuses import HeardReceipt, StatusBoard
from config_manager.actors.views import CommittedView
from config_manager.config import strict_json
from config_manager.config.errors import NotFound, Refusal
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.notifications import (
    TARGET,
    NotePlaces,
    Notification,
    Place,
    kept_refusals,
    last_refusal,
    notifications,
    place_of,
)
from config_manager.storage.drifts import Drift, DriftQuery
from config_manager.storage.state import Committed
from config_manager.storage.trace import Change, ChangesQuery

_GATHER_S = 1.0
_READ_EVERY_S = 0.2
"""Changes are read that often at most, so that a flood of writes is not slowed."""
_READ_WITHIN_S = 10.0
_PAGE = 500
_RETRY_S = 5.0
_FAREWELL_S = 1.0


class Kept(Protocol):
    """What is read of the past. Raises Refusal and TooSlowError."""

    async def changes(self, query: ChangesQuery, context: Context, /) -> Sequence[Change]: ...

    async def drifts(self, query: DriftQuery, context: Context, /) -> Sequence[Drift]: ...


@dataclass(frozen=True, slots=True)
class SendTest(Request[Answered | Unanswered]):
    """Send a test to a target now, past what waits. Refused with NotFound. within_s: of the answer."""

    name: str
    within_s: float


class Notifier:
    """What the actor works on across its lives. listeners: told of every notice, whether or not there is a target."""

    def __init__(
        self,
        view: CommittedView,
        kept: Kept,
        drift: DriftBoard,
        statuses: StatusBoard,
        write_down: Callable[[Decidable[None]], Awaitable[None]],
        post: Post,
    ) -> None:
        """statuses: filled with what was known before the start, which is no news. write_down: raises what asking
        storing raises."""
        self._view = view
        self._kept = kept
        self._drift = drift
        self._write_down = write_down
        self._post = post
        self.listeners: list[Callable[[Notice], None]] = []
        self._targets: dict[str, Notified] = {}
        self._rows: Mapping[str, JsonObject] = {}
        self._written: dict[Notification, Place] = {}
        self._unkept: dict[int, Notice] = {}
        self._dirty = trio.Event()
        self._nursery: trio.Nursery | None = None
        committed = view.committed
        self._pending = deque(kept_refusal(*one) for one in kept_refusals(committed))
        self._refused = {
            (one.receipt.service, one.receipt.instance): revision
            for one in statuses.statuses()
            if (revision := refused_revision(one.receipt)) is not None
        }
        statuses.on_receipt.append(self._heard)
        # back to where the target that is furthest behind has come
        self._here = Place(committed.revision, drift.last_seq, last_refusal(committed))
        self._look_at_targets(committed)
        behind = [self._here, *(one.start for one in self._targets.values())]
        self._told = self._here._replace(
            revision=min(place.revision for place in behind),
            drift=min(place.drift for place in behind),
        )
        self._drift_seq = self._told.drift
        self._is_recalled = not self._targets

    # ── what others see ────────────────────────────────────────────────────────────────────────

    def targets(self) -> list[Notified]:
        """By name."""
        return [self._targets[name] for name in sorted(self._targets)]

    def of(self, target: Notification) -> Notified | None:
        """How it goes with a target; None while the actor has not seen it yet."""
        one = self._targets.get(target.name)
        return one if one is not None and one.target == target else None

    @property
    def results(self) -> Counter[Result]:
        """What became of messages, of all targets, since the start."""
        return self._post.results

    def reasons(self) -> list[str]:
        """For /health: a line for each target that fails. Not why: anybody reads it, and that names the receiver."""
        return [
            f"notification {one.target.name} has been failing for over a day: GET /api/v1/notifications says why"
            for one in self.targets()
            if one.is_failing
        ]

    # ── life ───────────────────────────────────────────────────────────────────────────────────

    async def work(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for one in self._targets.values():
                self._start(one, nursery)
            await self._recall()
            nursery.start_soon(self._follow_changes)
            nursery.start_soon(self._follow_drift)
            nursery.start_soon(self._write_places)

    async def handle(self, request: SendTest, _context: Context) -> Answered | Unanswered:
        self._look_at_targets(self._view.committed)
        one = self._targets.get(request.name)
        if one is None:
            raise NotFound(f"there is no notification {request.name!r}")
        world = self._post.world
        body: JsonObject = {
            "type": "test",
            "name": request.name,
            "at": rfc3339(world.clock.now()),
        }
        message_id = f"test-{world.randomness.uuid()}"
        return await one.test(message_id, strict_json.dumps(body), request.within_s)

    # ── where notices come from ────────────────────────────────────────────────────────────────

    async def _recall(self) -> None:
        """Drift that was kept before the start, and that some target was not told; between it kept refusals."""
        if self._is_recalled:
            return
        self._is_recalled = True
        query = DriftQuery(limit=_PAGE, since=self._told.drift / 1_000)
        try:
            drifts = await self._kept.drifts(query, _context())
        except (Refusal, trio.TooSlowError) as error:
            structlog.get_logger().warning("drift not read", error=str(error))
            return
        known = {event.seq for event in self._drift.events_after(0)}
        events = [event for drift in drifts for event in events_of(drift)]
        fresh = [one for one in events if one.seq > self._told.drift and one.seq not in known]
        told = [of_drift(one) for one in sorted(fresh, key=lambda one: one.seq)]
        self._pending = deque(sorted((*self._pending, *told), key=lambda one: one.at))

    async def _follow_changes(self) -> None:
        while True:
            committed = self._view.committed
            self._look_at_targets(committed)
            if not self._targets and not self.listeners:
                self._told = self._told._replace(revision=committed.revision)
            if self._told.revision < committed.revision or self._pending:
                are_read = await self._read_changes(committed.revision)
                self._hand_out_pending(float("inf"))
                await trio.sleep(_READ_EVERY_S if are_read else _RETRY_S)
                if not are_read:
                    continue
            elif not self._targets:
                await trio.sleep(_READ_EVERY_S)
            if self._view.committed is committed:
                await self._view.changed()

    async def _read_changes(self, upto: int) -> bool:
        """Hand out the changes up to this revision, and what is pending between them. False if they can't be read now."""
        while self._told.revision < upto:
            query = ChangesQuery(limit=_PAGE, after=self._told.revision)
            try:
                page = await self._kept.changes(query, _context())
            except (Refusal, trio.TooSlowError) as error:
                structlog.get_logger().warning("changes not read", error=str(error))
                return False
            changes = [change for change in page if change.revision <= upto]
            for change in changes:
                notice = of_change(change)
                self._hand_out_pending(notice.at)
                self._hand_out(notice)
            if len(changes) < _PAGE:
                self._told = self._told._replace(revision=upto)
        return True

    async def _follow_drift(self) -> None:
        while True:
            for event in self._drift.events_after(self._drift_seq):
                self._drift_seq = event.seq
                self._tell(of_drift(event))
            await self._drift.changed()

    def _heard(self, heard: HeardReceipt) -> None:
        """An instance that enrolled refused what it had not refused before. Anybody can claim to be another one."""
        receipt = heard.status.receipt
        key, revision = (receipt.service, receipt.instance), refused_revision(receipt)
        if revision is None:
            self._refused.pop(key, None)
        elif heard.status.verified and self._refused.get(key) != revision:
            self._refused[key] = revision
            number = self._here.refusal + 1
            self._here = self._here._replace(refusal=number)
            notice = of_refusal(receipt, number, heard.status.received_at)
            self._unkept[number] = notice
            if len(self._unkept) > MOST_WAITING:  # nothing can be written, and no target holds more
                del self._unkept[next(iter(self._unkept))]
            self._tell(notice)
            self._dirty.set()

    # ── handing out ────────────────────────────────────────────────────────────────────────────

    def _tell(self, notice: Notice) -> None:
        """Now, unless older ones wait to be handed out."""
        if self._pending:
            self._pending.append(notice)
        else:
            self._hand_out(notice)

    def _hand_out_pending(self, upto: float) -> None:
        while self._pending and self._pending[0].at <= upto:
            self._hand_out(self._pending.popleft())

    def _hand_out(self, notice: Notice) -> None:
        self._told = notice.reached(self._told)
        for one in self._targets.values():
            one.take(notice)
        for listener in self.listeners:
            listener(notice)

    # ── targets ────────────────────────────────────────────────────────────────────────────────

    def _look_at_targets(self, committed: Committed) -> None:
        rows = committed.registered(TARGET)
        if rows is self._rows:
            return
        self._rows = rows
        known = notifications(committed)
        for name, one in list(self._targets.items()):
            if known.get(name) != one.target:
                one.scope.cancel()
                del self._targets[name]
        for name in known.keys() - self._targets.keys():
            start = place_of(committed, name) or self._here
            if (
                self._nursery is not None
            ):  # it is new: it has missed nothing, wherever the clock was
                start = start._replace(drift=min(start.drift, self._drift.last_seq))
                start = start.at_least(self._told._replace(revision=0))
            one = self._targets[name] = Notified(known[name], start, self._post)
            if self._nursery is not None:
                self._start(one, self._nursery)

    def _start(self, one: Notified, nursery: trio.Nursery) -> None:
        one.scope = trio.CancelScope()
        nursery.start_soon(one.deliver, self._progressed)

    # ── what is kept ───────────────────────────────────────────────────────────────────────────

    def _progressed(self) -> None:
        self._dirty.set()

    async def _write_places(self) -> None:
        while True:
            await self._dirty.wait()
            await trio.sleep(_GATHER_S)
            if not await self.write():
                await trio.sleep(_RETRY_S)

    async def write(self) -> bool:
        """Keep what changed since the last time; False if that has to wait."""
        self._dirty = trio.Event()
        told = before(self._pending, self._told)
        places = {one.target: one.place(told) for one in self.targets()}
        done = min([place.refusal for place in places.values()] or [told.refusal])
        unkept = {number: one for number, one in self._unkept.items() if number > done}
        news = {key: place for key, place in places.items() if self._written.get(key) != place}
        is_over = any(number <= done for number, _ in kept_refusals(self._view.committed))
        if news or unkept or is_over:
            added = {number: one.data for number, one in unkept.items()}
            try:
                await self._write_down(NotePlaces(news, added, done))
            except (Refusal, Gone, Full, trio.TooSlowError) as error:
                structlog.get_logger().warning("places not kept", error=str(error))
                self._dirty.set()
                return False
        self._written = places
        # one that came meanwhile is kept the next time
        self._unkept = {n: one for n, one in self._unkept.items() if n > done and n not in unkept}
        return True


def notifying(notifier: Notifier) -> Life:
    async def say_goodbye() -> None:
        await notifier.write()

    return follower(
        notifier.work, answers=notifier.handle, at_end=say_goodbye, end_within_s=_FAREWELL_S
    )


def _context() -> Context:
    return Context("notifying", trio.current_time() + _READ_WITHIN_S)
