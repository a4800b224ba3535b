"""The README's walk-through, verbatim, against `serve --dev`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.processes import Processes, port_is_free, port_of

SCRIPT = """
REQUEST_ID=$(curl -s -X PUT http://localhost:8081/api/v1/config/stt-worker \\
  -H "Content-Type: application/json" -d '{"whisper_model": "base.en"}' \\
  -D - | grep "X-Request-ID" | cut -d: -f2 | tr -d ' \\r')
sleep 1
mosquitto_sub -h localhost -t "system/config/stt-worker" -C 1 | jq -r '.correlation_id'
mosquitto_sub -h localhost -t "system/health/config-manager" -C 1 | jq .data.ok
"""


def test_the_walk_through_prints_the_id_and_true(shop: tuple[Processes, Path]) -> None:
    for tool in ("bash", "curl", "jq", "mosquitto_sub"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    processes, directory = shop
    default = port_is_free(8081) and port_is_free(1883)
    bind = "127.0.0.1:8081" if default else "127.0.0.1:0"
    server = processes.server(directory / "data", "auto:", "--dev", "--bind", bind)
    script = SCRIPT
    if not default:
        script = script.replace("http://localhost:8081", server.url)
    mqtt_port = port_of(server.ready["mqtt_url"])
    if mqtt_port != 1883:
        script = script.replace("-h localhost", f"-h localhost -p {mqtt_port}")
    done = subprocess.run(
        ["bash", "-c", script + "echo $REQUEST_ID\n"], capture_output=True, text=True, timeout=30
    )
    printed = done.stdout.split()
    assert len(printed) == 3, (done.stdout, done.stderr)
    assert printed[0] == printed[2] != ""
    assert printed[1] == "true"


def test_dev_refuses_what_a_web_page_elsewhere_could_send(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:", "--dev")
    url = f"{server.url}/api/v1/config"
    client = processes.client(server.url)
    del client.headers["Authorization"]
    assert client.get(url).status_code == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
    ):
        assert client.get(url, headers=headers).status_code == 403, headers
    assert client.get(url, headers={"Host": "evil.example"}).status_code == 401
