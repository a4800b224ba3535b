"""`just bench [GROUP ...] [--rounds N] [--quick] [--json FILE]`: figures beside their references.

Groups: requests, delivery, fleet, instances, start, versions, memory, history, cache, plans, receipts, streams, parts; all of them if none is named.
`--quick` shows that everything runs, in half a minute; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    cache,
    delivery,
    fleet,
    instances,
    parts,
    plans,
    receipts,
    requests,
    starting,
    streams,
    versions,
)
from bench.contenders import Yard, yard
from bench.figures import Figure, as_json, line

Group = Callable[[Yard, int], Iterator[Figure]]


def groups(rounds: int, *, quick: bool) -> dict[str, Group]:
    """Name → what measures it."""
    few = 1 if quick else rounds

    def start(at: Yard, port: int) -> Iterator[Figure]:
        yield from starting.server(at, port, rounds=few)
        yield from starting.client(at, port, rounds=few)
        yield from starting.command(at, port, rounds=few)

    return {
        "requests": lambda at, port: requests.run(
            at, port, rounds=few if quick else 2 * rounds, seconds=0.3 if quick else 0.8
        ),
        "delivery": lambda at, port: delivery.run(at, port, rounds=few, count=10 if quick else 80),
        "fleet": lambda at, port: fleet.epoch(at, port, rounds=few),
        "instances": lambda at, port: instances.run(
            at, port, rounds=few, count=20 if quick else 2_000
        ),
        "start": start,
        "versions": lambda at, _: versions.client(at.directory, rounds=1 if quick else 3 * rounds),
        "memory": lambda at, port: fleet.memory(
            at, port, idle_s=2 if quick else 20, updates=300 if quick else 15_000
        ),
        "history": lambda at, port: fleet.history(
            at, port, entries=300 if quick else 50_000, rounds=few
        ),
        "cache": lambda at, port: cache.run(
            at, port, services=10 if quick else 100, puts=2 if quick else 4 * rounds
        ),
        "plans": lambda at, port: plans.run(at, port, services=5 if quick else 200, rounds=few),
        "receipts": lambda at, port: receipts.run(
            at, port, counts=(10, 50) if quick else (10, 2_000), rounds=few
        ),
        "streams": lambda at, port: streams.run(
            at,
            port,
            rounds=few if quick else 2 * rounds,
            seconds=0.3 if quick else 0.8,
            puts=5 if quick else 50,
        ),
        "parts": lambda at, _: parts.run(at.directory, rounds=few),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("group", nargs="*", help="what to measure; everything where none is named")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each figure (default 5)")
    parser.add_argument("--quick", action="store_true", help="only show that everything runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args()
    known = groups(chosen.rounds, quick=chosen.quick)
    for name in chosen.group:
        if name not in known:
            parser.error(f"no group {name!r}; the groups: {', '.join(known)}")
    print(
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}, loopback; medians of "
        f"{1 if chosen.quick else chosen.rounds} rounds"
    )
    figures: list[Figure] = []
    for name in chosen.group or known:
        began = time.monotonic()
        print(f"\n{name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, yard(Path(folder)) as at:
            for figure in known[name](at, at.mosquitto()):
                print(line(figure), flush=True)
                figures.append(figure)
        print(f"  ({time.monotonic() - began:.0f} s)")
    if chosen.json:
        chosen.json.write_text(as_json(figures) + "\n")


if __name__ == "__main__":
    main()
