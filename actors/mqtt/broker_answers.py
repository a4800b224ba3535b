"""What a broker announces when we connect, and the reason codes of its answers and of its DISCONNECT.

aiomqtt passes none of that on. paho raises for a PUBACK's code that it does not know (Mosquitto's 149, packet too
large), which would end the connection on our side.
"""

from __future__ import annotations

from typing import Any

from config_manager.actors.mqtt.port import Announced

_UNSPECIFIED = 128
_UNLIMITED = 65_535


class BrokerAnswers:
    """On one paho client, before it connects.

    maximum_packet_bytes: the largest packet that the broker takes, if it said so. receive_maximum: how
    many publishes it takes at once. announced: the rest. disconnected: the code of its DISCONNECT, and `words` for it.
    puback: the code of the PUBACK that is being handled.
    """

    def __init__(self, paho: Any) -> None:
        self.maximum_packet_bytes: int | None = None
        self.receive_maximum = _UNLIMITED
        self.announced = Announced("3.1.1")
        self.disconnected: int | None = None
        self.words = ""
        self.puback = 0
        self._paho = paho
        self._on_connect = paho.on_connect
        self._on_disconnect = paho.on_disconnect
        self._on_puback = paho._handle_pubackcomp  # noqa: SLF001  paho has no hook before it parses
        paho.on_connect = self._connected
        paho.on_disconnect = self._gone
        paho._handle_pubackcomp = self._answered  # noqa: SLF001

    def _connected(self, *given: Any) -> None:
        from paho.mqtt.client import MQTTv5

        *_, properties = given
        self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _UNLIMITED)
        if self._paho.protocol == MQTTv5:
            self.announced = Announced(
                "5",
                getattr(properties, "MaximumQoS", 2),
                bool(getattr(properties, "RetainAvailable", 1)),
                bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
            )
        # paho's setter refuses once it is connected, although nothing is on its way yet
        most = min(self.receive_maximum, self._paho.max_inflight_messages)
        self._paho._max_inflight_messages = most  # noqa: SLF001
        self._on_connect(*given)

    def _gone(self, *given: Any) -> None:
        _client, _userdata, flags, reason, _properties = given
        if flags.is_disconnect_packet_from_server:
            self.disconnected = reason.value
            self.words = f"{reason} ({reason.value})"
        self._on_disconnect(*given)

    def _answered(self, command: Any) -> Any:
        packet = self._paho._in_packet["packet"]  # noqa: SLF001
        self.puback = packet[2] if len(packet) > 2 else 0  # noqa: PLR2004  two bytes of packet id
        if self.puback >= _UNSPECIFIED:
            packet[2] = _UNSPECIFIED  # the one that paho knows for every packet
        return self._on_puback(command)
