"""What a service imports to run with settings that can be changed while it runs.

asyncio and Trio:

    async with open_config(SttSettings, service="stt-worker") as config:
        use(config.current)
        async for change in config.changes(): ...

threads:

    with Config(SttSettings, service="stt-worker") as config:
        use(config.current)

Nothing is loaded before it is used: no server, no database, and no event loop but yours.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import BaseModel

    from config_manager.actors.mqtt import Transport
    from config_manager.client import aio_connection
    from config_manager.client.actor import Follower, follow
    from config_manager.client.config import LiveConfig, OpenConfig
    from config_manager.client.identity import trust_init
    from config_manager.client.instance import Change, NotNow
    from config_manager.client.opening import OptionArguments
    from config_manager.client.precedence import Explanation
    from config_manager.client.subscriber import Applied, Deleted, Event, Fresh, Refused, Stale
    from config_manager.client.threads import Config
    from config_manager.config.world import World

    M = TypeVar("M", bound=BaseModel)

    class _OptionsAndSeams(OptionArguments, total=False):
        connect: aio_connection.Connect | None
        transport: Transport | None
        world: World | None


__all__ = [
    "Applied",
    "Change",
    "Config",
    "Deleted",
    "Event",
    "Explanation",
    "Follower",
    "Fresh",
    "LiveConfig",
    "NotNow",
    "OpenConfig",
    "Refused",
    "Stale",
    "follow",
    "open_config",
    "trust_init",
]

_HOMES = {
    "Change": "instance",
    "Config": "threads",
    "Explanation": "precedence",
    "Follower": "actor",
    "LiveConfig": "config",
    "NotNow": "instance",
    "OpenConfig": "config",
    "follow": "actor",
    "trust_init": "identity",
}


def open_config(
    model: type[M],
    *,
    apply: Callable[[Change[M]], Awaitable[None] | None] | None = None,
    **options: Unpack[_OptionsAndSeams],
) -> AbstractAsyncContextManager[LiveConfig[M]]:
    """A service's typed, live configuration, under asyncio or Trio, whichever runs.

    options: `service`, `apply`, `state_dir`, `mqtt_url`, `root`, `require`, … (`opening.Options`).
    `config_manager.client.aio.open_config` and `.actor.open_config` are the two it chooses from.
    """
    import sys

    seams: dict[str, Any] = {**options}  # the one that is chosen knows its own
    if "trio" in sys.modules:
        import sniffio

        if sniffio.current_async_library() == "trio":
            from config_manager.client import actor

            return actor.open_config(model, apply=apply, **seams)
    from config_manager.client import aio

    return aio.open_config(model, apply=apply, **seams)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'subscriber')}"), name)
