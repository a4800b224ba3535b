"""What a service imports to follow its configuration; nothing is loaded before it is used.

from config_manager.client import Applied, follow

async with follow("stt-worker", state_dir="state", mqtt_url="mqtt://localhost") as follower:
    async for event in follower:
        if isinstance(event, Applied):
            use(event.update.config)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config_manager.client.actor import Follower, follow
    from config_manager.client.identity import trust_init
    from config_manager.client.subscriber import Applied, Deleted, Event, Fresh, Refused, Stale

__all__ = [
    "Applied",
    "Deleted",
    "Event",
    "Follower",
    "Fresh",
    "Refused",
    "Stale",
    "follow",
    "trust_init",
]

_HOMES = {"Follower": "actor", "follow": "actor", "trust_init": "identity"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'subscriber')}"), name)
