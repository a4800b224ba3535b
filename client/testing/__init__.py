"""A testing kit: feed a service changes in a test, without broker, server or network.

Everything else is real: the publisher has keys of its own, its messages are signed, the client
verifies them, keeps them on disk (in a temporary directory) and answers with receipts.

    async def test_a_louder_voice():
        publisher = FakePublisher("voice")
        async with publisher.open(VoiceSettings) as config:
            outcome = await publisher.deliver(volume=0.8)
            assert outcome.applied
            assert config.current.volume == 0.8

`open` works under asyncio and Trio, `open_in_threads` and `deliver_and_wait` without either. Whatever
thread or loop a service runs in, the publisher may be used from any other.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nacl.public import PrivateKey
from nacl.signing import SigningKey
from pydantic import BaseModel

from config_manager.client.model.validating import complete
from config_manager.client.state.identity import load_identity, note_enrolled, trust_init
from config_manager.client.state.places import expanded
from config_manager.client.testing.fake_wire import SEALED_TOPICS, Line, Opened, Sent, TrioTransport
from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.receipt import Attempt, Receipt
from config_manager.config.documents.root import KeyRole, Root, RootKey
from config_manager.config.documents.sealed import Sealed
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.names import parse_instance, parse_service
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World, rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Unpack

    from config_manager.client.drivers.live_config import LiveConfig
    from config_manager.client.drivers.opening import OptionArguments
    from config_manager.client.drivers.threads import Config
    from config_manager.client.rules.todo import Change

M = TypeVar("M", bound=BaseModel)

_EPOCH = "00000000-0000-4000-8000-000000000000"
_ROLES = ("root", "config", "beacon")
_DECIDED = frozenset({"applied", "healthy", "refused", "deferred", "restart-required", "poisoned"})
_URL = "mqtt://testing.invalid:1883"
_WITHIN_S = 10.0


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


class FakePublisher:
    """A publisher of one service's configuration, and the wire to its instances.

    Not a broker: messages arrive at once and in order, until `disconnect`.
    """

    def __init__(self, service: str, *, world: World | None = None) -> None:
        self.service = parse_service(service)
        self.revision = 0
        self.receipts: list[Receipt] = []
        self._world = world or World()
        self._keys = {role: SigningKey.generate() for role in _ROLES}
        self._began_at = self._now()
        self._beacons = 0
        self._newest: tuple[int, str] | None = None
        self._secrets: dict[str, tuple[int, Secret]] = {}
        self._named: dict[str, tuple[int, Secret]] = {}  # by the newest revision
        self._enrolled: dict[str, bytes] = {}
        self._open: list[Opened] = []
        self._retained: dict[str, bytes] = {}
        self._lines: list[Line] = []
        self._reachable = True
        self._withholds = False
        self._lock = threading.RLock()
        self._deliveries: list[_Delivery] = []
        self._send_snapshot()

    # ── opening a service's configuration ──────────────────────────────────────────────────────

    def open(
        self,
        model: type[M],
        *,
        apply: Callable[[Change[M]], Awaitable[None] | None] | None = None,
        **options: Unpack[OptionArguments],
    ) -> AbstractAsyncContextManager[LiveConfig[M]]:
        """As `open_config`, on this publisher, and in its place in a test of a whole program.
        state_dir: to start again from what was kept."""
        complete(model, frames_up=1)
        return self._opening(model, apply, options)

    def open_in_threads(
        self,
        model: type[M],
        *,
        apply: Callable[[Change[M]], None] | None = None,
        **options: Unpack[OptionArguments],
    ) -> Config[M]:
        """As `Config`, on this publisher, and in its place in a test of a whole program."""
        from config_manager.client.testing.fake_config import FakeConfig

        complete(model, frames_up=1)
        return FakeConfig(self, model, apply, options)

    @asynccontextmanager
    async def _opening(
        self,
        model: type[M],
        apply: Callable[[Change[M]], Awaitable[None] | None] | None,
        given: OptionArguments,
    ) -> AsyncIterator[LiveConfig[M]]:
        import sniffio

        from config_manager.client.drivers import asyncio_driver, trio_driver

        with (
            self.host(given, threading.get_ident()) as (opened, options),
            ExitStack() as until_it_has_left,
        ):
            context: AbstractAsyncContextManager[LiveConfig[M]]
            if sniffio.current_async_library() == "trio":
                context = trio_driver.open_config(
                    model, apply=apply, transport=TrioTransport(opened), **options
                )
            else:
                context = asyncio_driver.open_config(
                    model, apply=apply, connect=opened.connect, **options
                )
            async with context as config:
                until_it_has_left.enter_context(self.listening(opened))
                yield config

    # ── what a publisher does ──────────────────────────────────────────────────────────────────

    def publish(self, /, **values: Any) -> int:
        """Sign a new revision with these values and send it; returns its number, waits for nothing.

        Raises ValueError for what a server would not take either: what JSON does not have, NaN,
        integers beyond 2^53, more than 256 KiB.
        """
        return self._publish(_strict(values), deleted=False)

    def set_secrets(self, /, **values: str) -> None:
        """Store secrets, as `config-manager secret set` does: from the next revision on each names
        them, and they come sealed to every instance that this publisher opened."""
        for name, value in _strict(values).items():
            if not isinstance(value, str):
                raise ValueError(f"{name}: a secret is text, not {type(value).__name__}")  # noqa: TRY004  as every value
        for name, value in values.items():
            version = self._secrets[name][0] + 1 if name in self._secrets else 1
            self._secrets[name] = (version, Secret(value))

    def delete(self) -> int:
        """Sign and send a tombstone: the service keeps what it runs."""
        return self._publish({}, deleted=True)

    async def deliver(self, within_s: float = _WITHIN_S, /, **values: Any) -> Outcome:
        """`publish`, and wait until each instance that is open has decided.

        Of several the outcome is that of one that did not apply it, if there is such a one.
        within_s: seconds of real time, whatever clock the loop has; the only argument without a name,
        because any name may be a setting's. Raises ValueError as `publish`, NobodyListens if nobody
        can decide, and TimeoutError, which says who has not and how far each came.
        """
        wake, woken = _waker()
        with self._delivery(values, within_s, wake) as delivery:
            await woken()
        return self._outcome(delivery, within_s)

    def deliver_and_wait(self, within_s: float = _WITHIN_S, /, **values: Any) -> Outcome:
        """`deliver` from plain threads."""
        if any(opened.thread == threading.get_ident() for opened in self._open):
            raise NobodyListens(
                f"{self.service} runs in the event loop of this thread, which can't go on while it "
                "waits: `await publisher.deliver(…)`"
            )
        woken = threading.Event()
        with self._delivery(values, within_s, woken.set) as delivery:
            woken.wait()
        return self._outcome(delivery, within_s)

    def send(self, payload: bytes, topic: str | None = None) -> None:
        """Any bytes, as a hostile broker would send them; by default on the service's own topic."""
        self._push(Sent(topic or wire.config_topic(self.service), payload))

    def withhold(self) -> None:
        """From now on beacons go on, and changes and snapshots don't arrive."""
        self._withholds = True

    def disconnect(self) -> None:
        """The network is gone; `reconnect` brings it back with everything that is retained."""
        self._reachable = False
        with self._lock:
            for line in self._lines:
                line.cut()

    def reconnect(self) -> None:
        self._reachable = True

    def beat(self) -> None:
        """A keepalive with a new beacon, as the server sends every 10 s."""
        frame = {"type": "health.keepalive", "data": {"beacon": self._beacon().to_object()}}
        self._push(Sent(wire.KEEPALIVE_TOPIC, json.dumps(frame).encode(), retained=False))

    @property
    def root(self) -> bytes:
        """The trust root's envelope, as `trust/root.json` holds it."""
        keys = {self._keyid(role): RootKey(self._public(role)) for role in _ROLES}
        roles = {role: KeyRole((self._keyid(role),), 1) for role in _ROLES}
        root = Root(1, "2026-01-01T00:00:00.000Z", keys, roles)
        return self._sign("root", wire.ROOT, root.to_bytes()).to_bytes()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _publish(self, values: JsonObject, *, deleted: bool) -> int:
        with self._lock:
            update = self._update(values, deleted=deleted)
            envelope = self._sign(
                "config", wire.CONFIG_UPDATE, update.to_bytes(), update.correlation_id
            )
            data = envelope.to_bytes()
            if len(data) > wire.MAX_ENVELOPE_BYTES:
                raise ValueError(
                    f"{len(data)} bytes once it is signed: a server takes "
                    f"{wire.MAX_ENVELOPE_BYTES} at most"
                )
            self.revision = update.revision
            self._named = {} if deleted else dict(self._secrets)
            self._newest = (self.revision, envelope.digest)
            if not self._withholds:
                for instance in self._enrolled:
                    self._send_secrets(instance)
                self._retain(update.topic, data)
            self._send_snapshot()
            return self.revision

    def _update(self, values: JsonObject, *, deleted: bool) -> ConfigUpdate:
        revision = self.revision + 1
        return ConfigUpdate(
            service=self.service,
            topic=wire.config_topic(self.service),
            config_epoch=_EPOCH,
            epoch_seq=1,
            revision=revision,
            previous=self._newest[1] if self._newest else None,
            issued_at=self._now(),
            config=values,
            defaulted=(),
            secrets={}
            if deleted
            else {name: version for name, (version, _) in self._secrets.items()},
            deleted=deleted,
            correlation_id=f"test-{revision}",
        )

    def _send_secrets(self, instance: str) -> None:
        if not self._named:
            return
        empty = Sealed(self.service, instance, 1, self.revision, {})
        values = {
            name: seal(
                value,
                sealed=empty,
                name=name,
                version=version,
                public=self._enrolled[instance],
            )
            for name, (version, value) in self._named.items()
        }
        sealed = replace(empty, secrets=values)
        envelope = self._sign("config", wire.SEALED, sealed.to_bytes())
        self._retain(wire.sealed_topic(self.service, instance), envelope.to_bytes())

    def _enrol(self, state_dir: Path, instance: str | None) -> str:
        """As `client enroll` does, without a token; returns the instance's name."""
        identity = load_identity(state_dir, self._world)
        named = instance or os.environ.get("CONFIG_MANAGER_INSTANCE")
        name = parse_instance(named) if named else identity.instance
        note_enrolled(state_dir, self.service, name, self._world)
        self._enrolled[name] = bytes(PrivateKey(identity.seal_key).public_key)
        if self._newest is not None:
            self._send_secrets(name)
        return name

    def _send_snapshot(self) -> None:
        beacon = self._beacon()
        if not self._withholds:
            retained = {**self._snapshot().to_object(), "beacon": beacon.to_object()}
            self._retain(wire.SNAPSHOT_TOPIC, json.dumps(retained).encode())

    def _snapshot(self) -> Envelope:
        services: dict[str, tuple[int, str]] = {}
        if self._newest is not None:
            services[self.service] = self._newest
        snapshot = Snapshot(_EPOCH, 1, self.revision, services)
        return self._sign("beacon", wire.SNAPSHOT, snapshot.to_bytes())

    def _beacon(self) -> Envelope:
        self._beacons += 1
        beacon = Beacon(
            config_epoch=_EPOCH,
            epoch_seq=1,
            revision=self.revision,
            snapshot=self._snapshot().digest,
            root_version=1,
            audit_head="0" * 64,
            # each as of a new start whose clock stands: a test's time may leap between two beats,
            # and neither of them is a replay
            boot_seq=self._beacons,
            seq=1,
            issued_at=self._began_at,
            valid_s=30,
        )
        return self._sign("beacon", wire.BEACON, beacon.to_bytes())

    def _sign(
        self, role: str, kind: str, payload: bytes, correlation_id: str | None = None
    ) -> Envelope:
        signature = self._keys[role].sign(wire.signed_bytes(kind, payload)).signature
        return Envelope(kind, payload, (Signature(self._keyid(role), signature),), correlation_id)

    def _public(self, role: str) -> bytes:
        return self._keys[role].verify_key.encode()

    def _keyid(self, role: str) -> str:
        return wire.keyid(self._public(role))

    def _now(self) -> str:
        return rfc3339(self._world.clock.now())

    def _retain(self, topic: str, payload: bytes) -> None:
        self._retained[topic] = payload
        self._push(Sent(topic, payload))

    def _push(self, message: Sent) -> None:
        with self._lock:
            for line in self._lines:
                if line.takes(message.topic):
                    line.push(message)

    def attach(self, line: Line) -> None:
        """A connection was made. Raises ConnectionError while disconnected."""
        if not self._reachable:
            raise ConnectionError("the fake publisher is disconnected")
        with self._lock:
            self._lines.append(line)
            for topic, payload in self._retained.items():
                if line.takes(topic):
                    line.push(Sent(topic, payload))

    def send_sealed(self, line: Line) -> None:
        """A connection subscribed: now it is known whose secrets it may be given."""
        with self._lock:
            for topic, payload in self._retained.items():
                if topic.startswith(SEALED_TOPICS) and line.takes(topic):
                    line.push(Sent(topic, payload))

    def detach(self, line: Line) -> None:
        with self._lock:
            self._lines.remove(line)

    def take_receipt(self, opened: Opened, payload: bytes) -> None:
        """What an instance published."""
        receipt = Receipt.parse(wire.parse_envelope(payload).payload)
        with self._lock:
            self.receipts.append(receipt)
            opened.attempt = receipt.last_attempt
            for delivery in self._deliveries:
                delivery.heard(opened, receipt.last_attempt)
                self._wake_if_decided(delivery)

    # ── who decides on a delivery ──────────────────────────────────────────────────────────────

    @contextmanager
    def _delivery(
        self, values: dict[str, Any], within_s: float, wake: Callable[[], None]
    ) -> Iterator[_Delivery]:
        """Published; wake: called once nothing is left to wait for, or the time is over."""
        strict = _strict(values)
        if (why := self._why_nobody_listens()) is not None:
            raise NobodyListens(why)
        # of real time: a loop whose clock leaps would be through with it before a disk has written
        timer = threading.Timer(within_s, wake)
        timer.daemon = True
        with self._lock:  # nobody is heard before this is here to listen
            delivery = _Delivery(self._publish(strict, deleted=False), wake)
            self._deliveries.append(delivery)
        timer.start()
        try:
            yield delivery
        finally:
            timer.cancel()
            with self._lock:
                self._deliveries.remove(delivery)

    def _why_nobody_listens(self) -> str | None:
        instead = "; `publish` waits for nobody"
        if not self._open:
            return f"nobody has {self.service} open: deliver inside `publisher.open(…)`{instead}"
        if not self._reachable:
            return f"the publisher is disconnected: `reconnect` first{instead}"
        if self._withholds:
            return f"what is published is withheld{instead}"
        return None

    def _wake_if_decided(self, delivery: _Delivery) -> None:
        if all(opened in delivery.outcomes for opened in self._open):
            delivery.wake()

    def _outcome(self, delivery: _Delivery, within_s: float) -> Outcome:
        with self._lock:
            undecided = [opened for opened in self._open if opened not in delivery.outcomes]
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
                f"{self.service} was closed before it decided on revision {delivery.revision}"
            )
        return min(outcomes, key=lambda outcome: outcome.applied)

    @contextmanager
    def listening(self, opened: Opened) -> Iterator[None]:
        """In this block deliveries wait for it. With its farewell it says what it made of the last."""
        with self._lock:
            self._open.append(opened)
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(opened)
                for delivery in self._deliveries:
                    self._wake_if_decided(delivery)

    # ── where an instance lives ────────────────────────────────────────────────────────────────

    @contextmanager
    def host(
        self, given: OptionArguments, thread: int | None
    ) -> Iterator[tuple[Opened, dict[str, Any]]]:
        """A new instance, enrolled, and its options; in this block its directory is there."""
        if given.get("service") not in (None, self.service):
            raise ValueError(
                f"this publisher is {self.service}'s; {given['service']} takes one of its own"
            )
        defaults: dict[str, Any] = {"env_file": None, "bake_s": 0.0}
        with self._state(given.get("state_dir")) as directory:
            opened = Opened(self, self._enrol(directory, given.get("instance")), thread)
            own = {"service": self.service, "state_dir": directory, "mqtt_url": _URL}
            yield opened, {**defaults, **given, **own, "world": self._world}

    @contextmanager
    def _state(self, given: Path | str | None) -> Iterator[Path]:
        # leaving does not wait for a slow disk: it may write something still
        with tempfile.TemporaryDirectory(
            prefix="config-manager-", ignore_cleanup_errors=True
        ) as temporary:
            directory = expanded(given) if given else Path(temporary) / "state"
            root = Path(temporary) / "root.json"
            root.write_bytes(self.root)
            trust_init(directory, root, self._world)
            yield directory


class _Delivery:
    """A revision that somebody waits for, and what each instance made of it."""

    def __init__(self, revision: int, wake: Callable[[], None]) -> None:
        self.revision = revision
        self.wake = wake
        self.outcomes: dict[Opened, Outcome] = {}

    def heard(self, opened: Opened, attempt: Attempt | None) -> None:
        if attempt and attempt.revision == self.revision and attempt.stage in _DECIDED:
            self.outcomes[opened] = Outcome(self.revision, attempt.stage, attempt.reason)


def _strict(values: dict[str, Any]) -> JsonObject:
    """As they come out of a server; raises ValueError, which names the key."""
    strict: JsonObject = {}
    for key, value in values.items():
        try:
            strict |= strict_json.loads_object(json.dumps({key: value}).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{key} can't be delivered, no server would take it: {error}"
            ) from None
    return strict


def _waker() -> tuple[Callable[[], None], Callable[[], Awaitable[object]]]:
    """Something to wait for in this loop, and what ends the waiting, from any thread."""
    import sniffio

    if sniffio.current_async_library() == "trio":
        import trio

        token, in_trio = trio.lowlevel.current_trio_token(), trio.Event()

        def wake_trio() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(in_trio.set)

        return wake_trio, in_trio.wait
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(event.set)

    return wake, event.wait
