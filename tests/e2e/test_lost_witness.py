"""instance.json was lost: the starts are counted on all the same, so that services stay fresh."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from config_manager.config import wire
from tests.kit.earlier import SERVER, VERSIONS
from tests.kit.kept import Kept, ask, beacon_in, contents, edit, keep, next_beacon, says_beacon
from tests.kit.processes import MOSQUITTO, Processes, Server, listening

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

MISSING = "instance.json was missing"
FIRST = VERSIONS[0]


@pytest.fixture(scope="module")
def kept(module_shop: tuple[Processes, Path]) -> Kept:
    """Of a server that was started three times."""
    processes, directory = module_shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "first", broker.url)
    server.put("door", {"n": 1})
    for _ in range(2):
        server.stop()
        server.start()
    kept = keep(server, broker, directory / "kept")
    assert kept.beacon().boot_seq == 3
    return kept


@pytest.fixture
def lost(kept: Kept, shop: tuple[Processes, Path]) -> Path:
    """A copy without the witness."""
    data = kept.copy(shop[1] / "data")
    (data / "instance.json").unlink()
    return data


def witness(data: Path) -> Any:
    return json.loads((data / "instance.json").read_text())


def starts_in(data: Path) -> tuple[int, int]:
    """By instance.json, and by the database."""
    ((noted,),) = ask(data, "SELECT boot_seq FROM counters")
    return witness(data)["boot_seq"], noted


def says_it_was_lost(server: Server) -> bool:
    health = server.health()
    assert (health["ok"], health["mode"]) == (True, "normal")
    return any(MISSING in reason for reason in health["reasons"])


# ── who knows the number ───────────────────────────────────────────────────────────────────────


def test_the_database_knows_the_number_and_health_and_log_say_so_until_the_next_start(
    kept: Kept, lost: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    broker = kept.broker(processes, directory / "broker")
    server = processes.server(lost, broker.url, start=False)
    with listening(broker.port) as listener:
        server.start()
        beacon = next_beacon(listener, 4)
        assert (beacon.boot_seq, beacon.order > kept.beacon().order) == (4, True)
        assert says_it_was_lost(server)
        said = server.process.event(MISSING)
        assert (said["level"], said["starts"]) == ("warning", 3)
        assert server.put("door", {"n": 2}, params={"wait": "confirmed"}).status_code == 200
        assert server.stop() == 0
        assert starts_in(lost) == (4, 4)
        server.start()
        assert next_beacon(listener, 5).boot_seq == 5
        assert not says_it_was_lost(server)
        assert not any(line["event"] == MISSING for line in server.process.lines)


def test_a_service_that_runs_takes_the_next_beacon_for_a_newer_one(
    kept: Kept, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    data = kept.copy(directory / "data")
    broker = kept.broker(processes, directory / "broker")
    server = processes.server(data, broker.url)
    processes.pin(directory / "state", data / "trust" / "root.json")
    client = processes.follow(directory / "state", "door", broker.url)
    client.event("applied", revision=1)
    client.event("fresh", within=15)
    with listening(broker.port) as listener:
        before = next_beacon(listener)
        assert server.stop() == 0
        (data / "instance.json").unlink()
        server.start()
        assert next_beacon(listener, before.boot_seq + 1).order > before.order
    assert server.put("door", {"n": 2}).json()["revision"] == 2
    client.event("applied", revision=2)
    assert [line for line in client.lines if line["event"] in ("refused", "stale")] == []


def test_a_broker_that_retains_a_later_start_than_the_database_noted_is_believed(
    kept: Kept, lost: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    snapshot = kept.snapshot_of_start(50)
    broker = kept.broker(processes, directory / "broker", snapshot=snapshot)
    server = processes.server(lost, broker.url, start=False)
    with listening(broker.port) as listener:
        server.start()
        assert next_beacon(listener, 51).boot_seq == 51
        listener.message(wire.SNAPSHOT_TOPIC, lambda data: says_beacon(data, 51))
        assert says_it_was_lost(server)
    assert server.stop() == 0
    assert starts_in(lost) == (51, 51), "nothing was written since, and it is noted all the same"


def test_of_several_brokers_the_one_that_knows_the_latest_start_is_believed_on_all(
    kept: Kept, lost: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    brokers = [
        kept.broker(processes, directory / f"broker-{n}", snapshot=kept.snapshot_of_start(n))
        for n in (50, 90, 7)
    ]
    server = processes.server(lost, ",".join(broker.url for broker in brokers))
    for broker in brokers:
        with listening(broker.port) as listener:
            told = listener.message(wire.SNAPSHOT_TOPIC, lambda data: says_beacon(data, 91))
            assert beacon_in(told).boot_seq == 91
    assert server.stop() == 0
    assert starts_in(lost) == (91, 91)


def test_a_number_that_would_use_them_up_is_nobodys(
    kept: Kept, lost: Path, shop: tuple[Processes, Path]
) -> None:
    """Whoever has the database's key could end all freshness: the number is sealed with the audit's end."""
    processes, directory = shop
    edit(lost, "UPDATE counters SET boot_seq = 9007199254740991")
    broker = kept.broker(processes, directory / "broker")
    server = processes.server(lost, broker.url)
    assert server.get("/health").json()["reasons"][0].startswith("not-audited: audit ")
    assert server.stop() == 0


def test_twins_on_one_broker_do_not_outdo_each_other_for_ever(
    kept: Kept, lost: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    broker = kept.broker(processes, directory / "broker")
    twin = kept.copy(directory / "twin")
    first = processes.server(lost, broker.url)
    with listening(broker.port) as listener:
        listener.message(wire.SNAPSHOT_TOPIC, lambda data: says_beacon(data, 4))
    second = processes.server(twin, broker.url)
    for _ in range(2):  # each reads what the other left
        broker.kill()
        broker.start()
        for server in (first, second):
            server.wait_outbox_empty()
        with listening(broker.port) as listener:
            next_beacon(listener)
    for server in (first, second):
        server.stop()
    assert starts_in(lost)[0] <= 5
    assert starts_in(twin)[0] <= 6


# ── who does not ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def earlier(shop: tuple[Processes, Path]) -> Path:
    """Of 0.1.0, whose database knows no number; without the witness."""
    data = FIRST.copy(SERVER, shop[1] / "data")
    (data / "instance.json").unlink()
    return data


@pytest.mark.parametrize("mqtt_url", ["none:", "auto:", "auto:,none:"])
def test_where_nobody_can_tell_the_number_it_does_not_start_and_says_what_to_do(
    earlier: Path, shop: tuple[Processes, Path], mqtt_url: str
) -> None:
    processes, _ = shop
    rows = "SELECT seq, body, hash FROM audit ORDER BY seq"
    before = contents(earlier)
    then = FIRST.expected["audit"]["rows"]
    code, told = processes.run(
        *("serve", "--data-dir", str(earlier), "--bind", "127.0.0.1:0", "--mqtt-url", mqtt_url)
    )
    said = "\n".join(told.text)
    assert code == 3, said
    assert "instance.json is missing" in said
    for way_out in ("backup", "--mqtt-url", "config-manager restore --accept"):
        assert way_out in said
    assert len(ask(earlier, rows)) == then, "nothing was written"
    after = contents(earlier)
    database = {"config.db", "config.db-wal", "config.db-shm"}
    assert {n: d for n, d in after.items() if n not in database} == {
        n: d for n, d in before.items() if n not in database
    }
    shutil.copyfile(FIRST.folder / SERVER / "instance.json", earlier / "instance.json")
    server = processes.server(earlier, "none:")
    assert server.health()["mode"] == "normal"
    assert not says_it_was_lost(server)


def test_a_broker_that_retains_our_beacon_tells_what_the_database_of_010_does_not(
    earlier: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    FIRST.fill(broker.port)
    with listening(broker.port) as listener:
        then = beacon_in(listener.message(wire.SNAPSHOT_TOPIC))
        server = processes.server(earlier, broker.url)
        beacon = next_beacon(listener, then.boot_seq + 1)
        assert beacon.order > then.order
        assert says_it_was_lost(server)
    assert server.stop() == 0
    assert starts_in(earlier) == (beacon.boot_seq, beacon.boot_seq)
