"""A data directory that was rolled back as a whole: the broker remembers how far we had come."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from config_manager.config import wire
from tests.kit.processes import (
    Broker,
    Processes,
    Server,
    eventually,
    listening,
    retained,
    revision_in,
)

SNAPSHOT = "system/config-snapshot/config-manager"


def suspects(server: Server) -> bool:
    health = server.health()
    return health["mode"] == "read-only" and any(
        "rollback-suspected" in reason for reason in health["reasons"]
    )


def head_in(snapshot: bytes) -> str:
    beacon = json.loads(base64.b64decode(json.loads(snapshot)["beacon"]["payload"]))
    return str(beacon["audit_head"])


def until_told(server: Server, broker: Broker) -> bytes:
    """The retained snapshot, once the beacon in it names the newest row of the audit."""
    head = server.get("/api/v1/audit").json()["head"]
    eventually(
        lambda: head_in(retained(broker.port, SNAPSHOT)) == head,
        within=5,
        what="the beacon names the newest row of the audit",
    )
    return retained(broker.port, SNAPSHOT)


def put_back(backup: Path, server: Server) -> None:
    shutil.rmtree(server.data_dir)
    shutil.copytree(backup, server.data_dir)


def test_what_a_broker_retains_gives_a_rolled_back_data_directory_away(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put("one", {"a": 1})
    server.wait_outbox_empty()
    assert server.stop() == 0
    shutil.copytree(server.data_dir, directory / "old")
    server.start()
    for number in (2, 3):
        server.put("one", {"a": number}, params={"wait": "confirmed"})
    wanted = server.health()["revision"]
    assert wanted == 3
    eventually(
        lambda: server.verified_snapshot(retained(broker.port, SNAPSHOT))[0].revision == 3,
        within=5,
        what="the snapshot names the last revision",
    )
    assert server.stop() == 0
    server.data_dir.rename(directory / "new")
    shutil.copytree(directory / "old", server.data_dir)

    server.start()
    eventually(lambda: suspects(server), within=5, what="rollback-suspected")
    assert server.put("one", {"a": 4}).status_code == 503
    assert server.get("/api/v1/config/one").json()["config"] == {"a": 1}
    assert revision_in(retained(broker.port, "system/config/one")) == 3
    assert server.verified_snapshot(retained(broker.port, SNAPSHOT))[0].revision == 3
    assert server.stop() == 0

    shutil.rmtree(server.data_dir)
    (directory / "new").rename(server.data_dir)
    server.start()
    assert server.put("one", {"a": 4}, params={"wait": "confirmed"}).json()["revision"] == 4
    assert not suspects(server)


def test_a_key_that_was_revoked_since_is_not_good_again_with_the_old_data_directory(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put("one", {"a": 1}, params={"wait": "confirmed"})
    assert server.stop() == 0
    shutil.copytree(server.data_dir, directory / "old")
    server.start()
    assert not suspects(server)
    body = {"role": "config", "overlap": "0"}
    assert server.http.post("/api/v1/trust/rotate", json=body).status_code == 200
    before = until_told(server, broker), retained(broker.port, "system/config/one")
    server.kill()
    put_back(directory / "old", server)

    server.start()
    eventually(lambda: suspects(server), within=5, what="rollback-suspected")
    assert server.http.post("/api/v1/trust/rotate", json=body).status_code == 503
    after = retained(broker.port, SNAPSHOT), retained(broker.port, "system/config/one")
    assert after == before


def test_who_has_no_newer_backup_revokes_again_and_services_go_on_with_a_new_epoch(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    lost = server.http.post("/api/v1/tokens", json={"name": "lost", "role": "write"}).json()
    headers = {"Authorization": f"Bearer {lost['token']}"}
    server.put("one", {"a": 1}, params={"wait": "confirmed"})
    assert server.stop() == 0
    shutil.copytree(server.data_dir, directory / "old")
    server.start()
    for number in (2, 3):
        server.put("one", {"a": number})
    processes.pin(directory / "state", server.data_dir / "trust" / "root.json")
    client = processes.follow(directory / "state", "one", broker.url)
    client.event("applied", revision=3)
    assert server.http.delete("/api/v1/tokens/lost").status_code == 200
    before = until_told(server, broker)
    server.kill()
    put_back(directory / "old", server)
    server.start()
    eventually(lambda: suspects(server), within=5, what="rollback-suspected")
    assert server.put("one", {"a": 4}, headers=headers).status_code == 503
    assert retained(broker.port, SNAPSHOT) == before
    assert server.stop() == 0

    server.mqtt_url = "none:"
    server.start()
    assert server.http.delete("/api/v1/tokens/lost").status_code == 200
    assert server.stop() == 0
    with listening(broker.port) as listener:
        for witness in (SNAPSHOT, wire.config_topic("one")):
            listener.message(witness)
        for topic in listener.newest():
            listener.publish(topic, b"")
            listener.message(topic, lambda payload: payload == b"")
    server.mqtt_url = broker.url
    server.start()
    epoch = {"services": {"one": server.get("/api/v1/config/one?view=stored").json()["config"]}}
    assert server.http.post("/api/v1/config/epoch", json=epoch).status_code in (200, 201)

    client.event("applied", epoch_seq=2, config={"a": 1})
    assert not suspects(server)
    assert server.put("one", {"a": 5}, headers=headers).status_code == 401
