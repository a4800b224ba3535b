"""What is counted and timed while it happens. `GET /metrics` shows it, beside what views say (`api.resources.metrics`).

Counted on the hot path, so it only adds to numbers (`config.metrics`): no message, no lock, no line in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import trio

from config_manager.actors.statuses import HeardReceipt
from config_manager.actors.views import BrokerView
from config_manager.config.documents.receipt import Stage
from config_manager.config.errors import DESCRIPTIONS, ConfigManagerError, Refusal
from config_manager.config.metrics import Counter, Family, Histogram
from config_manager.storage.state import Action, Commit

OURS = "config_manager_"

HERE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of what happens in this process, in seconds."""
AWAY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds of the way to a broker, and to the last instance, in seconds."""

UNKNOWN = "unknown"
"""The route of what leads nowhere, or has no such method."""
_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"})
_READS = frozenset({"GET", "HEAD"})
_STAGES = frozenset(get_args(Stage))
_APPLIED = frozenset({"applied", "healthy"})


@dataclass(slots=True)
class _Newest:
    """A service's newest revision, committed by this process. at: on Trio's clock, in seconds. applied_by:
    instances whose receipt was timed."""

    revision: int
    at: float
    is_confirmed: bool = False
    applied_by: set[str] = field(default_factory=set[str])


def _problems() -> list[tuple[str]]:
    """Every problem's name."""
    return [
        (one.name,)
        for error, one in DESCRIPTIONS.items()
        if error is ConfigManagerError or (issubclass(error, Refusal) and error is not Refusal)
    ]


def _each(words: Sequence[str]) -> list[tuple[str]]:
    return [(word,) for word in words]


class Measures:
    """Every counter and histogram, from the start of this process."""

    def __init__(self) -> None:
        self.requests = Counter(
            f"{OURS}http_requests_total",
            "Requests answered, by method, route and status.",
            ("method", "route", "status"),
        )
        self.request_seconds = Histogram(
            f"{OURS}http_request_duration_seconds",
            "From a request to its answer.",
            HERE,
            ("method", "route"),
        )
        self.logins = Counter(
            f"{OURS}logins_total",
            "Tokens that callers sent: accepted, expired, unknown, or limited because too many unknown "
            "ones came from an address.",
            ("result",),
            known=_each(("accepted", "expired", "unknown", "limited")),
        )
        self.writes = Counter(
            f"{OURS}writes_total",
            "Changes of configurations and secrets, by action.",
            ("action",),
            known=_each(get_args(Action)),
        )
        self.refusals = Counter(
            f"{OURS}refusals_total",
            "Writes that were refused, by the problem's name.",
            ("problem",),
            known=_problems(),
        )
        self.commit_seconds = Histogram(
            f"{OURS}commit_duration_seconds",
            "One transaction on the disk, of all writes that waited together.",
            HERE,
        )
        self.commit_writes = Histogram(f"{OURS}commit_writes", "Writes in one transaction.", HERE)
        self.confirm_seconds = Histogram(
            f"{OURS}confirm_duration_seconds",
            "From a commit until the first broker gave the revision back.",
            AWAY,
        )
        self.apply_seconds = Histogram(
            f"{OURS}apply_duration_seconds",
            "From a commit until an instance's receipt that it runs the revision.",
            AWAY,
        )
        self.receipts = Counter(
            f"{OURS}receipts_total",
            "Receipts that told something new, by the stage of their last attempt.",
            ("stage",),
            known=_each((*get_args(Stage), "none", "other")),
        )
        self._newest: dict[str, _Newest] = {}

    @property
    def families(self) -> list[Family]:
        return [
            *(self.requests, self.request_seconds, self.logins, self.writes, self.refusals),
            *(self.commit_seconds, self.commit_writes, self.confirm_seconds, self.apply_seconds),
            self.receipts,
        ]

    def answered(self, method: str, route: str | None, status: int, took_s: float) -> None:
        """A request was. route: its path in the table of routes, None if there is none."""
        if route is None:
            route = UNKNOWN
            method = method if method in _METHODS else "other"
        self.requests.inc(method, route, str(status))
        self.request_seconds.observe(took_s, method, route)

    def refused(self, method: str, problem: str) -> None:
        """A request was refused; reads don't count. problem: its name."""
        if method not in _READS:
            self.refusals.inc(problem)

    def committed(self, changes: Sequence[Commit], took_s: float) -> None:
        """These were made durable together."""
        now = trio.current_time()
        self.commit_seconds.observe(took_s)
        self.commit_writes.observe(len(changes))
        for change in changes:
            if change.history:
                self.writes.inc(change.history[0].entry.action)
            for state in change.services:
                self._newest[state.service] = _Newest(state.revision, now)

    def confirmed(self, _broker: BrokerView, service: str, revision: int) -> None:
        """A broker gave this revision back; the first time of the newest one counts."""
        newest = self._newest.get(service)
        if newest is not None and newest.revision == revision and not newest.is_confirmed:
            newest.is_confirmed = True
            self.confirm_seconds.observe(trio.current_time() - newest.at)

    def heard(self, told: HeardReceipt) -> None:
        """An instance said something new. Its stage may be any word; only those of ours are labels."""
        status, receipt = told.status, told.receipt
        attempt = receipt.last_attempt
        if attempt is None:
            self.receipts.inc("none")
            return
        self.receipts.inc(attempt.stage if attempt.stage in _STAGES else "other")
        newest = self._newest.get(receipt.service)
        if (
            newest is not None
            and status.verified
            and attempt.revision == newest.revision
            and attempt.stage in _APPLIED
            and receipt.instance not in newest.applied_by
        ):
            newest.applied_by.add(receipt.instance)
            self.apply_seconds.observe(trio.current_time() - newest.at)
