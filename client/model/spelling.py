"""The names of a field: its own, those under which pydantic takes it, those under which it is delivered."""

from __future__ import annotations

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo

Key = str | AliasPath


def delivered_names(model: type[BaseModel]) -> dict[str, str]:
    """Other names under which a field may be delivered → its own.

    The server's keys are lower case, so a field `DATABASE_URL` is delivered as `database_url`.
    """
    named: dict[str, str] = {}
    fields = model.model_fields
    for spell in (str, str.lower):
        for key, info in fields.items():
            aliases = [name for name in _aliases(info) if isinstance(name, str)]
            for name in map(spell, [*aliases, key]):
                if name not in fields:
                    named.setdefault(name, key)
    return named


def taken_under(model: type[BaseModel]) -> dict[str, tuple[Key, ...]]:
    """By field: the keys under which the model takes its value, the preferred one first."""
    config = model.model_config
    by_alias = config.get("validate_by_alias") is not False
    said = (config.get("validate_by_name"), config.get("populate_by_name"))
    by_name = next((word for word in said if word is not None), not by_alias)
    found: dict[str, tuple[Key, ...]] = {}
    for key, info in model.model_fields.items():
        others = _aliases(info) if by_alias else []
        # a text first: a path leads into a value that others share
        keys: list[Key] = sorted(others, key=lambda other: not isinstance(other, str))
        if by_name or not keys:
            keys.append(key)
        found[key] = tuple(keys)
    return found


def _aliases(info: FieldInfo) -> list[Key]:
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return list(alias.choices)
    return [] if alias is None else [alias]
