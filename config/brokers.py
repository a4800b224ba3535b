"""Where brokers are: the `--mqtt-url` of the server and the client alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from config_manager.config.errors import SettingsInvalid

_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to log in; `str()` never shows userinfo."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Auto:
    """A broker of our own on loopback; port None takes 1883 where it is free."""

    port: int | None


@dataclass(frozen=True, slots=True)
class Nothing:
    """Publish nowhere."""


def parse_mqtt_urls(text: str) -> tuple[BrokerAddress | Auto | Nothing, ...]:
    """`mqtt://[user[:password]@]host:port`, `mqtts://…`, `auto:[PORT]`, `none:`, comma-separated.

    Raises SettingsInvalid, whose message never holds userinfo.
    """
    return tuple(_parse_mqtt_url(part.strip()) for part in text.split(","))


def _parse_mqtt_url(text: str) -> BrokerAddress | Auto | Nothing:
    problem = SettingsInvalid(
        "CONFIG_MANAGER_MQTT_URL: expected mqtt://[user[:password]@]host:port, mqtts://…, "
        "auto:[PORT] or none:, comma-separated"
    )
    scheme, separator, rest = text.partition(":")
    if not separator:
        raise problem
    if scheme == "none" and not rest:
        return Nothing()
    if scheme == "auto":
        if rest and not re.fullmatch(r"[0-9]{1,5}", rest):
            raise problem
        if rest and not 0 < int(rest) <= _MAX_PORT:
            raise problem
        return Auto(int(rest) if rest else None)
    if scheme not in ("mqtt", "mqtts"):
        raise problem
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise problem from None
    if not url.hostname or port == 0 or any(c.isspace() for c in text):
        raise problem
    if url.path not in ("", "/") or url.query or url.fragment:
        raise problem
    tls = scheme == "mqtts"
    return BrokerAddress(
        url.hostname,
        port or (8883 if tls else 1883),
        tls,
        unquote(url.username) if url.username else None,
        unquote(url.password) if url.password else None,
    )
