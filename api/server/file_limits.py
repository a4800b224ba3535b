"""How many files this process may have open, and how many of them are connections.

Each connection takes a descriptor, and so do the database, the cache and the brokers.
"""

from __future__ import annotations

import resource

from config_manager.api.rest.limits import MOST_CONNECTIONS

_FOR_OTHERS = 128
"""For the database, the cache, the brokers and callers that are being turned away."""
_WANTED = MOST_CONNECTIONS + 1024
_FEWEST = 16


def raise_limit() -> None:
    """The soft limit is usually 1,024, for programs that call select(); we don't."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(_FEWEST, min(MOST_CONNECTIONS, soft - _FOR_OTHERS))
