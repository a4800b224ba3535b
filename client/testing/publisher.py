"""The fake publisher: everything that a test does is a call of it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nacl.public import PrivateKey
from pydantic import BaseModel

from config_manager.client.drivers.loops import runs_trio, waker
from config_manager.client.model.validating import complete
from config_manager.client.state.identity import load_identity, note_enrolled, trust_init
from config_manager.client.state.places import expanded
from config_manager.client.testing.deliveries import Deliveries, NobodyListens, Outcome
from config_manager.client.testing.fake_documents import FakeDocuments, strict
from config_manager.client.testing.fake_wire import OpenInstance, Wire, WireMessage
from config_manager.client.testing.signed_documents import keepalive_message, snapshot_message
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt
from config_manager.config.names import parse_instance, parse_service
from config_manager.config.secret import Secret
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World, rfc3339

if TYPE_CHECKING:
    from typing import Unpack

    from config_manager.client.drivers.live_config import LiveConfig
    from config_manager.client.drivers.opening import OptionArguments
    from config_manager.client.drivers.threads import Config
    from config_manager.client.rules.todo import Change

M = TypeVar("M", bound=BaseModel)

_URL = "mqtt://testing.invalid:1883"
_WITHIN_S = 10.0


class FakePublisher:
    """A publisher of one service's configuration, and the wire to its instances.

    Not a broker: messages arrive at once and in order, until `disconnect`.
    """

    def __init__(self, service: str, *, world: World | None = None) -> None:
        self.service = parse_service(service)
        self._world = world or World()
        self._documents = FakeDocuments(self.service, self._now())
        self._deliveries = Deliveries(self.service)
        self._wire = Wire(self._deliveries.take_receipt)
        self._withholds = False
        self._secrets: dict[str, tuple[int, Secret]] = {}
        self._named: dict[str, tuple[int, Secret]] = {}  # by the newest revision
        self._enrolled: dict[str, bytes] = {}
        self._lock = threading.RLock()
        self._send_snapshot()

    @property
    def revision(self) -> int:
        """Of what was published last; 0 before the first."""
        return self._documents.revision

    @property
    def receipts(self) -> list[Receipt]:
        """Every receipt that the service sent, the oldest first."""
        return self._deliveries.receipts

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
        return FakeConfig(
            model, apply, options, self._host, self._deliveries.listening, self._world
        )

    @asynccontextmanager
    async def _opening(
        self,
        model: type[M],
        apply: Callable[[Change[M]], Awaitable[None] | None] | None,
        given: OptionArguments,
    ) -> AsyncGenerator[LiveConfig[M]]:
        from config_manager.client.drivers import asyncio_driver, trio_driver

        with (
            self._host(given, threading.get_ident()) as (opened, options),
            ExitStack() as until_it_has_left,
        ):
            context: AbstractAsyncContextManager[LiveConfig[M]]
            if runs_trio():
                context = trio_driver.open_config(
                    model, apply=apply, transport=opened, world=self._world, **options
                )
            else:
                context = asyncio_driver.open_config(
                    model, apply=apply, connect=opened.connect, world=self._world, **options
                )
            async with context as config:
                until_it_has_left.enter_context(self._deliveries.listening(opened))
                yield config

    # ── what a publisher does ──────────────────────────────────────────────────────────────────

    def publish(self, /, **values: Any) -> int:
        """Sign a new revision with these values and send it; returns its number, waits for nothing.

        Raises ValueError for what a server would not take either: what JSON does not have, NaN,
        integers beyond ±(2^53 - 1), more than 256 KiB.
        """
        return self._publish(strict(values), deleted=False)

    def set_secrets(self, /, **values: str) -> None:
        """Store secrets, as `config-manager secret set` does: from the next revision on each names
        them, and they come sealed to every instance that this publisher opened."""
        for name, value in strict(values).items():
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

        If several are open, the outcome is that of one that did not apply it, if there is one.
        within_s: seconds of real time, whatever clock the loop has. It is the only argument without a
        name, because a setting may have any name. Raises ValueError as `publish`; NobodyListens if no
        instance can decide; TimeoutError, which names the instances that have not, and how far each came.
        """
        publish = self._to_deliver(values)
        wake, woken = waker()
        with self._deliveries.waiting(publish, within_s, wake) as delivery:
            await woken()
        return self._deliveries.outcome(delivery, within_s)

    def deliver_and_wait(self, within_s: float = _WITHIN_S, /, **values: Any) -> Outcome:
        """`deliver` from plain threads."""
        if any(opened.thread == threading.get_ident() for opened in self._deliveries.open):
            raise NobodyListens(
                f"{self.service} runs in the event loop of this thread, which can't go on while it "
                "waits: `await publisher.deliver(…)`"
            )
        publish = self._to_deliver(values)
        woken = threading.Event()
        with self._deliveries.waiting(publish, within_s, woken.set) as delivery:
            woken.wait()
        return self._deliveries.outcome(delivery, within_s)

    def send(self, payload: bytes, topic: str | None = None) -> None:
        """Any bytes, as a hostile broker would send them; by default on the service's own topic."""
        self._wire.push(WireMessage(topic or wire.config_topic(self.service), payload))

    def withhold(self) -> None:
        """From now on beacons go on, and changes and snapshots don't arrive."""
        self._withholds = True

    def disconnect(self) -> None:
        """The network is gone; `reconnect` brings it back with everything that is retained."""
        self._wire.cut()

    def reconnect(self) -> None:
        self._wire.is_reachable = True

    def beat(self) -> None:
        """A keepalive with a new beacon, as the server sends every 10 s."""
        payload = keepalive_message(self._documents.beacon())
        self._wire.push(WireMessage(wire.KEEPALIVE_TOPIC, payload))

    @property
    def root(self) -> bytes:
        """The trust root's envelope, as `trust/root.json` holds it."""
        return self._documents.root().to_bytes()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _now(self) -> str:
        return rfc3339(self._world.clock.now())

    def _to_deliver(self, values: dict[str, Any]) -> Callable[[], int]:
        """What publishes these. Raises ValueError, and NobodyListens if nobody would decide."""
        config = strict(values)
        instead = "; `publish` waits for nobody"
        if not self._deliveries.open:
            raise NobodyListens(
                f"nobody has {self.service} open: deliver inside `publisher.open(…)`{instead}"
            )
        if not self._wire.is_reachable:
            raise NobodyListens(f"the publisher is disconnected: `reconnect` first{instead}")
        if self._withholds:
            raise NobodyListens(f"what is published is withheld{instead}")
        return lambda: self._publish(config, deleted=False)

    def _publish(self, values: JsonObject, *, deleted: bool) -> int:
        with self._lock:
            secrets = {} if deleted else dict(self._secrets)
            update = self._documents.update(values, secrets, self._now(), deleted=deleted)
            self._named = secrets
            if not self._withholds:
                for instance in self._enrolled:
                    self._send_secrets(instance)
                self._wire.retain(wire.config_topic(self.service), update.to_bytes())
            self._send_snapshot()
            return self.revision

    def _send_secrets(self, instance: str) -> None:
        if self._named:
            sealed = self._documents.sealed(instance, self._enrolled[instance], self._named)
            self._wire.retain(wire.sealed_topic(self.service, instance), sealed.to_bytes())

    def _send_snapshot(self) -> None:
        beacon = self._documents.beacon()
        if not self._withholds:
            message = snapshot_message(self._documents.snapshot(), beacon)
            self._wire.retain(wire.SNAPSHOT_TOPIC, message)

    # ── where an instance lives ────────────────────────────────────────────────────────────────

    @contextmanager
    def _host(
        self, given: OptionArguments, thread: int | None
    ) -> Generator[tuple[OpenInstance, OptionArguments]]:
        """A new instance, enrolled, and its options; in this block its directory is there."""
        if (service := given.get("service")) not in (None, self.service):
            raise ValueError(f"this publisher is {self.service}'s; {service} takes one of its own")
        with self._state(given.get("state_dir")) as directory:
            instance = self._enrol(directory, given.get("instance"))
            options: OptionArguments = {"env_file": None, "bake_s": 0.0, **given}
            options.update({"service": self.service, "state_dir": directory, "mqtt_url": _URL})
            yield OpenInstance(self._wire, instance, thread), options

    @contextmanager
    def _state(self, given: Path | str | None) -> Generator[Path]:
        # leaving does not wait for a slow disk: it may write something still
        with tempfile.TemporaryDirectory(
            prefix="config-manager-", ignore_cleanup_errors=True
        ) as temporary:
            directory = expanded(given) if given else Path(temporary) / "state"
            root = Path(temporary) / "root.json"
            root.write_bytes(self.root)
            trust_init(directory, root, self._world)
            yield directory

    def _enrol(self, state_dir: Path, instance: str | None) -> str:
        """As `client enroll` does, without a token; returns the instance's name."""
        identity = load_identity(state_dir, self._world)
        named = instance or os.environ.get("CONFIG_MANAGER_INSTANCE")
        name = parse_instance(named) if named else identity.instance
        note_enrolled(state_dir, self.service, name, self._world)
        self._enrolled[name] = bytes(PrivateKey(identity.seal_key).public_key)
        if self.revision:
            self._send_secrets(name)
        return name
