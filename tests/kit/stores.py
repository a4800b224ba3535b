"""A small catalogue, a world that repeats itself, and a hand that writes as the storing actor does."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hypothesis import settings

from config_manager.config import sealing
from config_manager.config.catalogue import Catalogue, ServiceSettings, setting
from config_manager.config.names import Epoch
from config_manager.config.world import World, rfc3339
from config_manager.storage.decisions import changes
from config_manager.storage.decisions.equipment import Equipped, Seal, Tools
from config_manager.storage.decisions.intents import Intent
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.secret_box import SecretBox
from config_manager.storage.memory_store import MemoryStore
from config_manager.storage.sql.sql_store import SqlStore
from config_manager.storage.state import (
    AuditEntry,
    Commit,
    Committed,
    IdempotencyRecord,
    KeyChange,
)
from config_manager.storage.store import Store

FIRST_EPOCH = Epoch(1, "00000000-0000-4000-8000-000000000001")
START = 1_800_000_000.0
STEADY = settings(deadline=None, derandomize=True)
"""For Hypothesis: the same examples in every run, and no failure because a disk was slow."""

DB_KEY = bytes(range(32))
VOUCHING = Vouching(bytes(range(32, 64)))


class DoorSettings(ServiceSettings):
    SERVICE: ClassVar[str] = "door"

    volume: int = setting(5, "How loud the bell is.", ge=0, le=10)
    greeting: str | None = setting(None, "What the door says.")
    pin: str = setting("", "What opens the door.", secret=True, max_length=8)


CATALOGUE = Catalogue([DoorSettings])
SHAPES = Shapes(CATALOGUE)
"""`door` has a model with a secret; every other service takes any object."""


class Counting:
    """Randomness that repeats itself from run to run."""

    def __init__(self) -> None:
        self._drawn: Iterator[int] = count(1)

    def token(self, size: int) -> bytes:
        return next(self._drawn).to_bytes(size, "big")

    def uuid(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._drawn) + 1:012}"

    def fraction(self) -> float:
        return 0.5


def committed_in(store: Store) -> Committed:
    """What it keeps, of which every row can be read."""
    with store.snapshot() as snapshot:
        kept = snapshot.kept()
    assert kept.odd == ()
    return kept.committed


class Decision(NamedTuple):
    """first: no service of it was there before. changes: of the first one."""

    change: Commit
    first: bool
    changes: tuple[KeyChange, ...]


class Hand:
    """Decides one write after the other and commits each, at a second a write."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.world = World(randomness=Counting())
        self.box = SecretBox(b"s" * 32, self.world.randomness)
        self.now = START

    def decide(
        self, state: Committed, intent: Intent, *, reason: str | None = None, by: str = "ada"
    ) -> Decision:
        self.now += 1
        return decide(
            state,
            intent,
            by=by,
            reason=reason,
            now=self.now,
            correlation_id=f"id-{state.revision + 1}",
            epoch_id=self.world.randomness.uuid(),
            seal=self.box.seal,
        )

    def write(self, intent: Intent, **how: Any) -> Decision:
        decision = self.decide(committed_in(self.store), intent, **how)
        self.store.commit([decision.change])
        return decision

    def batch(self, *intents: Intent) -> list[Decision]:
        """Decided each on top of the one before, committed together."""
        state, decisions = committed_in(self.store), list[Decision]()
        for intent in intents:
            decisions.append(self.decide(state, intent))
            state = decisions[-1].change.after
        self.store.commit([decision.change for decision in decisions])
        return decisions


def decide(state: Committed, intent: Intent, **how: Any) -> Decision:
    """What it comes to, with everything that a test does not care about filled in."""
    change = intent.decide(state, equipped(**how)).change
    first = all(state.live(one.service) is None for one in change.services)
    return Decision(change, first, change.history[0].entry.changes)


def equipped(
    *,
    by: str = "ada",
    reason: str | None = None,
    now: float = START,
    correlation_id: str = "id",
    shapes: Shapes = SHAPES,
    epoch_id: str = "00000000-0000-4000-8000-000000000002",
    seal: Seal | None = None,
) -> Equipped:
    box = SecretBox(b"s" * 32, Counting())
    tools = Tools(
        shapes,
        new_id=lambda: epoch_id,
        seal=lambda _: seal or box.seal,
        open=box.open,
        seal_for_device=sealing.seal,
        delivery_mac=VOUCHING.delivery_mac,
        keyed=lambda fingerprint: fingerprint,
    )
    return Equipped(by, reason, now, correlation_id, tools, MemoryStore(FIRST_EPOCH))


def empty() -> Committed:
    return changes.empty(FIRST_EPOCH)


def after(*intents: Intent) -> Committed:
    """The state that these writes lead to."""
    state = empty()
    for intent in intents:
        state = decide(state, intent).change.after
    return state


def record(key: str, at: float, answer: bytes = b"{}") -> IdempotencyRecord:
    return IdempotencyRecord(key, b"fingerprint of " + key.encode(), answer, at)


def open_sql(path: Path, *, key: bytes = DB_KEY, fresh: bool = True) -> SqlStore:
    return SqlStore.open(
        path,
        key,
        vouching=VOUCHING,
        epoch_id=FIRST_EPOCH.id,
        at=rfc3339(START),
        fresh=fresh,
    )


def broken_link(rows: list[AuditEntry], head: str) -> int | None:
    """Where a chain that should end in `head` does not recompute: an index, len(rows) for the
    end, None for a whole one. Written from the words of the contract, not from the code."""
    previous = "0" * 64
    for index, row in enumerate(rows):
        if sha256(previous.encode("ascii") + row.body).hexdigest() != row.hash:
            return index
        previous = row.hash
    return None if previous == head else len(rows)
