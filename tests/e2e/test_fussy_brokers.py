"""Real brokers that refuse, that are reached twice, and that somebody else uses, too."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from config_manager.config import wire
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Processes,
    Server,
    answers,
    arrived,
    eventually,
    free_port,
    listening,
)

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

ACL = """\
topic readwrite system/#
topic deny system/config/aaa
"""
REFUSALS = {
    "max_packet_size 20000": "is over its limit of 20,000",
    "message_size_limit 20000": "it answered 149 (packet too large) to a message of ",
    "acl_file {directory}/acl": "it answered 135 (not authorized) to a message of ",
}


def mosquitto(processes: Processes, directory: Path, *lines: str) -> int:
    assert MOSQUITTO is not None
    port = free_port()
    conf = directory / f"{port}.conf"
    as_root = ("user root",) if os.geteuid() == 0 else ()
    said = "\n".join((f"listener {port} 127.0.0.1", "allow_anonymous true", *as_root, *lines))
    conf.write_text(said.format(directory=directory) + "\n")
    processes.start([MOSQUITTO, "-c", str(conf)])
    eventually(lambda: answers(port), within=5, what="mosquitto listens")
    return port


def reasons(server: Server) -> str:
    return "; ".join(server.health()["reasons"])


@pytest.mark.parametrize("line", REFUSALS)
def test_one_message_that_a_broker_refuses_is_named_and_all_others_go_on(
    shop: tuple[Processes, Path], line: str
) -> None:
    processes, directory = shop
    (directory / "acl").write_text(ACL)
    port = mosquitto(processes, directory, line)
    server = processes.server(directory / "data", f"mqtt://127.0.0.1:{port}")
    server.put("aaa", {"note": "x" * 30_000})
    wanted = {name: server.put(name, {"n": 1}).json()["revision"] for name in ("bbb", "ccc")}
    arrived(port, server, wanted, within=10)
    eventually(lambda: REFUSALS[line] in reasons(server), within=10, what="aaa is named")
    eventually(lambda: server.health()["outbox_depth"] == 1, within=10, what="the others")
    health = server.health()
    assert health["ok"]
    assert len(health["reasons"]) == 1
    assert "keeps refusing aaa: " in health["reasons"][0]
    assert set(health["broker"].values()) == {"connected"}
    with listening(port, "system/#") as listener:
        listener.message("system/config-snapshot/config-manager")
        listener.message("system/keepalive/config-manager", within=15)
    assert sum(one["event"] == "broker connected" for one in server.process.lines) == 1
    if "acl" not in line:
        server.put("aaa", {"note": "small"})
        server.wait_outbox_empty()
        assert reasons(server) == ""


def test_a_snapshot_over_the_limit_is_named_by_its_topic(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    port = mosquitto(processes, directory, "max_packet_size 20000")
    server = processes.server(directory / "data", f"mqtt://127.0.0.1:{port}")
    many = {f"svc-{number}": {"n": number} for number in range(300)}
    answer = server.http.post("/api/v1/config/epoch", json={"services": many, "reason": "many"})
    assert answer.status_code == 200, answer.text
    server.wait_outbox_empty(within=30)
    name = "keeps refusing system/config-snapshot/config-manager: a message of "
    eventually(lambda: name in reasons(server), within=10, what="the snapshot is named")
    assert server.health()["ok"]


def test_doctor_names_the_limit(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    port = mosquitto(processes, directory, "max_packet_size 20000", "max_queued_messages 5000")
    url = f"mqtt://127.0.0.1:{port}"
    server = processes.server(directory / "data", url)
    server.put("aaa", {"note": "x" * 30_000})
    eventually(lambda: "keeps refusing aaa" in reasons(server), within=10, what="it is named")
    env = {"CONFIG_MANAGER_TOKEN": TOKEN, "CONFIG_MANAGER_MQTT_URL": url}
    code, told = processes.run("doctor", "--url", server.url, "--json", env=env, within=60)
    found: list[dict[str, Any]] = json.loads(told.text[0])["findings"]
    size = next(one for one in found if one["check"] == "message size")
    assert (code, size["detail"]) == (5, "the broker takes no more than 20,000 bytes at once")
    assert any("keeps refusing aaa" in one["detail"] and one["remedy"] for one in found)


def test_two_ways_to_one_broker_do_not_push_each_other_off(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    second = free_port()
    first = mosquitto(processes, directory, f"listener {second} 127.0.0.1")
    server = processes.server(
        directory / "data", f"mqtt://127.0.0.1:{first},mqtt://127.0.0.1:{second}"
    )
    with listening(first, "system/keepalive/config-manager") as listener:
        for number in range(15):
            server.put("gate", {"n": number})
        listener.message("system/keepalive/config-manager", within=15)
    server.wait_outbox_empty()
    assert set(server.health()["broker"].values()) == {"connected"}
    assert reasons(server) == ""
    events = [one["event"] for one in server.process.lines]
    assert events.count("broker connected") == 2
    assert "broker disconnected" not in events


def test_one_broker_named_twice_stops_the_start(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    code, told = processes.run(
        *("serve", "--data-dir", str(directory / "data"), "--bind", "127.0.0.1:0"),
        *("--mqtt-url", "mqtt://me:hunter2@127.0.0.1:1883,mqtt://127.0.0.1"),
        within=20,
    )
    assert code == 2
    assert "127.0.0.1:1883 is named twice" in "\n".join(told.text)
    assert "hunter2" not in "\n".join(told.text)
    assert not (directory / "data").exists(), "nothing was made"


def test_a_forgotten_copy_of_the_data_directory_leaves_production_alone(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    server.put("gate", {"n": 1})
    server.wait_outbox_empty()
    server.stop()
    shutil.copytree(directory / "data", directory / "copy")
    server = processes.server(directory / "data", broker.url)
    server.put("gate", {"n": 2})
    server.wait_outbox_empty()
    with listening(broker.port, wire.SNAPSHOT_TOPIC) as listener:
        # a copy that starts before production's next snapshot, within a second, cannot know it yet
        listener.message(
            wire.SNAPSHOT_TOPIC, lambda m: server.verified_snapshot(m)[0].revision == 2
        )
    with listening(broker.port, "system/health/config-manager") as listener:
        listener.message("system/health/config-manager", lambda m: b'"ready"' in m)
        copy = processes.server(directory / "copy", broker.url)
        eventually(
            lambda: "another config-manager is alive there" in reasons(copy),
            within=20,
            what="the copy finds out that it is not alone",
        )
        assert copy.health()["mode"] == "read-only"
        copy.stop()
        assert len(listener.messages) == 1, "no word of it on production's topic"
    assert server.health()["ok"]
    assert not any(one["event"] == "broker disconnected" for one in server.process.lines)


def test_two_servers_on_one_broker_say_so_and_calm_down(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    one, other = (processes.server(directory / name, broker.url) for name in ("one", "other"))
    for server in (one, other):
        server.put("gate", {"by": str(server.data_dir)})
    for server in (one, other):
        server.process.event("somebody else writes", within=40, topic="system/config/gate")
        words = f"broker {broker.url}: somebody else writes system/config/gate (1"
        assert words in reasons(server)
        assert server.health()["outbox_depth"] == 1
        answer = server.put("gate", {"by": "me"}, params={"wait": "confirmed", "timeout": 1})
        assert answer.json()["propagation"] == "pending"
