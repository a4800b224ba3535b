"""Over 200 services with a schema of 30 keys and two instances each: a plan, made and applied; another schema."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench.contenders import AUTH, Yard
from bench.figures import Figure, at_most, median
from config_manager.config import wire
from config_manager.config.catalogue import schema_digest
from config_manager.config.documents.receipt import Receipt
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339

_KEYS = 30
_TIMEOUT_S = 60
_PLANS = "/api/v1/plans"
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        f"key_{n}": {"type": "number", "minimum": 0, "maximum": 1_000, "default": n}
        for n in range(_KEYS)
    },
    "additionalProperties": False,
}


def run(yard: Yard, mqtt_port: int, *, services: int, rounds: int) -> Iterator[Figure]:
    """Over REST, at a server on disk and a broker."""
    ours = yard.ours(mqtt_port, "plans")
    names = [f"fleet-{n}" for n in range(services)]
    _retain(mqtt_port, {wire.status_topic(s, i): _receipt(s, i) for s in names for i in "ab"})
    made: list[float] = []
    applied: list[float] = []
    compared: list[float] = []
    with httpx.Client(
        base_url=f"http://{ours.host}:{ours.port}",
        headers=AUTH,
        timeout=_TIMEOUT_S,
        trust_env=False,
    ) as http:
        for name in names:
            http.put(f"/api/v1/schemas/{name}", json=_SCHEMA).raise_for_status()
        _plan(http, names, 1)  # instances' schemas are compiled once
        for number in range(2, 2 + 4 * rounds):
            began = time.perf_counter()
            plan = _plan(http, names, number)
            made.append(time.perf_counter() - began)
            began = time.perf_counter()
            http.post(f"{_PLANS}/{plan['id']}/apply").raise_for_status()
            applied.append(time.perf_counter() - began)
        heard = len(plan["instances"])
        for number in range(4 * rounds):
            began = time.perf_counter()
            path = f"/api/v1/schemas/{names[0]}?dry_run=true"
            http.put(path, json=_narrower(number)).raise_for_status()
            compared.append(time.perf_counter() - began)
    yard.stop(ours.process)
    note = f"{_KEYS} keys each, {heard} instances"
    yield at_most(
        f"a plan over {services} services",
        median(made) * 1e3,
        "ms",
        300,
        p99=max(made) * 1e3,
        note=note,
    )
    yield Figure("the same, applied", median(applied) * 1e3, "ms", max(applied) * 1e3)
    yield at_most(
        "another schema, compared in three directions",
        median(compared) * 1e3,
        "ms",
        10,
        p99=max(compared) * 1e3,
        note="over REST, dry run: each key narrowed, what that breaks",
    )


def _retain(mqtt_port: int, messages: Mapping[str, bytes]) -> None:
    """A client of our own: `paho.mqtt.publish` logs an error at each disconnect."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", mqtt_port)
    client.loop_start()
    sent = [client.publish(topic, one, qos=1, retain=True) for topic, one in messages.items()]
    for one in sent:
        one.wait_for_publish(_TIMEOUT_S)
        assert one.is_published()
    client.disconnect()
    client.loop_stop()


def _plan(http: httpx.Client, names: list[str], number: int) -> Any:
    values = {f"key_{n}": number + n for n in range(_KEYS // 2)}
    answer = http.post(_PLANS, json={"services": dict.fromkeys(names, values)})
    return answer.raise_for_status().json()


def _narrower(number: int) -> dict[str, Any]:
    """A schema that no comparison has met before: every key takes less."""
    properties: dict[str, Any] = {
        name: {**one, "maximum": 999 - number} for name, one in _SCHEMA["properties"].items()
    }
    return {**_SCHEMA, "properties": properties}


def _receipt(service: str, instance: str) -> bytes:
    receipt = Receipt(
        service=service,
        instance=instance,
        boot_seq=1,
        seq=1,
        running=None,
        last_attempt=None,
        source="defaults",
        freshness="fresh",
        overrides=("key_1",),
        schema=schema_digest(_SCHEMA),
        library="bench",
        correlation_id=None,
        gone=False,
        at=rfc3339(time.time()),
    )
    signature = Signature("a" * 64, bytes(64))
    return Envelope(wire.RECEIPT, receipt.to_bytes(), (signature,)).to_bytes()
