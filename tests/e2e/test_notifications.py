"""`config-manager notifications` at a real server, which gets killed, and a receiver that others wrote."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme
from standardwebhooks import Webhook

from tests.e2e.test_config_commands import Operator
from tests.kit.processes import Processes, eventually
from tests.kit.secure_broker import ca_file


class Chat:
    """Where messages go. status: what it answers."""

    def __init__(self, port: int) -> None:
        self.url = f"https://localhost:{port}/hook"
        self.status = 204
        self.posts: list[tuple[dict[str, str], bytes]] = []

    def told(self, secret: str) -> list[tuple[str, Any]]:
        """(id, revision) of each message that it took; the signatures are right."""
        bodies = [(headers, Webhook(secret).verify(body, headers)) for headers, body in self.posts]
        return [(headers["webhook-id"], body.get("revision")) for headers, body in bodies]


@contextmanager
def chatting(authority: trustme.CA) -> Iterator[Chat]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if chat.status < 300:
                chat.posts.append((dict(self.headers), body))
            self.send_response(chat.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        chat = Chat(server.server_port)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield chat
        server.shutdown()
        thread.join()


def test_a_target_is_added_tested_told_over_a_kill_listed_and_removed(
    shop: tuple[Processes, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, directory = shop
    authority = trustme.CA()
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file(authority, directory)))
    server = processes.server(directory / "data", "none:")
    operator = Operator(processes, server)
    with chatting(authority) as chat:
        command = ("notifications", "add", "chat", "-", "--events", "revision,drift")
        added = json.loads(operator.ok(*command, "--json", stdin=f"{chat.url}\n"))
        secret = added["secret"]
        server.put("lamp", {"n": 1})
        eventually(lambda: len(chat.posts) == 1, within=10, what="it is told")

        chat.status = 500
        code, said = operator.run("notifications", "test", "chat")
        assert code == 1
        assert "chat was not told: the answer was 500" in said
        for n in (2, 3):
            server.put("lamp", {"n": n})

        def waits() -> bool:
            [one] = server.get("/api/v1/notifications").json()["notifications"]
            return bool(one["waiting"] == 2 and one["state"] == "trying")

        eventually(waits, within=10, what="two wait")
        killed = server.process
        server.kill()
        chat.status = 204
        server.start()
        server.put("lamp", {"n": 4})
        # the last second before the kill may come twice, under the same ids
        eventually(lambda: {2, 3, 4} <= {r for _, r in chat.told(secret)}, within=15, what="told")
        told = chat.told(secret)
        assert [revision for _, revision in dict(told).items()] == [1, 2, 3, 4]
        assert len({message_id for message_id, _ in told}) == 4

        operator = Operator(processes, server)
        lines = operator.ok("notifications", "list").splitlines()
        assert lines[1].split()[:2] == ["chat", "ok"]
        removed = operator.ok("notifications", "remove", "chat", "--reason", "moved", "--json")
        assert json.loads(removed) == {"name": "chat", "removed": True}
    logged = "\n".join([*killed.text, *server.process.text])
    assert "not notified" in logged
    assert "/hook" not in logged
    assert secret not in logged
