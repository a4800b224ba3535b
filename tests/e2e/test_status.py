"""What runs where: real server, Mosquitto and clients, seen over REST and by the command."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from config_manager.client.state.identity import trust_init
from config_manager.config import wire
from config_manager.config.documents.receipt import Receipt
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Broker,
    Process,
    Processes,
    Server,
    eventually,
    free_port,
    listening,
    retained,
)
from tests.kit.shell import InProcess, in_process

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

SERVICE = """
import sys, trio
from config_manager.client import open_config
from config_manager.config.services.stt_worker import SttSettings

async def main():
    async with open_config(SttSettings, service="stt-worker", state_dir=sys.argv[1],
                           mqtt_url=sys.argv[2], instance="shadowed"):
        await trio.sleep_forever()

trio.run(main)
"""

UNDER_ASYNCIO = """
import asyncio, sys
from config_manager.client import open_config
from config_manager.config.services.stt_worker import SttSettings

async def main():
    async with open_config(SttSettings, service="stt-worker", state_dir=sys.argv[1],
                           mqtt_url=sys.argv[2], instance="attic"):
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Fleet:
    """A server on a Mosquitto of its own, and clients in states of their own."""

    def __init__(self, shop: tuple[Processes, Path], *flags: str) -> None:
        self.processes, self.directory = shop
        self.broker: Broker = self.processes.broker(self.directory / "broker")
        self.server: Server = self.processes.server(
            self.directory / "data", self.broker.url, *flags
        )

    def state(self, name: str) -> Path:
        state = self.directory / name
        trust_init(state, self.server.data_dir / "trust" / "root.json")
        return state

    def follow(self, name: str, service: str = "stt-worker") -> Process:
        return self.processes.follow(self.state(name), service, self.broker.url, "--instance", name)

    def shown(
        self, name: str, fits: Callable[[dict[str, Any]], object], *, within: float = 10
    ) -> dict[str, Any]:
        """The instance in GET /api/v1/status, once it fits."""
        last: list[Any] = []

        def probe() -> dict[str, Any] | None:
            answer = self.server.get("/api/v1/status")
            last[:] = [answer.json()]
            found = [i for i in answer.json()["instances"] if i["instance"] == name]
            return found[0] if found and fits(found[0]) else None

        try:
            return eventually(probe, within=within, what=f"{name} in the status")
        except AssertionError as late:
            raise AssertionError(f"{late}; last shown: {json.dumps(last)}") from None

    def command(self, *options: str) -> tuple[int, str]:
        ended = InProcess(self.server).run("status", *options)
        return ended.code, ended.said.rstrip("\n")


@pytest.fixture(scope="module")
def fleet(module_shop: tuple[Processes, Path]) -> Fleet:
    """For who breaks nothing: shared, so each test has instances of its own."""
    return Fleet(module_shop)


def test_a_put_makes_it_out_of_sync_until_it_runs_and_one_id_leads_there(fleet: Fleet) -> None:
    client = fleet.follow("kitchen")
    fleet.shown("kitchen", lambda i: i["running"] is None and i["in_sync"])
    os.kill(client.pid, signal.SIGSTOP)  # it hears of nothing now
    answer = fleet.server.put(
        "stt-worker", {"whisper_model": "small.en"}, headers={"X-Request-ID": "one-id"}
    ).json()
    behind = fleet.shown("kitchen", lambda i: not i["in_sync"])
    assert behind["wanted"]["revision"] == answer["revision"]
    assert behind["running"] is None
    os.kill(client.pid, signal.SIGCONT)
    there = fleet.shown("kitchen", lambda i: i["in_sync"])
    assert there["running"]["revision"] == answer["revision"]
    assert there["running"]["digest"] == there["wanted"]["digest"]
    assert there["correlation_id"] == "one-id"
    assert there["last_attempt"]["stage"] in ("applied", "healthy")
    assert not there["enrolled"]

    line = fleet.server.process.event("receipt", correlation_id="one-id", instance="kitchen")
    assert line["actor"] == "publishing"
    assert (line["level"], line["request_id"]) == ("info", "one-id")
    assert (line["service"], line["revision"]) == ("stt-worker", answer["revision"])

    for options, wanted in (
        ((), 1),
        (("--service", "stt-worker"), 1),
        (("--service", "router"), 0),
    ):
        code, text = fleet.command("--json", *options)
        assert code == 0
        assert len(json.loads(text)["instances"]) == wanted
    code, text = fleet.command()
    assert code == 0
    row = next(line.split() for line in text.splitlines() if "kitchen" in line)
    assert row[:4] == ["stt-worker", "kitchen", str(answer["revision"]), str(answer["revision"])]
    assert row[-2:] == ["not", "enrolled"]
    assert "1 of 1 run what is wanted" in text


def test_a_killed_client_is_gone_and_is_back_with_its_next_start(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop)
    revision = fleet.server.put("stt-worker", {}).json()["revision"]
    client = fleet.follow("kitchen")
    fleet.shown("kitchen", lambda i: i["in_sync"])
    client.kill()
    gone = fleet.shown("kitchen", lambda i: i["gone"])
    assert not gone["in_sync"]
    assert gone["running"]["revision"] == revision, "a will knows less, and takes nothing away"
    assert "gone" in fleet.command()[1]

    fleet.server.stop()
    fleet.server.start()
    fleet.shown("kitchen", lambda i: i["gone"])  # the brokers remember for us

    client = fleet.follow("kitchen")
    fleet.shown("kitchen", lambda i: i["in_sync"] and not i["gone"])
    assert client.terminate() == 0
    fleet.shown("kitchen", lambda i: i["gone"])


def test_a_killed_client_under_asyncio_is_gone_for_a_server_that_comes_later(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop)
    fleet.server.put("stt-worker", {})
    client = fleet.processes.start(
        [sys.executable, "-c", UNDER_ASYNCIO, str(fleet.state("attic")), fleet.broker.url]
    )
    fleet.shown("attic", lambda i: i["in_sync"] and not i["gone"])
    os.kill(client.pid, signal.SIGSTOP)  # it says nothing again
    said = retained(fleet.broker.port, wire.status_topic("stt-worker", "attic"))
    assert not Receipt.parse(wire.parse_envelope(said).payload).gone
    client.kill()
    fleet.shown("attic", lambda i: i["gone"])
    fleet.server.stop()
    fleet.server.start()
    fleet.shown("attic", lambda i: i["gone"])


def test_a_killed_server_is_offline_for_who_comes_later(shop: tuple[Processes, Path]) -> None:
    def offline(payload: bytes) -> bool:
        event: str = json.loads(payload)["data"]["event"]
        return event == "offline"

    fleet = Fleet(shop)
    with listening(fleet.broker.port, wire.HEALTH_TOPIC) as there:
        there.message(wire.HEALTH_TOPIC, lambda payload: not offline(payload))
        fleet.server.kill()
        there.message(wire.HEALTH_TOPIC, offline)
    assert offline(retained(fleet.broker.port, wire.HEALTH_TOPIC))


def test_a_broker_killed_and_revived_empty_is_told_again_and_what_stopped_meanwhile_is_not_lost(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop)
    fleet.server.put("stt-worker", {})
    fleet.follow("kitchen")
    hall = fleet.follow("hall")
    for name in ("kitchen", "hall"):
        fleet.shown(name, lambda i: i["in_sync"])
    fleet.broker.kill()
    fleet.broker.forget()
    revision = fleet.server.put("stt-worker", {"whisper_model": "small.en"}).json()["revision"]
    hall.kill()
    assert len(fleet.server.get("/api/v1/status").json()["instances"]) == 2
    fleet.broker.start()
    kitchen = fleet.shown("kitchen", lambda i: i["in_sync"], within=40)
    assert kitchen["running"]["revision"] == revision
    assert not kitchen["gone"]
    hall_shown = fleet.shown("hall", lambda i: not i["in_sync"])
    assert hall_shown["running"]["revision"] < revision


def test_what_its_environment_decides_is_named(fleet: Fleet) -> None:
    fleet.server.put("stt-worker", {"whisper_model": "small.en"})
    fleet.processes.start(
        [sys.executable, "-c", SERVICE, str(fleet.state("shadowed")), fleet.broker.url],
        env={"STT_WORKER_WHISPER_MODEL": "base.en"},
    )
    shown = fleet.shown("shadowed", lambda i: i["in_sync"])
    assert shown["overrides"] == ["whisper_model"], "the name, never the value"
    assert "its environment decides whisper_model" in fleet.command()[1]


def test_garbage_is_counted_and_an_empty_message_removes_an_instance(fleet: Fleet) -> None:
    client = fleet.follow("cellar", "router")
    fleet.shown("cellar", lambda i: i["in_sync"])
    client.kill()
    fleet.shown("cellar", lambda i: i["gone"])

    def say(name: str, payload: bytes | None) -> None:
        topic = f"system/config-status/router/{name}"
        publish.single(topic, payload, qos=1, retain=True, port=fleet.broker.port)

    for payload in (b"x", b"\xff" * 70_000, b"{}"):
        say("cellar", payload)
    say("Not A Name", b"{}")

    def refused() -> bool:
        return bool(fleet.server.get("/api/v1/status").json()["refused"] == 4)

    eventually(refused, within=5, what="all four counted")
    fleet.shown("cellar", lambda i: i["gone"])
    assert "4 messages" in fleet.command()[1]
    say("cellar", None)
    eventually(
        lambda: "cellar" not in fleet.server.get("/api/v1/status").text, within=5, what="removed"
    )
    assert "no instance of router has reported yet" in fleet.command("--service", "router")[1]
    assert fleet.server.health()["ok"]


def test_watch_goes_on_says_each_change_and_survives_the_server(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop, "--bind", f"127.0.0.1:{free_port()}")
    watch = fleet.processes.start(
        [
            *(str(Path(sys.executable).with_name("config-manager")), "status", "--watch"),
            *("--json", "--url", fleet.server.url),
        ],
        env={"CONFIG_MANAGER_TOKEN": TOKEN},
    )
    watch.line(lambda it: it["instances"] == [], what="the start")
    fleet.server.put("stt-worker", {})
    fleet.follow("kitchen")
    watch.line(lambda it: bool(it["instances"]) and it["instances"][0]["in_sync"], what="a change")
    fleet.server.stop()
    eventually(
        lambda: any("no answer from" in line for line in watch.text), within=5, what="it says so"
    )
    fleet.server.start()
    revision = fleet.server.put("stt-worker", {"whisper_model": "small.en"}).json()["revision"]
    watch.line(
        lambda it: any(
            i["running"] and i["running"]["revision"] == revision for i in it["instances"]
        ),
        what="the server is back",
    )
    watch.popen.send_signal(signal.SIGINT)
    assert watch.wait() == 0
    assert sum("no answer from" in line for line in watch.text) == 1


def test_exit_codes(fleet: Fleet) -> None:
    directory = fleet.directory
    fleet.follow("attic")
    fleet.shown("attic", lambda i: True)
    right, wrong = directory / "right", directory / "wrong"
    right.write_text(TOKEN + "\n")
    wrong.write_text("another\n")
    url = ("--url", fleet.server.url)
    for options, env, code, said in (
        (
            (*url, "--token-file", str(right)),
            {"CONFIG_MANAGER_TOKEN": "another"},
            0,
            "run what is wanted",
        ),
        ((*url, "--token-file", str(wrong)), {"CONFIG_MANAGER_TOKEN": TOKEN}, 5, "this token"),
        (url, {}, 5, "--token-file"),
        ((*url, "--service", "epoch"), {"CONFIG_MANAGER_TOKEN": TOKEN}, 2, "reserved"),
        ((*url, "--token-file", str(directory / "no")), {}, 2, "--token-file"),
        (("--url", "localhost:8081"), {}, 2, "--url"),
        (("--url", f"http://127.0.0.1:{free_port()}"), {}, 1, "is `config-manager serve` running"),
    ):
        ended = in_process("status", *options, **env)
        is_said, is_traced = said in ended.said, "Traceback" in ended.said
        assert (ended.code, is_said, is_traced) == (code, True, False), (options, ended)
        assert TOKEN not in ended.said
