"""The port by aiomqtt (paho underneath).

Each connection runs its own asyncio loop inside Trio, so that what a dying broker does to asyncio
ends with the connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from config_manager.actors.mqtt.arrivals import Arrivals, Unread
from config_manager.actors.mqtt.asyncio_under_trio import open_loop
from config_manager.actors.mqtt.broker_answers import BrokerAnswers
from config_manager.actors.mqtt.connecting import Connecting, client_options
from config_manager.actors.mqtt.packet_limit import PacketLimit, plainly
from config_manager.actors.mqtt.port import (
    Announced,
    BrokerUnavailable,
    Connection,
    Message,
    broken_as_itself,
)
from config_manager.config.brokers import BrokerAddress

if TYPE_CHECKING:
    import aiomqtt

T = TypeVar("T")

_ASK_IN_5_S = 2.0
"""A broker that knows 3.1.1 alone may say nothing to MQTT 5: it is not remembered, and asked each time."""
_CONNECT_S = 5.0
_PUBLISH_S = 10.0
_CANCEL_AGAIN_S = 0.05
_IN_FLIGHT = 20


class AiomqttTransport:
    """aiomqtt under trio-asyncio."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        unread: Callable[[], asyncio.Queue[Any]] | None = None,
    ) -> None:
        """unread: makes what holds a connection's messages until they are read, and decides what no
        longer fits; by default the oldest stay."""
        self._tls = tls
        self._unread = unread or Unread

    @asynccontextmanager
    async def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AsyncGenerator[Connection]:
        with broken_as_itself():  # the loop's nurseries wrap whatever passes them
            async with AsyncExitStack() as stack:
                try:
                    opened = await self._open(stack, address, client_id, will)
                except BrokerUnavailable:
                    raise
                except Exception as error:  # nothing about a broker may end the process
                    raise BrokerUnavailable(plainly(error)) from error
                nursery = await stack.enter_async_context(trio.open_nursery())
                nursery.start_soon(opened.close_when_lost)
                yield opened
                nursery.cancel_scope.cancel()

    async def _open(
        self, stack: AsyncExitStack, address: BrokerAddress, client_id: str, will: Message | None
    ) -> _AiomqttConnection:
        """Protocol 5 first, each time: a broker that was slow once may know it all the same."""
        import aiomqtt

        loop = await stack.enter_async_context(open_loop())
        # without a handler of ours a dying broker ends the whole program
        loop.set_exception_handler(lambda _loop, _context: None)
        for version in (aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311):
            arrivals = Arrivals(self._unread())
            client = self._client(address, client_id, will, version, arrivals)
            answers = BrokerAnswers(client._client)  # noqa: SLF001  aiomqtt passes none of it on
            limit = PacketLimit(client)
            connecting = Connecting(client, loop, address)
            is_5 = version is aiomqtt.ProtocolVersion.V5
            try:
                await _connect(connecting, loop, _ASK_IN_5_S if is_5 else _CONNECT_S)
                limit.check_connected()
            except Exception as error:
                asks_again = limit.may_not_know_5(error)
                connecting.give_up()
                if is_5 and asks_again:
                    continue
                raise _lost(limit, answers, error) from error
            except BaseException:
                connecting.give_up()
                raise
            stack.push_async_callback(_leave, client, loop)
            return _AiomqttConnection(client, loop, arrivals, answers, limit)
        raise AssertionError  # the last version continues nowhere

    def _client(
        self,
        address: BrokerAddress,
        client_id: str,
        will: Message | None,
        version: Any,
        arrivals: Arrivals,
    ) -> Any:
        import aiomqtt

        def take_arrivals(maxsize: int) -> Any:  # noqa: ARG001  aiomqtt's own signature
            return arrivals

        client = aiomqtt.Client(
            **client_options(address, client_id, is_5=version is aiomqtt.ProtocolVersion.V5),
            protocol=version,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retained)
            if will
            else None,
            timeout=_PUBLISH_S,
            queue_type=cast("Any", take_arrivals),
            max_inflight_messages=_IN_FLIGHT,
            max_concurrent_outgoing_calls=10 * _IN_FLIGHT,
            tls_context=self._tls if address.tls and self._tls else address.tls_context(),
        )
        client.pending_calls_threshold = 10 * _IN_FLIGHT
        return client


async def _connect(
    connecting: Connecting, loop: asyncio.AbstractEventLoop, answers_within_s: float
) -> None:
    """Cancelled while the thread blocks, it leaves the thread to itself: a thread can't be cancelled."""
    await trio.to_thread.run_sync(
        connecting.block,
        abandon_on_cancel=True,
        limiter=trio.CapacityLimiter(1),  # a thread that hangs here takes none from the disk
    )
    connecting.take_over()
    with trio.fail_after(answers_within_s):
        await _awaited(loop, connecting.until_answered())


async def _awaited(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Under Trio: the result of an asyncio coroutine. Cancelled, it cancels until the coroutine has ended.

    `aio_as_trio` cancels once, and asyncio may lose that cancellation: `asyncio.wait_for` of
    Python 3.11 gives the result that comes at the same time (python/cpython#86296), trio-asyncio's
    executor that of the thread it waits for.
    """
    task, ended = loop.create_task(coroutine), trio.Event()
    task.add_done_callback(lambda _: ended.set())
    try:
        await ended.wait()
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            while not ended.is_set():
                task.cancel()
                with trio.move_on_after(_CANCEL_AGAIN_S):
                    await ended.wait()
        if task.cancelled():
            raise
    return task.result()


async def _leave(client: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Says goodbye for up to a second. If the connection is gone already, there is nothing to say."""
    import aiomqtt

    try:
        with (
            trio.CancelScope(shield=True),
            trio.move_on_after(1),
            suppress(aiomqtt.MqttError),
        ):
            await _awaited(loop, client.__aexit__(None, None, None))
    finally:
        # aiomqtt leaves the socket of a broken connection to the collector
        with suppress(Exception):
            client._client._sock_close()  # noqa: SLF001


class _Writer:
    """Writes when there is something to write, and watches the socket only for what did not fit.

    paho wants its socket watched for every packet. Under trio-asyncio each watch starts and ends a
    task and takes two trips through the loop: 0.4 ms a packet, more than all the rest (bench/).
    """

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._paho = client
        self._loop = loop
        self._watch = client.on_socket_register_write
        self._unwatch = client.on_socket_unregister_write
        self._watching = False
        self._due = False
        client.on_socket_register_write = self._on_something_to_write
        client.on_socket_unregister_write = self._on_nothing_to_write

    def publish(self, topic: str, payload: bytes) -> Any:
        """QoS 1, retained; on the wire on return where the socket takes it. Returns paho's info."""
        self._due = True  # by us, right here
        info = self._paho.publish(topic, payload, 1, True)
        self._flush()
        return info

    def _on_something_to_write(self, *_: object) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)

    def _on_nothing_to_write(self, *given: object) -> None:
        if self._watching:
            self._watching = False
            self._unwatch(*given)

    def _flush(self) -> None:
        self._due = False
        self._paho.loop_write()
        sock = self._paho.socket()
        if sock is not None and self._paho.want_write() and not self._watching:
            self._watching = True
            self._watch(self._paho, None, sock)


class _AiomqttConnection:
    def __init__(
        self,
        client: Any,
        loop: asyncio.AbstractEventLoop,
        arrivals: Arrivals,
        answers: BrokerAnswers,
        limit: PacketLimit,
    ) -> None:
        self._client: aiomqtt.Client = client
        self._loop = loop
        self._arrivals = arrivals
        self._answers = answers
        self._limit = limit
        self._why_lost = BrokerUnavailable("the connection was closed")
        paho = client._client  # noqa: SLF001  aiomqtt has no other way to go on without a PUBACK
        self._writer = _Writer(paho, loop)
        self._unanswered: dict[int, Callable[[int], None]] = {}
        tell_aiomqtt = paho.on_publish

        def on_publish(*given: Any) -> None:
            answered = self._unanswered.pop(given[2], None)
            if answered is not None:
                answered(answers.puback)
            else:
                tell_aiomqtt(*given)

        paho.on_publish = on_publish

    async def close_when_lost(self) -> None:
        """Until the connection breaks. A client that only publishes would never notice."""
        import aiomqtt

        try:
            await _awaited(self._loop, self._client.messages.__anext__())
        except StopAsyncIteration:
            pass
        except (aiomqtt.MqttError, OSError) as error:
            self._why_lost = self._broken(error)
        self._arrivals.close()

    @property
    def announced(self) -> Announced:
        return self._answers.announced

    @property
    def has_unread(self) -> bool:
        return self._arrivals.has_unread

    @property
    def maximum_packet_bytes(self) -> int | None:
        return self._answers.maximum_packet_bytes

    @property
    def receive_maximum(self) -> int:
        return self._answers.receive_maximum

    def _broken(self, error: Exception) -> BrokerUnavailable:
        return _lost(self._limit, self._answers, error)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        await self._do(self._client.publish(topic, payload, qos, retain))

    def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        try:
            info = self._writer.publish(topic, payload)
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        if info.rc != 0:
            raise self._broken(OSError(f"not connected (paho says {info.rc})"))
        self._unanswered[info.mid] = answered

    async def subscribe(self, *filters: str, qos: int = 1) -> tuple[int, ...]:
        granted = await self._do(self._client.subscribe([(f, qos) for f in filters]))
        return tuple(code if isinstance(code, int) else code.value for code in granted)

    async def _do(self, call: Coroutine[Any, Any, T]) -> T:
        import aiomqtt

        try:
            return await _awaited(self._loop, call)
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise self._broken(error) from error

    async def messages(self) -> AsyncGenerator[Message]:
        async with aclosing(self._arrivals.read()) as arrived:
            async for message in arrived:
                yield message
        raise self._why_lost


def _lost(limit: PacketLimit, answers: BrokerAnswers, error: Exception) -> BrokerUnavailable:
    if limit.refused:
        return BrokerUnavailable(limit.refused, code=0)
    if answers.disconnected is not None:
        return BrokerUnavailable(f"the broker hung up: {answers.words}", answers.disconnected)
    return BrokerUnavailable(limit.why(error))
