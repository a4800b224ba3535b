"""GET and PUT per second at 16 connections, and their latency at one: ours beside each reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.contenders import Contender, Yard
from bench.figures import Figure, at_most, median, percentile, ratio
from bench.load import Load, drive


def run(yard: Yard, mqtt_port: int, *, rounds: int, seconds: float) -> Iterator[Figure]:
    """Each round asks every contender, so that whatever else the machine does affects all of them."""
    ours = yard.ours(mqtt_port)
    contenders = [ours, yard.bare(ours), yard.plain(mqtt_port)]
    if (etcd := yard.etcd()) is not None:
        contenders.append(etcd)
    for one in contenders:  # warm up: caches, branch predictors, lazy imports
        _drive(one, "GET", 16, 0.3)
        _drive(one, "PUT", 16, 0.3)
    for method, connections in (("GET", 16), ("PUT", 16), ("GET", 1), ("PUT", 1)):
        yield from _compare(contenders, method, connections, rounds, seconds)


def _compare(
    contenders: list[Contender], method: str, connections: int, rounds: int, seconds: float
) -> Iterator[Figure]:
    rates: dict[str, list[float]] = {one.name: [] for one in contenders}
    latencies: dict[str, list[float]] = {one.name: [] for one in contenders}
    cpu_s: dict[str, float] = dict.fromkeys(rates, 0.0)
    for _ in range(rounds):
        for one in contenders:
            before = one.cpu_s()
            load = _drive(one, method, connections, seconds)
            cpu_s[one.name] += one.cpu_s() - before
            rates[one.name].append(load.per_second)
            latencies[one.name] += load.latencies_s
    rate = {name: median(found) for name, found in rates.items()}
    what = f"{method}, {connections} connection{'s' * (connections > 1)}"
    for name, found in latencies.items():
        p50, p99 = (percentile(found, p) * 1000 for p in (50, 99))
        cost = f"{cpu_s[name] / len(found) * 1e6:.0f} µs of CPU each"
        if connections > 1:
            note = f"p50 {p50:.3g} ms, p99 {p99:.3g} ms, {cost}"
            yield Figure(f"{what}: {name}", rate[name], "/s", note=note)
        elif name == "ours":
            goal = 0.25 if method == "GET" else 0.8
            yield at_most(f"{what}: {name}, p50", p50, "ms", goal, p99=p99, note=cost)
        else:
            yield Figure(f"{what}: {name}, p50", p50, "ms", p99, cost)
    if connections > 1:
        goal = 80 if method == "GET" else 25
        for name in ("bare", "plain", "etcd"):
            if name in rates:
                # round by round: whatever else the machine does affects both
                pairs = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
                yield ratio(
                    f"{what}: ours of {name}", median(pairs), goal=goal if name == "bare" else None
                )


def _drive(one: Contender, method: str, connections: int, seconds: float) -> Load:
    prepared: Callable[[int], bytes] = one.put if method == "PUT" else lambda _: one.get
    load = drive(one.host, one.port, prepared, connections=connections, seconds=seconds)
    if load.refused:
        raise SystemExit(f"bench: {one.name} refused {load.refused} of its {method}s")
    return load
