"""A pydantic-settings source: a service with `BaseSettings` adopts by adding one line.

    class Settings(BaseSettings):
        settings_customise_sources = delivered("stt-worker")

Arguments → environment → `.env` → what was delivered last → secret files → defaults. Read once, when
the class is instantiated, from the verified last-known-good file: no network. Something has to fetch
it: `open_config`, or `config-manager client run` beside the service.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from config_manager.client.cache import Cache, KeptBroken
from config_manager.client.identity import load_identity
from config_manager.client.opening import default_state_dir
from config_manager.client.saying import say
from config_manager.config.errors import SettingsInvalid
from config_manager.config.names import parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World


def delivered(service: str, *, state_dir: Path | str | None = None) -> Any:
    """For `settings_customise_sources`. state_dir: None is "as the environment says"."""
    name = parse_service(service)

    def settings_customise_sources(
        _: type[BaseSettings],
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        ours = DeliveredSource(settings_cls, name, state_dir)
        return init_settings, env_settings, dotenv_settings, ours, file_secret_settings

    return classmethod(settings_customise_sources)


class DeliveredSource(PydanticBaseSettingsSource):
    """What was last delivered to a service and verified. Empty where nothing was, or can be trusted:
    the log says which, and the service starts all the same."""

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        service: str,
        state_dir: Path | str | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__(settings_cls)
        directory = Path(state_dir or default_state_dir(os.environ))
        self._values = _read(directory, service, world or World())

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        known = self.settings_cls.model_fields
        return {key: value for key, value in self._values.items() if key in known}


def _read(directory: Path, service: str, world: World) -> JsonObject:
    try:
        identity = load_identity(directory, world)
        cache = Cache(directory, parse_service(service), identity.file_key, identity.roots, world)
        kept = cache.load()
    except (SettingsInvalid, KeptBroken, OSError) as error:
        say(logging.WARNING, "nothing delivered", service=service, detail=str(error))
        return {}
    if kept is None or kept.to_start_with is None:
        return {}
    update, _ = kept.to_start_with
    # what the server only filled in is the server's default: the service has its own
    return {k: v for k, v in update.config.items() if k not in update.defaulted}
