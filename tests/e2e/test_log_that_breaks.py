"""Standard output breaks while the server runs: full, paused, gone or closed. Everything else goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, product
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.kit.long import few_in_the_suite
from tests.kit.processes import COMMAND, TOKEN, Processes, eventually, free_port, listening

LONG = "/api/v1/config/" + "x" * 300
"""A name that no service has. Its access lines are as long as they get."""
MANY = {"pipe": 3000, "socket": 1700}
"""So many long lines are more than a pipe of 1 MiB or a socket takes, and what is kept besides."""

_FILE_LIMIT = 64 * 1024 * 1024
_ROOM = 20_000
"""Bytes until a log is full: at most 150 lines."""
_TOO_MANY = 1300
"""Lines that are more than there is room for, and what is kept besides."""


class Running:
    def __init__(self, popen: subprocess.Popen[bytes], url: str) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=20,
            trust_env=False,
        )

    def ask(self, times: int, path: str = "/api/v1/config/stt-worker") -> None:
        for _ in range(times):
            answer = self.http.get(path, headers={"X-Request-ID": "i" * 64})
            assert answer.status_code in (200, 400, 404)

    def health(self) -> dict[str, Any]:
        answer = self.http.get("/health")
        assert answer.status_code == 200
        health: dict[str, Any] = answer.json()
        return health

    def memory(self) -> int:
        """Its resident memory in kB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def end(self) -> int:
        self.http.close()
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(12)


@contextmanager
def serving(
    directory: Path, stdout: int | IO[bytes], *flags: str, mqtt_url: str = "none:", shell: str = ""
) -> Iterator[Running]:
    """A server whose standard output is this. shell: redirections, as a shell has them."""
    bind = f"127.0.0.1:{free_port()}"
    argv = [COMMAND, "serve", "--mqtt-url", mqtt_url, "--bind", bind, *flags]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
    with (directory / "stderr").open("wb") as stderr:
        popen = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {shell}', "sh", *argv] if shell else argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=directory,
            env={
                **clean,
                "CONFIG_MANAGER_DATA_DIR": str(directory / "data"),
                "CONFIG_MANAGER_BOOTSTRAP_TOKEN": TOKEN,
                "CONFIG_MANAGER_HEARTBEAT_SECONDS": "1",
            },
        )
    running = Running(popen, f"http://{bind}")
    try:
        eventually(lambda: running.http.get("/health"), within=20, what="it serves")
        yield running
    finally:
        running.http.close()
        popen.kill()
        popen.wait()
    assert (directory / "stderr").read_bytes() == b""


def read_all(descriptor: int) -> list[dict[str, Any]]:
    """Until its writers are gone; each line strictly JSON."""
    with os.fdopen(descriptor, "rb") as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_reader_that_leaves_takes_nothing_with_it(tmp_path: Path, log_format: str) -> None:
    reader, writer = os.pipe()
    with serving(tmp_path, writer, "--log-format", log_format) as server:
        os.close(writer)
        os.close(reader)
        put = server.http.put("/api/v1/config/stt-worker", json={"whisper_model": "small"})
        assert put.status_code == 201
        server.ask(1, "/api/v1/tokens")  # Quart is there now, and its memory
        server.ask(1100)
        before = server.memory()
        server.ask(1500)
        assert server.memory() - before < 3_000  # it was 4 kB a request
        health = server.health()
        assert health["ok"]
        [reason] = health["reasons"]
        assert reason.startswith("log lines dropped: ")
        assert reason.endswith("; 1000 wait: Broken pipe")
        assert server.end() == 0


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_pauses_stops_nothing_and_learns_what_it_missed(
    tmp_path: Path, kind: str
) -> None:
    """REST, the beacon and SIGTERM go on. A socket is what journald reads from."""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (one.detach() for one in socket.socketpair())
    with Processes() as processes:
        broker = processes.broker(tmp_path / "broker")
        with serving(tmp_path, writer, mqtt_url=broker.url) as server:
            os.close(writer)
            server.ask(MANY[kind], LONG)
            [reason] = server.health()["reasons"]
            assert reason.endswith("its reader pauses")
            with listening(broker.port, "system/keepalive/config-manager") as listener:
                listener.message("system/keepalive/config-manager")
                listener.message("system/keepalive/config-manager")
            assert server.end() == 0
    lines = read_all(reader)
    asked = [line for line in lines if line["event"] == "request" and line["status"] != 200]
    times = [line["timestamp"] for line in lines]
    assert times == sorted(times)
    assert 0 < len(asked) < MANY[kind]


def test_a_reader_that_goes_on_is_told_how_many_it_missed(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with serving(tmp_path, writer) as server:
        os.close(writer)
        server.ask(MANY["pipe"], LONG)
        [reason] = server.health()["reasons"]
        assert reason.endswith("its reader pauses")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_all, reader)
            eventually(lambda: server.health()["reasons"] == [], within=10, what="all is written")
            assert server.end() == 0
            lines = reading.result(10)
    [missing] = [line for line in lines if "dropped" in line]
    assert missing["level"] == "warning"
    assert missing["event"] == f"log lines dropped: {missing['dropped']}"
    # and the line of the first look at its health
    asked = [line for line in lines if line["event"] == "request" and line["status"] != 200]
    assert MANY["pipe"] <= len(asked) + missing["dropped"] <= MANY["pipe"] + 20


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_log_that_is_full_for_a_while_goes_on_once_there_is_room(
    tmp_path: Path, log_format: str
) -> None:
    """The largest file that the process may write stands for a disk that is full."""
    log = tmp_path / "log"
    log.touch()
    os.truncate(log, _FILE_LIMIT - _ROOM)
    with log.open("ab") as stream, limited_files():
        serve = serving(tmp_path, stream, "--log-format", log_format)
        with serve as server:
            server.ask(_TOO_MANY)
            [reason] = server.health()["reasons"]
            assert reason.endswith("wait: File too large")
            assert server.http.put("/api/v1/config/one", json={"a": 1}).status_code == 201
            os.truncate(log, 0)
            server.ask(10)
            eventually(lambda: server.health()["reasons"] == [], within=10, what="it is written")
            assert server.end() == 0
    lines = log.read_text().splitlines()
    assert any("log lines dropped: " in line for line in lines)
    if log_format == "json":
        assert "stopping" in [json.loads(line)["event"] for line in lines]


@contextmanager
def limited_files() -> Iterator[None]:
    """For the processes that are started meanwhile; this one writes no such file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


REDIRECTIONS = (">&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>&1")


@pytest.mark.parametrize(
    ("redirection", "log_format"),
    few_in_the_suite(
        product(REDIRECTIONS, ("json", "console")),
        list(zip(REDIRECTIONS, cycle(("json", "console")), strict=False)),
    ),
)
def test_output_that_was_closed_at_the_start_is_as_if_nobody_read_it(
    tmp_path: Path, redirection: str, log_format: str
) -> None:
    serve = serving(tmp_path, subprocess.DEVNULL, "--log-format", log_format, shell=redirection)
    with serve as server:
        server.ask(50)
        for number in (0, 1, 2):
            assert str(tmp_path / "data") not in str(
                Path(f"/proc/{server.pid}/fd/{number}").readlink()
            )
        assert server.end() == 0


def test_a_stop_in_order_leaves_no_line_behind_though_its_reader_is_late(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with serving(tmp_path, writer) as server:
        os.close(writer)
        server.ask(600)
        server.http.close()
        server.popen.send_signal(signal.SIGTERM)
        lines = read_all(reader)
        assert server.popen.wait(12) == 0
    assert sum(line["event"] == "request" and "stt-worker" in line["path"] for line in lines) == 600
    assert "stopping" in [line["event"] for line in lines]


FOLLOW = """
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_client_whose_own_log_breaks_goes_on_telling_what_it_applied(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    state = directory / "state"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    run = ["client", "run", "--state", str(state), "--service", "one", "--mqtt-url", broker.url]
    follower = processes.start([sys.executable, "-c", FOLLOW, COMMAND, *run])
    for number in range(3):
        revision = server.put("one", {"a": number}).json()["revision"]
        follower.event("applied", revision=revision)
    assert follower.terminate() == 0


def test_a_client_whose_reader_pauses_ends_at_a_signal(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    state = directory / "state"
    processes.pin(state, server.data_dir / "trust" / "root.json")
    run = ["client", "run", "--state", str(state), "--service", "one", "--mqtt-url", broker.url]
    follower = subprocess.Popen(
        [COMMAND, *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=directory
    )
    try:
        assert follower.stdout is not None
        assert follower.stderr is not None
        server.put("one", {"a": "x" * 100_000})  # more than a pipe holds
        first = follower.stdout.read(1)  # it has begun to write
        assert first == b"{"
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(12) == 0
        assert b"Fatal" not in follower.stderr.read()
    finally:
        follower.kill()
        follower.communicate()
