"""What arrived on a connection and waits to be read, bounded: put there by aiomqtt, read under Trio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import trio

from config_manager.actors.mqtt.packet_limit import weight
from config_manager.actors.mqtt.port import Message

if TYPE_CHECKING:
    import aiomqtt

_UNREAD = 65_536
"""Messages that may wait to be read: the retained ones of that many services come in one burst."""
_UNREAD_BYTES = 64 * 1024 * 1024


class Unread(asyncio.Queue[Any]):
    """Keeps the first that come: the retained messages of all services, of which each counts. A message
    that does not fit is lost, as any message at QoS 0 may be; the reader asks again for what is missing."""

    def __init__(self) -> None:
        super().__init__(_UNREAD)
        self._waiting_bytes = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if self._waiting_bytes <= _UNREAD_BYTES and not self.full():
            super().put_nowait(item)
            self._waiting_bytes += weight(item)

    def get_nowait(self) -> aiomqtt.Message:
        item: aiomqtt.Message = super().get_nowait()
        self._waiting_bytes -= weight(item)
        return item


class Arrivals(asyncio.Queue[Any]):
    """Stands where aiomqtt wants its queue. Reading needs no asyncio task."""

    def __init__(self, unread: asyncio.Queue[Any]) -> None:
        super().__init__()
        self._unread = unread
        self._news = trio.Event()
        self._closed = False

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self._unread.put_nowait(item)
        self._news.set()

    async def read(self) -> AsyncGenerator[Message]:
        """Until it is closed and everything was read."""
        while True:
            await trio.lowlevel.checkpoint()
            if not self._unread.empty():
                item = self._unread.get_nowait()
                yield Message(str(item.topic), item.payload, retained=item.retain)
            elif self._closed:
                return
            else:
                self._news = trio.Event()
                await self._news.wait()

    @property
    def has_unread(self) -> bool:
        return not self._unread.empty()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._news.set()
