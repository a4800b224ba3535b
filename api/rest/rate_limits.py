"""Limits on how often: counted in windows, in bounded memory, and said in the standard's headers.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` says what is
allowed (`q` in `w` seconds), `RateLimit` what is left (`r`) and for how long (`t` seconds).
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from typing import NamedTuple

from config_manager.config.reverse_proxies import address_of

_V6_SITE_BITS = 64
"""A caller with one IPv6 address has 2^64 of them: the whole network counts as one."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """quota: how many within window_s seconds."""

    name: str
    quota: int
    window_s: int


class Standing(NamedTuple):
    """Where a caller stands. left: how many more they may make; reset_s: until the window begins anew."""

    policy: RateLimit
    left: int
    reset_s: int
    exceeded: bool

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        name, quota, window_s = self.policy.name, self.policy.quota, self.policy.window_s
        return (
            (b"ratelimit-policy", f'"{name}";q={quota};w={window_s}'.encode()),
            (b"ratelimit", f'"{name}";r={self.left};t={self.reset_s}'.encode()),
        )


class Limiter:
    """Counts by key, for at most `most_keys` at once: past them the oldest window is forgotten."""

    def __init__(self, policy: RateLimit, *, most_keys: int) -> None:
        self._policy = policy
        self._most_keys = most_keys
        self._windows: dict[str, tuple[float, int]] = {}
        """key → (when its window ends, how many there were in it); in the order of their ends"""

    def take(self, key: str, now: float) -> Standing:
        """Count one more; now: monotonic seconds. One that exceeds the quota is not counted."""
        until, used = self._windows.get(key, (-math.inf, 0))
        if until <= now:
            self._windows.pop(key, None)
            if len(self._windows) >= self._most_keys:
                del self._windows[next(iter(self._windows))]
            until, used = now + self._policy.window_s, 0
        exceeded = used >= self._policy.quota
        used = used if exceeded else used + 1
        self._windows[key] = (until, used)
        reset_s = max(1, math.ceil(until - now))
        return Standing(self._policy, self._policy.quota - used, reset_s, exceeded)


def address_key(client: str | None) -> str:
    """What counts as one address: an IPv4 address, an IPv6 /64."""
    address = address_of(client or "")
    if address is None:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((int(address), _V6_SITE_BITS), strict=False))
