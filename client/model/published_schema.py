"""The JSON Schema of a service's own model, as an instance publishes it: keys as they are delivered."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, cast

from pydantic import BaseModel

from config_manager.client.model.guarded import attempt
from config_manager.client.model.validating import has_own_sources
from config_manager.config import strict_json, wire
from config_manager.config.names import is_key
from config_manager.config.strict_json import JsonObject, is_object

_NOT_TOLD_OF_SECRETS = ("default", "examples", "enum", "const")


class PublishedSchema(NamedTuple):
    """digest: SHA-256 (hex) of `payload`, as receipts name it. payload: None if there is nothing to publish: the
    model takes anything, has no JSON Schema, or one over 64 KiB. Then the digest is of what can be told of its
    fields."""

    digest: str
    payload: bytes | None

    @property
    def named(self) -> str | None:
        """By what variants name it; None: nobody but us has seen it, so none is made for it."""
        return self.digest if self.payload is not None else None


@cache
def published_schema(
    model: type[BaseModel], restart_required: frozenset[str] = frozenset()
) -> PublishedSchema:
    """restart_required: keys that the service says of itself, beside those that its model marks."""
    if not model.model_fields and model.model_config.get("extra") == "allow":
        return _of_fields(model)
    said = attempt(lambda: strict_json.dumps_sorted(_schema(model, restart_required)), b"")
    if not said or len(said) > wire.MAX_SCHEMA_BYTES:
        return _of_fields(model)
    return PublishedSchema(wire.digest(said), said)


def _of_fields(model: type[BaseModel]) -> PublishedSchema:
    kinds = {key: repr(info.annotation) for key, info in model.model_fields.items()}
    said = "".join(f"{key}: {kinds[key]}\n" for key in sorted(kinds)).encode(errors="replace")
    return PublishedSchema(wire.digest(said), None)


def _schema(model: type[BaseModel], restart_required: frozenset[str]) -> JsonObject:
    schema = _at_the_top(model.model_json_schema())
    names = list(_at_the_top(model.model_json_schema(by_alias=False))["properties"])
    told: JsonObject = schema["properties"]
    if len(told) != len(names):
        raise ValueError("two fields have one alias")
    keys = {name: _key(name) for name in names}
    properties = {
        key: _property(cast("JsonObject", said), name in restart_required)
        for (name, key), said in zip(keys.items(), told.values(), strict=True)
        if key is not None
    }
    needed = {name for name, info in model.model_fields.items() if info.is_required()}
    required = [key for name, key in keys.items() if key is not None and name in needed]
    schema = {**schema, "properties": properties, "required": required}
    if not required:
        del schema["required"]
    if has_own_sources(model) and model.model_config.get("extra") != "allow":
        # it forbids what it does not know, but only in its own variables
        schema.pop("additionalProperties", None)
    return schema


def _at_the_top(schema: JsonObject) -> JsonObject:
    """The object itself: a model that holds itself is a reference to its definition."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return {**schema["$defs"][name], "$defs": schema["$defs"]} if name else schema


def _key(name: str) -> str | None:
    """Under which a field is delivered; None: under none, because no server takes such a key."""
    return next((key for key in (name, name.lower()) if is_key(key)), None)


def _property(said: JsonObject, needs_restart: bool) -> JsonObject:
    if needs_restart:
        said = {**said, "x-restart-required": True}
    if not _is_secret(said):
        return said
    # a default of a secret is one, too
    told = {name: value for name, value in said.items() if name not in _NOT_TOLD_OF_SECRETS}
    return {**told, "x-secret": True, "writeOnly": True}


def _is_secret(said: JsonObject) -> bool:
    """One of pydantic's secret types, or one of these or null; or a field that says so."""
    options: list[Any] = said.get("anyOf", [])
    return bool(
        said.get("x-secret")
        or said.get("writeOnly")
        or any(is_object(one) and one.get("writeOnly") for one in options)
    )
