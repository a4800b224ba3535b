"""Tells the truth about the whole: `GET /health`, and the retained health on every broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
import trio
import trio.lowlevel

from config_manager.actors.actor import ActorStates, Life, follower
from config_manager.actors.mqtt.port import Message
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.views import BrokerView, CommittedView, Confirmations, HealthReport
from config_manager.config import logging, strict_json, wire
from config_manager.config.names import OUR_ID
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World, rfc3339

BROKERLESS_S = 30.0
"""All configured brokers may be away for that long before health is not ok."""

_CHECK_INTERVAL_S = 1.0
_MOST_NAMED = 10


class HealthBoard:
    """Reads every view; keeps only since when no broker has been connected."""

    def __init__(
        self,
        view: CommittedView,
        confirmations: Confirmations,
        states: ActorStates,
        cache_available: Callable[[], bool],
        misfits: Callable[[], Sequence[str]] = lambda: (),
        notified: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """misfits: what is stored and does not fit, a line for each service. notified: a line for each notification that
        fails."""
        self._view = view
        self._confirmations = confirmations
        self._states = states
        self._cache_available = cache_available
        self._misfits = misfits
        self._notified = notified
        self._brokerless_since: float | None = None

    def report(self) -> HealthReport:
        view, committed = self._view, self._view.committed
        actors = self._states.report()
        reasons = [*view.reasons, *view.notices.values(), *logging.troubles()]
        down = [name for name, state in actors.items() if state != "running"]
        reasons += [f"actor {name} is {actors[name]}" for name in down]
        brokerless = self._brokerless_too_long()
        if brokerless:
            reasons.append(f"no broker connected for {BROKERLESS_S:.0f} s")
        for broker in self._confirmations.brokers:
            if broker.state != "connected" and broker.last_error:
                reasons.append(f"broker {broker.url}: {broker.last_error}")
            reasons += broker_reasons(broker)
        reasons += _a_few(list(self._misfits()), "stored values that their schema does not take:")
        reasons += self._notified()
        return HealthReport(
            ok=view.mode == "normal" and not down and not brokerless,
            mode=view.mode,
            database_available=view.mode == "normal",
            cache_available=self._cache_available(),
            broker={broker.url: broker.state for broker in self._confirmations.brokers},
            config_epoch=committed.epoch.id,
            epoch_seq=committed.epoch.seq,
            revision=committed.revision,
            outbox_depth=self._confirmations.depth(committed),
            actors=dict(actors),
            reasons=tuple(reasons),
        )

    def _brokerless_too_long(self) -> bool:
        brokers = self._confirmations.brokers
        if not brokers or any(broker.state == "connected" for broker in brokers):
            self._brokerless_since = None
            return False
        now = trio.current_time()
        if self._brokerless_since is None:
            self._brokerless_since = now
        return now - self._brokerless_since >= BROKERLESS_S


def broker_reasons(broker: BrokerView) -> list[str]:
    """What an operator should know of a broker that is connected, a line for each, and only a few of a kind."""
    refused = [
        f"broker {broker.url} keeps refusing {name}: {why}"
        for name, why in broker.set_aside.items()
    ]
    contested = [
        f"broker {broker.url}: somebody else writes {topic} ({times} times in a minute)"
        for topic, times in broker.contested.items()
    ]
    left = f"broker {broker.url}: another config-manager is alive there; the health is left to it"
    return [
        *_a_few(refused, f"broker {broker.url} keeps refusing"),
        *_a_few(contested, f"broker {broker.url}: somebody else writes"),
        *([left] if broker.leaves_health else []),
    ]


def _a_few(lines: list[str], all_of_them: str) -> list[str]:
    more = len(lines) - _MOST_NAMED
    return [*lines[:_MOST_NAMED], f"{all_of_them} {more} more"] if more > 0 else lines


class HealthFrames:
    """The messages of the health topics. Every field's name is public."""

    def __init__(self, world: World) -> None:
        self._world = world

    def status(self, *, ok: bool, event: str, reasons: Sequence[str] = ()) -> bytes:
        return self._frame("health.status", {"ok": ok, "event": event, "reasons": list(reasons)})

    def keepalive(self, beacon: JsonObject | None, *, ok: bool) -> bytes:
        return self._frame("health.keepalive", {"ok": ok, "event": "alive", "beacon": beacon})

    def will(self) -> Message:
        """The broker publishes it if the connection is lost; made for each connection."""
        payload = self.status(ok=False, event="offline", reasons=["the connection was lost"])
        return Message(wire.HEALTH_TOPIC, payload, retained=True)

    def _frame(self, kind: str, data: JsonObject) -> bytes:
        now = rfc3339(self._world.clock.now())
        message_id = self._world.randomness.uuid()
        return strict_json.dumps(
            {
                "id": message_id,
                "type": kind,
                "ts": now,
                "source": OUR_ID,
                "data": {"message_id": message_id, "timestamp": now, **data},
            }
        )


def health(board: HealthBoard, frames: HealthFrames, outlets: Sequence[Outlet]) -> Life:
    """Keeps the retained health true: `ready` at first, then each change, `shutdown` at the end."""

    def tell(*, ok: bool, event: str, reasons: Sequence[str] = ()) -> None:
        payload = frames.status(ok=ok, event=event, reasons=reasons)
        for outlet in outlets:
            outlet.set_retained(wire.HEALTH_TOPIC, payload)

    async def watch() -> None:
        await trio.lowlevel.checkpoint()  # first let our own actor count as running
        told: bool | None = None
        event, reasons = "", tuple[str, ...]()
        while True:
            report = board.report()
            if report.ok is not told:
                event = ("ready" if told is None else "recovered") if report.ok else "degraded"
                if told is not None:
                    structlog.get_logger().warning(event, reasons=report.reasons)
            # also if only the reasons changed: a full disk is a reason while ok
            if (report.ok, report.reasons) != (told, reasons):
                tell(ok=report.ok, event=event, reasons=report.reasons)
                told, reasons = report.ok, report.reasons
            await trio.sleep(_CHECK_INTERVAL_S)

    return follower(watch)
