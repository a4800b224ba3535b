"""Forgetting an instance that will not come back: when that may be, and what is kept of it.

An instance may be forgotten once it is no longer heard. A client that ends says so; for one that dies its
broker sends the will, within 15 s. A client that dies together with its broker leaves neither. It shows in a
change of its service that it does not answer: a running client answers each at once with a receipt. If nothing
changes, silence for a day counts. A quiet client that was forgotten is shown again with the next thing it says.

The decision is here and pure. Publishing empties what brokers retain once the row is committed, or, if a broker
is away then, once its old receipt is read (`storage.decisions.forgotten`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from config_manager.actors.receipt_reading import InstanceStatus
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.views import BrokerView
from config_manager.config.errors import NotFound, StillThere
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import parse_rfc3339, rfc3339
from config_manager.storage.decisions.administration import administered
from config_manager.storage.decisions.changes import Decided, Occasion
from config_manager.storage.decisions.forgotten import Forgotten, rows_after
from config_manager.storage.state import Committed

ANSWERS_WITHIN_S = 300.0
"""A client connects again within 30 s and answers at once, but not while its callback runs."""
HEARD_FOR_S = 24 * 3600.0
CLOCK_TOLERANCE_S = 300.0


@dataclass(frozen=True, slots=True)
class ForgetInstance:
    """Drop what is known of an instance. Refused with NotFound or StillThere.

    broker_holds: the revision of its service that was read back from the broker it was last heard on, -1
    for none. connected_s: for how long that broker has been connected. away: brokers that are not connected.
    """

    service: str
    instance: str
    known: InstanceStatus | None
    broker_holds: int = -1
    connected_s: float = 0.0
    away: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, service: str, instance: str, board: StatusBoard, brokers: Sequence[BrokerView]
    ) -> ForgetInstance:
        """With all that is known now."""
        known = board.status(service, instance)
        connected = {one.url: one for one in brokers if one.state == "connected"}
        away = tuple(one.url for one in brokers if one.url not in connected)
        if known is None or known.broker not in connected:
            return cls(service, instance, known, away=away)
        broker = connected[known.broker]
        connected_s = trio.current_time() - broker.since
        holds = broker.holds.get(service, -1)
        return cls(service, instance, known, holds, connected_s, away)

    def decide(self, before: Committed, on: Occasion) -> Decided[JsonObject]:
        known, now = self.known, on.now
        if known is None:
            raise NotFound(
                f"nothing is known of {self.service}/{self.instance}: no broker that is connected "
                "holds a receipt of it"
            )
        if self._is_heard(known, before, now):
            raise StillThere(self._what_to_do(known))
        receipt = known.receipt
        # a key that is not enrolled may claim any time, and would hide what comes until then
        latest = known.at if known.verified else min(known.at, now + CLOCK_TOLERANCE_S)
        until = max(latest, now)
        mark = Forgotten(known.keyid, *receipt.order, until=until, schema=receipt.schema[:64])
        rows = rows_after(before, self.service, self.instance, mark)
        about: JsonObject = {"service": self.service, "instance": self.instance}
        details: JsonObject = {
            **about,
            "boot_seq": receipt.boot_seq,
            "seq": receipt.seq,
            "heard_at": rfc3339(known.heard_at),
            "gone": known.gone,
        }
        answer: JsonObject = {**about, "forgotten": True, "away": list(self.away)}
        return administered(before, on, "instance.forget", details, rows, answer, repeatable=True)

    def _is_heard(self, known: InstanceStatus, committed: Committed, now: float) -> bool:
        return not (
            known.gone
            or self._unanswered_s(known, committed, now) >= ANSWERS_WITHIN_S
            or now - known.heard_at >= HEARD_FOR_S
        )

    def _unanswered_s(self, known: InstanceStatus, committed: Committed, now: float) -> float:
        """For how many seconds at least it has left the newest change of its service unanswered; 0 if it has
        answered, or could not."""
        wanted = committed.live(self.service)
        running, attempt = known.receipt.running, known.receipt.last_attempt
        answered = max(one.revision if one is not None else 0 for one in (running, attempt))
        if wanted is None or not answered < wanted.revision <= self.broker_holds:
            return 0.0
        return min(self.connected_s, now - parse_rfc3339(wanted.updated_at))

    def _what_to_do(self, known: InstanceStatus) -> str:
        return (
            f"{self.service}/{self.instance} was last heard at {rfc3339(known.heard_at)} and has not gone "
            "since. Stop it: a client that ends says so, and its broker says it for one that died, within "
            "15 s. Did it die together with its broker? Then it can be forgotten once it has left a change "
            f"of {self.service} unanswered for {ANSWERS_WITHIN_S / 60:.0f} minutes, or else at "
            f"{rfc3339(known.heard_at + HEARD_FOR_S)}"
        )
