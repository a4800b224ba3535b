"""Home Assistant's side of it, on a real Mosquitto: what is retained, what passes, and what is gone afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from config_manager.actors.actor import Context
from config_manager.actors.drift_board import DriftBoard
from config_manager.actors.home_assistant import HomeAssistant
from config_manager.actors.messages import Write
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.notices import kept_refusal
from config_manager.actors.publishing.outlet import Outlet
from config_manager.actors.statuses import StatusBoard
from config_manager.actors.system import System, running_system
from config_manager.actors.views import CommittedView, Confirmations
from config_manager.config.home_assistant import discovery_topic
from config_manager.config.names import ServiceName
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World, parse_rfc3339
from config_manager.storage.decisions.intents import Put
from config_manager.storage.decisions.notifications import NOTICE
from config_manager.storage.decisions.terms import Terms
from tests.kit.processes import MOSQUITTO, Broker, Listener, listening, of_revision
from tests.kit.stores import empty

SUMMARY, EVENTS = "system/config-summary/config-manager", "system/config-events/config-manager"
STATES = {
    *("in-line", "pending", "waiting", "late", "refused", "overridden", "stale", "silent"),
    *("claimed", "foreign"),
}

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@asynccontextmanager
async def serving(directory: Path, broker: Broker, home_assistant: Any) -> AsyncIterator[System]:
    settings = Settings(
        data_dir=directory, mqtt_url=broker.url, home_assistant=home_assistant, bind="127.0.0.1:0"
    )
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
    ) as system:
        yield system


async def put(system: System, n: int) -> None:
    what = Put(service=ServiceName("lamp"), values={"n": n})
    context = Context(f"change-{n}", trio.current_time() + 10)
    await system.storing.ask(Write(what, Terms("ada", "brighter")), context)


async def message(
    listener: Listener, topic: str, fits: Callable[[bytes], bool] = bool
) -> dict[str, Any]:
    found = await trio.to_thread.run_sync(listener.message, topic, fits)
    told: dict[str, Any] = json.loads(found) if found else {}
    return told


def says(**members: object) -> Callable[[bytes], bool]:
    return lambda payload: bool(payload) and members.items() <= json.loads(payload).items()


async def test_a_device_with_its_summary_and_events_as_long_as_it_is_wanted(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", persistent=False)
    broker.start()
    try:
        with trio.fail_after(60):
            await whole_story(tmp_path / "data", broker)
    finally:
        broker.kill()


async def whole_story(data: Path, broker: Broker) -> None:
    filters = ("homeassistant/#", "system/config-summary/#", "system/config-events/#")
    async with serving(data, broker, "read") as system:
        with listening(broker.port, *filters) as hub:
            summary = await message(hub, SUMMARY)
            assert summary["instances"].keys() == STATES
            assert (summary["revision"], summary["services"], summary["scenarios"]) == (0, 0, [])
            assert summary["drift"] == {"services": [], "since": None}
            topic = next(name for name in hub.newest() if name.endswith("/config"))
            device = json.loads(hub.newest()[topic])
            assert topic == discovery_topic(device["device"]["serial_number"] + "-0000")

            await put(system, 1)
            happened = await message(hub, EVENTS)
            assert (happened["event_type"], happened["services"], happened["by"]) == (
                *("changed", ["lamp"]),
                "ada",
            )
            summary = await message(hub, SUMMARY, says(revision=1))
            assert summary["services"] == 1
            assert parse_rfc3339(summary["last_change"].pop("at")) > 0
            assert summary["last_change"] == {
                "service": "lamp",
                "by": "ada",
                "reason": "brighter",
                "correlation_id": "change-1",
            }
            # Home Assistant has started again, and wants to be told anew
            hub.messages.clear()
            hub.publish("homeassistant/status", b"online")
            assert await message(hub, topic) == device
            assert EVENTS not in {name for name, _, is_kept in hub.messages if is_kept}
        broker.kill()
        broker.start()  # and has forgotten everything
        with listening(broker.port, *filters) as hub:
            assert await message(hub, topic) == device
            assert (await message(hub, SUMMARY))["revision"] == 1
        assert system.health().reasons == ()
    async with serving(data, broker, "off") as system:
        while system.view.committed.registered("discovery"):
            await system.view.changed()
        # what is retained comes before what is published later
        with listening(broker.port, *filters, "system/config/lamp") as hub:
            await put(system, 2)
            await message(hub, "system/config/lamp", of_revision(2))
            assert hub.newest().keys() == {"system/config/lamp"}
    async with serving(data, broker, "off") as system:
        assert "home-assistant" not in system.states.report()


async def test_a_refusal_that_waits_for_a_webhook_since_before_the_start_is_no_news() -> None:
    told: JsonObject = {"service": "lamp", "instance": "hall", "revision": 1}
    told |= {"at": "2027-01-15T08:00:00Z", "stage": "refused", "why": None}
    committed = replace(empty(), registry={NOTICE: {"3": told}})
    view, statuses = CommittedView(committed), StatusBoard()
    board = DriftBoard(view, statuses, Confirmations([]), World().clock)
    outlet = Outlet(view)
    outlet.connected = True

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    one = HomeAssistant(view, board, [outlet], nothing, nothing, "topic", b"{}")
    one.tell(kept_refusal(3, told))
    one.tell(kept_refusal(4, {**told, "revision": 2}))
    _, payload, _ = await outlet.take(lambda: False)
    assert json.loads(payload)["revision"] == 2
