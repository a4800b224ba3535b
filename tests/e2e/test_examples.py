"""The examples, each as a process of its own, on a real server and a real broker."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import COMMAND, Process, Processes, Server, answers, eventually, free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NATS = shutil.which("nats-server")


def said(process: Process, text: str, within: float = 15) -> None:
    eventually(
        lambda: text in process.text, within=within, what=f"it says {text!r}: {process.text}"
    )


def start(processes: Processes, directory: Path, example: str, url: str) -> Process:
    path = EXAMPLES / example
    argv = [str(path)] if path.suffix == ".sh" else [sys.executable, str(path)]
    return processes.start(
        argv,
        env={
            "CONFIG_MANAGER_STATE_DIR": str(directory / "state"),
            "CONFIG_MANAGER_ROOT": str(directory / "data" / "trust" / "root.json"),
            "CONFIG_MANAGER_MQTT_URL": url,
            "STATE": str(directory / "state"),
            "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}",
        },
    )


def ready(processes: Processes, directory: Path, url: str) -> Server:
    server = processes.server(directory / "data", url)
    server.put("voice", {"voice": "joe", "speed": 1.5}, params={"wait": "confirmed"})
    processes.pin(directory / "state", server.data_dir / "trust" / "root.json")
    return server


@pytest.mark.parametrize("example", ["asyncio_service.py", "trio_service.py", "shell_service.sh"])
def test_it_applies_changes_and_starts_again_with_nothing_in_reach(
    shop: tuple[Processes, Path], example: str
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = ready(processes, directory, broker.url)
    service = start(processes, directory, example, broker.url)
    at = " at 1.5" if example.startswith("asyncio") else ""
    said(service, f"speaking as joe{at}")
    server.put("voice", {"voice": "eve", "speed": 1.5})
    said(service, f"speaking as eve{at}")
    if example.endswith(".py"):
        assert service.terminate() == 0
        said(service, "stopped", within=2)
    else:
        service.kill()
    server.stop()
    broker.kill()
    again = start(processes, directory, example, broker.url)
    said(again, f"speaking as eve{at}", within=10)


def test_a_refused_change_leaves_it_running_and_the_operator_sees_why(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = ready(processes, directory, broker.url)
    service = start(processes, directory, "trio_service.py", broker.url)
    said(service, "speaking as joe")
    server.put("voice", {"voice": "nobody"})

    def refused() -> dict[str, Any] | None:
        (shown,) = server.get("/api/v1/status").json()["instances"]
        return shown if shown["last_attempt"]["stage"] == "refused" else None

    shown = eventually(refused, within=10, what="the receipt says refused")
    assert "there is no voice 'nobody'" in shown["last_attempt"]["reason"]
    assert shown["running"]["revision"] == 1
    server.put("voice", {"voice": "eve"})
    said(service, "speaking as eve")


@pytest.mark.skipif(
    NATS is None, reason="nats-server is not installed (Debian: apt-get install nats-server)"
)
@pytest.mark.parametrize("example", ["asyncio_service.py", "trio_service.py", "shell_service.sh"])
def test_it_runs_on_nats_servers_mqtt_311_too(shop: tuple[Processes, Path], example: str) -> None:
    processes, directory = shop
    port = start_nats(processes, directory)
    url = f"mqtt://127.0.0.1:{port}"
    server = ready(processes, directory, url)
    service = start(processes, directory, example, url)
    at = " at 1.5" if example.startswith("asyncio") else ""
    said(service, f"speaking as joe{at}", within=30)
    server.put("voice", {"voice": "eve", "speed": 1.5})
    said(service, f"speaking as eve{at}", within=30)


def start_nats(processes: Processes, directory: Path) -> int:
    """Its MQTT listener; it keeps retained messages in JetStream."""
    assert NATS is not None
    port = free_port()
    config = directory / "nats.conf"
    config.write_text(
        f'server_name: test\nlisten: "127.0.0.1:{free_port()}"\n'
        f'jetstream: {{ store_dir: "{directory / "nats"}" }}\n'
        f'mqtt: {{ listen: "127.0.0.1:{port}" }}\n'
    )
    processes.start([NATS, "-c", str(config)])
    eventually(lambda: answers(port), within=10, what="nats-server listens")
    return port
