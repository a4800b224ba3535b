"""Several ways to brokers: no place twice, and a client id for each.

A broker, or a cluster on all of its nodes together, lets a client id be connected once. With one id for
everything, two ways to one broker, or a forgotten copy of the data directory, push each other off.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from config_manager.actors.publishing.rivals import Echoes
from config_manager.config.brokers import Auto, BrokerAddress, Nothing, parse_mqtt_urls
from config_manager.config.errors import SettingsInvalid

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Ways:
    """What all ways have in common.

    instance_id: of the data directory, so that people see whose a connection is. process: random, so that no
    copy of the data directory has the same. echoes: what was sent on any of them.
    """

    instance_id: str
    process: str
    echoes: Echoes = field(default_factory=Echoes)

    def client_id(self, index: int) -> str:
        """The same for as long as we run, so that the broker knows us again. No dots: nats-server takes none."""
        return f"config-manager-{self.instance_id[:_SHOWN]}-{index + 1}-{self.process[:_SHOWN]}"


def ways_to_brokers(text: str) -> tuple[BrokerAddress | Auto | Nothing, ...]:
    """What `--mqtt-url` says. Raises SettingsInvalid, also if two lead to the same place, with whatever
    login."""
    targets = parse_mqtt_urls(text)
    seen: set[str] = set()
    for target in targets:
        if isinstance(target, Nothing):
            continue
        place = (
            "auto:"
            if isinstance(target, Auto)
            else f"{_host(target.host)}:{target.port}{target.path or ''}"
        )
        if place in seen:
            raise SettingsInvalid(
                f"CONFIG_MANAGER_MQTT_URL: {place} is named twice; name each broker once"
            )
        seen.add(place)
    return targets


def _host(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().removesuffix(".")
