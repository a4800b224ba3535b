"""For programs without an event loop: a real server, a real Mosquitto, and plain threads."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from config_manager.client import Change, Config, NotNow
from config_manager.client.state.identity import trust_init
from config_manager.config.errors import (
    ConfigurationStale,
    InvalidName,
    NothingDelivered,
    SettingsInvalid,
)
from tests.kit import documents as m
from tests.kit.processes import MOSQUITTO, Broker, Server, eventually, workshop

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


class Robot(BaseModel):
    """A service that the catalogue does not know."""

    speed: float = 1.0
    name: str = "nobody"


class Fleet:
    def __init__(self, directory: Path, broker: Broker, server: Server) -> None:
        self.directory = directory
        self.broker = broker
        self.server = server

    def open(self, service: str, **options: Any) -> Config[Robot]:
        given: dict[str, Any] = {
            "service": service, "state_dir": self.directory / service, "env_file": None,
            "mqtt_url": self.broker.url, "root": self.server.data_dir / "trust" / "root.json",
            **options,
        }  # fmt: skip
        return Config(Robot, **given)

    def put(self, service: str, **values: Any) -> int:
        answer = self.server.put(service, values)
        assert answer.is_success, answer.text
        revision: int = answer.json()["revision"]
        return revision

    def instance(self, service: str) -> dict[str, Any]:
        found = [
            one
            for one in self.server.get("/api/v1/status").json()["instances"]
            if one["service"] == service
        ]
        return found[0] if found else {}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with workshop() as (processes, directory):
        broker = processes.broker(directory / "broker")
        server = processes.server(directory / "data", broker.url)
        yield Fleet(directory, broker, server)


def soon(probe: Any, what: str) -> None:
    eventually(probe, within=10, what=what)


@needs_mosquitto
def test_three_lines_and_a_change_arrives_is_called_back_and_is_seen_upstream(fleet: Fleet) -> None:
    first = fleet.put("one", speed=2.0)
    with fleet.open("one") as config:
        assert (config.current, config.source) == (Robot(speed=2.0), "broker")
        assert config.explain("speed").revision == first
        assert config.explain("name").origin == "default"
        changes: queue.Queue[Change[Robot]] = queue.Queue()
        config.on_change(changes.put)
        second = fleet.put("one", speed=3.0, name="r2")
        change = changes.get(timeout=10)
        assert (change.revision, change.keys) == (second, frozenset({"speed", "name"}))
        assert (change.old.speed, change.new, config.current) == (2.0, change.new, change.new)
        assert config.current == Robot(speed=3.0, name="r2")
        soon(lambda: config.freshness == "fresh", "it is fresh")
        soon(lambda: fleet.instance("one").get("in_sync"), "the server knows that it runs it")
        assert (config.service, config.instance) == ("one", fleet.instance("one")["instance"])
        with pytest.raises(KeyError):
            config.explain("nothing")
    soon(lambda: fleet.instance("one")["gone"], "it said that it leaves")


@needs_mosquitto
def test_apply_may_refuse_and_may_say_not_now(fleet: Fleet) -> None:
    asked = list[float]()

    def apply(change: Change[Robot]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        asked.append(change.new.speed)
        if change.new.speed > 100:
            raise ValueError("too fast")
        if len(asked) == 3:
            raise NotNow(0.1)

    fleet.put("two", speed=2.0)
    with fleet.open("two", apply=apply) as config:
        fleet.put("two", speed=101.0)
        soon(lambda: config.refusals["callback"] == 1, "it refused")
        assert config.current.speed == 2.0
        fleet.put("two", speed=4.0)
        soon(lambda: config.current.speed == 4.0, "it took the next")
        assert asked == [2.0, 101.0, 4.0, 4.0]


@needs_mosquitto
def test_nothing_changes_in_a_hold_whichever_thread_holds(fleet: Fleet) -> None:
    fleet.put("three", speed=2.0)
    held, let_go = threading.Event(), threading.Event()

    def stage_of(service: str) -> str | None:
        attempt: dict[str, str] | None = fleet.instance(service).get("last_attempt")
        return attempt["stage"] if attempt else None

    with fleet.open("three") as config:

        def speak() -> None:
            with config.hold(), config.hold():
                held.set()
                assert let_go.wait(20)

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert held.wait(10)
        fleet.put("three", speed=3.0)
        try:
            soon(lambda: stage_of("three") == "deferred", "it says that it is busy")
            assert config.current.speed == 2.0
        finally:
            let_go.set()
            speaker.join(10)
        soon(lambda: config.current.speed == 3.0, "it changed after the hold")


@needs_mosquitto
def test_a_broker_that_dies_costs_nothing_and_a_restart_needs_none(fleet: Fleet) -> None:
    fleet.put("four", speed=2.0)
    with fleet.open("four", bake_s=0.0) as config:
        fleet.broker.kill()
        try:
            time.sleep(0.2)
            assert config.current.speed == 2.0
            began = time.monotonic()
            with fleet.open("four", state_dir=fleet.directory / "four", require=True) as again:
                assert (again.current.speed, again.source) == (2.0, "last-known-good")
                assert time.monotonic() - began < 2
        finally:
            fleet.broker.start()
        fleet.put("four", speed=3.0)
        soon(lambda: config.current.speed == 3.0, "it caught up")


# ── without a network ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    trust_init(tmp_path / "state", tmp_path / "root.json")
    return {
        "service": "five", "state_dir": tmp_path / "state", "mqtt_url": "none:", "env_file": None,
        "first_wait_s": 0.01,
    }  # fmt: skip


def ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("config-manager")]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"service": "../etc"}, InvalidName),
        ({"mqtt_url": "http://x"}, SettingsInvalid),
        ({"state_dir": "/nowhere"}, SettingsInvalid),
        ({"require": True}, NothingDelivered),
        ({"colour": "red"}, TypeError),
    ],
)
def test_what_stops_the_start_is_raised_in_the_callers_thread_and_leaves_none_behind(
    options: dict[str, Any], wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error), Config(Robot, **{**options, **wrong}):
        pytest.fail("it must not open")
    soon(lambda: not ours(), "its thread has ended")


def test_leaving_ends_the_thread_and_what_was_current_can_still_be_read(
    options: dict[str, Any],
) -> None:
    with Config(Robot, **options) as config:
        assert {one.name for one in ours()} == {
            "config-manager Robot",
            "config-manager disk five",
        }
    assert ours() == []
    assert config.current == Robot()
    with config.hold():  # too late to matter, and no error
        pass


def test_what_the_body_raises_comes_out_as_it_is(options: dict[str, Any]) -> None:
    mine = LookupError("mine")
    with pytest.raises(LookupError) as caught, Config(Robot, **options):
        raise mine
    assert caught.value is mine
    assert ours() == []


def test_misuse_says_what_to_do_instead(options: dict[str, Any]) -> None:
    config = Config(Robot, **options)
    with pytest.raises(RuntimeError, match="with Config"):
        print(config.current)
    with config, pytest.raises(RuntimeError, match="opened once"):
        config.__enter__()

    async def apply(change: Change[Robot]) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        Config(Robot, apply=apply, **options)  # type: ignore[arg-type]


class Wire:
    """A broker that says what it is given, to the one who connects."""

    def __init__(self, *payloads: bytes, failure: Exception | None = None) -> None:
        self.payloads = payloads
        self.failure = failure
        self.go_on = threading.Event()

    @asynccontextmanager
    async def connect(self, *_: Any) -> AsyncIterator[Any]:
        yield self

    async def subscribe(self, *filters: str) -> None: ...

    async def publish(self, topic: str, payload: bytes) -> None: ...

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        snapshot = m.snapshot_bytes({m.SERVICE: m.entry(5)}, 1)
        yield "system/config-snapshot/config-manager", snapshot
        for payload in self.payloads:
            yield m.TOPIC, payload
            if not self.go_on.is_set():
                await asyncio.to_thread(self.go_on.wait, 10)
        if self.failure is not None:
            raise self.failure
        await asyncio.Event().wait()


def test_a_listener_that_raises_is_logged_and_the_others_still_hear(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire(m.update_bytes(5), m.update_bytes(6), m.update_bytes(7))
    heard: queue.Queue[int | None] = queue.Queue()

    def fail(change: Change[Any]) -> None:
        raise LookupError("a listener's bug")

    given = {**options, "service": m.SERVICE, "mqtt_url": "mqtt://x", "first_wait_s": 10.0}
    with Config(Robot, connect=wire.connect, **given) as config:
        config.on_change(fail)
        config.on_change(lambda change: heard.put(change.revision))
        wire.go_on.set()
        assert [heard.get(timeout=10), heard.get(timeout=10)] == [6, 7]
    assert caplog.text.count("LookupError: a listener's bug") == 2


def test_when_the_configuration_is_too_stale_reading_it_and_leaving_say_so(
    options: dict[str, Any],
) -> None:
    """As the driver raises it, which is tested with the driver."""
    wire = Wire(m.update_bytes(5), failure=ConfigurationStale("for too long"))
    given = {**options, "service": m.SERVICE, "mqtt_url": "mqtt://x", "first_wait_s": 10.0}
    seen = list[int]()
    with (
        pytest.raises(ConfigurationStale, match="for too long"),
        Config(Robot, connect=wire.connect, **given) as config,
    ):
        seen.append(len(ours()))
        wire.go_on.set()
        soon(lambda: not ours(), "the driver has stopped")
        with pytest.raises(ConfigurationStale):
            print(config.current)
    assert seen == [2]
