"""What Home Assistant is told: one message that makes this server a device there, and what its entities show. Pure.

MQTT discovery of devices (home-assistant.io/integrations/mqtt, "Device discovery payload"). Nothing is switched from
there: no component has a command topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config_manager.config import strict_json, wire
from config_manager.config.names import OUR_ID

HOME_ASSISTANT_STATUS = "homeassistant/status"
"""It says `online` there once it listens."""
EVENT_TYPES = ("changed", "rolled_back", "drift_began", "drift_ended", "refused")

_SUMMARY = {"state_topic": wire.SUMMARY_TOPIC}
_WHILE_WE_LIVE = [
    {
        "topic": wire.HEALTH_TOPIC,
        "value_template": "{{ 'offline' if value_json.data.event in ('offline', 'shutdown') else 'online' }}",
    }
]


def device_id(instance_id: str) -> str:
    return f"config_manager_{instance_id[:8]}"


def discovery_topic(instance_id: str) -> str:
    return f"homeassistant/device/{device_id(instance_id)}/config"


def discovery(instance_id: str, version: str, configuration_url: str | None) -> bytes:
    """The message that is retained under `discovery_topic`. configuration_url: where a person finds this server; None if
    that is not known."""
    device: dict[str, Any] = {
        "identifiers": [device_id(instance_id)],
        "name": OUR_ID,
        "manufacturer": OUR_ID,
        "model": "configuration service",
        "sw_version": version,
        "serial_number": instance_id[:8],
    }
    if configuration_url is not None:
        device["configuration_url"] = configuration_url
    return strict_json.dumps(
        {
            "device": device,
            "origin": {"name": OUR_ID, "sw_version": version},
            "components": {
                key: _component(instance_id, key, **one) for key, one in _COMPONENTS.items()
            },
            "qos": 1,
        }
    )


def _component(instance_id: str, key: str, *, platform: str, **more: Any) -> dict[str, Any]:
    # `problem` has to say ON when we are gone, so it is always available
    available = {} if key == "problem" else {"availability": _WHILE_WE_LIVE}
    return {
        "platform": platform,
        "unique_id": f"{device_id(instance_id)}_{key}",
        "default_entity_id": f"{platform}.config_manager_{key}",
        **more,
        **available,
    }


_COMPONENTS: Mapping[str, dict[str, Any]] = {
    "problem": {
        "platform": "binary_sensor",
        "name": "Problem",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "state_topic": wire.HEALTH_TOPIC,
        "value_template": "{{ 'OFF' if value_json.data.ok else 'ON' }}",
        "json_attributes_topic": wire.HEALTH_TOPIC,
        "json_attributes_template": "{{ {'reasons': value_json.data.reasons, 'event': value_json.data.event} | tojson }}",
    },
    "read_only": {
        "platform": "binary_sensor",
        "name": "Read-only",
        "entity_category": "diagnostic",
        **_SUMMARY,
        "value_template": "{{ 'ON' if value_json.read_only else 'OFF' }}",
    },
    "revision": {
        "platform": "sensor",
        "name": "Revision",
        "icon": "mdi:source-commit",
        **_SUMMARY,
        "value_template": "{{ value_json.revision }}",
    },
    "drift": {
        "platform": "sensor",
        "name": "Drifting services",
        "icon": "mdi:compare-horizontal",
        "state_class": "measurement",
        "unit_of_measurement": "services",
        **_SUMMARY,
        "value_template": "{{ value_json.drift.services | count }}",
        "json_attributes_topic": wire.SUMMARY_TOPIC,
        "json_attributes_template": "{{ value_json.drift | tojson }}",
    },
    "in_line": {
        "platform": "sensor",
        "name": "Instances in line",
        "state_class": "measurement",
        "unit_of_measurement": "instances",
        **_SUMMARY,
        "value_template": "{{ value_json.instances['in-line'] + value_json.instances['overridden'] }}",
    },
    "last_change": {
        "platform": "sensor",
        "name": "Last change",
        "device_class": "timestamp",
        **_SUMMARY,
        "value_template": "{{ value_json.last_change.at }}",
        "json_attributes_topic": wire.SUMMARY_TOPIC,
        "json_attributes_template": "{{ value_json.last_change | tojson }}",
    },
    "event": {
        "platform": "event",
        "name": "What happened",
        "event_types": list(EVENT_TYPES),
        "state_topic": wire.EVENTS_TOPIC,
    },
}
