"""A load generator that costs little beside the servers: one epoll loop, prepared bytes.

At 16 connections it sends and reads 40,000 answers a second on one core, several times what any
server here gives. Each connection has one request in flight (closed loop): latency is from the first
byte sent to the last byte of the answer.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RECEIVE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one round. latencies_s: of each answer, unordered."""

    elapsed_s: float
    latencies_s: Sequence[float]
    refused: int

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.elapsed_s


class _Connection:
    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.held = b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """The status of the answer, once it is whole."""
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of a round")
        self.held += data
        return whole(self.held)


def whole(answer: bytes) -> int | None:
    """The status of an HTTP/1.1 answer that has all of its bytes, else None."""
    head_ends = answer.find(b"\r\n\r\n")
    if head_ends < 0:
        return None
    head = answer[:head_ends].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        end = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : end if end >= 0 else None])
        if len(answer) < head_ends + 4 + length:
            return None
    elif b"\r\ntransfer-encoding: chunked" in head and not answer.endswith(b"\r\n0\r\n\r\n"):
        return None
    return int(answer[9:12])


def request(
    method: str, path: str, body: bytes = b"", *, host: str, headers: dict[str, str] | None = None
) -> bytes:
    """A request as bytes, ready to be sent again and again."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drive(
    host: str,
    port: int,
    next_request: Callable[[int], bytes],
    *,
    connections: int,
    seconds: float | None = None,
    count: int | None = None,
) -> Load:
    """Send for a time, or a number of requests; next_request gets a running number."""
    opened = [_Connection(host, port) for _ in range(connections)]
    poll = select.epoll()
    by_fd = {}
    for one in opened:
        poll.register(one.socket.fileno(), select.EPOLLIN)
        by_fd[one.socket.fileno()] = one
    latencies: list[float] = []
    refused = 0
    number = connections
    limit = count if count is not None else 1 << 60
    began = time.perf_counter()
    ends = began + (seconds if seconds is not None else 3600)
    for index, one in enumerate(opened):
        one.send(next_request(index))
    waiting = connections
    try:
        while waiting:
            for fd, _ in poll.poll(10):
                one = by_fd[fd]
                status = one.receive()
                if status is None:
                    continue
                now = time.perf_counter()
                latencies.append(now - one.sent_at)
                refused += status >= 300
                one.held = b""
                if now < ends and number < limit:
                    one.send(next_request(number))
                    number += 1
                else:
                    waiting -= 1
        return Load(time.perf_counter() - began, latencies, refused)
    finally:
        poll.close()
        for one in opened:
            one.socket.close()
