"""The client of this checkout beside a release's: time to import, time to open offline, memory.

Both run in turn, each from a directory with its code alone, with the same interpreter and packages. The kept
file that they open is the release's own, in `tests/data`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure, median
from tests.kit.earlier import CLIENT, VERSIONS, unpack

_ROOT = Path(__file__).resolve().parents[1]
_ROOMS = ("actors", "api", "client", "config", "storage")

_PROGRAM = """
import sys
code, state, service, *packages = sys.argv[1:]
sys.path[:0] = [code]
sys.path += packages
import json, threading
from pathlib import Path
from time import perf_counter, process_time

def status(name):
    return int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0])

from pydantic import BaseModel, SecretStr
class Settings(BaseModel):
    greeting: str = ""
    pin: SecretStr = SecretStr("")
before_kib = status("VmRSS")

at, cpu = [perf_counter()], process_time()
import config_manager.client
at.append(perf_counter())
from config_manager.client import Config
at.append(perf_counter())
imported = process_time() - cpu
where = {"state_dir": state, "mqtt_url": "mqtt://127.0.0.1:1", "env_file": None}
config = Config(Settings, service=service, **where)
config.__enter__()
at.append(perf_counter())
assert (config.source, bool(config.current.greeting)) == ("last-known-good", True)
assert config_manager.client.__file__ == code + "/config_manager/client/__init__.py"
found = {
    "package": at[1] - at[0],
    "imports": at[2] - at[1],
    "imports_cpu": imported,
    "opens": at[3] - at[2],
    "rss_mib": status("VmRSS") / 1024,
    "own_mib": (status("VmRSS") - before_kib) / 1024,
    "threads": status("Threads"),
}
began = perf_counter()
config.__exit__(None, None, None)
print(json.dumps({**found, "closes": perf_counter() - began}))
"""


class _Measure(NamedTuple):
    key: str
    name: str
    unit: str
    factor: float


_MEASURES = (
    _Measure("package", "client: import the package", "ms", 1000),
    _Measure("imports", "client: import Config", "ms", 1000),
    _Measure("imports_cpu", "client: both imports, CPU", "ms", 1000),
    _Measure("opens", "client: open offline", "ms", 1000),
    _Measure("closes", "client: close offline", "ms", 1000),
    _Measure("rss_mib", "client: memory, once open", "MiB", 1),
    _Measure("own_mib", "client: memory beyond pydantic's", "MiB", 1),
    _Measure("threads", "client: threads, once open", "", 1),
)


def client(directory: Path, *, rounds: int) -> Iterator[Figure]:
    """Each figure of the release, then of here."""
    release = VERSIONS[-1]
    service = release.expected["client"]["service"]
    codes = {
        release.version: unpack(release.wheel, directory / "release"),
        "here": _checkout(directory / "checkout"),
    }
    states = {name: release.copy(CLIENT, directory / f"state-{name}") for name in codes}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in codes}
    for number in range(rounds + 1):
        for name, code in codes.items():
            measured = _run(code, states[name], service)
            if number:  # the first one compiles
                found[name].append(measured)
    for key, title, unit, factor in _MEASURES:
        for name, measured_there in found.items():
            values = [factor * one[key] for one in measured_there]
            yield Figure(f"{title}: {name}", median(values), unit, max(values))


def _checkout(to: Path) -> Path:
    """The checkout's code as it would be installed: a directory to import from."""
    (to / "config_manager").mkdir(parents=True)
    for room in _ROOMS:
        (to / "config_manager" / room).symlink_to(_ROOT / room)
    return to.resolve()


def _run(code: Path, state: Path, service: str) -> dict[str, float]:
    packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    # -S and -I: see `tests.kit.earlier.python`
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(code), str(state), service, *packages]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise SystemExit(f"bench: the client in {code.name} failed: {done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
