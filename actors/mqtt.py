"""The broker port, and its aiomqtt implementation (the only module that imports trio_asyncio)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


class BrokerUnavailable(Exception):  # noqa: N818
    """The broker can't be reached, refused us, or the connection broke; the message says which."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to log in; `str()` never shows userinfo."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    retained: bool = False


class Connection(Protocol):
    """One live connection. Every method raises BrokerUnavailable once it broke."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Returns after the broker acknowledged (QoS 1) or the bytes were handed over (QoS 0)."""
        ...

    async def subscribe(self, *filters: str) -> None:
        """QoS 1; retained messages follow as ordinary ones."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """What arrives, until the connection breaks (then BrokerUnavailable). Must be read always."""
        ...


class Transport(Protocol):
    def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """Protocol 5, else 3.1.1. Leaving disconnects cleanly: the will is not sent."""
        ...
