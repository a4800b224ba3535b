"""Tells others what happened: webhooks, each target in order and one at a time.

Nobody waits for this actor. What happened is read from where it is kept anyway: changes from the history, drifts and
refusals from the boards. So a target that is down costs its own queue, and a restart goes on at the place that was
kept. That place is written down at most once a second: after a kill the last second may be told again, with the same ids.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog
import trio
from nacl.exceptions import CryptoError

from config_manager.actors.actor import Context, Full, Gone, Life, Request, follower
from config_manager.actors.http_out import Answered, Unanswered, post
from config_manager.actors.notices import Notice, Queue, of_change
from config_manager.actors.views import CommittedView
from config_manager.config import strict_json
from config_manager.config.errors import NotFound, Refusal
from config_manager.config.http_target import HttpTarget, parse_http_target
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.webhooks import signed
from config_manager.config.world import World, backoff_s, rfc3339
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.notifications import (
    TARGET,
    EventKind,
    NotePlaces,
    Notification,
    Place,
    kept_notices,
    last_notice,
    notifications,
    place_of,
)
from config_manager.storage.state import Committed
from config_manager.storage.trace import Change, ChangesQuery

DELIVERED_WITHIN_S = 10.0
AGAIN_S = (1.0, 600.0)
"""First and longest pause before a message is sent again; the real one is anything from 0 to that."""
_GATHER_S = 1.0
_READ_EVERY_S = 0.2
"""Changes are read that often at most, so that a flood of writes is not slowed."""
_PAGE = 500
_RETRY_S = 5.0
_FAREWELL_S = 1.0

Send = Callable[
    [HttpTarget, bytes, Sequence[tuple[str, str]], float], Awaitable[Answered | Unanswered]
]
"""(to, body, headers, within so many seconds)"""


class ReadsChanges(Protocol):
    async def changes(self, query: ChangesQuery, context: Context, /) -> Sequence[Change]:
        """Raises Refusal and TooSlowError."""
        ...


async def send_over_http(
    to: HttpTarget, body: bytes, headers: Sequence[tuple[str, str]], within_s: float
) -> Answered | Unanswered:
    return await post(to, body, headers=headers, within_s=within_s)


@dataclass(frozen=True, slots=True)
class SendTest(Request[Answered | Unanswered]):
    """Send a test to a target now, past what waits. Refused with NotFound. within_s: of the answer."""

    name: str
    within_s: float


@dataclass(eq=False)
class Line:
    """A target, what it has yet to be told, and how it goes. start: what it is told comes after this place.
    last_error: why the newest try failed; None after a success. delivered_at: Unix seconds."""

    target: Notification
    start: Place
    queue: Queue = field(default_factory=Queue)
    is_failing: bool = False
    last_error: str | None = None
    delivered_at: float | None = None
    secret: Secret | None = None
    written: Place | None = None
    tries: int = 0
    gone: trio.CancelScope = field(default_factory=trio.CancelScope)
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def to(self) -> HttpTarget:
        return parse_http_target(self.target.url, plain=True)

    @property
    def state(self) -> Literal["ok", "trying", "failing"]:
        if self.is_failing:
            return "failing"
        return "ok" if self.last_error is None else "trying"

    def take(self, notice: Notice) -> bool:
        """Whether the notice is for this target and new to it."""
        is_new = notice.revision > self.start.revision or notice.number > self.start.notice
        if not is_new or not notice.concerns(self.target):
            return False
        self.queue.put(notice)
        self.wake()
        return True

    def wake(self) -> None:
        """There is something to send, or the target answers again: try now."""
        self._news.set()
        self._news = trio.Event()

    async def first(self) -> Notice:
        while (notice := self.queue.first) is None:
            await self._news.wait()
        return notice

    async def pause(self, seconds: float) -> None:
        """Before the next try; it ends early once a test succeeds."""
        with trio.move_on_after(seconds):
            while self.last_error is not None:
                await self._news.wait()

    def place(self, told: Place) -> Place:
        """How far it has come, if it was given everything up to `told`."""
        reached = self.queue.place(told)
        return Place(
            max(self.start.revision, reached.revision), max(self.start.notice, reached.notice)
        )


class Notifier:
    """What the actor works on across its lives. listeners: told of every notice, whether or not there is a target."""

    def __init__(
        self,
        view: CommittedView,
        reading: ReadsChanges,
        secret_of: Callable[[Notification], Awaitable[Secret]],
        write_down: Callable[[Decidable[None]], Awaitable[None]],
        world: World,
        instance_id: str,
        send: Send = send_over_http,
    ) -> None:
        """secret_of: raises Refusal and CryptoError. write_down: raises what asking storing raises. instance_id: begins
        the id of each message."""
        self._view = view
        self._reading = reading
        self._secret_of = secret_of
        self._write_down = write_down
        self._world = world
        self._instance_id = instance_id
        self._send = send
        self.listeners: list[Callable[[Notice], None]] = []
        self.results = Counter[Literal["delivered", "failed", "given-up"]]()
        """of all targets, since the start"""
        self._lines: dict[str, Line] = {}
        self._rows: Mapping[str, JsonObject] = {}
        committed = view.committed
        self._told = Place(committed.revision, last_notice(committed))
        self._unkept: dict[int, Notice] = {}
        self._pending = deque(Notice.of_row(n, row) for n, row in kept_notices(committed))
        self._dirty = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._look_at_targets(committed)
        # back to where the target that is furthest behind has come
        behind = [committed.revision, *(line.start.revision for line in self._lines.values())]
        self._told = self._told._replace(revision=min(behind))

    # ── what others see ────────────────────────────────────────────────────────────────────────

    def lines(self) -> list[Line]:
        """Every target, by name."""
        return [self._lines[name] for name in sorted(self._lines)]

    def line(self, target: Notification) -> Line | None:
        """How it goes with a target; None while the actor has not seen it yet."""
        line = self._lines.get(target.name)
        return line if line is not None and line.target == target else None

    def reasons(self) -> list[str]:
        """For /health: a line for each target that fails."""
        return [
            f"notification {line.target.name} has been failing for over a day: {line.last_error}"
            for line in self.lines()
            if line.is_failing
        ]

    # ── life ───────────────────────────────────────────────────────────────────────────────────

    async def work(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for line in self._lines.values():
                self._start(line)
            nursery.start_soon(self._follow_changes)
            nursery.start_soon(self._write_places)

    async def handle(self, request: SendTest, _context: Context) -> Answered | Unanswered:
        self._look_at_targets(self._view.committed)
        line = self._lines.get(request.name)
        if line is None:
            raise NotFound(f"there is no notification {request.name!r}")
        body: JsonObject = {
            "type": "test",
            "name": line.target.name,
            "at": rfc3339(self._world.clock.now()),
        }
        message_id = f"{self._instance_id}-test-{self._world.randomness.uuid()}"
        within_s = min(request.within_s, DELIVERED_WITHIN_S)
        answer = await self._post(line, message_id, strict_json.dumps(body), within_s)
        if answer.ok and line.last_error is not None:
            line.last_error = None  # it answers: what waits goes at once
            line.wake()
        return answer

    async def _follow_changes(self) -> None:
        while True:
            committed = self._view.committed
            self._look_at_targets(committed)
            if not self._lines and not self.listeners:
                self._told = self._told._replace(revision=committed.revision)
            elif self._told.revision < committed.revision or self._pending:
                are_read = await self._read_changes(committed.revision)
                self._hand_out_pending(float("inf"))
                await trio.sleep(_READ_EVERY_S if are_read else _RETRY_S)
                if not are_read:
                    continue
            if self._view.committed is committed:
                await self._view.changed()

    async def _read_changes(self, upto: int) -> bool:
        """Hand out the changes up to this revision, and kept notices between them. False if they can't be read now."""
        while self._told.revision < upto:
            context = Context("notifying", trio.current_time() + DELIVERED_WITHIN_S)
            query = ChangesQuery(limit=_PAGE, after=self._told.revision)
            try:
                page = await self._reading.changes(query, context)
            except (Refusal, trio.TooSlowError) as error:
                structlog.get_logger().warning("changes not read", error=str(error))
                return False
            changes = [change for change in page if change.revision <= upto]
            for change in changes:
                notice = of_change(change, self._instance_id)
                self._hand_out_pending(notice.at)
                self._hand_out(notice)
            if len(changes) < _PAGE:
                self._told = self._told._replace(revision=upto)
        return True

    def _hand_out_pending(self, before: float) -> None:
        while self._pending and self._pending[0].at <= before:
            self._hand_out(self._pending.popleft())

    # ── notices ────────────────────────────────────────────────────────────────────────────────

    def tell(
        self, kind: EventKind, notice_id: str, at: float, service: str, data: JsonObject
    ) -> None:
        """Something happened that no history has. notice_id: unique to it."""
        number = self._told.notice + 1
        full_id = f"{self._instance_id}-{notice_id}"
        notice = Notice(full_id, kind, at, (service,), data, number=number)
        self._unkept[number] = notice
        self._told = self._told._replace(notice=number)
        self._pending.append(notice)
        if len(self._pending) == 1:
            self._hand_out_pending(float("inf"))
        self._note_news()

    def _hand_out(self, notice: Notice) -> None:
        if notice.revision:
            self._told = self._told._replace(revision=notice.revision)
        for line in self._lines.values():
            line.take(notice)
        for listener in self.listeners:
            listener(notice)

    # ── targets ────────────────────────────────────────────────────────────────────────────────

    def _look_at_targets(self, committed: Committed) -> None:
        rows = committed.registered(TARGET)
        if rows is self._rows:
            return
        self._rows = rows
        known = notifications(committed)
        for name, line in list(self._lines.items()):
            if known.get(name) != line.target:
                line.gone.cancel()
                del self._lines[name]
        for name, target in known.items():
            if name not in self._lines:
                line = self._lines[name] = Line(target, place_of(committed, name))
                self._start(line)

    def _start(self, line: Line) -> None:
        if self._nursery is not None:
            line.gone = trio.CancelScope()
            self._nursery.start_soon(self._deliver, line)

    async def _deliver(self, line: Line) -> None:
        """Tell one target, for as long as it is one."""
        with line.gone:
            while True:
                notice = await line.first()
                answer = await self._post(line, notice.id, notice.body(line.target))
                if answer.ok:
                    self._note_delivered(line, notice)
                else:
                    self._note_failed(line, answer.why)
                    longest = backoff_s(line.tries - 1, first_s=AGAIN_S[0], longest_s=AGAIN_S[1])
                    await line.pause(longest * self._world.randomness.fraction())

    async def _post(
        self, line: Line, message_id: str, body: bytes, within_s: float = DELIVERED_WITHIN_S
    ) -> Answered | Unanswered:
        try:
            if line.secret is None:
                line.secret = await self._secret_of(line.target)
        except CryptoError:
            return Unanswered("its secret can't be read; remove it, and add it again")
        except (Refusal, trio.TooSlowError) as error:
            return Unanswered(str(error))
        signatures = signed(line.secret, message_id, self._world.clock.now(), body)
        headers = [("Content-Type", "application/json"), *signatures]
        return await self._send(line.to, body, headers, within_s)

    def _note_delivered(self, line: Line, notice: Notice) -> None:
        line.queue.done(notice)
        self.results["delivered"] += 1
        if line.tries:
            structlog.get_logger().info("notified again", name=line.target.name, tries=line.tries)
        line.tries, line.last_error, line.is_failing = 0, None, False
        line.delivered_at = self._world.clock.now()
        self._note_news()

    def _note_failed(self, line: Line, why: str) -> None:
        log = structlog.get_logger().bind(name=line.target.name, to=str(line.to), why=why)
        if not line.tries:
            log.warning("not notified")
        line.tries += 1
        line.last_error = why
        self.results["failed"] += 1
        before = line.queue.given_up
        if line.queue.give_up_old(self._world.clock.now()) and not line.is_failing:
            line.is_failing = True
            log.error("notification fails", waiting=len(line.queue))
        if given_up := line.queue.given_up - before:
            self.results["given-up"] += given_up
            self._note_news()

    # ── what is kept ───────────────────────────────────────────────────────────────────────────

    def _note_news(self) -> None:
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
        lines, told = self.lines(), self._told
        if self._pending:
            told = told._replace(notice=self._pending[0].number - 1)
        places = {line.target: line.place(told) for line in lines}
        done = min((place.notice for place in places.values()), default=told.notice)
        unkept = {number: one for number, one in self._unkept.items() if number > done}
        news = {
            line.target: places[line.target]
            for line in lines
            if line.written != places[line.target]
        }
        over = any(number <= done for number, _ in kept_notices(self._view.committed))
        if news or unkept or over:
            added = {number: one.to_row() for number, one in unkept.items()}
            try:
                await self._write_down(NotePlaces(news, added, done))
            except (Refusal, Gone, Full, trio.TooSlowError) as error:
                structlog.get_logger().warning("places not kept", error=str(error))
                self._dirty.set()
                return False
        for line in lines:
            line.written = places[line.target]
        # one that came meanwhile is kept the next time
        self._unkept = {n: one for n, one in self._unkept.items() if n > done and n not in unkept}
        if self._unkept:
            self._dirty.set()
        return True


def notifying(notifier: Notifier) -> Life:
    async def say_goodbye() -> None:
        await notifier.write()

    return follower(
        notifier.work, answers=notifier.handle, at_end=say_goodbye, end_within_s=_FAREWELL_S
    )
