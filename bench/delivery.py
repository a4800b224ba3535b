"""From the first byte of a PUT to the message at a subscriber; beside the bare wire and etcd's watch.

"Back to back" sends the next as soon as the last arrived. "Paced" waits 25 ms first, which is more
realistic and slower: after 10 ms of idleness a virtual CPU wakes slowly, several times for each update.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench.contenders import SERVICE, Contender, Yard
from bench.figures import Figure, at_most, percentile
from bench.load import request, whole
from tests.kit.processes import COMMAND, eventually

_PACE_S = 0.025
_GIVE_UP_S = 5.0
_IDLE_S = 2.0
"""uvicorn closes a connection that was idle for 5 s, between two rounds too."""


class _Subscriber:
    """paho without its thread: the caller polls the socket and lets it read."""

    def __init__(self, port: int, topic: str) -> None:
        self.arrived = 0
        self.newest = b""
        self.topic = topic
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._on_message
        self._granted = False
        self.client.on_subscribe = self._on_subscribe
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(topic, 1)
        while not self._granted:
            self.client.loop(0.1)
        # retained messages come right after the SUBACK
        ends = time.perf_counter() + 0.2
        while time.perf_counter() < ends:
            self.client.loop(0.05)

    def _on_subscribe(self, *_: Any) -> None:
        self._granted = True

    def _on_message(self, _: paho.Client, __: Any, message: paho.MQTTMessage) -> None:
        self.arrived += 1
        self.newest = bytes(message.payload)

    def wait_for_one(self) -> None:
        """Wait until a message has arrived since the last call. Raises SystemExit if none comes."""
        seen = self.arrived
        until = time.perf_counter() + _GIVE_UP_S
        while self.arrived == seen:
            if time.perf_counter() > until:
                raise SystemExit(
                    f"bench: a message never arrived at the subscriber of {self.topic}"
                )
            if select.select([_socket_of(self.client)], [], [], 1)[0]:
                self.client.loop_read()
        self.client.loop_misc()
        while self.client.want_write():
            self.client.loop_write()


def run(yard: Yard, mqtt_port: int, *, rounds: int, count: int) -> Iterator[Figure]:
    """`count` PUTs a round and pace."""
    ours = yard.ours(mqtt_port, "delivery")
    watches = [
        ("wire: QoS 1 publish → subscriber", _wire(mqtt_port)),
        ("PUT → subscriber: ours", _put_to_subscriber(ours, mqtt_port, f"system/config/{SERVICE}")),
        ("PUT → subscriber: plain", _plain(yard, mqtt_port)),
    ]
    if (etcd := yard.etcd()) is not None:
        watches.append(("put → watch: etcd", _put_to_watch(etcd)))
    watches.append(("PUT → applied → receipt: ours", _put_to_receipt(yard, ours, mqtt_port)))
    for pace, pace_s, goal in (("paced", _PACE_S, 2.0), ("back to back", 0.0, 1.4)):
        took: dict[str, list[float]] = {name: [] for name, _ in watches}
        for _ in range(rounds):
            for name, once in watches:
                for number in range(count):
                    if pace_s:
                        time.sleep(pace_s)
                    began = time.perf_counter()
                    once(number)
                    took[name].append(time.perf_counter() - began)
        for name, found in took.items():
            p50, p99 = (percentile(found, p) * 1000 for p in (50, 99))
            if "receipt" in name:
                yield at_most(f"{name}, {pace}, p50", p50, "ms", 8.0, p99=p99)
            elif name.endswith("ours"):
                yield at_most(f"{name}, {pace}, p50", p50, "ms", goal, p99=p99)
            else:
                yield Figure(f"{name}, {pace}, p50", p50, "ms", p99)


def _socket_of(client: paho.Client) -> socket.socket:
    """paho types its socket for WebSockets too; over TCP it is a real one."""
    found = client.socket()
    assert isinstance(found, socket.socket)
    return found


def _connect(one: Contender) -> socket.socket:
    connection = socket.create_connection((one.host, one.port), 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read_answer(connection: socket.socket) -> bytes:
    held = b""
    while (status := whole(held)) is None:
        held += connection.recv(65_536)
    if status >= 300:
        raise SystemExit(f"bench: refused with {status}: {held[-300:]!r}")
    return held.partition(b"\r\n\r\n")[2]


def _put_to_subscriber(one: Contender, mqtt_port: int, topic: str) -> Callable[[int], None]:
    subscriber = _Subscriber(mqtt_port, topic)
    connection, used_at = _connect(one), time.monotonic()

    def once(number: int) -> None:
        nonlocal connection, used_at
        if time.monotonic() - used_at > _IDLE_S:
            connection.close()
            connection = _connect(one)
        connection.sendall(one.put(number))
        subscriber.wait_for_one()
        _read_answer(connection)
        used_at = time.monotonic()

    return once


def _put_to_receipt(yard: Yard, one: Contender, mqtt_port: int) -> Callable[[int], None]:
    """A client process verifies, stores, applies, and signs a receipt."""
    state = yard.directory / "receipt-state"
    root = yard.directory / f"{one.name}-data" / "trust" / "root.json"
    subprocess.run(
        [COMMAND, "client", "trust", "init", "--state", str(state), "--root", str(root)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    url = f"mqtt://127.0.0.1:{mqtt_port}"
    _, log = yard.start(
        "receipt-client",
        [COMMAND, "client", "run", "--state", str(state), "--service", SERVICE, "--mqtt-url", url],
    )
    eventually(lambda: '"applied"' in log.read_text(), within=30, what="the client applied")
    subscriber = _Subscriber(mqtt_port, f"system/config-status/{SERVICE}/+")
    connection = _connect(one)

    def once(number: int) -> None:
        connection.sendall(one.put(number))
        wanted = json.loads(_read_answer(connection))["revision"]
        while _revision_run(subscriber.newest) != wanted:
            subscriber.wait_for_one()

    return once


def _revision_run(envelope: bytes) -> int | None:
    if not envelope:
        return None
    running = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["running"]
    return running["revision"] if running else None


def _plain(yard: Yard, mqtt_port: int) -> Callable[[int], None]:
    return _put_to_subscriber(yard.plain(mqtt_port), mqtt_port, f"plain/config/{SERVICE}")


def _wire(mqtt_port: int) -> Callable[[int], None]:
    topic = "bench/wire"
    subscriber = _Subscriber(mqtt_port, topic)
    publisher = paho.Client(CallbackAPIVersion.VERSION2)
    publisher.connect("127.0.0.1", mqtt_port)
    publisher.loop(0.2)
    _socket_of(publisher).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    payload = b"x" * 1200  # about what a signed configuration of ours weighs

    def once(_: int) -> None:
        publisher.publish(topic, payload, qos=1, retain=True)
        while publisher.want_write():
            publisher.loop_write()
        subscriber.wait_for_one()
        publisher.loop_read()
        publisher.loop_misc()

    return once


def _put_to_watch(etcd: Contender) -> Callable[[int], None]:
    key = base64.b64encode(SERVICE.encode()).decode()
    watching, connection = _connect(etcd), _connect(etcd)
    create = json.dumps({"create_request": {"key": key}}).encode()
    watching.sendall(request("POST", "/v3/watch", create, host=f"{etcd.host}:{etcd.port}"))
    held = b""
    while b'"created":true' not in held:
        held += watching.recv(65_536)

    def once(number: int) -> None:
        connection.sendall(etcd.put(number))
        got = b""
        while b'"events"' not in got or not got.endswith(b"\n\r\n"):
            got += watching.recv(65_536)
        _read_answer(connection)

    return once
