"""What the environment and `.env` say instead of what is delivered: text in, JSON values out.

They are read once, at the start: the environment of a process does not change later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from config_manager.client.judging import in_words
from config_manager.config import strict_json
from config_manager.config.errors import SettingsInvalid

Place = Literal["environment", ".env"]


@dataclass(frozen=True, slots=True)
class Override:
    """One key's value, from a variable: where it stands, its name, and the JSON value of its text."""

    place: Place
    name: str
    value: Any = field(repr=False)


def env_prefix(service: str) -> str:
    """`stt-worker` → `STT_WORKER_`."""
    return service.upper().replace("-", "_") + "_"


def read_overrides(
    model: type[BaseModel],
    prefix: str,
    *,
    environment: Mapping[str, str],
    env_file: Mapping[str, str | None] | None = None,
) -> dict[str, Override]:
    """By key; the environment wins. Raises SettingsInvalid, naming the variable, where a text does not
    fit its key."""
    found: dict[str, Override] = {}
    upper_environment = {name.upper(): value for name, value in environment.items()}
    upper_file = {name.upper(): value for name, value in (env_file or {}).items()}
    for key, info in model.model_fields.items():
        name = (prefix + key).upper()
        if (text := upper_environment.get(name)) is not None:
            found[key] = Override("environment", name, _parsed(name, text, info))
        elif (text := upper_file.get(name)) is not None:
            found[key] = Override(".env", name, _parsed(name, text, info))
    return found


def _parsed(name: str, text: str, field: FieldInfo) -> Any:
    """A variable's text as JSON value of the field's type."""
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = Annotated[kind, constraint]
    adapter = TypeAdapter[Any](kind)
    try:
        value = adapter.validate_strings(text)
    except ValidationError as as_text:
        try:
            value = adapter.validate_json(text)  # lists and objects are written as JSON
        except ValidationError:
            raise SettingsInvalid(f"{name}: {in_words(as_text)}") from None
    return _as_json(name, text, value, adapter)


def _as_json(name: str, text: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
    """What reads back as the value; its own dump often does, but a secret's is a row of stars."""
    spelled: list[Callable[[], Any]] = [
        lambda: adapter.dump_python(value, mode="json"),
        lambda: text,
        lambda: strict_json.loads(text.encode()),
    ]
    for spell in spelled:
        with suppress(ValueError, TypeError):  # not JSON at all, or nothing that the type takes
            candidate = spell()
            if adapter.validate_json(strict_json.dumps(candidate)) == value:
                return candidate
    raise SettingsInvalid(f"{name}: this text has no equal in JSON")
