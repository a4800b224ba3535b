"""An instance is forgotten: real server, Mosquitto and clients, by the command an operator has."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from config_manager.client.drivers.follower import Anything
from config_manager.client.model.published_schema import published_schema
from config_manager.config import wire
from tests.kit.processes import (
    MOSQUITTO,
    TOKEN,
    Broker,
    Process,
    Processes,
    Server,
    eventually,
    listening,
)

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

SERVICE = "stt-worker"


class Fleet:
    """A server on one or two Mosquittos, clients in states of their own, and an operator."""

    def __init__(self, shop: tuple[Processes, Path], *brokers: str) -> None:
        self.processes, self.directory = shop
        self.brokers: list[Broker] = [
            self.processes.broker(self.directory / name) for name in brokers
        ]
        self.urls = ",".join(broker.url for broker in self.brokers)
        self.server: Server = self.processes.server(self.directory / "data", self.urls)
        self.server.put(SERVICE, {})

    def follow(self, name: str) -> Process:
        state = self.directory / name
        if not state.exists():
            self.processes.pin(state, self.server.data_dir / "trust" / "root.json")
        return self.processes.follow(state, SERVICE, self.urls, "--instance", name)

    def command(self, *options: str) -> tuple[int, str]:
        code, process = self.processes.run(
            *options, "--url", self.server.url, env={"CONFIG_MANAGER_TOKEN": TOKEN}
        )
        return code, "\n".join(process.text)

    def forget(self, name: str, *options: str) -> tuple[int, str]:
        return self.command("devices", "forget", SERVICE, name, *options)

    def shown(self) -> dict[str, Any]:
        code, text = self.command("status", "--json")
        assert code == 0, text
        return {one["instance"]: one for one in json.loads(text)["instances"]}

    def wait_for(self, name: str, **fields: Any) -> None:
        def fits() -> bool:
            shown = self.shown().get(name, {})
            return bool(shown) and all(shown[key] == value for key, value in fields.items())

        eventually(fits, within=20, what=f"{name} is shown with {fields}", every=0.2)


def retains(broker: Broker) -> set[str]:
    """Every topic of an instance under which this broker retains something, right now."""
    mark = uuid.uuid4().bytes
    ours = ("system/config-status/#", "system/config-schema/#")
    with listening(broker.port, *ours, "mark") as listener:
        listener.publish("mark", mark)  # what is retained comes before what is said after it
        listener.message("mark", lambda message: message == mark)
        return {topic for topic, payload, _ in listener.messages if payload} - {"mark"}


def retains_in_time(broker: Broker, wanted: set[str]) -> None:
    eventually(lambda: retains(broker) == wanted, within=20, what=f"it retains {sorted(wanted)}")


SCHEMA = wire.schema_topic(SERVICE, published_schema(Anything).digest)
"""That which the receipts of `client run` name."""


def topics(*names: str) -> set[str]:
    return {SCHEMA, *(wire.status_topic(SERVICE, name) for name in names)}


def say_schema(broker: Broker) -> None:
    """As a client with a model would."""
    with listening(broker.port, "system/config-schema/#") as listener:
        listener.publish(SCHEMA, b"{}")
        listener.message(SCHEMA)


def test_what_runs_is_still_there_and_once_it_has_gone_it_leaves_nothing_behind(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop, "broker")
    [broker] = fleet.brokers
    kitchen = fleet.follow("kitchen")
    fleet.follow("hall")
    for name in ("kitchen", "hall"):
        fleet.wait_for(name, in_sync=True)
    say_schema(broker)

    code, text = fleet.forget("kitchen")
    assert (code, "has not gone since" in text, "Traceback" in text) == (7, True, False), text
    assert retains(broker) == topics("kitchen", "hall")

    assert kitchen.terminate() == 0
    fleet.wait_for("kitchen", gone=True)
    assert "config-manager devices forget SERVICE INSTANCE" in fleet.command("status")[1]
    code, text = fleet.forget("kitchen", "--reason", "its card is broken")
    assert code == 0, text
    assert text.splitlines()[0].startswith("stt-worker/kitchen is forgotten")
    retains_in_time(broker, topics("hall"))
    assert list(fleet.shown()) == ["hall"]
    assert "gone" not in fleet.command("status")[1]
    assert fleet.forget("kitchen")[0] == 6
    assert fleet.forget("Not-A-Name")[0] == 2

    entries = fleet.server.get("/api/v1/audit?limit=1000").json()["entries"]
    [row] = [
        body
        for body in (json.loads(entry["body"]) for entry in entries)
        if body["action"] == "instance.forget"
    ]
    assert (row["by"], row["reason"]) == ("bootstrap", "its card is broken")
    assert (row["details"]["service"], row["details"]["instance"]) == (SERVICE, "kitchen")
    assert fleet.command("audit", "verify")[0] == 0

    fleet.follow("kitchen")
    fleet.wait_for("kitchen", in_sync=True, gone=False)
    assert wire.status_topic(SERVICE, "kitchen") in retains(broker)


def test_a_broker_that_was_down_meanwhile_is_emptied_when_it_is_back_also_by_a_server_that_started_since(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop, "first", "second")
    first, second = fleet.brokers
    kitchen = fleet.follow("kitchen")
    fleet.wait_for("kitchen", in_sync=True)
    for broker in fleet.brokers:
        say_schema(broker)
        retains_in_time(broker, topics("kitchen"))
    kept = second.directory / "mosquitto.db"
    eventually(
        lambda: (
            kept.exists()
            and all(topic.encode() in kept.read_bytes() for topic in topics("kitchen"))
        ),
        within=10,
        what="the second broker has both on its disk",
    )
    second.kill()
    kitchen.kill()
    fleet.wait_for("kitchen", gone=True)
    eventually(
        lambda: fleet.server.health()["broker"][second.url] == "disconnected",
        within=10,
        what="the server knows that it is away",
    )
    code, text = fleet.forget("kitchen", "--json")
    assert (code, json.loads(text)["away"]) == (0, [second.url]), text
    retains_in_time(first, set())

    fleet.server.kill()
    fleet.server.start()
    second.start()
    fleet.server.process.event("emptying", broker=second.url, instance="kitchen", within=20)
    retains_in_time(second, set())
    assert fleet.shown() == {}

    fleet.follow("kitchen")
    fleet.wait_for("kitchen", in_sync=True, gone=False)
    for broker in fleet.brokers:
        retains_in_time(broker, {wire.status_topic(SERVICE, "kitchen")})


def test_one_that_died_together_with_its_broker_is_refused_for_now_and_it_is_said_until_when(
    shop: tuple[Processes, Path],
) -> None:
    fleet = Fleet(shop, "broker")
    [broker] = fleet.brokers
    kitchen = fleet.follow("kitchen")
    fleet.wait_for("kitchen", in_sync=True)
    broker.kill()
    kitchen.kill()
    broker.start()
    fleet.server.wait_outbox_empty()
    code, text = fleet.forget("kitchen")
    assert code == 7, text
    assert "Did it die together with its broker?" in text
    assert not fleet.shown()["kitchen"]["gone"]
