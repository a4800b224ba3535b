"""HTTP to others: what is sent is HTTP, and whatever comes back, or does not, is a value."""

from __future__ import annotations

import json
import ssl
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import trio
import trustme

from config_manager.actors.http_out import Answered, Connect, Unanswered, connect_with, post
from config_manager.config.http_target import HttpTarget, parse_http_target
from tests.kit.receivers import hangs, hangs_up, receiving, says, says_raw


def at(port: int, path: str = "/hook") -> HttpTarget:
    return parse_http_target(f"http://127.0.0.1:{port}{path}")


send = partial(post, headers=[("Content-Type", "application/json")], within_s=5)


async def test_a_post_arrives_at_a_server_that_is_not_ours() -> None:
    got: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Host"], self.headers["Content-Type"], body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"thanks")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        answer = await send(at(server.server_port, "/a?b=c"), b"{}", max_body_bytes=100)
        await trio.to_thread.run_sync(server.shutdown)
        serving.join()
    assert isinstance(answer, Answered)
    assert (answer.ok, answer.status, answer.body) == (True, 200, b"thanks")
    assert got == [("/a?b=c", f"127.0.0.1:{server.server_port}", "application/json", b"{}")]


@pytest.mark.parametrize("status", [200, 204, 301, 307, 404, 410, 500])
async def test_every_status_is_an_answer_and_no_redirect_is_followed(status: int) -> None:
    async with receiving(says(status, "Location: /elsewhere")) as receiver:
        answer = await send(at(receiver.port), b"{}")
        assert isinstance(answer, Answered)
        assert (answer.status, answer.ok) == (status, status < 300)
        assert len(receiver.received) == 1


async def test_of_an_answer_no_more_is_read_than_was_asked_for() -> None:
    async with receiving(says(200, body=b"x" * 100_000)) as receiver:
        for most in (0, 1, 99, 1_000_000):
            answer = await send(at(receiver.port), b"{}", max_body_bytes=most)
            assert isinstance(answer, Answered)
            assert answer.body == b"x" * min(most, 100_000)


async def test_a_body_that_never_ends_ends_at_what_was_asked_for() -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with receiving(says_raw(endless + b"5\r\nworld\r\n" * 1000)) as receiver:
        answer = await send(at(receiver.port), b"{}", max_body_bytes=7)
        assert isinstance(answer, Answered)
        assert answer.body == b"hellowo"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "no HTTP answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "hung up"),
        (b"HTTP/1.1 200", "hung up"),
        (b"HTTP/1.1 999999 OK\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no HTTP answer"),
    ],
)
async def test_what_is_no_answer_says_why(data: bytes, why: str) -> None:
    async with receiving(says_raw(data)) as receiver:
        answer = await send(at(receiver.port, "/s3cret"), b"{}")
    assert isinstance(answer, Unanswered)
    assert why in answer.why
    assert "s3cret" not in answer.why


async def test_who_hangs_up_or_is_not_there_is_a_value_too() -> None:
    async with receiving(hangs_up) as receiver:
        hung_up = await send(at(receiver.port), b"{}")
    gone = await send(at(receiver.port), b"{}")
    nowhere = await send(parse_http_target("https://nobody.invalid/"), b"{}")
    assert isinstance(hung_up, Unanswered)
    assert "hung up without an answer" in hung_up.why
    assert isinstance(gone, Unanswered)
    assert "refused" in gone.why
    assert isinstance(nowhere, Unanswered)
    assert "can't be reached" in nowhere.why


async def test_who_refuses_early_is_heard_though_it_reads_nothing() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await stream.send_eof()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        answer = await send(at(listener.socket.getsockname()[1]), b"x" * 200)
        nursery.cancel_scope.cancel()
    assert isinstance(answer, Answered)
    assert answer.status == 413


async def test_the_deadline_holds_for_all_of_it(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def slow(_target: HttpTarget) -> trio.abc.Stream:
        await trio.sleep(6)
        return ours

    async def trickle(_target: HttpTarget) -> trio.abc.Stream:
        await theirs.send_all(b"HTTP/1.1 200 OK\r\n")
        return ours

    for way in (slow, trickle):
        began = trio.current_time()
        answer = await post(at(1), b"", headers=[], within_s=5, connect=way)
        assert trio.current_time() - began == pytest.approx(5)
        assert answer == Unanswered("http://127.0.0.1:1 did not answer within 5 s")


async def test_over_tls_the_certificate_is_for_that_host_and_from_whom_we_trust() -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example.org").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)

    async with receiving(tls=theirs) as receiver:

        def through(trust: ssl.SSLContext) -> Connect:
            return partial(connect_with, trust=lambda: trust, address=("127.0.0.1", receiver.port))

        right = parse_http_target("https://hooks.example.org/hook")
        wrong = parse_http_target("https://other.example.org/hook")
        answer = await send(right, json.dumps({}).encode(), connect=through(ours))
        assert answer.ok
        [received] = receiver.received
        assert received.headers["host"] == "hooks.example.org"
        for target, trust in ((wrong, ours), (right, ssl.create_default_context())):
            refused = await send(target, b"{}", connect=through(trust))
            assert isinstance(refused, Unanswered)
            assert "certificate" in refused.why
        assert len(receiver.received) == 1


async def test_tls_that_nobody_speaks_is_a_value() -> None:
    async with receiving(hangs) as receiver:
        answer = await post(
            parse_http_target(f"https://127.0.0.1:{receiver.port}/"),
            b"",
            headers=[],
            within_s=0.2,
        )
    assert isinstance(answer, Unanswered)


async def test_a_receiver_that_sends_our_request_back_does_not_bring_its_path_into_words() -> None:
    async with receiving(says_raw(b"POST /hook/password HTTP/1.1\r\n\r\n")) as receiver:
        answer = await send(at(receiver.port, "/hook/password"), b"{}")
    assert isinstance(answer, Unanswered)
    assert "password" not in answer.why
    assert answer.why.endswith("gave no HTTP answer: what came is not HTTP/1.1")
