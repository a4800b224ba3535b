"""SIGTERM: exit 0 within ten seconds, idle connections or not, and the broker knows."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.kit.processes import Processes, descendants, eventually, free_port, listening


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(shop: tuple[Processes, Path], with_signal: int) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put("one", {"a": 1})  # and its connection stays open
    with listening(broker.port, "system/health/config-manager") as listener:
        topic = "system/health/config-manager"
        listener.message(topic, lambda m: json.loads(m)["data"]["ok"] is True)
        began = time.monotonic()
        server.process.popen.send_signal(with_signal)
        assert server.process.wait(12) == 0
        assert time.monotonic() - began < 10
        frame = json.loads(listener.message(topic, lambda m: json.loads(m)["data"]["ok"] is False))
    assert frame["data"]["event"] == "shutdown"
    assert frame["source"] == "config-manager"
    assert frame["type"] == "health.status"
    with listening(broker.port, topic) as later:
        assert json.loads(later.message(topic))["data"]["ok"] is False


def test_a_killed_server_is_said_to_be_ill_and_its_return_well(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    topic = "system/health/config-manager"
    with listening(broker.port, topic) as listener:
        listener.message(topic, lambda m: json.loads(m)["data"]["ok"] is True)
        server.kill()
        listener.message(topic, lambda m: json.loads(m)["data"]["ok"] is False)
        server.start()

        def well() -> bool:
            return json.loads(listener.newest()[topic])["data"]["ok"] is True

        eventually(well, within=10, what="ok again")


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_bundled_broker_ends_with_its_server(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "auto:")
    below = descendants(server.process.pid)
    assert server.stop() == 0
    for pid in below:
        eventually(partial(is_gone, pid), within=5, what="no orphan")


def test_who_waits_for_a_broker_that_is_away_is_told_that_it_is_written(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", f"mqtt://127.0.0.1:{free_port()}")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(
            server.put, "one", {"a": 1}, params={"wait": "confirmed", "timeout": "30"}
        )
        server.process.event("committed", revision=1)
        server.process.popen.send_signal(signal.SIGTERM)
        assert server.process.wait(12) == 0
        answer = asked.result(timeout=10)
    assert (answer.status_code, answer.json()["propagation"]) == (201, "pending")
