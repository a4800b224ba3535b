"""Watching a real server: over its death and its end, by the command and by fifty at once."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.kit.processes import COMMAND, TOKEN, Process, Processes, free_port


def revisions(watcher: Process) -> list[int]:
    return [line["revision"] for line in watcher.lines if line.get("type") == "revision"]


def test_who_watches_misses_nothing_though_the_server_is_killed_and_started_again(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    bind = ("--bind", f"127.0.0.1:{free_port()}")
    server = processes.server(directory / "data", "none:", *bind)
    watcher = processes.start(
        [COMMAND, "watch", "--json", "--url", server.url], env={"CONFIG_MANAGER_TOKEN": TOKEN}
    )
    watcher.line(lambda line: line["type"] == "health")
    last = 0
    for n in range(20):
        last = server.put("door", {"n": n}).json()["revision"]
    server.process.kill_alone()  # with what it has told nobody yet
    server.start()
    watcher.line(lambda line: line.get("revision") == last, within=20)
    server.put("door", {"n": -1})
    watcher.line(lambda line: line.get("revision") == last + 1)
    assert revisions(watcher) == list(range(1, last + 2))

    # the end of the server is an ordinary end of each stream, and comes no later for them
    with ExitStack() as stack:
        streams: list[httpx.Response] = []
        for n in range(12):
            made = server.http.post("/api/v1/tokens", json={"name": f"t-{n}", "role": "read"})
            headers = {"Authorization": f"Bearer {made.json()['token']}"}
            client = stack.enter_context(
                httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=20)
            )
            streams += [
                stack.enter_context(client.stream("GET", "/api/v1/watch")) for _ in range(4)
            ]
        assert {one.status_code for one in streams} == {200}
        texts = [one.iter_text() for one in streams]
        assert all("retry: 1000" in next(text) for text in texts)
        server.process.popen.send_signal(signal.SIGTERM)
        for text in texts:
            list(text)  # raises RemoteProtocolError if it breaks off
        assert server.process.wait(12) == 0
    lines = [line for line in server.process.lines if line.get("path") == "/api/v1/watch"]
    assert len(lines) == 49
    watcher.popen.send_signal(signal.SIGINT)
    assert watcher.wait(5) == 0
