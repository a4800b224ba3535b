"""What an instance reports back, signed by its own key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config_manager.config import strict_json
from config_manager.config.documents.config_update import content_id
from config_manager.config.documents.fields import Fields, members
from config_manager.config.strict_json import JsonObject

Stage = Literal[
    "received", "deferred", "applied", "healthy", "refused", "restart-required", "poisoned"
]
Source = Literal["broker", "last-known-good", "defaults"]
_LONGEST_WHY = 1_000


@dataclass(frozen=True, slots=True)
class Running:
    """What an instance runs. content: None if its message had none; readers of 0.1.0 don't know it."""

    epoch_seq: int
    revision: int
    digest: str
    content: str | None = None

    def to_object(self) -> JsonObject:
        """As in a receipt."""
        return _without_none(members(self), "content")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last configuration an instance was given, and how far it got with it. deaths: how often in
    a row the service died within its bake time. content: None if its message had none. at: when it got there
    (RFC 3339, the instance's clock). took_ms: since it was received. Readers of 0.1.0 know none of these four."""

    revision: int
    stage: Stage
    reason: str | None = None
    deaths: int = 0
    content: str | None = None
    at: str | None = None
    took_ms: int | None = None

    @property
    def why(self) -> str | None:
        """The reason, for what keeps many of them: a receipt may be full of it."""
        return self.reason and self.reason[:_LONGEST_WHY]

    def to_object(self) -> JsonObject:
        """As in a receipt: `deaths` is left out if there were none."""
        said = _without_none(members(self), "content", "at", "took_ms")
        if not self.deaths:
            del said["deaths"]
        return said


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an instance says it runs, signed by its own key; rising by (boot_seq, seq).

    running: None while it runs on its model's defaults alone. source: where that came from.
    overrides: the keys that its environment decides. gone: the will.
    """

    service: str
    instance: str
    boot_seq: int
    seq: int
    running: Running | None
    last_attempt: Attempt | None
    source: Source
    freshness: str
    overrides: tuple[str, ...]
    schema: str
    library: str
    correlation_id: str | None
    gone: bool
    at: str

    @property
    def order(self) -> tuple[int, int]:
        return (self.boot_seq, self.seq)

    def to_bytes(self) -> bytes:
        running = self.running and self.running.to_object()
        attempt = self.last_attempt and self.last_attempt.to_object()
        return strict_json.dumps({**members(self), "running": running, "last_attempt": attempt})

    @classmethod
    def parse(cls, payload: bytes) -> Receipt:
        return Fields.parse(payload, cls).read(
            cls, running=_running, last_attempt=_attempt, source=Fields.text
        )


def _without_none(said: JsonObject, *names: str) -> JsonObject:
    return {key: value for key, value in said.items() if key not in names or value is not None}


def _running(fields: Fields, name: str) -> Running | None:
    item = fields.inside(name)
    return item.read(Running, content=content_id) if item else None


def _attempt(fields: Fields, name: str) -> Attempt | None:
    item = fields.inside(name)
    if item is None:
        return None
    return item.read(
        Attempt, stage=Fields.text, deaths=_deaths, content=content_id, took_ms=_took_ms
    )


def _deaths(attempt: Fields, name: str) -> int:
    return attempt.integer(name) if attempt.present(name) else 0


def _took_ms(attempt: Fields, name: str) -> int | None:
    return attempt.integer(name) if attempt.present(name) else None
