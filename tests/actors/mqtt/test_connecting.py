"""What connecting ends in: a connection, or one reason that is said and tried again."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from config_manager.actors.mqtt import aiomqtt_transport
from config_manager.client.drivers import asyncio_connection
from config_manager.config.brokers import BrokerAddress
from tests.kit.hostile_broker import (
    CONNACK_5,
    CONNACK_311,
    NO_PROTOCOL_5,
    Listen,
    as_a_trio_service,
    as_the_server,
    by_everyone,
    hostile,
    publish,
)

NOT_AUTHORISED_5 = b"\x20\x03\x00\x87\x00"
UNACCEPTABLE_VERSION_311 = b"\x20\x02\x00\x01"
A_MESSAGE_5 = CONNACK_5 + publish(b"system/config/a", b"")
A_MESSAGE_311 = CONNACK_311 + publish(b"system/config/a", b"", listed=b"")


def versions(came: Queue[bytes]) -> Iterator[int]:
    """That were spoken to it, one a connection."""
    while not came.empty():
        connect = came.get()
        yield connect[connect.index(b"MQTT") + 4]


# ── protocol 5, else 3.1.1 ─────────────────────────────────────────────────────────────────────


@by_everyone
@pytest.mark.parametrize(
    "no_better",
    [NO_PROTOCOL_5, UNACCEPTABLE_VERSION_311, CONNACK_311, None, b""],
    ids=["says so", "says so as 3.1.1 does", "answers as 3.1.1 does", "hangs up", "is silent"],
)
def test_a_broker_that_knows_no_better_is_spoken_to_in_311(
    listen: Listen, no_better: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiomqtt_transport, "_ASK_IN_5_S", 0.5)
    if no_better == b"":
        monkeypatch.setattr(asyncio_connection, "_CONNECT_S", 0.5)
    with hostile(no_better, A_MESSAGE_311) as (address, came):
        heard, why = listen(address)
    assert (heard, why) == ([("system/config/a", b"")], "")
    assert list(versions(came)) == [5, 4]


def test_5_comes_first_again_at_the_next_connection() -> None:
    """It was busy, or something else listened there, or it has been renewed since."""
    transport = aiomqtt_transport.AiomqttTransport()
    with hostile(NO_PROTOCOL_5, A_MESSAGE_311, A_MESSAGE_5) as (address, came):
        for _ in range(2):
            assert as_the_server(address, transport=transport) == ([("system/config/a", b"")], "")
    assert list(versions(came)) == [5, 4, 5]


@by_everyone
def test_a_broker_that_refuses_is_asked_once(listen: Listen) -> None:
    with hostile(NOT_AUTHORISED_5) as (address, came):
        heard, why = listen(address)
    assert not heard
    assert "ot authorized" in why
    assert list(versions(came)) == [5]


@by_everyone
@pytest.mark.parametrize("answer", [b"", CONNACK_5[:3]], ids=["is silent", "never ends"])
def test_a_broker_that_answers_in_neither_is_disconnected(
    listen: Listen, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiomqtt_transport, "_ASK_IN_5_S", 0.2)
    for module in (aiomqtt_transport, asyncio_connection):
        monkeypatch.setattr(module, "_CONNECT_S", 0.2)
    with hostile(answer, answer) as (address, came):
        heard, why = listen(address)
    assert (heard, "no answer" in why) == ([], True)
    assert list(versions(came)) == [5, 4]


@by_everyone
def test_a_broker_that_is_down_is_looked_for_once(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    create = socket.create_connection

    def count(*args: Any, **options: Any) -> Any:
        tried.append(args)
        return create(*args, **options)

    monkeypatch.setattr(socket, "create_connection", count)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    _, why = listen(BrokerAddress("127.0.0.1", port))
    assert "refused" in why
    assert len(tried) == 1


# ── whatever it raises ─────────────────────────────────────────────────────────────────────────


@by_everyone
@pytest.mark.parametrize("host", ["broker..local", ".local", "a" * 64, "nul\0", "name.invalid"])
def test_a_host_that_cannot_be_looked_up_is_disconnected(listen: Listen, host: str) -> None:
    heard, why = listen(BrokerAddress(host, 1883))
    assert not heard
    assert why


@by_everyone
@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_tls_file_that_does_not_load_is_named(
    listen: Listen, content: bytes | None, tmp_path: Path
) -> None:
    """It is being renewed, or its disk is away, while the broker is reached again."""
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    _, why = listen(BrokerAddress("127.0.0.1", 1, tls=True, ca=ca))
    assert why.startswith(f"ca={ca}: ")


@by_everyone
@pytest.mark.parametrize("error", [RuntimeError("odd"), ValueError("odd"), KeyError("odd")])
def test_whatever_connecting_raises_is_disconnected(
    listen: Listen, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(BrokerAddress, "tls_context", fail)
    assert "odd" in listen(BrokerAddress("127.0.0.1", 1, tls=True))[1]
    monkeypatch.undo()
    monkeypatch.setattr(socket, "create_connection", fail)
    assert "odd" in listen(BrokerAddress("127.0.0.1", 1))[1]


@by_everyone
def test_a_handshake_that_fails_leaves_no_socket_to_the_collector(listen: Listen) -> None:
    gc.disable()
    try:
        with hostile(b"no TLS at all") as (address, _):  # which waits until it was hung up on
            _, why = listen(BrokerAddress(address.host, address.port, tls=True))
    finally:
        gc.enable()
    assert "SSL" in why


@pytest.mark.parametrize("listen", [as_the_server, as_a_trio_service])
def test_a_loop_that_cannot_be_opened_is_disconnected(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("config_manager.actors.mqtt.aiomqtt_transport.open_loop", fail)
    assert "Too many open files" in listen(BrokerAddress("127.0.0.1", 1))[1]
