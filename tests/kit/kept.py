"""A data directory that a server left behind, what its broker retained then, and who edits it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.storage.sql import database
from tests.kit.documents import sign
from tests.kit.processes import Broker, Listener, Processes, Server, eventually, listening

OURS = ("system/config/", "system/config-sealed/", "system/trust/", wire.SNAPSHOT_TOPIC)
"""What of it is signed by the server."""


@dataclass(frozen=True)
class Kept:
    """data: never started again itself. retained: of its broker, at the end."""

    data: Path
    retained: Mapping[str, bytes]

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.data, to)
        return to

    def broker(self, processes: Processes, directory: Path, **changed: bytes) -> Broker:
        """One that retains the same; `snapshot`: another one than that."""
        broker = processes.broker(directory)
        messages = dict(self.retained)
        if "snapshot" in changed:
            messages[wire.SNAPSHOT_TOPIC] = changed["snapshot"]
        with listening(broker.port) as listener:
            for topic, payload in messages.items():
                listener.publish(topic, payload)
            for topic, payload in messages.items():
                listener.message(topic, payload.__eq__)
        return broker

    def beacon(self) -> Beacon:
        return beacon_in(self.retained[wire.SNAPSHOT_TOPIC])

    def snapshot_of_start(self, boot_seq: int) -> bytes:
        """The retained one, its beacon signed by a later start."""
        seed = bytes.fromhex((self.data / "keys" / "beacon.key").read_text())
        beacon = replace(self.beacon(), boot_seq=boot_seq)
        envelope = sign(wire.BEACON, beacon.to_bytes(), SigningKey(seed))
        value = strict_json.loads_object(self.retained[wire.SNAPSHOT_TOPIC])
        return strict_json.dumps({**value, "beacon": envelope.to_object()})


def keep(server: Server, broker: Broker, to: Path) -> Kept:
    """Stop it, once its broker holds everything."""
    head = server.get("/api/v1/audit").json()["head"]
    server.wait_outbox_empty()
    with listening(broker.port) as listener:
        listener.message(wire.SNAPSHOT_TOPIC, lambda payload: beacon_in(payload).audit_head == head)
        assert server.stop() == 0
        listener.message(wire.HEALTH_TOPIC, lambda payload: b'"shutdown"' in payload)
    shutil.copytree(server.data_dir, to)
    return Kept(to, retained_by(broker))


def retained_by(broker: Broker) -> dict[str, bytes]:
    """All of it, told apart from what comes later by a message of our own that comes last."""
    with listening(broker.port) as listener:
        listener.publish("system/end", b"end")
        listener.message("system/end")
        listener.publish("system/end", b"")
        listener.message("system/end", lambda payload: not payload)
        return {topic: payload for topic, payload, is_old in listener.messages if is_old}


def ours(messages: Mapping[str, bytes]) -> dict[str, bytes]:
    return {topic: payload for topic, payload in messages.items() if topic.startswith(OURS)}


def beacon_in(message: bytes) -> Beacon:
    """Of a retained snapshot or of a keepalive; raises KeyError where there is none."""
    value = json.loads(message)
    beacon = (value.get("data") or value)["beacon"]
    if beacon is None:
        raise KeyError("beacon")
    return Beacon.parse(wire.envelope_from_object(beacon).payload)


def says_beacon(message: bytes, boot_seq: int = 0) -> bool:
    """Whether it has one, of this start or a later one."""
    try:
        return beacon_in(message).boot_seq >= boot_seq
    except KeyError:
        return False


def next_beacon(listener: Listener, boot_seq: int = 0) -> Beacon:
    """Of a keepalive."""
    message = listener.message(wire.KEEPALIVE_TOPIC, lambda data: says_beacon(data, boot_seq))
    return beacon_in(message)


@contextmanager
def with_the_key(data: Path) -> Iterator[Any]:
    key = bytes.fromhex((data / "keys" / "db.key").read_text())
    with closing(database.connect(data / "config.db", key)) as connection:
        yield connection


def edit(data: Path, *statements: str) -> None:
    """By somebody with the database's key; each changes something."""
    with with_the_key(data) as stranger:
        for statement in statements:
            assert stranger.execute(statement).rowcount > 0, statement


def ask(data: Path, statement: str) -> list[tuple[Any, ...]]:
    with with_the_key(data) as reader:
        rows: list[tuple[Any, ...]] = reader.execute(statement).fetchall()
        return rows


def forget_cache(data: Path) -> None:
    """Which takes no key."""
    for file in data.glob("config.lkg*"):
        file.unlink()


def contents(data: Path) -> dict[str, bytes]:
    return {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}


def not_audited(server: Server) -> list[str]:
    reasons: list[str] = server.health()["reasons"]
    return [reason for reason in reasons if reason.startswith("not-audited")]


def suspects(server: Server) -> bool:
    health = server.health()
    return health["mode"] == "read-only" and any(
        "rollback-suspected" in reason for reason in health["reasons"]
    )


def is_suspected(server: Server) -> None:
    eventually(lambda: suspects(server), within=5, what="rollback-suspected")
