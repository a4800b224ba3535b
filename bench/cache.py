"""Bytes that the last-known-good cache writes: one small PUT beside a large fleet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from bench.contenders import AUTH, Yard
from bench.figures import Figure, at_most, median
from tests.kit.processes import eventually

_KILOBYTES = 50
_SETTLED_S = 3.0
"""The cache is written at most once a second."""
_MOST_BYTES = 2_000


class Kept(NamedTuple):
    """The cache file as it is now."""

    inode: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Kept:
        found = path.stat()
        return cls(found.st_ino, found.st_size)


def written(before: Kept, after: Kept) -> int:
    """Bytes written between the two: what was appended, or a whole new file."""
    return after.size - before.size if after.inode == before.inode else after.size


def run(yard: Yard, mqtt_port: int, *, services: int, puts: int) -> Iterator[Figure]:
    """Bytes written to the cache for one small PUT each second, beside the size of the whole."""
    ours = yard.ours(mqtt_port, "cache")
    path = yard.directory / "cache-data" / "config.lkg"
    each: list[int] = []
    with httpx.Client(
        base_url=f"http://{ours.host}:{ours.port}", headers=AUTH, timeout=30, trust_env=False
    ) as http:
        for number in range(services):
            body = {"text": "x" * 1_000 * _KILOBYTES}
            http.put(f"/api/v1/config/large-{number}", json=body).raise_for_status()
        time.sleep(_SETTLED_S)
        for number in range(puts):
            before = Kept.of(path)
            http.put("/api/v1/config/small", json={"n": number}).raise_for_status()
            eventually(lambda was=before: Kept.of(path) != was, within=10, what="it is kept")  # type: ignore[misc]
            each.append(written(before, Kept.of(path)))
    yard.stop(ours.process)
    yield at_most(
        f"cache: a small PUT beside {services} × {_KILOBYTES} KB",
        median(each),
        "B",
        _MOST_BYTES,
        p99=max(each),
        note=f"the whole of it is {path.stat().st_size / 2**20:.1f} MiB",
    )
