"""A data directory that was rolled back as a whole: the broker remembers how far we had come."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Processes, Server, eventually, retained, revision_in


def suspects(server: Server) -> bool:
    health = server.health()
    return health["mode"] == "read-only" and any(
        "rollback-suspected" in reason for reason in health["reasons"]
    )


def head_in(snapshot: bytes) -> str:
    beacon = json.loads(base64.b64decode(json.loads(snapshot)["beacon"]["payload"]))
    return str(beacon["audit_head"])


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
    snapshot_topic = "system/config-snapshot/config-manager"
    eventually(
        lambda: server.verified_snapshot(retained(broker.port, snapshot_topic))[0].revision == 3,
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
    assert server.verified_snapshot(retained(broker.port, snapshot_topic))[0].revision == 3
    assert server.stop() == 0

    shutil.rmtree(server.data_dir)
    (directory / "new").rename(server.data_dir)
    server.start()
    assert server.put("one", {"a": 4}, params={"wait": "confirmed"}).json()["revision"] == 4
    assert not suspects(server)


REVOKED: tuple[str, str, dict[str, Any]] = ("DELETE", "/api/v1/tokens/lost", {})
ROTATED: tuple[str, str, dict[str, Any]] = (
    "POST",
    "/api/v1/trust/rotate",
    {"role": "config", "overlap": "0"},
)


@pytest.mark.parametrize("change", [REVOKED, ROTATED], ids=["a token", "a key"])
def test_what_was_revoked_since_is_not_good_again_with_the_old_data_directory(
    shop: tuple[Processes, Path], change: tuple[str, str, dict[str, Any]]
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    lost = server.http.post("/api/v1/tokens", json={"name": "lost", "role": "write"}).json()
    server.put("one", {"a": 1}, params={"wait": "confirmed"})
    assert server.stop() == 0
    shutil.copytree(server.data_dir, directory / "old")
    server.start()
    assert not suspects(server)
    method, path, body = change
    assert server.http.request(method, path, json=body or None).status_code == 200
    head = server.get("/api/v1/audit").json()["head"]
    snapshot_topic = "system/config-snapshot/config-manager"
    eventually(
        lambda: head_in(retained(broker.port, snapshot_topic)) == head,
        within=5,
        what="the beacon names the newest row of the audit",
    )
    server.kill()
    before = retained(broker.port, snapshot_topic), retained(broker.port, "system/config/one")
    shutil.rmtree(server.data_dir)
    shutil.copytree(directory / "old", server.data_dir)

    server.start()
    eventually(lambda: suspects(server), within=5, what="rollback-suspected")
    headers = {"Authorization": f"Bearer {lost['token']}"}
    assert server.put("one", {"a": 2}, headers=headers).status_code == 503
    rotate = server.http.post("/api/v1/trust/rotate", json={"role": "config"})
    assert rotate.status_code == 503
    after = retained(broker.port, snapshot_topic), retained(broker.port, "system/config/one")
    assert after == before
