"""What any transport to a broker is. Imports no MQTT library and no event loop: every side may import it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import the_reason

_LONGEST_WHY = 500


class BrokerUnavailable(Exception):
    """The broker can't be reached, refused us, or the connection broke; the message says which.

    It is printable and short, because it may hold words of the broker's: those of a WebSocket's handshake or close. It
    comes into `/health`, messages, logs of services, and terminals.
    """

    def __init__(self, why: str = "", code: int | None = None) -> None:
        """code: of the broker's DISCONNECT, if it sent one; 0 if our side hung up."""
        shown = (c if c.isprintable() else ascii(c)[1:-1] for c in why[:_LONGEST_WHY])
        super().__init__("".join(shown))
        self.code = code


@dataclass(frozen=True, slots=True)
class Announced:
    """What a broker said of itself as it took the connection. In MQTT 3.1.1 it says nothing.

    maximum_qos: of what it takes. keeps_retained, takes_wildcards: retained messages, and filters with a `+`.
    """

    protocol: Literal["5", "3.1.1"]
    maximum_qos: int = 2
    keeps_retained: bool = True
    takes_wildcards: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    retained: bool = False


class Connection(Protocol):
    """One live connection, under Trio. Every method raises BrokerUnavailable once it broke."""

    @property
    def announced(self) -> Announced: ...

    @property
    def maximum_packet_bytes(self) -> int | None:
        """The largest packet that the broker takes; None if it announced no limit."""
        ...

    @property
    def receive_maximum(self) -> int:
        """How many publishes the broker takes before it has acknowledged one."""
        ...

    @property
    def has_unread(self) -> bool:
        """Whether something arrived that `messages` has not given yet."""
        ...

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Returns after the broker acknowledged (QoS 1) or the bytes were handed over (QoS 0)."""
        ...

    def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        """Publish retained at QoS 1 and go on. `answered` is called with the reason code of the PUBACK,
        if it comes: below 128 the broker took the message."""
        ...

    async def subscribe(self, *filters: str, qos: int = 1) -> Sequence[int]:
        """Retained messages follow as ordinary ones. Returns for each filter the QoS that the broker grants, or
        from 128 on the code of its refusal."""
        ...

    def messages(self) -> AsyncGenerator[Message]:
        """What arrives, until the connection breaks (BrokerUnavailable). Must be read always."""
        ...


class Transport(Protocol):
    def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """Protocol 5, else 3.1.1. Leaving disconnects cleanly: the will is not sent."""
        ...


@contextmanager
def broken_as_itself() -> Generator[None]:
    """Take BrokerUnavailable out of the groups that nurseries put around it. If the task was cancelled
    meanwhile, only the cancellation passes."""
    import trio  # not for those who import this module for its types, under asyncio

    try:
        yield
    except BaseExceptionGroup as group:
        _, other = group.split(BrokerUnavailable)
        if other is None:
            raise the_reason(group, BrokerUnavailable) from None
        if other.split(trio.Cancelled)[1] is None:
            raise other from None
        raise
