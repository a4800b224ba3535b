"""A data directory that was rolled back as a whole: the broker remembers how far we had come."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.processes import Processes, Server, eventually, retained, revision_in


def suspects(server: Server) -> bool:
    health = server.health()
    return health["mode"] == "read-only" and any(
        "rollback-suspected" in reason for reason in health["reasons"]
    )


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
