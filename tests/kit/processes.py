"""Real processes for black-box tests and the torture: servers, brokers, clients.

Plain threads and subprocess, so that pytest and `python -m tests.torture` use the same. Waiting is
always for something (a line, a message, an answer) with a deadline; whoever is started through
`Processes` is killed when that closes, however the block ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from config_manager.client.state.identity import trust_init
from config_manager.config import wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.documents.root import Root
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.trust import judge_root, judge_snapshot, judge_update

T = TypeVar("T")

TOKEN = "e2e-" + "t0ken" * 8
COMMAND = str(Path(sys.executable).with_name("config-manager"))
MOSQUITTO = shutil.which(
    "mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
)
_OF_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
BEHIND_A_PROXY = {
    **dict.fromkeys((*_OF_PROXIES, *map(str.upper, _OF_PROXIES)), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
}
"""The environment that a container may have from Docker's command, with a proxy that is not there."""


class Late(AssertionError):
    """What was waited for did not come in time."""


def eventually(
    probe: Callable[[], T | None], *, within: float, what: str, every: float = 0.02
) -> T:
    """Ask until the answer is true; the last resort where nothing tells us by itself."""
    deadline = time.monotonic() + within
    problem: Exception | None = None
    while True:
        try:
            answer = probe()
            problem = None
        except (httpx.TransportError, AssertionError, KeyError) as error:
            answer, problem = None, error
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Late(f"not within {within:g} s: {what}" + (f" ({problem!r})" if problem else ""))
        time.sleep(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Process:
    """A child whose output is read line by line as it comes; stdout's JSON lines are parsed.

    Our own command runs with `python -W error`.
    """

    def __init__(
        self, argv: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.argv = argv
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        self._news = threading.Condition()
        self._ended = 0
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
        ours = COMMAND in argv or any(one.startswith("config_manager.") for one in argv)
        strict = {"PYTHONWARNINGS": "error"} if ours else {}
        self.popen = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**clean, **strict, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.popen.stdout, self.popen.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            try:
                value = json.loads(line) if line.startswith("{") else None
            except ValueError:
                value = None
            with self._news:
                self.text.append(line)
                if isinstance(value, dict) and stream is self.popen.stdout:
                    self.lines.append(value)
                self._news.notify_all()
        with self._news:
            self._ended += 1
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def line(
        self,
        predicate: Callable[[dict[str, Any]], bool],
        *,
        within: float = 10,
        what: str = "a line",
    ) -> dict[str, Any]:
        """The first JSON line that fits, past or coming."""
        deadline = time.monotonic() + within
        at = 0
        with self._news:
            while True:
                for index in range(at, len(self.lines)):
                    if predicate(self.lines[index]):
                        return self.lines[index]
                at = len(self.lines)
                left = deadline - time.monotonic()
                if left <= 0 or self._ended == 2:
                    why = "it ended" if self._ended == 2 else f"not within {within:g} s"
                    raise Late(f"{what}: {why}; the last lines:\n" + "\n".join(self.text[-25:]))
                self._news.wait(left)

    def event(self, name: str, *, within: float = 10, **fields: Any) -> dict[str, Any]:
        wanted = {"event": name, **fields}
        return self.line(
            lambda line: all(line.get(k) == v for k, v in wanted.items()),
            within=within,
            what=f"line {wanted}",
        )

    def wait(self, within: float = 15) -> int:
        try:
            code = self.popen.wait(within)
        except subprocess.TimeoutExpired:
            raise Late(
                f"{' '.join(self.argv[:4])} did not end within {within:g} s; the last lines:\n"
                + "\n".join(self.text[-25:])
            ) from None
        self._finish()
        return code

    def terminate(self, within: float = 15) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        """SIGKILL to it and to whatever it started."""
        children = descendants(self.pid) if self.alive else []
        for pid in (self.pid, *children):
            if pid != self.pid or self.alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.popen.wait(10)
        self._finish()

    def kill_alone(self) -> None:
        """SIGKILL to the process, nothing else: what a crash does."""
        self.popen.kill()
        self.popen.wait(10)
        # a broker of its own may hold the pipes; the readers are daemons and end with it

    def _finish(self) -> None:
        for reader in self._readers:
            reader.join(2)
        if all(not reader.is_alive() for reader in self._readers):
            for stream in (self.popen.stdout, self.popen.stderr):
                if stream is not None:
                    stream.close()


def descendants(pid: int) -> list[int]:
    """Every process below `pid` now, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: list[int] = []
    frontier = [pid]
    while frontier:
        above = frontier.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        frontier += below
    return found


class Broker:
    """A Mosquitto of our own on a fixed free port: can be killed and started again."""

    def __init__(self, directory: Path, *, persistent: bool = True) -> None:
        if MOSQUITTO is None:
            raise RuntimeError("mosquitto is not installed")
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._persistent = persistent
        self.process: Process | None = None

    def start(self) -> Broker:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "max_queued_messages 100000",
            "persistence " + ("true" if self._persistent else "false"),
            "log_dest stderr",
        ]
        if self._persistent:
            lines += [f"persistence_location {self.directory}/", "autosave_interval 1"]
        if os.geteuid() == 0:
            lines.append("user root")
        config = self.directory / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        assert MOSQUITTO is not None
        self.process = Process([MOSQUITTO, "-c", str(config)])
        eventually(
            lambda: not port_is_free(self.port) and answers(self.port),
            within=5,
            what="mosquitto listens",
        )
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None

    def forget(self) -> None:
        """Lose everything that was retained; only while it is down."""
        (self.directory / "mosquitto.db").unlink(missing_ok=True)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Listener:
    """An MQTT subscriber that keeps every message, and the newest for each topic."""

    def __init__(self, port: int, *filters: str) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._news = threading.Condition()
        self._subscribed = threading.Event()
        self._filters = filters or ("system/#",)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port, keepalive=30)
        self._client.loop_start()
        if not self._subscribed.wait(5):
            self.close()
            raise Late("no SUBACK within 5 s")

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([(name, 1) for name in self._filters])

    def _on_message(self, _: paho.Client, __: Any, message: paho.MQTTMessage) -> None:
        with self._news:
            self.messages.append((message.topic, bytes(message.payload), bool(message.retain)))
            self._news.notify_all()

    def message(
        self, topic: str, predicate: Callable[[bytes], bool] = bool, *, within: float = 10
    ) -> bytes:
        """The newest message of a topic that fits, past or coming."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                for name, payload, _ in reversed(self.messages):
                    if name == topic and predicate(payload):
                        return payload
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = sorted({name for name, _, _ in self.messages})
                    raise Late(f"no such message on {topic} within {within:g} s; seen: {seen}")
                self._news.wait(left)

    def publish(self, topic: str, payload: bytes) -> None:
        """Retained, as anybody could."""
        self._client.publish(topic, payload, qos=1, retain=True)

    def newest(self) -> dict[str, bytes]:
        with self._news:
            return {topic: payload for topic, payload, _ in self.messages}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def listening(port: int, *filters: str) -> Iterator[Listener]:
    listener = Listener(port, *filters)
    try:
        yield listener
    finally:
        listener.close()


def retained(port: int, topic: str, *, within: float = 5) -> bytes:
    with listening(port, topic) as listener:
        return listener.message(topic, within=within)


def revision_in(envelope: bytes) -> int:
    return ConfigUpdate.parse(wire.parse_envelope(envelope).payload).revision


def of_revision(wanted: int) -> Callable[[bytes], bool]:
    return lambda envelope: revision_in(envelope) == wanted


class Server:
    """`config-manager serve` on a data directory: may be stopped, killed and started again."""

    def __init__(
        self, processes: Processes, data_dir: Path, mqtt_url: str, *, flags: tuple[str, ...] = ()
    ) -> None:
        self._processes = processes
        self.data_dir = data_dir
        self.mqtt_url = mqtt_url
        self.flags = flags
        self.process: Process
        self.url = ""
        self.http: httpx.Client

    def launch(self) -> Process:
        """Start it and wait for nothing."""
        self.process = self._processes.start(
            [
                *self._processes.command,
                "serve",
                *("--data-dir", str(self.data_dir), "--mqtt-url", self.mqtt_url),
                *(() if "--bind" in self.flags else ("--bind", "127.0.0.1:0")),
                *self.flags,
            ],
            env={
                "CONFIG_MANAGER_LOG_FORMAT": "json",
                "CONFIG_MANAGER_BOOTSTRAP_TOKEN": TOKEN,
                "CONFIG_MANAGER_HEARTBEAT_SECONDS": "2",
            },
        )
        return self.process

    def start(self, within: float = 15) -> Server:
        self.launch()
        ready = self.process.event("ready", within=within)
        self.url = ready["url"]
        self.ready = ready
        self.http = self._processes.client(self.url)
        return self

    def stop(self, within: float = 12) -> int:
        self.http.close()
        return self.process.terminate(within)

    def kill(self) -> None:
        self.http.close()
        self.process.kill_alone()

    def put(self, service: str, values: dict[str, Any], **options: Any) -> httpx.Response:
        return self.http.put(f"/api/v1/config/{service}", json=values, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get("/health").json()
        return answer

    def root(self) -> Root:
        return judge_root((self.data_dir / "trust" / "root.json").read_bytes(), None, time.time())

    def wait_outbox_empty(self, within: float = 10) -> None:
        def empty() -> bool:
            health = self.health()
            return health["outbox_depth"] == 0 and any(
                state == "connected" for state in health["broker"].values()
            )

        eventually(empty, within=within, what="everything is confirmed")

    def wait_learnt(self, service: str, change: dict[str, Any], *names: str) -> dict[str, Any]:
        """Until a forecast of this change knows what each of these instances was built with; answers it by instance.

        That a schema was heard says less: it counts once it is kept. What follows from it (it is adopted, the message
        gets a variant) may still come.
        """

        def forecast() -> dict[str, Any] | None:
            answer = self.http.patch(
                f"/api/v1/config/{service}?dry_run=true",
                content=json.dumps(change),
                headers={"Content-Type": "application/merge-patch+json"},
            )
            found = {one["instance"]: one for one in answer.json()["instances"]}
            known = {name for name, one in found.items() if one["verdict"] != "unknown"}
            return found if {*names} <= known else None

        return eventually(forecast, within=15, what=f"{service} is learnt of {', '.join(names)}")

    def verified(self, service: str, envelope: bytes) -> ConfigUpdate:
        """The message's content, once it verifies under this server's root."""
        return judge_update(
            envelope,
            topic=wire.config_topic(service),
            service=service,
            root=self.root(),
            seen=None,
            now=time.time(),
        ).update

    def verified_snapshot(self, envelope: bytes) -> tuple[Snapshot, str]:
        return judge_snapshot(envelope, self.root(), time.time())


def arrived(port: int, server: Server, wanted: dict[str, int], *, within: float) -> None:
    """What a broker holds for these services is of these revisions, and verifies, in time."""
    deadline = time.monotonic() + within
    with listening(port, "system/config/+") as listener:
        for service, revision in wanted.items():
            message = listener.message(
                f"system/config/{service}",
                of_revision(revision),
                within=max(0.05, deadline - time.monotonic()),
            )
            server.verified(service, message)


class Processes:
    """Owns what it starts: leaving the block kills all of it.

    command: `config-manager`; another than the checkout's where an earlier version is to run.
    """

    def __init__(self, command: Sequence[str] = (COMMAND,)) -> None:
        self.command = tuple(command)
        self._started: list[Process] = []
        self._brokers: list[Broker] = []
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        for process in reversed(self._started):
            process.kill()
        for broker in self._brokers:
            broker.kill()

    def start(self, argv: list[str], **options: Any) -> Process:
        process = Process(argv, **options)
        self._started.append(process)
        return process

    def client(self, url: str, **options: Any) -> httpx.Client:
        client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=20,
            trust_env=False,
            **options,
        )
        self._clients.append(client)
        return client

    def broker(self, directory: Path, *, persistent: bool = True, start: bool = True) -> Broker:
        broker = Broker(directory, persistent=persistent)
        self._brokers.append(broker)
        return broker.start() if start else broker

    def server(self, data_dir: Path, mqtt_url: str, *flags: str, start: bool = True) -> Server:
        server = Server(self, data_dir, mqtt_url, flags=flags)
        return server.start() if start else server

    def run(self, *arguments: str, within: float = 20, **options: Any) -> tuple[int, Process]:
        """A command that ends by itself: its exit code, and what it printed."""
        process = self.start([*self.command, *arguments], **options)
        return process.wait(within), process

    def pin(self, state: Path, root: Path) -> None:
        """As `client trust init` does it, which is a process only where another command than the checkout's is to
        do it."""
        if self.command == (COMMAND,):
            trust_init(state, root)
            return
        code, process = self.run(
            "client", "trust", "init", "--state", str(state), "--root", str(root)
        )
        assert code == 0, process.text

    def follow(self, state: Path, service: str, mqtt_url: str, *more: str) -> Process:
        return self.start(
            [
                *(*self.command, "client", "run", "--state", str(state)),
                *("--service", service, "--mqtt-url", mqtt_url, *more),
            ]
        )


@contextmanager
def workshop() -> Iterator[tuple[Processes, Path]]:
    """Processes and a directory for them, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cm-") as name, Processes() as processes:
        yield processes, Path(name)


def port_of(mqtt_url: str) -> int:
    return int(mqtt_url.split(",", maxsplit=1)[0].rpartition(":")[2].rstrip("/"))
