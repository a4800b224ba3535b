"""A task that is cancelled ends: neither what blocks while connecting keeps it, nor a cancellation that asyncio
loses."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiomqtt
import pytest
import trio

from config_manager.actors.mqtt import aiomqtt_transport
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.mqtt.connecting import Connecting
from config_manager.client.drivers import asyncio_connection
from config_manager.config.brokers import BrokerAddress
from tests.kit.client_drivers import run_asyncio
from tests.kit.hostile_broker import CONNACK_5, hostile

HANGS_S = 20.0
"""What is still there then hangs."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A broker that says nothing; who accepts finds every connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.settimeout(HANGS_S)
        yield listener


def address_of(listener: socket.socket) -> BrokerAddress:
    return BrokerAddress("127.0.0.1", listener.getsockname()[1])


async def stay_connected(address: BrokerAddress) -> None:
    async with AiomqttTransport().connect(address, client_id="one"):
        await trio.sleep_forever()


# ── while connecting ───────────────────────────────────────────────────────────────────────────


async def test_whenever_connecting_is_cancelled_it_ends(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in fifteen went on until aiomqtt's own time was over."""
    monkeypatch.setattr(aiomqtt_transport, "_PUBLISH_S", HANGS_S + 5)  # which that is
    randomness = random.Random(86296)
    turns = trio.CapacityLimiter(10)
    cancelled_at_ms: dict[int, float] = {}
    ended: set[int] = set()

    async def connect(number: int) -> None:
        async with turns:
            moment = randomness.uniform(0, 0.012)
            cancelled_at_ms[number] = round(moment * 1000, 2)
            with trio.move_on_after(moment):
                await stay_connected(address_of(listener))
            ended.add(number)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(connect, number)
        with trio.move_on_after(HANGS_S):
            while len(ended) < 200:
                await trio.sleep(0.01)
        hanging = [cancelled_at_ms[number] for number in cancelled_at_ms.keys() - ended]
        nursery.cancel_scope.cancel()
    assert (hanging, len(ended)) == ([], 200)


class SlowResolver:
    """Answers once it is let go."""

    def __init__(self) -> None:
        self.is_asked, self.let_go = threading.Event(), threading.Event()
        self.has_answered = False
        self._look_up = socket.getaddrinfo

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.is_asked.set()
        self.let_go.wait(HANGS_S)
        self.has_answered = True
        return self._look_up(*args, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowResolver]:
    resolver = SlowResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.let_go.set()


def cancel_under_trio(address: BrokerAddress, once: threading.Event) -> None:
    async def story() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay_connected, address)
            while not once.is_set():
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    trio.run(story)


def cancel_under_asyncio(address: BrokerAddress, once: threading.Event) -> None:
    async def stay_connected() -> None:
        will = asyncio_connection.Will("system/config-status/a/b", b"{}")
        async with asyncio_connection.connect_with_aiomqtt(address, "one", will):
            raise AssertionError

    async def story() -> None:
        task = asyncio.create_task(stay_connected())
        while not once.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])

    run_asyncio(story())


Cancel = Callable[[BrokerAddress, threading.Event], None]


@pytest.mark.parametrize("cancel", [cancel_under_trio, cancel_under_asyncio])
def test_a_slow_resolver_keeps_nobody_and_what_comes_of_it_is_hung_up_on(
    cancel: Cancel, resolver: SlowResolver, listener: socket.socket
) -> None:
    cancel(address_of(listener), resolver.is_asked)
    assert not resolver.has_answered
    resolver.let_go.set()
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(HANGS_S)
        assert connection.recv(1) == b""


# ── whatever asyncio loses ─────────────────────────────────────────────────────────────────────


class Deaf:
    """Stands for a coroutine that loses cancellations."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.waits = trio.Event()

    async def __call__(self, *_: Any, **__: Any) -> None:
        self.waits.set()
        while True:
            try:
                await asyncio.sleep(8)
            except asyncio.CancelledError:
                if self.times == 0:
                    raise
                self.times -= 1
            else:
                return


async def answers_at_once(*_: Any, **__: Any) -> tuple[int, ...]:
    return ()


@pytest.mark.parametrize(
    ("of", "name"),
    [
        (Connecting, "until_answered"),
        (aiomqtt.Client, "subscribe"),
        (aiomqtt.Client, "publish"),
        (aiomqtt.MessagesIterator, "__anext__"),
        (aiomqtt.Client, "__aexit__"),
    ],
)
async def test_a_cancellation_that_is_lost_is_repeated(
    of: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf, works = Deaf(2), trio.Event()
    monkeypatch.setattr(aiomqtt.Client, "subscribe", answers_at_once)
    monkeypatch.setattr(aiomqtt.Client, "publish", answers_at_once)
    monkeypatch.setattr(of, name, deaf)

    async def use(address: BrokerAddress) -> None:
        async with AiomqttTransport().connect(address, client_id="one") as connection:
            await connection.subscribe("a")
            await connection.publish("a", b"")
            works.set()
            await trio.sleep_forever()

    with hostile(CONNACK_5) as (address, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, address)
            await (works if name == "__aexit__" else deaf.waits).wait()
            nursery.cancel_scope.cancel()
    assert deaf.times == 0
