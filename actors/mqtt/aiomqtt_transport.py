"""The broker port, and its aiomqtt implementation: the only module that imports trio_asyncio.

Each connection runs its own asyncio loop inside Trio, so that what a dying broker does to asyncio
ends with the connection. trio_asyncio is imported when a connection is made and not before:
importing it changes `asyncio.run()` for the whole process.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from config_manager.actors.mqtt.broker_answers import BrokerAnswers
from config_manager.actors.mqtt.connecting import Connecting, client_options
from config_manager.actors.mqtt.packet_limit import (
    PacketLimit,
    plainly,
    weight,
)
from config_manager.config.brokers import BrokerAddress
from config_manager.config.errors import the_reason

if TYPE_CHECKING:
    import aiomqtt

T = TypeVar("T")

_ASK_IN_5_S = 2.0
"""A broker that knows 3.1.1 alone may say nothing to MQTT 5: it is not remembered, and asked each time."""
_CONNECT_S = 5.0
_PUBLISH_S = 10.0
_CANCEL_AGAIN_S = 0.05
_IN_FLIGHT = 20
_UNREAD = 65_536
"""Messages that may wait to be read: the retained ones of that many services come in one burst."""
_UNREAD_BYTES = 64 * 1024 * 1024


class BrokerUnavailable(Exception):
    """The broker can't be reached, refused us, or the connection broke; the message says which."""

    def __init__(self, why: str = "", code: int | None = None) -> None:
        """code: of the broker's DISCONNECT, if it sent one; 0 if it was us who hung up."""
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    retained: bool = False


@contextmanager
def broken_as_itself() -> Iterator[None]:
    """A broken connection passes without the groups that nurseries put around it; where it breaks
    while we are cancelled, only that passes."""
    try:
        yield
    except BaseExceptionGroup as group:
        _, other = group.split(BrokerUnavailable)
        if other is None:
            raise the_reason(group, BrokerUnavailable) from None
        if other.split(trio.Cancelled)[1] is None:
            raise other from None
        raise


class Connection(Protocol):
    """One live connection. Every method raises BrokerUnavailable once it broke."""

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
        """Publish retained at QoS 1 and go on; `answered` is called with the reason code of the PUBACK,
        if it comes: below 128 the message was taken."""
        ...

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Retained messages follow as ordinary ones."""
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


class AiomqttTransport:
    """aiomqtt (paho underneath) under trio-asyncio."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        unread: Callable[[], asyncio.Queue[Any]] | None = None,
    ) -> None:
        """unread: makes what holds a connection's messages until they are read, and decides what no
        longer fits; by default the oldest stay."""
        self._tls = tls
        self._unread = unread or _Unread

    @asynccontextmanager
    async def connect(
        self, address: BrokerAddress, *, client_id: str, will: Message | None = None
    ) -> AsyncIterator[Connection]:
        with broken_as_itself():  # the loop's nurseries wrap whatever passes them
            async with AsyncExitStack() as stack:
                try:
                    opened = await self._open(stack, address, client_id, will)
                except BrokerUnavailable:
                    raise
                except Exception as error:  # nothing about a broker may end what else we do
                    raise BrokerUnavailable(plainly(error)) from error
                nursery = await stack.enter_async_context(trio.open_nursery())
                nursery.start_soon(opened.close_when_lost)
                yield opened
                nursery.cancel_scope.cancel()

    async def _open(
        self, stack: AsyncExitStack, address: BrokerAddress, client_id: str, will: Message | None
    ) -> _AiomqttConnection:
        """Protocol 5 first, each time: a broker that was slow once is none that knows no better."""
        import aiomqtt
        import trio_asyncio

        loop = await stack.enter_async_context(trio_asyncio.open_loop())
        # without a handler of ours a dying broker ends the whole program
        loop.set_exception_handler(lambda _loop, _context: None)
        for version in (aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311):
            inbox = _Inbox(self._unread())
            client = self._client(aiomqtt, address, client_id, will, version, inbox)
            limit = PacketLimit(client)
            connecting = Connecting(client, loop)
            is_5 = version is aiomqtt.ProtocolVersion.V5
            try:
                await _connect(connecting, loop, _ASK_IN_5_S if is_5 else _CONNECT_S)
                limit.check_connected()
            except Exception as error:
                asks_again = limit.may_not_know_5(error)
                connecting.give_up()
                if is_5 and asks_again:
                    continue
                raise _lost(limit, inbox.answers, error) from error
            except BaseException:
                connecting.give_up()
                raise
            stack.push_async_callback(_leave, client, loop)
            return _AiomqttConnection(client, inbox, loop, limit)
        raise AssertionError  # the last version continues nowhere

    def _client(
        self,
        module: Any,
        address: BrokerAddress,
        client_id: str,
        will: Message | None,
        version: Any,
        inbox: _Inbox,
    ) -> aiomqtt.Client:
        client: aiomqtt.Client = module.Client(
            **client_options(address, client_id, is_5=version is module.ProtocolVersion.V5),
            protocol=version,
            will=module.Will(will.topic, will.payload, qos=1, retain=will.retained)
            if will
            else None,
            timeout=_PUBLISH_S,
            queue_type=lambda maxsize: inbox,  # noqa: ARG005
            max_inflight_messages=_IN_FLIGHT,
            max_concurrent_outgoing_calls=10 * _IN_FLIGHT,
            tls_context=self._tls if address.tls and self._tls else address.tls_context(),
        )
        client.pending_calls_threshold = 10 * _IN_FLIGHT
        inbox.answers = BrokerAnswers(client._client)  # noqa: SLF001  aiomqtt passes none of it on
        return client


async def _connect(
    connecting: Connecting, loop: asyncio.AbstractEventLoop, answers_within_s: float
) -> None:
    """Cancelled while something blocks, it leaves that to itself: a thread takes no cancellation."""
    await trio.to_thread.run_sync(
        connecting.block,
        abandon_on_cancel=True,
        limiter=trio.CapacityLimiter(1),  # what hangs here takes no thread from the disk
    )
    connecting.take_over()
    with trio.fail_after(answers_within_s):
        await _awaited(loop, connecting.until_answered())


async def _awaited(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Under Trio: what comes of asyncio's. Cancelled, it cancels until that has ended.

    `aio_as_trio` cancels once, and what asyncio loses of that is lost for good: `asyncio.wait_for` of
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


async def _leave(client: aiomqtt.Client, loop: asyncio.AbstractEventLoop) -> None:
    """Where it is gone already, that is what leaving wanted."""
    import aiomqtt

    try:
        with (
            trio.CancelScope(shield=True),
            trio.move_on_after(1),
            suppress(aiomqtt.MqttError),
        ):
            await _awaited(loop, client.__aexit__(None, None, None))
    finally:
        _close(client)


def _close(client: aiomqtt.Client) -> None:
    """aiomqtt leaves the socket of a connection that broke to the collector."""
    with suppress(Exception):
        client._client._sock_close()  # noqa: SLF001


class _Unread(asyncio.Queue[Any]):
    """The first that come stay: the retained messages of all services, of which each counts. What does
    not fit is lost as on any QoS 0 way; whoever reads asks again for what is missing."""

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


class _Inbox(asyncio.Queue[Any]):
    """Stands where aiomqtt wants its queue, and is read from Trio: a message is no asyncio task's
    business."""

    answers: BrokerAnswers

    def __init__(self, unread: asyncio.Queue[Any]) -> None:
        super().__init__()
        self._unread = unread
        self._news = trio.Event()
        self._closed = False
        self.lost: BrokerUnavailable | None = None

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self._unread.put_nowait(item)
        self._news.set()

    async def read(self) -> AsyncIterator[Message]:
        """Until the connection is lost and everything was read."""
        while True:
            await trio.lowlevel.checkpoint()
            if not self._unread.empty():
                item = self._unread.get_nowait()
                yield Message(str(item.topic), _payload(item), retained=item.retain)
            elif self._closed:
                return
            else:
                self._news = trio.Event()
                await self._news.wait()

    @property
    def has_unread(self) -> bool:
        return not self._unread.empty()

    async def close_when_lost(
        self, client: aiomqtt.Client, loop: asyncio.AbstractEventLoop, limit: PacketLimit
    ) -> None:
        """Until the connection breaks. A client that only publishes would never notice."""
        import aiomqtt

        try:
            await _awaited(loop, client.messages.__anext__())
        except StopAsyncIteration:
            self.lost = BrokerUnavailable("the connection was closed")
        except (aiomqtt.MqttError, OSError) as error:
            self.lost = _lost(limit, self.answers, error)
        self.close()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._news.set()


def _payload(item: aiomqtt.Message) -> bytes:
    return item.payload if isinstance(item.payload, bytes) else b""


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
        client: aiomqtt.Client,
        inbox: _Inbox,
        loop: asyncio.AbstractEventLoop,
        limit: PacketLimit,
    ) -> None:
        self._client = client
        self._loop = loop
        self._limit = limit
        self._inbox = inbox
        paho = client._client  # noqa: SLF001  aiomqtt has no other way to go on without a PUBACK
        self._writer = _Writer(paho, loop)
        self._unanswered: dict[int, Callable[[int], None]] = {}
        tell_aiomqtt: Any = paho.on_publish

        def on_publish(*given: Any) -> None:
            answered = self._unanswered.pop(given[2], None)
            if answered is not None:
                answered(inbox.answers.puback)
            else:
                tell_aiomqtt(*given)

        paho.on_publish = on_publish

    async def close_when_lost(self) -> None:
        await self._inbox.close_when_lost(self._client, self._loop, self._limit)

    @property
    def has_unread(self) -> bool:
        return self._inbox.has_unread

    @property
    def maximum_packet_bytes(self) -> int | None:
        return self._inbox.answers.maximum_packet_bytes

    @property
    def receive_maximum(self) -> int:
        return self._inbox.answers.receive_maximum

    def _broken(self, error: Exception) -> BrokerUnavailable:
        return _lost(self._limit, self._inbox.answers, error)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        import aiomqtt

        try:
            await _awaited(self._loop, self._client.publish(topic, payload, qos, retain))
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise self._broken(error) from error

    def hand_over(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        try:
            info = self._writer.publish(topic, payload)
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        if info.rc != 0:
            raise self._broken(OSError(f"not connected (paho says {info.rc})"))
        self._unanswered[info.mid] = answered

    async def subscribe(self, *filters: str, qos: int = 1) -> None:
        import aiomqtt

        try:
            await _awaited(self._loop, self._client.subscribe([(f, qos) for f in filters]))
        except (aiomqtt.MqttError, OSError) as error:
            raise self._broken(error) from error

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._inbox.read():
            yield message
        raise self._inbox.lost or BrokerUnavailable("the connection was closed")


def _lost(limit: PacketLimit, answers: BrokerAnswers, error: Exception) -> BrokerUnavailable:
    if limit.refused:
        return BrokerUnavailable(limit.refused, code=0)
    if answers.disconnected is not None:
        return BrokerUnavailable(f"the broker hung up: {answers.words}", answers.disconnected)
    return BrokerUnavailable(limit.why(error))
