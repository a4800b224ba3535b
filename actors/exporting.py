"""Sends the steps of changes to a collector of traces, once they are done (`CONFIG_MANAGER_OTLP_URL`).

A collector that is slow, dead or lies costs nothing: nobody waits for it, what waits for it is bounded, what does not fit is
dropped and counted, and the log says so once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import structlog
import trio

from config_manager.actors.http_out import Answered, Unanswered, post
from config_manager.actors.spans import Span, export_request, spans_of
from config_manager.actors.tracing import Tracing
from config_manager.config.http_target import HttpTarget
from config_manager.config.names import OUR_ID
from config_manager.config.our_version import our_version
from config_manager.config.world import World, backoff_s

_PATH = "/v1/traces"
_WITHIN_S = 10.0
_EVERY_S = 1.0
_AT_ONCE = 512
_MOST = 4_096
"""Spans that wait; half a kilobyte each."""
_PAUSE_S = (1.0, 60.0)
_TRY_AGAIN = frozenset({429, 502, 503, 504})
"""OTLP 1.x, "Failures": anything else is refused for good."""

Send = Callable[[bytes], Awaitable[Answered | Unanswered]]


class Exporter:
    """Across its lives. dropped: spans that never arrived."""

    def __init__(
        self,
        tracing: Tracing,
        send: Send,
        resource: Mapping[str, str],
        *,
        fraction: Callable[[], float],
        most: int = _MOST,
    ) -> None:
        """send: the body of a request; it ends within bounded time. resource: who we are. fraction: 0 to 1,
        for jitter. most: spans that may wait."""
        self.dropped = 0
        self._tracing = tracing
        self._send = send
        self._resource = resource
        self._fraction = fraction
        self._most = most
        self._told: dict[int, set[str]] = {}
        self._waiting: deque[Span] = deque()
        self._failures = 0
        tracing.follow()

    @classmethod
    def to(
        cls, collector: HttpTarget, tracing: Tracing, instance_id: str, world: World
    ) -> Exporter:
        """instance_id: this server's own."""
        target = collector.below(_PATH)
        headers = (("Content-Type", "application/json"),)

        async def send(body: bytes) -> Answered | Unanswered:
            return await post(target, body, headers=headers, within_s=_WITHIN_S)

        resource = {
            "service.name": OUR_ID,
            "service.version": our_version(),
            "service.instance.id": instance_id,
        }
        return cls(tracing, send, resource, fraction=world.randomness.fraction)

    async def work(self) -> NoReturn:
        """Collect and send, for ever."""
        while True:
            await trio.sleep(self._pause())
            self.collect()
            while self._waiting and await self._send_some():
                pass

    def collect(self) -> None:
        """Take up what was done since the last call."""
        for revision, noted in self._tracing.take_news().items():
            told = self._told.setdefault(revision, set())
            for span in spans_of(noted):
                if span.span_id not in told:
                    told.add(span.span_id)
                    self._waiting.append(span)
        for revision in [one for one in self._told if self._tracing.of(one) is None]:
            del self._told[revision]
        self._drop(len(self._waiting) - self._most)

    async def _send_some(self) -> bool:
        """Whether it makes sense to go on at once."""
        some = [self._waiting[at] for at in range(min(_AT_ONCE, len(self._waiting)))]
        answer = await self._send(export_request(some, self._resource))
        if answer.ok:
            self._forget(len(some))
            if self._failures:
                structlog.get_logger().info("traces are taken again", dropped=self.dropped)
                self._failures = 0
            return True
        self._failures += 1
        is_refused = isinstance(answer, Answered) and answer.status not in _TRY_AGAIN
        if self._failures == 1:
            log = structlog.get_logger()
            log.warning("traces not sent", why=answer.why, is_refused=is_refused)
        if is_refused:
            self._drop(len(some))
        return False

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()

    def _drop(self, count: int) -> None:
        """The oldest."""
        self.dropped += max(0, count)
        self._forget(max(0, count))

    def _pause(self) -> float:
        if not self._failures:
            return _EVERY_S
        first, longest = _PAUSE_S
        pause = backoff_s(self._failures - 1, first_s=first, longest_s=longest)
        return _EVERY_S + pause * self._fraction()
