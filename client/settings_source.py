"""A pydantic-settings source: a service with `BaseSettings` adopts by adding one line.

    class Settings(BaseSettings):
        settings_customise_sources = delivered("stt-worker")

Arguments → environment → `.env` → what was delivered last → secret files → defaults. What was delivered is
read once, when the class is instantiated, from the verified last-known-good file, without a network. Another
process has to fetch it: one with `open_config`, or `config-manager client run` beside the service.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pydantic import AliasPath, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
)

from config_manager.client.model.guarded import attempt
from config_manager.client.model.spelling import Key, delivered_names, taken_under
from config_manager.client.rules.deliveries import Deliveries
from config_manager.client.state import env_file
from config_manager.client.state.cache import Cache, KeptBroken
from config_manager.client.state.claim import Onlooker
from config_manager.client.state.env_file import Lines
from config_manager.client.state.identity import load_identity
from config_manager.client.state.log import say
from config_manager.client.state.places import default_state_dir, expanded
from config_manager.config import strict_json
from config_manager.config.errors import SettingsInvalid, StartError
from config_manager.config.names import parse_instance, parse_service
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import World

_WHERE = ("CONFIG_MANAGER_STATE_DIR", "CONFIG_MANAGER_INSTANCE")
_OURS = frozenset({*_WHERE, "CONFIG_MANAGER_MQTT_URL", "CONFIG_MANAGER_ROOT"})


def delivered(
    service: str, *, state_dir: Path | str | None = None, instance: str | None = None
) -> Any:
    """For `settings_customise_sources`. None is "as the environment says", or as the class's `env_file` says.

    Raises InvalidName for a service's name that is none.
    """
    name = parse_service(service)

    def settings_customise_sources(
        _: type[BaseSettings],
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        lines = _our_lines(settings_cls, dotenv_settings)
        ours = DeliveredSource(settings_cls, name, state_dir, instance=instance, lines=lines)
        return init_settings, env_settings, dotenv_settings, ours, file_secret_settings

    return classmethod(settings_customise_sources)


class DeliveredSource(PydanticBaseSettingsSource):
    """What was last delivered to a service, verified. It is empty if nothing was delivered, or if that can't
    be trusted: the log says which, and the service starts all the same."""

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        service: str,
        state_dir: Path | str | None = None,
        world: World | None = None,
        *,
        instance: str | None = None,
        lines: Lines | None = None,
    ) -> None:
        """lines: of `.env`, where ours count; None: of the files that the class names."""
        super().__init__(settings_cls)
        self._service = service
        self._state_dir = state_dir
        self._world = world or World()
        self._instance = instance
        self._lines = lines

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, keys in taken_under(self.settings_cls).items():
            path = _path(keys, self.current_state)
            if field in self._values and path is not None:
                _put(found, path, self._as_its_type(field))
        if self.config.get("extra") == "allow":
            known = self.settings_cls.model_fields
            found |= {key: value for key, value in self._values.items() if key not in known}
        return found

    def _as_its_type(self, field: str) -> Any:
        """A strict model takes a date's text only from JSON, but sources are read as Python values."""
        value, info = self._values[field], self.settings_cls.model_fields[field]
        is_strict = self.config.get("strict") or any(
            getattr(one, "strict", False) for one in info.metadata
        )
        if not is_strict:
            return value
        return attempt(
            lambda: TypeAdapter[Any](cast("Any", info.annotation)).validate_json(
                strict_json.dumps(value)
            ),
            value,
        )

    @cached_property
    def _values(self) -> JsonObject:
        """By the fields' own names."""
        lines = self._lines
        if lines is None:
            lines = _our_lines(self.settings_cls, DotEnvSettingsSource(self.settings_cls))
        said = env_file.ours_in(os.environ, lines)
        directory = expanded(self._state_dir or default_state_dir(said))
        instance = self._instance or said.get("CONFIG_MANAGER_INSTANCE") or None
        names = delivered_names(self.settings_cls)
        values = _read(directory, self._service, instance, self._world)
        return {names.get(key, key): value for key, value in values.items()}


def _path(keys: tuple[Key, ...], state: Mapping[str, Any]) -> list[str] | None:
    """Where a field's value goes: where a higher source put one, because two keys for one field clash; else
    under the key that pydantic prefers. None: only into a list, which a source can't make."""
    paths = [list(key.path) if isinstance(key, AliasPath) else [key] for key in keys]
    passable = [[str(part) for part in path] for path in paths if not set(map(type, path)) - {str}]
    taken = (path for path in passable if len(path) == 1 and path[0] in state)
    if any(path[0] in state for path in paths if int in map(type, path)):
        return None
    return next(taken, next(iter(passable), None))


def _put(found: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        found = found.setdefault(part, {})
    found[path[-1]] = value


def _our_lines(settings_cls: type[BaseSettings], dotenv: PydanticBaseSettingsSource) -> Lines:
    """The client's variables in the class's own `.env`, taken out: the class would not know them."""
    theirs: Mapping[str, str | None] = getattr(dotenv, "env_vars", {})

    def is_ours(name: str) -> bool:
        return name.upper() in _OURS and name.lower() not in settings_cls.model_fields

    if not any(map(is_ours, theirs)):
        return {}
    kept = {name: value for name, value in theirs.items() if not is_ours(name)}
    dotenv.env_vars = kept  # type: ignore[attr-defined]
    as_written = {name: value for name, value in _read_again(dotenv).items() if is_ours(name)}
    return {name.upper(): value for name, value in as_written.items()}


def _read_again(dotenv: Any) -> Lines:
    """Without the environment's values filled in. A pipe can't be read again, and holds none of ours."""
    if all(os.environ.get(name) for name in _WHERE):
        return {}
    try:
        files = env_file.found(dotenv.env_file, getattr(dotenv, "env_file_depth", None) or 0)
        files = [file for file in files if file.is_file()]
        return env_file.read_all(files, dotenv.env_file_encoding or "utf-8")
    except SettingsInvalid as error:
        say(logging.WARNING, ".env not read", detail=str(error))
        return {}


def _read(directory: Path, service: str, instance: str | None, world: World) -> JsonObject:
    """What an operator set, and the secrets that came with it."""
    try:
        identity = load_identity(directory, world)
        name, looks = parse_service(service), Onlooker(directory, service)
        cache = Cache(directory, name, identity.file_key, identity.roots, world, looks)
        kept = cache.load()
    except (StartError, KeptBroken, OSError) as error:
        say(logging.WARNING, "nothing delivered", service=service, detail=str(error))
        return {}
    if kept is None or kept.to_start_with is None:
        return {}
    update, _ = kept.to_start_with
    cache.say_if_older(kept)
    # what the server only filled in is the server's default: the service has its own
    values = {k: v for k, v in update.config.items() if k not in update.defaulted}
    own_name = parse_instance(instance) if instance else identity.instance
    deliveries = Deliveries(service, own_name, identity.seal_key, kept.sealed, identity.roots)
    secrets = deliveries.values(update, identity.roots[-1], at_a_start=True) or {}
    return {**values, **{key: secret.reveal() for key, secret in secrets.items()}}
