"""Raw requests that nobody sane sends, from a seed: whole, cut, split, pipelined, lying."""

from __future__ import annotations

import errno
import random
import re
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from config_manager.api.rest.limits import VERIFY_WITHIN_S
from config_manager.api.server.routes import ROUTES
from tests.kit.processes import TOKEN, Server

ANSWERS_WITHIN_S = 5.0
_LONG = b"/audit/verify"
"""Reads all that there is; its description says that it may take a minute."""
DOCUMENTED = frozenset(
    {100, 200, 201, 202, 204, 304}
    | {400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 429, 431}
)
SENDERS = 4

_METHODS = (
    b"GET",
    b"PUT",
    b"PATCH",
    b"POST",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"QUERY",
    b"get",
    b"\xff",
)
_SEGMENTS = (
    *(b"api", b"v1", b"config", b"secrets", b"tokens", b"trust", b"devices", b"audit", b"status"),
    *(b"health", b"openapi.json", b"docs", b"epoch", b"history", b"rubbish", b"stt-worker", b"rotate"),
    *(b"..", b".", b"", b"%2e%2e", b"%2F", b"%00", b"%ff", b"%", b"%0d%0aX:%20y", b"a" * 300, b"\xc3\xa4"),
)  # fmt: skip
_QUERIES = (
    *(b"", b"?", b"?view=stored", b"?wait=confirmed&timeout=0", b"?limit=-1", b"?limit=1e9", b"?dry_run=2"),
    *(b"?before=%00", b"?a=b&a=c", b"?" + b"x" * 2000, b"?%ff=%fe", b"?reason=%0aforged"),
)  # fmt: skip
_TOKEN = b"Authorization: Bearer %b" % TOKEN.encode()
_HEADERS = (
    *(b"Content-Type: application/json", b"Content-Type: application/merge-patch+json"),
    *(b"Content-Type: text/html; charset=utf-7", b'If-Match: "1"', b"If-None-Match: *"),
    *(b"Idempotency-Key: a", b"Idempotency-Key: " + b"k" * 500, b'X-Request-ID: "{}\\n', b"Range: bytes=0-"),
    *(b"User-Agent: {{7*7}} %s %0a", b"traceparent: 00-zz", b"X: " + b"y" * 9000, b"Accept: text/html"),
    *(b"Connection: Upgrade\r\nUpgrade: websocket", b"Expect: 100-continue", b"Origin: http://elsewhere"),
)  # fmt: skip
_BROKEN_HEADERS = (
    *(b"Authorization: Bearer wrong", b"Authorization: Basic \xff", b"If-Match: *, \xff", b" folded: line"),
    *(b"X-Request-ID: forged\x0b{}", b"User-Agent: \x1b[2J", b"Transfer-Encoding: chunked", b"No colon"),
    *(b"Transfer-Encoding: gzip, chunked", b"Connection: close", b"Host: other", b"Content-Length: 1"),
)  # fmt: skip
_BODIES = (
    *(b"", b"{}", b'{"n":1}', b"[]", b"null", b"NaN", b'{"a":1,"a":2}', b'{"a":1e999}', b'{"\\ud800":1}', b"{" * 5000),
    *(b"[" * 5000 + b"]" * 5000, b'{"a":' + b"9" * 5000 + b"}", b"\xff\xfe{}", b'{"__proto__":{}}'),
    *(b'{"a":"\\u0000"}', b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffff\r\n", b'{"n":0}' * 3),
)  # fmt: skip


def one_request(luck: random.Random) -> bytes:
    """A request that may be fine, odd, or (each sixth) broken."""
    is_broken = luck.random() < 1 / 6
    if is_broken and luck.random() < 0.1:
        return luck.randbytes(luck.randrange(1, 400))
    method, path = _one_of_ours(luck) if luck.random() < 0.7 else _nobodys(luck)
    body = luck.choice(_BODIES)
    target = path + luck.choice(_QUERIES)
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: localhost"]
    if luck.random() < 0.8:
        lines.append(_TOKEN)
    if luck.random() < 0.6:
        lines.append(_HEADERS[method == b"PATCH"])
    lines += luck.sample(_HEADERS[2:], luck.randrange(4))
    lines.append(b"Content-Length: %d" % len(body))
    if not is_broken:
        return b"\r\n".join(lines) + b"\r\n\r\n" + body
    if luck.random() < 0.3:
        lines[-1] = b"Content-Length: %d" % luck.choice((0, 1, 10**6, 10**30, -1))
    if luck.random() < 0.3:
        lines.append(luck.choice(_BROKEN_HEADERS))
    if luck.random() < 0.1:
        lines[0] = lines[0].replace(b"1.1", luck.choice((b"1.0", b"0.9", b"2.0", b"x")))
    if luck.random() < 0.1:
        lines.pop(luck.randrange(len(lines)))
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if luck.random() < 0.3:
        place = luck.randrange(len(whole))
        whole = whole[:place] + luck.randbytes(1) + whole[place + luck.randrange(2) :]
    return whole[: luck.randrange(1, len(whole) + 1)] if luck.random() < 0.3 else whole


def _one_of_ours(luck: random.Random) -> tuple[bytes, bytes]:
    route = luck.choice(ROUTES)
    filled = re.sub(r"\{\w+\}", lambda _: luck.choice(("rubbish", "stt-worker", "1")), route.path)
    return route.method.encode(), filled.encode()


def _nobodys(luck: random.Random) -> tuple[bytes, bytes]:
    segments = luck.choices(_SEGMENTS, k=luck.randrange(1, 6))
    return luck.choice(_METHODS), b"/" + b"/".join(segments)


def storm(server: Server, requests: int, seed: int) -> Counter[int]:
    """Send that many; the statuses that came back (0: the connection was closed without one).

    Raises AssertionError where a status is not documented, or nothing came within 5 s (where the audit is read, 65).
    """
    each = requests // SENDERS
    with ThreadPoolExecutor(SENDERS) as pool:
        parts = pool.map(
            lambda n: _send(server, each, random.Random(seed * SENDERS + n)), range(SENDERS)
        )
        found = sum(parts, Counter[int]())
    assert set(found) <= DOCUMENTED | {0}, found
    return found


def _send(server: Server, requests: int, luck: random.Random) -> Counter[int]:
    parts = urlsplit(server.url)
    found: Counter[int] = Counter()
    sent = 0
    while sent < requests:
        together = luck.randrange(1, 6)
        sent += together
        data = b"".join(one_request(luck) for _ in range(together))
        within = ANSWERS_WITHIN_S + VERIFY_WITHIN_S * (_LONG in data)
        with socket.create_connection((parts.hostname, parts.port), within) as connection:
            try:
                _in_pieces(connection.sendall, data, luck)
                connection.shutdown(socket.SHUT_WR)
                said = _read(connection)
            except TimeoutError:
                raise AssertionError(f"nothing within {within} s to {data!r}") from None
            except OSError as error:  # it answered and closed while we still sent
                if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                    raise
                said = b""
        found.update(_statuses(said) or [0])
    return found


def _in_pieces(send: Callable[[bytes], None], data: bytes, luck: random.Random) -> None:
    while data:
        size = len(data) if luck.random() < 0.7 else luck.randrange(1, len(data) + 1)
        send(data[:size])
        data = data[size:]


def _read(connection: socket.socket) -> bytes:
    data = bytearray()
    while chunk := connection.recv(65_536):
        data += chunk
    return bytes(data)


def _statuses(said: bytes) -> list[int]:
    """Of each answer. `HTTP/1.1 ` in a body of ours would be a defect as well."""
    return [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]
