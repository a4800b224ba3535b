"""A service's JSON Schema, compiled once: what its values look like, what is wrong with some. Pure.

Values are judged as the service gets them, defaults filled in: a rule such as `if` would else hold for what is
only absent. Errors are found key by key and by asking yes or no: what the library says of a large
value under nested `anyOf` can be a million times the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeGuard

import jsonschema_rs

from config_manager.config import wire
from config_manager.config.catalogue import Effective, schema_digest
from config_manager.config.errors import FieldError, InvalidValues, SchemaInvalid
from config_manager.config.names import pointer
from config_manager.config.schema_words import MOST_ERRORS, first, in_words, listed, unknown_keys
from config_manager.config.strict_json import JsonObject, dumps, is_list, is_object
from config_manager.storage.decisions.references import Inlining
from config_manager.storage.decisions.schema_form import complaints
from config_manager.storage.decisions.schema_rules import Rule, rules_of
from config_manager.storage.decisions.schema_vocabulary import MAX_REGEX_BYTES, is_secret
from config_manager.storage.decisions.validators import compiled

_LARGEST_CONFIG = wire.MAX_ENVELOPE_BYTES * 3 // 4
"""A larger one can't be sent: an envelope holds it in base64."""
_RULES = ("allOf", "if", "then", "else", "dependentRequired")


class CompiledSchema:
    """A `Shape`. Immutable.

    schema: as it was given. digest: its SHA-256 (hex) as JSON with sorted keys, without spaces. keys: every key,
    secret ones too, in order. defaults: of keys that aren't secret. properties: each key's schema,
    every `$ref` in it replaced by what it names. rules: what judges several keys at once, likewise.
    """

    def __init__(self, schema: JsonObject) -> None:
        """schema: out of `strict_json.loads`. Raises SchemaInvalid, which names all that is outside the form."""
        if wrong := complaints(schema) or _meta_complaints(schema):
            raise SchemaInvalid("not a schema that a service can have", wrong)
        self.schema = schema
        self.digest = schema_digest(schema)
        inline = Inlining(schema.get("$defs", {}))
        self.properties: Mapping[str, JsonObject] = {
            key: inline(one) for key, one in schema.get("properties", {}).items()
        }
        self.keys = tuple(self.properties)
        self.secrets = frozenset(key for key, one in self.properties.items() if is_secret(one))
        self.restart_required = frozenset(
            key for key, one in self.properties.items() if one.get("x-restart-required") is True
        )
        self.defaults: JsonObject = {
            key: one["default"]
            for key, one in self.properties.items()
            if "default" in one and key not in self.secrets
        }
        self.required = frozenset(schema.get("required", ())) - self.secrets
        self.comparisons: tuple[JsonObject, ...] = tuple(schema.get("x-compare", ()))
        self.rules: JsonObject = {name: inline(schema[name]) for name in _RULES if name in schema}
        self.closed = schema.get("additionalProperties") is False
        """Whether code with this schema refuses keys that it doesn't know. What is stored has none anyway."""
        self._top = {
            "type": "object",
            "properties": dict(self.properties),
            "required": sorted(self.required),
        }
        self._writer = compiled({**self._top, **self.rules})
        self._check_defaults()

    def effective(self, stored: JsonObject) -> Effective:
        """Stored values over the defaults, in the schema's order, without secret keys."""
        defaulted = tuple(key for key in self.defaults if key not in stored)
        return Effective({**self.defaults, **stored}, defaulted)

    def errors(self, stored: JsonObject, most: int | None = MOST_ERRORS) -> list[FieldError]:
        """What is wrong with stored values, which hold no secrets; nothing if they are allowed.

        An error names a key, or what within it, and what is allowed there. most: of them, and how many more; None:
        all. Values that are too large to be sent are not judged: who writes them is told so (`TooLarge`).
        """
        config = self.effective(stored).config
        if len(dumps(config)) > _LARGEST_CONFIG:
            return []
        known = self.properties
        if (
            all(key in known and key not in self.secrets for key in stored)
            and all(map(_holds, self.comparisons, [config] * len(self.comparisons)))
            and self._writer.is_valid(config)
        ):
            return []
        return first(list(dict.fromkeys(self._found(stored, config))), most)

    def check_secret(self, name: str, value: str) -> None:
        """Raises InvalidValues (pointer /name or /value) unless there is this secret and it takes this
        value. The message never contains the value."""
        if name not in self.secrets:
            detail = f"no such secret; the secrets: {listed(sorted(self.secrets)) or 'none'}"
            raise InvalidValues("unknown secret", [FieldError("/name", detail)])
        if not self._of_key[name].is_valid(value):
            detail = f"expected {in_words(self.properties[name])}"
            raise InvalidValues("not a value for this secret", [FieldError("/value", detail)])

    def reads(self, delivered: Effective) -> bool:
        """Whether code that was built with this schema takes what is delivered: its own defaults over those
        that were filled in, keys it doesn't know as `additionalProperties` says."""
        config = self.with_defaults(delivered)
        return self._reader.is_valid(config) and all(
            _holds(one, config) for one in self.comparisons
        )

    def with_defaults(self, delivered: Effective) -> JsonObject:
        """As code that was built with this schema runs it: its own defaults for what nobody set."""
        return {**self.defaults, **delivered.given}

    def takes(self, key: str, value: Any) -> bool:
        """Whether a key by itself takes a value."""
        return key in self.properties and self._of_key[key].is_valid(value)

    # ── finding errors ─────────────────────────────────────────────────────────────────────────

    def _found(self, stored: JsonObject, config: JsonObject) -> Iterator[FieldError]:
        unknown = [key for key in stored if key not in self.properties]
        shown = [name for name in self.keys if name not in self.secrets]
        for key, said in zip(unknown, unknown_keys(unknown, self.keys, shown), strict=True):
            yield FieldError(pointer(key), said)
        for key in stored:
            if key in self.secrets:
                yield FieldError(pointer(key), "a secret: set it with POST /api/v1/secrets")
        for key in self.properties:
            if key in config and key not in self.secrets:
                if not self._of_key[key].is_valid(config[key]):
                    yield self._deepest(key, config[key])
            elif key in self.required:
                yield FieldError(
                    pointer(key), f"required: expected {in_words(self.properties[key])}"
                )
        yield from self._broken_rules(config)
        for one in self.comparisons:
            if not _holds(one, config):
                words = "under" if one.get("strict") else "at most"
                upper = one["upper"]
                yield FieldError(
                    pointer(one["lower"]), f"expected {words} {upper} ({config[upper]})"
                )

    def _deepest(self, key: str, value: Any) -> FieldError:
        """The first wrong place within a key's value that can be told apart."""
        schema, path = self.properties[key], [key]
        while (step := _first_wrong(schema, value)) is not None:
            name, schema, value = step
            path.append(str(name))
        missing = _first_missing(schema, value)
        if missing is not None:
            name, expected = missing
            return FieldError(pointer(*path, name), f"required: expected {in_words(expected)}")
        return FieldError(pointer(*path), f"expected {in_words(schema)}")

    def _broken_rules(self, config: JsonObject) -> Iterator[FieldError]:
        for rule in self._each_rule:
            if rule.validator.is_valid(config):
                continue
            yield from rule.broken(config, self.properties, self.secrets)

    # ── compiled when first needed ─────────────────────────────────────────────────────────────

    @cached_property
    def _of_key(self) -> Mapping[str, Any]:
        return {key: compiled(one) for key, one in self.properties.items()}

    @cached_property
    def _reader(self) -> Any:
        rest = {
            name: self.schema[name]
            for name in ("additionalProperties", "patternProperties", "$defs")
            if name in self.schema
        }
        return compiled({**self._top, **self.rules, **rest})

    @cached_property
    def _each_rule(self) -> tuple[Rule, ...]:
        return tuple(rules_of(self.rules))

    def _check_defaults(self) -> None:
        wrong = [
            FieldError(pointer("properties", key, "default"), f"expected {in_words(one)}")
            for key, one in self.properties.items()
            if "default" in one and not compiled(one).is_valid(one["default"])
        ]
        if wrong:
            raise SchemaInvalid("a default that its key does not take", wrong[:MOST_ERRORS])


def _first_wrong(schema: Any, value: Any) -> tuple[str | int, Any, Any] | None:
    """Where a list's or an object's first wrong member is, what it has to be, what it is."""
    if not is_object(schema):
        return None
    items = schema.get("items")
    if is_list(value) and is_object(items) and "prefixItems" not in schema:
        validator = compiled(items)
        for index, item in enumerate(value):
            if not validator.is_valid(item):
                return index, items, item
    members = schema.get("properties")
    if is_object(value) and is_object(members):
        for name, one in members.items():
            if name in value and not compiled(one).is_valid(value[name]):
                return name, one, value[name]
    return None


def _first_missing(schema: Any, value: Any) -> tuple[str, Any] | None:
    if is_object(schema) and is_object(value):
        for name in schema.get("required", ()):
            if name not in value:
                return name, schema.get("properties", {}).get(name, True)
    return None


def _holds(comparison: JsonObject, config: JsonObject) -> bool:
    """Whether `lower` is at most `upper`, or under it if `strict`. Only numbers are compared."""
    lower, upper = config.get(comparison["lower"]), config.get(comparison["upper"])
    if not (_is_number(lower) and _is_number(upper)):
        return True
    return bool(lower < upper if comparison.get("strict") else lower <= upper)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _meta_complaints(schema: JsonObject) -> list[FieldError]:
    """What JSON Schema itself says is wrong with a schema of the right form."""
    bare = {name: value for name, value in schema.items() if name not in ("$id", "$schema")}
    try:
        compiled(bare)
    except jsonschema_rs.ValidationError as error:
        return [FieldError(pointer(*error.instance_path), _said(error))]
    except ValueError as error:
        return [FieldError("", str(error)[:200])]
    return []


def _said(error: jsonschema_rs.ValidationError) -> str:
    if error.instance_path[-1:] == ["pattern"] or "regex" in error.message[-10:]:
        return (
            "no regular expression that takes linear time: nothing looks ahead, behind or back in it; "
            f"compiled it has at most {MAX_REGEX_BYTES // 1024} KiB"
        )
    return error.message if len(error.message) <= 200 else f"{error.message[:197]}…"  # noqa: PLR2004
