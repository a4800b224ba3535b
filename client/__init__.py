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
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

M = TypeVar("M", bound="BaseModel")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from pydantic import BaseModel

    from config_manager.actors.mqtt.port import Transport
    from config_manager.client.drivers import asyncio_connection
    from config_manager.client.drivers.follower import Follower
    from config_manager.client.drivers.live_config import LiveConfig, OpenConfig
    from config_manager.client.drivers.opening import OptionArguments
    from config_manager.client.drivers.threads import Config
    from config_manager.client.drivers.trio_driver import follow
    from config_manager.client.model.precedence import Explanation
    from config_manager.client.rules.events import Applied, Deleted, Event, Fresh, Refused, Stale
    from config_manager.client.rules.todo import Change, NotNow
    from config_manager.client.state.identity import trust_init
    from config_manager.config.errors import (
        ConfigManagerError,
        ConfigurationStale,
        ForkedAway,
        InvalidName,
        KeyFileUnsafe,
        NothingDelivered,
        RootRefused,
        SettingsInvalid,
    )
    from config_manager.config.world import World

    class _OptionsAndSeams(OptionArguments, total=False):
        connect: asyncio_connection.Connect | None
        transport: Transport | None
        world: World | None


__all__ = [
    "Applied",
    "Change",
    "Config",
    "ConfigManagerError",
    "ConfigurationStale",
    "Deleted",
    "Event",
    "Explanation",
    "Follower",
    "ForkedAway",
    "Fresh",
    "InvalidName",
    "KeyFileUnsafe",
    "LiveConfig",
    "NotNow",
    "NothingDelivered",
    "OpenConfig",
    "Refused",
    "RootRefused",
    "SettingsInvalid",
    "Stale",
    "follow",
    "open_config",
    "trust_init",
]

_HOMES = {
    "client.drivers.trio_driver": ("follow",),
    "client.drivers.live_config": ("LiveConfig", "OpenConfig"),
    "client.rules.events": ("Applied", "Deleted", "Event", "Fresh", "Refused", "Stale"),
    "client.drivers.follower": ("Follower",),
    "client.state.identity": ("trust_init",),
    "client.model.precedence": ("Explanation",),
    "client.drivers.threads": ("Config",),
    "client.rules.todo": ("Change", "NotNow"),
    "config.errors": (
        "ConfigManagerError",
        "ConfigurationStale",
        "ForkedAway",
        "InvalidName",
        "KeyFileUnsafe",
        "NothingDelivered",
        "RootRefused",
        "SettingsInvalid",
    ),
}
"""module → what of it stands here; loaded when it is used"""


def open_config(
    model: type[M],
    *,
    apply: Callable[[Change[M]], Awaitable[None] | None] | None = None,
    **options: Unpack[_OptionsAndSeams],
) -> AbstractAsyncContextManager[LiveConfig[M]]:
    """A service's typed, live configuration, under asyncio or Trio, whichever runs where it is entered.

    apply: asked before a change (`Change`); may be async and slow. If it raises, the change is refused; if
    it raises NotNow, it is asked again. options: `service`, `state_dir`, `mqtt_url`, `require`, … with their
    units and defaults in `config_manager.client.drivers.opening.Options`.

    Raises TypeError for what is no model, or a callback that can't run. Entering raises SettingsInvalid,
    InvalidName, KeyFileUnsafe, RootRefused, and NothingDelivered with `require=True`. With
    `on_stale="stop"` the block is cancelled later, and raises ConfigurationStale.
    """
    from config_manager.client.model.validating import complete

    complete(model, frames_up=1)
    return _Opening(model, {**options, "apply": apply})


class _Opening(AbstractAsyncContextManager["LiveConfig[M]"], Generic[M]):
    def __init__(self, model: type[M], given: dict[str, Any]) -> None:
        self._model = model
        self._given = given  # the driver that is chosen knows its own seams
        self._opened: AbstractAsyncContextManager[LiveConfig[M]]

    async def __aenter__(self) -> LiveConfig[M]:
        from config_manager.client.drivers.loops import runs_trio

        if runs_trio():
            from config_manager.client.drivers import trio_driver

            self._opened = trio_driver.open_config(self._model, **self._given)
        else:
            from config_manager.client.drivers import asyncio_driver

            self._opened = asyncio_driver.open_config(self._model, **self._given)
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, traceback)


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"config_manager.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
