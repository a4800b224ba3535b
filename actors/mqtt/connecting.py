"""Making an aiomqtt client's connection: for both sides.

A name's look-up, TCP and TLS block for as long as a resolver likes. So a thread does that. If the caller is
cancelled, it leaves the thread alone, and the thread cleans up after itself.

Imports no event loop: the server's connections and the client's both use it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from config_manager.actors.mqtt.packet_limit import connect_properties
from config_manager.actors.mqtt.web_socket import speak_through_web_socket
from config_manager.config.brokers import BrokerAddress

if TYPE_CHECKING:
    import asyncio

_KEEPALIVE_S = 10
_SILENT = logging.getLogger("config_manager.mqtt")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL + 1)


def client_options(address: BrokerAddress, client_id: str, *, is_5: bool) -> dict[str, Any]:
    """Arguments of `aiomqtt.Client` on both sides."""
    return {
        "hostname": address.host,
        "port": address.port,
        "username": address.username,
        "password": address.password,
        "identifier": client_id,
        "clean_session": None if is_5 else True,
        "clean_start": True if is_5 else 3,
        "keepalive": _KEEPALIVE_S,
        "properties": connect_properties() if is_5 else None,
        "logger": _SILENT,
    }


class Connecting:
    """In this order: `block` in a thread, `take_over` in the loop, `until_answered` under asyncio. If anything
    fails, `give_up` in the loop.

    aiomqtt's own `__aenter__` blocks in the loop's default executor. A service under asyncio may keep that
    full, and its process waits for it at the end; under trio-asyncio closing the loop waits for it.
    """

    def __init__(
        self, client: Any, loop: asyncio.AbstractEventLoop, address: BrokerAddress
    ) -> None:
        """client: has not connected yet."""
        self._client, self._loop = client, loop
        if address.path is not None:
            speak_through_web_socket(client, address)
        self._gate = client._loop = _Gate(loop)  # noqa: SLF001
        self._is_given_up = False

    def block(self) -> None:
        """Until the broker is reached. Raises whatever a resolver, a socket or TLS does."""
        try:
            self._client._client_connect()  # noqa: SLF001
            sock = self._client._client.socket()  # noqa: SLF001
            if sock is not None:
                # small packets wait 40 ms for each other's acknowledgement otherwise (Nagle)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        finally:
            if self._is_given_up:
                self._close()

    def take_over(self) -> None:
        """Do what the thread asked of the loop."""
        self._client._loop = self._loop  # noqa: SLF001
        self._gate.open()

    async def until_answered(self) -> None:
        """Until the CONNACK. Raises MqttError if that refuses us, or does not come in aiomqtt's time."""
        await self._client._wait_for(self._client._connected, None)  # noqa: SLF001

    def give_up(self) -> None:
        self._client._misc_loop = _end_at_once  # noqa: SLF001
        self._is_given_up = True
        if self._gate.is_open:
            self._loop.call_soon(self._close)  # after what connecting made the loop do
        else:
            self._close()

    def _close(self) -> None:
        with suppress(Exception):  # the thread may be about to do the same
            self._client._client._sock_close()  # noqa: SLF001  which ends its watchers and its task


async def _end_at_once() -> None:
    pass


class _Gate:
    """Stands for the loop while a thread connects: what the thread wants of the loop waits for `open`.

    The loop may end before the thread does; else watchers of a socket and a task would be left behind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Callable[[], object]] = []
        self.is_open = False
        self.add_reader, self.add_writer = loop.add_reader, loop.add_writer

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self._waiting.append(partial(callback, *args))

    def remove_reader(self, _: int) -> bool:
        return False  # no reader was added

    remove_writer = remove_reader

    def open(self) -> None:
        self.is_open = True
        for call in self._waiting:
            self._loop.call_soon(call)
