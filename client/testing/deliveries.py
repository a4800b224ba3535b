"""Deliveries: which instances are open, and what each made of a revision."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from config_manager.client.testing.fake_wire import OpenInstance
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt

_DECIDED = frozenset({"applied", "healthy", "refused", "deferred", "restart-required", "poisoned"})


class NobodyListens(RuntimeError):
    """Nobody can decide on what is to be delivered; the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a delivery. stage: as in the receipt. reason: why it is not applied."""

    revision: int
    stage: str
    reason: str | None

    @property
    def applied(self) -> bool:
        return self.stage in ("applied", "healthy")


@dataclass(eq=False)
class Delivery:
    """A revision that somebody waits for, and what each instance made of it. wake: called once nothing is
    left to wait for."""

    revision: int
    wake: Callable[[], None]
    outcomes: dict[OpenInstance, Outcome] = field(default_factory=dict[OpenInstance, Outcome])


class Deliveries:
    """The instances that are open, their receipts, and the revisions that somebody waits for."""

    def __init__(self, service: str) -> None:
        self.open: list[OpenInstance] = []
        self.receipts: list[Receipt] = []
        self._service = service
        self._lock = threading.RLock()
        self._under_way: list[Delivery] = []

    @contextmanager
    def listening(self, opened: OpenInstance) -> Generator[None]:
        """In this block deliveries wait for it. With its farewell it says what it made of the last."""
        with self._lock:
            self.open.append(opened)
        try:
            yield
        finally:
            with self._lock:
                self.open.remove(opened)
                for delivery in self._under_way:
                    self._wake_if_decided(delivery)

    def take_receipt(self, opened: OpenInstance, payload: bytes) -> None:
        """What an instance published."""
        receipt = Receipt.parse(wire.parse_envelope(payload).payload)
        attempt = receipt.last_attempt
        with self._lock:
            self.receipts.append(receipt)
            opened.attempt = attempt
            for delivery in self._under_way:
                if attempt and attempt.revision == delivery.revision and attempt.stage in _DECIDED:
                    outcome = Outcome(attempt.revision, attempt.stage, attempt.reason)
                    delivery.outcomes[opened] = outcome
                self._wake_if_decided(delivery)

    @contextmanager
    def waiting(
        self, publish: Callable[[], int], within_s: float, wake: Callable[[], None]
    ) -> Generator[Delivery]:
        """Published; wake: called once nothing is left to wait for, or the time is over."""
        # of real time: a loop whose clock leaps would be through with it before a disk has written
        timer = threading.Timer(within_s, wake)
        timer.daemon = True
        with self._lock:  # no receipt is taken before the delivery is listed here
            delivery = Delivery(publish(), wake)
            self._under_way.append(delivery)
        timer.start()
        try:
            yield delivery
        finally:
            timer.cancel()
            with self._lock:
                self._under_way.remove(delivery)

    def outcome(self, delivery: Delivery, within_s: float) -> Outcome:
        """Of several that of one that did not apply it. Raises TimeoutError, NobodyListens."""
        with self._lock:
            undecided = [opened for opened in self.open if opened not in delivery.outcomes]
            outcomes = list(delivery.outcomes.values())
        if undecided:
            who = ", ".join(
                f"{one.instance} ({one.how_far(delivery.revision)})" for one in undecided
            )
            raise TimeoutError(
                f"revision {delivery.revision} was not decided on within {within_s:g} s by {who}"
            )
        if not outcomes:
            raise NobodyListens(
                f"{self._service} was closed before it decided on revision {delivery.revision}"
            )
        return min(outcomes, key=lambda outcome: outcome.applied)

    def _wake_if_decided(self, delivery: Delivery) -> None:
        if all(opened in delivery.outcomes for opened in self.open):
            delivery.wake()
