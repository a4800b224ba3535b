"""The brokers that a client is told of."""

from __future__ import annotations

from config_manager.config.brokers import Auto, BrokerAddress, parse_mqtt_urls
from config_manager.config.errors import SettingsInvalid


def parse_addresses(mqtt_url: str) -> list[BrokerAddress]:
    """None for `none:`; raises SettingsInvalid, also for `auto:`, which is the server's."""
    places = parse_mqtt_urls(mqtt_url)
    if any(isinstance(place, Auto) for place in places):
        raise SettingsInvalid(
            "auto: is for the server; give its mqtt_url, such as mqtt://localhost"
        )
    return [place for place in places if isinstance(place, BrokerAddress)]
