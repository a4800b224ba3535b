"""The processes that are compared: ours, and each reference, started and ended with the run."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.load import request
from tests.kit.processes import COMMAND, MOSQUITTO, eventually, free_port

TOKEN = "bench-" + "t0ken" * 8
SERVICE = "stt-worker"
PATH = f"/api/v1/config/{SERVICE}"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def values(number: int) -> bytes:
    """A valid body that differs from the one before."""
    return b'{"whisper_model":"base.en","vad_speech_pad_ms":%d}' % (100 + number % 900)


@dataclass(slots=True)
class Contender:
    """One server under test. get, put: prepared requests; put gets a running number."""

    name: str
    process: subprocess.Popen[bytes]
    host: str
    port: int
    get: bytes
    put: Callable[[int], bytes]

    def cpu_s(self) -> float:
        """CPU time of the process so far, user and system, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Yard:
    """Owns the processes that it starts. Their output goes to files, so that reading it costs the run nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, argv: list[str], env: dict[str, str] | None = None
    ) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.directory / f"{name}.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**clean, **(env or {})},
            )
        self._started.append(process)
        return process, log

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def close(self) -> None:
        for process in reversed(self._started):
            if process.poll() is None:
                self.stop(process)

    # ── what is compared ───────────────────────────────────────────────────────────────────────

    def mosquitto(self) -> int:
        if MOSQUITTO is None:
            raise SystemExit("bench: mosquitto is not installed (apt-get install mosquitto)")
        port = free_port()
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 100000\nset_tcp_nodelay true\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        self.start("mosquitto", [MOSQUITTO, "-c", str(config)])
        eventually(lambda: _listens(port), within=5, what="mosquitto listens")
        return port

    def ours(self, mqtt_port: int, name: str = "ours") -> Contender:
        process, log = self.start(
            name,
            [
                *(COMMAND, "serve", "--data-dir", str(self.directory / f"{name}-data")),
                *("--bind", "127.0.0.1:0", "--mqtt-url", f"mqtt://127.0.0.1:{mqtt_port}"),
            ],
            {"CONFIG_MANAGER_BOOTSTRAP_TOKEN": TOKEN},
        )
        url = _ready(log, process)
        _put_first(url, AUTH)
        return _contender(name, process, url, AUTH)

    def bare(self, like: Contender) -> Contender:
        answer = httpx.get(f"http://{like.host}:{like.port}{PATH}", headers=AUTH, trust_env=False)
        file = self.directory / "bare-answer"
        own = [pair for pair in answer.headers.items() if pair[0] != "date"]
        file.write_bytes(json.dumps(own).encode() + b"\n" + answer.content)
        process, log = self.start("bare", [sys.executable, "-m", "bench.bare", str(file)])
        return _contender("bare", process, _ready(log, process), AUTH)

    def plain(self, mqtt_port: int) -> Contender:
        process, log = self.start(
            "plain",
            [sys.executable, "-m", "bench.plain", str(self.directory), str(mqtt_port)],
        )
        url = _ready(log, process)
        eventually(
            lambda: httpx.get(url + "/health", trust_env=False).json()["ok"],
            within=10,
            what="plain is healthy",
        )
        _put_first(url, {})
        return _contender("plain", process, url, {})

    def etcd(self) -> Contender | None:
        """One node of Debian's etcd through its JSON gateway, or None if it is not installed."""
        client, peer = free_port(), free_port()
        url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        try:
            process, _ = self.start(
                "etcd",
                [
                    *("etcd", "--data-dir", str(self.directory / "etcd"), "--log-level", "error"),
                    *("--listen-client-urls", url, "--advertise-client-urls", url),
                    *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
                    *("--initial-cluster", f"default={peer_url}"),
                ],
            )
        except FileNotFoundError:
            return None
        eventually(
            lambda: httpx.get(url + "/health", trust_env=False).json()["health"] == "true",
            within=15,
            what="etcd is healthy",
        )
        key = base64.b64encode(SERVICE.encode()).decode()
        host = f"127.0.0.1:{client}"

        def put(number: int) -> bytes:
            body = json.dumps({"key": key, "value": base64.b64encode(values(number)).decode()})
            return request("POST", "/v3/kv/put", body.encode(), host=host)

        get = request("POST", "/v3/kv/range", json.dumps({"key": key}).encode(), host=host)
        return Contender("etcd", process, "127.0.0.1", client, get, put)


_JSON = {"Content-Type": "application/json"}


def _put_first(url: str, headers: dict[str, str]) -> None:
    answer = httpx.put(url + PATH, content=values(0), headers=headers | _JSON, trust_env=False)
    answer.raise_for_status()


def _contender(
    name: str, process: subprocess.Popen[bytes], url: str, headers: dict[str, str]
) -> Contender:
    host, _, port = url.removeprefix("http://").rpartition(":")
    at = f"{host}:{port}"
    return Contender(
        name,
        process,
        host,
        int(port),
        request("GET", PATH, host=at, headers=headers),
        lambda number: request("PUT", PATH, values(number), host=at, headers=headers),
    )


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _ready(log: Path, process: subprocess.Popen[bytes]) -> str:
    """The url of the line that says `ready`."""

    def said() -> str | None:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (event := _parsed(line)).get("event") == "ready":
                return str(event["url"])
        if process.poll() is not None:
            raise SystemExit(f"bench: {log.name} ended:\n{log.read_text()[-2000:]}")
        return None

    return eventually(said, within=20, what=f"{log.name} says ready")


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def yard(directory: Path) -> Iterator[Yard]:
    """A place to start processes in; leaving ends them."""
    opened = Yard(directory)
    try:
        yield opened
    finally:
        opened.close()
