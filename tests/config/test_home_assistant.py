"""The message that makes us a device in Home Assistant, against the one that a real Home Assistant 2026.2 took."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest

from config_manager.config.errors import SettingsInvalid
from config_manager.config.home_assistant import EVENT_TYPES, discovery, discovery_topic
from config_manager.config.settings import load_settings
from config_manager.storage.drifts import State

HEALTH, SUMMARY = "system/health/config-manager", "system/config-summary/config-manager"
INSTANCE = "4f0c2d1e-0000-4000-8000-000000000000"

TOOK: dict[str, dict[str, Any]] = {
    "problem": {
        "platform": "binary_sensor",
        "name": "Problem",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "state_topic": HEALTH,
        "value_template": "{{ 'OFF' if value_json.data.ok else 'ON' }}",
        "json_attributes_topic": HEALTH,
        "json_attributes_template": "{{ {'reasons': value_json.data.reasons, 'event': value_json.data.event} | tojson }}",
    },
    "read_only": {
        "platform": "binary_sensor",
        "name": "Read-only",
        "entity_category": "diagnostic",
        "state_topic": SUMMARY,
        "value_template": "{{ 'ON' if value_json.read_only else 'OFF' }}",
    },
    "revision": {
        "platform": "sensor",
        "name": "Revision",
        "icon": "mdi:source-commit",
        "state_topic": SUMMARY,
        "value_template": "{{ value_json.revision }}",
    },
    "drift": {
        "platform": "sensor",
        "name": "Drifting services",
        "icon": "mdi:compare-horizontal",
        "state_class": "measurement",
        "unit_of_measurement": "services",
        "state_topic": SUMMARY,
        "value_template": "{{ value_json.drift.services | count }}",
        "json_attributes_topic": SUMMARY,
        "json_attributes_template": "{{ value_json.drift | tojson }}",
    },
    "in_line": {
        "platform": "sensor",
        "name": "Instances in line",
        "state_class": "measurement",
        "unit_of_measurement": "instances",
        "state_topic": SUMMARY,
        "value_template": "{{ value_json.instances['in-line'] + value_json.instances['overridden'] }}",
    },
    "last_change": {
        "platform": "sensor",
        "name": "Last change",
        "device_class": "timestamp",
        "state_topic": SUMMARY,
        "value_template": "{{ value_json.last_change.at }}",
        "json_attributes_topic": SUMMARY,
        "json_attributes_template": "{{ value_json.last_change | tojson }}",
    },
    "event": {
        "platform": "event",
        "name": "What happened",
        "event_types": ["changed", "rolled_back", "drift_began", "drift_ended", "refused"],
        "state_topic": "system/config-events/config-manager",
    },
}
"""The components that only show something, without what follows from their keys."""

AVAILABLE = [
    {
        "topic": HEALTH,
        "value_template": "{{ 'offline' if value_json.data.event in ('offline', 'shutdown') else 'online' }}",
    }
]


def test_the_message_is_the_one_that_home_assistant_took() -> None:
    assert discovery_topic(INSTANCE) == "homeassistant/device/config_manager_4f0c2d1e/config"
    said = json.loads(discovery(INSTANCE, "0.1.0", "https://config.example:8081/ui/"))
    assert said["device"] == {
        "identifiers": ["config_manager_4f0c2d1e"],
        "name": "config-manager",
        "manufacturer": "config-manager",
        "model": "configuration service",
        "sw_version": "0.1.0",
        "serial_number": "4f0c2d1e",
        "configuration_url": "https://config.example:8081/ui/",
    }
    assert said["origin"] == {"name": "config-manager", "sw_version": "0.1.0"}
    assert said["qos"] == 1
    assert said["components"] == {
        key: {
            **one,
            "unique_id": f"config_manager_4f0c2d1e_{key}",
            "default_entity_id": f"{one['platform']}.config_manager_{key}",
            **({} if key == "problem" else {"availability": AVAILABLE}),
        }
        for key, one in TOOK.items()
    }
    assert tuple(TOOK["event"]["event_types"]) == EVENT_TYPES


def test_where_a_person_finds_us_is_left_out_if_it_is_not_known() -> None:
    assert "configuration_url" not in json.loads(discovery(INSTANCE, "0.1.0", None))["device"]


def test_nothing_is_switched_from_there_and_each_state_that_is_shown_is_one() -> None:
    said = discovery(INSTANCE, "0.1.0", None).decode()
    assert "command" not in said
    shown = re.findall(r"instances\['([a-z-]+)'\]", said)
    assert set(shown) < set(get_args(State))


def test_control_is_refused_in_words_until_it_is_there() -> None:
    assert load_settings().home_assistant == "off"
    assert load_settings(home_assistant="read").home_assistant == "read"
    with pytest.raises(SettingsInvalid, match=r"--home-assistant: control is not there yet.*read"):
        load_settings(home_assistant="control")
    with pytest.raises(SettingsInvalid, match="--home-assistant"):
        load_settings(home_assistant="on")
