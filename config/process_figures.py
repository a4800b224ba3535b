"""What this process uses, under the names that Prometheus' own libraries have for it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from config_manager.config.metrics import Family, Labels, Sampled

_SELF = Path("/proc/self")
_STARTED_AT = 22
"""Where /proc/self/stat has the start, counted from 1 (proc(5)); what stands before the second is a name that may
hold anything."""


def process_figures() -> list[Family]:
    """One that /proc does not give now, such as without a free descriptor, has no series."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    return [
        Sampled(
            "process_cpu_seconds_total", "User and system time, in seconds.", cpu_s, kind="counter"
        ),
        Sampled("process_start_time_seconds", "When it started, in Unix seconds.", {(): _STARTED}),
        Sampled("process_resident_memory_bytes", "Memory in use.", _if_there(_resident_bytes)),
        Sampled("process_open_fds", "Open file descriptors.", _if_there(_descriptors)),
    ]


def _if_there(read: Callable[[], float]) -> dict[Labels, float]:
    try:
        return {(): read()}
    except OSError:
        return {}


def _resident_bytes() -> float:
    return int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> float:
    return sum(1 for _ in (_SELF / "fd").iterdir()) - 1  # the one that lists them


def _started() -> float:
    """Unix seconds. `systemd` may hide /proc/stat, so since when the machine runs comes from its clock."""
    after_name = (_SELF / "stat").read_text().rpartition(")")[2].split()
    since_boot_s = int(after_name[_STARTED_AT - 3]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot_s


_STARTED = _started()
