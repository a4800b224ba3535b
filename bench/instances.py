"""Many live instances of one service: from a PUT until the last of them has applied it.

The instances are simulated. Each has keys, a connection and the client's own rules, which verify, decide,
keep (in memory) and answer with a signed receipt. Two processes hold a thousand each, so two processors
do the work of two thousand devices.

    python -m bench.instances ROOT_FILE MQTT_PORT SERVICE COUNT

prints one line of JSON for each revision that all of COUNT run, with the time on the monotonic clock.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from paho.mqtt.enums import CallbackAPIVersion

from bench.contenders import AUTH, PATH, SERVICE, Yard, values
from bench.figures import Figure, at_most, median
from config_manager.client.model.precedence import Layers
from config_manager.client.rules import root_chain
from config_manager.client.rules.identity import Identity
from config_manager.client.rules.instance import InstanceRules
from config_manager.client.rules.todo import PublishReceipt, Swap, TrialPolicy
from config_manager.config.names import InstanceName, ServiceName
from config_manager.config.services.stt_worker import SttSettings
from config_manager.config.world import World
from tests.kit.processes import eventually

_PROCESSES = 2
_BEAT_S = 60


class _Live:
    """One instance and its connection; the caller's selector says when there is something to read."""

    def __init__(self, instance: InstanceRules[SttSettings], port: int) -> None:
        self.revision = 0
        self._instance = instance
        self._unread: list[paho.MQTTMessage] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _, __, message: self._unread.append(message)
        self.client.connect("127.0.0.1", port, keepalive=_BEAT_S)
        while not self.client.is_connected():  # not by `loop`: select() ends at descriptor 1,023
            self.client.loop_read()
        self._do(instance.start(time.monotonic()))
        self.client.subscribe([(topic, 1) for topic in instance.filters])

    def read(self) -> None:
        self.client.loop_read()
        unread, self._unread = self._unread, []
        for message in unread:
            self._do(
                self._instance.receive(
                    message.topic, bytes(message.payload), time.time(), time.monotonic()
                )
            )

    def pass_time(self) -> None:
        self._do(self._instance.tick(time.monotonic(), time.time()))
        self.client.loop_misc()

    def write(self) -> None:
        while self.client.want_write():
            self.client.loop_write()

    def _do(self, todo: list[Any]) -> None:
        for do in todo:
            match do:
                case Swap(_, change) if change is not None:
                    self.revision = change.revision or 0
                case PublishReceipt(topic, payload):
                    self.client.publish(topic, payload, qos=1, retain=True)
                case _:  # kept in memory, and nobody reads the log
                    pass


def _make(
    root: bytes, service: str, count: int, world: World
) -> Iterator[InstanceRules[SttSettings]]:
    layers = Layers(SttSettings)
    chain = (root_chain.pin(root, world.clock.now()),)
    for number in range(count):
        name = InstanceName(f"live-{os.getpid()}-{number}")
        keys = (bytes(SigningKey.generate()), bytes(PrivateKey.generate()), os.urandom(32))
        yield InstanceRules(
            ServiceName(service),
            name,
            Identity(Path("nowhere"), name, chain, *keys),
            layers,
            None,
            policy=TrialPolicy(bake_s=0.0),
            boot_seq=1,
            asks=False,
            world=world,
        )


def main(root_file: str, port: str, service: str, count: str) -> None:
    """Live until killed."""
    selector = selectors.DefaultSelector()
    lives = [
        _Live(instance, int(port))
        for instance in _make(Path(root_file).read_bytes(), service, int(count), World())
    ]
    for live in lives:
        selector.register(live.client.socket(), selectors.EVENT_READ, live)  # type: ignore[arg-type]
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    said, ticked_at = 0, time.monotonic()
    while True:
        for key, _ in selector.select(1.0):
            key.data.read()
            key.data.write()
        slowest = min(live.revision for live in lives)
        if slowest > said:
            said = slowest
            print(json.dumps({"revision": said, "at": time.monotonic()}), flush=True)
        if time.monotonic() - ticked_at > 5.0:
            ticked_at = time.monotonic()
            for live in lives:
                live.pass_time()
                live.write()


def run(yard: Yard, mqtt_port: int, *, rounds: int, count: int) -> Iterator[Figure]:
    """`count` instances in all."""
    ours = yard.ours(mqtt_port, "live")
    root = yard.directory / "live-data" / "trust" / "root.json"
    module = [sys.executable, "-m", "bench.instances", str(root), str(mqtt_port), SERVICE]
    logs = [
        yard.start(f"instances-{number}", [*module, str(count // _PROCESSES)])[1]
        for number in range(_PROCESSES)
    ]
    url = f"http://{ours.host}:{ours.port}"
    wanted = httpx.get(url + PATH, headers=AUTH, trust_env=False).json()["revision"]
    took: list[float] = []
    server_cpu: list[float] = []
    for number in range(rounds + 1):
        if number:
            began, cpu = time.monotonic(), ours.cpu_s()
            answer = httpx.put(
                url + PATH,
                content=values(number),
                headers=AUTH | {"Content-Type": "application/json"},
                trust_env=False,
            ).raise_for_status()
            wanted = answer.json()["revision"]
        eventually(
            lambda wanted=wanted: all(_ran_at(log, wanted) for log in logs),  # type: ignore[misc]
            within=60,
            what=f"{count:,} instances run revision {wanted}",
        )
        if number:
            took.append(max(_ran_at(log, wanted) for log in logs) - began)
            time.sleep(2.0)  # their receipts, snapshot and beacon are through
            server_cpu.append(ours.cpu_s() - cpu)
    note = f"and {median(server_cpu):.2g} s of the server's CPU for it and its receipts"
    name = f"PUT → last of {count:,} live instances"
    yield at_most(name, median(took), "s", 0.5, p99=max(took), note=note)


def _ran_at(log: Path, revision: int) -> float:
    """When all of a process's instances ran it, on the monotonic clock; 0 if they don't yet."""
    for line in log.read_text().splitlines():
        found = json.loads(line)
        if found["revision"] >= revision:
            return float(found["at"])
    return 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
