"""64 streams of `GET /api/v1/watch` beside GETs and PUTs: what they cost others, and how soon they tell.

    python -m bench.streams HOST PORT < REQUESTS

opens a stream for each of these requests (a JSON array of texts) and reads them, until it is ended.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpx

from bench.contenders import AUTH, Contender, Yard
from bench.figures import Figure, at_most, median, percentile, ratio
from bench.load import drive, request
from config_manager.api.rest.limits import MOST_STREAMS, MOST_STREAMS_OF_ONE

_RECEIVE_BYTES = 65_536


def run(yard: Yard, mqtt_port: int, *, rounds: int, seconds: float, puts: int) -> Iterator[Figure]:
    ours = yard.ours(mqtt_port)
    wanted = list(_requests(ours))
    for method in ("GET", "PUT"):
        _per_second(ours, method, 16, 0.3)
    for method, connections in (("GET", 16), ("PUT", 16), ("GET", 1), ("PUT", 1)):
        yield from _beside(ours, wanted, method, connections, rounds, seconds)
    yield from _how_soon(ours, wanted, puts)
    yield from _at_rest(ours, wanted, seconds=rounds * seconds)


def _requests(ours: Contender) -> Iterator[str]:
    """A stream for each place: of a token four."""
    at = f"{ours.host}:{ours.port}"
    with httpx.Client(base_url=f"http://{at}", headers=AUTH, trust_env=False) as http:
        for number in range(MOST_STREAMS // MOST_STREAMS_OF_ONE):
            body = {"name": f"watcher-{number}", "role": "read"}
            token = http.post("/api/v1/tokens", json=body).json()["token"]
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(MOST_STREAMS_OF_ONE):
                yield request("GET", "/api/v1/watch", host=at, headers=headers).decode()


@contextmanager
def _watched(ours: Contender, wanted: Sequence[str]) -> Iterator[None]:
    """By another process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.streams", ours.host, str(ours.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(wanted) + "\n")
        process.stdin.flush()
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def _beside(
    ours: Contender,
    wanted: Sequence[str],
    method: str,
    connections: int,
    rounds: int,
    seconds: float,
) -> Iterator[Figure]:
    alone, beside = list[float](), list[float]()
    waits, cpu_s = {False: list[float](), True: list[float]()}, {False: 0.0, True: 0.0}
    for _ in range(rounds):
        for rates, is_watched in ((alone, False), (beside, True)):
            with ExitStack() as stack:
                if is_watched:
                    stack.enter_context(_watched(ours, wanted))
                before = ours.cpu_s()
                rate, waited = _per_second(ours, method, connections, seconds)
                cpu_s[is_watched] += ours.cpu_s() - before
            rates.append(rate)
            waits[is_watched] += waited
    what = f"{method}, {connections} connection{'s' * (connections > 1)}"
    for is_watched, rates in ((False, alone), (True, beside)):
        p50, p99 = (percentile(waits[is_watched], p) * 1000 for p in (50, 99))
        name = f"{what}: " + ("64 streams" if is_watched else "no stream")
        cost = f"{cpu_s[is_watched] / len(waits[is_watched]) * 1e6:.0f} µs of CPU each"
        note = f"p50 {p50:.3g} ms, p99 {p99:.3g} ms, {cost}"
        yield Figure(name, median(rates), "/s", note=note)
    pairs = [b / a for a, b in zip(alone, beside, strict=True)]
    yield ratio(f"{what}: with streams of without", median(pairs))


def _per_second(
    ours: Contender, method: str, connections: int, seconds: float
) -> tuple[float, Sequence[float]]:
    prepared = ours.put if method == "PUT" else lambda _: ours.get
    load = drive(ours.host, ours.port, prepared, connections=connections, seconds=seconds)
    if load.refused:
        raise SystemExit(f"bench: {load.refused} of the {method}s were refused")
    return load.per_second, load.latencies_s


def _how_soon(ours: Contender, wanted: Sequence[str], puts: int) -> Iterator[Figure]:
    """From the first byte of a PUT until the first, and until the last of the streams has its event."""
    first, last = list[float](), list[float]()
    with ExitStack() as stack, socket.create_connection((ours.host, ours.port)) as writer:
        streams = [stack.enter_context(_opened(ours, one)) for one in wanted]
        poll = select.epoll()
        for one in streams:
            poll.register(one, select.EPOLLIN)
        while len(poll.poll(1)) < len(streams):
            """Until each has begun."""
        for number in range(puts):
            for one in streams:
                _drain(one)
            began = time.perf_counter()
            writer.sendall(ours.put(number))
            waiting = {one.fileno(): one for one in streams}
            while waiting:
                for descriptor, _ in poll.poll(5):
                    if descriptor in waiting and b"event: revision" in _drain(waiting[descriptor]):
                        del waiting[descriptor]
                        if len(waiting) == len(streams) - 1:
                            first.append(time.perf_counter() - began)
            last.append(time.perf_counter() - began)
            writer.recv(_RECEIVE_BYTES)
            time.sleep(0.1)
    for name, found in (("the first", first), ("the last", last)):
        p50, p99 = (percentile(found, p) * 1000 for p in (50, 99))
        yield at_most(f"PUT → {name} of 64 streams", p50, "ms", 100, p99=p99)


def _drain(stream: socket.socket) -> bytes:
    try:
        return stream.recv(_RECEIVE_BYTES)
    except BlockingIOError:
        return b""


def _opened(ours: Contender, wanted: str) -> socket.socket:
    stream = socket.create_connection((ours.host, ours.port))
    stream.sendall(wanted.encode())
    stream.setblocking(False)
    return stream


def _at_rest(ours: Contender, wanted: Sequence[str], *, seconds: float) -> Iterator[Figure]:
    before_mib = ours.rss_mib()
    idle = _cpu_percent(ours, seconds)
    with _watched(ours, wanted):
        watched = _cpu_percent(ours, seconds)
        yield Figure("memory of 64 streams", ours.rss_mib() - before_mib, "MiB")
    note = f"{idle:.2g} % without"
    yield Figure("CPU of 64 streams, nothing happens", watched, "%", note=note)


def _cpu_percent(ours: Contender, seconds: float) -> float:
    before = ours.cpu_s()
    time.sleep(seconds)
    return 100 * (ours.cpu_s() - before) / seconds


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    poll, streams = select.epoll(), dict[int, socket.socket]()
    for one in json.loads(sys.stdin.readline()):
        stream = socket.create_connection((host, port))
        stream.sendall(one.encode())
        if not stream.recv(_RECEIVE_BYTES).startswith(b"HTTP/1.1 200"):
            raise SystemExit("bench: a stream was refused")
        streams[stream.fileno()] = stream
        poll.register(stream, select.EPOLLIN)
    print("watching", flush=True)
    while True:
        for descriptor, _ in poll.poll():
            streams[descriptor].recv(_RECEIVE_BYTES)


if __name__ == "__main__":
    main()
