"""`python -m tests.torture [--short] [--cycles N] [--seed S]`: processes that get killed.

The last line says `N passed, N failed`; exit 1 where anything failed. `--seed` replays the choice
of moments (the machine's own timing stays what it is).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from tests.kit.processes import (
    TOKEN,
    Broker,
    Processes,
    Server,
    arrived,
    port_of,
    workshop,
)
from tests.torture.planted import chosen, planted
from tests.torture.rubbish import storm
from tests.torture.stories import hang_ups, race

WRITERS = 4


class Tally:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, name: str, story: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            said = story()
        except Exception:
            self.failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"ok     {name} ({time.monotonic() - began:.1f} s) {said}", flush=True)


class Writer(threading.Thread):
    """Writes to one service until stopped; remembers what was acknowledged."""

    def __init__(self, url: str, service: str) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.acknowledged: list[tuple[int, str]] = []
        self._url = url
        self.stopping = threading.Event()

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=10, trust_env=False) as http:
            number = 0
            while not self.stopping.is_set():
                number += 1
                try:
                    answer = http.put(f"/api/v1/config/{self.service}", json={"n": number})
                except httpx.TransportError:
                    return  # the server was killed: this write was not acknowledged
                if answer.is_success:
                    body = answer.json()
                    self.acknowledged.append((body["revision"], body["correlation_id"]))


def history(server: Server, service: str, back_to: int) -> dict[int, str]:
    """revision → correlation id, from now back to a revision."""
    found: dict[int, str] = {}
    before: int | None = None
    while True:
        query = {"limit": 100} | ({} if before is None else {"before": before})
        page = server.get(f"/api/v1/config/{service}/history", params=query)
        if page.status_code == 404:
            return found
        assert page.status_code == 200, page.text
        body = page.json()
        found |= {entry["revision"]: entry["correlation_id"] for entry in body["entries"]}
        before = body["next_before"]
        if before is None or before < back_to:
            return found


def retained_equals_committed(server: Server, within: float) -> None:
    listed = server.get("/api/v1/config").json()["services"]
    wanted = {item["service"]: item["revision"] for item in listed if item["revision"]}
    arrived(port_of(server.mqtt_url), server, wanted, within=within)


def kill_cycle(server: Server, luck: random.Random) -> str:
    """Writers at work, kill -9 at a random moment, start again: nothing acknowledged is missing."""
    writers = [Writer(server.url, f"writer-{n}") for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    after = luck.uniform(0.0, 0.6)
    time.sleep(after)  # the random moment itself, not a wait for anything
    server.kill()
    for writer in writers:
        writer.stopping.set()
        writer.join(15)
        assert not writer.is_alive(), f"a write to {writer.service} hangs"
    server.start()
    ready = time.monotonic()
    assert server.health()["mode"] == "normal", server.health()
    retained_equals_committed(server, within=5)
    settled = time.monotonic() - ready
    total = 0
    for writer in writers:
        if writer.acknowledged:
            held = history(server, writer.service, writer.acknowledged[0][0])
            missing = [it for it in writer.acknowledged if held.get(it[0]) != it[1]]
            assert not missing, f"{writer.service}: acknowledged and gone: {missing[:5]}"
            total += len(writer.acknowledged)
    return f"killed after {after:.3f} s, {total} acknowledged, retained after {settled:.2f} s"


def broker_away(server: Server, broker: Broker, seconds: float) -> str:
    writer = Writer(server.url, "patient")
    writer.start()
    broker.kill()
    time.sleep(seconds)  # the story: it is away for this long
    broker.start()
    back = time.monotonic()
    writer.stopping.set()
    writer.join(15)
    assert writer.acknowledged, "writes stopped with the broker"
    retained_equals_committed(server, within=10)
    held = history(server, "patient", writer.acknowledged[0][0])
    assert all(held.get(revision) == name for revision, name in writer.acknowledged)
    return f"{len(writer.acknowledged)} written meanwhile, converged in {time.monotonic() - back:.2f} s"


def one_race(server: Server, number: int) -> str:
    statuses = race(server, f"race-{number % 5}", writers=100)
    assert statuses.count(200) == 1, statuses
    assert statuses.count(412) == 99, statuses
    return ""


def raw_requests(server: Server, requests: int, seed: int) -> str:
    found = storm(server, requests, seed)
    assert server.process.alive
    assert server.get("/health").status_code == 200
    assert not [line for line in server.process.lines if line.get("level") in ("error", "critical")]
    return str(dict(found.most_common()))


def marked_tests() -> str:
    """Those that take too long for the suite, and its made-up messages again, 100,000 of them."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "torture or mutants",
            "-n",
            "2",
            "-o",
            "timeout=900",
        ],
        env={**os.environ, "MUTANTS": "100000"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout.strip().splitlines()[-1]


def run(processes: Processes, directory: Path, tally: Tally, options: argparse.Namespace) -> None:
    luck = random.Random(options.seed)
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    cycles = options.cycles if options.cycles is not None else 100
    for number in range(cycles):
        tally.check(f"kill -9, cycle {number + 1} of {cycles}", lambda: kill_cycle(server, luck))
        if not server.process.alive:
            server.start()
    rounds = 50
    for number in range(rounds):
        tally.check(
            f"100 writers, one If-Match, round {number + 1} of {rounds}",
            partial(one_race, server, number),
        )
    calls = 1000
    tally.check(
        f"{calls} callers who hang up",
        lambda: f"{hang_ups(server, 'hang-up', calls=calls)} committed",
    )
    away = 5.0 if options.short else 60.0
    tally.check(f"broker away for {away:.0f} s", lambda: broker_away(server, broker, away))
    storm_of = 20_000 if options.short else 100_000
    tally.check(f"{storm_of} raw requests", lambda: raw_requests(server, storm_of, options.seed))
    tally.check("SIGTERM ends it with 0", lambda: f"exit {_zero(server.stop())}")


def _zero(code: int) -> int:
    assert code == 0, f"exit {code}"
    return code


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.torture", description=__doc__)
    parser.add_argument(
        "--short",
        action="store_true",
        help="the broker is away for 5 s, not 60; 20,000 raw requests, not 100,000; 5 planted bugs, not all",
    )
    parser.add_argument("--cycles", type=int, help="how often the server is killed")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    print(f"torture: seed {options.seed} (replay with --seed {options.seed})", flush=True)
    tally = Tally()
    try:
        with workshop() as (processes, directory):
            run(processes, directory, tally, options)
        tally.check("the suite's long tests", marked_tests)
        some = chosen(random.Random(options.seed), short=options.short)
        tally.check("planted", partial(planted, some))
    except Exception:
        tally.failed += 1
        traceback.print_exc()
    if tally.failed:
        print(f"replay with: python -m tests.torture --seed {options.seed}")
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
