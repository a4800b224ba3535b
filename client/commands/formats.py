"""A configuration as other programs read it: environment, JSON, TOML, YAML, or through a template."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from string import Template
from typing import Any, Literal, cast, get_args

from config_manager.client.model.overrides import env_prefix
from config_manager.config import strict_json
from config_manager.config.errors import SettingsInvalid
from config_manager.config.strict_json import JsonObject

Format = Literal["env", "json", "toml", "yaml"]
FORMATS: tuple[Format, ...] = get_args(Format)


def to_environment(service: str, config: JsonObject, prefix: str | None = None) -> dict[str, str]:
    """`STT_WORKER_VAD_THRESHOLD` → `0.5`. Text as it is, null as an empty text, the rest as JSON."""
    first = env_prefix(service) if prefix is None else prefix
    return {(first + key).upper(): _as_text(value) for key, value in config.items()}


def render(service: str, config: JsonObject, form: Format, prefix: str | None = None) -> str:
    """The configuration as a file's text, with a newline at its end.

    env: quoted for a shell's `.`; toml leaves null out, which it can't say.
    """
    match form:
        case "env":
            pairs = to_environment(service, config, prefix).items()
            return "".join(f"{name}={shlex.quote(value)}\n" for name, value in pairs)
        case "json":
            return strict_json.dumps(config).decode() + "\n"
        case "toml":
            import tomli_w

            return tomli_w.dumps(_without_null(config))
        case "yaml":
            import yaml

            # escaped beyond ASCII: PyYAML's own reader stumbles over some of what it would write
            return str(yaml.safe_dump(config, sort_keys=False))


def fill_in(template: str, config: JsonObject) -> str:
    """`${whisper_model}` → the value; `$$` is a dollar. Raises SettingsInvalid for an unknown key."""
    try:
        return Template(template).substitute({k: _as_text(v) for k, v in config.items()})
    except KeyError as error:
        known = ", ".join(config) or "none"
        raise SettingsInvalid(
            f"the template asks for {error.args[0]!r}, which the configuration has not; it has: "
            f"{known}"
        ) from None
    except ValueError as error:
        raise SettingsInvalid(f"the template: {error} ($$ stands for a dollar)") from None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else strict_json.dumps(value).decode()


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        pairs = cast("JsonObject", value).items()
        return {k: _without_null(v) for k, v in pairs if v is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in cast("Sequence[Any]", value) if item is not None]
    return value
