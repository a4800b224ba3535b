"""A testing kit: feed a service changes in a test, without broker, server or network.

Everything else is real: the publisher has keys of its own, its messages are signed, the client
verifies them, keeps them on disk (in a temporary directory) and answers with receipts.

    async def test_a_louder_voice():
        publisher = FakePublisher("voice")
        async with publisher.open(VoiceSettings) as config:
            outcome = await publisher.deliver(volume=0.8)
            assert outcome.applied
            assert config.current.volume == 0.8

`open` works under asyncio and Trio, `open_in_threads` and `deliver_and_wait` without either.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nacl.public import PrivateKey
from nacl.signing import SigningKey
from pydantic import BaseModel

from config_manager.client.identity import load_identity, note_enrolled, trust_init
from config_manager.config import wire
from config_manager.config.documents import (
    Beacon,
    ConfigUpdate,
    Receipt,
    Role,
    Root,
    RootKey,
    Sealed,
    Snapshot,
)
from config_manager.config.names import parse_instance, parse_service
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import World, rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Unpack

    from config_manager.client.config import LiveConfig
    from config_manager.client.instance import Change
    from config_manager.client.opening import OptionArguments
    from config_manager.client.threads import Config

M = TypeVar("M", bound=BaseModel)

_EPOCH = "00000000-0000-4000-8000-000000000000"
_ROLES = ("root", "config", "beacon")
_DECIDED = frozenset({"applied", "healthy", "refused", "deferred", "restart-required", "poisoned"})
_SEALED_TOPICS = wire.SEALED_FILTER.partition("+")[0]
_URL = "mqtt://testing.invalid:1883"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a delivery. stage: as in the receipt. reason: why it is not applied."""

    revision: int
    stage: str
    reason: str | None

    @property
    def applied(self) -> bool:
        return self.stage in ("applied", "healthy")


class _Sent(NamedTuple):
    """A message as both drivers' connections give it."""

    topic: str
    payload: bytes
    retained: bool = True


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
        self._open: set[str] = set()  # instances
        self._retained: dict[str, bytes] = {}
        self._lines: list[_Line] = []
        self._reachable = True
        self._withholds = False
        self._lock = threading.Lock()
        self._on_receipt: list[Callable[[Receipt], None]] = []
        self._send_snapshot()

    # ── opening a service's configuration ──────────────────────────────────────────────────────

    @asynccontextmanager
    async def open(
        self,
        model: type[M],
        *,
        apply: Callable[[Change[M]], Awaitable[None] | None] | None = None,
        **options: Unpack[OptionArguments],
    ) -> AsyncIterator[LiveConfig[M]]:
        """As `open_config`, on this publisher. state_dir: to start again from what was kept."""
        import sniffio

        from config_manager.client import actor, aio

        with self._state(options.get("state_dir")) as directory:
            instance, common = self._options(directory, options)
            opened: AbstractAsyncContextManager[LiveConfig[M]]
            if sniffio.current_async_library() == "trio":
                opened = actor.open_config(
                    model, apply=apply, transport=_TrioTransport(self), **common
                )
            else:
                opened = aio.open_config(model, apply=apply, connect=self._connect, **common)
            async with opened as config:
                with self._opened(instance):
                    yield config

    @contextmanager
    def open_in_threads(
        self,
        model: type[M],
        *,
        apply: Callable[[Change[M]], None] | None = None,
        **options: Unpack[OptionArguments],
    ) -> Iterator[Config[M]]:
        """As `Config`, on this publisher."""
        from config_manager.client.threads import Config

        with self._state(options.get("state_dir")) as directory:
            instance, common = self._options(directory, options)
            with (
                Config(model, apply=apply, connect=self._connect, **common) as config,
                self._opened(instance),
            ):
                yield config

    # ── what a publisher does ──────────────────────────────────────────────────────────────────

    def publish(self, **values: Any) -> int:
        """Sign a new revision with these values and send it; returns its number, waits for nothing."""
        return self._publish(values, deleted=False)

    def set_secrets(self, **values: str) -> None:
        """Store secrets, as `config-manager secret set` does: from the next revision on each names
        them, and they come sealed to every instance that this publisher opened."""
        for name, value in values.items():
            version = self._secrets[name][0] + 1 if name in self._secrets else 1
            self._secrets[name] = (version, Secret(value))

    def delete(self) -> int:
        """Sign and send a tombstone: the service keeps what it runs."""
        return self._publish({}, deleted=True)

    async def deliver(self, **values: Any) -> Outcome:
        """`publish`, and wait until each instance that is open has decided.

        Of several the outcome is that of one that did not apply it, if there is such a one.
        """
        import sniffio

        if sniffio.current_async_library() == "trio":
            import trio

            event: Any = trio.Event()
        else:
            event = asyncio.Event()
        with self._deciding(event.set) as outcomes:
            self.publish(**values)
            await event.wait()
        return _worst(outcomes)

    def deliver_and_wait(self, *, timeout: float = 10.0, **values: Any) -> Outcome:
        """`deliver` from plain threads. timeout: seconds; raises TimeoutError."""
        decided = threading.Event()
        with self._deciding(decided.set) as outcomes:
            revision = self.publish(**values)
            if not decided.wait(timeout):
                raise TimeoutError(f"the service has not decided on revision {revision}")
        return _worst(outcomes)

    def send(self, payload: bytes, topic: str | None = None) -> None:
        """Any bytes, as a hostile broker would send them; by default on the service's own topic."""
        self._push(_Sent(topic or wire.config_topic(self.service), payload))

    def withhold(self) -> None:
        """From now on beacons go on, and changes and snapshots don't arrive."""
        self._withholds = True

    def disconnect(self) -> None:
        """The network is gone; `reconnect` brings it back with everything that is retained."""
        self._reachable = False
        for line in list(self._lines):
            line.cut()

    def reconnect(self) -> None:
        self._reachable = True

    def beat(self) -> None:
        """A keepalive with a new beacon, as the server sends every 10 s."""
        frame = {"type": "health.keepalive", "data": {"beacon": self._beacon().to_object()}}
        self._push(_Sent(wire.KEEPALIVE_TOPIC, json.dumps(frame).encode(), retained=False))

    @property
    def root(self) -> bytes:
        """The trust root's envelope, as `trust/root.json` holds it."""
        keys = {self._keyid(role): RootKey(self._public(role)) for role in _ROLES}
        roles = {role: Role((self._keyid(role),), 1) for role in _ROLES}
        root = Root(1, "2026-01-01T00:00:00.000Z", keys, roles)
        return self._sign("root", wire.ROOT, root.to_bytes()).to_bytes()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _publish(self, values: JsonObject, *, deleted: bool) -> int:
        self.revision += 1
        self._named = {} if deleted else dict(self._secrets)
        update = ConfigUpdate(
            service=self.service,
            topic=wire.config_topic(self.service),
            config_epoch=_EPOCH,
            epoch_seq=1,
            revision=self.revision,
            previous=self._newest[1] if self._newest else None,
            issued_at=self._now(),
            config=values,
            defaulted=(),
            secrets={name: version for name, (version, _) in self._named.items()},
            deleted=deleted,
            correlation_id=f"test-{self.revision}",
        )
        envelope = self._sign(
            "config", wire.CONFIG_UPDATE, update.to_bytes(), update.correlation_id
        )
        self._newest = (self.revision, envelope.digest)
        if not self._withholds:
            for instance in self._enrolled:
                self._send_secrets(instance)
            self._retain(update.topic, envelope.to_bytes())
        self._send_snapshot()
        return self.revision

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
        self._push(_Sent(topic, payload))

    def _push(self, message: _Sent) -> None:
        with self._lock:
            for line in self._lines:
                if line.takes(message.topic):
                    line.push(message)

    def attach(self, line: _Line) -> None:
        """A connection was made. Raises ConnectionError while disconnected."""
        if not self._reachable:
            raise ConnectionError("the fake publisher is disconnected")
        with self._lock:
            self._lines.append(line)
            for topic, payload in self._retained.items():
                if line.takes(topic):
                    line.push(_Sent(topic, payload))

    def send_sealed(self, line: _Line) -> None:
        """A connection subscribed: now it is known whose secrets it may be given."""
        with self._lock:
            for topic, payload in self._retained.items():
                if topic.startswith(_SEALED_TOPICS) and line.takes(topic):
                    line.push(_Sent(topic, payload))

    def detach(self, line: _Line) -> None:
        with self._lock:
            self._lines.remove(line)

    def take_receipt(self, payload: bytes) -> None:
        """What an instance published."""
        receipt = Receipt.parse(wire.parse_envelope(payload).payload)
        self.receipts.append(receipt)
        for listener in list(self._on_receipt):
            listener(receipt)

    @contextmanager
    def _deciding(self, decided: Callable[[], None]) -> Iterator[dict[str, Outcome]]:
        """What each instance makes of the revision published next; decided: called once all have."""
        revision = self.revision + 1
        outcomes: dict[str, Outcome] = {}

        def listener(receipt: Receipt) -> None:
            if outcome := _outcome(receipt, revision):
                outcomes[receipt.instance] = outcome
                if self._open <= outcomes.keys():
                    decided()

        self._on_receipt.append(listener)
        try:
            yield outcomes
        finally:
            self._on_receipt.remove(listener)

    @contextmanager
    def _opened(self, instance: str) -> Iterator[None]:
        self._open.add(instance)
        try:
            yield
        finally:
            self._open.discard(instance)

    @contextmanager
    def _state(self, given: Path | str | None) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="config-manager-") as temporary:
            directory = Path(given) if given else Path(temporary) / "state"
            root = Path(temporary) / "root.json"
            root.write_bytes(self.root)
            trust_init(directory, root, self._world)
            yield directory

    def _options(self, directory: Path, given: OptionArguments) -> tuple[str, dict[str, Any]]:
        instance = self._enrol(directory, given.get("instance"))
        defaults: dict[str, Any] = {"env_file": None, "bake_s": 0.0}
        own = {"service": self.service, "state_dir": directory, "mqtt_url": _URL}
        return instance, {**defaults, **given, **own, "world": self._world}

    @asynccontextmanager
    async def _connect(self, *_: object) -> AsyncIterator[_AsyncioLine]:
        from config_manager.client.aio_connection import BrokerUnavailable

        line = _AsyncioLine(self)
        try:
            self.attach(line)
        except ConnectionError as error:
            raise BrokerUnavailable(str(error)) from None
        try:
            yield line
        finally:
            self.detach(line)


def _outcome(receipt: Receipt, revision: int) -> Outcome | None:
    """What a receipt says of this revision, once it was decided on."""
    attempt = receipt.last_attempt
    if attempt is None or attempt.revision != revision or attempt.stage not in _DECIDED:
        return None
    return Outcome(revision, attempt.stage, attempt.reason)


def _worst(outcomes: dict[str, Outcome]) -> Outcome:
    return min(outcomes.values(), key=lambda outcome: outcome.applied)


class _Line:
    """One instance's connection to the publisher. push may be called from any thread."""

    def __init__(self) -> None:
        self._filters: tuple[str, ...] = ()

    def subscribed(self, filters: tuple[str, ...]) -> None:
        self._filters = filters

    def takes(self, topic: str) -> bool:
        """Whatever comes, as from a hostile broker, but for what is sealed to another."""
        return not topic.startswith(_SEALED_TOPICS) or topic in self._filters

    def push(self, message: _Sent) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        raise NotImplementedError


class _AsyncioLine(_Line):
    def __init__(self, publisher: FakePublisher) -> None:
        super().__init__()
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[_Sent | None] = asyncio.Queue()

    def push(self, message: _Sent | None) -> None:
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, message)

    def cut(self) -> None:
        self.push(None)

    async def subscribe(self, *filters: str) -> None:
        self.subscribed(filters)
        self._publisher.send_sealed(self)
        await asyncio.sleep(0)

    async def publish(self, topic: str, payload: bytes) -> None:  # noqa: ARG002
        await asyncio.sleep(0)
        self._publisher.take_receipt(payload)

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        from config_manager.client.aio_connection import BrokerUnavailable

        while (message := await self._inbox.get()) is not None:
            yield message.topic, message.payload
        raise BrokerUnavailable("the fake publisher disconnected")


class _TrioTransport:
    def __init__(self, publisher: FakePublisher) -> None:
        self._publisher = publisher

    @asynccontextmanager
    async def connect(self, *_: object, **__: object) -> AsyncIterator[Any]:
        from config_manager.actors.mqtt import BrokerUnavailable

        line = _TrioLine(self._publisher)
        try:
            self._publisher.attach(line)
        except ConnectionError as error:
            raise BrokerUnavailable(str(error)) from None
        try:
            yield line
        finally:
            self._publisher.detach(line)


class _TrioLine(_Line):
    def __init__(self, publisher: FakePublisher) -> None:
        import trio

        super().__init__()
        self._publisher = publisher
        self._token = trio.lowlevel.current_trio_token()
        self._inbox, self._messages = trio.open_memory_channel[_Sent](10_000)

    def push(self, message: _Sent) -> None:
        self._inbox.send_nowait(message)

    def cut(self) -> None:
        self._inbox.close()

    async def subscribe(self, *filters: str, qos: int = 1) -> None:  # noqa: ARG002
        import trio

        self.subscribed(filters)
        self._publisher.send_sealed(self)
        await trio.lowlevel.checkpoint()

    async def publish(
        self,
        topic: str,  # noqa: ARG002
        payload: bytes,
        *,
        qos: int = 1,  # noqa: ARG002
        retain: bool = False,  # noqa: ARG002
    ) -> None:
        import trio

        await trio.lowlevel.checkpoint()
        self._publisher.take_receipt(payload)

    async def messages(self) -> AsyncIterator[_Sent]:
        from config_manager.actors.mqtt import BrokerUnavailable

        async for message in self._messages:
            yield message
        raise BrokerUnavailable("the fake publisher disconnected")
