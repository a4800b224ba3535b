"""How large a packet of a broker may be: a larger one ends the connection before it is read.

paho reads whatever length a broker announces, up to 256 MiB, and keeps it until the last byte has come;
a hostile broker that sends all but that byte costs us that much memory, a few times over. A broker
that speaks MQTT 5 is told of the limit when we connect (OASIS MQTT 5, 3.1.2.11.4).

Imports no event loop: the server's connections and the client's both use it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from paho.mqtt.properties import Properties

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""What anybody of ours sends at most is a snapshot of 40,000 services; more is not looked at."""

MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 128 * 1024
"""With its topic (64 KiB) and its properties."""


class PacketLimit:
    """On one paho client; `refused` says which packet ended the connection, where one did."""

    def __init__(self, paho: Any) -> None:
        self.refused: str | None = None
        self._paho = paho
        self._receive = paho._sock_recv  # noqa: SLF001  paho has no limit of its own
        paho._sock_recv = self._receive_within  # noqa: SLF001

    def _receive_within(self, size: int) -> bytes:
        announced: int = self._paho._in_packet["remaining_length"]  # noqa: SLF001
        if announced > MAX_PACKET_BYTES:
            self.refused = f"the broker announced a packet of {announced} bytes; the limit is {MAX_PACKET_BYTES}"
            raise OSError(errno.EMSGSIZE, self.refused)
        data: bytes = self._receive(size)
        return data


def connect_properties() -> Properties:
    """What a broker that speaks MQTT 5 is told."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return cast("Properties", properties)
