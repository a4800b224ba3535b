"""Rules of a schema that judge several keys at once, and what to say of values that break one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from config_manager.config.errors import FieldError
from config_manager.config.names import pointer
from config_manager.config.schema_words import in_words, listed
from config_manager.config.strict_json import JsonObject, dumps, is_object
from config_manager.storage.decisions.schema_vocabulary import is_secret, subschemas
from config_manager.storage.decisions.validators import compiled


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
