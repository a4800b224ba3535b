"""Where no Mosquitto is installed: the walk-through on the broker that comes with us."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.kit.processes import Processes, answers, eventually, free_port


def first_message(port: int, topic: str) -> bytes:
    """As a person asks: the first message that comes after subscribing."""
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-C", "1"]
    return subprocess.run([*command, "-W", "5"], capture_output=True, timeout=10, check=True).stdout


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="needs mosquitto-clients")
def test_each_who_subscribes_gets_what_he_asked_for_and_nothing_else(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    port = free_port()
    processes.start([sys.executable, "-m", "config_manager.actors.bundled_broker", str(port)])
    eventually(lambda: answers(port), within=10, what="the bundled broker listens")
    server = processes.server(directory / "data", f"mqtt://127.0.0.1:{port}")
    answer = server.put("stt-worker", {}, params={"wait": "confirmed"})
    assert answer.json()["propagation"] == "confirmed"
    for _ in range(2):
        config = orjson.loads(first_message(port, "system/config/stt-worker"))
        assert config["correlation_id"] == answer.headers["X-Request-ID"]
        health = orjson.loads(first_message(port, "system/health/config-manager"))
        assert health["data"]["ok"] is True
