"""A service's JSON Schema, compiled once: what its values look like, what is wrong with some. Pure.

Values are judged as the service gets them, defaults filled in: a rule such as `if` would else hold for what is
only absent. Errors are found key by key and by asking yes or no: what the library says of a large
value under nested `anyOf` can be a million times the value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import jsonschema_rs
import orjson

from config_manager.config import wire
from config_manager.config.catalogue import Effective
from config_manager.config.errors import FieldError, InvalidValues, SchemaInvalid
from config_manager.config.names import pointer
from config_manager.config.schema_words import in_words, listed, unknown_key
from config_manager.config.strict_json import JsonObject, dumps, is_list, is_object
from config_manager.storage.decisions.schema_form import (
    MAX_REGEX_BYTES,
    complaints,
    is_secret,
    referenced,
    subschemas,
)

MOST_ERRORS = 50
"""Named in one answer, which must not be many times larger than its request."""
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
        self.digest = digest_of(schema)
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

    def errors(self, stored: JsonObject) -> list[FieldError]:
        """What is wrong with stored values, which hold no secrets; nothing if they are allowed.

        An error names a key, or what within it, and what is allowed there. At most 50, and how many more. Values
        that are too large to be sent are not judged: who writes them is told so (`TooLarge`).
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
        found = list(dict.fromkeys(self._found(stored, config)))
        if len(found) > MOST_ERRORS:
            return [*found[:MOST_ERRORS], FieldError("", f"and {len(found) - MOST_ERRORS} more")]
        return found

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
        given = {k: v for k, v in delivered.config.items() if k not in delivered.defaulted}
        config = {**self.defaults, **given}
        return self._reader.is_valid(config) and all(
            _holds(one, config) for one in self.comparisons
        )

    def takes(self, key: str, value: Any) -> bool:
        """Whether a key by itself takes a value."""
        return key in self.properties and self._of_key[key].is_valid(value)

    # ── finding errors ─────────────────────────────────────────────────────────────────────────

    def _found(self, stored: JsonObject, config: JsonObject) -> Iterator[FieldError]:
        for key in stored:
            if key not in self.properties:
                yield FieldError(pointer(key), self._unknown(key))
            elif key in self.secrets:
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

    def _unknown(self, key: str) -> str:
        shown = [name for name in self.keys if name not in self.secrets]
        return unknown_key(key[:80], self.keys, shown)

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


class Rule:
    """One rule over several keys: `if`, `then` and `else`, or `dependentRequired` of one key."""

    def __init__(self, schema: JsonObject) -> None:
        self.schema = schema
        self.validator = compiled(schema)

    def broken(
        self, config: JsonObject, properties: Mapping[str, JsonObject], secrets: frozenset[str]
    ) -> Iterator[FieldError]:
        """What to say of values that break it: of each key that it demands something of. A missing secret is
        none of it: values never hold one."""
        schema = self.schema
        if "dependentRequired" in schema:
            [(key, needed)] = schema["dependentRequired"].items()
            for name in needed:
                if name not in config and name not in secrets:
                    yield self._missing(name, properties, f"because {key} is set")
            return
        held = "if" in schema and compiled(schema["if"]).is_valid(config)
        demanded = schema.get("then" if held else "else", True)
        because = _because(schema.get("if"), config, properties, held=held)
        demands = demanded if is_object(demanded) else {}
        said, secret = False, False
        for name in demands.get("required", ()):
            if name in secrets:
                secret = True
            elif name not in config:
                said = True
                yield self._missing(name, properties, because)
        for name, one in demands.get("properties", {}).items():
            if name in config and not compiled(one).is_valid(config[name]):
                said = True
                allowed = {**properties.get(name, {}), **one} if is_object(one) else one
                yield FieldError(pointer(name), f"expected {in_words(allowed)}, {because}")
        rest = {k: v for k, v in demands.items() if k not in ("required", "properties")}
        if not said and not (secret and compiled(rest).is_valid(config)):
            names = listed(sorted(names_in(schema) & config.keys())) or "these keys"
            yield FieldError("", f"{names} do not go together, {because}")

    @staticmethod
    def _missing(name: str, properties: Mapping[str, JsonObject], because: str) -> FieldError:
        expected = in_words(properties.get(name, True))
        return FieldError(pointer(name), f"required: expected {expected}, {because}")


def rules_of(rules: JsonObject) -> Iterator[Rule]:
    """Each rule by itself."""
    for one in rules.get("allOf", ()):
        yield Rule(one)
    if "if" in rules:
        yield Rule({name: rules[name] for name in ("if", "then", "else") if name in rules})
    for key, needed in rules.get("dependentRequired", {}).items():
        yield Rule({"dependentRequired": {key: needed}})


def names_in(rule: Any) -> frozenset[str]:
    """The keys that a rule mentions where it speaks of the service's values themselves."""
    if not is_object(rule):
        return frozenset()
    found: set[str] = {*rule.get("properties", {}), *rule.get("required", ())}
    for key, needed in rule.get("dependentRequired", {}).items():
        found |= {key, *needed}
    for keyword, _, item in subschemas(rule):
        if keyword in ("if", "then", "else", "not", "allOf", "anyOf", "oneOf", "dependentSchemas"):
            found |= names_in(item)
    return frozenset(found | rule.get("dependentSchemas", {}).keys())


def _because(
    condition: Any, config: JsonObject, properties: Mapping[str, JsonObject], *, held: bool
) -> str:
    """Why a rule applies: the keys of its condition, and what they are now."""
    names = sorted(names_in(condition))[:4]
    told: list[str] = []
    for name in names:
        if is_secret(properties.get(name)):
            continue
        if name not in config:
            told.append(f"{name} is not set")
        else:
            value = config[name]
            text = value if isinstance(value, str) else dumps(value).decode()
            told.append(f"{name} is {text if len(text) <= 40 else text[:37] + '…'}")  # noqa: PLR2004
    if told:
        return "because " + " and ".join(told)
    return "because of a rule of the schema" if held else "by a rule of the schema"


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Inlining:
    """Replaces every `$ref` by what it names, which has a form that ends."""

    def __init__(self, definitions: JsonObject) -> None:
        self._definitions = definitions
        self._known: dict[str, Any] = {}

    def __call__(self, schema: Any) -> Any:
        if is_list(schema):
            return [self(one) for one in schema]
        if not is_object(schema):
            return schema
        own = {
            **schema,
            **{keyword: schema[keyword].copy() for keyword in _HOLDERS & schema.keys()},
        }
        for keyword, path, item in subschemas(schema):
            if len(path) == 1:
                own[keyword] = self(item)
            else:
                own[keyword][path[1]] = self(item)
        name = referenced(own)
        return own if name is None else self._beside(name, own)

    def _beside(self, name: str, own: JsonObject) -> JsonObject:
        """What is named, and what stands beside the reference."""
        del own["$ref"]
        if name not in self._known:
            self._known[name] = self(self._definitions[name])
        target = self._known[name]
        if is_object(target) and not (target.keys() & own.keys() - _SAID_BY_BOTH):
            return {**target, **own}
        return {**own, "allOf": [target, *own.get("allOf", ())]}


_HOLDERS = frozenset(
    {
        "allOf",
        "anyOf",
        "oneOf",
        "prefixItems",
        "dependentSchemas",
        "patternProperties",
        "properties",
    }
)
_SAID_BY_BOTH = frozenset(
    {"title", "description", "default", "examples", "x-level", "x-unit", "x-allowed"}
)
"""Of these the reference's own counts, beside what it names."""


def compiled(schema: Any) -> Any:
    """A validator. schema: JSON Schema 2020-12 that was checked already."""
    return jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=True,
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_REGEX_BYTES),
    )


def digest_of(schema: JsonObject) -> str:
    """SHA-256 (hex) of a schema as JSON with sorted keys, without spaces."""
    return hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()


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
