"""Watching a real server: over its death and its end, by the command and by fifty at once."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.kit.pages import DOCS, Page
from tests.kit.processes import COMMAND, TOKEN, Process, Processes, eventually, free_port
from tests.kit.shell import Shell, steps_of


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
            for _ in range(4):
                stream = server.http.stream("GET", "/api/v1/watch", headers=headers)
                streams.append(stack.enter_context(stream))
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


@pytest.mark.torture
def test_the_page_shows_what_comes_and_its_program_keeps_its_place(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    environment = {"CONFIG_MANAGER_TOKEN": TOKEN, "CONFIG_MANAGER_URL": server.url}
    page = Page("watch.md")
    page.write(directory)
    program = processes.start(["python3", str(directory / "watch.py")], env=environment)
    shell = Shell(server, directory, environment)
    code, said = shell.run("bash", "-ec", steps_of(DOCS / "watch.md"))
    assert code == 0, said
    assert said.count("event: health") == 2
    for number, reason in enumerate(["first visitor", "closing time"], 1):
        assert said.count(f'"reason":"{reason}"') == 1
        assert f"id: {number}\ndata: " in said
        eventually(
            lambda: f"{number} ['door'] {reason}" in program.text,  # noqa: B023  asked at once
            within=10,
            what=reason,
        )
    program.kill()
