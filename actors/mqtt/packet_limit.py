"""What a peer may make a connection hold and compute: `packet_rules`, laid on an aiomqtt client.

paho reads a packet of any announced length, keeps unfinished packets, and answers even if the broker reads no
answers; aiomqtt reads on for as long as TLS has something decoded. A broker that speaks MQTT 5 is told of the
largest packet when we connect (OASIS MQTT 5, 3.1.2.11.4).

Imports no event loop: the server's connections and the client's both use it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast

from config_manager.actors.mqtt import packet_rules
from config_manager.actors.mqtt.packet_rules import (
    CONNACK,
    MAX_MESSAGE_BYTES,
    MAX_PACKET_BYTES,
    MAX_TOPIC_BYTES,
)
from config_manager.actors.mqtt.web_socket import BrokenWebSocket, ClosedWebSocket

if TYPE_CHECKING:
    from paho.mqtt.properties import Properties

_MOST_UNREAD_ANSWERS = 4096
"""PUBACKs that a broker may leave unread while it goes on sending: two MiB."""
_OVERHEAD_BYTES = 1024
"""Of a message in memory, at most: empty messages must count, too."""

_UNSUPPORTED_PROTOCOL = 132  # which paho makes of 3.1.1's 1, too
_SILENCE = ("Operation timed out", "TooSlowError")  # aiomqtt's, and Trio's
_UNSPECIFIED = 128  # which paho makes of a socket that closes


class PacketLimit:
    """On one aiomqtt client, before it connects. refused: why this ended the connection, if it did."""

    def __init__(self, client: Any) -> None:
        paho = client._client  # noqa: SLF001  aiomqtt and paho have no limits of their own
        self.refused: str | None = None
        self._client = client
        self._paho = paho
        self._is_greeted = False
        self._hung_up = False
        self._ended_unanswered = False
        self._lost: BaseException | None = None
        self._receive, self._handle = paho._sock_recv, paho._packet_handle  # noqa: SLF001
        paho._sock_recv, paho._packet_handle = self._receive_within, self._handle_within  # noqa: SLF001
        self._pass_on, self._say_lost = paho.on_message, paho.on_disconnect
        paho._handle_on_message, paho.on_disconnect = self._on_message, self._on_disconnect  # noqa: SLF001
        paho.on_socket_open = _ReadInTurns(client)

    def may_not_know_5(self, error: BaseException) -> bool:
        """Whether a broker that was spoken to in MQTT 5 may know 3.1.1 alone: it said so, hung up instead
        of answering, or says nothing (amqtt does). Ask before the socket is closed: without one, no connection
        was made, and a second try is useless."""
        is_silent = not self._is_greeted and self._paho.socket() is not None
        return is_silent or self._ended_unanswered or _code(error) == _UNSUPPORTED_PROTOCOL

    def check_connected(self) -> None:
        """Right after connecting: aiomqtt forgets a loss that comes together with the CONNACK."""
        if self._paho.socket() is None:
            raise ConnectionError from self._lost

    def why(self, error: BaseException) -> str:
        """Why a connection broke, or could not be made, in words."""
        cause = error.__cause__ or error
        said = plainly(cause)
        if said in _SILENCE:
            said = "no answer"
        if _code(cause) == _UNSPECIFIED:
            said = "the connection was lost"
        return self.refused or said

    def _receive_within(self, size: int) -> bytes:
        packet = self._paho._in_packet  # noqa: SLF001
        if packet["have_remaining"] and self._is_refused(packet):
            raise OSError(errno.EMSGSIZE, self.refused)
        try:
            data: bytes = self._receive(size)
        except BrokenWebSocket as error:
            self.refused, self._hung_up = str(error), isinstance(error, ClosedWebSocket)
            raise
        return data

    def _is_refused(self, packet: Any) -> bool:
        self.refused = self.refused or packet_rules.refuse(
            packet["command"], packet["remaining_length"], is_greeted=self._is_greeted
        )
        return self.refused is not None

    def _handle_within(self) -> Any:
        """All of a packet is there."""
        from paho.mqtt.client import MQTT_ERR_PROTOCOL, MQTTv5

        paho, packet = self._paho, self._paho._in_packet  # noqa: SLF001
        if self._is_refused(packet):  # a packet of two bytes was not checked before
            return MQTT_ERR_PROTOCOL
        if paho.protocol == MQTTv5:
            try:
                packet_rules.cut_properties(packet["command"], packet["packet"])
            except ValueError as error:
                self.refused = str(error)
                return MQTT_ERR_PROTOCOL
        if len(paho._out_packet) > _MOST_UNREAD_ANSWERS:  # noqa: SLF001
            self.refused = "the broker sends, and reads no answer"
            return MQTT_ERR_PROTOCOL
        if packet["command"] & 0xF0 == CONNACK:
            self._is_greeted = True
        return self._handle()

    def _on_message(self, message: Any) -> None:
        """Instead of paho's, which looks for callbacks by topic (there are none) and leaves a reference cycle
        that keeps the topic until the collector comes."""
        topic: bytes = message._topic  # noqa: SLF001
        if len(topic) > MAX_TOPIC_BYTES or len(message.payload) > MAX_MESSAGE_BYTES:
            return  # none of ours; any client that may write to the broker may have sent it
        message.properties = None  # an object of 6 kB, even if there are none
        self._pass_on(self._paho, None, message)

    def _on_disconnect(self, *given: Any) -> None:
        connected = self._client._connected  # noqa: SLF001
        if connected.done():
            self._say_lost(*given)
            lost = self._client._disconnected  # noqa: SLF001
            if lost.done() and not lost.cancelled():
                self._lost = lost.exception()  # asyncio warns about an exception that nobody takes
            return
        # aiomqtt would wait for its timeout
        from aiomqtt import MqttError

        self._ended_unanswered = self.refused is None or self._hung_up
        connected.set_exception(MqttError("the broker hung up instead of answering"))
        connected.exception()


class _ReadInTurns:
    """Instead of aiomqtt's reader: one packet at a time, and other tasks in between.

    Bytes that TLS has decoded show on no socket. aiomqtt reads on until none are left, which never happens
    while a broker sends faster than we read.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_due = False

    def __call__(self, paho: Any, userdata: object, sock: Any) -> None:  # noqa: ARG002
        """In the thread that connects."""
        self._call_soon = self._client._loop.call_soon_threadsafe  # noqa: SLF001
        self._call_soon(self._client._loop.add_reader, sock.fileno(), self._read)  # noqa: SLF001
        self._call_soon(self._watch_the_time)

    def _watch_the_time(self) -> None:
        client = self._client
        client._misc_task = client._loop.create_task(client._misc_loop())  # noqa: SLF001

    def _read(self) -> None:
        client, paho = self._client, self._client._client  # noqa: SLF001
        try:
            paho.loop_read()
            pending = getattr(paho.socket(), "pending", None)
            is_more = pending is not None and pending() > 0
        except Exception as error:  # noqa: BLE001  whatever it is, the broker caused it
            if not client._disconnected.done():  # noqa: SLF001
                client._disconnected.set_exception(error)  # noqa: SLF001
            paho._sock_close()  # noqa: SLF001  else it goes on
            return
        if is_more and not self._is_due:
            self._is_due = True
            client._loop.call_soon(self._read_on)  # noqa: SLF001

    def _read_on(self) -> None:
        self._is_due = False
        self._read()


def _code(error: BaseException) -> object:
    code = getattr(error, "rc", None)
    return getattr(code, "value", code)


def plainly(error: BaseException) -> str:
    """In its own words; of a group, those of the first in it."""
    while inside := getattr(error, "exceptions", None):
        error = inside[0]
    return str(error) or type(error).__name__


def weight(message: Any) -> int:
    """What aiomqtt's message costs while it waits to be read."""
    payload = message.payload
    size = len(payload) if isinstance(payload, bytes) else 0
    return size + len(message.topic.value) + _OVERHEAD_BYTES


def connect_properties() -> Properties:
    """Properties of our CONNECT, in MQTT 5."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return cast("Properties", properties)
