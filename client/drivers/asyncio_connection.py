"""One broker under asyncio: what a driver needs of it, and aiomqtt, which gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from config_manager.actors.mqtt.connecting import Connecting, client_options
from config_manager.actors.mqtt.packet_limit import PacketLimit, plainly
from config_manager.actors.mqtt.port import BrokerUnavailable
from config_manager.client.drivers.background import run_in_own_thread
from config_manager.client.drivers.inbox import Inbox
from config_manager.config.brokers import BrokerAddress

if TYPE_CHECKING:
    import aiomqtt

_CONNECT_S = 5.0
_GOODBYE_S = 1.0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us, retained, when we are gone without a word."""

    topic: str
    payload: bytes


class AsyncioConnection(Protocol):
    """One live connection; everything raises BrokerUnavailable once it broke."""

    async def subscribe(self, *filters: str) -> None: ...

    async def publish(self, topic: str, payload: bytes) -> None:
        """Retained, QoS 1; returns after the PUBACK."""
        ...

    def messages(self) -> AsyncIterator[tuple[str, bytes]]: ...


Connect = Callable[[BrokerAddress, str, Will], AbstractAsyncContextManager[AsyncioConnection]]
"""(address, client id, will) → a connection: the seam for tests and simulations."""


@asynccontextmanager
async def connect_with_aiomqtt(
    address: BrokerAddress, client_id: str, will: Will
) -> AsyncGenerator[AsyncioConnection]:
    """Protocol 5, else 3.1.1. Raises BrokerUnavailable."""
    import aiomqtt

    try:
        client, limit = await _connect(address, client_id, will)
    except BrokerUnavailable:
        raise
    except Exception as error:  # nothing about a broker may end the service
        raise BrokerUnavailable(plainly(error)) from error
    try:
        yield _AiomqttConnection(client, limit)
    finally:
        try:
            with suppress(aiomqtt.MqttError, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await client.__aexit__(None, None, None)
        finally:  # also if that was cancelled
            client._client._sock_close()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def _connect(
    address: BrokerAddress, client_id: str, will: Will
) -> tuple[aiomqtt.Client, PacketLimit]:
    """Protocol 5 first, each time: a broker that was slow once may know it all the same."""
    import aiomqtt

    for version in (aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311):
        client = _make_client(address, client_id, will, version)
        limit = PacketLimit(client)
        try:
            await _connect_or_clean_up(client, address)
            limit.check_connected()
        except Exception as error:
            if version is aiomqtt.ProtocolVersion.V5 and limit.may_not_know_5(error):
                continue
            raise BrokerUnavailable(limit.why(error)) from error
        return client, limit
    raise AssertionError  # the last version continues nowhere


async def _connect_or_clean_up(client: Any, address: BrokerAddress) -> None:
    connecting = Connecting(client, asyncio.get_running_loop(), address)
    try:
        blocked = await run_in_own_thread(connecting.block, "connecting")
        if blocked.error is not None:
            raise blocked.error
        connecting.take_over()
        await connecting.until_answered()
    except BaseException:
        connecting.give_up()
        raise


def _make_client(
    address: BrokerAddress, client_id: str, will: Will, version: Any
) -> aiomqtt.Client:
    import aiomqtt

    return aiomqtt.Client(
        **client_options(address, client_id, is_5=version is aiomqtt.ProtocolVersion.V5),
        protocol=version,
        will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True),
        timeout=_CONNECT_S,
        queue_type=Inbox,
        tls_context=address.tls_context(),
    )


class _AiomqttConnection:
    def __init__(self, client: aiomqtt.Client, limit: PacketLimit) -> None:
        self._client = client
        self._limit = limit

    def _broken(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(self._limit.why(error))

    async def subscribe(self, *filters: str) -> None:
        import aiomqtt

        try:
            await self._client.subscribe([(name, 1) for name in filters])
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error

    async def publish(self, topic: str, payload: bytes) -> None:
        import aiomqtt

        try:
            await self._client.publish(topic, payload, qos=1, retain=True)
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        import aiomqtt

        try:
            async for message in self._client.messages:
                yield str(message.topic), message.payload
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error
        raise BrokerUnavailable("the connection was closed")
