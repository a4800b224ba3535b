"""What the actors let others see without asking: immutable values, replaced as a whole.

Readers (REST, publishing, health) look here instead of waiting behind a writer's mailbox: a request costs 14 µs
and a wait, a look costs nothing (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import trio

from config_manager.config.documents.root import Root
from config_manager.storage.state import Committed, ServiceState

Mode = Literal["normal", "read-only"]
BrokerState = Literal["connecting", "connected", "disconnected"]


class CommittedView:
    """The newest committed state, why it may be frozen, and an event for its followers."""

    def __init__(self, committed: Committed) -> None:
        self._committed = committed
        self._changed = trio.Event()
        self.mode: Mode = "normal"
        self.reasons: tuple[str, ...] = ()
        self.notices: dict[str, str] = {}
        """what an operator should know while everything works, by subject"""
        self.publishable = True
        """False if publishing could contradict what was published before: the state is the last-known-good one,
        or the database was rolled back."""

    @property
    def committed(self) -> Committed:
        return self._committed

    def hold_publishing(self) -> None:
        """Nothing more is published until storing has judged what was seen."""
        self.publishable = False

    def replace(self, committed: Committed) -> None:
        self._committed = committed
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Until the state or the mode is replaced after this call."""
        await self._changed.wait()


class Believed(Protocol):
    """Which root counts, as of now (`actors.trusting`)."""

    @property
    def current(self) -> Root: ...

    @property
    def changing(self) -> bool:
        """A new root is being announced: what is signed now, and by which key, has to wait."""
        ...

    def version(self, number: int) -> Root | None:
        """The root of this version, if it is one of ours."""
        ...

    def key_for(self, role: str) -> str:
        """The id of the key that signs for a role; raises KeyError if none is here."""
        ...


@dataclass
class BrokerView:
    """One broker, as its publishing actor sees it. Times on Trio's clock, in seconds."""

    url: str
    """without userinfo"""
    state: BrokerState = "connecting"
    since: float = 0.0
    last_error: str | None = None
    holds: dict[str, int] = field(default_factory=dict[str, int])
    """service → the revision that was read back from this broker"""
    set_aside: dict[str, str] = field(default_factory=dict[str, str])
    """service, or topic of another document → why the broker does not take it"""
    contested: dict[str, int] = field(default_factory=dict[str, int])
    """topic that another client writes as well → how often within a minute, at most"""
    leaves_health: bool = False
    """another config-manager is alive there and we publish nothing: the health is left to it"""


class Confirmations:
    """Who waits for a broker to hold a revision, and which brokers hold what."""

    def __init__(self, brokers: list[BrokerView]) -> None:
        self.brokers = brokers
        self._changed = trio.Event()
        self._given_up = False
        self.on_confirmed: list[Callable[[BrokerView, str, int], None]] = []
        """called with (broker, service, revision) each time that a broker was read back; quick, and never raises"""

    def confirmed(self, service: str, revision: int) -> bool:
        """Whether some broker holds this revision of the service, or a newer one."""
        return any(broker.holds.get(service, -1) >= revision for broker in self.brokers)

    def note(self, broker: BrokerView, service: str, revision: int) -> None:
        """The broker was read back: it holds this revision."""
        broker.holds[service] = revision
        self._changed.set()
        self._changed = trio.Event()
        for tell in self.on_confirmed:
            tell(broker, service, revision)

    async def wait(self, service: str, revision: int) -> bool:
        """Until some broker holds the revision; False if we stop first. Callers bring their own deadline."""
        while not self.confirmed(service, revision):
            if self._given_up:
                return False
            await self._changed.wait()
        return True

    def give_up(self) -> None:
        """We are about to stop: tell those that wait while there is time to answer."""
        self._given_up = True
        self._changed.set()

    def depth(self, committed: Committed) -> int:
        """Services whose newest revision no broker is known to hold; 0 if no broker is configured."""
        if not self.brokers:
            return 0
        return sum(
            not self.confirmed(name, state.revision) for name, state in committed.services.items()
        )


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`GET /health`, word for word: each field's name is public."""

    ok: bool
    mode: Mode
    database_available: bool
    cache_available: bool
    broker: dict[str, str]
    config_epoch: str
    epoch_seq: int
    revision: int
    outbox_depth: int
    actors: dict[str, str]
    reasons: tuple[str, ...]


def about(state: ServiceState) -> dict[str, Any]:
    """What a log line about a service's state says of it."""
    return {
        "service": state.service,
        "revision": state.revision,
        "config_epoch": state.epoch.id,
        "correlation_id": state.correlation_id,
        "request_id": state.correlation_id,
    }
