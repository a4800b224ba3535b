"""Bytes that nobody polite sends: documented answers, and the process lives."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from config_manager.api.rest.limits import DRAIN_BYTES
from tests.kit.processes import COMMAND, TOKEN, Processes, Server
from tests.storage.decisions.test_json_schema import HOSTILE
from tests.torture.rubbish import storm

DOCUMENTED = {200, 201, 400, 401, 403, 404, 405, 412, 413, 415, 422, 431, 503}


def raw(server: Server, request: bytes) -> int:
    """Send it, read until the server closes or answers; the status, 0 for none."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.sendall(request)
        data = b""
        try:
            while b"\r\n" not in data:
                chunk = connection.recv(4096)
                if not chunk:
                    break
                data += chunk
        except ConnectionResetError:
            pass
    return int(data.split()[1]) if data.startswith(b"HTTP/1.") else 0


@pytest.fixture(autouse=True)
def _lives(server: Server) -> Iterator[None]:
    yield
    assert server.process.alive
    assert server.get("/health").status_code == 200
    assert not [line for line in server.process.lines if line.get("level") == "critical"]


def put(
    server: Server, body: bytes, service: str = "hostile", kind: str = "application/json"
) -> httpx.Response:
    answer = server.http.put(
        f"/api/v1/config/{service}", content=body, headers={"Content-Type": kind}
    )
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
    problem = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= problem.keys()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    return answer


def _head(method: bytes, path: bytes, length: int) -> bytes:
    return (
        b"%b %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (method, path, TOKEN.encode(), length)
    )


@pytest.mark.parametrize("path", [b"/api/v1/tokens", b"/api/v1/config/epoch", b"/nothing/here"])
@pytest.mark.parametrize("method", [b"QUERY", b"PUT", b"DELETE"])
def test_a_body_that_follows_its_head_leaves_the_connection_usable(
    server: Server, method: bytes, path: bytes
) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(5):
            connection.sendall(_head(method, path, 2))
            assert server.get("/health").status_code == 200  # the head is read before the body goes
            connection.sendall(b"{}")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            assert answer.status in {400, 404, 405, 422}


@pytest.mark.parametrize("path", [b"/api/v1/tokens", b"/api/v1/config/hostile"])
@pytest.mark.parametrize("method", [b"PUT", b"POST"])
def test_a_body_too_large_to_be_read_is_answered_and_its_connection_closed(
    server: Server, method: bytes, path: bytes
) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.sendall(_head(method, path, 2 * DRAIN_BYTES) + b"x" * (DRAIN_BYTES + 1))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        assert answer.status in {405, 413}
        assert connection.recv(1) == b""


@pytest.mark.parametrize("extra", [b"\x00", b"\x81", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096])
@pytest.mark.parametrize("path", [b"/", b"/health", b"/api/v1/config/stt-worker"])
def test_a_websocket_upgrade_with_an_extra_byte(server: Server, path: bytes, extra: bytes) -> None:
    status = raw(
        server,
        b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%b"
        % (path, extra),
    )
    assert status in DOCUMENTED | {0}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00" * 64,
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
            b"Connection: Upgrade, HTTP2-Settings\r\n\r\n"
        ),
        b"GET / HTTP/1.1\r\nHost: x\r\nBig: " + b"a" * 200_000 + b"\r\n\r\n",
        b"PUT /api/v1/config/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /api/v1/config/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET http://[::1/health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%zz%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=range(14),
)
def test_bytes_that_are_hardly_http(server: Server, request_bytes: bytes) -> None:
    assert raw(server, request_bytes) in DOCUMENTED | {0}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"a": 9007199254740992}',
        b'{"a": [{"b": -9007199254740992}]}',
        b'{"a": 1e400}',
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"[" * 33 + b"]" * 33 + b"}",
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a": 1} trailing',
        b'{"a": 01}',
    ],
)
def test_json_that_readers_would_not_agree_on_is_400(server: Server, body: bytes) -> None:
    assert put(server, body).status_code == 400


DEEPER_THAN_ANY_STACK = (
    b'{"type":"object","properties":{"a":' + b'{"items":' * 100_000 + b"1" + b"}" * 100_002
)


def test_schemas_that_cost_much_are_refused_at_once_and_meanwhile_services_are_read(
    server: Server,
) -> None:
    assert server.put("calm", {"a": 1}).status_code == 201
    bodies = {
        what: json.dumps({"type": "object", **schema}).encode()
        for what, schema in HOSTILE.items()
        if what != "deeper than any stack"
    }

    def refused(body: bytes) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        answer = server.http.put("/api/v1/schemas/hostile", content=body, headers=headers)
        return answer.status_code, answer.json()["type"]

    with ThreadPoolExecutor(len(bodies) + 1) as everybody:
        deep = everybody.submit(refused, DEEPER_THAN_ANY_STACK)
        others = {what: everybody.submit(refused, body) for what, body in bodies.items()}
        while True:
            is_over = all(one.done() for one in others.values())
            assert server.get("/api/v1/config/calm").json()["config"] == {"a": 1}
            if is_over:
                break
    assert deep.result()[0] == 400
    answers = {what: one.result() for what, one in others.items()}
    assert answers == dict.fromkeys(bodies, (422, "/problems/schema-invalid"))
    assert server.get("/api/v1/schemas/hostile").status_code == 404


def test_sizes_and_types_have_their_own_answers(server: Server) -> None:
    assert put(server, b'{"a": "' + b"x" * (1 << 20) + b'"}').status_code == 413
    assert put(server, b'{"a": "' + b"x" * 300_000 + b'"}').status_code == 413
    assert put(server, b"{}", kind="text/plain").status_code == 415
    assert server.get("/api/v1/config/hostile").status_code == 404


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1"])
def test_json_that_is_no_object_is_422(server: Server, body: bytes) -> None:
    answer = put(server, body)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "", "detail": "expected a JSON object"}]


@pytest.mark.parametrize("key", ["A", "_a", "1a", "a-b", "a b", "", "a" * 64, "ä", "__proto__"])
def test_a_key_outside_the_grammar_is_422(server: Server, key: str) -> None:
    answer = server.put("hostile", {key: 1})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{key}"


@pytest.mark.parametrize(
    "name",
    ["A", "a_b", "-a", "a" * 64, "%C3%A4", "a%00", "a%0a", "+", "%23", "%2B", "search", "config-manager",
     "epoch", "a%2Fb", "..%2F..%2Fetc", "a.b"],
)  # fmt: skip
def test_a_hostile_name_is_turned_down(server: Server, name: str) -> None:
    # a slash inside makes it another path (404); `epoch` is a path of its own (405 for PUT)
    status = server.http.put(f"/api/v1/config/{name}", json={}).status_code
    assert status == 400 or (status in (404, 405) and ("%2F" in name or name == "epoch")), status


@pytest.mark.parametrize("value", ["a b", "é", "x" * 65, "", "a\tb", '"}', "a;b"])
def test_a_hostile_request_id_is_replaced(server: Server, value: str) -> None:
    answer = server.http.get("/api/v1/config", headers=[(b"X-Request-ID", value.encode())])
    assert answer.status_code == 200
    assert len(answer.headers["X-Request-ID"]) == 36


def test_without_a_token_or_with_a_wrong_one_it_is_401(server: Server) -> None:
    for token in (
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        "Bearer " + "x" * 5000,
        "Bearer \xff",
    ):
        answer = server.http.get(
            "/api/v1/config", headers=[(b"Authorization", token.encode("latin-1"))]
        )
        assert answer.status_code == 401, token


@pytest.mark.parametrize(
    "packet",
    [
        b"GET /api/v1/config/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nx",
        b"GET /health HTTP/1.0\r\n\r\n\x00\xff",
    ],
)
def test_bytes_after_the_last_request_end_their_connection_only(
    server: Server, packet: bytes
) -> None:
    for _ in range(30):
        with socket.create_connection(
            (urlsplit(server.url).hostname or "", urlsplit(server.url).port or 0), 5
        ) as connection:
            connection.sendall(packet)
            with suppress(ConnectionResetError):
                while connection.recv(65_536):
                    pass


def test_connections_that_are_reset_before_they_are_looked_at_end_nothing(server: Server) -> None:
    for _ in range(300):
        connection = socket.create_connection(
            (urlsplit(server.url).hostname or "", urlsplit(server.url).port or 0), 5
        )
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


@pytest.fixture(scope="module")
def few_descriptors(module_shop: tuple[Processes, Path]) -> str:
    """The URL of a server that may open 300 files."""
    processes, directory = module_shop
    process = processes.start(
        [
            *("sh", "-c", 'ulimit -n 300; exec "$0" "$@"', COMMAND, "serve"),
            *("--data-dir", str(directory / "few"), "--bind", "127.0.0.1:0", "--mqtt-url", "none:"),
        ],
        env={"CONFIG_MANAGER_BOOTSTRAP_TOKEN": TOKEN, "CONFIG_MANAGER_LOG_FORMAT": "json"},
    )
    return str(process.event("ready")["url"])


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"G",
        b"PUT /api/v1/config/one HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
    ],
    ids=["nothing", "half a head", "half a body", "a question whose answer is never read"],
)
def test_connections_of_strangers_that_ask_nothing_leave_room_for_others(
    module_shop: tuple[Processes, Path], few_descriptors: str, begun: bytes
) -> None:
    """More than there are descriptors for: they make room, and the database keeps its own."""
    processes, _ = module_shop
    parts = urlsplit(few_descriptors)
    assert parts.hostname is not None
    assert parts.port is not None
    with ExitStack() as stack:
        for _ in range(400):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.settimeout(5)
            with suppress(ConnectionResetError, BrokenPipeError):
                connection.connect((parts.hostname, parts.port))
                connection.sendall(begun)
        for _ in range(3):
            http = processes.client(few_descriptors)
            assert http.put("/api/v1/config/one", json={"a": 1}).status_code in (200, 201)
            assert http.get("/health").json()["mode"] == "normal"


_SMUGGLED = b"GET /api/v1/trust/root HTTP/1.1\r\nHost: h\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_NO_BODY = b"0\r\n\r\n"


@pytest.mark.parametrize(
    "doubtful",
    [
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + _CHUNKED + b"\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\n" + _CHUNKED + b"Content-Length: 5\r\n\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" + _CHUNKED + b"\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\ncONTENT-lENGTH: 5\r\ntRANSFER-eNCODING: cHUNKED\r\n\r\n"
        + _NO_BODY,
        b"PUT /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n" + _CHUNKED + b"\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\n" + _CHUNKED * 2 + b"\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\x0bchunked\r\n\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n" + _NO_BODY,
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 3\r\n\r\n{}",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\n{}",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x2\r\n\r\n{}",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1_0\r\n\r\n{}",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{}",
        b"GET /a HTTP/1.1\r\nHost: h\r\nX: y\rContent-Length: 5\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nX: y\0z\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        b"GET /a HTTP/1.1\r\n X: folded before any header\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/1.2\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/0.9\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a\tHTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
def test_what_another_reader_may_take_for_another_request_is_400_and_the_end(
    server: Server, doubtful: bytes
) -> None:
    """A proxy in front that reads it otherwise sends somebody's next request behind it."""
    data = everything(server, doubtful + _SMUGGLED)
    assert data.startswith(b"HTTP/1.1 400"), data[:200]
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in data.lower()


@pytest.mark.parametrize(
    "body",
    [
        b"ffffffffffffffffffffff\r\n{}",
        b"-1\r\n{}",
        b"2\n{}\n0\n\n",
        b"2\r\n{}xx0\r\n\r\n",
        b" 2\r\n{}\r\n",
    ],
)
def test_chunks_that_are_none_end_the_connection(server: Server, body: bytes) -> None:
    head = b"PUT /api/v1/config/smug HTTP/1.1\r\nHost: h\r\n" + _CHUNKED + b"\r\n"
    data = everything(server, head + body + _SMUGGLED)
    assert data.count(b"HTTP/1.1 ") <= 1, "what follows is not read as a request"
    assert b"signatures" not in data


def test_more_headers_than_anybody_needs_are_431(server: Server) -> None:
    fine, many = (
        b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + b"a:b\r\n" * n + b"\r\n"
        for n in (190, 201)
    )
    assert everything(server, fine).startswith(b"HTTP/1.1 200")
    assert everything(server, many).startswith(b"HTTP/1.1 431")


def test_a_body_in_chunks_of_one_byte_is_read_as_any_other(server: Server) -> None:
    body = b'{"n": "' + b"x" * 3_000 + b'"}'
    chunks = b"".join(b"1;ext=1\r\n%c\r\n" % byte for byte in body) + b"0\r\nTrailer: 1\r\n\r\n"
    head = (
        b"PUT /api/v1/config/tiny HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\n" % TOKEN.encode()
    )
    assert everything(server, head + _CHUNKED + b"\r\n" + chunks).startswith(b"HTTP/1.1 201")
    assert server.get("/api/v1/config/tiny").json()["config"] == {"n": "x" * 3_000}


def everything(server: Server, request: bytes) -> bytes:
    """What comes until the server closes."""
    parts = urlsplit(server.url)
    data = b""
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.sendall(request)
        with suppress(ConnectionResetError):
            while chunk := connection.recv(65_536):
                data += chunk
    return data


def test_two_thousand_raw_requests_get_documented_answers_in_time(server: Server) -> None:
    found = storm(server, 2_000, seed=1)
    assert found[0] < 1_000, found
    assert len(found) > 8, found
