"""Create, update, verify the message, verify both caches, restart, verify again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.processes import Processes, eventually, listening, of_revision


def test_a_change_survives_restarts_on_both_sides(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    state = directory / "tts"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    client = processes.follow(state, "tts-worker", broker.url)

    created = server.put("tts-worker", {"volume_percent": 80})
    assert created.status_code == 201
    updated = server.put("tts-worker", {"volume_percent": 90})
    assert updated.status_code == 200
    revision = updated.json()["revision"]
    assert client.event("applied", revision=revision)["config"]["volume_percent"] == 90

    def check_message() -> bytes:
        with listening(broker.port, "system/config/tts-worker") as listener:
            message = listener.message("system/config/tts-worker", of_revision(revision))
        update = server.verified("tts-worker", message)
        assert update.config["volume_percent"] == 90
        assert "tts_provider" in update.defaulted
        return message

    def check_client_cache() -> None:
        code, process = processes.run(
            "client", "get", "--state", str(state), "--service", "tts-worker"
        )
        assert code == 0, process.text
        assert json.loads("\n".join(process.text))["volume_percent"] == 90

    before = check_message()
    check_client_cache()
    eventually(
        lambda: (server.data_dir / "config.lkg").exists(), within=5, what="the server's cache"
    )
    assert server.health()["cache_available"]
    assert b"volume_percent" not in (server.data_dir / "config.lkg").read_bytes()
    assert b"volume_percent" not in (server.data_dir / "config.db").read_bytes()

    assert client.terminate() == 0
    assert server.stop() == 0
    check_client_cache()  # with no network at all
    server.start()
    server.wait_outbox_empty()
    assert check_message() == before
    got = server.get("/api/v1/config/tts-worker").json()
    assert (got["config"]["volume_percent"], got["revision"]) == (90, revision)
    again = processes.follow(state, "tts-worker", broker.url)
    assert again.event("applied")["revision"] == revision
    server.put("tts-worker", {"volume_percent": 70})
    again.line(
        lambda it: it["event"] == "applied" and it.get("config", {}).get("volume_percent") == 70,
        what="the next one",
    )
    assert server.http.delete("/api/v1/config/tts-worker").status_code == 200
    again.event("deleted")
