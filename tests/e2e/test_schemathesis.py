"""Schemathesis against our OpenAPI on a real server: nothing but documented answers, process alive."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.kit.processes import MOSQUITTO, TOKEN, Process, Processes

TESTS = Path(__file__).resolve().parents[1]
CONFIG, HOOKS = TESTS / "schemathesis.toml", TESTS / "schemathesis_values.py"
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "5"))
"""For each operation and phase; `SCHEMATHESIS_EXAMPLES=1000` for an hour of it."""


@pytest.mark.timeout(max(120, EXAMPLES * 10))
def test_generated_requests_get_only_documented_answers(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = processes.broker(directory / "broker")  # or each `?wait=confirmed` takes its time
    server = processes.server(directory / "data", broker.url)
    run = Process(
        [
            *(str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIG)),
            *("run", f"{server.url}/openapi.json", "--no-color"),
            *("-H", f"Authorization: Bearer {TOKEN}", "--request-timeout", "5"),
            *("--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
            *("--seed", "7", "--generation-database", "none"),
        ],
        cwd=directory,
        env={"SCHEMATHESIS_HOOKS": str(HOOKS)},
    )
    code = run.wait(max(110, EXAMPLES * 10))
    assert code == 0, "\n".join(run.text[-150:])
    assert server.process.alive
    assert server.get("/health").status_code == 200
