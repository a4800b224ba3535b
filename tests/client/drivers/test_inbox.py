from __future__ import annotations

import asyncio

import aiomqtt
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.arrivals import Arrivals
from config_manager.actors.mqtt.port import Message
from config_manager.client.drivers.asyncio_connection import Will, _make_client
from config_manager.client.drivers.inbox import MOST_BYTES, PER_TOPIC, Inbox
from config_manager.client.drivers.opening import parse_addresses
from config_manager.client.drivers.trio_driver import _default_transport


def message(topic: str, payload: bytes) -> aiomqtt.Message:
    return aiomqtt.Message(topic, payload, qos=1, retain=False, mid=1, properties=None)


def read_all(inbox: Inbox) -> list[tuple[str, bytes]]:
    read: list[tuple[str, bytes]] = []
    while not inbox.empty():
        one = inbox.get_nowait()
        assert isinstance(one.payload, bytes)
        read.append((one.topic.value, one.payload))
    return read


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=4)), max_size=PER_TOPIC))
def test_what_fits_comes_out_as_it_came_in(sent: list[tuple[str, bytes]]) -> None:
    inbox = Inbox()
    for topic, payload in sent:
        inbox.put_nowait(message(topic, payload))
    assert read_all(inbox) == sent


def test_a_flood_on_one_topic_leaves_its_newest_and_every_other() -> None:
    inbox = Inbox()
    inbox.put_nowait(message("config", b"genuine"))
    for number in range(10_000):
        inbox.put_nowait(message("keepalive", b"%d" % number))
    newest = [("keepalive", b"%d" % number) for number in range(10_000 - PER_TOPIC, 10_000)]
    assert read_all(inbox) == [("config", b"genuine"), *newest]


def test_a_flood_of_topics_and_of_bytes_leaves_the_newest() -> None:
    inbox, mebibyte = Inbox(), b"x" * 1024 * 1024
    for number in range(100):
        inbox.put_nowait(message(f"roots/{number}", mebibyte))
    left = read_all(inbox)
    assert len(left) == MOST_BYTES // len(mebibyte) - 1  # a topic and a message cost something too
    assert left[-1] == ("roots/99", mebibyte)
    for number in range(50_000):
        inbox.put_nowait(message(f"roots/{number}", b""))
    assert inbox.qsize() < MOST_BYTES / 1024
    inbox.put_nowait(message("too large for all", b"x" * 2 * MOST_BYTES))
    assert [topic for topic, _ in read_all(inbox)] == ["too large for all"]


def test_who_waits_is_given_what_comes() -> None:
    async def story() -> None:
        inbox = Inbox()
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.put_nowait(message("config", b"1"))
        assert (await waiting).payload == b"1"

    asyncio.run(story())


async def _client_of_asyncio() -> aiomqtt.Client:
    (address,) = parse_addresses("mqtt://localhost:1")
    return _make_client(address, "me", Will("t", b""), aiomqtt.ProtocolVersion.V5)


def test_it_is_the_inbox_of_every_connection_under_asyncio() -> None:
    client = asyncio.run(_client_of_asyncio())
    assert isinstance(client._queue, Inbox)


def test_a_flood_leaves_the_newest_under_trio_too() -> None:
    async def story() -> None:
        transport = _default_transport()
        assert isinstance(transport, AiomqttTransport)
        unread = transport._unread()
        assert isinstance(unread, Inbox)
        inbox = Arrivals(unread)
        inbox.put_nowait(message("config", b"genuine"))
        for number in range(10_000):
            inbox.put_nowait(message("keepalive", b"%d" % number))
        inbox.close()
        with trio.fail_after(5):
            read = [one async for one in inbox.read()]
        newest = [Message("keepalive", b"%d" % n) for n in range(10_000 - PER_TOPIC, 10_000)]
        assert read == [Message("config", b"genuine"), *newest]

    trio.run(story)


def test_who_waits_under_trio_is_given_what_comes() -> None:
    async def story() -> None:
        inbox, read = Arrivals(Inbox()), list[bytes]()

        async def reader() -> None:
            async for one in inbox.read():
                read.append(one.payload)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                for number in (b"1", b"2"):
                    await trio.testing.wait_all_tasks_blocked()
                    inbox.put_nowait(message("config", number))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert read == [b"1", b"2"]

    trio.run(story)
