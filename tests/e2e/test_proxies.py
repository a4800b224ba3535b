"""The commands against a server of this machine, where the environment names a proxy that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.processes import BEHIND_A_PROXY, MOSQUITTO, TOKEN, Processes, Server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_operator_commands_ask_the_server_itself(server: Server, host: str) -> None:
    url = server.url.replace("127.0.0.1", host)
    with Processes() as processes:
        env = {**BEHIND_A_PROXY, "CONFIG_MANAGER_URL": url, "CONFIG_MANAGER_TOKEN": TOKEN}
        for command in (["status"], ["doctor"]):
            code, told = processes.run(*command, env=env)
            assert code == 0, told.text


def test_an_instance_enrols_at_the_server_itself_and_both_reach_the_broker(
    shop: tuple[Processes, Path],
) -> None:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    command = (
        "env",
        *(f"{name}={value}" for name, value in BEHIND_A_PROXY.items()),
        *processes.command,
    )
    with Processes(command) as behind:
        server = behind.server(directory / "data", broker.url)
        server.put("stt-worker", {"whisper_model": "base.en"}, params={"wait": "confirmed"})
        state = directory / "state"
        behind.pin(state, server.data_dir / "trust" / "root.json")
        made = server.http.post("/api/v1/devices/tokens", json={"service": "stt-worker"})
        token = directory / "token"
        token.write_text(made.json()["token"])
        code, enrolled = behind.run(
            *("client", "enroll", "--state", str(state), "--service", "stt-worker"),
            *("--url", server.url.replace("127.0.0.1", "localhost"), "--token-file", str(token)),
        )
        assert code == 0, enrolled.text
        follower = behind.follow(state, "stt-worker", broker.url)
        assert follower.event("applied")["config"]["whisper_model"] == "base.en"
