"""What a service's settings look like: a pydantic model per service, with metadata per field.

A model's fields are the keys of the service's configuration; `setting` describes one for people. A
service without a model takes any JSON object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from config_manager.config import wire
from config_manager.config.errors import FieldError, InvalidValues
from config_manager.config.names import pointer
from config_manager.config.schema_words import MOST_ERRORS, first, in_words, unknown_keys
from config_manager.config.strict_json import JsonObject, is_object

SettingLevel = Literal["simple", "advanced"]


class ServiceSettings(BaseModel):
    """Base of the catalogue's models: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    SERVICE: ClassVar[str]


def setting(
    default: Any,
    description: str,
    *,
    level: SettingLevel = "advanced",
    unit: str | None = None,
    secret: bool = False,
    allowed: str | None = None,
    **limits: Any,
) -> Any:
    """A field of a service's model.

    description: for the person who chooses a value. unit: of a number. allowed: what the field takes,
    if the limits alone don't say it. limits: pydantic's (`ge`, `le`, `min_length`, `pattern`, …).
    """
    extra: dict[str, Any] = {"x-level": level}
    if unit is not None:
        extra["x-unit"] = unit
    if allowed is not None:
        extra["x-allowed"] = allowed
    if secret:
        extra |= {"x-secret": True, "writeOnly": True}
    return Field(default, description=description, json_schema_extra=extra, **limits)


class Effective(NamedTuple):
    """What a service runs: stored values over defaults, without secrets. defaulted: keys not stored."""

    config: JsonObject
    defaulted: tuple[str, ...]

    @property
    def given(self) -> JsonObject:
        """Without what was only filled in: code has its own defaults for that."""
        return {key: value for key, value in self.config.items() if key not in self.defaulted}


class ModelShape:
    """A shape (`storage.decisions.shapes.Shape`) by a pydantic model, which checks by itself."""

    def __init__(self, model: type[ServiceSettings]) -> None:
        fields = model.model_fields
        self.service = model.SERVICE
        self.keys = tuple(fields)
        self.secrets = _marked(fields, "x-secret")
        self.restart_required = _marked(fields, "x-restart-required")
        defaults = model().model_dump(mode="json")
        self.defaults: JsonObject = {k: v for k, v in defaults.items() if k not in self.secrets}
        self._model = model
        self.schema: JsonObject = model.model_json_schema()
        """JSON Schema (2020-12) of the service's settings with our metadata."""
        self.digest = schema_digest(self.schema)
        properties = self.schema.get("properties", {})
        self._allowed = {name: in_words(one) for name, one in properties.items()}

    def errors(self, stored: JsonObject, most: int | None = MOST_ERRORS) -> list[FieldError]:
        """An entry for each wrong field, which says what it takes. stored: without secret keys. most: of them, and
        how many more; None: all."""
        try:
            self._model.model_validate(stored)
        except ValidationError as error:
            return first(self._field_errors(error), most)
        return []

    def check_secret(self, name: str, value: str) -> None:
        """Raises InvalidValues (pointer /name or /value) unless the model has this secret and takes
        this value. The message never contains the value."""
        if name not in self.secrets:
            names = ", ".join(sorted(self.secrets)) or "none"
            detail = f"{self.service} has no such secret; its secrets: {names}"
            raise InvalidValues("unknown secret", [FieldError("/name", detail)])
        try:
            self._model.model_validate({name: value})
        except ValidationError:
            detail = f"expected {self._allowed[name]}"
            raise InvalidValues(
                "not a value for this secret", [FieldError("/value", detail)]
            ) from None

    def effective(self, stored: JsonObject) -> Effective:
        """Stored values over the model's defaults, in the model's order, without secret keys."""
        defaulted = tuple(key for key in self.defaults if key not in stored)
        return Effective({**self.defaults, **stored}, defaulted)

    def _field_errors(self, error: ValidationError) -> list[FieldError]:
        allowed = self._allowed
        found: dict[str, str] = {}
        unknown: list[str] = []
        for item in error.errors(include_url=False, include_input=False):
            location = item["loc"]
            key = str(location[0]) if location else ""
            if item["type"] == "extra_forbidden":
                unknown.append(key)
            elif item["type"] == "value_error":
                # a rule over several fields names the one to change: "key: what it takes"
                message = item["msg"].removeprefix("Value error, ")
                named, separator, rest = message.partition(": ")
                if not key and separator and named in allowed:
                    found[pointer(named)] = rest
                else:
                    found[pointer(key) if key else ""] = message
            else:
                found.setdefault(pointer(key), f"expected {allowed.get(key, 'something else')}")
        said = unknown_keys(unknown, self.keys, self.defaults)
        found |= zip(map(pointer, unknown), said, strict=True)
        return [FieldError(where, detail) for where, detail in found.items()]


class Catalogue:
    """The known services. Pure and immutable: pass it in."""

    def __init__(self, models: Iterable[type[ServiceSettings]] = ()) -> None:
        self._known = {model.SERVICE: ModelShape(model) for model in models}

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(sorted(self._known))

    def shape(self, service: str) -> ModelShape | None:
        """What its model says the service takes; None without a model."""
        return self._known.get(service)


def schema_text(schema: JsonObject) -> bytes:
    """A schema as it is kept, digested and compared: JSON with its members in order, without spaces."""
    return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)


def schema_digest(schema: JsonObject) -> str:
    """SHA-256 (hex) of `schema_text`."""
    return wire.digest(schema_text(schema))


def _marked(fields: Mapping[str, FieldInfo], mark: str) -> frozenset[str]:
    return frozenset(name for name, field in fields.items() if _extra(field).get(mark))


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if is_object(extra) else {}
