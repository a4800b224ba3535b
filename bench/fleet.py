"""Many at once: 1,000 services in one epoch; 15,000 updates; 50,000 entries of history."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx

from bench.contenders import AUTH, PATH, Contender, Yard
from bench.figures import Figure, at_most, median, percentile
from bench.load import drive, request

_SERVICES = 1_000


def epoch(yard: Yard, mqtt_port: int, *, rounds: int) -> Iterator[Figure]:
    """1,000 services changed in one call until a broker was seen to hold all of them."""
    ours = yard.ours(mqtt_port, "epoch")
    took: list[float] = []
    committed: list[float] = []
    url = f"http://{ours.host}:{ours.port}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        for number in range(rounds):
            services = {f"fleet-{n}": {"number": number} for n in range(_SERVICES)}
            body = json.dumps({"services": services})
            headers = AUTH | {"Content-Type": "application/json"}
            for wait, into in ((False, committed), (True, took)):
                began = time.perf_counter()
                answer = http.post(
                    "/api/v1/config/epoch",
                    content=body,
                    headers=headers,
                    params={"wait": "confirmed", "timeout": "30"} if wait else {},
                ).raise_for_status()
                into.append(time.perf_counter() - began)
                if wait and answer.json()["propagation"] != "confirmed":
                    raise SystemExit("bench: 1,000 services were not confirmed within 30 s")
    yard.stop(ours.process)
    yield Figure("1,000 services in one epoch: committed", median(committed) * 1000, "ms")
    yield at_most(
        "1,000 services in one epoch: all confirmed", median(took), "s", 1.5, p99=max(took)
    )


def memory(yard: Yard, mqtt_port: int, *, idle_s: float, updates: int) -> Iterator[Figure]:
    """Idle, then after many updates: what it costs to leave it running."""
    ours = yard.ours(mqtt_port, "idle")
    time.sleep(2)  # until the start has finished its work
    before, rss = ours.cpu_s(), ours.rss_mib()
    time.sleep(idle_s)
    cpu = 100 * (ours.cpu_s() - before) / idle_s
    yield at_most("idle: memory", rss, "MiB", 80)
    yield at_most("idle: CPU", cpu, "%", 0.5, note=f"over {idle_s:g} s, keepalive every 10 s")
    drive(ours.host, ours.port, ours.put, connections=16, count=updates // 3)
    warm = ours.rss_mib()
    drive(ours.host, ours.port, ours.put, connections=16, count=updates - updates // 3)
    after = ours.rss_mib()
    yield Figure(f"memory after {updates // 3:,} updates", warm, "MiB")
    yield at_most(
        f"memory after {updates:,} updates", after, "MiB", round(warm * 1.05), note="flat: + 5 %"
    )
    yard.stop(ours.process)


def history(yard: Yard, mqtt_port: int, *, entries: int, rounds: int) -> Iterator[Figure]:
    """Latency of GET, PUT and a history page with a long history, against none; and of what looks into it."""
    ours = yard.ours(mqtt_port, "history")
    page = request("GET", f"{PATH}/history?limit=50", host=f"{ours.host}:{ours.port}", headers=AUTH)
    _fill(ours, 200)  # a page is full from the start, so that both are the same work
    calls = {"GET": lambda _: ours.get, "PUT": ours.put, "history page": lambda _: page}
    short = {name: _p50_ms(ours, call, rounds) for name, call in calls.items()}
    _fill(ours, entries)
    for name, call in calls.items():
        now = _p50_ms(ours, call, rounds)
        note = f"{short[name]:.3g} ms at 200 entries"
        if name == "history page":
            yield at_most(f"{name} of 50 at {entries:,} entries", now, "ms", 1.0, note=note)
        else:
            limit = round(short[name] * 1.1, 3)
            yield at_most(f"{name} p50 at {entries:,} entries", now, "ms", limit, note=note)
    for name, call in _of_the_past(ours, entries).items():
        took = sorted(_latencies_s(ours, call, rounds, count=80))
        slowest = f"{name}, slowest, at {entries:,} entries"
        yield at_most(
            slowest, took[-1] * 1000, "ms", 50, note=f"p50 {percentile(took, 50) * 1000:.3g} ms"
        )
    yard.stop(ours.process)


def _of_the_past(ours: Contender, entries: int) -> dict[str, Callable[[int], bytes]]:
    def asking(path: Callable[[int], str]) -> Callable[[int], bytes]:
        host = f"{ours.host}:{ours.port}"
        return lambda number: request("GET", path(number), host=host, headers=AUTH)

    def any_one(number: int) -> int:
        return 1 + number * 7919 % entries  # a prime: all over the history

    return {
        "any revision": asking(lambda number: f"{PATH}?revision={any_one(number)}"),
        "any two": asking(lambda n: f"{PATH}/diff?from={any_one(n)}&to={any_one(n + 1)}"),
        "explain": asking(lambda _: f"{PATH}/explain"),
        "search in the history": asking(
            lambda _: "/api/v1/config/search?q=no-such-text&in=keys,values,history"
        ),
    }


def _fill(ours: Contender, count: int) -> None:
    load = drive(ours.host, ours.port, ours.put, connections=16, count=count)
    if load.refused:
        raise SystemExit(f"bench: {load.refused} PUTs refused while filling the history")


def _p50_ms(ours: Contender, call, rounds: int) -> float:  # type: ignore[no-untyped-def]
    return percentile(_latencies_s(ours, call, rounds), 50) * 1000


def _latencies_s(ours: Contender, call, rounds: int, *, count: int = 400) -> list[float]:  # type: ignore[no-untyped-def]
    found: list[float] = []
    for _ in range(rounds):
        found += drive(ours.host, ours.port, call, connections=1, count=count).latencies_s
    return found
