"""Python 3.14: on a 3.14, or by taking from this one what 3.14 took from asyncio."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import python_3_14
from tests.kit.processes import MOSQUITTO, TOKEN, Processes, eventually, workshop


@pytest.fixture
def shop() -> Iterator[tuple[Processes, Path]]:
    with workshop() as (_, directory), Processes(python_3_14.COMMAND) as processes:
        yield processes, directory


def test_trio_asyncio_alone_does_not_even_import_there() -> None:
    done = subprocess.run(python_3_14.PLAIN_IMPORT, capture_output=True, text=True, check=False)
    assert "has no attribute 'BaseDefaultEventLoopPolicy'" in done.stderr


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_server_and_service_meet_at_a_broker(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    put = server.put("stt-worker", {"whisper_model": "base.en"}, params={"wait": "confirmed"})
    assert (put.status_code, put.json()["propagation"]) == (201, "confirmed")
    state = directory / "state"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    service = processes.follow(state, "stt-worker", broker.url)
    assert service.event("applied")["config"]["whisper_model"] == "base.en"
    assert (service.terminate(), server.stop()) == (0, 0)
    said = "\n".join((*server.process.text, *service.text))
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.torture
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_doctor_tries_a_broker_which_goes_and_comes_back_to_the_server(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    eventually(
        lambda: set(server.health()["broker"].values()) == {"connected"},
        within=20,
        what="the server is connected, or doctor says that it is not yet",
    )
    code, doctor = processes.run(
        *("doctor", "--url", server.url, "--mqtt-url", broker.url, "--json"),
        env={"CONFIG_MANAGER_TOKEN": TOKEN},
        within=60,
    )
    assert code == 0, doctor.text
    levels = {one["level"] for one in json.loads("\n".join(doctor.text))["findings"]}
    assert "failed" not in levels
    broker.kill()
    server.put("stt-worker", {"whisper_model": "tiny.en"})
    broker.start()
    server.wait_outbox_empty(within=20)
    assert server.stop() == 0
