"""From nothing to running: the server to its first healthy answer, a client from its cache, a command to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import httpx

from bench.contenders import SERVICE, TOKEN, Yard
from bench.figures import Figure, at_most, median
from tests.kit.processes import COMMAND, eventually, free_port

_CLIENT = """
import json, sys, time
began = time.process_time()
from config_manager.client.drivers.trio_driver import follow
import trio
imported = time.process_time() - began
async def main():
    began = time.perf_counter()
    async with follow("stt-worker", state_dir=sys.argv[1], mqtt_url="mqtt://127.0.0.1:1") as one:
        async for event in one:
            assert one.current is not None
            took = time.perf_counter() - began
            break
    print(json.dumps({"imported_s": imported, "took_s": took, "event": type(event).__name__}))
trio.run(main)
"""


def server(yard: Yard, mqtt_port: int, *, rounds: int) -> Iterator[Figure]:
    """The first start makes keys and database, later ones open them."""
    first: list[float] = []
    again: list[float] = []
    plain: list[float] = []
    for number in range(rounds):
        began = time.perf_counter()
        reference = yard.plain(mqtt_port)
        plain.append(time.perf_counter() - began)
        yard.stop(reference.process)
        (yard.directory / "plain.db").unlink()
        directory = yard.directory / f"start-{number}"
        for took in (first, again):
            port = free_port()
            began = time.perf_counter()
            process, _ = yard.start(
                f"start-{number}",
                [
                    *(COMMAND, "serve", "--data-dir", str(directory)),
                    *("--bind", f"127.0.0.1:{port}", "--mqtt-url", f"mqtt://127.0.0.1:{mqtt_port}"),
                ],
                {"CONFIG_MANAGER_BOOTSTRAP_TOKEN": TOKEN},
            )
            eventually(
                partial(_is_healthy, port),
                within=20,
                what="healthy",
                every=0.005,
            )
            took.append(time.perf_counter() - began)
            yard.stop(process)
    yield at_most("server: start to healthy", median(again), "s", 0.6, p99=max(again))
    yield Figure("server: start to healthy: plain", median(plain), "s", max(plain))
    yield Figure("server: very first start to healthy", median(first), "s", max(first))


def client(yard: Yard, mqtt_port: int, *, rounds: int) -> Iterator[Figure]:
    """A client that applied once, started again with no broker in reach."""
    ours = yard.ours(mqtt_port, "client-server")
    state = yard.directory / "client-state"
    root = yard.directory / "client-server-data" / "trust" / "root.json"
    _command("client", "trust", "init", "--state", str(state), "--root", str(root))
    url = f"mqtt://127.0.0.1:{mqtt_port}"
    follower, log = yard.start(
        "client",
        [COMMAND, "client", "run", "--state", str(state), "--service", SERVICE, "--mqtt-url", url],
    )
    eventually(lambda: '"applied"' in log.read_text(), within=30, what="the client applied")
    yard.stop(follower)
    yard.stop(ours.process)
    took: list[float] = []
    imported: list[float] = []
    whole: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = json.loads(_run([sys.executable, "-c", _CLIENT, str(state)]))
        whole.append(time.perf_counter() - began)
        if found["event"] != "Applied":
            raise SystemExit(f"bench: the client started with {found['event']}")
        took.append(found["took_s"])
        imported.append(found["imported_s"])
    yield at_most(
        "client: cache to running, no network", median(took) * 1000, "ms", 200, p99=max(took) * 1000
    )
    yield at_most("client: import, CPU", median(imported), "s", 0.3)
    yield Figure("client: whole process", median(whole), "s", max(whole))


def command(yard: Yard, mqtt_port: int, *, rounds: int) -> Iterator[Figure]:
    """Whole processes. Completion is what a shell waits for at each TAB."""
    ours = yard.ours(mqtt_port, "commands")
    url = f"http://{ours.host}:{ours.port}"
    asks = ["get", SERVICE, "--url", url]
    tab = {"COMP_WORDS": "config-manager s", "COMP_CWORD": "1"}
    for name, argv, environment in (
        ("--help, which looks at every command", ["--help"], {}),
        ("a REST call", asks, {"CONFIG_MANAGER_TOKEN": TOKEN}),
        ("completion", [], {**tab, "_CONFIG_MANAGER_COMPLETE": "bash_complete"}),
    ):
        took: list[float] = []
        for _ in range(rounds):
            began = time.perf_counter()
            _run([COMMAND, *argv], environment)
            took.append(time.perf_counter() - began)
        yield at_most(f"command: {name}", median(took), "s", 0.3, p99=max(took))
    yard.stop(ours.process)


def _is_healthy(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200


def _command(*arguments: str) -> None:
    _run([COMMAND, *arguments])


def _run(argv: list[str], environment: Mapping[str, str] = MappingProxyType({})) -> str:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise SystemExit(f"bench: {Path(argv[0]).name} failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""
