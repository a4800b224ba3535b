"""What a publisher and its sessions work with: nothing here is exchanged while the process runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import structlog

from config_manager.actors.messages import Witnessed
from config_manager.actors.publishing.holding import Holding
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.publishing.refusals import BrokerRefusals
from config_manager.actors.publishing.rivals import Echoes, Rivals
from config_manager.actors.publishing.rollback_evidence import RollbackEvidence
from config_manager.actors.schema_board import SchemaBoard
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.tracing import Tracing
from config_manager.actors.views import Believed, BrokerView, CommittedView, Confirmations, about
from config_manager.config.strict_json import MAX_INTEGER
from config_manager.config.wire import Envelope
from config_manager.config.world import World
from config_manager.storage.state import ServiceState
from config_manager.storage.trace import BrokerStep


@dataclass(frozen=True)
class Desk:
    """What the publisher of one broker works with.

    view, believed: what is to be published, and which keys sign it. outlet: all other documents. broker_view,
    confirmations: where others see what the broker holds. sign, judge, note_confirmed: ask signing and
    storing. boot_seq: of this start, as beacons have it. statuses: where receipts go. tracing: where times
    go. echoes: what was sent on every way to a broker.
    """

    view: CommittedView
    believed: Believed
    outlet: Outlet
    broker_view: BrokerView
    confirmations: Confirmations
    sign: Callable[[ServiceState], Awaitable[Envelope]]
    judge: Callable[[Witnessed], Awaitable[None]]
    note_confirmed: Callable[[tuple[tuple[str, int], ...]], Awaitable[None]]
    world: World
    boot_seq: Callable[[], int] = lambda: MAX_INTEGER
    statuses: StatusBoard = field(default_factory=StatusBoard)
    tracing: Tracing = field(default_factory=Tracing)
    schemas: SchemaBoard = field(default_factory=SchemaBoard)
    heard: Callable[[], None] = lambda: None
    echoes: Echoes = field(default_factory=Echoes)

    @cached_property
    def refusals(self) -> BrokerRefusals:
        return BrokerRefusals(self.broker_view.set_aside, self._tell_set_aside)

    @cached_property
    def rivals(self) -> Rivals:
        return Rivals(self.broker_view.contested)

    @cached_property
    def holding(self) -> Holding:
        return Holding(
            self.broker_view,
            self.confirmations,
            self.note_confirmed,
            partial(self.done, "confirmed"),
        )

    @cached_property
    def evidence(self) -> RollbackEvidence:
        clock = self.world.clock.now
        return RollbackEvidence(
            self.broker_view.url, self.view, self.believed, self.boot_seq, clock
        )

    def done(self, step: BrokerStep, state: ServiceState) -> None:
        """Note when this step was done for this broker."""
        self.tracing.done(step, state, self.broker_view.url)

    @property
    def may_publish(self) -> bool:
        return self.view.publishable and not self.believed.changing

    def _tell_set_aside(self, name: str, why: str) -> None:
        state = self.view.committed.services.get(name)
        what = {"topic": name} if state is None else about(state)
        structlog.get_logger().error("set aside", broker=self.broker_view.url, why=why, **what)
