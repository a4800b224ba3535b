"""Stories that the suite tells briefly and the torture at length."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tests.kit.processes import (
    TOKEN,
    Server,
    eventually,
    listening,
    of_revision,
    port_of,
)


def race(server: Server, service: str, *, writers: int) -> list[int]:
    """Everybody writes at once with the same If-Match; the statuses."""
    first = server.put(service, {"by": -1})
    assert first.status_code in (200, 201), first.text
    etag = first.headers["ETag"]
    start = threading.Barrier(writers)

    def write(number: int) -> int:
        with socket.create_connection(_address(server), 30) as connection:
            request = _put(service, json.dumps({"by": number}), f"If-Match: {etag}\r\n")
            start.wait(30)
            connection.sendall(request)
            return _status(connection)

    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(write, range(writers)))


def hang_ups(server: Server, service: str, *, calls: int) -> int:
    """PUTs whose caller leaves right after the body; how many of them were committed.

    Raises unless everything that was committed is confirmed and the newest is retained.
    """
    before = server.put(service, {"n": -1}).json()["version"]
    address = _address(server)
    for number in range(calls):
        with socket.create_connection(address, 30) as connection:
            connection.sendall(_put(service, json.dumps({"n": number})))
    settled: list[int] = []

    def quiet() -> bool:
        settled.append(server.get(f"/api/v1/config/{service}").json()["revision"])
        return len(settled) > 5 and len(set(settled[-5:])) == 1

    eventually(quiet, within=30, every=0.1, what="the writes have come to an end")
    server.wait_outbox_empty()
    now = server.get(f"/api/v1/config/{service}").json()
    topic = f"system/config/{service}"
    with listening(port_of(server.mqtt_url), topic) as listener:
        message = listener.message(topic, of_revision(now["revision"]))
    assert server.verified(service, message).config == now["config"]
    entries = server.get(f"/api/v1/config/{service}/history", params={"limit": 1}).json()["entries"]
    assert entries[0]["revision"] == now["revision"]
    return int(now["version"] - before)


def _address(server: Server) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def _put(service: str, body: str, more: str = "") -> bytes:
    return (
        f"PUT /api/v1/config/{service} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _status(connection: socket.socket) -> int:
    data = b""
    while b"\r\n" not in data:
        chunk = connection.recv(4096)
        if not chunk:
            return 0
        data += chunk
    return int(data.split()[1])
