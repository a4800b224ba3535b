"""What the receipts of one change cost the disk: with 10 and with 2,000 enrolled instances.

The instances are signatures and no more: after each change each of them says `applied`, and a second later `healthy`.
What the server wrote is what Linux counted of it, the database's log and the cache too.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from paho.mqtt import publish

from bench.contenders import AUTH, PATH, SERVICE, Contender, Yard, values
from bench.figures import Figure, median
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Receipt, Running, Stage
from config_manager.config.enrolment import Enrolment
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339
from tests.kit.processes import eventually, retained, revision_in

_UNTIL_KEPT_S = 1.5
_CONTENT = "00000000-0000-4000-8000-000000000000"
_SEAL_KEY = bytes(PrivateKey(bytes(32)).public_key)


class _Instance:
    def __init__(self, name: str) -> None:
        self.name = name
        self._key = SigningKey.generate()
        self._public = self._key.verify_key.encode()
        self._seq = 0

    def enrol(self, http: httpx.Client) -> None:
        made = http.post("/api/v1/devices/tokens", json={"service": SERVICE}).raise_for_status()
        token = made.json()["token"]
        hashed = hashlib.sha256(token.encode()).hexdigest()
        what = Enrolment(hashed, SERVICE, self.name, self._public, _SEAL_KEY)
        body = {
            "token": token,
            "service": SERVICE,
            "instance": self.name,
            "sign_public": base64.b64encode(self._public).decode(),
            "seal_public": base64.b64encode(_SEAL_KEY).decode(),
            "proof": base64.b64encode(what.prove(bytes(self._key))).decode(),
        }
        http.post("/api/v1/devices/enroll", json=body).raise_for_status()

    def says(self, wanted: dict[str, Any], stage: Stage) -> tuple[str, bytes, int, bool]:
        self._seq += 1
        running = Running(wanted["epoch_seq"], wanted["revision"], wanted["digest"], _CONTENT)
        receipt = Receipt(
            service=SERVICE,
            instance=self.name,
            boot_seq=1,
            seq=self._seq,
            running=running,
            last_attempt=Attempt(wanted["revision"], stage, content=_CONTENT),
            source="broker",
            freshness="fresh",
            overrides=(),
            schema="0" * 64,
            library="config-manager-python 0.0.0",
            correlation_id=wanted["correlation_id"],
            gone=False,
            at=rfc3339(time.time()),
        )
        payload = receipt.to_bytes()
        signed = self._key.sign(wire.signed_bytes(wire.RECEIPT, payload)).signature
        signatures = (Signature(wire.keyid(self._public), signed),)
        envelope = Envelope(wire.RECEIPT, payload, signatures, wanted["correlation_id"])
        return (wire.status_topic(SERVICE, self.name), envelope.to_bytes(), 1, True)


def run(yard: Yard, mqtt_port: int, *, counts: Sequence[int], rounds: int) -> Iterator[Figure]:
    """counts: of instances, rising."""
    ours = yard.ours(mqtt_port, "receipts")
    url = f"http://{ours.host}:{ours.port}"
    instances: list[_Instance] = []
    alone = 0.0
    with httpx.Client(base_url=url, headers=AUTH, timeout=60, trust_env=False) as http:
        for count in (0, *counts):
            while len(instances) < count:
                instances.append(_Instance(f"i-{len(instances)}"))
                instances[-1].enrol(http)
            time.sleep(_UNTIL_KEPT_S)
            wrote: list[float] = []
            cpu: list[float] = []
            for number in range(rounds):
                before, cpu_before = _written(ours), ours.cpu_s()
                _change(http, mqtt_port, instances, 1 + number)
                wrote.append((_written(ours) - before) / 1024)
                cpu.append(ours.cpu_s() - cpu_before)
            if not count:
                alone = median(wrote)
                yield Figure("a change, nobody there: written", alone, "KiB")
                continue
            kib = median(wrote) - alone
            yield Figure(
                f"the receipts of {count:,} instances: written",
                kib,
                "KiB",
                max(wrote) - alone,
                note=f"{kib / count:.2g} KiB each; {median(cpu):.2g} s of the server's CPU in all",
            )
    yard.stop(ours.process)


def _change(http: httpx.Client, port: int, instances: Sequence[_Instance], number: int) -> None:
    answer = http.put(PATH, content=values(number), headers={"Content-Type": "application/json"})
    answer.raise_for_status()
    told = answer.json()
    wanted = eventually(lambda: _digest(port, told), within=10, what="the change is published")
    stages: tuple[Stage, ...] = ("applied", "healthy")
    for stage in stages:
        if instances:
            publish.multiple([one.says(wanted, stage) for one in instances], port=port)
        time.sleep(_UNTIL_KEPT_S)
    if instances:
        eventually(
            lambda: _all_in_line(http, len(instances)),
            within=30,
            what="every receipt was read",
            every=0.2,
        )
    time.sleep(_UNTIL_KEPT_S)


def _digest(port: int, told: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to the PUT, and the digest of what was published for it."""
    envelope = retained(port, wire.config_topic(SERVICE))
    if revision_in(envelope) != told["revision"]:
        return None
    return {**told, "digest": wire.parse_envelope(envelope).digest}


def _all_in_line(http: httpx.Client, count: int) -> bool:
    """Its metrics say it without a walk through all of them."""
    return f'config_manager_instances{{state="in-line"}} {count}\n' in http.get("/metrics").text


def _written(ours: Contender) -> int:
    """Bytes that the process has caused to be written so far."""
    lines = Path(f"/proc/{ours.process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
