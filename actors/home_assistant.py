"""Home Assistant, if the settings say so: a device that it discovers, what its entities show, and what happens.

`config.home_assistant` has the words. If it was on and is off now, what lies on the brokers of it is emptied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import get_args

import structlog
import trio

from config_manager.actors.actor import Context, Full, Gone, Life, follower
from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.notices import Notice, of_change
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.views import CommittedView
from config_manager.config import strict_json, wire
from config_manager.config.errors import Refusal
from config_manager.config.home_assistant import HOME_ASSISTANT_STATUS, discovery_topic
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.discovery import NoteDiscovery, is_discovered
from config_manager.storage.decisions.equipment import Decidable
from config_manager.storage.decisions.notifications import Place, last_refusal
from config_manager.storage.drifts import State
from config_manager.storage.trace import Change, ChangesQuery

_AT_MOST_EVERY_S = 1.0
_READ_WITHIN_S = 10.0
_RETRY_S = 5.0


def also_reads(instance_id: str) -> dict[str, Callable[[Outlet, bytes], None] | None]:
    """What a session subscribes to for it (see `Outlet`)."""
    topic = discovery_topic(instance_id)

    def told(outlet: Outlet, payload: bytes) -> None:
        if (
            payload == b"online"
        ):  # it has started, and keeps entities unavailable until the message comes
            outlet.mark(topic)

    return {HOME_ASSISTANT_STATUS: told, topic: None, wire.SUMMARY_TOPIC: None}


class HomeAssistant:
    """Across its actor's lives."""

    def __init__(
        self,
        view: CommittedView,
        drift: DriftBoard,
        outlets: Sequence[Outlet],
        changes: Callable[[ChangesQuery, Context], Awaitable[Sequence[Change]]],
        write_down: Callable[[Decidable[None]], Awaitable[None]],
        topic: str,
        discovery: bytes,
    ) -> None:
        """changes: raises Refusal and TooSlowError. write_down: raises what asking storing raises. topic: of the message
        that makes us a device; discovery: the message."""
        self._view = view
        self._drift = drift
        self._outlets = outlets
        self._changes = changes
        self._write_down = write_down
        self._topic = topic
        self._discovery = discovery
        committed = view.committed
        self._since = Place(committed.revision, drift.last_seq, last_refusal(committed))
        self._last: JsonObject | None = None
        self._news = trio.Event()

    # ── on ─────────────────────────────────────────────────────────────────────────────────────

    def tell(self, notice: Notice) -> None:
        """Something happened; what happened before our start is no news."""
        if not notice.is_after(self._since):
            return
        happened = {
            "revision": "changed",
            "rollback": "rolled_back",
            "refused": "refused",
            "drift": f"drift_{notice.data.get('event')}",
        }
        payload = strict_json.dumps({"event_type": happened[notice.kind], **notice.data})
        for outlet in self._outlets:
            outlet.send(wire.EVENTS_TOPIC, payload, each=True)
        if notice.stream == "revision":
            self._last = _last_change(notice.data)
            self._news.set()

    async def be_a_device(self) -> None:
        """Discovered, with a summary that is renewed at most once a second."""
        await self._note(discovered=True)
        for outlet in self._outlets:
            outlet.set_retained(self._topic, self._discovery)
        await self._read_last_change()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake_with, self._view.changed)
            nursery.start_soon(self._wake_with, self._drift.changed)
            before = b""
            while True:
                self._news = trio.Event()
                summary = strict_json.dumps(self.summary())
                if summary != before:
                    for outlet in self._outlets:
                        outlet.set_retained(wire.SUMMARY_TOPIC, summary)
                    before = summary
                    await trio.sleep(_AT_MOST_EVERY_S)
                await self._news.wait()

    def summary(self) -> JsonObject:
        committed, counts, drifts = self._view.committed, self._drift.counts, self._drift.open()
        since = min((one.since for one in drifts), default=None)
        return {
            "revision": committed.revision,
            "config_epoch": committed.epoch.id,
            "epoch_seq": committed.epoch.seq,
            "read_only": self._view.mode == "read-only",
            "services": sum(not state.deleted for state in committed.services.values()),
            "instances": {state: counts[state] for state in get_args(State)},
            "drift": {
                "services": sorted({one.service for one in drifts}),
                "since": None if since is None else rfc3339(since),
            },
            "last_change": self._last or _last_change({}),
            "scenarios": [],
        }

    async def _wake_with(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed()
            self._news.set()

    async def _read_last_change(self) -> None:
        context = Context("home-assistant", trio.current_time() + _READ_WITHIN_S)
        try:
            newest = await self._changes(ChangesQuery(limit=1), context)
        except (Refusal, trio.TooSlowError):
            return  # the next change says it
        if newest and self._last is None:
            self._last = _last_change(of_change(newest[0]).data)

    # ── off ────────────────────────────────────────────────────────────────────────────────────

    async def be_none(self) -> None:
        """Empty what earlier starts left on the brokers, once each of them is there; then there is nothing to do."""
        if is_discovered(self._view.committed):
            async with trio.open_nursery() as nursery:
                for outlet in self._outlets:
                    nursery.start_soon(self._empty, outlet)
            await self._note(discovered=False)
        await trio.sleep_forever()

    async def _empty(self, outlet: Outlet) -> None:
        topics, is_done = (self._topic, wire.SUMMARY_TOPIC), False
        while not is_done:
            await outlet.until_connected()
            for topic in topics:
                outlet.set_retained(topic, b"")
            await outlet.flush()
            is_done = outlet.connected
        for topic in topics:
            outlet.withdraw(topic)

    async def _note(self, *, discovered: bool) -> None:
        """Written down first, so that nothing lies on a broker that a later start does not know of."""
        while is_discovered(self._view.committed) != discovered:
            try:
                await self._write_down(NoteDiscovery(discovered))
            except (Refusal, Gone, Full, trio.TooSlowError) as error:
                structlog.get_logger().warning("discovery not noted", error=str(error))
                await trio.sleep(_RETRY_S)


def home_assistant(one: HomeAssistant, *, on: bool) -> Life:
    return follower(one.be_a_device if on else one.be_none)


def _last_change(data: JsonObject) -> JsonObject:
    services = data.get("services")
    return {
        "at": data.get("at"),
        "service": ", ".join(services) if services else None,
        "by": data.get("by"),
        "reason": data.get("reason"),
        "correlation_id": data.get("correlation_id"),
    }
