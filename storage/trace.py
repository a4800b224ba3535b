"""What is known of a change as a whole: which services it touched, and when each of its steps was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config_manager.storage.state import Action


class Change(NamedTuple):
    """One revision of all that it touched. services: by name; several if they changed as one."""

    revision: int
    correlation_id: str
    epoch_seq: int
    config_epoch: str
    at: str
    by: str
    action: Action
    reason: str | None
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangesQuery:
    """Which changes. after: revisions above it, in rising order. before: revisions below it. Without `after` the newest
    come first. limit: of changes.

    service: which touched it. visible: which touched one of these, and nothing is told of other services; None: of all.
    since, until: RFC 3339 in UTC, inclusive.
    """

    limit: int = 50
    after: int | None = None
    before: int | None = None
    service: str | None = None
    visible: Sequence[str] | None = None
    by: str | None = None
    since: str | None = None
    until: str | None = None
    correlation_id: str | None = None
