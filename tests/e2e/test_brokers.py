"""Brokers that are absent, die, come back empty: REST never notices, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.processes import (
    MOSQUITTO,
    Processes,
    Server,
    arrived,
    listening,
    revision_in,
)

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def write(server: Server, names: list[str], number: int) -> dict[str, int]:
    revisions = {}
    for name in names:
        answer = server.put(name, {"number": number})
        assert answer.status_code in (200, 201), answer.text
        revisions[name] = answer.json()["revision"]
    return revisions


def test_a_broker_absent_at_start_and_killed_in_the_middle_loses_nothing(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker", start=False)
    server = processes.server(directory / "data", broker.url)
    wanted = write(server, ["one", "two"], 1)
    broker.start()
    arrived(broker.port, server, wanted, within=10)
    server.wait_outbox_empty()

    broker.kill()
    wanted |= write(server, ["two", "three"], 2)
    assert server.health()["outbox_depth"] >= 2
    assert server.health()["ok"], "a broker away for a moment is no reason to be ill"
    broker.start()
    arrived(broker.port, server, wanted, within=10)
    server.wait_outbox_empty()


def test_of_two_brokers_the_one_that_comes_back_empty_is_refilled(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    first = processes.broker(directory / "first")
    second = processes.broker(directory / "second", persistent=False)
    server = processes.server(directory / "data", f"{first.url},{second.url}")
    wanted = write(server, ["a", "b", "c"], 1)
    for broker in (first, second):
        arrived(broker.port, server, wanted, within=10)
    second.kill()
    wanted |= write(server, ["c"], 2)
    second.start()
    for broker in (first, second):
        arrived(broker.port, server, wanted, within=10)
        with listening(broker.port, "system/#") as listener:
            listener.message("system/trust/roots/1")
            listener.message("system/health/config-manager", lambda m: b'"ok":true' in m)
            snapshot, _ = server.verified_snapshot(
                listener.message(
                    "system/config-snapshot/config-manager",
                    lambda m: server.verified_snapshot(m)[0].revision >= max(wanted.values()),
                )
            )
            held = {name: snapshot.services[name][0] for name in wanted}
            assert held == wanted


def test_with_no_broker_at_all_rest_works_and_is_healthy(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    assert server.ready["mqtt_url"] in ("none:", "")
    write(server, ["one"], 1)
    health = server.get("/health")
    assert health.status_code == 200, health.text
    assert health.json()["broker"] == {}


def test_a_garbled_retained_message_is_repaired(shop: tuple[Processes, Path]) -> None:
    from paho.mqtt import publish

    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    wanted = write(server, ["one"], 1)
    server.wait_outbox_empty()
    for payload in ("nonsense", None):
        publish.single("system/config/one", payload, qos=1, retain=True, port=broker.port)
        with listening(broker.port, "system/config/one") as listener:
            listener.message(
                "system/config/one",
                lambda m: m.startswith(b"{") and revision_in(m) == wanted["one"],
                within=10,
            )
