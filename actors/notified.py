"""One target of notifications: what waits for it goes there in order, one at a time, again and again for a day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog
import trio
from nacl.exceptions import CryptoError

from config_manager.actors.http_out import Answered, Unanswered, post
from config_manager.actors.notices import Notice, Queue
from config_manager.config.errors import Refusal
from config_manager.config.http_target import HttpTarget, parse_http_target
from config_manager.config.secret import Secret
from config_manager.config.webhooks import signed
from config_manager.config.world import World, backoff_s
from config_manager.storage.decisions.notifications import Notification, Place

WITHIN_S = 10.0
"""From the first byte of the connection to the answer's head."""
_AGAIN_S = (1.0, 600.0)
"""The longest first pause before a message is sent again, and the longest of all; the real one is anything from 0 to that."""

Send = Callable[
    [HttpTarget, bytes, Sequence[tuple[str, str]], float], Awaitable[Answered | Unanswered]
]
"""(to, body, headers, within so many seconds)"""
Result = Literal["delivered", "failed", "given-up"]


async def send_over_http(
    to: HttpTarget, body: bytes, headers: Sequence[tuple[str, str]], within_s: float
) -> Answered | Unanswered:
    return await post(to, body, headers=headers, within_s=within_s)


@dataclass(frozen=True)
class Post:
    """How messages get out.

    sender: begins each message's id, because a receiver may hear several servers. secret_of: of a target; raises
    Refusal, TooSlowError and CryptoError. results: of all targets, since the start.
    """

    world: World
    sender: str
    secret_of: Callable[[Notification], Awaitable[Secret]]
    send: Send = send_over_http
    results: Counter[Result] = field(default_factory=Counter[Result])


class Notified:
    """A target, and how it goes with it."""

    def __init__(self, target: Notification, start: Place, post: Post) -> None:
        """start: it is told what comes after this place."""
        self.target = target
        self.to = parse_http_target(target.url, plain=True)
        self.queue = Queue()
        self.is_failing = False
        self.last_error: str | None = None
        """why the newest try failed; None after a success"""
        self.delivered_at: float | None = None
        """Unix seconds; None before the first success since the start"""
        self.scope = trio.CancelScope()
        """around `deliver`; a new one for each run of it"""
        self.start = start
        self._post = post
        self._secret: Secret | None = None
        self._tries = 0
        self._news = trio.Event()

    @property
    def state(self) -> Literal["ok", "trying", "failing"]:
        if self.is_failing:
            return "failing"
        return "ok" if self.last_error is None else "trying"

    def take(self, notice: Notice) -> None:
        """Queue it, if it is for this target and new to it."""
        if notice.is_after(self.start) and notice.concerns(self.target):
            self.queue.put(notice)
            self._wake()

    def place(self, told: Place) -> Place:
        """How far it has come, if it was given everything up to `told`."""
        return self.queue.place(told).at_least(self.start)

    async def deliver(self, progressed: Callable[[], None]) -> None:
        """Until `scope` is cancelled. progressed: called when its place has changed."""
        with self.scope:
            while True:
                notice = await self._first()
                answer = await self._send(notice.id, notice.body(self.target), WITHIN_S)
                if answer.ok:
                    self._note_delivered(notice)
                    progressed()
                    continue
                given_up = self.queue.given_up
                self._note_failed(answer.why)
                if self.queue.given_up > given_up:
                    progressed()
                await self._pause()

    async def test(self, message_id: str, body: bytes, within_s: float) -> Answered | Unanswered:
        """Past what waits; if it is answered, what waits follows at once."""
        answer = await self._send(message_id, body, min(within_s, WITHIN_S))
        if answer.ok and self.last_error is not None:
            self.last_error = None
            self._wake()
        return answer

    async def _send(self, message_id: str, body: bytes, within_s: float) -> Answered | Unanswered:
        post = self._post
        try:
            if self._secret is None:
                self._secret = await post.secret_of(self.target)
        except CryptoError:
            return Unanswered("its secret can't be read; remove it, and add it again")
        except (Refusal, trio.TooSlowError) as error:
            return Unanswered(str(error) or "its secret was not read in time")
        full_id = f"{post.sender}-{message_id}"
        signatures = signed(self._secret, full_id, post.world.clock.now(), body)
        headers = [("Content-Type", "application/json"), *signatures]
        return await post.send(self.to, body, headers, within_s)

    async def _first(self) -> Notice:
        while (notice := self.queue.first) is None:
            await self._news.wait()
        return notice

    async def _pause(self) -> None:
        """Before the next try, with full jitter; it ends early once a test succeeds."""
        first_s, longest_s = _AGAIN_S
        longest = backoff_s(self._tries - 1, first_s=first_s, longest_s=longest_s)
        with trio.move_on_after(longest * self._post.world.randomness.fraction()):
            while self.last_error is not None:
                await self._news.wait()

    def _note_delivered(self, notice: Notice) -> None:
        self.queue.done(notice)
        self._post.results["delivered"] += 1
        if self._tries:
            structlog.get_logger().info("notified again", name=self.target.name, tries=self._tries)
        self._tries, self.last_error, self.is_failing = 0, None, False
        self.delivered_at = self._post.world.clock.now()

    def _note_failed(self, why: str) -> None:
        log = structlog.get_logger().bind(name=self.target.name, to=str(self.to), why=why)
        if not self._tries:
            log.warning("not notified")
        self._tries += 1
        self.last_error = why
        before = self.queue.given_up
        if self.queue.give_up_old(self._post.world.clock.now()) and not self.is_failing:
            self.is_failing = True
            log.error("notification fails", waiting=len(self.queue))
        self._post.results["failed"] += 1
        self._post.results["given-up"] += self.queue.given_up - before

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()
