"""One instance of a service, told as a story: messages, answers and seconds in, what came of it out.

No loop, no socket, no file: the disk is a dictionary and time is a number.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey
from pydantic import BaseModel, Field

from config_manager.client.drivers.opening import read_layers
from config_manager.client.model.precedence import Merged
from config_manager.client.rules.events import Event, Refused
from config_manager.client.rules.instance import InstanceRules
from config_manager.client.rules.kept import Kept
from config_manager.client.rules.todo import (
    Call,
    Change,
    Do,
    Keep,
    PublishReceipt,
    Swap,
    Tell,
    TooStale,
    TrialPolicy,
)
from config_manager.client.state.cache import Cache
from config_manager.config import strict_json, wire
from config_manager.config.documents.receipt import Receipt
from config_manager.config.names import ServiceName
from config_manager.config.world import World
from tests.kit import clients
from tests.kit import documents as m


class Settings(BaseModel):
    """What the service in these stories runs with."""

    whisper_model: str = "tiny"
    n: int = Field(default=0, ge=0)


class Story:
    """Starts with what the disk holds; `died` and `ended` go on with a new process."""

    def __init__(
        self,
        disk: clients.MemoryDisk | None = None,
        *,
        asks: bool = True,
        environment: dict[str, str] | None = None,
        model: type[BaseModel] = Settings,
        now: float = 0.0,
        boot_seq: int = 1,
        opened: bool = True,
        enrolled: bool = False,
        **policy: Any,
    ) -> None:
        self.disk = disk or clients.MemoryDisk()
        self.now = now
        self.clock = clients.SetClock(m.NOW + now)
        self.calls: list[Change[Any]] = []
        self.swaps: list[int] = []
        self.events: list[Event] = []
        self.receipts: list[Receipt] = []
        self.too_stale: list[TooStale] = []
        self._again = {
            "asks": asks, "environment": environment, "model": model, "enrolled": enrolled, **policy
        }  # fmt: skip
        self._boot_seq = boot_seq
        identity = clients.make_identity()
        if enrolled:
            identity = replace(identity, enrolled=frozenset({f"{m.SERVICE}/{identity.instance}"}))
        world = World(clock=self.clock, disk=self.disk)
        self._cache = Cache(Path("state"), m.SERVICE, identity.file_key, identity.roots, world)
        self.instance: InstanceRules[Any] = InstanceRules(
            ServiceName(m.SERVICE),
            identity.instance,
            identity,
            read_layers(model, "STT_WORKER_", environment=environment or {}),
            self._cache.load(),
            policy=TrialPolicy(**policy),
            boot_seq=boot_seq,
            asks=asks,
            world=world,
        )
        self.current: Merged[Any] = self.instance.effective
        self._do(self.instance.start(self.now))
        if opened:
            self.instance.opened()

    def _do(self, todo: list[Do[Any]]) -> None:
        for do in todo:
            match do:
                case Keep(kept):
                    self._cache.keep(kept)
                case Call(change):
                    self.calls.append(change)
                case Swap(effective, change):
                    self.current = effective
                    if change is not None:
                        assert change.revision is not None
                        self.swaps.append(change.revision)
                case PublishReceipt(topic, payload):
                    self.receipts.append(read_receipt(topic, payload))
                case Tell(event):
                    self.events.append(event)
                case TooStale():
                    self.too_stale.append(do)

    # ── what happens ───────────────────────────────────────────────────────────────────────────

    def receives(self, payload: bytes, topic: str = m.TOPIC) -> Story:
        self._do(self.instance.receive(topic, payload, self.clock.now(), self.now))
        return self

    def gets(self, revision: int, **fields: Any) -> Story:
        """A configuration of this revision; n is the revision unless it is said."""
        return self.receives(m.update_bytes(revision, **fields))

    def says(self, error: BaseException | None = None) -> Story:
        """The callback's answer."""
        self._do(self.instance.called(error, self.now))
        return self

    def lives(self, seconds: float) -> Story:
        for _ in range(int(seconds)):
            self._passes(1.0)
        if seconds % 1:
            self._passes(seconds % 1)
        return self

    def _passes(self, seconds: float) -> None:
        self.now += seconds
        self.clock.time += seconds
        self._do(self.instance.tick(self.now, self.clock.now()))

    def holds(self) -> Story:
        self.instance.hold()
        return self

    def lets_go(self) -> Story:
        self.instance.unhold()
        self._do(self.instance.retry(self.now))
        return self

    def died(self, **changed: Any) -> Story:
        """The process is gone without a word; the next one starts."""
        again: dict[str, Any] = {**self._again, **changed}
        return Story(self.disk, now=self.now + 1, boot_seq=self._boot_seq + 1, **again)

    def ended(self, **changed: Any) -> Story:
        """It stops on purpose; the next one starts."""
        self._do(self.instance.end())
        return self.died(**changed)

    # ── what came of it ────────────────────────────────────────────────────────────────────────

    @property
    def n(self) -> int:
        """What runs: the revision, unless a story says otherwise."""
        n: int = self.current.values.n
        assert self.instance.effective is self.current
        return n

    @property
    def asked(self) -> list[int | None]:
        return [change.revision for change in self.calls]

    @property
    def stage(self) -> str:
        """How far the last attempt came, as the newest receipt has it: `refused 6`."""
        attempt = self.receipts[-1].last_attempt
        return f"{attempt.stage} {attempt.revision}" if attempt is not None else "nothing"

    @property
    def stages(self) -> list[str]:
        """Every stage that was reported, each change of it once."""
        said = [r.last_attempt for r in self.receipts if r.last_attempt is not None]
        names = [f"{attempt.stage} {attempt.revision}" for attempt in said]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]

    @property
    def why(self) -> str | None:
        attempt = self.receipts[-1].last_attempt
        return attempt.reason if attempt is not None else None

    @property
    def deaths(self) -> int:
        attempt = self.receipts[-1].last_attempt
        return attempt.deaths if attempt is not None else 0

    @property
    def open_trial(self) -> tuple[str, bool] | None:
        """On disk: the digest of what a death now would be laid to, and whether it is asked about."""
        written = strict_json.loads_object(self._cache._file.read())
        if written["trial"] is None or written["trial_ended_well"]:
            return None
        return wire.envelope_from_object(written["trial"]).digest, written["trial_asked"]

    @property
    def kept(self) -> Kept:
        """What is on disk."""
        kept = self._cache.load()
        assert kept is not None
        return kept

    @property
    def seen(self) -> int | None:
        """The highest revision that was ever accepted, on disk."""
        seen = self.kept.seen
        return seen.mark.revision if seen is not None else None

    @property
    def on_disk(self) -> tuple[int | None, int | None]:
        """The proved revision, and the one on trial."""
        kept = self.kept
        return (
            kept.running[0].revision if kept.running else None,
            kept.trial[0].revision if kept.trial else None,
        )

    def refused(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Refused)]


def read_receipt(topic: str, payload: bytes) -> Receipt:
    """Verified as the server does it: by the instance's own key, over the exact bytes."""
    assert topic == wire.status_topic(m.SERVICE, "robot-1")
    envelope = wire.parse_envelope(payload)
    assert envelope.payload_type == wire.RECEIPT
    (signature,) = envelope.signatures
    public = clients.INSTANCE_KEY.verify_key.encode()
    assert signature.keyid == wire.keyid(public)
    VerifyKey(public).verify(wire.signed_bytes(wire.RECEIPT, envelope.payload), signature.sig)
    return Receipt.parse(envelope.payload)


def disk_with(revision: int, **fields: Any) -> clients.MemoryDisk:
    """Where this revision was applied and proved by an earlier process."""
    disk = clients.MemoryDisk()
    identity = clients.make_identity()
    world = World(clock=clients.SetClock(), disk=disk)
    Cache(Path("state"), m.SERVICE, identity.file_key, identity.roots, world).keep(
        clients.make_kept(revision, m.update_bytes(revision, **fields))
    )
    return disk


def running(revision: int = 5, **options: Any) -> Story:
    """A service that was restarted with this revision."""
    return Story(disk_with(revision), **options)
