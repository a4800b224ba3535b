"""A schema with every `$ref` replaced by what it names. Pure."""

from __future__ import annotations

from typing import Any

from config_manager.config.strict_json import JsonObject, is_list, is_object
from config_manager.storage.decisions.schema_vocabulary import referenced, subschemas


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
