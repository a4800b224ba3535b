"""The broker port, and its aiomqtt implementation: the only module that imports trio_asyncio.

Each connection runs its own asyncio loop inside Trio, so that what a dying broker does to asyncio
ends with the connection. trio_asyncio is imported when a connection is made and not before:
importing it changes `asyncio.run()` for the whole process.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import trio

from config_manager.config.errors import SettingsInvalid

if TYPE_CHECKING:
    import aiomqtt

_KEEPALIVE_S = 10
_CONNECT_S = 5.0
_CONNECT_V5_S = 2.0
"""A broker that knows no protocol 5 may just hang up, or never answer: then 3.1.1 is tried."""
_PUBLISH_S = 10.0
_IN_FLIGHT = 20
_UNSUPPORTED_PROTOCOL = 132


class BrokerUnavailable(Exception):
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
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Auto:
    """A broker of our own on loopback; port None takes 1883 where it is free."""

    port: int | None


@dataclass(frozen=True, slots=True)
class Nothing:
    """Publish nowhere."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    retained: bool = False


class Connection(Protocol):
    """One live connection. Every method raises BrokerUnavailable once it broke."""

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Returns after the broker acknowledged (QoS 1) or the bytes were handed over (QoS 0)."""
        ...

    async def subscribe(self, *filters: str) -> None:
        """QoS 1; retained messages follow as ordinary ones."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """What arrives, until the connection breaks (BrokerUnavailable). Must be read always."""
        ...


class Transport(Protocol):
    def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """Protocol 5, else 3.1.1. Leaving disconnects cleanly: the will is not sent."""
        ...


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
        if rest and not (rest.isascii() and rest.isdigit() and 0 < int(rest) < 2**16):
            raise problem
        return Auto(int(rest) if rest else None)
    if scheme not in ("mqtt", "mqtts"):
        raise problem
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise problem from None
    if not url.hostname or url.path not in ("", "/") or url.query or url.fragment:
        raise problem
    tls = scheme == "mqtts"
    return BrokerAddress(
        url.hostname,
        port or (8883 if tls else 1883),
        tls,
        unquote(url.username) if url.username else None,
        unquote(url.password) if url.password else None,
    )


class AiomqttTransport:
    """aiomqtt (paho underneath) under trio-asyncio."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._speaks_311: set[BrokerAddress] = set()

    @asynccontextmanager
    async def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AsyncIterator[Connection]:
        import aiomqtt
        import trio_asyncio

        try:
            async with trio_asyncio.open_loop() as loop:
                # without a handler of ours a dying broker ends the whole program
                loop.set_exception_handler(lambda _loop, _context: None)
                async with self._open(aiomqtt, address, client_id, will) as client:
                    yield _AiomqttConnection(client)
        except BaseExceptionGroup as group:  # the loop's nurseries wrap whatever passes them
            broken, other = group.split(BrokerUnavailable)
            if broken is None or other is not None:
                raise
            raise _first(broken) from None

    @asynccontextmanager
    async def _open(
        self, module: Any, address: BrokerAddress, client_id: str, will: Message | None
    ) -> AsyncIterator[aiomqtt.Client]:
        import trio_asyncio

        error: Exception | None = None
        for version in (module.ProtocolVersion.V5, module.ProtocolVersion.V311):
            v5 = version is module.ProtocolVersion.V5
            if v5 and address in self._speaks_311:
                continue
            client = self._client(module, address, client_id, will, version)
            manager = trio_asyncio.aio_as_trio(client)
            try:
                with trio.fail_after(_CONNECT_V5_S if v5 else _CONNECT_S):
                    await manager.__aenter__()
            except (module.MqttError, OSError, trio.TooSlowError) as refused:
                error = refused
                if v5 and _may_not_know_5(refused):
                    continue
                break
            if not v5:
                self._speaks_311.add(address)
            try:
                yield client
            finally:
                # where it is gone already, that is what leaving wanted
                with (
                    trio.CancelScope(shield=True),
                    trio.move_on_after(1),
                    suppress(module.MqttError),
                ):
                    await manager.__aexit__(None, None, None)
            return
        raise BrokerUnavailable(_plainly(error)) from error

    def _client(
        self,
        module: Any,
        address: BrokerAddress,
        client_id: str,
        will: Message | None,
        version: Any,
    ) -> aiomqtt.Client:
        v5 = version is module.ProtocolVersion.V5
        client: aiomqtt.Client = module.Client(
            hostname=address.host,
            port=address.port,
            username=address.username,
            password=address.password,
            identifier=client_id,
            protocol=version,
            will=module.Will(will.topic, will.payload, qos=1, retain=will.retained)
            if will
            else None,
            clean_session=None if v5 else True,
            clean_start=True if v5 else 3,
            keepalive=_KEEPALIVE_S,
            # small packets wait 40 ms for each other's acknowledgement otherwise (Nagle)
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            timeout=_PUBLISH_S,
            max_inflight_messages=_IN_FLIGHT,
            max_concurrent_outgoing_calls=10 * _IN_FLIGHT,
            tls_context=(self._tls or ssl.create_default_context()) if address.tls else None,
            logger=_SILENT,
        )
        client.pending_calls_threshold = 10 * _IN_FLIGHT
        return client


class _AiomqttConnection:
    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        import aiomqtt
        import trio_asyncio

        try:
            await trio_asyncio.aio_as_trio(self._client.publish)(topic, payload, qos, retain)
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise BrokerUnavailable(_plainly(error)) from error

    async def subscribe(self, *filters: str) -> None:
        import aiomqtt
        import trio_asyncio

        try:
            await trio_asyncio.aio_as_trio(self._client.subscribe)([(f, 1) for f in filters])
        except (aiomqtt.MqttError, OSError) as error:
            raise BrokerUnavailable(_plainly(error)) from error

    async def messages(self) -> AsyncIterator[Message]:
        import aiomqtt
        import trio_asyncio

        receive = trio_asyncio.aio_as_trio(self._client.messages.__anext__)
        while True:
            try:
                message = await receive()
            except StopAsyncIteration:
                raise BrokerUnavailable("the connection was closed") from None
            except (aiomqtt.MqttError, OSError) as error:
                raise BrokerUnavailable(_plainly(error)) from error
            payload = message.payload
            yield Message(
                str(message.topic),
                payload if isinstance(payload, bytes) else b"",
                retained=message.retain,
            )


def _first(group: BaseExceptionGroup[BrokerUnavailable]) -> BrokerUnavailable:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _may_not_know_5(error: Exception) -> bool:
    code = getattr(error, "rc", None)
    value = getattr(code, "value", code)
    return (
        isinstance(error, trio.TooSlowError)
        or value == _UNSUPPORTED_PROTOCOL
        or "nsupported protocol" in str(error)
        or "isconnected" in str(error)
        or "imed out" in str(error)
    )


def _plainly(error: Exception | None) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no answer"
    return str(error) or type(error).__name__


_SILENT = logging.getLogger("config_manager.mqtt")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_SILENT.setLevel(logging.CRITICAL + 1)
